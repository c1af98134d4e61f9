/* SPDX-License-Identifier: MIT */
/* Sets of keys of every size, against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/frames.h"
#include "mm/rmap.h"
#include "tests/unit/host.h"

#define MEMORY (64 * MIB)

/* As rmap_set_add, filling the reserve as often as it is asked for. */
static void set_add(u64 *word, u64 key)
{
	struct rmap_reserve r = { 0 };
	int err;

	while ((err = rmap_set_add(word, key, &r)) == -EAGAIN)
		assert_int_equal(rmap_reserve_fill(&r), 0);
	assert_int_equal(err, 0);
	rmap_reserve_empty(&r);
}

static void set_remove(u64 *word, u64 key)
{
	struct rmap_reserve r = { 0 };

	assert_true(rmap_set_remove(word, key, &r));
	rmap_reserve_empty(&r);
}

static u64 test_key(u64 i)
{
	return rmap_key((u16)(i % 7 + 1), 0, 1, i * 3 + 5);
}

enum order { FORWARD, BACKWARD, SHUFFLED };

static void fill_order(u32 *index, u32 n, enum order order)
{
	u64 seed = host_seed();

	for (u32 i = 0; i < n; i++)
		index[i] = order == BACKWARD ? n - 1 - i : i;
	for (u32 i = n; order == SHUFFLED && i-- > 1;) {
		u32 j = (u32)(host_random(&seed) % (i + 1)), t = index[i];

		index[i] = index[j];
		index[j] = t;
	}
}

static bool mark_seen(void *arg, u64 key)
{
	u8 *seen = arg;
	u64 i = (rmap_gfn(key).v - 5) / 3;

	HOST_CHECK(key == test_key(i) && !seen[i]);
	seen[i] = 1;
	return true;
}

static void check_set(const u64 *word, const u8 *in, u32 n)
{
	u8 *seen = calloc(n, 1);

	rmap_set_for_each(word, mark_seen, seen);
	assert_memory_equal(seen, in, n);
	free(seen);
}

static void run_set(u32 n, enum order order)
{
	u32 *index = calloc(n, sizeof(*index));
	u8 *in = calloc(n, 1);
	u64 word = 0;

	fill_order(index, n, order);
	for (u32 i = 0; i < n; i++) {
		set_add(&word, test_key(i));
		in[i] = 1;
		assert_int_equal(rmap_set_count(&word), i + 1);
		if (n <= 200)
			check_set(&word, in, n);
	}
	check_set(&word, in, n);
	for (u32 i = 0; i < n; i++) {
		assert_null(rmap_set_find(&word, test_key(n)));
		assert_null(rmap_set_find(&word, test_key(index[i]) | RMAP_OLD));
		set_remove(&word, test_key(index[i]));
		in[index[i]] = 0;
		assert_null(rmap_set_find(&word, test_key(index[i])));
		if (n <= 200 || i % (n / 8) == 0)
			check_set(&word, in, n);
	}
	assert_int_equal(word, 0);
	assert_int_equal(rmap_set_memory(), 0);
	assert_int_equal(host_failures, 0);
	free(index);
	free(in);
}

static void test_sets(void **state)
{
	static const u32 sizes[] = { 1, 2, 7, 8, 14, 56, 57, 58, 200, 10000, 100000 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		run_set(sizes[i], FORWARD);
		run_set(sizes[i], BACKWARD);
		run_set(sizes[i], SHUFFLED);
	}
}

/* What mappers cost: nothing for one, a node for two to seven. */
static void test_set_costs(void **state)
{
	struct rmap_reserve r = { 0 };
	u64 word = 0;

	(void)state;
	assert_int_equal(rmap_set_add(&word, test_key(0), &r), 0);
	assert_int_equal(word, test_key(0));
	assert_int_equal(rmap_set_add(&word, test_key(1), &r), -EAGAIN);
	assert_int_equal(word, test_key(0));
	assert_int_equal(r.want_nodes, 1);
	assert_int_equal(r.want_pages, 0);
	assert_int_equal(rmap_reserve_fill(&r), 0);
	for (u64 i = 1; i < 7; i++)
		assert_int_equal(rmap_set_add(&word, test_key(i), &r), 0);
	assert_int_equal(r.nr_nodes, 0);
	assert_int_equal(rmap_set_add(&word, test_key(7), &r), -EAGAIN);
	for (u64 i = 0; i < 7; i++)
		assert_true(rmap_set_remove(&word, test_key(i), &r));
	assert_false(rmap_set_remove(&word, test_key(0), &r));
	assert_int_equal(word, 0);
	assert_int_equal(r.nr_nodes, 1);
	rmap_reserve_empty(&r);
	assert_int_equal(rmap_set_memory(), 0);
}

/* The same mapping twice: one waits for its flush. */
static void test_set_same_key_twice(void **state)
{
	u64 word = 0, key = test_key(3);

	(void)state;
	set_add(&word, key | RMAP_OLD);
	set_add(&word, key);
	assert_non_null(rmap_set_find(&word, key));
	set_remove(&word, key | RMAP_OLD);
	assert_int_equal(word, key);
	set_remove(&word, key);
	assert_int_equal(word, 0);
}

static int open_plain(void **state)
{
	struct mem_range map = { HPA(0), MEMORY, FRAME_FREE };

	(void)state;
	host_arena_open(MEMORY);
	return frames_init(&map, 1, HPA(MEMORY));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_sets, open_plain),
		cmocka_unit_test_setup(test_set_costs, open_plain),
		cmocka_unit_test_setup(test_set_same_key_twice, open_plain),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
