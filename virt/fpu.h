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
/* On the runner, interrupts off. */
void fpu_load(struct vcpu *v);
void fpu_put(struct vcpu *v);
/* v->xcr0 as it is now: where XSETBV is not intercepted, the guest changes it by itself. */
void fpu_read_xcr0(struct vcpu *v);
