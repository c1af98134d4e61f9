/* SPDX-License-Identifier: MIT */
/*
 * What exits cost, for `make bench` (make EXIT_COST=1): TSC ticks from an exit to the next entry,
 * idle time left out, by kind of exit; counted on both sides of the backends' entry code, which is
 * too short to matter. In other builds all of this is nothing. Interrupts off.
 */
#pragma once

#include "arch/x86/insn.h"
#include "virt/vcpu.h"

#ifndef EXIT_COST
#define EXIT_COST 0
#endif

/* Ticks that this machine was idle. One counter: what is measured runs on one CPU. */
extern u64 exit_cost_idle;

static inline void exit_cost_entry(struct vcpu *v)
{
	u64 now;

	if (!EXIT_COST)
		return;
	now = rdtsc() - exit_cost_idle;
	if (v->cost.exited)
		v->cost.ticks[v->exit.kind] += now - v->cost.exited;
	v->cost.entered = now;
}

static inline void exit_cost_exit(struct vcpu *v)
{
	if (!EXIT_COST)
		return;
	v->cost.exited = rdtsc() - exit_cost_idle;
	v->cost.guest += v->cost.exited - v->cost.entered;
}

/* Around what waits: idle = exit_cost_now(); wait; exit_cost_waited(idle). */
static inline u64 exit_cost_now(void)
{
	return EXIT_COST ? rdtsc() : 0;
}

static inline void exit_cost_waited(u64 since)
{
	if (EXIT_COST)
		exit_cost_idle += rdtsc() - since;
}
