/* SPDX-License-Identifier: MIT */
/*
 * The stage-2 engine. mm/stage2.h has the picture and the promises.
 *
 * An entry is in one of four states: empty (0), leaf, table, or frozen. Frozen entries are not
 * present, so the hardware faults on them, and they belong to whoever froze them: a merge that is
 * under way, or the removal of the table that they are in. Whoever else meets one starts again from
 * the root, where a removed table is not to be found any more and a merge is over soon.
 *
 * Every change is a compare-and-swap from a value that was read once, because three parties write
 * beside us: other CPUs that map, other CPUs that remove, and the hardware, which sets A and D bits
 * at any moment as long as an entry is present.
 */
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "mm/stage2.h"
#include "mm/stage2_entry.h"

/*
 * The iterator: stands on one entry, and knows the tables above it. `entry` is read once when it
 * steps there, and again only when a store fails. Steps: down into the table, on to the next entry
 * (and up where a table ends), or back to the root.
 */
struct s2_iter {
	struct stage2 *s;
	u64 start, end; /* the range of the whole walk; end exclusive */
	u64 gfn;	/* first frame of the range that the entry covers; end: the walk is over */
	u64 entry;
	u64 *slot;
	u64 *tables[MAX_LEVELS + 1]; /* by level, from the root to where it stands */
	u8 level;
	bool stale; /* something was taken away that a CPU may still know: there will be a debt */
	struct rmap_log *log; /* of unmap: keys that wait for it */
	int err;	      /* it met damage, was reported and is over: -EUCLEAN; otherwise 0 */
};

static void iter_load(struct s2_iter *it)
{
	it->slot = &it->tables[it->level][(it->gfn >> (9 * (it->level - 1))) % ENTRIES];
	it->entry = entry_read(it->slot);
}

/* What is damaged is not followed: it stands on an empty entry behind the end. */
static void iter_fail(struct s2_iter *it)
{
	it->err = -EUCLEAN;
	it->entry = 0;
	it->gfn = it->end;
}

static void iter_enter(struct s2_iter *it, hpa_t table)
{
	it->tables[it->level] = table_at(it->s, table, it->gfn, it->level);
	if (unlikely(!it->tables[it->level]))
		iter_fail(it);
	else
		iter_load(it);
}

/* The walk, and all use of what it meets, is in a read section (lib/grace.h). */
static void iter_begin(struct s2_iter *it, u64 start, u64 end)
{
	it->start = it->gfn = start;
	it->end = end;
	it->level = it->s->fmt->levels;
	iter_enter(it, it->s->root);
}

/* After a frozen entry: what froze it is under way on another CPU. */
static void iter_restart(struct s2_iter *it)
{
	if (DATA_CORRUPTION_ON(it->s, it->gfn, !is_frozen(it->s->fmt, it->entry))) {
		iter_fail(it);
		return;
	}
	spin_wait();
	it->level = it->s->fmt->levels;
	iter_load(it);
}

static void iter_down(struct s2_iter *it)
{
	it->level--;
	iter_enter(it, s2_entry_hpa(it->s->fmt, it->entry));
}

static void iter_next(struct s2_iter *it)
{
	u64 next = (it->gfn | (s2_level_frames(it->level) - 1)) + 1;

	it->gfn = MIN(next, it->end);
	if (next >= it->end)
		return;
	while (it->level < it->s->fmt->levels && !(next & (s2_level_frames(it->level + 1) - 1)))
		it->level++;
	iter_load(it);
}

/* As entry_cas. */
static int iter_cas(struct s2_iter *it, u64 new)
{
	int err = entry_cas(it->s, it->slot, it->gfn, it->level, &it->entry, new);

	if (!err)
		it->entry = new;
	return err;
}

static bool on_leaf(const struct s2_iter *it)
{
	return s2_is_leaf(it->s->fmt, it->entry, it->level);
}

static bool on_table(const struct s2_iter *it)
{
	return s2_is_table(it->s->fmt, it->entry, it->level);
}

static u64 entry_first_gfn(const struct s2_iter *it)
{
	return ALIGN_DOWN(it->gfn, s2_level_frames(it->level));
}

/* Does the range contain all that the entry covers? */
static bool entry_in_range(const struct s2_iter *it)
{
	u64 first = entry_first_gfn(it);

	return first >= it->start && first + s2_level_frames(it->level) <= it->end;
}

