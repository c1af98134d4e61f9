/* SPDX-License-Identifier: MIT */
/*
 * Feature bits that guests may see. Not listed, and therefore hidden, among others: MCE, MCA, MTRR
 * (guests see PAT only), MONITOR, VMX, SVM, PMU (PDCM, leaf 0xA), DS, thermal and power bits, SGX,
 * PT, RDT, TSC_ADJUST, HLE, RTM, MPX, WAITPKG, LA57, PKU (page walks don't check protection keys),
 * CET, AMX, XSAVES, user interrupts, IBRS, STIBP, SSBD, IBPB, ARCH_CAPABILITIES (their MSRs aren't
 * on the list of MSRs), TOPOEXT (topology is told by leaves 1, 0xB and 80000008), OSVW, IBS, FFXSR,
 * TCE.
 */
#include "virt/cpuid.h"

#define XCR0_AVX    MASK(2, 0)
#define XCR0_AVX512 (MASK(7, 5) | XCR0_AVX)

const struct cpuid_allow cpuid_allow[] = {
	{ CAP_1_ECX, BIT(0) | BIT(9) | BIT(19) | BIT(20), 0, "SSE3 to SSE4.2: plain instructions" },
	{ CAP_1_ECX, BIT(1) | BIT(25), 0, "PCLMULQDQ, AES: plain instructions" },
	{ CAP_1_ECX, BIT(13) | BIT(22) | BIT(23), 0, "CMPXCHG16B, MOVBE, POPCNT: likewise" },
	{ CAP_1_ECX, BIT(17), 0, "PCID: CR3 and CR4.PCIDE are the guest's own with nested paging" },
	{ CAP_1_ECX, BIT(26), MASK(1, 0), "XSAVE: XCR0 is switched with the vCPU" },
	{ CAP_1_ECX, BIT(28) | BIT(12) | BIT(29), XCR0_AVX, "AVX, FMA, F16C: state in XCR0" },
	{ CAP_1_ECX, BIT(30), 0, "RDRAND: entropy at boot; does not exit" },

	{ CAP_1_EDX, BIT(0) | BIT(1) | BIT(2) | BIT(3), 0, "FPU, VME, DE, PSE: state is switched" },
	{ CAP_1_EDX, BIT(4), 0, "TSC: with the VM's offset" },
	{ CAP_1_EDX, BIT(5), 0, "MSR: by the list of MSRs" },
	{ CAP_1_EDX, BIT(6) | BIT(13) | BIT(17), 0, "PAE, PGE, PSE-36: the guest's own tables" },
	{ CAP_1_EDX, BIT(8) | BIT(15), 0, "CMPXCHG8B, CMOV: plain instructions" },
	{ CAP_1_EDX, BIT(11), 0, "SYSENTER: its three MSRs are switched" },
	{ CAP_1_EDX, BIT(16), 0, "PAT: switched; stage 2 lets it decide on RAM" },
	{ CAP_1_EDX, BIT(19), 0, "CLFLUSH: plain instruction" },
	{ CAP_1_EDX, BIT(23) | BIT(24) | BIT(25) | BIT(26), 0, "MMX, FXSR, SSE, SSE2: switched" },
	{ CAP_1_EDX, BIT(27), 0, "self-snoop: a property of the caches" },

	{ CAP_7_EBX, BIT(0), 0, "FSGSBASE: segment bases are switched" },
	{ CAP_7_EBX, BIT(3) | BIT(8) | BIT(19), 0, "BMI1, BMI2, ADX: plain instructions" },
	{ CAP_7_EBX, BIT(5), XCR0_AVX, "AVX2: state in XCR0" },
	{ CAP_7_EBX, BIT(6) | BIT(13), 0, "how the FPU saves its pointers: what the CPU does" },
	{ CAP_7_EBX, BIT(7) | BIT(20), 0, "SMEP, SMAP: guest CR4; Corbel's walks check them too" },
	{ CAP_7_EBX, BIT(9), 0, "ERMS: a speed hint" },
	{ CAP_7_EBX, BIT(10), 0, "INVPCID: enabled by the backend where the CPU has it" },
	{ CAP_7_EBX, BIT(18), 0, "RDSEED: does not exit" },
	{ CAP_7_EBX, BIT(23) | BIT(24), 0, "CLFLUSHOPT, CLWB: plain instructions" },
	{ CAP_7_EBX, BIT(29), 0, "SHA: plain instructions" },
	{ CAP_7_EBX, BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31), XCR0_AVX512,
	  "AVX-512 F, DQ, IFMA, CD, BW, VL: state in XCR0" },

	{ CAP_7_ECX, BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14), XCR0_AVX512,
	  "AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ: state in XCR0" },
	{ CAP_7_ECX, BIT(2), 0, "UMIP: guest CR4" },
	{ CAP_7_ECX, BIT(8), 0, "GFNI: plain instructions" },
	{ CAP_7_ECX, BIT(9) | BIT(10), XCR0_AVX, "VAES, VPCLMULQDQ: state in XCR0" },
	{ CAP_7_ECX, BIT(22), 0, "RDPID: TSC_AUX is switched" },
	{ CAP_7_ECX, BIT(25) | BIT(27) | BIT(28), 0, "CLDEMOTE, MOVDIRI, MOVDIR64B: plain stores" },

	{ CAP_7_EDX, BIT(4), 0, "FSRM: a speed hint" },
	{ CAP_7_EDX, BIT(8), XCR0_AVX512, "VP2INTERSECT: state in XCR0" },
	{ CAP_7_EDX, BIT(10), 0, "MD_CLEAR: VERW does its work in a guest" },
	{ CAP_7_EDX, BIT(14), 0, "SERIALIZE: plain instruction" },

	{ CAP_7_1_EAX, BIT(4) | BIT(23), XCR0_AVX, "AVX-VNNI, AVX-IFMA: state in XCR0" },
	{ CAP_7_1_EAX, BIT(5), XCR0_AVX512, "AVX512-BF16: state in XCR0" },
	{ CAP_7_1_EAX, BIT(10) | BIT(11) | BIT(12), 0, "fast short REP MOVS, STOS, CMPS: hints" },

	{ CAP_D_1_EAX, BIT(0) | BIT(1) | BIT(2), MASK(1, 0),
	  "XSAVEOPT, XSAVEC, XGETBV(1): only XCR0's state (XSAVES would need XSS)" },

	{ CAP_80000001_ECX, BIT(0) | BIT(5) | BIT(8), 0, "LAHF, LZCNT, PREFETCHW: plain" },
	{ CAP_80000001_ECX, BIT(6) | BIT(7) | BIT(21), 0, "SSE4A, misaligned SSE, TBM: plain" },
	{ CAP_80000001_ECX, BIT(11) | BIT(16), XCR0_AVX, "XOP, FMA4: state in XCR0" },

	{ CAP_80000001_EDX, BIT(11) | BIT(20) | BIT(29), 0,
	  "SYSCALL, NX, long mode: EFER switched" },
	{ CAP_80000001_EDX, BIT(22) | BIT(30) | BIT(31), 0, "MMX extensions, 3DNow!: plain" },
	{ CAP_80000001_EDX, BIT(26), 0, "1 GiB pages in the guest's own tables" },
	{ CAP_80000001_EDX, BIT(27), 0, "RDTSCP: TSC_AUX is switched" },

	{ CAP_80000007_EDX, BIT(8), 0,
	  "invariant TSC: the offset is constant, its rate the host's" },

	{ CAP_80000008_EBX, BIT(0) | BIT(2), 0, "CLZERO, XSAVE of error pointers: plain" },

	{ CAP_80000021_EAX, BIT(0) | BIT(2) | BIT(6), 0,
	  "data breakpoints, LFENCE and null selectors: what the CPU does" },
};

const u32 cpuid_allow_count = ARRAY_SIZE(cpuid_allow);
