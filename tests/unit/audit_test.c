/* SPDX-License-Identifier: MIT */
/* The audit: each damage to tables and keys is found and named, and whose it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/extent.h"
#include "tests/unit/host.h"
#include "tests/unit/rmap_host.h"

static u64 *word_of(u64 pfn, u8 level)
{
	struct extent *e = extent_of(PFN(guest.v + pfn));

	return level == 2 ? &e->large : (u64 *)pfn_ptr(PFN(e->keys)) + (guest.v + pfn) % 512;
}

/*
 * The VMs: 0 has gfns 0..511 as 2 MiB and 600..607 as 4 KiB, 1 the same 4 KiB frames at 700..707, 2
 * other frames.
 */
static void open_scene(const struct pt_format *fmt)
{
	open_vms(fmt);
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(map(0, 600, 600, 8, 1), 0);
	assert_int_equal(map(1, 700, 600, 8, 1), 0);
	assert_int_equal(map(2, 800, 1100, 8, 1), 0);
	assert_int_equal(audit(NULL).leaves, 25);
	assert_int_equal(nr_found, 0);
}

static void close_scene(void)
{
	assert_int_equal(audit(NULL).findings, 0);
	close_vms();
}

static void test_audit_finds_each_damage(void **state)
{
	struct rmap_reserve r = { 0 };
	struct s2_table *t;
	u64 *slot, saved, key;

	open_scene(*state);

	/* A bit of a leaf's address. */
	slot = entry_of(&vms[2], 803);
	saved = *slot;
	*slot ^= BIT(PAGE_SHIFT + 4);
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_NO_KEY, &vms[2], 803));
	assert_true(has_finding(AUDIT_KEY_NO_LEAF, &vms[2], 803));
	assert_int_equal(nr_found, 2);
	expect_victims(4);
	audit(&vms[0]);
	assert_int_equal(nr_found, 0);
	*slot = saved;

	/* A large leaf's, so that it is not aligned. */
	slot = entry_of(&vms[0], 0);
	saved = *slot;
	*slot ^= BIT(PAGE_SHIFT + 3);
	audit(NULL);
	assert_true(has_finding(AUDIT_ENTRY, &vms[0], 0));
	expect_victims(1);
	*slot = saved;

	/* A key that is lost: of one mapper, and of two. */
	key = *word_of(1103, 1);
	*word_of(1103, 1) = 0;
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_NO_KEY, &vms[2], 803));
	expect_victims(4);
	*word_of(1103, 1) = key;
	key = rmap_key(2, 0, 1, 703);
	assert_true(rmap_set_remove(word_of(603, 1), key, &r));
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_NO_KEY, &vms[1], 703));
	/* The extent's count is wrong too: whose that is can't be told. */
	assert_int_equal(nr_found, 2);
	expect_victims(3);
	assert_int_equal(rmap_set_add(word_of(603, 1), key, &r), 0);

	/* A key twice, counted as a real mistake would. */
	key = rmap_key(3, 0, 1, 803);
	r.want_nodes = 1;
	assert_int_equal(rmap_reserve_fill(&r), 0);
	assert_int_equal(rmap_set_add(word_of(1103, 1), key, &r), 0);
	extent_of(PFN(guest.v + 1103))->small_keys++;
	audit(NULL);
	assert_int_equal(nr_found, 1);
	assert_true(has_finding(AUDIT_KEY_TWICE, &vms[2], 803));
	expect_victims(4);
	assert_true(rmap_set_remove(word_of(1103, 1), key, &r));
	extent_of(PFN(guest.v + 1103))->small_keys--;

	/* A frame of VM 2 that VM 1 maps behind everyone's back. */
	slot = entry_of(&vms[1], 720);
	*slot = *entry_of(&vms[2], 802);
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_NO_KEY, &vms[1], 720));
	assert_true(has_finding(AUDIT_TABLE_LIVE, &vms[1], 512));
	expect_victims(2);
	/* And one of the hypervisor's own. */
	*slot = (*slot & ~vms[1].fmt->addr_mask) | vms[0].root.v;
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_NO_KEY, &vms[1], 720));
	expect_victims(2);
	*slot = 0;

	/* A table's descriptor: each word that says what it is. */
	t = table_pool_desc(&vms[2], entry_of(&vms[2], 800));
	for (u32 i = 0; i < 4; i++) {
		struct s2_table before = *t;

		if (i == 0)
			t->canary++;
		else if (i == 1)
			t->base += 512;
		else if (i == 2)
			t->level = 2;
		else
			t->live++;
		audit(NULL);
		assert_true(has_finding(i < 3 ? AUDIT_TABLE_ROLE : AUDIT_TABLE_LIVE, &vms[2], 512));
		expect_victims(4);
		*t = before;
	}

	/* A table entry that leads into another VM's table, and one into guest memory. */
	slot = entry_of(&vms[2], 1 << 18);
	saved = *slot;
	*slot = vms[0].root.v | vms[0].fmt->table_bits;
	audit(NULL);
	assert_true(has_finding(AUDIT_TABLE_OWNER, &vms[2], 1 << 18));
	expect_victims(4);
	*slot = pfn_hpa(guest).v | vms[0].fmt->table_bits;
	audit(NULL);
	assert_true(has_finding(AUDIT_TABLE_OWNER, &vms[2], 1 << 18));
	expect_victims(4);
	*slot = saved;

	/* A key of a VM that is not there; the victims are those who map the extent. */
	key = *word_of(1300, 1);
	*word_of(1300, 1) = rmap_key(77, 0, 1, 5);
	extent_of(PFN(guest.v + 1300))->small_keys++;
	audit(NULL);
	assert_true(has_finding(AUDIT_KEY_NO_VM, NULL, 5));
	expect_victims(4);
	*word_of(1300, 1) = key;
	extent_of(PFN(guest.v + 1300))->small_keys--;

	/* A flush that somebody took and never paid. */
	assert_true(rmap_set_remove(word_of(1107, 1), rmap_key(3, 0, 1, 807), &r));
	assert_int_equal(rmap_set_add(word_of(1107, 1), rmap_key(3, 0, 1, 807) | RMAP_OLD, &r), 0);
	audit(NULL);
	assert_true(has_finding(AUDIT_KEY_DEBT, &vms[2], 807));
	expect_victims(4);
	assert_true(rmap_set_remove(word_of(1107, 1), rmap_key(3, 0, 1, 807) | RMAP_OLD, &r));
	assert_int_equal(rmap_set_add(word_of(1107, 1), rmap_key(3, 0, 1, 807), &r), 0);

	/* A count of leaves. */
	vms[2].recent[0].leaves[1]++;
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_COUNT, &vms[2], 0));
	expect_victims(4);
	vms[2].recent[0].leaves[1]--;

	/* A frame that was freed while it is mapped. */
	assert_int_equal(extent_free(PFN(guest.v + 1024), 1, FRAME_GUEST, 99), 0);
	audit(NULL);
	assert_true(has_finding(AUDIT_LEAF_OWNER, &vms[2], 800));
	expect_victims(4);
	assert_int_equal(extent_alloc(1, 1, FRAME_GUEST, 99).v, guest.v + 1024);

	rmap_reserve_empty(&r);
	close_scene();
}