/*
 * The iterator stands on a table below which nothing may be written, and that is to change: its
 * entries become what the one above them said, then that one gets its right back. At no moment can
 * more be written than before, so nothing is to be flushed. One CPU at a time does this, and looks
 * first: what has been given below meanwhile is not taken again. Who finds a frozen entry tries
 * anew.
 */
static void open_table(struct s2_iter *it)
{
	const struct pt_format *fmt = it->s->fmt;
	u64 *entries = NULL, old = 0;

	spin_lock(&it->s->split_lock);
	it->entry = entry_read(it->slot);
	if (on_table(it) && is_readonly(fmt, it->entry)) {
		entries = table_at(it->s, s2_entry_hpa(fmt, it->entry), it->gfn, it->level - 1);
		if (!entries)
			iter_fail(it);
	}
	for (u32 i = 0; entries && i < ENTRIES && !is_frozen(fmt, old); i++) {
		u64 gfn = entry_first_gfn(it) + i * s2_level_frames(it->level - 1);

		old = entry_read(&entries[i]);
		while (s2_present(fmt, old) && !is_readonly(fmt, old))
			(void)entry_cas(it->s, &entries[i], gfn, it->level - 1, &old,
					old & ~s2_write_bit(fmt));
	}
	if (is_frozen(fmt, old))
		spin_wait();
	else if (entries)
		(void)iter_cas(it, it->entry | s2_write_bit(fmt));
	spin_unlock(&it->s->split_lock);
}

/* From a table to the one below it, for what gives these rights there. */
static void iter_descend(struct s2_iter *it, u8 prot)
{
	if (unlikely(prot & S2_W && is_readonly(it->s->fmt, it->entry)))
		open_table(it);
	else
		iter_down(it);
}

/* --- map --- */

static bool range_ok(const struct stage2 *s, u64 gfn, u64 count)
{
	return gfn <= s->max_gfn && count <= s->max_gfn - gfn;
}

static bool pfn_range_ok(const struct stage2 *s, u64 pfn, u64 count)
{
	u64 limit = (s->fmt->addr_mask >> PAGE_SHIFT) + 1;

	return pfn <= limit && count <= limit - pfn;
}

static bool prot_ok(const struct stage2 *s, u8 prot)
{
	return prot <= S2_RWX && s->fmt->prot_bits[prot];
}

static int link_table(struct s2_iter *it)
{
	hpa_t table;
	int err = table_new(it->s, it->level - 1, it->gfn, &table);

	if (err)
		return err;
	/* If another CPU was faster, go on with what it installed. */
	if (iter_cas(it, table.v | it->s->fmt->table_bits))
		table_release(it->s, table);
	else
		table_linked(it->s, table);
	return 0;
}

/* The largest level, at most `level`, whose leaves fit the count and both alignments. */
static u8 largest_level(u64 gfn, u64 pfn, u64 count, u8 level)
{
	for (; level > 1; level--) {
		u64 frames = s2_level_frames(level);

		if (!((gfn | pfn) & (frames - 1)) && count >= frames)
			break;
	}
	return level;
}

/* Is the leaf that stands here what stage2_map would put here? */
static bool same_mapping(const struct s2_iter *it, u64 pfn, u64 wanted)
{
	const struct pt_format *fmt = it->s->fmt;
	u64 offset = it->gfn - entry_first_gfn(it);

	return (s2_entry_hpa(fmt, it->entry).v >> PAGE_SHIFT) + offset == pfn &&
	       !((it->entry ^ wanted) & (fmt->prot_mask | fmt->memtype_mask));
}

/* What stage2_map wants of the whole range. */
struct map_wish {
	u64 pfn; /* of the range's first frame */
	u8 prot, type, largest;
};

