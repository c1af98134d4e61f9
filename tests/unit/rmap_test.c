/* SPDX-License-Identifier: MIT */
/*
 * The reverse map: several VMs that map the same frames, out of memory at each allocation, and
 * against a model. After each step of those every leaf has its key and every key its leaf.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/extent.h"
#include "mm/mappers.h"
#include "tests/unit/host.h"
#include "tests/unit/rmap_host.h"

/* Every key that is there leads to a leaf of its level that maps the frame. */
static bool key_has_leaf(void *arg, u64 key, pfn_t first)
{
	struct stage2 *s = &vms[rmap_vm(key) - 1];
	struct stage2_leaf leaf;

	if (key & RMAP_OLD) {
		(*(u64 *)arg)++;
		return true;
	}
	HOST_CHECK(!(key & RMAP_NEW));
	HOST_CHECK(stage2_lookup(s, rmap_gfn(key), &leaf) && leaf.level == rmap_level(key) &&
		   leaf.gfn.v == rmap_gfn(key).v && leaf.pfn.v == first.v);
	return true;
}

/*
 * Every leaf of the windows has its key, and there are as many keys as leaves: so every key has its
 * leaf. Returns how many keys wait for their flush.
 */
static u64 check_all(void)
{
	u64 leaves = 0, keys = 0, old = 0;

	for (u32 i = 0; i < VMS; i++) {
		for (u64 gfn = 0; gfn < WINDOW;) {
			struct stage2_leaf leaf;
			bool mapped = stage2_lookup(&vms[i], GFN(gfn), &leaf);

			if (mapped) {
				assert_true(
					has_key(leaf.pfn.v - guest.v,
						rmap_key((u16)(i + 1), 0, leaf.level, leaf.gfn.v)));
				leaves++;
			}
			gfn = leaf.gfn.v + s2_level_frames(leaf.level);
		}
		assert_true(stage2_leaves(&vms[i], 3) == 0);
		leaves -= stage2_leaves(&vms[i], 1) + stage2_leaves(&vms[i], 2);
	}
	assert_int_equal(leaves, 0);
	for (u64 e = guest.v / 512; e < guest.v / 512 + EXTENT_COUNT; e++) {
		keys += rmap_set_count(&frames.extents[e].large) + frames.extents[e].small_keys;
		rmap_for_each(PFN(e * 512), key_has_leaf, &old);
		for (u64 i = 1; i < 512 && frames.extents[e].keys; i++) {
			struct keys some = keys_of((e * 512 - guest.v) + i);

			for (u32 k = 0; k < some.count; k++) {
				if (rmap_level(some.key[k]) == 1)
					key_has_leaf(&old, some.key[k], PFN(e * 512 + i));
			}
		}
	}
	for (u32 i = 0; i < VMS; i++)
		keys -= stage2_leaves(&vms[i], 1) + stage2_leaves(&vms[i], 2);
	assert_int_equal(keys, old);
	assert_int_equal(host_failures, 0);
	assert_int_equal(audit(NULL).findings, 0);
	return old;
}

/* One frame: two VMs, one of them twice, at both sizes. */
static void test_mappers_of_a_frame(void **state)
{
	open_vms(*state);
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(keys_of(77).count, 1);
	assert_int_equal(keys_of(77).key[0], rmap_key(1, 0, 2, 0));
	assert_int_equal(map(1, 1024, 0, 512, 1), 0);
	assert_int_equal(map(0, 600, 77, 1, 1), 0);
	assert_int_equal(keys_of(77).count, 3);
	assert_true(has_key(77, rmap_key(1, 0, 2, 0)));
	assert_true(has_key(77, rmap_key(2, 0, 1, 1024 + 77)));
	assert_true(has_key(77, rmap_key(1, 0, 1, 600)));
	assert_int_equal(keys_of(78).count, 2);
	check_all();
	unmap(0, 0, 512);
	assert_int_equal(keys_of(77).count, 2);
	unmap(0, 600, 1);
	unmap(1, 1024, 512);
	assert_int_equal(keys_of(77).count, 0);
	check_all();
	close_vms();
}

