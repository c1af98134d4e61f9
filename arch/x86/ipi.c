/* SPDX-License-Identifier: MIT */
/*
 * Each pair of caller and target has a slot with at most one call in it. The target's inbox has a
 * bit for each caller, and who clears the bit owns the call: the target, which runs it, or the
 * caller, which takes it back when the target has left or does not answer. So a call runs once or
 * never; one that is taken back never runs. A call that was given up while it ran keeps the slot
 * until its late answer is in: it can neither be mistaken for the answer to a later call, nor see
 * that one's argument.
 */
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/trace.h"
#include "arch/x86/trap.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/spinlock.h"

/* a CPU in guest mode answers within microseconds; emulators under load take longer */
#define ANSWER_MS 2000

struct slot {
	void *arg;
	int result;
	u8 kind;
	bool busy; /* atomic: set by the caller, cleared by who owns the call */
};

static struct slot slots[MAX_CPUS][MAX_CPUS]; /* [caller][target] */
static struct cpumask inbox[MAX_CPUS];	      /* atomic bits */
static int (*handlers[IPI_KINDS])(void *arg);

static const char *const kind_names[IPI_KINDS] = {
	[IPI_CAPS] = "read capabilities",
	[IPI_COMPARE] = "compare capabilities",
	[IPI_VIRT_ENABLE] = "virtualization on",
	[IPI_VIRT_DISABLE] = "virtualization off",
	[IPI_HALT] = "halt",
	[IPI_PING] = "ping",
	[IPI_SPLIT_LOCK] = "follow the split-lock state",
	[IPI_SPLIT_LOCK_JOIN] = "take part in split-lock detection",
	[IPI_TSC] = "compare TSCs",
	[IPI_LOOK] = "look at a vCPU",
	[IPI_MSR] = "read an MSR",
};

void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg))
{
	handlers[kind] = handler;
}

static void answer(u32 me, u32 caller)
{
	struct slot *s = &slots[caller][me];

	if (fault_here(FAULT_CALL, s->kind, NULL)) {
		bitmap_test_and_set_atomic(inbox[me].bits, caller);
		return;
	}
	this_cpu(irq_depth)++;
	s->result = handlers[s->kind] ? handlers[s->kind](s->arg) : -EOPNOTSUPP;
	this_cpu(irq_depth)--;
	trace(TRACE_CALLED, 0, s->kind, caller, (u64)s->result);
	__atomic_store_n(&s->busy, false, __ATOMIC_RELEASE);
}

/* Once through, so that CPUs that call again and again do not keep this one here. */
static void empty_inbox(u32 me)
{
	for_each_cpu(caller, &inbox[me])
		if (bitmap_test_and_clear_atomic(inbox[me].bits, caller))
			answer(me, caller);
}

void ipi_poll(void)
{
	u32 me = this_cpu(cpu_id);

	if (bitmap_test(cpus_online.bits, me))
		empty_inbox(me);
}

/*
 * Coming and going: change the bit, full barrier, look into the inbox. A caller: set the inbox's
 * bit, full barrier, look whether the target is online. One of the two sees the other.
 */
void ipi_join(void)
{
	u32 me = this_cpu(cpu_id);

	ASSERT(!irqs_enabled());
	bitmap_test_and_set_atomic(cpus_online.bits, me);
	empty_inbox(me); /* whose IPI came before this CPU could take it */
}

void ipi_leave(void)
{
	u32 me = this_cpu(cpu_id);

	ASSERT(!irqs_enabled() && !this_cpu(irq_depth));
	bitmap_test_and_clear_atomic(cpus_online.bits, me);
	empty_inbox(me);
}

static void nothing(void)
{
}

static int pong(void *arg)
{
	(void)arg;
	return 0;
}

static void poll_if_off(void)
{
	if (!irqs_enabled())
		ipi_poll();
}

void ipi_init(void)
{
	trap_set_irq(VECTOR_IPI_CALL, ipi_poll);
	trap_set_irq(VECTOR_KICK, nothing);
	trap_set_irq(VECTOR_NOTIFY, nothing);
	ipi_set_handler(IPI_PING, pong);
	spin_poll_hook = poll_if_off;
}

