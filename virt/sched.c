/* SPDX-License-Identifier: MIT */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/list.h"
#include "virt/debug.h"
#include "virt/enable.h"
#include "virt/exit_cost.h"
#include "virt/ops.h"
#include "virt/sched.h"

#define SLICE_US 10000 /* only while others wait for the CPU */

enum work {
	WORK_TASKS = 1, /* a task is pending */
	WORK_VCPUS = 2, /* one came to the queue, or a slice is over */
};

struct runq {
	struct spinlock lock;
	struct share_queue vcpus; /* under lock */
	struct list tasks;	  /* all of this CPU's */
	u32 load;		  /* vCPUs that are placed here; atomic */
	u32 work;		  /* atomic; enum work: the running vCPU must come out, or see */
	/* This CPU's: what it runs, and until when that was charged. Readers elsewhere see some. */
	struct vcpu *current;
	u64 since;
	bool yields; /* current is to let another one go first */
	struct timer slice;
	struct sched_stats stats;
};
static struct runq runqs[MAX_CPUS];
static struct cpumask idle_cpus; /* atomic; who clears a bit may give that CPU a vCPU */

static void slice_over(struct timer *t)
{
	struct runq *q = container_of(t, struct runq, slice);

	q->stats.slices++;
	__atomic_fetch_or(&q->work, WORK_VCPUS, __ATOMIC_SEQ_CST);
}

static u64 slice_ticks(void)
{
	return (u64)SLICE_US * tsc_khz / 1000;
}

void sched_init(void)
{
	for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		struct runq *q = &runqs[cpu];

		spin_init(&q->lock, RANK_RUNQ);
		share_queue_init(&q->vcpus, slice_ticks());
		list_init(&q->tasks);
		timer_init(&q->slice, slice_over);
	}
}

u32 sched_load(u32 cpu)
{
	return READ_ONCE(runqs[cpu].load);
}

static bool may_run(const struct vcpu *v, u32 cpu)
{
	return v->pin ? cpu == v->pin - 1u : bitmap_test(v->vm->cpus.bits, cpu);
}

static u32 best_cpu(const struct vcpu *v)
{
	u32 best = CPU_NONE;

	for_each_cpu(cpu, virt_cpus())
		if (may_run(v, cpu) && (best == CPU_NONE || sched_load(cpu) < sched_load(best)))
			best = cpu;
	return best;
}

