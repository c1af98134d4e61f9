/* SPDX-License-Identifier: MIT */
/*
 * Model-specific registers: numbers, bits (SDM vol. 4; APM vol. 2 "MSRs"), and access with and
 * without a safety net.
 */
#pragma once

#include "arch/x86/fault.h"
#include "lib/types.h"

#define MSR_TSC			0x10
#define MSR_APIC_BASE		0x1b
#define APIC_BASE_BSP		BIT(8)
#define APIC_BASE_X2APIC	BIT(10)
#define APIC_BASE_ENABLE	BIT(11)
#define MSR_DEBUGCTL		0x1d9
#define MSR_TEST_CTRL		0x33 /* arch/x86/split_lock.h */
#define TEST_CTRL_SPLIT_LOCK	BIT(29)
#define TEST_CTRL_NO_LOCK	BIT(31)
#define MSR_TSC_ADJUST		0x3b
#define MSR_FEATURE_CONTROL	0x3a
#define FEATURE_CONTROL_LOCK	BIT(0)
#define FEATURE_CONTROL_VMX	BIT(2)
#define MSR_UCODE_REV		0x8b
#define MSR_CORE_CAPABILITIES	0xcf
#define CORE_CAP_SPLIT_LOCK	BIT(5)
#define MSR_ARCH_CAPABILITIES	0x10a
#define ARCH_CAP_PSCHANGE_MC_NO BIT(6) /* not subject to iTLB multihit */
#define MSR_SYSENTER_CS		0x174
#define MSR_SYSENTER_ESP	0x175
#define MSR_SYSENTER_EIP	0x176
#define MSR_MCG_CAP		0x179 /* then MCG_STATUS */
#define MSR_MISC_ENABLE		0x1a0
#define MSR_PAT			0x277
#define MSR_MC0_CTL		0x400 /* then status, address, and more about it */
#define MSR_VMX_BASIC		0x480
#define MSR_VMX_PINBASED_CTLS	0x481 /* then of the processor, of exits, of entries */
#define MSR_VMX_MISC		0x485
#define MSR_VMX_CR0_FIXED0	0x486
#define MSR_VMX_CR0_FIXED1	0x487
#define MSR_VMX_CR4_FIXED0	0x488
#define MSR_VMX_CR4_FIXED1	0x489
#define MSR_VMX_VMCS_ENUM	0x48a
#define MSR_VMX_PROCBASED_CTLS2 0x48b
#define MSR_VMX_EPT_VPID_CAP	0x48c
#define MSR_VMX_TRUE_PINBASED	0x48d /* then the same */
#define MSR_VMX_VMFUNC		0x491
#define MSR_VMX_PROCBASED_CTLS3 0x492
#define MSR_MCG_EXT_CTL		0x4d0
#define MSR_TSC_DEADLINE	0x6e0
#define MSR_X2APIC_BASE		0x800
#define MSR_EFER		0xc0000080
#define EFER_SCE		BIT(0)
#define EFER_LME		BIT(8)
#define EFER_LMA		BIT(10)
#define EFER_NXE		BIT(11)
#define EFER_SVME		BIT(12)
#define EFER_FFXSR		BIT(14)
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_CSTAR		0xc0000083
#define MSR_SFMASK		0xc0000084
#define MSR_FS_BASE		0xc0000100
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102
#define MSR_TSC_AUX		0xc0000103
#define MSR_K8_INT_PENDING	0xc0010055
#define MSR_VM_CR		0xc0010114
#define VM_CR_LOCK		BIT(3)
#define VM_CR_SVMDIS		BIT(4)
#define MSR_VM_HSAVE_PA		0xc0010117

/* Corbel's PAT: the power-on value, except entry 5, which is write-combining (framebuffer). */
#define HOST_PAT  0x0007010600070406ull
#define PAT_RESET 0x0007040600070406ull

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;
	u64 value;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	value = lo | (u64)hi << 32;
	if (fault_here(FAULT_RDMSR, msr, &value) == FAULT_GP)
		__builtin_trap(); /* as #GP would be: there is no net */
	return value;
}

static inline void wrmsr(u32 msr, u64 value)
{
	u32 fault = fault_here(FAULT_WRMSR, msr, NULL);

	if (fault == FAULT_GP)
		__builtin_trap();
	if (fault)
		return;
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

/* As above, but a #GP becomes -EIO (and *value 0) by the exception table. */
int rdmsr_safe(u32 msr, u64 *value);
int wrmsr_safe(u32 msr, u64 value) MUST_CHECK;
/* Guest state, in the CPU while a vCPU is loaded: RDTSCP's number. 0, or -EIO: there is none. */
static inline int write_tsc_aux(u64 value)
{
	return wrmsr_safe(MSR_TSC_AUX, value);
}
