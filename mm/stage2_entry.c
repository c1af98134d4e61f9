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
#include "mm/rmap_first.h"

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
		MMU_WARN_ON(((entry | s2_write_bit(fmt)) & fmt->table_bits) != fmt->table_bits ||
			    (entry & fmt->large_bit));
	} else {
		/* L1TF: what is not present points at no memory */
		MMU_WARN_ON(frame && s2_entry_hpa(fmt, ~entry).v >> 51);
	}
}

/* --- tables and their descriptors --- */

static inline u64 canary_of(const u64 *entries)
{
	return 0x7ab1e0f57a6e2000ull ^ (u64)(uintptr_t)entries;
}

/* Does the descriptor say what a walk takes its table for? */
static inline bool table_serves(const struct s2_table *t, const struct stage2 *s, u64 gfn, u8 level)
{
	return t->canary == canary_of(t->entries) && t->vm == s->vm && t->level == level &&
	       t->base == ALIGN_DOWN(gfn, s2_level_frames(level + 1));
}

u64 *table_find(struct stage2 *s, hpa_t table, u64 gfn, u8 level)
{
	u64 *entries = s->env->table_ptr(s, table);
	const struct s2_table *t = entries ? table_of(s, entries) : NULL;

	return t && t->entries == entries && table_serves(t, s, gfn, level) ? entries : NULL;
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
	u64 *entries;

	if (err)
		return err;
	__atomic_fetch_add(&s->tables, 1, __ATOMIC_RELAXED);
	entries = s->env->table_ptr(s, *table);
	t = table_of(s, entries);
	t->canary = canary_of(entries);
	t->entries = entries;
	t->base = ALIGN_DOWN(gfn, s2_level_frames(level + 1));
	t->stamp = 0;
	t->next = HPA(0);
	t->generation++;
	t->live = 0;
	t->vm = s->vm;
	t->level = level;
	return 0;
}

/* Unless another CPU has unlinked it by now, which is then the last word. */
void table_linked(struct stage2 *s, hpa_t table)
{
	struct s2_table *t = table_of(s, s->env->table_ptr(s, table));
	u8 state = S2_TABLE_NEW;

	__atomic_compare_exchange_n(&t->state, &state, S2_TABLE_LINKED, false, __ATOMIC_RELEASE,
				    __ATOMIC_RELAXED);
}

/* --- the single writer --- */

/* Of the region that a table of that level covers. */
static inline struct s2_recent *recent_of(struct stage2 *s, u64 gfn, u8 level)
{
	_Static_assert(ARRAY_SIZE(s->recent) == 8, "3 bits of the hash");
	return &s->recent[(gfn >> (9 * level)) * 0x9e3779b97f4a7c15ull >> 61];
}

/* Of one entry: what is asked for. */
struct change {
	struct stage2 *s;
	struct s2_table *t;
	u64 *slot, *old; /* what it has to be; if it isn't, becomes what it is */
	u64 gfn, new;
	u8 level;
};

/*
 * The single writer: every store to a stage-2 entry is this one, and what must keep step with the
 * entries hangs here: how many leaves and present entries more there are. False if the entry is
 * not *old any more; *old is then what it is now.
 */
static inline bool entry_store(const struct change *c, s32 leaves, s32 present)
{
	prove_entry(c->s, c->level, c->new);
	if (!__atomic_compare_exchange_n(c->slot, c->old, c->new, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_ACQUIRE))
		return false;

	if (leaves)
		__atomic_fetch_add(&recent_of(c->s, c->gfn, c->level)->leaves[c->level],
				   (u64)(s64)leaves, __ATOMIC_RELAXED);
	if (present)
		__atomic_fetch_add(&c->t->live, (u32)present, __ATOMIC_RELAXED);
	return true;
}

static bool store(const struct change *c)
{
	const struct pt_format *fmt = c->s->fmt;
	u64 before = *c->old;

	return entry_store(c, s2_is_leaf(fmt, c->new, c->level) - s2_is_leaf(fmt, before, c->level),
			   s2_present(fmt, c->new) - s2_present(fmt, before));
}

static inline bool may_map(const struct stage2 *s, const struct rmap_op *op)
{
	return !s->env->private_frames || op->owner.vm == s->owner || frames_shared(op->owner.vm);
}

static int add_key(struct stage2 *s, u64 gfn, struct rmap_op *op, u64 key)
{
	bool foreign_frame;
	int err;

	for (err = -EAGAIN; err == -EAGAIN;) {
		err = may_map(s, op) ? rmap_insert(op, key) : -EPERM;
		if (err == -EAGAIN && rmap_refill(op))
			err = -ENOMEM;
	}
	foreign_frame = err == -EPERM;
	DATA_CORRUPTION_ON(s, gfn, foreign_frame);
	return err;
}

