/* SPDX-License-Identifier: MIT */
/*
 * What CPUID tells: only what Corbel lists, consistent with itself, the same on each vCPU but for
 * its number; and the instruction's length with any prefix.
 *
 * vm: vcpus = 3
 */
#include "tests/guest/lib/test.h"

#define HYPERVISOR_LEAF 0x40000000

TEST(vendor, "leaf 0 names the vendor that the backend is for")
{
	struct cpuid_regs r = cpuid(0, 0);

	EXPECT_TRUE(r.eax >= 0xd && r.eax <= 0x20);
	EXPECT_TRUE(r.ebx == 0x756e6547 || r.ebx == 0x68747541);
	if (!on_intel()) {
		EXPECT(cpuid(0x80000000, 0).ebx, r.ebx);
		EXPECT(cpuid(0x80000000, 0).edx, r.edx);
	}
}

TEST(hypervisor_signature, "the hypervisor bit, KVM's signature, kvmclock")
{
	struct cpuid_regs r = cpuid(HYPERVISOR_LEAF, 0);

	EXPECT_TRUE(has(1, 'c', 31));
	EXPECT(r.ebx, 0x4b4d564b);
	EXPECT(r.ecx, 0x564b4d56);
	EXPECT(r.edx, 0x4d);
	EXPECT_TRUE(r.eax >= HYPERVISOR_LEAF + 0x10);
	EXPECT_TRUE(has(HYPERVISOR_LEAF + 1, 'a', 3));
	EXPECT_TRUE(cpuid(HYPERVISOR_LEAF + 0x10, 0).eax > 1000);
}

TEST(hidden_features, "nothing is shown that a guest cannot have")
{
	EXPECT(has(1, 'c', 3), 0);	       /* MONITOR */
	EXPECT(has(1, 'c', 5), 0);	       /* VMX */
	EXPECT(has(1, 'c', 15), 0);	       /* PDCM */
	EXPECT(has(1, 'd', 7), 0);	       /* MCE */
	EXPECT(has(1, 'd', 12), 0);	       /* MTRR */
	EXPECT(has(1, 'd', 14), 0);	       /* MCA */
	EXPECT(has(1, 'd', 21), 0);	       /* DS */
	EXPECT(has(7, 'b', 2), 0);	       /* SGX */
	EXPECT(has(7, 'c', 16), 0);	       /* LA57 */
	EXPECT(has(7, 'c', 3), 0);	       /* PKU */
	EXPECT(has(7, 'd', 29), 0);	       /* ARCH_CAPABILITIES */
	EXPECT(cpuid(0xd, 1).eax & BIT(3), 0); /* XSAVES */
	EXPECT(has(0x80000001, 'c', 2), 0);    /* SVM */
	EXPECT(cpuid(0xa, 0).eax, 0);
}

TEST(absent_leaves, "leaves that do not exist are zero")
{
	static const u32 leaves[] = { 3,	  8,	      0x12,	  0x14,	      0x1f,
				      0x40000002, 0x40000100, 0x80000030, 0xc0000000, ~0u };

	for (u32 i = 0; i < ARRAY_SIZE(leaves); i++) {
		struct cpuid_regs r = cpuid(leaves[i], 0);

		EXPECT(r.eax | r.ebx | r.ecx | r.edx, 0);
	}
}

TEST(registers, "all four registers are written, with their upper halves cleared")
{
	u64 a = ~0ull << 32, b = ~0ull, c = ~0ull << 32, d = ~0ull;

	asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
	EXPECT((a | b | c | d) >> 32, 0);
	EXPECT(a, cpuid(0, 0).eax);
}

struct ids {
	u32 leaf1[MAX_CPUS], leafb[MAX_CPUS], differ;
	struct cpuid_regs first;
};

static void read_ids(void *arg)
{
	struct ids *ids = arg;
	struct cpuid_regs r = cpuid(1, 0), b = cpuid(0xb, 0);

	ids->leaf1[this_cpu()->index] = r.ebx >> 24;
	ids->leafb[this_cpu()->index] = b.edx;
	r.ebx &= 0xffffff;
	if (!this_cpu()->index)
		ids->first = r;
	else if (memcmp(&r, &ids->first, sizeof(r)))
		ids->differ++;
}

TEST(apic_ids, "each vCPU has its own APIC id; all else is the same")
{
	struct ids ids = { 0 };

	need_cpus(3);
	read_ids(&ids);
	for (u32 i = 1; i < cpu_count(); i++)
		cpu_call(i, read_ids, &ids);
	for (u32 i = 0; i < cpu_count(); i++) {
		EXPECT(ids.leaf1[i], i);
		EXPECT(ids.leafb[i], i);
	}
	EXPECT(ids.differ, 0);
}

