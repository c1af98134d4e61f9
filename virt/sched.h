/* SPDX-License-Identifier: MIT */
/*
 * Each CPU's loop: tasks of Corbel first, then runnable vCPUs in turn, else wait for an interrupt.
 * Nothing blocks and nothing migrates by itself: a vCPU is queued on one CPU until someone moves
 * it.
 */
#pragma once

#include "virt/vm.h"

/* Where every CPU ends up once it is set up. Interrupts off on entry; never returns. */
void sched_loop(void) NORETURN;
/* Boot, once, before other CPUs start and before any task is added. */
void sched_init(void);

/*
 * A task: runs on one CPU's loop, interrupts on, each time it was woken at least once since it last
 * ran. Static storage, set up once with its CPU, by the boot CPU; wake from any CPU, any context.
 */
struct task {
	struct list node;
	void (*run)(struct task *t);
	u32 cpu;
	bool pending; /* atomic */
};
void task_add(struct task *t, u32 cpu, void (*run)(struct task *t));
void task_wake(struct task *t);

/* Put a vCPU on the queue of v->cpu and wake that CPU. No-op if it is queued or runs. Any CPU. */
void sched_enqueue(struct vcpu *v);
/*
 * Choose v->cpu: the allowed, enabled CPU with the fewest vCPUs. v is at rest. -ENODEV if there is
 * none.
 */
int sched_place(struct vcpu *v);
/* v is assigned to no CPU any more. It is at rest. */
void sched_forget(struct vcpu *v);
/*
 * Assign a vCPU of this CPU to the best of the others (this one is not among virt_cpus() any more),
 * with its place in the queue and its timer. On a task of this CPU, so that v doesn't run. -ENODEV:
 * it may run nowhere else.
 */
int sched_move(struct vcpu *v);
/* How many vCPUs are assigned to a CPU. */
u32 sched_load(u32 cpu);
/* Somebody else wants this CPU: a task, a vCPU whose turn it is. Interrupts off. */
bool sched_work_pending(void);
