/* SPDX-License-Identifier: MIT */
/*
 * Each CPU owns one call descriptor and one inbox. The inbox has a bit per caller; the target takes
 * a bit, reads that caller's descriptor, runs it, and writes its result and then its answer (the
 * descriptor's sequence number) into the caller's table. A target that answers too late finds a
 * newer sequence number, or itself not asked, and drops the call.
 */
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/trap.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/spinlock.h"

/* a CPU in guest mode answers within microseconds; emulators under load take longer */
#define ANSWER_MS 2000

struct ipi_call {
	u64 seq; /* odd while the descriptor changes; atomic */
	u32 kind;
	void *arg;
	struct cpumask targets;
};

static struct ipi_call calls[MAX_CPUS];
static struct cpumask inbox[MAX_CPUS];
static struct {
	int result;
	u64 answered;	       /* sequence number of the last call that was answered; atomic */
} answers[MAX_CPUS][MAX_CPUS]; /* [caller][target] */
static int (*handlers[IPI_KINDS])(void *arg);

void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg))
{
	handlers[kind] = handler;
}

static void answer(u32 me, u32 caller)
{
	struct ipi_call *c = &calls[caller];
	u64 seq = __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE);
	u32 kind = READ_ONCE(c->kind);
	void *arg = READ_ONCE(c->arg);
	bool asked = bitmap_test(c->targets.bits, me);

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (seq & 1 || !asked || seq != __atomic_load_n(&c->seq, __ATOMIC_RELAXED) ||
	    kind >= IPI_KINDS)
		return;
	answers[caller][me].result = handlers[kind] ? handlers[kind](arg) : -EOPNOTSUPP;
	__atomic_store_n(&answers[caller][me].answered, seq, __ATOMIC_RELEASE);
}

void ipi_poll(void)
{
	u32 me = this_cpu(cpu_id);

	for (u32 w = 0; w < BITMAP_WORDS(MAX_CPUS); w++) {
		u64 word;

		while ((word = READ_ONCE(inbox[me].bits[w]))) {
			u32 bit = (u32)__builtin_ctzll(word);

			if (bitmap_test_and_clear_atomic(inbox[me].bits, w * 64 + bit))
				answer(me, w * 64 + bit);
		}
	}
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
	ipi_set_handler(IPI_PING, pong);
	spin_poll_hook = poll_if_off;
}

static void publish(struct ipi_call *c, enum ipi_kind kind, const struct cpumask *mask, void *arg)
{
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	c->kind = kind;
	c->arg = arg;
	c->targets = *mask;
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_RELEASE);
}

static int wait_for(u32 me, u32 target, u64 seq, u64 deadline)
{
	while (__atomic_load_n(&answers[me][target].answered, __ATOMIC_ACQUIRE) != seq) {
		poll_if_off();
		if (rdtsc() > deadline) {
			log_err("CPU %u does not answer a call of CPU %u (kind %u)", target, me,
				calls[me].kind);
			return trace_error(-ETIMEDOUT);
		}
		cpu_pause();
	}
	return answers[me][target].result;
}

void ipi_post(enum ipi_kind kind, const struct cpumask *mask, void *arg)
{
	u32 me = this_cpu(cpu_id);

	publish(&calls[me], kind, mask, arg);
	for_each_cpu(cpu, mask) {
		if (cpu == me || !bitmap_test(cpus_online.bits, cpu))
			continue;
		bitmap_test_and_set_atomic(inbox[cpu].bits, me);
		apic_ipi(cpus[cpu].apic_id, VECTOR_IPI_CALL | APIC_ICR_ASSERT);
	}
}

int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS])
{
	u32 me = this_cpu(cpu_id);
	struct ipi_call *c = &calls[me];
	int first = 0, err;
	u64 deadline, flags;

	ipi_post(kind, mask, arg);
	deadline = rdtsc() + (u64)ANSWER_MS * tsc_khz;
	for_each_cpu(cpu, mask) {
		if (!bitmap_test(cpus_online.bits, cpu)) {
			err = -ENODEV;
		} else if (cpu == me) {
			flags = irq_save();
			err = handlers[kind] ? handlers[kind](arg) : -EOPNOTSUPP;
			irq_restore(flags);
		} else {
			err = wait_for(me, cpu, c->seq, deadline);
		}
		if (results)
			results[cpu] = err;
		if (err && !first)
			first = err;
	}
	return first;
}

void ipi_kick(u32 cpu)
{
	apic_ipi(cpus[cpu].apic_id, VECTOR_KICK | APIC_ICR_ASSERT);
}

void ipi_leave(void)
{
	bitmap_test_and_clear_atomic(cpus_online.bits, this_cpu(cpu_id));
	ipi_poll();
}
