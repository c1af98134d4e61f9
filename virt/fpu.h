/* SPDX-License-Identifier: MIT */
/*
 * x87, SSE, AVX, ... state and XCR0 of vCPUs. Corbel itself uses none of it, so it is switched only
 * when a vCPU is loaded or taken off, wholly: every component that the machine can have, whatever
 * the guest's XCR0 says, so that nothing leaks between VMs.
 */
#pragma once

#include "lib/types.h"

#define FPU_ORDER 2 /* 16 KiB hold every component up to AMX */

struct vcpu;

/*
 * Boot, each CPU with the same values: the components to switch (0: no XSAVE, FXSAVE is used).
 * -ENOSPC: more than FPU_ORDER holds.
 */
int fpu_init(u64 xcr0);
/* A power-on image. */
void fpu_reset(void *area);
/* Bytes of an image. */
u32 fpu_size(void);
/* Can it be loaded, whoever made it? Else that would be #GP. */
bool fpu_valid(const void *area);
/* SDM "XSETBV": x87 always; AVX needs SSE; the AVX-512 parts only together, and with AVX. */
static inline bool fpu_xcr0_valid(u64 xcr0, u64 allowed)
{
	return xcr0 & 1 && !(xcr0 & ~(allowed | 1)) && (!(xcr0 & 4) || xcr0 & 2) &&
	       (!(xcr0 & 0xe0) || ((xcr0 & 0xe0) == 0xe0 && xcr0 & 4));
}
/* On the runner, interrupts off. */
void fpu_load(struct vcpu *v);
void fpu_put(struct vcpu *v);
/* v->xcr0 as it is now: where XSETBV is not intercepted, the guest changes it by itself. */
void fpu_read_xcr0(struct vcpu *v);
