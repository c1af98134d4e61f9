/* SPDX-License-Identifier: MIT */
/*
 * From a frame to its leaves while these move: walks by frame beside splits, merges and each other,
 * and two CPUs that open the same table. What needs luck with threads happens here every time: an
 * operation is done in the middle of another one, in front of any lock that this one takes.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/audit.h"
#include "mm/mappers.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"

/* A GiB, in leaves of one size or the next; and a frame in the middle of it. */
#define BASE  (3 * FRAMES_1G)
#define FIRST (5 * FRAMES_1G)
#define IT    (FRAMES_1G / 2 + FRAMES_2M / 2)

static struct stage2 s;
static const pfn_t frame = PFN(FIRST + IT);
static u8 large; /* the larger of the sizes */

/* --- one operation in the middle of another --- */

void __real_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l);

static u64 locks_left; /* until it happens; 0: it has, or nothing is to happen */
static void (*inside)(void);
static pthread_t inner_thread;
static __thread bool is_inner;
static bool over;      /* the outer operation is */
static bool inner_got; /* the inner one is as far as it gets: through, or it waits for the other */

static void *inner_main(void *arg)
{
	is_inner = true;
	inside();
	__atomic_store_n(&inner_got, true, __ATOMIC_SEQ_CST);
	return arg;
}

static void wait_a_turn(void)
{
	if (is_inner)
		__atomic_store_n(&inner_got, true, __ATOMIC_SEQ_CST);
	usleep(1);
}

void __wrap_spin_lock(struct spinlock *l)
{
	if (locks_left && !--locks_left) {
		HOST_CHECK(!pthread_create(&inner_thread, NULL, inner_main, NULL));
		while (!__atomic_load_n(&inner_got, __ATOMIC_SEQ_CST))
			usleep(1);
	}
	__real_spin_lock(l);
}

/*
 * outer() and, on another CPU, inner(): when outer comes to its n-th lock, inner is through, or
 * waits for outer. False: outer takes fewer locks, and was alone.
 */
static bool interleave(u64 n, void (*outer)(void), void (*inner)(void))
{
	bool both;

	inside = inner;
	over = inner_got = false;
	locks_left = n;
	outer();
	both = !locks_left;
	locks_left = 0;
	__atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
	if (both)
		pthread_join(inner_thread, NULL);
	return both;
}

/* --- the operations --- */

static u32 paid;
static u64 count;

static void pay_all(struct flush_debt *debts, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		paid += debts[i].generation != 0;
		stage2_debt_paid(&debts[i]);
	}
}

static void split_it(void)
{
	struct flush_debt debt;

	HOST_CHECK(!stage2_split(&s, GFN(BASE + IT), large - 1, &debt));
	stage2_debt_paid(&debt);
}

static void merge_it(void)
{
	struct flush_debt debt;
	int err = stage2_merge(&s, GFN(BASE + IT), large, &debt);

	HOST_CHECK(!err || err == -EAGAIN);
	stage2_debt_paid(&debt);
}

static void count_it(void)
{
	count = rmap_count(frame);
}

static void protect_it(void)
{
	frame_write_protect(frame, pay_all);
}

static u8 prot_of(u64 gfn)
{
	struct stage2_leaf leaf;

	return stage2_lookup(&s, GFN(gfn), &leaf) ? leaf.prot : 0;
}

static void allow(u64 gfn, u64 frames)
{
	struct flush_debt debt;

	HOST_CHECK(!stage2_protect(&s, GFN(gfn), frames, S2_RWX, &debt));
	HOST_CHECK(!debt.generation);
}

static void open_frame(const struct pt_format *fmt, u8 size)
{
	open_stage2(&s, fmt, size);
	large = size;
	assert_int_equal(stage2_map(&s, GFN(BASE), PFN(FIRST), FRAMES_1G, S2_RWX, S2_WB, size), 0);
}

static void close_frame(void)
{
	struct flush_debt debt;

	assert_int_equal(stage2_unmap(&s, GFN(BASE), FRAMES_1G, &debt), 0);
	stage2_debt_paid(&debt);
	close_stage2(&s);
}

/* --- beside splits and merges --- */

