/* SPDX-License-Identifier: MIT */
/* The stage-2 engine under threads as CPUs, with one more that is the hardware. Built with
 * -fsanitize=thread as well. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/grace.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"

#define THREADS	    4
#define CHAOS_BASE  (3 * FRAMES_1G - 4 * FRAMES_2M)
#define CHAOS_COUNT (8 * FRAMES_2M)
#define CHAOS_DELTA (64 * FRAMES_1G)

static struct stage2 shared;
static u64 merges, splits;

struct thread {
	pthread_t id;
	u32 self;
	u64 seed;
	u8 prot[CHAOS_COUNT]; /* what this thread's own frames are mapped with */
};
static struct thread threads[THREADS];

/*
 * The flush: the hardware's walks are read sections here, so the grace period that the engine keeps
 * for its own walks covers them as well. Tables are freed at once: the sanitizer sees who is late.
 */
static void split_or_merge(u64 gfn, bool merge)
{
	struct flush_debt debt;
	int err;

	err = merge ? stage2_merge(&shared, GFN(gfn), 2, &debt)
		    : stage2_split(&shared, GFN(gfn), 1, &debt);
	HOST_CHECK(err == 0 || (merge && err == -EAGAIN));
	if (debt.generation)
		__atomic_fetch_add(merge ? &merges : &splits, 1, __ATOMIC_RELAXED);
	stage2_debt_paid(&debt);
}

/* The hardware, as a thread: walks, and sets A and D in what it finds. */
static bool hardware_stop;

static void *hardware_main(void *arg)
{
	u64 seed = host_seed() ^ 0x5555;

	(void)arg;
	while (!__atomic_load_n(&hardware_stop, __ATOMIC_RELAXED)) {
		u64 gfn = CHAOS_BASE + host_random(&seed) % CHAOS_COUNT;
		struct xlat x;

		grace_enter();
		x = hw_xlat(&shared, gfn);
		HOST_CHECK(!x.prot || x.pfn == gfn + CHAOS_DELTA);
		hw_set(&shared, gfn,
		       shared.fmt->accessed | (x.prot & S2_W ? shared.fmt->dirty : 0));
		grace_leave();
	}
	return NULL;
}

static void run_threads(const struct pt_format *fmt, void *(*body)(void *))
{
	struct flush_debt debt;
	pthread_t hardware;

	open_stage2(&shared, fmt, 3);
	merges = splits = 0;
	hardware_stop = false;
	assert_int_equal(pthread_create(&hardware, NULL, hardware_main, NULL), 0);
	for (u32 i = 0; i < THREADS; i++) {
		memset(&threads[i], 0, sizeof(threads[i]));
		threads[i].self = i;
		threads[i].seed = host_seed() + i;
		assert_int_equal(pthread_create(&threads[i].id, NULL, body, &threads[i]), 0);
	}
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	__atomic_store_n(&hardware_stop, true, __ATOMIC_RELAXED);
	pthread_join(hardware, NULL);
	assert_int_equal(host_failures, 0);
	assert_true(merges > 0 && splits > 0);

	assert_int_equal(stage2_unmap(&shared, GFN(0), DEFAULT_MAX_GFN, &debt), 0);
	stage2_debt_paid(&debt);
	assert_int_equal(shared.tables, 1);
	close_stage2(&shared);
}

/* Everybody changes everything. A frame is unmapped or where it belongs, and in the end all adds
 * up. */
static void *chaos_main(void *arg)
{
	struct thread *t = arg;

	for (u32 i = 0; i < 1000; i++) {
		u64 r = host_random(&t->seed);
		u64 first = (r >> 8) % CHAOS_COUNT,
		    count = (r >> 32) % 8 ? (r >> 36) % 8 + 1 : (r >> 36) % 2000;
		struct flush_debt debt = { 0 };
		u8 prot = (r >> 60) % 8 ? S2_RWX : S2_R;
		u64 gfn;
		int err;

		if ((r >> 56) % 4 == 0) {
			first &= ~511ull;
			count = 512;
		}
		count = MIN(count, CHAOS_COUNT - first);
		gfn = CHAOS_BASE + first;
		switch (r % 8) {
		case 0:
		case 1:
		case 2:
			err = map_either(&shared, GFN(gfn), PFN(gfn + CHAOS_DELTA), count, prot,
					 S2_WB, 3);
			HOST_CHECK(err == 0 || err == -EEXIST);
			break;
		case 3:
			if ((r >> 50) % 8 == 0) { /* all, with the tables of level 2 */
				gfn = CHAOS_BASE & ~(FRAMES_1G - 1);
				count = 2 * FRAMES_1G;
			}
			HOST_CHECK(stage2_unmap(&shared, GFN(gfn), count, &debt) == 0);
			stage2_debt_paid(&debt);
			break;
		case 4:
			HOST_CHECK(stage2_protect(&shared, GFN(gfn), count, prot, &debt) == 0);
			stage2_debt_paid(&debt);
			break;
		default:
			split_or_merge(gfn, r % 8 != 5);
		}
	}
	return NULL;
}

