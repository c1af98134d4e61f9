/* SPDX-License-Identifier: MIT */
/*
 * Calls between CPUs: a closed list of kinds, run in interrupt context on each target, with one
 * result per CPU.
 *
 * A CPU has one call under way at a time. While it waits it answers calls of others, so two CPUs
 * may call each other at once. The wait is bounded; who did not answer is reported and gets
 * -ETIMEDOUT. Never wait while holding a lock.
 */
#pragma once

#include "lib/bitmap.h"

enum ipi_kind {
	IPI_CAPS,    /* read this CPU's capabilities (virt/enable.c) */
	IPI_COMPARE, /* read them again and compare with the reference (virt/enable.c) */
	IPI_VIRT_ENABLE,
	IPI_VIRT_DISABLE,
	IPI_HALT,	/* virtualization off, then stop for good: before reset and power-off */
	IPI_PING,	/* do nothing, answer */
	IPI_SPLIT_LOCK, /* follow the machine's state, or tell (arch/x86/split_lock.c) */
	IPI_SPLIT_LOCK_JOIN, /* probe and take part (likewise) */
	IPI_TSC,	     /* compare TSCs (arch/x86/tsc.c) */
	IPI_LOOK,	     /* read a vCPU's state (debug/inspect.c) */
	IPI_MSR,	     /* read an MSR (likewise) */
	IPI_KINDS	     /* a new one needs a name in ipi.c */
};

/*
 * Who runs a kind. Set once at boot by the owner of the kind. It may run in a CPU that spins for
 * any lock below RANK_LOG, so it takes none of these; it may log.
 */
void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg));

/*
 * Run `kind` with arg on every CPU of the mask; on the caller too, if it is one of them.
 * results[cpu] (may be NULL) gets, for each CPU of the mask, the handler's value or
 *
 *   -ENODEV     the CPU is offline, or left meanwhile; the handler did not run there, and will not
 *   -ETIMEDOUT  no answer for 2 s, or none yet to the caller's call before; there is a line in the
 *               log. The handler will not run there; only if it is stuck in it, it may go on to
 *               use arg
 *
 * Returns 0, or one of the errors. The mask may be cpus_online itself. Interrupts on or off; not
 * from interrupt context (asserted).
 */
int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS]);

/*
 * As ipi_call, but nobody waits for the answer; arg must stay valid until there was one. The next
 * call or post to the same CPU waits until this one has run there.
 */
void ipi_post(enum ipi_kind kind, const struct cpumask *mask, void *arg);

/* Make a CPU leave guest mode or HLT and look at its work. Fire and forget, any context. */
void ipi_kick(u32 cpu);
/*
 * A guest that takes posted interrupts (vcpu.posts) looks at its descriptor, without an exit; any
 * other vCPU, and the host, takes it as ipi_kick(). Any context.
 */
void ipi_notify(u32 cpu);

/*
 * Answer what others asked for; interrupts off. Called by the IPI's handler and by everyone who
 * spins. Does nothing on a CPU that is not online.
 */
void ipi_poll(void);

/*
 * This CPU takes calls from now on: sets its bit in cpus_online. Interrupts off, with GDT, IDT,
 * per-CPU variables and APIC set up, so that whatever may be called can run; calls of those who saw
 * it online before it last left may run at once.
 */
void ipi_join(void);

/*
 * This CPU takes no calls any more: clears its bit in cpus_online, and answers what is in its inbox
 * by then. Interrupts off, not from interrupt context. On return no call runs here, nor will one
 * until ipi_join(); whoever asked too late gets -ENODEV. IPIs may still be pending: they find
 * nothing. The CPU itself may go on to call others.
 */
void ipi_leave(void);

/* Boot, once: vectors and the spin hook. */
void ipi_init(void);
