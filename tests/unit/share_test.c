/* SPDX-License-Identifier: MIT */
/*
 * The scheduler's arithmetic on a simulated CPU: a clock, slices as virt/sched.c arms them, vCPUs
 * that compute for ever or sleep at random. Shares, how long anybody waits, and wrapping times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/unit/host.h"
#include "virt/share.h"

#define SLICE	1000ull
#define SECOND	(100 * SLICE)
#define MAX_RUN 32

struct runner {
	struct share share;
	u32 run, sleep; /* at most so long at a time; run 0: it computes for ever */
	u64 left;	/* of its run */
	u64 wakes_at;	/* while it sleeps */
	u64 waits_since, longest, waited_after_sleep;
	u64 ran;
	bool asleep, woke;
};

static struct runner r[MAX_RUN];
static u32 nr;
static struct share_queue q;
static u64 now, end, seed;

static u64 rnd(void)
{
	return host_random(&seed);
}

static void start(u64 time)
{
	nr = 0;
	now = 0;
	share_queue_init(&q, SLICE);
	q.vtime = time;
}

static void waits(struct runner *p, bool woke)
{
	p->waits_since = now;
	p->woke = woke;
	share_wait(&q, &p->share, woke);
}

static struct runner *add(u32 weight, u32 run, u32 sleep)
{
	struct runner *p = &r[nr++];

	*p = (struct runner){ .run = run, .sleep = sleep };
	share_init(&p->share, weight);
	share_move(&p->share, NULL, &q);
	p->left = run ? 1 + rnd() % run : ~0ull;
	waits(p, true);
	return p;
}

static void wake_sleepers(void)
{
	for (u32 i = 0; i < nr; i++) {
		if (!r[i].asleep || r[i].wakes_at > now)
			continue;
		r[i].asleep = false;
		waits(&r[i], true);
	}
}

static u64 next_wake(void)
{
	u64 at = ~0ull;

	for (u32 i = 0; i < nr; i++)
		if (r[i].asleep)
			at = MIN(at, r[i].wakes_at);
	return at;
}

static struct runner *take(void)
{
	struct share *s = share_next(&q, NULL);
	struct runner *p = s ? container_of(s, struct runner, share) : NULL;

	if (!p)
		return NULL;
	share_leave(&q, s);
	p->longest = MAX(p->longest, now - p->waits_since);
	if (p->woke)
		p->waited_after_sleep = MAX(p->waited_after_sleep, now - p->waits_since);
	return p;
}

/* Until it sleeps, or another's turn has come: looked at when one wakes and when a slice ends. */
static void run(struct runner *p)
{
	bool done;

	do {
		u64 began = now, slice = q.nr_waiting ? now + SLICE : ~0ull;

		now = MIN(MIN(p->left > end - now ? end : now + p->left, slice), next_wake());
		p->ran += now - began;
		share_ran(&q, &p->share, now - began);
		if (p->run)
			p->left -= now - began;
		done = !p->left;
		wake_sleepers();
	} while (now < end && !done && share_next(&q, &p->share) == &p->share);
	if (!done) {
		waits(p, false);
		return;
	}
	p->left = 1 + rnd() % p->run;
	p->asleep = true;
	p->wakes_at = now + 1 + rnd() % p->sleep;
}

static void simulate(u64 ticks)
{
	end = now + ticks;
	while (now < end) {
		struct runner *p;

		wake_sleepers();
		p = take();
		if (p)
			run(p);
		else
			now = MIN(next_wake(), end);
	}
}

/* a's part of what both had is what it should be, within a percent. */
static void assert_ratio(u64 a, u64 b, u64 should_a, u64 should_b)
{
	u64 part = a * 10000 / (a + b), should = should_a * 10000 / (should_a + should_b);

	assert_true(part + 100 > should && part < should + 100);
}

/* Four that compute for ever: a quarter each, whatever the queue's time is, also where it wraps. */
static void test_equal_shares(void **state)
{
	const u64 times[] = { 0, 12345, ~0ull - 10 * SLICE, BIT(63) - 3 * SLICE };

	(void)state;
	for (u32 t = 0; t < ARRAY_SIZE(times); t++) {
		start(times[t]);
		for (u32 i = 0; i < 4; i++)
			add(100, 0, 0);
		simulate(10 * SECOND);
		for (u32 i = 0; i < 4; i++) {
			assert_ratio(r[i].ran, now - r[i].ran, 1, 3);
			assert_true(r[i].longest <= 4 * SLICE);
		}
	}
}

