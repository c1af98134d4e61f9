/* SPDX-License-Identifier: MIT */
/*
 * Each CPU's loop: tasks of Corbel first, then the runnable vCPU that has had the least of its
 * share (virt/share.h), else wait for an interrupt. Nothing blocks. A vCPU belongs to one CPU, and
 * stays there as long as it can run there: only if it would wait while another CPU is idle, it goes
 * over to that one.
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
/*
 * This CPU has left virt_cpus(): from here on no other CPU gives it vCPUs; those that it has it
 * moves by sched_move(). On one of its tasks.
 */
void sched_close(void);
/*
 * A vCPU that a debugger holds (VCPU_PAUSED): let it run again, no-op if it is not at rest; keep it
 * from being run for a moment, false if it does; the end of that, which runs it if it was to stop
 * or to go on meanwhile. One debugger.
 */
void sched_resume(struct vcpu *v);
bool sched_claim(struct vcpu *v) MUST_CHECK;
void sched_unclaim(struct vcpu *v);
/*
 * Somebody else wants this CPU: a task, a vCPU whose turn it is. While it runs a vCPU, interrupts
 * off. May give vCPUs that wait to idle CPUs.
 */
bool sched_work_pending(void);
/* vCPUs wait for this CPU. */
bool sched_others_wait(void);
/* v, which this CPU runs, only spins: if others wait, the next of them goes first. */
void sched_yield(struct vcpu *v);

#define SCHED_BUCKETS 24
/* Of one CPU; its own, read by anyone. */
struct sched_stats {
	u64 runs;		      /* times that it began to run a vCPU */
	u64 slices;		      /* that were used up */
	u64 given;		      /* vCPUs that it gave to idle CPUs */
	u64 wakeups;		      /* of vCPUs that slept: counted when their turn comes */
	u64 wakeup_ticks, wakeup_max; /* TSC, sum and longest */
	/* by duration: [0] below 1 us, [n] below 2^n us, the last one all others */
	u64 wakeup_us[SCHED_BUCKETS];
};
const struct sched_stats *sched_stats(u32 cpu);
/* The vCPU that it runs, or NULL. VMs are destroyed by the monitor's CPU: valid in its tasks. */
const struct vcpu *sched_current(u32 cpu);
u32 sched_waiting(u32 cpu);
/* TSC ticks that v was on CPUs, up to now; about right while it runs on another CPU. */
u64 sched_ran(const struct vcpu *v);