/* --- from a frame to all its mappings --- */

static u32 paid;

static void pay_all(struct flush_debt *debts, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		paid += debts[i].generation != 0;
		stage2_debt_paid(&debts[i]);
	}
}

static void test_all_mappings_of_a_frame(void **state)
{
	struct stage2_leaf leaf;
	struct flush_debt debt;

	open_vms(*state);
	paid = 0;
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(map(1, 5, 77, 1, 1), 0);
	assert_int_equal(map(1, 6, 78, 1, 1), 0);
	for (u64 i = 0; i < 100; i++)
		assert_int_equal(map(2, 1000 + i, 77, 1, 1), 0);

	*entry_of(&vms[0], 3) |= vms[0].fmt->accessed;
	*entry_of(&vms[2], 1050) |= vms[2].fmt->accessed | vms[2].fmt->dirty;
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 2);
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 0);
	assert_int_equal(paid, 0);
	assert_true(stage2_lookup(&vms[2], GFN(1050), &leaf) && leaf.dirty && !leaf.accessed);

	frame_write_protect(PFN(guest.v + 77), pay_all);
	assert_int_equal(paid, VMS);
	assert_true(stage2_lookup(&vms[0], GFN(3), &leaf) && leaf.prot == (S2_R | S2_X));
	assert_true(stage2_lookup(&vms[1], GFN(5), &leaf) && leaf.prot == (S2_R | S2_X));
	assert_true(stage2_lookup(&vms[1], GFN(6), &leaf) && leaf.prot == S2_RWX);
	for (u64 i = 0; i < 100; i++)
		assert_true(stage2_lookup(&vms[2], GFN(1000 + i), &leaf) &&
			    leaf.prot == (S2_R | S2_X));
	check_all();

	assert_int_equal(frame_unmap(PFN(guest.v + 77), pay_all), 0);
	assert_int_equal(rmap_count(PFN(guest.v + 77)), 0);
	assert_false(stage2_lookup(&vms[0], GFN(3), &leaf));
	assert_true(stage2_lookup(&vms[1], GFN(6), &leaf));
	assert_int_equal(stage2_leaves(&vms[2], 1), 0);
	check_all();

	/* A flush that somebody else owes: the frame is not free. */
	assert_int_equal(stage2_unmap(&vms[1], GFN(6), 1, &debt), 0);
	assert_int_equal(frame_unmap(PFN(guest.v + 78), pay_all), -EBUSY);
	stage2_debt_paid(&debt);
	assert_int_equal(frame_unmap(PFN(guest.v + 78), pay_all), 0);
	close_vms();
}

/* What is mapped was used; then it is not mapped, and who uses it has to fault. */
static void test_age_without_a_bits(void **state)
{
	struct flush_debt debt;

	open_vms(*state);
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(map(1, 5, 77, 1, 1), 0);
	assert_int_equal(map(1, 6, 78, 1, 1), 0);
	*entry_of(&vms[1], 5) |= BIT(8); /* where other CPUs have the A bit: means nothing */
	paid = 0;
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 2);
	assert_int_equal(paid, 2);
	assert_int_equal(rmap_count(PFN(guest.v + 77)), 0);
	assert_int_equal(rmap_count(PFN(guest.v + 78)), 1);
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 0);
	assert_int_equal(map(0, 77, 77, 1, 1), 0);
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 1);
	assert_int_equal(frame_age(PFN(guest.v + 77), pay_all), 0);
	/* What somebody else has removed was not used. */
	assert_int_equal(stage2_unmap(&vms[1], GFN(6), 1, &debt), 0);
	assert_int_equal(frame_age(PFN(guest.v + 78), pay_all), 0);
	stage2_debt_paid(&debt);
	check_all();
	close_vms();
}

