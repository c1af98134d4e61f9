/* SPDX-License-Identifier: MIT */
/*
 * The single writer of stage-2 entries, and what keeps step with it: keys, counts, descriptors of
 * tables.
 */
#include "mm/stage2_entry.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "mm/frames.h"
#include "mm/rmap.h"

/* What no entry that we write may ever look like. */
static void prove_entry(const struct stage2 *s, u8 level, u64 entry)
{
	const struct pt_format *fmt = s->fmt;
	u64 frame = s2_entry_hpa(fmt, entry).v >> PAGE_SHIFT;

	if (s2_is_leaf(fmt, entry, level)) {
		MMU_WARN_ON(level > s->max_leaf || (frame & (s2_level_frames(level) - 1)));
		MMU_WARN_ON(level == 1 && (entry & fmt->large_bit));
		MMU_WARN_ON(!s2_leaf_prot(fmt, entry) ||
			    s2_leaf_memtype(fmt, entry) == S2_MEMTYPES);
	} else if (s2_is_table(fmt, entry, level)) {
		MMU_WARN_ON((entry & fmt->table_bits) != fmt->table_bits ||
			    (entry & fmt->large_bit));
	} else {
		/* L1TF: what is not present points at no memory */
		MMU_WARN_ON(frame && s2_entry_hpa(fmt, ~entry).v >> 51);
	}
}

/* --- tables and their descriptors --- */

#define CANARY 0x7ab1e0f57a6e2000ull

static u64 canary_of(const u64 *entries)
{
	return CANARY ^ (u64)(uintptr_t)entries;
}

/* The descriptor of the table that an entry is in. */
static struct s2_table *table_of(struct stage2 *s, const u64 *slot)
{
	return s->env->table_desc(s, (const u64 *)ALIGN_DOWN((uintptr_t)slot, PAGE_SIZE));
}

u64 *table_find(struct stage2 *s, hpa_t table, u64 gfn, u8 level)
{
	u64 *entries = s->env->table_ptr(s, table);
	const struct s2_table *t = entries ? table_of(s, entries) : NULL;

	return t && t->canary == canary_of(entries) && t->vm == s->vm && t->level == level &&
			       t->base == ALIGN_DOWN(gfn, s2_level_frames(level + 1))
		       ? entries
		       : NULL;
}

u64 *table_at(struct stage2 *s, hpa_t table, u64 gfn, u8 level)
{
	u64 *entries = table_find(s, table, gfn, level);
	bool not_the_table = !entries;

	DATA_CORRUPTION_ON(s, gfn, not_the_table);
	return entries;
}

int table_new(struct stage2 *s, u8 level, u64 gfn, hpa_t *table)
{
	int err = s->env->table_alloc(s, table);
	struct s2_table *t;
	const u64 *entries;

	if (err)
		return err;
	__atomic_fetch_add(&s->tables, 1, __ATOMIC_RELAXED);
	entries = s->env->table_ptr(s, *table);
	t = table_of(s, entries);
	*t = (struct s2_table){
		.canary = canary_of(entries),
		.base = ALIGN_DOWN(gfn, s2_level_frames(level + 1)),
		.generation = t->generation + 1,
		.vm = s->vm,
		.level = level,
	};
	return 0;
}

/* --- the single writer --- */

/*
 * The single writer: every store to a stage-2 entry is this one, and what must keep step with the
 * entries hangs here. False if the entry is not *old any more; *old is then what it is now.
 */