static void test_threads_chaos(void **state)
{
	run_threads(*state, chaos_main);
}

/*
 * Each thread owns every fourth frame, and among the last tables every fourth table, and knows what
 * its own frames must be, whatever the others do in the same tables.
 */
#define STRIPED (4 * FRAMES_2M)

static bool owned(const struct thread *t, u64 i)
{
	return (i < STRIPED ? i : i / FRAMES_2M) % THREADS == t->self;
}

static void check_owned(struct thread *t, u64 i)
{
	struct stage2_leaf leaf;
	bool mapped;

	/*
	 * While another thread merges, a fault is fine: look again, as a guest does. The other one
	 * may have to wait for a CPU of a busy machine.
	 */
	for (u32 tries = 0; tries < 10000; tries++) {
		mapped = stage2_lookup(&shared, GFN(CHAOS_BASE + i), &leaf);
		if (mapped || !t->prot[i])
			break;
		usleep(tries < 100 ? 0 : 1000);
	}
	HOST_CHECK(mapped == (t->prot[i] != 0));
	HOST_CHECK(leaf.prot == t->prot[i]);
	HOST_CHECK(!mapped ||
		   stage2_leaf_pfn(&leaf, GFN(CHAOS_BASE + i)).v == CHAOS_BASE + i + CHAOS_DELTA);
}

static void change_owned(struct thread *t, u64 i, u64 count, u8 prot)
{
	u64 gfn = CHAOS_BASE + i;
	struct flush_debt debt = { 0 };

	if (!prot)
		HOST_CHECK(stage2_unmap(&shared, GFN(gfn), count, &debt) == 0);
	else if (t->prot[i])
		HOST_CHECK(stage2_protect(&shared, GFN(gfn), count, prot, &debt) == 0);
	else
		HOST_CHECK(map_either(&shared, GFN(gfn), PFN(gfn + CHAOS_DELTA), count, prot, S2_WB,
				      3) == 0);
	stage2_debt_paid(&debt);
	memset(&t->prot[i], prot, count);
}

static void *owner_main(void *arg)
{
	struct thread *t = arg;

	for (u32 i = 0; i < 600; i++) {
		u64 r = host_random(&t->seed);
		u64 table = (r >> 16) % (CHAOS_COUNT / FRAMES_2M) * FRAMES_2M;
		u8 prot = (r >> 40) % 4 ? S2_RWX : (r >> 42) % 2 ? S2_R : 0;

		if (r % 4 == 0) {
			split_or_merge(CHAOS_BASE + table, (r >> 8) & 1);
		} else if (table < STRIPED) {
			/* Mostly all own frames of the table alike, so that there is something to
			 * merge. */
			u64 step = (r >> 50) % 8 ? THREADS : 100 * THREADS;

			for (u64 f = table + t->self; f < table + FRAMES_2M; f += step) {
				change_owned(t, f, 1, prot);
				check_owned(t, f);
			}
		} else if (owned(t, table)) {
			u64 part = (r >> 50) % 2 ? 0 : (r >> 52) % 500;

			/* What is mapped in part can be neither mapped nor protected as a whole. */
			if (part || t->prot[table] != t->prot[table + 511])
				change_owned(t, table, FRAMES_2M, 0);
			change_owned(t, table + part, FRAMES_2M - part, prot);
			check_owned(t, table);
			check_owned(t, table + 511);
		}
	}
	for (u64 f = 0; f < CHAOS_COUNT; f++) {
		if (owned(t, f))
			check_owned(t, f);
	}
	return NULL;
}

static void test_threads_owners(void **state)
{
	run_threads(*state, owner_main);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_threads_chaos),
		BOTH(test_threads_owners),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
