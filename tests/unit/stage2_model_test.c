/* SPDX-License-Identifier: MIT */
/*
 * Random operations on the stage-2 engine, in both formats, against a model; every intermediate
 * state is looked at.
 *
 * The model knows a window of UNITS units of 1 frame (leaves of 4 KiB and 2 MiB) or 512 frames (2
 * MiB and 1 GiB), which lies across a border between higher tables.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"

#define UNITS 2048

enum op_kind { OP_MAP, OP_UNMAP, OP_PROTECT, OP_TOP, OP_SPLIT, OP_MERGE, OP_KINDS };

static struct model {
	struct stage2 s;
	u64 base, unit; /* first gfn; frames of a unit */
	u64 seed;
	struct xlat now[UNITS];
	/* The operation that is under way. */
	enum op_kind op;
	u64 first, count; /* units */
	struct xlat wish; /* of the first unit */
	u64 stores;
	u32 script_step; /* 0: none */
	u64 script_first;
	struct flush_debt debts[8];
} model;

static u64 unit_gfn(u64 u)
{
	return model.base + u * model.unit;
}

/* What the operation makes of unit u if it succeeds. */
static struct xlat after_op(u64 u)
{
	static const struct xlat unmapped;
	struct xlat x = model.now[u];

	if (u < model.first || u >= model.first + model.count)
		return x;
	if (model.op == OP_UNMAP)
		return unmapped;
	if (model.op == OP_PROTECT && x.prot)
		x.prot = model.wish.prot;
	if (model.op == OP_TOP)
		x.prot &= (u8)~S2_W;
	if (model.op == OP_MAP && !x.prot) {
		x = model.wish;
		x.pfn += (u - model.first) * model.unit;
	}
	return x;
}

static void check_unit(u64 u)
{
	struct xlat x = hw_xlat(&model.s, unit_gfn(u));

	/* The old translation or the new one. A fault in between is for merge only. */
	if (same_xlat(x, model.now[u]) || same_xlat(x, after_op(u)))
		return;
	HOST_CHECK(model.op == OP_MERGE && !x.prot);
}

/* After each store: the first and the last unit that the entry covers, one in between, and the
 * edges of the range. */
static void watch_model(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry)
{
	u64 units = MAX(s2_level_frames(level) / model.unit, 1);
	u64 u = (gfn.v - model.base) / model.unit;

	(void)s;
	(void)old_entry;
	(void)new_entry;
	model.stores++;
	if (level > 1 || model.stores % 16 == 0) {
		check_unit(model.first);
		check_unit((model.first + model.count) % UNITS);
		check_unit((model.first + UNITS - 1) % UNITS);
		check_unit(host_random(&model.seed) % UNITS);
	}
	if (gfn.v < model.base || u + units > UNITS)
		return;
	check_unit(u);
	check_unit(u + units - 1);
}

static void model_choose(void)
{
	/* Targets that allow large leaves, and such that don't. */
	static const u64 delta[] = { 0, 0, 0, 8 * FRAMES_1G, 512, 1 };
	static const u8 prots[] = { S2_RWX, S2_RWX, S2_RWX, S2_R, S2_R | S2_W, S2_R | S2_X };
	u64 r = host_random(&model.seed);
	static const enum op_kind kinds[] = { OP_MAP,	  OP_MAP, OP_MAP,   OP_UNMAP, OP_MAP,
					      OP_PROTECT, OP_TOP, OP_SPLIT, OP_MERGE, OP_MERGE };

	model.op = kinds[r % ARRAY_SIZE(kinds)];
	model.first = (r >> 8) % UNITS;
	model.count = (r >> 24) % 32 < 28 ? (r >> 32) % 6 + 1 : (r >> 32) % 1200 + 1;
	if ((r >> 44) % 16 == 0) { /* a whole table */
		model.first &= ~511ull;
		model.count = 512;
	}
	model.count = MIN(model.count, UNITS - model.first);
	model.wish.prot = prots[(r >> 50) % ARRAY_SIZE(prots)];
	model.wish.type = (r >> 56) % 16 == 0;
	r = delta[(r >> 60) % ARRAY_SIZE(delta)];
	if (r % model.unit)
		model.count = MIN(model.count, 3); /* 512 small leaves a unit */
	if (model.op == OP_TOP) {		   /* no leaf sticks out */
		model.first &= ~511ull;
		model.count = 512;
	}
	model.wish.pfn = unit_gfn(model.first) + 64 * FRAMES_1G + r;
}

/*
 * Random operations alone seldom fill a table with equal leaves. So now and then comes a script for
 * one table: empty it, map it as a whole, change a part (as chosen at random), give all the same
 * permissions, merge.
 */