static bool entry_store(struct stage2 *s, u64 *slot, u8 level, u64 *old, u64 new)
{
	const struct pt_format *fmt = s->fmt;
	struct s2_table *t = table_of(s, slot);
	u64 before = *old;
	s32 more;

	prove_entry(s, level, new);
	if (!__atomic_compare_exchange_n(slot, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		return false;

	more = s2_is_leaf(fmt, new, level) - s2_is_leaf(fmt, before, level);
	if (more)
		__atomic_fetch_add(&s->leaves[level], (u64)(s64)more, __ATOMIC_RELAXED);
	more = s2_present(fmt, new) - s2_present(fmt, before);
	if (more)
		__atomic_fetch_add(&t->live, (u32)more, __ATOMIC_RELAXED);
	return true;
}

static bool may_map(const struct stage2 *s, pfn_t pfn)
{
	return !s->env->private_frames || frame_owner_peek(pfn).vm == s->vm;
}

/* The leaf comes: first its key, and who loses the race takes it back. */
static int store_leaf(struct stage2 *s, struct rmap_op *op, u64 *slot, u64 gfn, u8 level, u64 *old,
		      u64 new, u64 flag)
{
	u64 key = leaf_key(s, gfn, level);
	bool key_missing, foreign_frame;
	int err;

	if (was_leaf(s->fmt, *old)) { /* it comes back: the key never went */
		if (!entry_store(s, slot, level, old, new))
			return -EAGAIN;
		key_missing = rmap_replace(op, key | RMAP_OLD, key);
		DATA_CORRUPTION_ON(s, gfn, key_missing);
		return 0;
	}
	for (err = -EAGAIN; err == -EAGAIN;) {
		err = may_map(s, op->pfn) ? rmap_insert(op, key | flag) : -EPERM;
		if (err == -EAGAIN && rmap_refill(op))
			err = -ENOMEM;
	}
	foreign_frame = err == -EPERM;
	DATA_CORRUPTION_ON(s, gfn, foreign_frame);
	if (err || entry_store(s, slot, level, old, new))
		return err;
	key_missing = rmap_delete(op, key | flag);
	DATA_CORRUPTION_ON(s, gfn, key_missing);
	return -EAGAIN;
}

/*
 * The leaf goes, then its key: at once where nobody can use the frame by this leaf (its table was
 * never linked; or it is split, and the keys of the small leaves hold the frames), otherwise when
 * the flush is paid.
 */
static int store_no_leaf(struct stage2 *s, struct rmap_op *op, u64 *slot, u64 gfn, u8 level,
			 u64 *old, u64 new, u64 flag)
{
	u64 key = leaf_key(s, gfn, level);
	bool key_missing;

	if (!entry_store(s, slot, level, old, new))
		return -EAGAIN;
	if (flag || s2_is_table(s->fmt, new, level))
		key_missing = rmap_delete(op, key | flag) && rmap_delete(op, key | RMAP_NEW);
	else
		key_missing = rmap_replace(op, key, key | RMAP_OLD) &&
			      rmap_replace(op, key | RMAP_NEW, key | RMAP_OLD);
	DATA_CORRUPTION_ON(s, gfn, key_missing);
	return 0;
}

int entry_change(struct stage2 *s, u64 *slot, u64 gfn, u8 level, u64 *old, u64 new, u64 flag)
{
	bool comes = s2_is_leaf(s->fmt, new, level), goes = s2_is_leaf(s->fmt, *old, level);
	const struct pt_format *fmt = s->fmt;
	u64 before = *old;
	struct rmap_op op;
	int err;

	MMU_WARN_ON(comes && goes && (before ^ new) & fmt->addr_mask);
	if (comes == goes || !rmap_lock(&op, entry_pfn(fmt, comes ? new : before), level)) {
		err = entry_store(s, slot, level, old, new) ? 0 : -EAGAIN;
	} else {
		err = comes ? store_leaf(s, &op, slot, gfn, level, old, new, flag)
			    : store_no_leaf(s, &op, slot, gfn, level, old, new, flag);
		rmap_unlock(&op);
	}
	if (!err && s->env->changed && (s2_present(fmt, before) || s2_present(fmt, new)))
		s->env->changed(s, GFN(ALIGN_DOWN(gfn, s2_level_frames(level))), level, before,
				new);
	return err;
}

/* --- garbage --- */

/* The keys of leaves that the table had when it was unlinked: their flush is paid. */
static void forget_leaves(struct stage2 *s, const struct s2_table *t, const u64 *entries)
{
	struct rmap_op op = { 0 };

	for (u32 i = 0; i < ENTRIES; i++) {
		u64 entry = entry_read(&entries[i]);
		u64 gfn = t->base + i * s2_level_frames(t->level);
		u64 key = leaf_key(s, gfn, t->level);

		if (was_leaf(s->fmt, entry) && rmap_move(&op, frozen_pfn(s->fmt, entry), t->level))
			DATA_CORRUPTION_ON(s, gfn, rmap_delete(&op, key | RMAP_OLD));
	}
	rmap_unlock(&op);
}

void table_release(struct stage2 *s, hpa_t table)
{
	const u64 *entries = s->env->table_ptr(s, table);
	struct s2_table *t = table_of(s, entries);

	if (DATA_CORRUPTION_ON(s, t->base,
			       t->canary != canary_of(entries) || t->vm != s->vm || t->live))
		return; /* it stays out of use */
	forget_leaves(s, t, entries);
	t->canary = 0;
	__atomic_fetch_sub(&s->tables, 1, __ATOMIC_RELAXED);
	s->env->table_free(s, table);
}

void garbage_add(struct stage2 *s, hpa_t table)
{
	struct s2_table *t = table_of(s, s->env->table_ptr(s, table));

	spin_lock(&s->garbage_lock);
	t->stamp = __atomic_load_n(&s->generation, __ATOMIC_SEQ_CST) + 1;
	t->next = s->garbage;
	s->garbage = table;
	spin_unlock(&s->garbage_lock);
}

/* NULL: the list is damaged, and ends here. */
static struct s2_table *garbage_table(struct stage2 *s, hpa_t table)
{
	const u64 *entries = table.v ? s->env->table_ptr(s, table) : NULL;

	DATA_CORRUPTION_ON(s, NO_GFN, table.v && !entries);
	return entries ? table_of(s, entries) : NULL;
}

void garbage_free(struct stage2 *s, u64 generation)
{
	hpa_t *link = &s->garbage, ripe;
	struct s2_table *t;

	spin_lock(&s->garbage_lock);
	while ((t = garbage_table(s, *link)) && t->stamp > generation)
		link = &t->next;
	ripe = *link;
	*link = HPA(0);
	spin_unlock(&s->garbage_lock);

	if (ripe.v)
		grace_wait();
	while ((t = garbage_table(s, ripe))) {
		hpa_t next = t->next;

		table_release(s, ripe);
		ripe = next;
	}
}