static void assign(struct vcpu *v, u32 cpu)
{
	if (cpu != CPU_NONE)
		share_move(&v->share, v->cpu == CPU_NONE ? NULL : &runqs[v->cpu].vcpus,
			   &runqs[cpu].vcpus);
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

static void wake(u32 cpu, enum work work)
{
	__atomic_fetch_or(&runqs[cpu].work, work, __ATOMIC_SEQ_CST);
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
		wake(t->cpu, WORK_TASKS);
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
static u32 queue_add(struct vcpu *v, bool woke)
{
	u64 flags = irq_save();
	struct runq *q = lock_queue(v);
	u32 cpu = CPU_NONE;

	if (list_empty(&v->share.node) && v->state != VCPU_RUNNING) {
		WRITE_ONCE(v->state, VCPU_RUNNABLE);
		if (woke)
			v->woken = rdtsc();
		share_wait(&q->vcpus, &v->share, woke);
		cpu = v->cpu;
	}
	spin_unlock(&q->lock);
	irq_restore(flags);
	return cpu;
}

void sched_enqueue(struct vcpu *v)
{
	u32 cpu = queue_add(v, true);

	if (cpu != CPU_NONE) {
		vcpu_trace(v, TRACE_WAKE, cpu, 0, 0);
		wake(cpu, WORK_VCPUS);
	}
}

/* Its timers belong to this CPU: its next runner arms them there, for the same deadlines. */
static void release_timers(struct vcpu *v)
{
	u32 what = (v->timer.armed || v->device_timer.armed ? REQ_TIMER : 0) |
		   (v->split.timer.armed ? REQ_DELAY : 0);

	timer_cancel(&v->timer);
	timer_cancel(&v->device_timer);
	timer_cancel(&v->split.timer);
	if (what)
		vcpu_request(v, what);
}

int sched_move(struct vcpu *v)
{
	u32 to = best_cpu(v);
	struct runq *q;
	u64 flags;
	bool queued;

	ASSERT(v->cpu == this_cpu(cpu_id) && v->state != VCPU_RUNNING);
	if (to == CPU_NONE)
		return -ENODEV; /* the caller says whose */
	flags = irq_save();
	release_timers(v); /* if it sleeps, this wakes it: on the queue here */
	q = lock_queue(v);
	queued = !list_empty(&v->share.node);
	if (queued)
		share_leave(&q->vcpus, &v->share);
	assign(v, to);
	spin_unlock(&q->lock);
	irq_restore(flags);
	if (queued && queue_add(v, v->share.woke) != CPU_NONE)
		wake(to, WORK_VCPUS);
	return 0;
}

void sched_close(void)
{
	struct runq *q = &runqs[this_cpu(cpu_id)];
	u64 flags = irq_save();

	spin_lock(&q->lock);
	spin_unlock(&q->lock);
	irq_restore(flags);
}

/* Claim a CPU that is idle and may run v; CPU_NONE: there is none. */
static u32 claim_idle(const struct vcpu *v)
{
	for_each_cpu(cpu, &idle_cpus)
		if (may_run(v, cpu) && bitmap_test(virt_cpus()->bits, cpu) &&
		    bitmap_test_and_clear_atomic(idle_cpus.bits, cpu))
			return cpu;
	return CPU_NONE;
}

/* Take out a vCPU that waits here, for a CPU that is idle. */
static struct vcpu *take_for_idle(struct runq *q, u32 *to)
{
	struct vcpu *v = NULL;

	spin_lock(&q->lock);
	list_for_each(n, &q->vcpus.waiting) {
		v = list_entry(n, struct vcpu, share.node);
		*to = claim_idle(v);
		if (*to != CPU_NONE)
			break;
		v = NULL;
	}
	if (v)
		share_leave(&q->vcpus, &v->share);
	spin_unlock(&q->lock);
	return v;
}

/*
 * v is in no queue but still runnable, so that nobody else puts it into one. That CPU may be about
 * to leave: who retires it takes its lock before it looks for its vCPUs (sched_close), so that we
 * see this or it sees v.
 */
static bool give(struct vcpu *v, u32 to)
{
	struct runq *q = &runqs[to];
	bool open;

	spin_lock(&q->lock);
	open = bitmap_test(virt_cpus()->bits, to);
	if (open) {
		assign(v, to);
		share_wait(&q->vcpus, &v->share, v->share.woke);
	}
	spin_unlock(&q->lock);
	return open;
}

/* What waits here while another CPU is idle goes there. On this CPU, interrupts off. */
static void spread(struct runq *q)
{
	struct vcpu *v;
	u32 to;

	while (READ_ONCE(q->vcpus.nr_waiting) && (v = take_for_idle(q, &to))) {
		release_timers(v);
		if (!give(v, to)) {
			spin_lock(&q->lock);
			share_wait(&q->vcpus, &v->share, v->share.woke);
			spin_unlock(&q->lock);
			return;
		}
		q->stats.given++;
		vcpu_trace(v, TRACE_GIVE, to, 0, 0);
		wake(to, WORK_VCPUS);
	}
}

/* What the current vCPU has had until now. */
static void charge(struct runq *q)
{
	u64 now = rdtsc(), ticks = now - q->since;

	q->since = now;
	WRITE_ONCE(q->current->ran, q->current->ran + ticks);
	share_ran(&q->vcpus, &q->current->share, ticks);
}

/* A vCPU came to the queue, or the slice is over: whose turn is it? */
static bool turn_is_over(struct runq *q)
{
	bool over;

	__atomic_fetch_and(&q->work, ~(u32)WORK_VCPUS, __ATOMIC_SEQ_CST);
	spread(q);
	spin_lock(&q->lock);
	charge(q);
	over = share_next(&q->vcpus, &q->current->share) != &q->current->share;
	spin_unlock(&q->lock);
	if (over)
		return true;
	if (q->vcpus.nr_waiting)
		timer_arm(&q->slice, rdtsc() + slice_ticks());
	virt_ops->pause_exits(q->current, q->vcpus.nr_waiting);
	return false;
}

bool sched_work_pending(void)
{
	struct runq *q = &runqs[this_cpu(cpu_id)];
	u32 work = READ_ONCE(q->work);

	return work && (work & WORK_TASKS || turn_is_over(q));
}

bool sched_others_wait(void)
{
	return READ_ONCE(runqs[this_cpu(cpu_id)].vcpus.nr_waiting);
}

void sched_yield(struct vcpu *v)
{
	if (!sched_others_wait())
		return;
	runqs[this_cpu(cpu_id)].yields = true;
	vcpu_request_own(v, REQ_RESCHED);
}

/* How long it took from the wake-up; by two CPUs' clocks. */
static void count_wakeup(struct sched_stats *stats, u64 woken)
{
	u64 now = rdtsc(), ticks = now > woken ? now - woken : 0;
	u64 us = ticks * 1000 / tsc_khz;
	u32 bucket = us ? MIN((u32)(64 - __builtin_clzll(us)), SCHED_BUCKETS - 1) : 0;

	stats->wakeups++;
	stats->wakeup_ticks += ticks;
	stats->wakeup_max = MAX(stats->wakeup_max, ticks);
	stats->wakeup_us[bucket]++;
}

void sched_resume(struct vcpu *v)
{
	u8 paused = VCPU_PAUSED;

	if (__atomic_compare_exchange_n(&v->state, &paused, VCPU_STOPPED, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		sched_enqueue(v);
}

/* vCPUs of a VM that does not run are started by tasks of the debugger's own CPU only. */
bool sched_claim(struct vcpu *v)
{
	u8 paused = VCPU_PAUSED;

	return __atomic_load_n(&v->vm->state, __ATOMIC_SEQ_CST) != VM_RUNNING ||
	       __atomic_compare_exchange_n(&v->state, &paused, VCPU_CLAIMED, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* A request or the end of the hold that came before that was published found nobody to wake. */
static void pause(struct vcpu *v)
{
	__atomic_store_n(&v->state, VCPU_PAUSED, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&v->debug.hold, __ATOMIC_SEQ_CST) ||
	    __atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) & REQ_STOP)
		sched_resume(v);
}

void sched_unclaim(struct vcpu *v)
{
	if (v->state == VCPU_CLAIMED)
		pause(v);
}

static struct vcpu *next_vcpu(struct runq *q)
{
	struct vcpu *v = NULL;
	struct share *s;

	spin_lock(&q->lock);
	s = share_next(&q->vcpus, NULL);
	if (s) {
		share_leave(&q->vcpus, s);
		v = container_of(s, struct vcpu, share);
		WRITE_ONCE(v->state, VCPU_RUNNING);
	}
	spin_unlock(&q->lock);
	if (v && v->woken) {
		count_wakeup(&q->stats, v->woken);
		v->woken = 0;
	}
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
	timer_cancel(&v->split.timer);
	WRITE_ONCE(v->state, VCPU_STOPPED);
	if (__atomic_sub_fetch(&vm->running_vcpus, 1, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&vm->state, VM_STOPPED, __ATOMIC_SEQ_CST);
	if (vm_stopped_hook)
		vm_stopped_hook(vm);
}

static enum run_result run_charged(struct runq *q, struct vcpu *v)
{
	enum run_result r;

	/*
	 * Others wait; or a task was woken while tasks ran, with interrupts on: its kick is spent
	 * and would not take the vCPU out again.
	 */
	if (q->vcpus.nr_waiting || READ_ONCE(q->work))
		timer_arm(&q->slice, rdtsc() + slice_ticks());
	q->stats.runs++;
	q->since = rdtsc();
	WRITE_ONCE(q->current, v);
	vcpu_trace(v, TRACE_RUN, q->vcpus.nr_waiting, v->rip, 0);
	r = vcpu_run(v);
	vcpu_trace(v, TRACE_REST, r, v->rip, 0);
	timer_cancel(&q->slice);
	spin_lock(&q->lock);
	charge(q);
	if (q->yields)
		share_yield(&q->vcpus, &v->share);
	spin_unlock(&q->lock);
	q->yields = false;
	WRITE_ONCE(q->current, NULL);
	return r;
}

static void run_vcpu(struct runq *q, struct vcpu *v)
{
	enum run_result r = run_charged(q, v);
	u8 halted = VCPU_HALTED;

	if (r == VCPU_RUN_STOPPED) {
		vcpu_at_rest(v);
	} else if (r == VCPU_RUN_HELD) {
		pause(v);
		if (debug_rest_hook)
			debug_rest_hook();
	} else if (r == VCPU_RUN_YIELDED) {
		WRITE_ONCE(v->state, VCPU_STOPPED);
		queue_add(v, false); /* the loop looks at the queue anyway */
	} else {
		__atomic_store_n(&v->state, VCPU_HALTED, __ATOMIC_SEQ_CST);
		/* A request that came before that was published found nobody to wake. */
		if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) &&
		    __atomic_compare_exchange_n(&v->state, &halted, VCPU_STOPPED, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			queue_add(v, false);
	}
}

u64 exit_cost_idle;

/*
 * HLT and not MWAIT: what wakes this CPU is an interrupt in any case (a kick, a timer), because it
 * also takes a CPU out of a guest, and the sender need not know which of the two it is.
 */
static void idle(struct runq *q)
{
	u64 since = exit_cost_now(), began = rdtsc();
	u32 cpu = this_cpu(cpu_id);

	bitmap_test_and_set_atomic(idle_cpus.bits, cpu);
	if (!__atomic_load_n(&q->work, __ATOMIC_SEQ_CST))
		irq_wait();
	trace(TRACE_IDLE, 0, 0, began, 0);
	bitmap_test_and_clear_atomic(idle_cpus.bits, cpu);
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
		if (v) {
			spread(q);
			run_vcpu(q, v);
			irq_window(); /* one that comes back without an entry has opened none */
		} else if (!__atomic_load_n(&q->work, __ATOMIC_SEQ_CST)) {
			idle(q);
		} else {
			irq_window();
		}
	}
}

const struct sched_stats *sched_stats(u32 cpu)
{
	return &runqs[cpu].stats;
}

const struct vcpu *sched_current(u32 cpu)
{
	return READ_ONCE(runqs[cpu].current);
}

u32 sched_waiting(u32 cpu)
{
	return READ_ONCE(runqs[cpu].vcpus.nr_waiting);
}

u64 sched_ran(const struct vcpu *v)
{
	u64 ran = READ_ONCE(v->ran);
	u32 cpu = READ_ONCE(v->cpu);

	if (cpu != CPU_NONE && sched_current(cpu) == v)
		ran += rdtsc() - READ_ONCE(runqs[cpu].since);
	return ran;
}
