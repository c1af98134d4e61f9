/* SPDX-License-Identifier: MIT */
/*
 * FPU, SSE and AVX state: across exits and HLT, and between vCPUs. (Two VMs on one CPU: the group
 * isolation.)
 *
 * vm: vcpus = 2
 */
#include "tests/guest/lib/apic.h"

static u8 in[2][16 * 32] ALIGNED(64), out[2][16 * 32] ALIGNED(64);

static void fill(u32 seed)
{
	for (u32 i = 0; i < sizeof(in[0]); i++)
		in[seed][i] = (u8)(i * 7 + seed * 101 + 1);
}

#define EACH(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define SSE_LOAD(n)  "movups " #n "*16(%0), %%xmm" #n "\n"
#define SSE_STORE(n) "movups %%xmm" #n ", " #n "*16(%0)\n"
#define AVX_LOAD(n)  "vmovups " #n "*32(%0), %%ymm" #n "\n"
#define AVX_STORE(n) "vmovups %%ymm" #n ", " #n "*32(%0)\n"

static void load(bool avx, u32 seed)
{
	fill(seed);
	if (avx)
		asm volatile(EACH(AVX_LOAD) : : "r"(in[seed]) : "memory");
	else
		asm volatile(EACH(SSE_LOAD) : : "r"(in[seed]) : "memory");
}

static bool kept(bool avx, u32 seed)
{
	if (avx)
		asm volatile(EACH(AVX_STORE) : : "r"(out[seed]) : "memory");
	else
		asm volatile(EACH(SSE_STORE) : : "r"(out[seed]) : "memory");
	return !memcmp(in[seed], out[seed], avx ? 512 : 256);
}

TEST(sse_exits, "XMM registers stay across exits")
{
	load(false, 0);
	for (u32 i = 0; i < 100; i++) {
		cpuid(0xd, 0);
		outb(0x80, 0);
		apic_write(APIC_TPR, 0);
	}
	EXPECT_TRUE(kept(false, 0));
}

static bool avx_on(void)
{
	if (!has(1, 'c', 26) || !has(1, 'c', 28))
		return false;
	write_cr4(read_cr4() | X86_CR4_OSXSAVE);
	xsetbv0(7);
	return true;
}

TEST(avx_exits, "YMM registers stay across exits")
{
	if (!avx_on())
		skip("no AVX");
	load(true, 0);
	for (u32 i = 0; i < 100; i++) {
		cpuid(0xd, 0);
		outb(0x80, 0);
	}
	EXPECT_TRUE(kept(true, 0));
}

TEST(xcr0_exits, "XCR0 stays as the guest has it, and YMM state while AVX is off")
{
	if (!avx_on())
		skip("no AVX");
	load(true, 0);
	xsetbv0(3);
	outb(0x80, 0);
	asm volatile("pause");
	EXPECT(xgetbv0(), 3);
	xsetbv0(7);
	EXPECT_TRUE(kept(true, 0));
}

static void other(void *arg)
{
	bool avx = arg && avx_on();
	u32 bad = 0;

	for (u32 i = 0; i < 40; i++) {
		load(avx, 1);
		/* leaves the CPU */
		apic_write(APIC_LVT_TIMER, 0x50);
		apic_write(APIC_TMICT, 20000);
		asm volatile("sti; hlt; cli" : : : "memory");
		bad += !kept(avx, 1);
	}
	EXPECT(bad, 0);
}

static void both(bool avx)
{
	u32 bad = 0;

	need_cpus(2);
	load(avx, 0);
	cpu_start(1, other, avx ? (void *)1 : NULL);
	WAIT_FOR((cpuid(0, 0), bad += !kept(avx, 0),
		  !__atomic_load_n(&cpu_of(1)->call, __ATOMIC_ACQUIRE)),
		 20000);
	cpu_wait(1);
	EXPECT(bad, 0);
}

TEST(sse_switches, "two vCPUs keep their XMM registers apart")
{
	both(false);
}

TEST(avx_switches, "and their YMM registers")
{
	if (!avx_on())
		skip("no AVX");
	both(true);
}

TEST(x87_control, "x87 control word and MXCSR stay across exits and switches")
{
	u16 fcw = 0x0c7f, seen = 0;
	u32 mxcsr = 0x7f80, seen_mxcsr = 0;

	need_cpus(2);
	asm volatile("fninit; fldcw %0; ldmxcsr %1" : : "m"(fcw), "m"(mxcsr));
	asm volatile("fld1; fldpi");
	cpu_call(1, other, NULL);
	outb(0x80, 0);
	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(seen), "=m"(seen_mxcsr));
	EXPECT(seen, fcw);
	EXPECT(seen_mxcsr, mxcsr);
	asm volatile("fnstsw %0" : "=m"(seen));
	EXPECT(seen >> 11 & 7, 6); /* two on the stack */
	asm volatile("fninit; ldmxcsr %0" : : "m"((u32){ 0x1f80 }));
}

static void fresh(void *arg)
{
	u64 *seen = arg;
	u16 fcw;

	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(fcw), "=m"(*(u32 *)&seen[1]));
	seen[0] = fcw;
}

TEST(reset_state, "a vCPU that was never used has the state after power-on")
{
	u64 seen[2] = { 0 };

	need_cpus(2);
	cpu_restart(1);
	cpu_call(1, fresh, seen);
	EXPECT((u32)seen[1], 0x1f80);
	EXPECT_TRUE(seen[0] == 0x37f || seen[0] == 0x40);
}

TEST(xsave, "XSAVE and XRSTOR, and XSAVEOPT and XSAVEC where CPUID shows them")
{
	u8 *area = pages(1);

	if (!avx_on())
		skip("no AVX");
	load(true, 0);
	asm volatile("xsave64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
	EXPECT(((u64 *)area)[64] & 7, 7);
	asm volatile("vzeroall");
	outb(0x80, 0);
	asm volatile("xrstor64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
	EXPECT_TRUE(kept(true, 0));
	if (cpuid(0xd, 1).eax & 1)
		EXPECT(TRY("xsaveopt64 (%0)", : : "r"(area), "a"(7), "d"(0) : "memory"), NO_FAULT);
	if (cpuid(0xd, 1).eax & 2)
		EXPECT(TRY("xsavec64 (%0)", : : "r"(area), "a"(7), "d"(0) : "memory"), NO_FAULT);
	EXPECT(TRY("xsaves64 (%0)", : : "r"(area), "a"(7), "d"(0) : "memory"), UD);
}