/* A step of stage2_map where no table stands: install a leaf, or a table, or pass what is there. */
static int map_step(struct s2_iter *it, const struct map_wish *wish)
{
	u64 pfn = wish->pfn + (it->gfn - it->start);
	u8 level = largest_level(it->gfn, pfn, it->end - it->gfn, wish->largest);
	u64 leaf;
	int err;

	/* Where tables stood above, this entry may cover less than the range would allow. */
	level = MIN(level, it->level);
	leaf = s2_make_leaf(it->s->fmt, level, PFN(pfn), wish->prot, wish->type);

	if (on_leaf(it)) {
		if (!same_mapping(it, pfn, leaf))
			return -EEXIST;
		iter_next(it);
	} else if (it->entry) {
		iter_restart(it);
	} else if (it->level > level) {
		return link_table(it);
	} else {
		err = iter_cas(it, leaf);
		if (!err) {
			entry_filled(it->s, it->slot, it->gfn, it->level);
			iter_next(it);
		}
		return err == -EAGAIN ? 0 : err;
	}
	return 0;
}

int stage2_map(struct stage2 *s, gfn_t gfn, pfn_t pfn, u64 count, u8 prot, enum s2_memtype type,
	       u8 largest)
{
	struct map_wish wish = { pfn.v, prot, (u8)type, MIN(largest, s->max_leaf) };
	struct s2_iter it = { .s = s };
	int err = 0;

	if (!range_ok(s, gfn.v, count) || !pfn_range_ok(s, pfn.v, count) || !prot_ok(s, prot))
		return trace_error(-EINVAL);
	if ((u32)type >= S2_MEMTYPES || largest < 1 || largest > 3)
		return trace_error(-EINVAL);

	if (!count)
		return 0; /* also behind the last frame, where no table is */
	grace_enter();
	iter_begin(&it, gfn.v, gfn.v + count);
	while (!err && it.gfn < it.end) {
		if (on_table(&it))
			iter_descend(&it, S2_W); /* what a leaf says is then what is so */
		else
			err = map_step(&it, &wish);
	}
	grace_leave();
	return err ? err : it.err;
}

/* --- split --- */

/* What protect (or with prot 0: unmap) makes of a leaf. */
static u64 leaf_after(const struct pt_format *fmt, u64 leaf, u8 prot)
{
	return prot ? (leaf & ~fmt->prot_mask) | fmt->prot_bits[prot] : 0;
}

/*
 * Replace the leaf on which the iterator stands by a table of the same translations, with the
 * rights `add` (enum s2_prot) besides. When the hardware sets A or D in it meanwhile, the new table
 * is brought up to date first. When somebody else changes it, nothing is done: look again.
 */
static int split_leaf(struct s2_iter *it, u8 add)
{
	const struct pt_format *fmt = it->s->fmt;
	bool linked = false;
	hpa_t table;
	u64 leaf;
	int err = table_new(it->s, it->level - 1, it->gfn, &table);

	if (err)
		return err;
	spin_lock(&it->s->split_lock);
	if (it->level == 3)
		spin_lock(&rmap_moves);
	leaf = it->entry;
	err = table_keys(it->s, table, leaf, 0, RMAP_NEW, ENTRIES);
	if (!err) {
		do {
			leaf = it->entry;
			table_fill(it->s, table,
				   leaf_after(fmt, leaf, s2_leaf_prot(fmt, leaf) | add));
			linked = !iter_cas(it, table.v | fmt->table_bits);
		} while (!linked && !((it->entry ^ leaf) & ~hw_bits(fmt)));
		if (linked)
			table_linked(it->s, table);
		else
			table_fill(it->s, table, 0);
		(void)table_keys(it->s, table, leaf, RMAP_NEW, linked ? RMAP_KEY : 0, ENTRIES);
	}
	if (it->level == 3)
		spin_unlock(&rmap_moves);
	spin_unlock(&it->s->split_lock);
	if (!linked)
		table_release(it->s, table);
	it->stale |= linked;
	return err;
}

/*
 * Split the leaf that covers gfn down to `level`, unless it has these permissions already; `add`:
 * see split_leaf.
 */
static int split_down(struct s2_iter *it, u64 gfn, u8 level, u8 prot, u8 add)
{
	for (iter_begin(it, gfn, gfn + 1); it->level > level;) {
		int err;

		if (on_table(it)) {
			iter_descend(it, prot);
		} else if (it->entry && !on_leaf(it)) {
			iter_restart(it);
		} else if (!it->entry || leaf_after(it->s->fmt, it->entry, prot) == it->entry) {
			break;
		} else {
			err = split_leaf(it, add);
			if (err)
				return err;
		}
	}
	return it->err;
}

