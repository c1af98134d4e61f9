/* SPDX-License-Identifier: MIT */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/list.h"
#include "virt/enable.h"
#include "virt/exit_cost.h"
#include "virt/sched.h"

#define SLICE_US 10000 /* only while others wait for the CPU */

struct runq {
	struct spinlock lock;
	struct list vcpus; /* runnable, in turn */
	struct list tasks; /* all of this CPU's */
	u32 load;	   /* vCPUs that are placed here; atomic */
	/* atomic: tasks pending, or somebody waits: the running vCPU must come out */
	u32 work;
	struct timer slice;
};
static struct runq runqs[MAX_CPUS];

static void slice_over(struct timer *t)
{
	(void)t;
	__atomic_store_n(&runqs[this_cpu(cpu_id)].work, 1, __ATOMIC_SEQ_CST);
}

void sched_init(void)
{
	for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		struct runq *q = &runqs[cpu];

		spin_init(&q->lock, RANK_RUNQ);
		list_init(&q->vcpus);
		list_init(&q->tasks);
		timer_init(&q->slice, slice_over);
	}
}

bool sched_work_pending(void)
{
	return READ_ONCE(runqs[this_cpu(cpu_id)].work);
}

u32 sched_load(u32 cpu)
{
	return READ_ONCE(runqs[cpu].load);
}

static u32 best_cpu(const struct vcpu *v)
{
	u32 best = CPU_NONE;

	for_each_cpu(cpu, virt_cpus())
		if (bitmap_test(v->vm->cpus.bits, cpu) &&
		    (best == CPU_NONE || sched_load(cpu) < sched_load(best)))
			best = cpu;
	return best;
}

static void assign(struct vcpu *v, u32 cpu)
{
	if (v->cpu != CPU_NONE)
		__atomic_fetch_sub(&runqs[v->cpu].load, 1, __ATOMIC_RELAXED);
	if (cpu != CPU_NONE)
		__atomic_fetch_add(&runqs[cpu].load, 1, __ATOMIC_RELAXED);
	WRITE_ONCE(v->cpu, cpu);
}

int sched_place(struct vcpu *v)
{
	u32 best = best_cpu(v);

	if (best == CPU_NONE)
		return trace_error(-ENODEV);
	assign(v, best);
	return 0;
}

void sched_forget(struct vcpu *v)
{
	assign(v, CPU_NONE);
}

static void wake(u32 cpu)
{
	__atomic_store_n(&runqs[cpu].work, 1, __ATOMIC_SEQ_CST);
	ipi_kick(cpu); /* to ourselves as well: it arrives at the next entry or HLT */
}

void task_add(struct task *t, u32 cpu, void (*run)(struct task *t))
{
	struct runq *q = &runqs[cpu];

	t->run = run;
	t->cpu = cpu;
	t->pending = false;
	list_add_tail(&q->tasks, &t->node);
}

void task_wake(struct task *t)
{
	if (!__atomic_exchange_n(&t->pending, true, __ATOMIC_SEQ_CST))
		wake(t->cpu);
}

/* v's queue, locked: it may be moved until then. Interrupts off. */
static struct runq *lock_queue(struct vcpu *v)
{
	for (;;) {
		struct runq *q = &runqs[READ_ONCE(v->cpu)];

		spin_lock(&q->lock);
		if (q == &runqs[READ_ONCE(v->cpu)])
			return q;
		spin_unlock(&q->lock);
	}
}

/* Returns the CPU on whose queue it was put, or CPU_NONE if it was on one, or runs. */
static u32 queue_add(struct vcpu *v)
{
	u64 flags = irq_save();
	struct runq *q = lock_queue(v);
	u32 cpu = CPU_NONE;

	if (list_empty(&v->run_node) && v->state != VCPU_RUNNING) {
		WRITE_ONCE(v->state, VCPU_RUNNABLE);
		list_add_tail(&q->vcpus, &v->run_node);
		cpu = v->cpu;
	}
	spin_unlock(&q->lock);
	irq_restore(flags);
	return cpu;
}

