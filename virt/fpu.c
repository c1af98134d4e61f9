/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/fpu.h"
#include "virt/vcpu.h"

#define XSAVE_HEADER 512
#define FCW_RESET    0x37f
#define MXCSR_RESET  0x1f80
#define MXCSR	     24	    /* offset */
#define MXCSR_BITS   0xffff /* that every CPU has */

static u64 components;
static u32 size = XSAVE_HEADER; /* without XSAVE */
static bool keeps_pointers;	/* some CPU does not always restore FIP, FDP and FOP */

/* APM vol. 3 "CPUID Fn8000_0008_EBX": FXSAVE, XSAVE and their counterparts handle them always. */
static bool restores_pointers(void)
{
	return cpuid(0x80000000, 0).eax >= 0x80000008 && cpuid(0x80000008, 0).ebx & BIT(2);
}

/*
 * Where they don't, the x87 instruction and data pointers of the last vCPU would stay for the next
 * one to see, unless its own state has an exception pending: an FILD of ours overwrites them. It
 * must not find a full stack or a pending exception.
 */
static void forget_pointers(void)
{
	static const u32 zero;

	if (keeps_pointers)
		asm volatile("fnclex\n\temms\n\tfildl %0" : : "m"(zero));
}

int fpu_init(u64 xcr0)
{
	struct cpuid_regs here = cpuid(0xd, 0);

	components = xcr0;
	if (!restores_pointers())
		WRITE_ONCE(keeps_pointers, true);
	if (!xcr0)
		return 0;
	/* The record may be another CPU's: XSETBV must not fault here. */
	if (!(read_cr4() & X86_CR4_OSXSAVE) || xcr0 & ~(here.eax | (u64)here.edx << 32))
		return trace_error(-EOPNOTSUPP);
	xsetbv0(xcr0);
	size = cpuid(0xd, 0).ebx;
	return size > PAGE_SIZE << FPU_ORDER ? trace_error(-ENOSPC) : 0;
}

void fpu_reset(void *area)
{
	memset(area, 0, MAX(size, XSAVE_HEADER + 64));
	*(u16 *)area = FCW_RESET;
	*(u32 *)((u8 *)area + MXCSR) = MXCSR_RESET;
	/* XSTATE_BV: x87 and SSE from the image, the rest initial */
	*(u64 *)((u8 *)area + XSAVE_HEADER) = 3;
}

u32 fpu_size(void)
{
	return size;
}

/* SDM "XSAVE Header": in the standard format all behind XSTATE_BV is 0. */
bool fpu_valid(const void *area)
{
	const u64 *header = (const void *)((const u8 *)area + XSAVE_HEADER);
	bool good = !(*(const u32 *)((const u8 *)area + MXCSR) & ~(u32)MXCSR_BITS);

	for (u32 i = 1; components && i < 8; i++)
		good &= !header[i];
	return good && (!components || !(header[0] & ~components));
}

void fpu_load(struct vcpu *v)
{
	forget_pointers();
	if (!components) {
		asm volatile("fxrstor64 (%0)" : : "r"(v->fpu) : "memory");
		return;
	}
	xsetbv0(components);
	asm volatile("xrstor64 (%0)" : : "r"(v->fpu), "a"(~0u), "d"(~0u) : "memory");
	xsetbv0(v->xcr0);
}

void fpu_read_xcr0(struct vcpu *v)
{
	if (components)
		v->xcr0 = xgetbv0();
}

void fpu_put(struct vcpu *v)
{
	if (!components) {
		asm volatile("fxsave64 (%0)" : : "r"(v->fpu) : "memory");
		return;
	}
	fpu_read_xcr0(v);
	xsetbv0(components);
	asm volatile("xsave64 (%0)" : : "r"(v->fpu), "a"(~0u), "d"(~0u) : "memory");
}