static void model_choose_script(void)
{
	if (!model.script_step) {
		if (host_random(&model.seed) % 24)
			return;
		model.script_first = model.first & ~511ull;
	}
	model.script_step++;
	if (model.script_step == 3) {
		model.op = model.count & 1 ? OP_PROTECT : OP_SPLIT;
		model.first = model.script_first + model.first % 512;
		model.count = MIN(model.count, model.script_first + 512 - model.first);
		return;
	}
	model.first = model.script_first;
	model.count = 512;
	model.wish = (struct xlat){ unit_gfn(model.first) + 64 * FRAMES_1G, S2_RWX, S2_WB };
	if (model.script_step == 1)
		model.op = OP_UNMAP;
	else if (model.script_step == 2)
		model.op = OP_MAP;
	else if (model.script_step == 4)
		model.op = OP_PROTECT;
	else
		model.op = OP_MERGE;
	model.script_step %= 5;
}

static int model_run(struct flush_debt *debt)
{
	struct stage2 *s = &model.s;
	gfn_t gfn = GFN(unit_gfn(model.first));
	u64 frames = model.count * model.unit;
	u8 low = model.unit == 1 ? 1 : 2;

	debt->generation = 0;
	switch (model.op) {
	case OP_MAP:
		return map_either(s, gfn, PFN(model.wish.pfn), frames, model.wish.prot,
				  model.wish.type, host_random(&model.seed) % 8 ? 3 : low);
	case OP_UNMAP:
		return stage2_unmap(s, gfn, frames, debt);
	case OP_PROTECT:
		return stage2_protect(s, gfn, frames, model.wish.prot, debt);
	case OP_TOP:
		return stage2_protect_top(s, gfn, frames, debt);
	case OP_SPLIT:
		return stage2_split(s, gfn, low, debt);
	default:
		return stage2_merge(s, gfn, low + 1, debt);
	}
}

/* The first unit with which stage2_map must not agree, or the end of the range. */
static u64 first_conflict(void)
{
	for (u64 u = model.first; u < model.first + model.count; u++) {
		struct xlat wish = model.wish;

		wish.pfn += (u - model.first) * model.unit;
		if (model.now[u].prot && !same_xlat(model.now[u], wish))
			return u;
	}
	return model.first + model.count;
}

static bool op_takes_away(void)
{
	for (u64 u = model.first; u < model.first + model.count; u++) {
		if (model.now[u].prot & ~after_op(u).prot)
			return true;
	}
	return false;
}

static void model_check(u64 first, u64 end)
{
	for (u64 u = first; u < end; u++) {
		struct stage2_leaf leaf;
		struct xlat x = hw_xlat(&model.s, unit_gfn(u));
		bool mapped = stage2_lookup(&model.s, GFN(unit_gfn(u)), &leaf);

		assert_true(same_xlat(x, model.now[u]));
		assert_int_equal(mapped, x.prot != 0);
		if (mapped)
			assert_true(stage2_leaf_pfn(&leaf, GFN(unit_gfn(u))).v == x.pfn &&
				    leaf.prot == x.prot && leaf.memtype == x.type);
	}
}

/* What stage2_map reached before memory ran out: a piece from the start of the range, no gaps. */
static void adopt_partial_map(u64 limit)
{
	bool ended = false;

	for (u64 u = model.first; u < limit; u++) {
		struct xlat x = hw_xlat(&model.s, unit_gfn(u));

		ended |= !same_xlat(x, after_op(u));
		assert_true(!ended || same_xlat(x, model.now[u]));
		if (!ended)
			model.now[u] = x;
	}
	assert_true(ended);
}

static void model_commit(int err)
{
	u64 limit = model.op == OP_MAP ? first_conflict() : model.first + model.count;

	if (err == -ENOMEM && model.op == OP_MAP) {
		adopt_partial_map(limit);
		return;
	}
	if (model.op == OP_MAP)
		assert_int_equal(err, limit < model.first + model.count ? -EEXIST : 0);
	else if (model.op == OP_MERGE)
		assert_true(err == 0 || err == -EAGAIN);
	else
		assert_true(err == 0 || (err == -ENOMEM && !allocs_left));
	if (err == -ENOMEM || model.op == OP_SPLIT || model.op == OP_MERGE)
		return; /* nothing may have changed */
	for (u64 u = model.first; u < limit; u++)
		model.now[u] = after_op(u);
}

