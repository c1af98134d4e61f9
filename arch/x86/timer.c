/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/timer.h"
#include "arch/x86/trap.h"
#include "lib/log.h"

DEFINE_PERCPU(bool, timer_deadline);	 /* by TSC deadline, else one-shot */
DEFINE_PERCPU(struct list, timer_queue); /* by deadline, the first is what the hardware is set to */

static struct list *queue(void)
{
	return this_cpu_ptr(struct list, timer_queue);
}

static struct timer *first(void)
{
	return list_empty(queue()) ? NULL : list_entry(queue()->next, struct timer, node);
}

/* Set the hardware to the first deadline. A deadline in the past fires at once. */
static void program(void)
{
	struct timer *t = first();
	u64 now, ticks;

	if (this_cpu(timer_deadline)) {
		wrmsr(MSR_TSC_DEADLINE, t ? MAX(t->deadline, 1) : 0);
		return;
	}
	if (!t) {
		apic_write(APIC_TMICT, 0);
		return;
	}
	now = rdtsc();
	ticks = t->deadline > now
			? (u64)((unsigned __int128)(t->deadline - now) * clock_apic_mult >> 32)
			: 0;
	/* too far: it fires early, and is set again */
	apic_write(APIC_TMICT, (u32)MIN(MAX(ticks, 1), 0xffffffffull));
}

static void interrupt(void)
{
	struct timer *t;

	while ((t = first()) && t->deadline <= rdtsc()) {
		list_del(&t->node);
		t->armed = false;
		t->fire(t);
	}
	program();
}

static bool timer_pending(void)
{
	return apic_read(APIC_IRR + VECTOR_TIMER / 32 * 0x10) & BIT(VECTOR_TIMER % 32);
}

/*
 * Does it fire when it should? Some CPUs without a microcode update fire at any time, and Bochs
 * after a warm reset at once: an interrupt that comes again and again. The one that this makes
 * stays pending, and finds nothing to do.
 */
static bool deadline_is_kept(void)
{
	u64 now = rdtsc(), deadline = now + tsc_khz / 10, late = now + tsc_khz;

	wrmsr(MSR_TSC_DEADLINE, deadline);
	while (!timer_pending() && now < late)
		now = rdtsc();
	return rdtsc() >= deadline && now < late;
}

void timer_init_cpu(void)
{
	list_init(queue());
	trap_set_irq(VECTOR_TIMER, interrupt);
	apic_write(APIC_TDCR, 0xb); /* divide by 1 */
	this_cpu(timer_deadline) = clock_has_deadline;
	apic_write(APIC_LVT_TIMER,
		   VECTOR_TIMER | (clock_has_deadline ? (u32)APIC_TIMER_DEADLINE : 0));
	/* the mode before the first deadline (SDM "TSC-Deadline Mode") */
	asm volatile("mfence" : : : "memory");
	if (clock_has_deadline && !deadline_is_kept()) {
		log_warn("CPU %u: its TSC deadline timer fires at the wrong time: one-shot mode",
			 this_cpu(cpu_id));
		this_cpu(timer_deadline) = false;
		apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
	}
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	list_init(&t->node);
	t->fire = fire;
	t->armed = false;
}

void timer_arm(struct timer *t, u64 deadline)
{
	struct list *at;
	struct timer *head = first();

	if (t->armed)
		list_del(&t->node);
	t->deadline = deadline;
	t->armed = true;
	for (at = queue()->next; at != queue(); at = at->next)
		if (list_entry(at, struct timer, node)->deadline > deadline)
			break;
	list_add_tail(at, &t->node);
	if (first() == t || head == t)
		program();
}

void timer_cancel(struct timer *t)
{
	bool was_first = t->armed && first() == t;

	if (!t->armed)
		return;
	list_del(&t->node);
	t->armed = false;
	if (was_first)
		program();
}