/* Both are leaves that the engine may have written, of the same frame. */
static bool both_sound(const struct pt_format *fmt, u64 a, u64 b, u8 level)
{
	u64 may_differ = fmt->accessed | fmt->dirty | fmt->prot_mask | fmt->memtype_mask;

	return !((a ^ b) & ~may_differ) && s2_is_leaf(fmt, b, level) && s2_leaf_prot(fmt, b) &&
	       s2_leaf_memtype(fmt, b) < S2_MEMTYPES;
}

/*
 * Each bit of a leaf, and of an entry that leads to a table: the audit finds it, unless what comes
 * out is sound. Walks meet it as well: they come back, and follow nothing.
 */
static void flip_each_bit(u64 *slot, u8 level, u64 gfn)
{
	const struct pt_format *fmt = vms[0].fmt;
	u64 saved = *slot;
	struct stage2_leaf leaf;
	struct flush_debt debt;

	for (u32 bit = 0; bit < 64; bit++) {
		bool sound;

		*slot = saved ^ BIT(bit);
		sound = s2_is_table(fmt, saved, level)
				? BIT(bit) & (fmt->accessed | fmt->dirty | s2_write_bit(fmt))
				: both_sound(fmt, saved, *slot, level);
		audit(NULL);
		if (sound != !nr_found)
			fail_msg("level %u, bit %u: %u findings", level, bit, nr_found);
		if (sound && BIT(bit) == s2_write_bit(fmt)) {
			*slot = saved; /* protection at the top, which a map would move down */
			continue;
		}
		assert_int_equal(vms[1].corruptions + vms[2].corruptions, 0);
		(void)stage2_lookup(&vms[0], GFN(gfn), &leaf);
		(void)stage2_map(&vms[0], GFN(gfn), guest, 1, S2_R, S2_WB, 1);
		assert_int_equal(
			stage2_change_leaf(&vms[0], GFN(gfn), level, PFN(1), S2_R, 0, true), 0);
		if (stage2_split(&vms[0], GFN(gfn), level, &debt) != -EUCLEAN)
			assert_int_equal(debt.generation, 0);
		assert_int_equal(*slot, saved ^ BIT(bit));
		*slot = saved;
		expect_victims(vms[0].corruptions ? 1 : 0);
	}
}

static void test_each_bit_of_an_entry(void **state)
{
	open_vms(*state);
	assert_int_equal(map(0, 0, 0, 512, 2), 0);
	assert_int_equal(map(0, 512, 512, 8, 1), 0);
	flip_each_bit(entry_of(&vms[0], 0), 2, 0);
	flip_each_bit(entry_of(&vms[0], 0) + 1, 2, 512);
	flip_each_bit(entry_of(&vms[0], 515), 1, 515);
	close_scene();
}

/* A VM that may only map its own frames has one of another's, in all its structures. */
static void test_alias(void **state)
{
	struct stage2_env env = pool_env;

	open_vms(*state);
	env.private_frames = true;
	vms[0].env = &env;
	assert_int_equal(map(0, 600, 600, 8, 1), -EPERM);
	expect_victims(1);
	env.private_frames = false;
	assert_int_equal(map(0, 600, 600, 1, 1), 0);
	assert_int_equal(map(1, 700, 600, 1, 1), 0);
	assert_int_equal(audit(NULL).findings, 0);
	env.private_frames = true;
	audit(NULL);
	assert_int_equal(nr_found, 1);
	assert_true(has_finding(AUDIT_LEAF_OWNER, &vms[0], 600));
	assert_int_equal(found[0].seen, 99 << 8 | FRAME_GUEST);
	expect_victims(1);
	vms[0].env = &pool_env;
	close_scene();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_audit_finds_each_damage),
		BOTH(test_each_bit_of_an_entry),
		NO_AD(test_each_bit_of_an_entry),
		BOTH(test_alias),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