static void model_step(bool starve)
{
	struct flush_debt debt,
		*old = &model.debts[host_random(&model.seed) % ARRAY_SIZE(model.debts)];
	bool takes_away;
	int err;

	model_choose();
	model_choose_script();
	takes_away = model.op < OP_SPLIT && op_takes_away();
	allocs_left = starve ? (s64)(host_random(&model.seed) % 4) : -1;
	err = model_run(&debt);
	model_commit(err);
	allocs_left = -1;
	if (takes_away && !err)
		assert_int_not_equal(debt.generation, 0);
	model_check(model.first, MIN(model.first + MIN(model.count, 8), UNITS));
	model_check(host_random(&model.seed) % UNITS, 0);
	if (debt.generation) {
		stage2_debt_paid(old);
		*old = debt;
	}
}

static void run_model(const struct pt_format *fmt, u64 unit, u32 steps)
{
	struct flush_debt debt;

	memset(&model, 0, sizeof(model));
	model.unit = unit;
	model.seed = host_seed() + unit;
	model.base = (unit == 1 ? 7 * FRAMES_1G : 512 * FRAMES_1G) - UNITS / 2 * unit;
	open_stage2(&model.s, fmt, unit == 1 ? 2 : 3);
	watch = watch_model;
	for (u32 i = 0; i < steps && !host_failures; i++) {
		model_step(host_random(&model.seed) % 4 == 0);
		if (i % 1000 == 0)
			model_check(0, UNITS);
	}
	model_check(0, UNITS);
	for (u32 i = 0; i < ARRAY_SIZE(model.debts); i++)
		stage2_debt_paid(&model.debts[i]);
	model.op = OP_UNMAP;
	model.first = 0;
	model.count = UNITS;
	assert_int_equal(stage2_unmap(&model.s, GFN(0), DEFAULT_MAX_GFN, &debt), 0);
	stage2_debt_paid(&debt);
	assert_int_equal(model.s.tables, 1);
	close_stage2(&model.s);
}

/* CORBEL_TEST_LONG: ten million operations in all four together. */
static void test_random_small(void **state)
{
	run_model(*state, 1, getenv("CORBEL_TEST_LONG") ? 3500000 : 100000);
}

static void test_random_large(void **state)
{
	run_model(*state, 512, getenv("CORBEL_TEST_LONG") ? 1500000 : 30000);
}

/* --- the single writer ---
 *
 * A copy of every table is kept. After each store that the hook reports, exactly the reported entry
 * differs from the copy; what changes without a report was not present and is not. So nothing is
 * stored that the reverse map would not hear of.
 */

#define MAX_TABLES 40

static struct {
	u64 *live[MAX_TABLES];
	u64 copy[MAX_TABLES][ENTRIES];
	u32 count;
} history;

static void history_alloc(u64 *table)
{
	assert_true(history.count < MAX_TABLES);
	history.live[history.count] = table;
	memset(history.copy[history.count++], 0, PAGE_SIZE);
}

static void history_store(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry)
{
	u32 reported = 0;

	for (u32 t = 0; t < history.count; t++) {
		u64 *now = history.live[t], *before = history.copy[t];

		if (!memcmp(now, before, PAGE_SIZE))
			continue;
		for (u32 i = 0; i < ENTRIES; i++) {
			if (now[i] == before[i])
				continue;
			if (s2_present(s->fmt, now[i]) || s2_present(s->fmt, before[i])) {
				HOST_CHECK(before[i] == old_entry && now[i] == new_entry);
				HOST_CHECK(i == ((gfn.v >> (9 * (level - 1))) & 511));
				reported++;
			}
			before[i] = now[i];
		}
	}
	HOST_CHECK(reported == 1);
	watch_model(s, gfn, level, old_entry, new_entry);
	for (u64 u = 0; u < UNITS; u += 61)
		check_unit(u);
}

static void test_single_writer(void **state)
{
	struct flush_debt debt;

	/* Tables are not freed before the end, so that the copies stay comparable: no debt is paid.
	 */
	memset(&model, 0, sizeof(model));
	history.count = 0;
	model.unit = 1;
	model.seed = host_seed();
	model.base = 7 * FRAMES_1G - UNITS / 2;
	open_stage2(&model.s, *state, 2);
	history.live[history.count++] = stage2_table(&model.s, model.s.root);
	memset(history.copy[0], 0, PAGE_SIZE);
	watch = history_store;
	watch_alloc = history_alloc;
	while (history.count < MAX_TABLES - 3) {
		model_choose();
		model_choose_script();
		model_commit(model_run(&debt));
		model_check(0, UNITS);
		if (debt.generation) {
			(void)rmap_log_settle(&debt.log);
			model.s.unpaid--; /* the tables are freed at the end */
		}
	}
	watch = NULL;
	close_stage2(&model.s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_random_small),
		BOTH(test_random_large),
		BOTH(test_single_writer),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
