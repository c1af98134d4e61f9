/* SPDX-License-Identifier: MIT */
/* A machine without virtualization, for tests of dev/: a clock, a bus, a little guest memory, vCPUs
 * that are only structures. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dev/clock.h"
#include "dev/lapic_regs.h"
#include "dev/platform.h"
#include "virt/vm.h"

extern u64 fake_now; /* host TSC */
extern struct fake_apicv {
	u32 *page;
	const void *posted;
	u8 in_service, requested;
} fake_apicv;
extern u64 fake_cr4;
extern bool fake_tsc_stable; /* what tsc_stable() says */
extern bool fake_busy;	     /* no vCPU is at rest */
extern u64 fake_tsc_moved;   /* by how much guests have set their TSC forward */
extern u32 fake_frames;	     /* frames in use */
extern u8 fake_freed;	     /* the first byte of what was freed last */
extern u32 fake_frames_left; /* allocations until one fails; ~0u: never */
extern u32 fake_random_left; /* random words until there are none: 1, 2, 3... */
/* What guest_read and guest_write say -EAGAIN of. */
extern u64 fake_missing, fake_missing_size;
extern enum stop_reason fake_stop; /* of the last vm_stop */
extern u32 fake_log_lines;
extern char fake_log_line[200];		     /* the last one */
extern struct platform_devices fake_devices; /* of the next VM */

#define FAKE_MEMORY (1u << 20)
extern u8 fake_memory[FAKE_MEMORY];
extern u64 fake_readonly; /* where memory that can't be written begins; FAKE_MEMORY: none */

struct fake_vcpu {
	struct vcpu v;
	u64 reg[VREGS];
	struct segment seg[SEGS];
	u64 tsc_aux;
};

/* A VM with vcpus vCPUs and a platform. */
struct vm *fake_vm(u32 vcpus);
struct vm *fake_vm_with(u32 vcpus, struct cpuid_policy *policy);
void fake_vm_free(struct vm *vm);
/* Time goes on; host timers that come due fire in between, at their time. */
void fake_advance(struct vm *vm, u64 ticks);
/* What the run loop does before an entry with interrupts open: the vector that is delivered, or -1.
 */
int fake_take(struct vcpu *v);
/* As fake_take, with the EOI after it (in the APIC's current mode). */
int fake_take_eoi(struct vcpu *v);
bool fake_requested(struct vcpu *v, u32 request); /* and forget it */

/* The guest's accesses. Reads of nobody or with an error give all ones. */
u64 in(struct vcpu *v, u16 port);
void out(struct vcpu *v, u16 port, u8 value);
u64 mmio_get(struct vcpu *v, u64 gpa, u32 size);
void mmio_set(struct vcpu *v, u64 gpa, u32 size, u64 value);
u32 apic_get(struct vcpu *v, u32 offset); /* xAPIC */
void apic_set(struct vcpu *v, u32 offset, u32 value);
int msr_set(struct vcpu *v, u32 msr, u64 value); /* 0, or not: #GP */
int msr_get(struct vcpu *v, u32 msr, u64 *value);