static void test_weights(void **state)
{
	const u32 weights[] = { 100, 200, 300, 1000, 1 };
	u64 sum = 1601;

	(void)state;
	start(~0ull - SECOND);
	for (u32 i = 0; i < 5; i++)
		add(weights[i], 0, 0);
	simulate(2000 * SECOND);
	for (u32 i = 0; i < 5; i++)
		assert_ratio(r[i].ran, now - r[i].ran, weights[i], sum - weights[i]);
	assert_true(r[4].ran * 1601 > now * 9 / 10 && r[4].ran * 1601 < now * 11 / 10);
	/* Nobody starves: the lightest waits for what the others are due meanwhile. */
	assert_true(r[4].longest < 2 * 1601 * SLICE);
}

/* One that computes beside one that mostly sleeps: it has all that is left, and wakes in time. */
static void test_sleeper(void **state)
{
	(void)state;
	start(0);
	add(100, 0, 0);
	add(100, SLICE / 10, SLICE * 2);
	simulate(SECOND);
	r[1].waited_after_sleep = 0;
	simulate(100 * SECOND);
	assert_true(r[0].ran + r[1].ran == now);
	assert_true(r[1].ran * 100 > now * 3); /* about 5 % */
	assert_int_equal(r[1].waited_after_sleep, 0);
}

/* A sleeper saves up no more than a slice: when it wakes it does not lock the other out. */
static void test_no_unlimited_credit(void **state)
{
	struct runner *a, *b;

	(void)state;
	start(0);
	a = add(100, 0, 0);
	b = add(100, 0, 0);
	simulate(SECOND);
	share_leave(&q, &b->share);
	simulate(1000 * SECOND); /* a alone */
	a->longest = 0;
	waits(b, true);
	a->ran = b->ran = 0;
	simulate(SECOND);
	assert_true(a->longest <= 3 * SLICE);
	assert_ratio(a->ran, b->ran, 1, 1);
}

/* The other way: who had the CPU alone pays nothing for it once another comes. */
static void test_no_debt(void **state)
{
	struct runner *a, *b;

	(void)state;
	start(0);
	a = add(1, 0, 0);
	simulate(1000 * SECOND);
	b = add(100, SLICE, 1); /* wakes again at once */
	a->longest = 0;
	simulate(100 * SECOND);
	assert_true(a->longest <= 2 * 100 * SLICE);
	assert_ratio(a->ran - 1000 * SECOND, b->ran, 1, 100);
	/* ... and also if they never wait at the same time. */
	start(0);
	a = add(1, 0, 0);
	simulate(1000 * SECOND);
	share_leave(&q, &a->share);
	b = add(1000, 0, 0);
	simulate(SLICE);
	waits(a, true);
	a->longest = 0;
	simulate(1001 * SECOND);
	assert_true(a->ran > 1000 * SECOND);
}

/* A long time asleep, more than half of what virtual times can tell apart. */
static void test_asleep_for_ages(void **state)
{
	(void)state;
	start(0);
	add(100, 0, 0);
	add(100, 0, 0);
	simulate(SECOND);
	share_leave(&q, &r[1].share);
	r[0].share.vtime = q.vtime += BIT(63) + 12345; /* as if r[0] had run all the time */
	waits(&r[1], true);
	r[1].longest = r[1].ran = 0;
	simulate(SECOND);
	assert_true(r[1].longest <= 10 * SLICE);
	assert_true(r[1].ran * 3 > SECOND);
}

/* The queue's time is rounded down each time: it does not stay behind for ever. */
static void test_rounding(void **state)
{
	(void)state;
	start(0);
	add(100, 0, 0);
	add(50, 0, 0);
	for (u32 i = 0; i < 100 * SLICE; i++) {
		struct runner *p = take();

		share_ran(&q, &p->share, 1); /* 2/3 of a tick for the queue: none */
		waits(p, false);
	}
	share_leave(&q, &r[0].share);
	assert_ptr_equal(share_next(&q, &r[0].share), &r[0].share);
	assert_true(r[0].share.vtime - q.vtime <= 4 * SLICE);
}