static void no_debt(struct stage2 *s, struct flush_debt *debt)
{
	*debt = (struct flush_debt){ .stage2 = s };
}

static void count_debt(struct flush_debt *debt)
{
	struct stage2 *s = debt->stage2;

	__atomic_fetch_add(&s->unpaid, 1, __ATOMIC_RELAXED);
	debt->generation = __atomic_add_fetch(&s->generation, 1, __ATOMIC_SEQ_CST);
}

/*
 * What is under way may leave keys and tables apart for a moment. The audit looks at this first, so
 * it ends when the debt is made.
 */
static void change_begin(struct stage2 *s)
{
	__atomic_fetch_add(&s->changing, 1, __ATOMIC_SEQ_CST);
	grace_enter();
}

static void change_end(struct stage2 *s)
{
	grace_leave();
	__atomic_fetch_sub(&s->changing, 1, __ATOMIC_SEQ_CST);
}

static void make_debt(const struct s2_iter *it, struct flush_debt *debt)
{
	debt->stage2 = it->s;
	debt->generation = 0;
	if (!it->stale) {
		(void)rmap_log_settle(&debt->log); /* empty: gives its memory back */
		return;
	}
	count_debt(debt);
}

void stage2_owe(struct stage2 *s, struct flush_debt *debt)
{
	no_debt(s, debt);
	count_debt(debt);
}

static int split(struct stage2 *s, gfn_t gfn, u8 level, u8 add, struct flush_debt *debt)
{
	struct s2_iter it = { .s = s };
	int err;

	no_debt(s, debt);
	if (!range_ok(s, gfn.v, 1) || level < 1 || level > 2)
		return trace_error(-EINVAL);
	change_begin(s);
	err = split_down(&it, gfn.v, level, 0, add);
	make_debt(&it, debt);
	change_end(s);
	return err;
}

int stage2_split(struct stage2 *s, gfn_t gfn, u8 level, struct flush_debt *debt)
{
	return split(s, gfn, level, 0, debt);
}

int stage2_split_exec(struct stage2 *s, gfn_t gfn, struct flush_debt *debt)
{
	return split(s, gfn, 1, S2_X, debt);
}

/* --- unmap and protect --- */

/*
 * Take an entry out of a table that is unlinked. If it is frozen already, a merge that found the
 * table while it was linked is not over: it ends by a store to this very entry, for which we wait.
 */
static u64 freeze(struct stage2 *s, u64 *slot, u64 gfn, u8 level)
{
	u64 old = entry_read(slot);

	for (;;) {
		u64 was = old;

		if (is_frozen(s->fmt, old)) {
			spin_wait();
			old = entry_read(slot);
		} else if (!entry_cas(s, slot, gfn, level, &old,
				      s2_is_leaf(s->fmt, old, level) ? frozen_leaf(s->fmt, old)
								     : FROZEN)) {
			return was;
		}
	}
}

/*
 * The table was unlinked by this CPU: empty it, and all below. A CPU that found its way here before
 * may still install a leaf: that map came before this removal. The recursion is as deep as there
 * are levels.
 */
static void drop_table(struct stage2 *s, hpa_t table, u64 gfn, u8 level)
{
	u64 *entries = table_at(s, table, gfn, level);

	if (!entries)
		return;
	for (u32 i = 0; i < ENTRIES; i++) {
		u64 at = gfn + i * s2_level_frames(level);
		u64 old = freeze(s, &entries[i], at, level);

		if (s2_is_table(s->fmt, old, level))
			drop_table(s, s2_entry_hpa(s->fmt, old), at, level - 1);
	}
	garbage_add(s, table);
}

static void unlink_table(struct s2_iter *it)
{
	hpa_t table = s2_entry_hpa(it->s->fmt, it->entry);

	if (iter_cas(it, 0))
		return;
	drop_table(it->s, table, entry_first_gfn(it), it->level - 1);
	it->stale = true;
	iter_next(it);
}

/* The leaf is gone; its key goes when the flush is paid. */
static void log_leaf(struct s2_iter *it, u64 leaf)
{
	pfn_t pfn = entry_pfn(it->s->fmt, leaf);

	if (rmap_tracks(pfn))
		WARN_ON(!rmap_log_add(it->log, pfn,
				      leaf_key(it->s, it->gfn, it->level) | RMAP_OLD));
}

