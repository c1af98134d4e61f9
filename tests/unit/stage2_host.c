/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/extent.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"

s64 tables_live;
s64 allocs_left;
u64 leaves_seen[4];
void (*watch)(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry);
void (*watch_alloc)(u64 *table);

/* Behind the page: where its descriptor is. That outlives the page, and serves another one then. */
union desc {
	struct s2_table table;
	union desc *next;
};
static union desc *free_descs;
static struct spinlock desc_lock = SPINLOCK_INIT(RANK_FRAMES);

static struct s2_table *table_desc(struct stage2 *s, const u64 *entries)
{
	(void)s;
	return (struct s2_table *)(uintptr_t)entries[ENTRIES];
}

static union desc *desc_alloc(void)
{
	union desc *d;

	spin_lock(&desc_lock);
	d = free_descs;
	if (d)
		free_descs = d->next;
	spin_unlock(&desc_lock);
	return d ? d : calloc(1, sizeof(*d));
}

static void desc_free(struct s2_table *t)
{
	union desc *d = (union desc *)t;

	spin_lock(&desc_lock);
	d->next = free_descs;
	free_descs = d;
	spin_unlock(&desc_lock);
}

static int table_alloc(struct stage2 *s, hpa_t *table)
{
	u64 *p;

	(void)s;
	if (!allocs_left)
		return -ENOMEM;
	if (allocs_left > 0)
		allocs_left--;
	p = aligned_alloc(PAGE_SIZE, 2 * PAGE_SIZE);
	memset(p, 0, 2 * PAGE_SIZE);
	p[ENTRIES] = (u64)(uintptr_t)desc_alloc();
	*table = HPA((u64)(uintptr_t)p);
	__atomic_fetch_add(&tables_live, 1, __ATOMIC_RELAXED);
	if (watch_alloc)
		watch_alloc(p);
	return 0;
}

u64 *stage2_table(struct stage2 *s, hpa_t table)
{
	(void)s;
	return (u64 *)(uintptr_t)table.v;
}

static void table_free(struct stage2 *s, hpa_t table)
{
	__atomic_fetch_sub(&tables_live, 1, __ATOMIC_RELAXED);
	desc_free(table_desc(s, stage2_table(s, table)));
	free(stage2_table(s, table));
}

static void changed(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry)
{
	int more = s2_is_leaf(s->fmt, new_entry, level) - s2_is_leaf(s->fmt, old_entry, level);

	HOST_CHECK(s2_present(s->fmt, old_entry) || s2_present(s->fmt, new_entry));
	HOST_CHECK(!(gfn.v % s2_level_frames(level)));
	/* L1TF: what is not present points at nothing. */
	HOST_CHECK(s2_present(s->fmt, new_entry) || !(new_entry & s->fmt->addr_mask) ||
		   (new_entry & s->fmt->addr_mask) >> 51);
	if (more)
		__atomic_fetch_add(&leaves_seen[level], (u64)(s64)more, __ATOMIC_RELAXED);
	if (watch)
		watch(s, gfn, level, old_entry, new_entry);
}

const struct stage2_env stage2_host_env = {
	.table_alloc = table_alloc,
	.table_free = table_free,
	.table_ptr = stage2_table,
	.table_desc = table_desc,
	.changed = changed,
};

/*
 * Frames that the tests map, and so have keys: most of the first 600 GiB. What lies above counts as
 * device memory.
 */
static void open_frames(void)
{
	struct mem_range map[] = { { HPA(0), 600 * GIB, FRAME_GUEST },
				   { HPA(600 * GIB), GIB, FRAME_FREE } };

	host_arena_open(601 * GIB);
	assert_int_equal(frames_init(map, ARRAY_SIZE(map), HPA(1ull << 46)), 0);
}

void check_no_keys(void)
{
	for (u64 i = 0; i < frames.extent_count; i++) {
		const struct extent *e = &frames.extents[i];

		if (e->large || e->gib || e->keys || e->small_keys)
			assert_int_equal(i, -1);
	}
	assert_int_equal(rmap_set_memory(), 0);
}

void open_stage2(struct stage2 *s, const struct pt_format *fmt, u8 max_leaf)
{
	if (!host_arena)
		open_frames();
	watch = NULL;
	watch_alloc = NULL;
	allocs_left = -1;
	host_failures = 0;
	memset(leaves_seen, 0, sizeof(leaves_seen));
	assert_int_equal(stage2_init(s, fmt, &stage2_host_env, max_leaf, DEFAULT_MAX_GFN, 1), 0);
}

void close_stage2(struct stage2 *s)
{
	assert_int_equal(s->unpaid, 0);
	stage2_destroy(s);
	assert_int_equal(tables_live, 0);
	for (u32 level = 1; level <= 3; level++) {
		assert_int_equal(stage2_leaves(s, level), 0);
		assert_int_equal(leaves_seen[level], 0);
	}
	assert_int_equal(host_failures, 0);
	assert_int_equal(host_warnings, 0);
	assert_int_equal(s->corruptions, 0);
	check_no_keys();
}

/* *readonly: an entry on the way to the leaf says so. */
static u64 *walk(struct stage2 *s, u64 gfn, u8 *level, u64 *entry, bool *readonly)
{
	u64 *table = stage2_table(s, s->root);

	for (*level = s->fmt->levels;; (*level)--) {
		u64 *slot = &table[(gfn >> (9 * (*level - 1))) & 511];

		*entry = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
		if (!(*entry & s->fmt->present_mask))
			return NULL;
		if (*level == 1 || (*level < 4 && (*entry & s->fmt->large_bit)))
			return slot;
		if (((*entry | s2_write_bit(s->fmt)) & s->fmt->table_bits) != s->fmt->table_bits)
			return NULL;
		*readonly |= !(*entry & s2_write_bit(s->fmt));
		table = stage2_table(s, HPA(*entry & s->fmt->addr_mask));
	}
}

u64 *hw_walk(struct stage2 *s, u64 gfn, u8 *level, u64 *entry)
{
	bool readonly = false;

	return walk(s, gfn, level, entry, &readonly);
}

bool same_xlat(struct xlat a, struct xlat b)
{
	return a.pfn == b.pfn && a.prot == b.prot && a.type == b.type;
}

struct xlat hw_xlat(struct stage2 *s, u64 gfn)
{
	const struct pt_format *fmt = s->fmt;
	struct xlat x = { 0 };
	bool readonly = false;
	u64 entry;
	u8 level;

	if (!walk(s, gfn, &level, &entry, &readonly))
		return x;
	x.pfn = ((entry & fmt->addr_mask) >> 12) + (gfn & (s2_level_frames(level) - 1));
	for (x.prot = 7; x.prot && fmt->prot_bits[x.prot] != (entry & fmt->prot_mask);)
		x.prot--;
	if (readonly)
		x.prot &= (u8)~S2_W;
	while (fmt->memtype_bits[x.type] != (entry & fmt->memtype_mask))
		x.type++;
	return x;
}

void hw_set(struct stage2 *s, u64 gfn, u64 bits)
{
	u8 level;
	u64 entry, *slot = hw_walk(s, gfn, &level, &entry);

	if (slot)
		__atomic_compare_exchange_n(slot, &entry, entry | bits, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_ACQUIRE);
}
