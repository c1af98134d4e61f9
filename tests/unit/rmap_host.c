/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mm/extent.h"
#include "tests/unit/host.h"
#include "tests/unit/rmap_host.h"

struct stage2 vms[VMS];
pfn_t guest; /* EXTENT_COUNT extents that all VMs may map */

const struct stage2_env pool_env = {
	.table_alloc = table_pool_alloc,
	.table_free = table_pool_free,
	.table_ptr = table_pool_ptr,
	.table_desc = table_pool_desc,
};

void open_vms(const struct pt_format *fmt)
{
	struct mem_range map = { HPA(0), MEMORY, FRAME_FREE };

	host_arena_open(MEMORY);
	host_failures = host_warnings = 0;
	assert_int_equal(frames_init(&map, 1, HPA(MEMORY)), 0);
	guest = extent_alloc(EXTENT_COUNT, 1, FRAME_GUEST, 99);
	assert_true(pfn_valid(guest));
	for (u16 i = 0; i < VMS; i++) {
		assert_int_equal(stage2_init(&vms[i], fmt, &pool_env, 3, 1ull << 30, i + 1), 0);
		table_pool_allow(&vms[i].pool, WINDOW);
	}
}

u64 free_frames(void)
{
	struct frame_stats stats;

	frames_stats(&stats);
	return stats.frames[FRAME_FREE];
}

void close_vms(void)
{
	u64 used;

	for (u32 i = 0; i < VMS; i++) {
		assert_int_equal(vms[i].unpaid, 0);
		stage2_destroy(&vms[i]);
		table_pool_destroy(&vms[i]);
		assert_int_equal(vms[i].corruptions, 0);
	}
	check_no_keys();
	used = free_frames();
	assert_int_equal(extent_free(guest, EXTENT_COUNT, FRAME_GUEST, 99), 0);
	assert_int_equal(free_frames(), used + EXTENT_COUNT * FRAMES_2M);
	assert_int_equal(host_failures, 0);
	assert_int_equal(host_warnings, 0);
}

int map(u32 vm, u64 gfn, u64 pfn, u64 count, u8 largest)
{
	return stage2_map(&vms[vm], GFN(gfn), PFN(guest.v + pfn), count, S2_RWX, S2_WB, largest);
}

void unmap(u32 vm, u64 gfn, u64 count)
{
	struct flush_debt debt;

	assert_int_equal(stage2_unmap(&vms[vm], GFN(gfn), count, &debt), 0);
	stage2_debt_paid(&debt);
}

/* The entry of gfn, in its level-1 table or, for a 2 MiB leaf, one up. */
u64 *entry_of(struct stage2 *s, u64 gfn)
{
	u64 *table = hpa_ptr(s->root);
	u8 level = 4;

	for (;; level--) {
		u64 *slot = &table[gfn >> (9 * (level - 1)) & 511];

		if (!s2_is_table(s->fmt, *slot, level))
			return slot;
		table = hpa_ptr(s2_entry_hpa(s->fmt, *slot));
	}
}

static bool collect(void *arg, u64 key, pfn_t first)
{
	struct keys *keys = arg;

	(void)first;
	if (keys->count < ARRAY_SIZE(keys->key))
		keys->key[keys->count++] = key;
	return true;
}

struct keys keys_of(u64 pfn)
{
	struct keys keys = { .count = 0 };

	rmap_for_each(PFN(guest.v + pfn), collect, &keys);
	assert_int_equal(rmap_count(PFN(guest.v + pfn)), keys.count);
	return keys;
}

bool has_key(u64 pfn, u64 key)
{
	struct keys keys = keys_of(pfn);

	for (u32 i = 0; i < keys.count; i++) {
		if (keys.key[i] == key)
			return true;
	}
	return false;
}

/* --- the audit --- */

struct audit_finding found[16];
u32 nr_found;

static void note_finding(void *arg, const struct audit_finding *f)
{
	(void)arg;
	if (nr_found < ARRAY_SIZE(found))
		found[nr_found++] = *f;
}

struct audit audit(struct stage2 *only)
{
	struct audit a = { .only = only, .report = note_finding };

	nr_found = 0;
	audit_run(&a);
	assert_int_equal(a.findings, nr_found);
	return a;
}

bool has_finding(enum audit_kind kind, const struct stage2 *s, u64 gfn)
{
	for (u32 i = 0; i < nr_found; i++) {
		if (found[i].kind == kind && found[i].stage2 == s && found[i].gfn.v == gfn)
			return true;
	}
	return false;
}

void expect_victims(u32 victims)
{
	for (u32 i = 0; i < VMS; i++) {
		assert_int_equal(vms[i].corruptions != 0, victims >> i & 1);
		vms[i].corruptions = 0;
	}
	host_warnings = 0;
}