static int change_leaf(struct s2_iter *it, u8 prot)
{
	const struct pt_format *fmt = it->s->fmt;
	u64 old = it->entry;
	u64 new = leaf_after(fmt, old, prot);

	if (new != old) {
		if (!entry_in_range(it))
			return split_leaf(it, 0);
		if (iter_cas(it, new))
			return 0;
		if (s2_leaf_prot(fmt, old) & ~prot)
			it->stale = true;
		if (!prot)
			log_leaf(it, old);
	}
	iter_next(it);
	return 0;
}

/*
 * Unmap is protect to nothing. A leaf that sticks out at the start is the first thing that the walk
 * meets; one that sticks out at the end is split before, so that -ENOMEM comes before any change.
 */
static int change_range(struct s2_iter *it, u64 start, u64 end, u8 prot)
{
	int err = 0;

	if (end < it->s->max_gfn)
		err = split_down(it, end, largest_level(end, 0, ~0ull, it->s->max_leaf), prot, 0);
	iter_begin(it, start, end);
	while (!err && it->gfn < it->end) {
		if (on_leaf(it))
			err = change_leaf(it, prot);
		else if (!on_table(it) && it->entry)
			iter_restart(it);
		else if (!it->entry)
			iter_next(it);
		else if (!prot && entry_in_range(it))
			unlink_table(it);
		else
			iter_descend(it, prot);
	}
	return err ? err : it->err;
}

/* How many entries of one level lie in the range beside those whose whole table does. */
static u64 ragged(u64 start, u64 end)
{
	u64 first = ALIGN_UP(start, ENTRIES), last = ALIGN_DOWN(end, ENTRIES);

	return first <= last ? first - start + (end - last) : end - start;
}

/* At most how many leaves an unmap takes out of tables that stay. */
static u64 lone_leaves(const struct stage2 *s, u64 start, u64 end)
{
	u64 count = 0;

	for (u8 level = 1; level <= s->max_leaf && start < end; level++) {
		count += ragged(start, end);
		start = ALIGN_UP(start, ENTRIES) / ENTRIES;
		end /= ENTRIES;
	}
	return count;
}

static int change(struct stage2 *s, gfn_t gfn, u64 count, u8 prot, bool ok, struct flush_debt *debt)
{
	struct s2_iter it = { .s = s };
	int err = 0;

	no_debt(s, debt);
	if (!ok || !range_ok(s, gfn.v, count))
		return trace_error(-EINVAL);
	it.log = &debt->log;
	if (!prot)
		err = rmap_log_reserve(&debt->log, lone_leaves(s, gfn.v, gfn.v + count));
	change_begin(s);
	if (count && !err)
		err = change_range(&it, gfn.v, gfn.v + count, prot);
	make_debt(&it, debt);
	change_end(s);
	return err;
}

int stage2_unmap(struct stage2 *s, gfn_t gfn, u64 count, struct flush_debt *debt)
{
	return change(s, gfn, count, 0, true, debt);
}

int stage2_protect(struct stage2 *s, gfn_t gfn, u64 count, u8 prot, struct flush_debt *debt)
{
	return change(s, gfn, count, prot, prot_ok(s, prot), debt);
}

int stage2_protect_top(struct stage2 *s, gfn_t gfn, u64 count, struct flush_debt *debt)
{
	struct s2_iter it = { .s = s };

	no_debt(s, debt);
	if (!range_ok(s, gfn.v, count))
		return trace_error(-EINVAL);
	change_begin(s);
	/* They may lie below what is not to be written. */
	for (u32 i = 0; i < ARRAY_SIZE(s->recent); i++)
		WRITE_ONCE(s->recent[i].table, NULL);
	if (count)
		iter_begin(&it, gfn.v, gfn.v + count);
	while (it.gfn < it.end) {
		if (on_table(&it) && !entry_in_range(&it)) {
			iter_down(&it);
		} else if (is_frozen(s->fmt, it.entry)) {
			iter_restart(&it);
		} else if (is_readonly(s->fmt, it.entry)) {
			iter_next(&it);
		} else if (!iter_cas(&it, it.entry & ~s2_write_bit(s->fmt))) {
			it.stale = true;
			iter_next(&it);
		}
	}
	make_debt(&it, debt);
	change_end(s);
	return it.err;
}

