/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/fpu.h"
#include "virt/vcpu.h"

#define XSAVE_HEADER 512
#define FCW_RESET    0x37f
#define MXCSR_RESET  0x1f80

static u64 components;

int fpu_init(u64 xcr0)
{
	struct cpuid_regs here = cpuid(0xd, 0);

	components = xcr0;
	if (!xcr0)
		return 0;
	/* The record may be another CPU's: XSETBV must not fault here. */
	if (!(read_cr4() & X86_CR4_OSXSAVE) || xcr0 & ~(here.eax | (u64)here.edx << 32))
		return trace_error(-EOPNOTSUPP);
	xsetbv0(xcr0);
	if (cpuid(0xd, 0).ebx > PAGE_SIZE << FPU_ORDER)
		return trace_error(-ENOSPC);
	return 0;
}

void fpu_reset(void *area)
{
	memset(area, 0, PAGE_SIZE << FPU_ORDER);
	*(u16 *)area = FCW_RESET;
	*(u32 *)((u8 *)area + 24) = MXCSR_RESET;
	/* XSTATE_BV: x87 and SSE from the image, the rest initial */
	*(u64 *)((u8 *)area + XSAVE_HEADER) = 3;
}

void fpu_load(struct vcpu *v)
{
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
