/* SPDX-License-Identifier: MIT */
/*
 * Debugging guests from outside: hold vCPUs, look at them, breakpoints, single steps. The debugger
 * is one task (debug/gdb.c), on the CPU that also starts VMs; the rest is the runner's.
 *
 *	debug_attach --- debug_hold --> at rest --- debug_resume --> runs, until it holds by itself
 *	                                (debug_begin .. debug_end: registers, memory)
 *
 * A vCPU at rest is loaded nowhere, and what is read of it is the guest's own: the debugger's use
 * of debug registers, TF and intercepts begins when the runner loads the vCPU and ends when it puts
 * it. While no debugger is attached nothing of this costs an exit.
 *
 * Time goes on while a VM is held, and so do the others.
 */
#pragma once

#include "virt/vm.h"

/* The numbers of gdb's packets Z and z. */
enum debug_break { BREAK_SOFT, BREAK_HARD, BREAK_WRITE, BREAK_READ, BREAK_ACCESS };

#define DEBUG_SOFT 128
#define DEBUG_HARD 4

/* Of a VM; there from its first debug_attach on. Changed by the debugger while it is at rest. */
struct vm_debug {
	bool attached;
	u64 life; /* vm->starts, when its vCPUs were last resumed */
	/* INT3 in guest memory, and what stood there; of the life in soft_life */
	u64 soft_life;
	u32 nr_soft;
	struct {
		u64 linear;
		gpa_t gpa;
		u8 byte;
	} soft[DEBUG_SOFT];
	/* by debug register; len 0: it is the guest's */
	struct {
		u64 linear;
		u8 len, type;
	} hard[DEBUG_HARD];
};

/* Software breakpoints of an earlier life are not in memory any more. */
static inline u32 debug_nr_soft(const struct vm *vm)
{
	return vm->debug && vm->debug->soft_life == vm->starts ? vm->debug->nr_soft : 0;
}

/* ---- The debugger's side ---- */

/* -ENOMEM. Attaching twice is attaching. */
int debug_attach(struct vm *vm);
static inline bool debug_attached(const struct vm *vm)
{
	return vm->debug && vm->debug->attached;
}
/* All vCPUs at rest, or the VM in another life; no breakpoints: vCPUs run on. */
void debug_detach(struct vm *vm);
/* vm_destroy()'s. */
void debug_free(struct vm *vm);

/* They come to rest soon; debug_rest_hook tells. Also a VM that is started later. */
void debug_hold(struct vm *vm);
bool debug_at_rest(const struct vm *vm);
/* Called when a vCPU has come to rest, on its CPU, interrupts off. Set once, by boot. */
extern void (*debug_rest_hook)(void);
/* Let it run, with `step` for one instruction. Why it held is forgotten. */
void debug_resume(struct vcpu *v, bool step);
/* It ran when it was resumed last, and has ended, or begun anew, since. */
bool debug_has_ended(const struct vm *vm);

/*
 * Between these, with interrupts off, virt_ops' get and set functions work on v here, and what
 * follows does. False: it is not at rest, or virtualization is off here.
 */
bool debug_begin(struct vcpu *v) MUST_CHECK;
void debug_end(struct vcpu *v);

/* ---- The runner's side ---- */

/* At the end of its load and at the begin of its put, if vm->debug. */
void debug_vcpu_load(struct vcpu *v);
void debug_vcpu_put(struct vcpu *v);
/* After an exit while v->debug.step. */
void debug_after_exit(struct vcpu *v);
/* #DB or #BP is the debugger's: it was taken care of. False: it is the guest's. */
bool debug_exception(struct vcpu *v);
/* Bits that the guest finds in its DR6. v is loaded here. */
void debug_guest_dr6(struct vcpu *v, u64 bits);
/* The guest's MOV to or from a debug register, while they are the debugger's. */
void debug_dr_access(struct vcpu *v);