u64 stage2_change_leaf(struct stage2 *s, gfn_t gfn, u8 level, pfn_t pfn, u8 keep, u8 add,
		       bool clear_accessed)
{
	const struct pt_format *fmt = s->fmt;
	struct s2_iter it = { .s = s };
	u64 old = 0, new;

	if (gfn.v >= s->max_gfn)
		return 0;
	grace_enter();
	iter_begin(&it, gfn.v, gfn.v + 1);
	while (it.level > level && on_table(&it))
		iter_down(&it);
	do {
		old = it.entry;
		if (it.level != level || !on_leaf(&it) || entry_pfn(fmt, old).v != pfn.v) {
			old = 0;
			break;
		}
		new = leaf_after(fmt, old, (s2_leaf_prot(fmt, old) & keep) | add);
		if (clear_accessed)
			new &= ~fmt->accessed;
	} while (new != old && iter_cas(&it, new));
	grace_leave();
	return old;
}

/* --- merge --- */

/* Give back what merge_freeze took from the first `count` entries. */
static void merge_thaw(struct s2_iter *it, u64 *entries, u64 merged, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		u64 old = entry_read(&entries[i]);
		u64 ad = old & hw_bits(it->s->fmt);
		u64 child = child_of(it->s->fmt, merged, it->level, i) | ad;
		u64 gfn = entry_first_gfn(it) + i * s2_level_frames(it->level - 1);

		if (entry_cas(it->s, &entries[i], gfn, it->level - 1, &old, child))
			MMU_WARN_ON(true); /* it was ours alone */
	}
}

/*
 * Freeze the children of the entry, which is frozen itself, as long as each is the child that
 * `merged` would have. Returns the A and D bits that they had together in *hw. If one differs, all
 * is as before and false comes back. Frozen children keep their own A and D bits, for merge_thaw.
 */
static bool merge_freeze(struct s2_iter *it, u64 *entries, u64 merged, u64 *hw)
{
	u64 ad = hw_bits(it->s->fmt);

	*hw = 0;
	for (u32 i = 0; i < ENTRIES; i++) {
		u64 gfn = entry_first_gfn(it) + i * s2_level_frames(it->level - 1);
		u64 old = entry_read(&entries[i]);

		do {
			if ((old & ~ad) != child_of(it->s->fmt, merged, it->level, i)) {
				merge_thaw(it, entries, merged, i);
				return false;
			}
		} while (entry_cas(it->s, &entries[i], gfn, it->level - 1, &old,
				   frozen_leaf(it->s->fmt, old) | (old & ad)));
		*hw |= old & ad;
	}
	return true;
}

/* The leaf that a table of these entries would make, without A and D; 0 if they don't make one. */
static u64 merged_leaf(const struct pt_format *fmt, const u64 *entries, u8 level)
{
	u64 first = entry_read(&entries[0]) & ~hw_bits(fmt);
	u64 merged = first | fmt->large_bit;

	if (!s2_is_leaf(fmt, first, level - 1) ||
	    (s2_entry_hpa(fmt, first).v >> PAGE_SHIFT) & (s2_level_frames(level) - 1))
		return 0;
	for (u32 i = 1; i < ENTRIES; i++) {
		if ((entry_read(&entries[i]) & ~hw_bits(fmt)) != child_of(fmt, merged, level, i))
			return 0;
	}
	return merged;
}

/*
 * The iterator stands on a table. The entry above is frozen first: from then on nobody else comes
 * in, and who is inside already fails on a frozen child or changes one before it freezes, which
 * ends the merge. The hardware can't set D in a child that is frozen, so what merge_freeze
 * harvested is all. A CPU with a stale translation to a clean child looks it up anew to set D.
 */
