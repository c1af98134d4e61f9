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
	IPI_HALT, /* virtualization off, then stop for good: before reset and power-off */
	IPI_PING, /* do nothing, answer */
	IPI_KINDS
};

/* Who runs a kind. Set once at boot by the owner of the kind. */
void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg));

/*
 * Run `kind` with arg on every online CPU of the mask, the caller included (directly). results[cpu]
 * (may be NULL) gets each CPU's return value. Returns 0, or the first error in CPU order.
 * Interrupts on or off; not from interrupt context.
 */
int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS]);

/* As ipi_call, but nobody waits: for handlers that don't return. */
void ipi_post(enum ipi_kind kind, const struct cpumask *mask, void *arg);

/* Make a CPU leave guest mode or HLT and look at its work. Fire and forget, any context. */
void ipi_kick(u32 cpu);

/*
 * Answer what others asked for; interrupts off. Called by the IPI's handler and by everyone who
 * spins.
 */
void ipi_poll(void);
/* Boot, once: vectors and the spin hook. */
void ipi_init(void);
/*
 * This CPU takes no calls from now on, until its bit in cpus_online is set again: whoever saw it
 * online before gets an answer. Interrupts off, last thing before it parks.
 */
void ipi_leave(void);