static void test_yield(void **state)
{
	struct share *next;

	(void)state;
	start(0);
	for (u32 i = 0; i < 3; i++)
		add(100, 0, 0);
	simulate(SECOND);
	for (u32 i = 0; i < 20; i++) {
		struct runner *p = take();

		p->share.vtime -= SLICE; /* it would be next again, and again */
		share_ran(&q, &p->share, 1);
		share_yield(&q, &p->share);
		next = share_next(&q, NULL);
		waits(p, false);
		assert_ptr_equal(share_next(&q, NULL), next);
		assert_ptr_not_equal(next, &p->share);
	}
	/* alone it just goes on */
	start(0);
	share_ran(&q, &r[0].share, 1);
	share_yield(&q, &r[0].share);
	assert_null(share_next(&q, NULL));
}

/* To another queue whose time is far away, and back: neither gain nor loss. */
static void test_move(void **state)
{
	struct share_queue other;
	u64 lead;

	(void)state;
	start(5000);
	share_queue_init(&other, SLICE);
	other.vtime = ~0ull - 7;
	add(100, 0, 0);
	add(100, 0, 0);
	simulate(SECOND);
	lead = r[1].share.vtime - q.vtime;
	share_leave(&q, &r[1].share);
	share_move(&r[1].share, &q, &other);
	assert_int_equal(r[1].share.vtime - other.vtime, lead);
	share_wait(&other, &r[1].share, false);
	assert_ptr_equal(share_next(&other, NULL), &r[1].share);
	assert_int_equal(other.nr_waiting, 1);
	assert_int_equal(q.nr_waiting, 1);
	/* One that woke after long, and moves at once: it is settled where it comes to. */
	share_leave(&other, &r[1].share);
	r[1].share.vtime -= 1000 * SLICE;
	share_wait(&other, &r[1].share, true);
	share_leave(&other, &r[1].share);
	share_move(&r[1].share, &other, &q);
	share_wait(&q, &r[1].share, r[1].share.woke);
	assert_ptr_equal(share_next(&q, NULL), &r[1].share);
	assert_int_equal(q.vtime - r[1].share.vtime, SLICE);
	assert_int_equal(other.weights, 0);
	assert_int_equal(q.weights, 200);
}

/*
 * Random crowds: the CPU is never idle while somebody could run, who always computes gets at least
 * its part, and nobody waits for longer than the others' turns can take.
 */
static void test_random(void **state)
{
	(void)state;
	for (u32 round = 0; round < 100; round++) {
		u32 busy = 1 + rnd() % 4, all = busy + rnd() % 12;
		u64 sum = 0, ran = 0;

		start(rnd() % 2 ? 0 - rnd() % (100 * SECOND) : rnd());
		for (u32 i = 0; i < all; i++) {
			u32 weight = 10 + (u32)(rnd() % 500);

			if (i < busy)
				add(weight, 0, 0);
			else
				add(weight, 1 + (u32)(rnd() % (3 * SLICE)),
				    1 + (u32)(rnd() % (20 * SLICE)));
			sum += weight;
		}
		simulate(500 * SECOND);
		for (u32 i = 0; i < all; i++) {
			u64 due = now / sum * r[i].share.weight;

			ran += r[i].ran;
			if (i < busy)
				assert_true(r[i].ran + r[i].ran / 50 + 5 * SLICE > due);
			/* what all together are due between two turns of it */
			assert_true(r[i].longest <
				    (6 * sum / r[i].share.weight + 2 * all + 2) * SLICE);
		}
		assert_int_equal(ran, now);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_shares), cmocka_unit_test(test_weights),
		cmocka_unit_test(test_sleeper),	     cmocka_unit_test(test_no_unlimited_credit),
		cmocka_unit_test(test_no_debt),	     cmocka_unit_test(test_asleep_for_ages),
		cmocka_unit_test(test_rounding),     cmocka_unit_test(test_yield),
		cmocka_unit_test(test_move),	     cmocka_unit_test(test_random),
	};

	seed = host_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