TEST(topology, "leaves 1, 4 and 0xb agree on the number of vCPUs")
{
	need_cpus(3);
	EXPECT(cpuid(0xb, 1).ebx, cpu_count());
	EXPECT(cpuid(0xb, 0).ebx, 1);
	EXPECT(cpuid(0xb, 1).ecx, 0x201);
	EXPECT(cpuid(0xb, 2).ecx, 2);
	EXPECT(cpuid(0xb, 2).ebx, 0);
	EXPECT(has(1, 'd', 28), 1);
	EXPECT(cpuid(1, 0).ebx >> 16 & 0xff, 4);
}

TEST(osxsave, "OSXSAVE follows CR4 at once")
{
	NEED(1, 'c', 26, "XSAVE");
	EXPECT(has(1, 'c', 27), 0);
	write_cr4(read_cr4() | X86_CR4_OSXSAVE);
	EXPECT(has(1, 'c', 27), 1);
	write_cr4(read_cr4() & ~(u64)X86_CR4_OSXSAVE);
	EXPECT(has(1, 'c', 27), 0);
}

TEST(xsave_size, "leaf 0xd tells the size for XCR0 as it is now")
{
	NEED(1, 'c', 26, "XSAVE");
	write_cr4(read_cr4() | X86_CR4_OSXSAVE);
	xsetbv0(1);
	EXPECT(cpuid(0xd, 0).ebx, 576);
	if (!has(1, 'c', 28))
		skip("no AVX");
	xsetbv0(7);
	EXPECT(cpuid(0xd, 0).ebx, 832);
	EXPECT(cpuid(0xd, 2).eax, 256);
	EXPECT(cpuid(0xd, 2).ebx, 576);
	EXPECT_TRUE(cpuid(0xd, 0).ecx >= 832);
	xsetbv0(1);
}

/* A wrong length shows as a wrong count, or as a crash in the bytes behind. */
#define CPUID_WITH(prefixes)                                                              \
	asm volatile("xor %%eax, %%eax; xor %%ecx, %%ecx\n.byte " prefixes "0x0f, 0xa2\n" \
		     "inc %0"                                                             \
		     : "+r"(done)                                                         \
		     :                                                                    \
		     : "rax", "rbx", "rcx", "rdx")

TEST(prefixes, "CPUID with prefixes, up to 15 bytes, has the right length")
{
	u64 done = 0;

	CPUID_WITH("");
	CPUID_WITH("0x66, ");
	CPUID_WITH("0xf3, ");
	CPUID_WITH("0x2e, ");
	CPUID_WITH("0x48, ");
	CPUID_WITH("0x66, 0x67, 0x26, 0xf2, 0x4f, ");
	CPUID_WITH(
		"0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, ");
	EXPECT(done, 7);
}

TEST(across_a_page, "an instruction that exits and lies in two pages")
{
	static const u8 code[] = { 0x31, 0xc0, 0x0f, 0xa2, 0xb8, 0x39, 0x30, 0, 0, 0xc3 };

	/* xor eax, eax; cpuid; mov eax, 12345; ret */
	for (u32 n = 1; n < sizeof(code); n++) {
		u8 *p = (u8 *)pages(2) + PAGE_SIZE - n;
		u32 result = 0;

		memcpy(p, code, sizeof(code));
		asm volatile("call *%1" : "=&a"(result) : "r"(p) : "rbx", "rcx", "rdx", "memory");
		EXPECT(result, 12345);
	}
}

TEST(self_modified, "code that changes between two exits is read anew")
{
	u8 *p = pages(1);
	u32 done = 0;

	for (u32 i = 0; i < 20; i++) {
		/* nop or 66; cpuid; inc edi; ret; or HLT's neighbour: pause */
		const u8 code[] = { i % 2 ? 0x66 : 0x90, 0x0f, 0xa2, 0xff, 0xc7, 0xc3 };

		memcpy(p, code, sizeof(code));
		asm volatile("xor %%eax, %%eax; call *%1"
			     : "+D"(done)
			     : "r"(p)
			     : "rax", "rbx", "rcx", "rdx", "memory");
	}
	EXPECT(done, 20);
}

TEST(user_mode, "CPUID at CPL 3")
{
	struct user_regs regs = { 0 };

	EXPECT(USER_TRY(&regs, 0x53, 0x0f, 0xa2, 0x5b), NO_FAULT); /* push rbx; cpuid; pop rbx */
	EXPECT(regs.rax, cpuid(0, 0).eax);
	EXPECT(regs.rcx, cpuid(0, 0).ecx);
}
