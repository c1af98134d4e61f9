/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's timer: SDM vol. 3, "APIC Timer".
 *
 * The state is a deadline in host TSC; the count that the guest reads is what is left until then.
 * The vCPU's host timer is only armed while an interrupt would come of it: a masked timer costs
 * nothing. Everything here runs on the runner.
 */
#include "dev/lapic.h"

#include "dev/clock.h"
#include "virt/cpuid.h"
#include "virt/ops.h"

/* A request, whatever CPU the host timer was armed on. */
static void timer_fired(struct timer *t)
{
	vcpu_request(container_of(t, struct vcpu, timer), REQ_TIMER);
}

static u32 timer_lvt(struct lapic *l)
{
	return *lapic_reg(l, APIC_LVT_TIMER);
}

static u64 count_to_tsc(struct lapic *l, u32 count)
{
	return ratio_apply((u64)count << l->timer.shift, l->timer.tsc_per_tick);
}

static u64 later(u64 now, u64 ticks)
{
	return now + ticks < now ? ~0ull : now + ticks;
}

/* Ticks that were missed are one: the next deadline is the first of the raster that lies ahead. */
static void advance_period(struct lapic *l, u64 now)
{
	u64 next = later(l->timer.deadline, l->timer.period);
	if (next <= now)
		next = later(now, l->timer.period - (now - l->timer.deadline) % l->timer.period);
	l->timer.deadline = next;
}

/* The deadline has passed. */
static void expire(struct lapic *l, u64 now)
{
	if (l->timer.mode == APIC_TIMER_PERIODIC) {
		advance_period(l, now);
	} else {
		l->timer.running = false;
		l->timer.guest_deadline = 0;
	}
	lapic_local(l, timer_lvt(l) & ~APIC_MODE); /* the timer's LVT has no delivery mode */
}

/*
 * Let happen what was due by now, under the settings that held until now: called before a setting
 * changes. (The host timer may still be armed, or its request on the way; both are harmless.)
 */
void lapic_timer_settle(struct lapic *l)
{
	u64 now = dev_tsc();
	if (l->timer.running && l->timer.deadline <= now)
		expire(l, now);
}

/* Make the host's timer follow the state. An interrupt that is due is delivered at once. */
static void update_host_timer(struct lapic *l)
{
	struct timer *host = &l->v->timer;
	lapic_timer_settle(l);
	if (l->timer.running && !(timer_lvt(l) & APIC_LVT_MASKED))
		timer_arm(host, l->timer.deadline);
	else if (host->armed)
		timer_cancel(host);
}

/* The host TSC at which the guest's TSC reaches its deadline. */
static void set_deadline(struct lapic *l)
{
	u64 now = dev_tsc(), guest_now = now + virt_ops->get_reg(l->v, VR_TSC_OFFSET);
	u64 deadline = l->timer.guest_deadline;

	l->timer.deadline = deadline > guest_now ? later(now, deadline - guest_now) : now;
}

/*
 * REQ_TIMER. It may be stale, if the guest has set the timer anew since it fired, or moved its TSC:
 * then this only arms again.
 */
void lapic_timer_expired(struct vcpu *v)
{
	struct lapic *l = lapic_of(v);

	if (l->timer.running && l->timer.mode == APIC_TIMER_DEADLINE)
		set_deadline(l);
	update_host_timer(l);
}

static void stop(struct lapic *l)
{
	l->timer.running = false;
	l->timer.guest_deadline = 0;
	*lapic_reg(l, APIC_TMICT) = 0;
	update_host_timer(l);
}

static void set_period(struct lapic *l)
{
	u64 period = count_to_tsc(l, *lapic_reg(l, APIC_TMICT));
	l->timer.period = MAX(period, l->timer.min_period);
}