/* A key outlives its leaf until the debt is paid: then, and not before, the frame is nobody's. */
static void unmap_waits(u64 first, u64 count)
{
	struct flush_debt debt, again;

	assert_int_equal(map(0, 0, 0, 1024, 1), 0);
	assert_int_equal(stage2_unmap(&vms[0], GFN(first), count, &debt), 0);
	assert_int_equal(check_all(), count);
	for (u64 i = first; i < first + count; i++)
		assert_true(has_key(i, rmap_key(1, 0, 1, i) | RMAP_OLD));
	/* Somebody else removes it once more, and owes nothing: the frame is in use all the same.
	 */
	assert_int_equal(stage2_unmap(&vms[0], GFN(first), count, &again), 0);
	assert_int_equal(again.generation, 0);
	stage2_debt_paid(&again);
	assert_int_equal(rmap_count(PFN(guest.v + first)), 1);
	/* It may come back before. */
	assert_int_equal(map(0, first, first, 1, 1), 0);
	assert_int_equal(rmap_count(PFN(guest.v + first)), 2);
	check_all();
	stage2_debt_paid(&debt);
	assert_int_equal(check_all(), 0);
	assert_int_equal(rmap_count(PFN(guest.v + first)), 1);
	unmap(0, 0, 1024);
	check_no_keys();
}

static void test_keys_wait_for_the_flush(void **state)
{
	open_vms(*state);
	unmap_waits(5, 1);
	unmap_waits(0, 512);
	unmap_waits(3, 400);
	unmap_waits(100, 800);
	unmap_waits(1, 1023);
	close_vms();
}

/* What no guest may have is refused, and says so. */
static void test_foreign_frames(void **state)
{
	pfn_t f;

	open_vms(*state);
	f = frame_alloc(FRAME_HEAP, VM_NONE);
	assert_int_equal(stage2_map(&vms[0], GFN(1), f, 1, S2_RWX, S2_WB, 1), -EPERM);
	assert_int_equal(stage2_map(&vms[0], GFN(1), hpa_pfn(vms[1].root), 1, S2_RWX, S2_WB, 1),
			 -EPERM);
	assert_int_equal(
		stage2_map(&vms[0], GFN(1), PFN(guest.v + EXTENT_COUNT * 512), 1, S2_RWX, S2_WB, 1),
		-EPERM);
	assert_int_equal(vms[0].corruptions, 3);
	assert_int_equal(stage2_leaves(&vms[0], 1), 0);
	frame_free(f, FRAME_HEAP, VM_NONE);
	vms[0].corruptions = host_warnings = 0;
	close_vms();
}

/*
 * CVE-2026-46113: a leaf was added under one key and removed under another, because the key was
 * computed anew from what its table had become. Here: one frame as part of a 2 MiB leaf and as a 4
 * KiB leaf of the same VM, each split, merged and removed while the other stays.
 */
static void test_cve_2026_46113_two_roles(void **state)
{
	struct flush_debt debt;

	open_vms(*state);
	assert_int_equal(map(0, 512, 0, 512, 2), 0);
	assert_int_equal(map(0, 5, 9, 1, 1), 0);
	assert_int_equal(stage2_split(&vms[0], GFN(512), 1, &debt), 0);
	stage2_debt_paid(&debt);
	assert_int_equal(keys_of(9).count, 2);
	assert_true(has_key(9, rmap_key(1, 0, 1, 512 + 9)));
	assert_true(has_key(9, rmap_key(1, 0, 1, 5)));
	check_all();
	assert_int_equal(stage2_merge(&vms[0], GFN(512), 2, &debt), 0);
	assert_int_equal(keys_of(9).count, 3); /* the merged table's leaf, until it is flushed */
	stage2_debt_paid(&debt);
	assert_int_equal(keys_of(9).count, 2);
	assert_true(has_key(9, rmap_key(1, 0, 2, 512)));
	unmap(0, 5, 1);
	assert_int_equal(keys_of(9).count, 1);
	assert_true(has_key(9, rmap_key(1, 0, 2, 512)));
	check_all();
	unmap(0, 512, 512);
	assert_int_equal(keys_of(9).count, 0);
	close_vms();
}