/* The frame is mapped all the time. */
static void test_walk_beside_moves(void **state)
{
	for (u8 size = 2; size <= 3; size++) {
		bool both = true;

		open_frame(*state, size);
		for (u64 n = 1; both; n++) {
			both = interleave(n, count_it, split_it);
			assert_int_not_equal(count, 0);
			split_it();
			both |= interleave(n, count_it, merge_it);
			assert_int_not_equal(count, 0);
			merge_it();
			assert_true(both || n > 2);
		}
		close_frame();
	}
}

/* Whatever is done to its leaf meanwhile, afterwards nobody can write. */
static void protect_beside(void (*move)(void))
{
	u64 n;

	/* Some of all the locks: the frame's own leaf is in the middle. */
	for (n = 1; n < 2000; n += n < 4 ? 1 : 97) {
		paid = 0;
		if (!interleave(n, move, protect_it))
			break;
		assert_int_equal(paid, 1);
		assert_int_equal(prot_of(BASE + IT), S2_R | S2_X);
		allow(BASE, FRAMES_1G);
		if (move == merge_it)
			split_it();
		else
			merge_it();
	}
	assert_true(n > 4 && n < 2000);
}

static void test_protect_beside_moves(void **state)
{
	for (u8 size = 2; size <= 3; size++) {
		open_frame(*state, size);
		protect_beside(split_it);
		split_it();
		protect_beside(merge_it);
		close_frame();
	}
}

/* --- flushes of frame_write_protect --- */

/* What somebody else has removed, and not flushed, CPUs may still know, and write to. */
static void test_protect_what_is_gone(void **state)
{
	struct flush_debt debt;

	open_frame(*state, 2);
	paid = 0;
	assert_int_equal(stage2_unmap(&s, GFN(BASE), FRAMES_1G, &debt), 0);
	protect_it();
	assert_int_equal(paid, 1);
	stage2_debt_paid(&debt);
	protect_it(); /* nobody has it: nothing to be flushed */
	assert_int_equal(paid, 1);
	close_frame();
}

/* A flush that takes until ours is done. */
static void pay_late(struct flush_debt *debts, u32 n)
{
	__atomic_store_n(&inner_got, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST))
		usleep(1);
	for (u32 i = 0; i < n; i++)
		stage2_debt_paid(&debts[i]);
}

static void protect_late(void)
{
	frame_write_protect(frame, pay_late);
}

/* Two CPUs protect one frame: neither relies on a flush that the other has not done yet. */
static void test_protect_twice(void **state)
{
	bool both = true;

	open_frame(*state, 2);
	for (u64 n = 1; both; n++) {
		paid = 0;
		both = interleave(n, protect_it, protect_late);
		assert_true(both || n > 3);
		assert_int_equal(paid, 1);
	}
	close_frame();
}

/* --- memory that is freed while a leaf of 1 GiB maps it --- */

/* Who maps it is found, though the key is not with the 2 MiB that are freed. */
static void test_freed_in_a_gib(void **state)
{
	open_frame(*state, 3);
	assert_false(audit_unmapped(frame));
	assert_int_equal(s.corruptions, 1);
	s.corruptions = host_warnings = 0;
	close_frame();
}

/* --- two CPUs open one table --- */

static void allow_it(void)
{
	allow(BASE + IT, 1);
}

static void allow_next(void)
{
	allow(BASE + IT + 1, 1);
}

/* Who comes second finds it open, and takes nothing away that was given meanwhile. */
static void test_open_twice(void **state)
{
	struct flush_debt debt;
	bool both = true;

	open_frame(*state, 1);
	for (u64 n = 1; both; n++) {
		assert_int_equal(stage2_protect_top(&s, GFN(BASE), FRAMES_1G, &debt), 0);
		stage2_debt_paid(&debt);
		both = interleave(n, allow_it, allow_next);
		assert_true(both || n > 2);
		assert_int_equal(prot_of(BASE + IT), S2_RWX);
		assert_int_equal(prot_of(BASE + IT + 1), both ? S2_RWX : S2_R | S2_X);
		assert_int_equal(prot_of(BASE + IT + 2), S2_R | S2_X);
	}
	close_frame();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_walk_beside_moves),	 BOTH(test_protect_beside_moves),
		BOTH(test_protect_what_is_gone), BOTH(test_protect_twice),
		BOTH(test_freed_in_a_gib),	 BOTH(test_open_twice),
	};

	host_hooks_open();
	spin_poll_hook = wait_a_turn;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