void lapic_timer_count(struct lapic *l, u32 count)
{
	if (l->timer.mode > APIC_TIMER_PERIODIC)
		return; /* "in TSC-deadline mode, writes to the initial-count register are ignored"
			 */
	*lapic_reg(l, APIC_TMICT) = count;
	if (!count) {
		stop(l);
		return;
	}
	u64 span = count_to_tsc(l, count);
	if (l->timer.mode == APIC_TIMER_PERIODIC) {
		set_period(l);
		span = l->timer.period;
	}
	l->timer.deadline = later(dev_tsc(), span);
	l->timer.running = true;
	update_host_timer(l);
}

u32 lapic_timer_current(struct lapic *l)
{
	if (l->timer.mode > APIC_TIMER_PERIODIC)
		return 0;
	lapic_timer_settle(l);
	if (!l->timer.running)
		return 0;
	u64 left = l->timer.deadline - MIN(dev_tsc(), l->timer.deadline);
	u64 count = ratio_apply(left, l->timer.tick_per_tsc) >> l->timer.shift;
	return (u32)MIN(count, (u64)*lapic_reg(l, APIC_TMICT));
}

/*
 * Entering or leaving the deadline mode disarms ("TSC-Deadline Mode"); one-shot and periodic share
 * the count.
 */
void lapic_timer_lvt(struct lapic *l)
{
	u8 mode = (timer_lvt(l) & APIC_LVT_TIMER_MODE) >> APIC_LVT_TIMER_SHIFT;
	u8 old = l->timer.mode;
	l->timer.mode = mode;
	if (mode != old && (mode > APIC_TIMER_PERIODIC || old > APIC_TIMER_PERIODIC)) {
		stop(l);
		return;
	}
	if (mode == APIC_TIMER_PERIODIC && mode != old)
		set_period(l);
	update_host_timer(l);
}

/* "Divide Configuration Register": bits 3, 1 and 0 are 2, 4, ... 128, 1. */
static u8 shift_of(u32 value)
{
	return (((value & 3) | (value >> 1 & 4)) + 1) & 7;
}

/* What is left of the count goes on at the new rate. */
void lapic_timer_divide(struct lapic *l, u32 value)
{
	u32 left = lapic_timer_current(l);
	*lapic_reg(l, APIC_TDCR) = value;
	l->timer.shift = shift_of(value);
	if (!l->timer.running || l->timer.mode > APIC_TIMER_PERIODIC)
		return;
	set_period(l);
	l->timer.deadline = later(dev_tsc(), count_to_tsc(l, left));
	update_host_timer(l);
}

/* MSR IA32_TSC_DEADLINE: a value of the guest's TSC, 0 disarms. Ignored outside of its mode. */
void lapic_timer_set_deadline(struct lapic *l, u64 guest_tsc)
{
	if (l->timer.mode != APIC_TIMER_DEADLINE)
		return;
	l->timer.guest_deadline = guest_tsc;
	l->timer.running = guest_tsc != 0;
	set_deadline(l);
	update_host_timer(l);
}

void lapic_timer_reset(struct lapic *l)
{
	l->timer.mode = APIC_TIMER_ONESHOT;
	l->timer.shift = 1;
	stop(l);
}

/* The rate that the guest was told. */
static void set_rates(struct lapic *l)
{
	const struct cpuid_policy *policy = l->v->vm->cpuid;
	u32 tick_khz = policy && policy->apic_khz ? policy->apic_khz : LAPIC_DEFAULT_KHZ;
	l->timer.tsc_per_tick = ratio_make(tsc_khz, tick_khz);
	l->timer.tick_per_tsc = ratio_make(tick_khz, tsc_khz);
}

void lapic_timer_restore(struct lapic *l)
{
	set_rates(l);
	l->timer.mode = (timer_lvt(l) & APIC_LVT_TIMER_MODE) >> APIC_LVT_TIMER_SHIFT;
	l->timer.shift = shift_of(*lapic_reg(l, APIC_TDCR));
	set_period(l);
}

void lapic_timer_create(struct lapic *l)
{
	timer_init(&l->v->timer, timer_fired);
	set_rates(l);
	l->timer.min_period =
		MAX(ratio_apply(LAPIC_MIN_PERIOD_NS, ratio_make(tsc_khz, 1000000)), 1ull);
}