static u64 answer_deadline(void)
{
	return rdtsc() + (u64)ANSWER_MS * tsc_khz;
}

/* False: the target has the call already, and will answer it. */
static bool take_back(u32 me, u32 target)
{
	if (!bitmap_test_and_clear_atomic(inbox[target].bits, me))
		return false;
	__atomic_store_n(&slots[me][target].busy, false, __ATOMIC_RELAXED);
	return true;
}

/* Until the target has answered what this CPU asked. -ENODEV: it has left, without an answer. */
static int wait_for(u32 me, u32 target, u64 deadline)
{
	const struct slot *s = &slots[me][target];

	for (;;) {
		bool late = rdtsc() > deadline; /* read before the last look, not after it */

		if (!__atomic_load_n(&s->busy, __ATOMIC_ACQUIRE))
			return 0;
		if (!bitmap_test(cpus_online.bits, target) && take_back(me, target))
			return -ENODEV;
		if (late) {
			log_err("CPU %u does not answer a call of CPU %u: %s", target, me,
				kind_names[s->kind]);
			take_back(me, target);
			return trace_error(-ETIMEDOUT);
		}
		poll_if_off();
		cpu_pause();
	}
}

/* Put a call into the target's slot, once the one before it is answered, and send the IPI. */
static int ask(u32 me, u32 target, enum ipi_kind kind, void *arg, u64 deadline)
{
	struct slot *s = &slots[me][target];

	if (wait_for(me, target, deadline) == -ETIMEDOUT)
		return -ETIMEDOUT;
	if (!bitmap_test(cpus_online.bits, target))
		return -ENODEV;
	trace(TRACE_CALL, 0, kind, target, 0);
	s->kind = (u8)kind;
	s->arg = arg;
	__atomic_store_n(&s->busy, true, __ATOMIC_RELAXED);
	bitmap_test_and_set_atomic(inbox[target].bits, me);
	apic_ipi(cpus[target].apic_id, VECTOR_IPI_CALL | APIC_ICR_ASSERT);
	if (!bitmap_test(cpus_online.bits, target) && take_back(me, target))
		return -ENODEV;
	return 0;
}

static void check_context(void)
{
	ASSERT(!this_cpu(irq_depth));
	MMU_WARN_ON(spin_held_hook && spin_held_hook() && *spin_held_hook());
}

void ipi_post(enum ipi_kind kind, const struct cpumask *mask, void *arg)
{
	u64 deadline = answer_deadline();

	check_context();
	for_each_cpu(cpu, mask)
		(void)ask(this_cpu(cpu_id), cpu, kind, arg, deadline);
}

static int note(int err, u32 cpu, int any, int results[MAX_CPUS])
{
	if (results)
		results[cpu] = err;
	return any ? any : err;
}

int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS])
{
	u32 me = this_cpu(cpu_id);
	struct cpumask asked = { 0 }; /* not the mask: that may be cpus_online, which changes */
	u64 deadline = answer_deadline();
	int any = 0, err;

	check_context();
	for_each_cpu(cpu, mask) {
		err = ask(me, cpu, kind, arg, deadline);
		if (!err)
			bitmap_set(asked.bits, cpu);
		any = note(err, cpu, any, results);
	}
	deadline =
		answer_deadline(); /* anew: one that was slow before is no matter of the others */
	for_each_cpu(cpu, &asked) {
		err = wait_for(me, cpu, deadline);
		any = note(err ? err : slots[me][cpu].result, cpu, any, results);
	}
	return any;
}

void ipi_kick(u32 cpu)
{
	trace(TRACE_KICK, 0, cpu, 0, 0);
	apic_ipi(cpus[cpu].apic_id, VECTOR_KICK | APIC_ICR_ASSERT);
}

void ipi_notify(u32 cpu)
{
	apic_ipi(cpus[cpu].apic_id, VECTOR_NOTIFY | APIC_ICR_ASSERT);
}
