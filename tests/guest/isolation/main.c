/* SPDX-License-Identifier: MIT */
/*
 * Two VMs at once on one CPU: neither sees the other's registers.
 *
 * copies: 2
 */
#include "tests/guest/lib/apic.h"

#define ROUNDS 150

/* Differs from VM to VM: their names do. */
static u64 seed(void)
{
	u64 x = 0xcbf29ce484222325;

	for (const char *p = vm_name; *p; p++)
		x = (x ^ (u8)*p) * 0x100000001b3;
	return x | 1;
}

/* Let the other VM run: halt until the timer. */
static void give_way(void)
{
	apic_write(APIC_LVT_TIMER, 0x50);
	apic_write(APIC_TMICT, tsc_khz / 20);
	asm volatile("sti; hlt; cli" : : : "memory");
}

TEST(debug_registers, "DR0 to DR3, DR6 and DR7, and no breakpoint of the other VM fires here")
{
	u64 s = seed() & 0x7ffffffff000;
	u32 bad = 0;

	for (u32 i = 0; i < ROUNDS; i++) {
		write_dr0(s + i);
		write_dr1(s + i + 1);
		write_dr2(s + i + 2);
		write_dr3(s + i + 3);
		write_dr6(0xffff0ff0 | (s >> 12 & 0xf));
		write_dr7(0x400 | (i & 1 ? 0xd0000001 : 0));
		give_way();
		bad += read_dr0() != s + i || read_dr1() != s + i + 1 || read_dr2() != s + i + 2 ||
		       read_dr3() != s + i + 3 || (read_dr6() & 0xf) != (s >> 12 & 0xf) ||
		       read_dr7() != (0x400 | (i & 1 ? 0xd0000001 : 0));
	}
	write_dr7(0x400);
	EXPECT(bad, 0);
}

TEST(vector_registers, "XMM registers and MXCSR")
{
	u64 s = seed(), out[2];
	u32 bad = 0, mxcsr = s & 2 ? 0x1f80 : 0x7f80, seen;

	for (u32 i = 0; i < ROUNDS; i++) {
		u64 in[2] = { s + i, ~s };

		asm volatile("movups %0, %%xmm3; movups %0, %%xmm15; ldmxcsr %1"
			     :
			     : "m"(in), "m"(mxcsr));
		give_way();
		asm volatile("movups %%xmm3, %0; stmxcsr %1" : "=m"(out), "=m"(seen));
		bad += memcmp(in, out, sizeof(in)) || seen != mxcsr;
		asm volatile("movups %%xmm15, %0" : "=m"(out));
		bad += !!memcmp(in, out, sizeof(in));
	}
	asm volatile("ldmxcsr %0" : : "m"((u32){ 0x1f80 }));
	EXPECT(bad, 0);
}

TEST(wide_registers, "YMM registers and XCR0")
{
	u64 s = seed(), out[4];
	u32 bad = 0;

	if (!has(1, 'c', 26) || !has(1, 'c', 28))
		skip("no AVX");
	write_cr4(read_cr4() | X86_CR4_OSXSAVE);
	for (u32 i = 0; i < ROUNDS; i++) {
		u64 in[4] = { s + i, ~s, s * 3, s * 5 }, xcr0 = (i ^ s >> 1) & 1 ? 3 : 7;

		xsetbv0(7);
		asm volatile("vmovups %0, %%ymm7" : : "m"(in));
		xsetbv0(xcr0);
		give_way();
		bad += xgetbv0() != xcr0;
		xsetbv0(7);
		asm volatile("vmovups %%ymm7, %0" : "=m"(out));
		bad += !!memcmp(in, out, sizeof(in));
	}
	EXPECT(bad, 0);
}

TEST(msrs, "the MSRs that are passed through, CR2, and the LAPIC's registers")
{
	static const u32 msrs[] = { MSR_STAR,	 MSR_LSTAR,   MSR_CSTAR,       MSR_KERNEL_GS_BASE,
				    MSR_FS_BASE, MSR_GS_BASE, MSR_SYSENTER_EIP };
	u64 s = seed() & 0x7fffffff;
	u32 bad = 0;

	for (u32 i = 0; i < ROUNDS; i++) {
		for (u32 m = 0; m < ARRAY_SIZE(msrs); m++)
			wrmsr(msrs[m], s + i + m);
		write_cr2(s * i);
		apic_write(APIC_LVT_ERROR, APIC_LVT_MASKED | (s & 0xff));
		give_way();
		for (u32 m = 0; m < ARRAY_SIZE(msrs); m++)
			bad += rdmsr(msrs[m]) != s + i + m;
		bad += read_cr2() != s * i;
		bad += (apic_read(APIC_LVT_ERROR) & 0xff) != (s & 0xff);
	}
	EXPECT(bad, 0);
}

TEST(memory, "the same address holds what this VM wrote")
{
	volatile u64 *p = (volatile u64 *)0xd00000;
	u64 s = seed();
	u32 bad = 0;

	EXPECT(*p, 0);
	for (u32 i = 0; i < ROUNDS; i++) {
		*p = s + i;
		give_way();
		bad += *p != s + i;
	}
	EXPECT(bad, 0);
}

TEST(tsc_aux, "TSC_AUX, where a guest has it")
{
	u64 s = seed() & 0xffff;
	u32 bad = 0, lo, hi, aux;

	NEED(0x80000001, 'd', 27, "RDTSCP");
	for (u32 i = 0; i < ROUNDS; i++) {
		wrmsr(MSR_TSC_AUX, s + i);
		give_way();
		asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		bad += aux != s + i;
	}
	EXPECT(bad, 0);
}
