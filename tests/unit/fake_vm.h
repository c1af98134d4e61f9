/* SPDX-License-Identifier: MIT */
/* A VM without a CPU under it: real frames and slots in the host arena, registers in arrays. */
#pragma once

#include "virt/cpuid.h"
#include "virt/ops.h"
#include "virt/slots.h"
#include "virt/vm.h"

struct fake_vcpu {
	struct vcpu v;
	u64 reg[VREGS];
	struct segment seg[SEGS];
};

extern struct vm fake_vm;
extern struct fake_vcpu fake_vcpu;
extern struct cpuid_policy fake_policy;
/* ops->bus_locks: can they exit; what was asked for last */
extern bool fake_bus_locks_exit;
extern enum bus_locks fake_bus_locks;
extern u32 fake_bugs; /* calls of vm_bugged */
extern u32 fake_traced[TRACE_TYPES];
extern __thread struct vcpu *fake_current; /* sched_current() */
extern char fake_stop_text[160];	   /* of the last vm_stop, unless the test has its own */

/*
 * A machine with this much memory, and a VM with one vCPU and no memory. A second call throws the
 * first away.
 */
void fake_vm_open(u64 memory);
/* One more VM, without memory and vCPUs. */
void fake_vm_add(struct vm *vm, u16 id);
/* With (else without) the get_mmu operation. */
void fake_use_get_mmu(bool use);
u64 fake_free_extents(void);
static inline void vm_free_memory(struct vm *vm)
{
	while (vm_free_memory_step(vm))
		;
}