/*
 * CVE-2026-53359: a table page was used again under another key while a walk still took it for what
 * it had been. Here: such a walk is noticed by the table's descriptor before it looks into it, and
 * a leaf without its key at its removal.
 */
static void test_cve_2026_53359_table_reused(void **state)
{
	struct s2_table *t, before;
	struct flush_debt debt;
	u64 *entries;
	u8 level;
	u64 entry;

	open_vms(*state);
	assert_int_equal(map(0, 5, 5, 1, 1), 0);
	entries = vms[0].env->table_ptr(&vms[0], vms[0].root);
	for (level = 4; level > 1; level--)
		entries = hpa_ptr(HPA(entries[0] & vms[0].fmt->addr_mask));
	t = table_pool_desc(&vms[0], entries);
	assert_int_equal(t->level, 1);
	assert_int_equal(t->base, 0);
	before = *t;

	/* Freed, and used again elsewhere: by the next map, a level-1 table too. */
	unmap(0, 0, 1 << 18);
	assert_int_equal(t->canary, 0);
	entry = entries[5];
	assert_false(s2_present(vms[0].fmt, entry));
	assert_int_equal(map(0, 1024, 6, 1, 1), 0);

	/* The table that has that leaf now is taken for one that covers what the first one did. */
	entries = vms[0].env->table_ptr(&vms[0], vms[0].root);
	for (level = 4; level > 1; level--)
		entries = hpa_ptr(HPA(entries[level == 2 ? 2 : 0] & vms[0].fmt->addr_mask));
	t = table_pool_desc(&vms[0], entries);
	before = *t;
	t->base = 0;
	assert_int_equal(vms[0].corruptions, 0);
	assert_int_equal(stage2_unmap(&vms[0], GFN(1024), 1, &debt), -EUCLEAN);
	assert_int_not_equal(vms[0].corruptions, 0);
	assert_int_equal(keys_of(6).count, 1);
	t->base = before.base;
	unmap(0, 1024, 1);
	assert_int_equal(keys_of(6).count, 0);
	vms[0].corruptions = host_warnings = 0;
	close_vms();
}

/* Whoever writes to a table that is free is found out when it is used again. */
static void test_free_table_written(void **state)
{
	u64 *entries;

	open_vms(*state);
	assert_int_equal(map(0, 5, 5, 1, 1), 0);
	entries = vms[0].env->table_ptr(&vms[0], vms[0].root);
	for (u8 level = 4; level > 1; level--)
		entries = hpa_ptr(HPA(entries[0] & vms[0].fmt->addr_mask));
	unmap(0, 0, 1 << 18);
	entries[100] = 0;
	assert_int_equal(vms[0].corruptions, 0);
	assert_int_equal(map(0, 5, 5, 1, 1), 0);
	assert_int_equal(vms[0].corruptions, 1);
	unmap(0, 5, 1);
	vms[0].corruptions = host_warnings = 0;
	close_vms();
}

/* --- out of memory at each allocation --- */

static pfn_t hoard[MEMORY / PAGE_SIZE];
static u32 hoarded;

/* All memory is taken, except n frames. */
static void starve(u64 n)
{
	for (hoarded = 0; pfn_valid(hoard[hoarded] = frame_alloc(FRAME_HEAP, VM_NONE)); hoarded++)
		;
	while (n-- && hoarded)
		frame_free(hoard[--hoarded], FRAME_HEAP, VM_NONE);
}

static void feed(void)
{
	while (hoarded)
		frame_free(hoard[--hoarded], FRAME_HEAP, VM_NONE);
}

