/* SPDX-License-Identifier: MIT */
#include "arch/x86/tsc.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "arch/x86/timer.h"
#include "lib/error.h"
#include "lib/log.h"

#define ROUNDS	  32u
#define TURN_MS	  500 /* for emulators under load */
#define TRIES	  10  /* microseconds each; with uneven exchanges the first may miss */
#define LAST	  (2 * ROUNDS + 1)
#define MAX_TICKS (s64)(~0ull >> 1)

/*
 * One conversation. Each CPU has its own, so that one who comes late spoils no other's. The turn
 * counts up: odd ones are the CPU's whose TSC it is, even ones the asker's; 0 while nobody asks.
 */
struct talk {
	u32 turn; /* atomic */
	bool invariant;
	u64 answer; /* its TSC in its last turn */
	s64 by;	    /* in the last turn: what it is to change by */
	s64 lag;    /* of what was written before: the CPU took time for it */
	u32 tries;
};

static struct talk talks[MAX_CPUS];
static struct tsc_skew skews[MAX_CPUS];

/* Between what comes before and what comes after it in the program. */
static u64 tsc_in_order(void)
{
	u64 tsc;

	asm volatile("lfence" : : : "memory");
	tsc = rdtsc();
	asm volatile("lfence" : : : "memory");
	return tsc;
}

static bool wait_for_turn(struct talk *t, u32 turn)
{
	u64 end = rdtsc() + (u64)TURN_MS * tsc_khz;

	while (__atomic_load_n(&t->turn, __ATOMIC_ACQUIRE) != turn) {
		if (rdtsc() > end)
			return false;
		cpu_pause();
	}
	return true;
}

static void next_turn(struct talk *t, u32 turn)
{
	__atomic_store_n(&t->turn, turn, __ATOMIC_RELEASE);
}

static bool is_invariant(void)
{
	return cpuid(0x80000000, 0).eax >= 0x80000007 && cpuid(0x80000007, 0).edx & BIT(8);
}

static int change_tsc(u64 by)
{
	u64 adjust;

	if (cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & BIT(1) &&
	    !rdmsr_safe(MSR_TSC_ADJUST, &adjust))
		return wrmsr_safe(MSR_TSC_ADJUST, adjust + by);
	return wrmsr_safe(MSR_TSC, rdtsc() + by);
}

static int answer(void *arg)
{
	struct talk *t = arg;
	int err;

	t->invariant = is_invariant();
	for (u32 turn = 1; turn < LAST; turn += 2) {
		if (!wait_for_turn(t, turn))
			return -ETIMEDOUT;
		t->answer = tsc_in_order();
		next_turn(t, turn + 1);
	}
	if (!wait_for_turn(t, LAST))
		return -ETIMEDOUT;
	err = t->by ? change_tsc((u64)t->by) : 0;
	next_turn(t, LAST + 1);
	return err;
}

/* False: it did not answer in time. */
static bool compare(struct talk *t, struct tsc_skew *s)
{
	s64 by;

	*s = (struct tsc_skew){ .min = -MAX_TICKS, .max = MAX_TICKS };
	for (u32 turn = 1; turn < LAST; turn += 2) {
		u64 before = tsc_in_order();

		next_turn(t, turn);
		if (!wait_for_turn(t, turn + 1))
			return false;
		s->min = MAX(s->min, (s64)(t->answer - tsc_in_order()));
		s->max = MIN(s->max, (s64)(t->answer - before));
	}
	s->known = true;
	s->agrees = s->min <= 0 && s->max >= 0 && t->invariant;
	/* the width is that of one exchange, so the middle is far from no end */
	by = s->min <= 0 && s->max >= 0 ? 0 : -(s->min + (s->max - s->min) / 2);
	t->lag += t->tries++ ? by : 0;
	t->by = by ? by + t->lag : 0;
	next_turn(t, LAST);
	return wait_for_turn(t, LAST + 1);
}

/* One try: compare, and change what is apart. */
static bool converse(u32 id)
{
	struct cpumask one = { 0 };

	bitmap_set(one.bits, id);
	talks[id].turn = 0;
	ipi_post(IPI_TSC, &one, &talks[id]);
	return compare(&talks[id], &skews[id]);
}

void tsc_init(void)
{
	ipi_set_handler(IPI_TSC, answer);
	skews[0] = (struct tsc_skew){ .known = true, .agrees = is_invariant() };
}

bool tsc_stable(void)
{
	for_each_cpu(cpu, &cpus_online)
		if (!skews[cpu].agrees)
			return false;
	return true;
}

const struct tsc_skew *tsc_skew(u32 id)
{
	return &skews[id];
}

int tsc_sync(u32 id)
{
	struct talk *t = &talks[id];
	struct tsc_skew *s = &skews[id];
	bool answered, others_agree;
	s64 was = 0;

	*t = (struct talk){ 0 };
	while ((answered = converse(id)) && t->by && t->tries <= TRIES)
		was = was ? was : -t->by;
	if (was)
		log_warn("CPU %u: its TSC was %ld ticks off: %s", id, was,
			 t->by ? "it can't be set right" : "set right");
	if (!answered)
		log_warn("CPU %u: its TSC can't be compared: no answer", id);
	if (s->agrees)
		return 0;
	s->agrees = true;
	others_agree = tsc_stable();
	s->agrees = false;
	return others_agree ? trace_error(-ENODEV) : 0;
}