/* The leaf comes: first its key, and who loses the race takes it back. */
static int store_leaf(const struct change *c, struct rmap_op *op)
{
	u64 key = leaf_key(c->s, c->gfn, c->level);
	bool key_missing;
	int err;

	if (was_leaf(c->s->fmt, *c->old)) { /* it comes back: the key never went */
		if (!store(c))
			return -EAGAIN;
		key_missing = rmap_replace(op, key | RMAP_OLD, key);
		DATA_CORRUPTION_ON(c->s, c->gfn, key_missing);
		return 0;
	}
	err = add_key(c->s, c->gfn, op, key);
	if (err || store(c))
		return err;
	key_missing = rmap_delete(op, key);
	DATA_CORRUPTION_ON(c->s, c->gfn, key_missing);
	return -EAGAIN;
}

/*
 * The leaf goes, then its key: at once if it is split, and the keys of the small leaves hold the
 * frames, otherwise when the flush is paid.
 */
static int store_no_leaf(const struct change *c, struct rmap_op *op)
{
	u64 key = leaf_key(c->s, c->gfn, c->level);
	bool key_missing;

	if (!store(c))
		return -EAGAIN;
	if (s2_is_table(c->s->fmt, c->new, c->level))
		key_missing = rmap_delete(op, key);
	else
		key_missing = rmap_replace(op, key, key | RMAP_OLD) &&
			      rmap_replace(op, key | RMAP_NEW, key | RMAP_OLD);
	DATA_CORRUPTION_ON(c->s, c->gfn, key_missing);
	return 0;
}

static void tell_changed(const struct change *c, u64 before)
{
	if (unlikely(c->s->env->changed) && s2_present(c->s->fmt, before | c->new))
		c->s->env->changed(c->s, GFN(ALIGN_DOWN(c->gfn, s2_level_frames(c->level))),
				   c->level, before, c->new);
}

static int make_change(const struct change *c)
{
	const struct pt_format *fmt = c->s->fmt;
	u64 before = *c->old, new = c->new;
	bool comes = s2_is_leaf(fmt, new, c->level), goes = s2_is_leaf(fmt, before, c->level);
	struct rmap_op op;
	int err;

	MMU_WARN_ON(comes && goes && (before ^ new) & fmt->addr_mask);
	if (comes == goes || !rmap_lock(&op, entry_pfn(fmt, comes ? new : before), c->level)) {
		err = store(c) ? 0 : -EAGAIN;
	} else {
		err = comes ? store_leaf(c, &op) : store_no_leaf(c, &op);
		rmap_unlock(&op);
	}
	if (!err)
		tell_changed(c, before);
	return err;
}

int entry_cas(struct stage2 *s, u64 *slot, u64 gfn, u8 level, u64 *old, u64 new)
{
	return make_change(&(struct change){ s, table_of(s, slot), slot, old, gfn, new, level });
}

/* --- a split: all entries of a table, and all their keys --- */

void table_fill(struct stage2 *s, hpa_t table, u64 leaf)
{
	u64 *entries = s->env->table_ptr(s, table);
	struct s2_table *t = table_of(s, entries);
	s32 more = (leaf ? ENTRIES : 0) - (s32)t->live; /* all of them are present, or none */

	for (u32 i = 0; i < ENTRIES; i++) {
		u64 before = entries[i], old = before;
		u64 new = leaf ? child_of(s->fmt, leaf, t->level + 1, i) : 0;
		u64 gfn = t->base + i * s2_level_frames(t->level);
		struct change c = { s, t, &entries[i], &old, gfn, new, t->level };

		if (new != before && entry_store(&c, 0, 0))
			tell_changed(&c, before);
	}
	__atomic_fetch_add(&recent_of(s, t->base, t->level)->leaves[t->level], (u64)(s64)more,
			   __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->live, (u32)more, __ATOMIC_RELAXED);
}