static int merge_table(struct s2_iter *it)
{
	const struct pt_format *fmt = it->s->fmt;
	u64 table_entry = it->entry, hw;
	hpa_t table = s2_entry_hpa(fmt, table_entry);
	u64 *entries = table_at(it->s, table, it->gfn, it->level - 1);
	u64 merged = entries ? merged_leaf(fmt, entries, it->level) : 0;
	int err = -EAGAIN;

	if (!entries)
		return -EUCLEAN;
	if (!merged || is_readonly(fmt, table_entry))
		return -EAGAIN;
	spin_lock(&rmap_moves);
	if (!iter_cas(it, FROZEN)) {
		if (merge_freeze(it, entries, merged, &hw)) {
			err = iter_cas(it, merged | hw);
			if (err)
				merge_thaw(it, entries, merged, ENTRIES);
		}
		if (err && iter_cas(it, table_entry))
			MMU_WARN_ON(true); /* a frozen entry was ours alone */
	}
	spin_unlock(&rmap_moves);
	if (err)
		return err;
	garbage_add(it->s, table);
	it->stale = true;
	return 0;
}

int stage2_merge(struct stage2 *s, gfn_t gfn, u8 level, struct flush_debt *debt)
{
	struct s2_iter it = { .s = s };
	int err = -EAGAIN;

	no_debt(s, debt);
	if (!range_ok(s, gfn.v, 1) || level < 2 || level > s->max_leaf)
		return trace_error(-EINVAL);
	change_begin(s);
	iter_begin(&it, gfn.v, gfn.v + 1);
	while (it.level > level && on_table(&it))
		iter_down(&it);
	if (on_leaf(&it))
		err = 0;
	else if (on_table(&it))
		err = merge_table(&it);
	else if (it.err)
		err = it.err;
	make_debt(&it, debt);
	change_end(s);
	return err;
}

/* --- look, end --- */

bool stage2_lookup(struct stage2 *s, gfn_t gfn, struct stage2_leaf *leaf)
{
	const struct pt_format *fmt = s->fmt;
	struct s2_iter it = { .s = s };
	u8 never = 0;

	*leaf = (struct stage2_leaf){ .gfn = gfn, .level = fmt->levels };
	if (gfn.v >= s->max_gfn)
		return false;
	grace_enter();
	iter_begin(&it, gfn.v, gfn.v + 1);
	for (; on_table(&it); iter_down(&it))
		never |= is_readonly(fmt, it.entry) ? S2_W : 0;
	grace_leave();

	leaf->gfn = GFN(ALIGN_DOWN(gfn.v, s2_level_frames(it.level)));
	leaf->level = it.level;
	leaf->entry = it.entry;
	if (!on_leaf(&it))
		return false;
	leaf->pfn = hpa_pfn(s2_entry_hpa(fmt, it.entry));
	leaf->prot = s2_leaf_prot(fmt, it.entry) & (u8)~never;
	leaf->memtype = s2_leaf_memtype(fmt, it.entry);
	leaf->accessed = it.entry & fmt->accessed;
	leaf->dirty = it.entry & fmt->dirty;
	return true;
}

void stage2_walk(struct stage2 *s, gfn_t gfn,
		 void (*visit)(void *arg, u8 level, hpa_t table, u32 index, u64 entry), void *arg)
{
	struct s2_iter it = { .s = s };
	hpa_t table = s->root;

	if (gfn.v >= s->max_gfn)
		return;
	grace_enter();
	for (iter_begin(&it, gfn.v, gfn.v + 1); !it.err; iter_down(&it)) {
		visit(arg, it.level, table, (u32)(it.slot - it.tables[it.level]), it.entry);
		if (!on_table(&it))
			break;
		table = s2_entry_hpa(s->fmt, it.entry);
	}
	grace_leave();
}

void stage2_debt_paid(struct flush_debt *debt)
{
	struct stage2 *s = debt->stage2;

	if (!debt->generation)
		return;
	DATA_CORRUPTION_ON(s, NO_GFN, rmap_log_settle(&debt->log));
	garbage_free(s, debt->generation);
	__atomic_fetch_sub(&s->unpaid, 1, __ATOMIC_RELAXED);
	debt->generation = 0;
}

void stage2_destroy(struct stage2 *s)
{
	if (!s->root.v)
		return; /* stage2_init found no memory for it */
	DATA_CORRUPTION_ON(s, NO_GFN, s->unpaid);
	drop_table(s, s->root, 0, s->fmt->levels);
	garbage_free(s, ~0ull);
	MMU_WARN_ON(s->tables || stage2_leaves(s, 1) || stage2_leaves(s, 2) || stage2_leaves(s, 3));
	s->root = HPA(0);
	stage2_forget(s);
}