/* True if nothing was missing. */
static bool hungry_scene(const struct pt_format *fmt, u64 n)
{
	struct flush_debt debt;
	u64 frames_before;
	bool ok;

	open_vms(fmt);
	/* Tables are not what this is about: they are there. */
	for (u32 i = 0; i < VMS; i++) {
		assert_int_equal(map(i, 1536, 1024, 2, 1), 0);
		unmap(i, 1536, 2);
	}
	frames_before = free_frames();
	starve(n);
	ok = !map(0, 0, 0, 512, 2) && !map(1, 0, 0, 1, 1) && !map(2, 0, 0, 1, 1) &&
	     !map(1, 600, 0, 1, 1) && !map(1, 601, 1, 1, 1) && !map(2, 512, 0, 512, 2);
	for (u64 i = 0; ok && i < 70; i++)
		ok = !map(2, 1100 + i, 0, 1, 1);
	if (ok) {
		ok = !stage2_unmap(&vms[0], GFN(100), 300, &debt);
		check_all();
		stage2_debt_paid(&debt);
	}
	if (ok) {
		ok = stage2_merge(&vms[0], GFN(0), 2, &debt) == -EAGAIN; /* it has a hole */
		stage2_debt_paid(&debt);
	}
	check_all();
	feed();
	for (u32 i = 0; i < VMS; i++)
		unmap(i, 0, WINDOW);
	check_no_keys();
	assert_int_equal(free_frames(), frames_before);
	close_vms();
	return ok;
}

static void test_out_of_memory(void **state)
{
	u64 n = 0;

	while (!hungry_scene(*state, n))
		n++;
	/* a page of sets and one of nodes, one for the hash, the split's page, the log's */
	assert_int_equal(n, 5);
}

/* --- a split moves all keys at once --- */

static u32 stores, changes;
static struct flush_debt meanwhile;

/* Of VM 0, whose leaf of gfn 0 is split: a new leaf's key is there before, the old one's after. */
static void watch_split(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry)
{
	bool large = has_key(gfn.v, rmap_key(1, 0, 2, 0));

	if (level == 1 && new_entry) {
		HOST_CHECK(large && has_key(gfn.v, rmap_key(1, 0, 1, gfn.v) | RMAP_NEW));
		stores++;
		if (changes && !--changes)
			HOST_CHECK(!stage2_protect(s, GFN(0), 512, S2_R, &meanwhile));
	} else if (level == 2 && s2_is_table(s->fmt, new_entry, 2)) {
		HOST_CHECK(!large && stores % 512 == 0);
		for (u64 i = 0; i < 512; i++)
			HOST_CHECK(has_key(i, rmap_key(1, 0, 1, i) | RMAP_NEW));
	}
	(void)old_entry;
}

/* No key of VM 0 but the large leaf's; the others' are where they were. */
static void expect_not_split(u32 others)
{
	u64 count = 0;

	for (u64 i = 0; i < 512; i++) {
		assert_true(has_key(i, rmap_key(1, 0, 2, 0)));
		count += keys_of(i).count - 1;
	}
	assert_int_equal(count, others);
	assert_int_equal(stage2_leaves(&vms[0], 2), 1);
	assert_int_equal(stage2_leaves(&vms[0], 1), 0);
	assert_int_equal(vms[0].corruptions, 0);
	check_all();
}

static void test_split_moves_keys(void **state)
{
	struct stage2_env env = pool_env;
	struct flush_debt debt;
	u64 frames_before;

	open_vms(*state);
	env.changed = watch_split;
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(map(0, 1536, 1024, 1, 1), 0); /* its tables are there */
	unmap(0, 1536, 1);
	/* No memory for the page of sets; then for the nodes of frames that others map. */
	frames_before = free_frames();
	starve(0);
	assert_int_equal(stage2_split(&vms[0], GFN(7), 1, &debt), -ENOMEM);
	feed();
	assert_int_equal(debt.generation, 0);
	assert_int_equal(free_frames(), frames_before);
	expect_not_split(0);
	assert_int_equal(map(1, 700, 100, 4, 1), 0);
	assert_int_equal(map(2, 700, 200, 4, 1), 0);
	assert_int_equal(map(2, 900, 511, 1, 1), 0);
	frames_before = free_frames();
	starve(0);
	assert_int_equal(stage2_split(&vms[0], GFN(7), 1, &debt), -ENOMEM);
	feed();
	assert_int_equal(free_frames(), frames_before);
	expect_not_split(9);

	/* Frames that the VM must not have. */
	env.private_frames = true;
	vms[0].env = &env;
	assert_int_equal(stage2_split(&vms[0], GFN(7), 1, &debt), -EPERM);
	expect_victims(1);
	env.private_frames = false;
	expect_not_split(9);

	/* Another CPU changes the leaf, which is noticed when the table is to be linked. */
	assert_int_equal(map(1, 800, 200, 1, 1), 0);
	stores = 0;
	changes = 300;
	assert_int_equal(stage2_split(&vms[0], GFN(7), 1, &debt), 0);
	assert_int_equal(stores, 512 + 512);
	stage2_debt_paid(&debt);
	stage2_debt_paid(&meanwhile);
	for (u64 i = 0; i < 512; i++) {
		assert_true(has_key(i, rmap_key(1, 0, 1, i)));
		assert_int_equal(keys_of(i).count, 1 + (i >= 100 && i < 104) +
							   (i >= 200 && i < 204) + (i == 200) +
							   (i == 511));
	}
	check_all();
	vms[0].env = &pool_env;
	unmap(0, 0, 512);
	check_all();
	close_vms();
}