void sched_enqueue(struct vcpu *v)
{
	u32 cpu = queue_add(v);

	if (cpu != CPU_NONE)
		wake(cpu);
}

int sched_move(struct vcpu *v)
{
	u32 to = best_cpu(v);
	struct runq *q;
	u64 flags;
	bool queued, timed;

	ASSERT(v->cpu == this_cpu(cpu_id) && v->state != VCPU_RUNNING);
	if (to == CPU_NONE)
		return -ENODEV; /* the caller says whose */
	flags = irq_save();
	timed = v->timer.armed || v->device_timer.armed;
	timer_cancel(&v->timer);
	timer_cancel(&v->device_timer);
	q = lock_queue(v);
	queued = !list_empty(&v->run_node);
	if (queued)
		list_del(&v->run_node);
	assign(v, to);
	spin_unlock(&q->lock);
	irq_restore(flags);
	if (queued)
		sched_enqueue(v);
	if (timed) /* its runner arms them there, for the same deadlines */
		vcpu_request(v, REQ_TIMER);
	return 0;
}

static struct vcpu *next_vcpu(struct runq *q)
{
	struct vcpu *v = NULL;

	spin_lock(&q->lock);
	if (!list_empty(&q->vcpus)) {
		v = list_entry(q->vcpus.next, struct vcpu, run_node);
		list_del(&v->run_node);
		WRITE_ONCE(v->state, VCPU_RUNNING);
	}
	spin_unlock(&q->lock);
	return v;
}

static void run_tasks(struct runq *q)
{
	list_for_each(n, &q->tasks) {
		struct task *t = list_entry(n, struct task, node);

		if (__atomic_exchange_n(&t->pending, false, __ATOMIC_SEQ_CST)) {
			irq_enable();
			t->run(t);
			irq_disable();
		}
	}
}

/* The last vCPU of a stopped VM that comes to rest. */
static void vcpu_at_rest(struct vcpu *v)
{
	struct vm *vm = v->vm;

	timer_cancel(&v->timer);
	timer_cancel(&v->device_timer);
	WRITE_ONCE(v->state, VCPU_STOPPED);
	if (__atomic_sub_fetch(&vm->running_vcpus, 1, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&vm->state, VM_STOPPED, __ATOMIC_SEQ_CST);
	if (vm_stopped_hook)
		vm_stopped_hook(vm);
}

static void run_vcpu(struct runq *q, struct vcpu *v)
{
	enum run_result r;
	u8 halted = VCPU_HALTED;

	/*
	 * Others wait; or a task was woken while tasks ran, with interrupts on: its kick is spent
	 * and would not take the vCPU out again.
	 */
	if (!list_empty(&q->vcpus) || READ_ONCE(q->work))
		timer_arm(&q->slice, rdtsc() + (u64)SLICE_US * tsc_khz / 1000);
	r = vcpu_run(v);
	timer_cancel(&q->slice);
	if (r == VCPU_RUN_STOPPED) {
		vcpu_at_rest(v);
	} else if (r == VCPU_RUN_YIELDED) {
		WRITE_ONCE(v->state, VCPU_STOPPED);
		queue_add(v); /* behind the others; the loop looks at the queue anyway */
	} else {
		__atomic_store_n(&v->state, VCPU_HALTED, __ATOMIC_SEQ_CST);
		/* A request that came before that was published found nobody to wake. */
		if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) &&
		    __atomic_compare_exchange_n(&v->state, &halted, VCPU_STOPPED, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			queue_add(v);
	}
}

u64 exit_cost_idle;

static void idle(void)
{
	u64 since = exit_cost_now();

	irq_wait();
	exit_cost_waited(since);
}

void sched_loop(void)
{
	struct runq *q = &runqs[this_cpu(cpu_id)];
	struct vcpu *v;

	for (;;) {
		__atomic_store_n(&q->work, 0, __ATOMIC_SEQ_CST);
		run_tasks(q);
		v = next_vcpu(q);
		if (v)
			run_vcpu(q, v);
		else if (!__atomic_load_n(&q->work, __ATOMIC_SEQ_CST))
			idle();
		else
			irq_window();
	}
}