int table_keys(struct stage2 *s, hpa_t table, u64 leaf, u64 from, u64 to, u32 count)
{
	const struct s2_table *t = table_of(s, s->env->table_ptr(s, table));
	struct rmap_op op = { 0 };
	u32 i, run;
	int err = 0;

	for (i = 0; i < count && !err; i += MAX(run, 1)) {
		u64 first = i * s2_level_frames(t->level), gfn = t->base + first;
		u64 key = leaf_key(s, gfn, t->level);
		u64 old = from ? key | from : 0, new = to ? key | to : 0;
		bool key_missing = false;

		run = 1;
		if (!rmap_move(&op, PFN(entry_pfn(s->fmt, leaf).v + first), t->level))
			continue;
		run = may_map(s, &op) ? rmap_run(&op, old, new, count - i) : 0;
		if (!run && !old)
			err = add_key(s, gfn, &op, new);
		else if (!run && !new)
			key_missing = rmap_delete(&op, old);
		else if (!run) /* what is not there any more, somebody took away meanwhile */
			(void)rmap_replace(&op, old, new);
		DATA_CORRUPTION_ON(s, gfn, key_missing);
	}
	rmap_unlock(&op);
	if (err)
		(void)table_keys(s, table, leaf, to, from, i - 1);
	return err;
}

/* --- a fault: in the table in which the last leaf was installed, without a walk --- */

void entry_filled(struct stage2 *s, const u64 *slot, u64 gfn, u8 level)
{
	struct s2_recent *recent = recent_of(s, gfn, level);
	struct s2_table *t = table_of(s, slot);

	if (READ_ONCE(recent->table) != t)
		WRITE_ONCE(recent->table, t);
}

/*
 * -EAGAIN: nothing changed, a walk tells why. The table is not freed before the read section ends,
 * because who unlinks one says so in its state before it waits for readers. It may be unlinked
 * meanwhile, as it may behind any walk: then the leaf is removed with it, or the entry is frozen.
 * Only an empty entry is filled: in another case the fault was spurious, or something above is
 * damaged, so that the hardware does not get here.
 */
static INLINE int fill_near(struct stage2 *s, u64 gfn, u8 level, u64 leaf, pfn_t pfn)
{
	struct s2_table *t = READ_ONCE(recent_of(s, gfn, level)->table);
	u64 *slot, old = 0;
	struct extent *e;

	if (!t || __atomic_load_n(&t->state, __ATOMIC_ACQUIRE) != S2_TABLE_LINKED ||
	    !table_serves(t, s, gfn, level))
		return -EAGAIN;
	slot = &t->entries[(gfn >> (9 * (level - 1))) % ENTRIES];
	if (entry_read(slot))
		return -EAGAIN;
	e = rmap_first_lock(pfn, level, rmap_key(s->vm, s->root_id, level, gfn), s->owner);
	if (unlikely(!e))
		return -EAGAIN;
	if (!entry_store(&(struct change){ s, t, slot, &old, gfn, leaf, level }, 1, 1)) {
		rmap_first_undo(e, pfn, level);
		return -EAGAIN;
	}
	spin_unlock(&e->lock);
	if (unlikely(s->env->changed))
		s->env->changed(s, GFN(gfn), level, 0, leaf);
	return 0;
}

static INLINE int map_leaf(struct stage2 *s, u64 gfn, u64 pfn, u8 prot, u8 level)
{
	u64 mask = s2_level_frames(level) - 1, leaf;
	int err = -EAGAIN;

	gfn &= ~mask;
	pfn &= ~mask;
	if (level <= s->max_leaf && (gfn | mask) < s->max_gfn && prot <= S2_RWX &&
	    s->fmt->prot_bits[prot]) {
		leaf = s2_make_leaf(s->fmt, level, PFN(pfn), prot, S2_WB);
		grace_enter();
		err = fill_near(s, gfn, level, leaf, PFN(pfn));
		grace_leave();
	}
	return likely(err != -EAGAIN)
		       ? err
		       : stage2_map(s, GFN(gfn), PFN(pfn), mask + 1, prot, S2_WB, level);
}

/* The level is a constant in most of what follows. */
int stage2_map_leaf(struct stage2 *s, gfn_t gfn, pfn_t pfn, u8 prot, u8 level)
{
	if (likely(level == 2))
		return map_leaf(s, gfn.v, pfn.v, prot, 2);
	if (level == 1)
		return map_leaf(s, gfn.v, pfn.v, prot, 1);
	gfn.v &= ~MASK(17, 0);
	pfn.v &= ~MASK(17, 0);
	return stage2_map(s, gfn, pfn, s2_level_frames(3), prot, S2_WB, level);
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
	WRITE_ONCE(t->state, S2_TABLE_NEW);
	__atomic_fetch_sub(&s->tables, 1, __ATOMIC_RELAXED);
	s->env->table_free(s, table);
}

void garbage_add(struct stage2 *s, hpa_t table)
{
	struct s2_table *t = table_of(s, s->env->table_ptr(s, table));

	spin_lock(&s->garbage_lock);
	WRITE_ONCE(t->state, S2_TABLE_GARBAGE);
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