/* --- random operations --- */

struct owed {
	struct flush_debt debt;
	bool any;
};

/* Everything is compared now and then: 300 times or more. */
static void random_steps(const struct pt_format *fmt, u32 steps)
{
	struct owed owed[8] = { 0 };
	u64 seed = host_seed();

	open_vms(fmt);
	for (u32 i = 0; i < steps; i++) {
		u64 r = host_random(&seed);
		u32 vm = r % VMS, slot = (r >> 8) % ARRAY_SIZE(owed);
		u64 gfn = (r >> 16) % WINDOW, count = (r >> 32) % 4 ? (r >> 40) % 4 + 1 : 512;
		u64 pfn = (r >> 48) % 16 + (r >> 52) % EXTENT_COUNT * 512;
		struct flush_debt debt = { .stage2 = &vms[vm] };

		if (count == 512) {
			gfn &= ~511ull;
			pfn &= ~511ull;
		}
		count = MIN(count, WINDOW - gfn);
		count = MIN(count, EXTENT_COUNT * 512 - pfn);
		switch ((r >> 4) % 8) {
		case 0:
		case 1:
		case 2:
			assert_true(map(vm, gfn, pfn, count, r >> 63 ? 1 : 2) % EEXIST == 0);
			break;
		case 3:
			assert_int_equal(stage2_protect(&vms[vm], GFN(gfn), count,
							r >> 63 ? S2_R : S2_RWX, &debt),
					 0);
			break;
		case 4:
			assert_int_equal(stage2_split(&vms[vm], GFN(gfn), 1, &debt), 0);
			break;
		case 5:
			assert_true(stage2_merge(&vms[vm], GFN(gfn), 2, &debt) % EAGAIN == 0);
			break;
		default:
			assert_int_equal(stage2_unmap(&vms[vm], GFN(gfn), count, &debt), 0);
		}
		if (debt.generation) {
			if (owed[slot].any)
				stage2_debt_paid(&owed[slot].debt);
			owed[slot] = (struct owed){ debt, true };
		}
		if (i % (steps / 300) == 0)
			check_all();
	}
	for (u32 i = 0; i < ARRAY_SIZE(owed); i++) {
		if (owed[i].any)
			stage2_debt_paid(&owed[i].debt);
	}
	assert_int_equal(check_all(), 0);
	close_vms();
}

static void test_random(void **state)
{
	random_steps(*state, getenv("CORBEL_TEST_LONG") ? 5000000 : 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_mappers_of_a_frame),
		BOTH(test_all_mappings_of_a_frame),
		NO_AD(test_age_without_a_bits),
		BOTH(test_keys_wait_for_the_flush),
		BOTH(test_foreign_frames),
		BOTH(test_cve_2026_46113_two_roles),
		BOTH(test_cve_2026_53359_table_reused),
		BOTH(test_free_table_written),
		BOTH(test_out_of_memory),
		BOTH(test_split_moves_keys),
		BOTH(test_random),
		NO_AD(test_random),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
