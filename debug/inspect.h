/* SPDX-License-Identifier: MIT */
/*
 * Looking at what only one CPU can read: a vCPU's registers, an MSR. That CPU is asked by IPI;
 * no vCPU stops for longer than that takes, and it may be running, waiting, or stopped.
 */
#pragma once

#include "virt/vm.h"

/* Boot, before the first command. */
void inspect_init(void);

/*
 * Run f(v, arg) where v is loaded, or on the CPU that would run it, loaded for that moment:
 * virt_ops' get functions work there, and v->gpr, rip and rflags are the guest's, at its last exit.
 * In interrupt context: no locks, no guest memory. From a command. 0, or an error: no CPU can
 * load it.
 */
int inspect_vcpu(struct vcpu *v, void (*f)(struct vcpu *v, void *arg), void *arg) MUST_CHECK;

/* What RDMSR says on that CPU. -EIO: #GP; -ENODEV: it is not online. From a command. */
int inspect_msr(u32 cpu, u32 msr, u64 *value) MUST_CHECK;
