/* SPDX-License-Identifier: MIT */
/* The audit of tables and reverse map: mm/audit.h says what it compares. */
#include "mm/audit.h"
#include "lib/assert.h"
#include "lib/grace.h"
#include "lib/printf.h"
#include "mm/rmap_first.h"
#include "mm/stage2_entry.h"

#define PATIENCE 100 /* looks at something that may be on its way, before it is a finding */

static const char *const kind_names[AUDIT_KINDS] = {
	[AUDIT_ENTRY] = "bad-entry",
	[AUDIT_LEAF_NO_KEY] = "leaf-without-key",
	[AUDIT_LEAF_OWNER] = "leaf-of-foreign-frame",
	[AUDIT_TABLE_OWNER] = "table-in-foreign-frame",
	[AUDIT_TABLE_ROLE] = "table-in-wrong-role",
	[AUDIT_TABLE_LIVE] = "table-count",
	[AUDIT_LEAF_COUNT] = "leaf-count",
	[AUDIT_KEY_NO_LEAF] = "key-without-leaf",
	[AUDIT_KEY_NO_VM] = "key-without-vm",
	[AUDIT_KEY_TWICE] = "key-twice",
	[AUDIT_KEY_COUNT] = "key-count",
	[AUDIT_KEY_DEBT] = "key-without-debt",
	[AUDIT_KEY_FREED] = "key-of-freed-memory",
};

const char *audit_kind_name(enum audit_kind kind)
{
	return (u32)kind < AUDIT_KINDS ? kind_names[kind] : "?";
}

static void report(struct audit *a, const struct audit_finding *f)
{
	static bool seen[AUDIT_KINDS];

	a->findings++;
	a->report(a->arg, f);
	if (f->stage2)
		stage2_corrupted(f->stage2, f->gfn.v, kind_names[f->kind], "audit", f->level,
				 &seen[f->kind]);
}

static bool in_quarantine(const struct stage2 *s)
{
	return frame_owner_peek(hpa_pfn(s->root)).kind == FRAME_QUARANTINE;
}

/* --- forward --- */

/* One VM's walk. The lock of the last leaf's keys is kept while the next leaf has the same one. */
struct forward {
	struct audit *a;
	struct stage2 *s;
	struct rmap_op op;
	/* Of that lock's extent, if all of it is guest memory: the sets of its frames. */
	const u64 *sets;
	u64 sets_of; /* number of the extent */
	u64 leaves[5];
	u64 sound[4];  /* a leaf of the level that was looked at, without address and A and D */
	bool readonly; /* an entry on the way to the table says so */
};

static void found(struct forward *f, enum audit_kind kind, u8 level, u64 gfn, pfn_t pfn, u64 seen,
		  u64 expected)
{
	struct audit_finding finding = { .kind = kind,
					 .stage2 = f->s,
					 .level = level,
					 .gfn = GFN(gfn),
					 .pfn = pfn,
					 .seen = seen,
					 .expected = expected };

	rmap_unlock(&f->op);
	report(f->a, &finding);
}

static u64 owner_value(u8 kind, u16 vm)
{
	return (u64)vm << 8 | kind;
}

/* Whose the first frame of the leaf is that the VM may not map, or write; 0: there is none. */
static u64 foreign_owner(const struct stage2 *s, pfn_t pfn, u8 level, bool readonly)
{
	u64 count = s2_level_frames(level);

	for (u64 i = 0; i < count; i++) {
		pfn_t at = PFN(pfn.v + i);
		struct frame_owner owner = frame_owner_peek(at);

		if ((owner.kind != FRAME_GUEST && owner.kind != FRAME_QUARANTINE) ||
		    (s->env->private_frames && owner.vm != s->owner &&
		     !(owner.vm == VM_NONE || (readonly && frames_shared(owner.vm)))))
			return owner_value(owner.kind, owner.vm);
		if (!extent_of(at)->heads)
			i |= EXTENT_FRAMES - 1;
	}
	return 0;
}

/* Is it made of an aligned address, permissions and a memory type that the format has? */
static bool leaf_sound(struct forward *f, u8 level, u64 entry)
{
	const struct pt_format *fmt = f->s->fmt;
	u64 rest = entry & ~(fmt->addr_mask | hw_bits(fmt));

	if (entry_pfn(fmt, entry).v & (s2_level_frames(level) - 1))
		return false;
	if (likely(rest == f->sound[level]))
		return true;
	if (!s2_leaf_prot(fmt, rest) || s2_leaf_memtype(fmt, rest) == S2_MEMTYPES ||
	    rest != ((rest & (fmt->prot_mask | fmt->memtype_mask)) |
		     (level > 1 ? fmt->large_bit : 0)))
		return false;
	f->sound[level] = rest;
	return true;
}

/* Under the lock of its keys: the leaf that stands in *slot, if it still does. */
static void check_leaf(struct forward *f, const u64 *slot, u8 level, u64 gfn, u64 entry)
{
	const struct pt_format *fmt = f->s->fmt;
	pfn_t pfn = entry_pfn(fmt, entry);
	u64 key = leaf_key(f->s, gfn, level), owner;

	if (!leaf_sound(f, level, entry)) {
		found(f, AUDIT_ENTRY, level, gfn, pfn, entry, 0);
		return;
	}
	f->sets = NULL;
	if (!rmap_move(&f->op, pfn, level)) { /* device memory */
		f->a->keyless = true;
		if (f->s->env->private_frames)
			found(f, AUDIT_LEAF_OWNER, level, gfn, pfn, owner_value(FRAME_NONE, 0),
			      owner_value(FRAME_GUEST, f->s->vm));
		return;
	}
	if (unlikely(!rmap_has(&f->op, key))) {
		entry = entry_read(slot);
		if (s2_is_leaf(fmt, entry, level) && entry_pfn(fmt, entry).v == pfn.v &&
		    !rmap_has(&f->op, key | RMAP_NEW))
			found(f, AUDIT_LEAF_NO_KEY, level, gfn, pfn, entry, key);
		return;
	}
	owner = foreign_owner(f->s, pfn, level, f->readonly || is_readonly(fmt, entry));
	if (owner)
		found(f, AUDIT_LEAF_OWNER, level, gfn, pfn, owner,
		      owner_value(FRAME_GUEST, f->s->vm));
	else if (level == 1 && !f->op.e->heads)
		f->sets = pfn_ptr(PFN(f->op.e->keys));
	f->sets_of = pfn.v / EXTENT_FRAMES;
}

/* What most leaves are: as the last one, of the same extent, and their frame's only one. */
static inline bool plain_leaf(const struct forward *f, u64 key, u8 level, u64 entry)
{
	const struct pt_format *fmt = f->s->fmt;
	u64 pfn = entry_pfn(fmt, entry).v;

	return level == 1 && f->op.e && f->sets && pfn / EXTENT_FRAMES == f->sets_of &&
	       (entry & ~(fmt->addr_mask | hw_bits(fmt))) == f->sound[1] &&
	       f->sets[pfn % EXTENT_FRAMES] == key;
}

static u32 count_present(const struct pt_format *fmt, const u64 *entries)
{
	u32 count = 0;

	for (u32 i = 0; i < ENTRIES; i++)
		count += s2_present(fmt, entry_read(&entries[i]));
	return count;
}

/* Entry and count change one after the other: only what stays different is a finding. */
static void check_live(struct forward *f, const u64 *entries, u8 level, u64 gfn, pfn_t table)
{
	const struct s2_table *t = f->s->env->table_desc(f->s, entries);
	u32 present = count_present(f->s->fmt, entries), said = READ_ONCE(t->live);

	for (u32 i = 0; i < PATIENCE && present != said; i++) {
		spin_wait();
		said = READ_ONCE(t->live);
		present = count_present(f->s->fmt, entries);
	}
	if (present != said)
		found(f, AUDIT_TABLE_LIVE, level, gfn, table, present, said);
}

/* Recursion is as deep as there are levels. What is not a table of this VM is not looked into. */
static void check_table(struct forward *f, hpa_t table, u8 level, u64 gfn)
{
	const struct pt_format *fmt = f->s->fmt;
	struct frame_owner owner = frame_owner_peek(hpa_pfn(table));
	const u64 *entries;
	bool readonly = f->readonly;
	u64 key = leaf_key(f->s, gfn, level), frames_ = s2_level_frames(level), leaves = 0;

	f->a->tables++;
	if (owner.kind != FRAME_STAGE2 || owner.vm != f->s->vm) {
		found(f, AUDIT_TABLE_OWNER, level, gfn, hpa_pfn(table),
		      owner_value(owner.kind, owner.vm), owner_value(FRAME_STAGE2, f->s->vm));
		return;
	}
	entries = table_find(f->s, table, gfn, level);
	if (!entries) {
		found(f, AUDIT_TABLE_ROLE, level, gfn, hpa_pfn(table), level, 0);
		return;
	}
	for (u32 i = 0; i < ENTRIES; i++, key += frames_ << RMAP_GFN_SHIFT) {
		u64 entry = entry_read(&entries[i]), at = gfn + i * frames_;

		if (s2_is_leaf(fmt, entry, level)) {
			leaves++;
			if (!plain_leaf(f, key, level, entry))
				check_leaf(f, &entries[i], level, at, entry);
		} else if (s2_is_table(fmt, entry, level)) {
			if (level > 1 && ((entry & ~(fmt->addr_mask | hw_bits(fmt))) |
					  s2_write_bit(fmt)) == fmt->table_bits) {
				f->readonly = readonly || is_readonly(fmt, entry);
				check_table(f, s2_entry_hpa(fmt, entry), level - 1, at);
				f->readonly = readonly;
			} else {
				found(f, AUDIT_ENTRY, level, at, PFN_NONE, entry, 0);
			}
		} else if (entry && !is_frozen(fmt, entry)) {
			found(f, AUDIT_ENTRY, level, at, PFN_NONE, entry, 0);
		}
	}
	rmap_unlock(&f->op);
	f->leaves[level] += leaves;
	check_live(f, entries, level, gfn, hpa_pfn(table));
}

/* A running VM's counts are only compared if they stand still. */
static void check_counts(struct forward *f, const u64 *before, u64 generation)
{
	bool still = generation == READ_ONCE(f->s->generation) && !READ_ONCE(f->s->changing);

	for (u8 level = 1; level <= 3; level++) {
		u64 now = stage2_leaves(f->s, level);

		f->a->leaves += f->leaves[level];
		if (still && now == before[level] && now != f->leaves[level])
			found(f, AUDIT_LEAF_COUNT, level, 0, PFN_NONE, f->leaves[level], now);
	}
}

static void audit_forward(struct audit *a, struct stage2 *s)
{
	struct forward f = { .a = a, .s = s };
	u64 before[4], generation = READ_ONCE(s->changing) ? ~0ull : READ_ONCE(s->generation);

	for (u8 level = 1; level <= 3; level++)
		before[level] = stage2_leaves(s, level);
	grace_enter();
	check_table(&f, s->root, s->fmt->levels, 0);
	grace_leave();
	check_counts(&f, before, generation);
}

/* --- backward --- */

struct backward {
	struct audit *a;
	const u64 *set;
	u64 count;
	pfn_t first;
	bool again; /* something was on its way: look at this extent once more */
	struct audit_finding finding;
	bool found;
};

/* What is wrong with the key, or AUDIT_KINDS. Under the lock of its set. */
static enum audit_kind judge(struct backward *b, u64 key, struct stage2 *s, u64 *expected)
{
	struct stage2_leaf leaf;

	/* what a corrupt VM leaves stays, with its keys */
	if (!s)
		return vm_was_corrupt(rmap_vm(key)) ? AUDIT_KINDS : AUDIT_KEY_NO_VM;
	if (in_quarantine(s))
		return AUDIT_KINDS;
	/* What changes it can't end while we hold the lock, nor can the payment of its debt. */
	if (__atomic_load_n(&s->changing, __ATOMIC_SEQ_CST)) {
		b->again = true;
		return AUDIT_KINDS;
	}
	if (key & RMAP_OLD)
		return __atomic_load_n(&s->unpaid, __ATOMIC_SEQ_CST) ? AUDIT_KINDS : AUDIT_KEY_DEBT;
	if (stage2_lookup(s, rmap_gfn(key), &leaf) && leaf.level == rmap_level(key) &&
	    leaf.pfn.v == b->first.v && leaf.gfn.v == rmap_gfn(key).v)
		return rmap_set_times(b->set, key) > 1 ? AUDIT_KEY_TWICE : AUDIT_KINDS;
	*expected = leaf.entry;
	/* It began in between; a merge may also be over again. */
	if (__atomic_load_n(&s->changing, __ATOMIC_SEQ_CST) || is_frozen(s->fmt, leaf.entry)) {
		b->again = true;
		return AUDIT_KINDS;
	}
	return AUDIT_KEY_NO_LEAF;
}

static bool check_key(void *arg, u64 key)
{
	struct backward *b = arg;
	struct stage2 *s = stage2_find(rmap_vm(key), rmap_root(key));
	u64 expected = 0;
	enum audit_kind kind;

	b->count++;
	if (b->a->only && s != b->a->only)
		return true;
	kind = judge(b, key, s, &expected);
	if (kind == AUDIT_KINDS)
		return true;
	b->found = true;
	b->finding = (struct audit_finding){ .kind = kind,
					     .stage2 = s,
					     .level = rmap_level(key),
					     .gfn = rmap_gfn(key),
					     .pfn = b->first,
					     .seen = key,
					     .expected = expected };
	return false;
}

/* Each key of the set, and how many there are. False at the first finding. */
static bool check_set(struct backward *b, const u64 *set, pfn_t first)
{
	b->first = first;
	b->set = set;
	return rmap_set_for_each(set, check_key, b);
}

static bool check_sets(struct backward *b, struct extent *e, pfn_t first)
{
	const u64 *page = e->keys ? pfn_ptr(PFN(e->keys)) : NULL;

	if (!check_set(b, &e->gib, first) || !check_set(b, &e->large, first))
		return false;
	b->count = 0;
	for (u32 i = 0; page && i < EXTENT_FRAMES; i++) {
		if (page[i] && !check_set(b, &page[i], PFN(first.v + i)))
			return false;
	}
	if (b->count == e->small_keys || frame_owner_peek(first).kind == FRAME_QUARANTINE)
		return true;
	b->found = true;
	b->finding = (struct audit_finding){ .kind = AUDIT_KEY_COUNT,
					     .pfn = first,
					     .level = 1,
					     .seen = b->count,
					     .expected = e->small_keys };
	return false;
}

struct blame {
	struct stage2 *s;
	bool has;
};

static bool has_mapping(void *arg, u64 key)
{
	struct blame *b = arg;

	b->has |= rmap_vm(key) == b->s->vm && rmap_root(key) == b->s->root_id;
	return !b->has;
}

/* Whose the damage is can't be told: every VM that maps something of the extent. */
static void blame_all(pfn_t pfn, enum audit_kind kind)
{
	static bool seen;
	struct extent *e = extent_of(pfn), *gib = extent_for(pfn, 3);
	struct blame b;
	char what[64];

	fmt_snprintf(what, sizeof(what), "%s, pfn %#lx", kind_names[kind], pfn.v);
	for (u32 i = 0; (b.s = stage2_nth(i)); i++) {
		b.has = false;
		spin_lock(&gib->lock);
		rmap_set_for_each(&gib->gib, has_mapping, &b);
		spin_unlock(&gib->lock);
		spin_lock(&e->lock);
		rmap_set_for_each(&e->large, has_mapping, &b);
		for (u32 k = 0; e->keys && k < EXTENT_FRAMES; k++)
			rmap_set_for_each((u64 *)pfn_ptr(PFN(e->keys)) + k, has_mapping, &b);
		spin_unlock(&e->lock);
		if (b.has)
			stage2_corrupted(b.s, NO_GFN, what, "audit", 0, &seen);
	}
}

bool audit_unmapped(pfn_t pfn)
{
	bool used = rmap_extent_used(pfn);

	if (used)
		blame_all(pfn, AUDIT_KEY_FREED);
	return !used;
}

/* The first finding of an extent; the others are found when that one is mended. */
static void check_extent(struct audit *a, struct extent *e)
{
	pfn_t first = PFN((u64)(e - frames.extents) * EXTENT_FRAMES);
	struct backward b;
	u32 tries = 0;

	do {
		b = (struct backward){ .a = a };
		if (tries)
			spin_wait();
		spin_lock(&e->lock);
		(void)check_sets(&b, e, first);
		spin_unlock(&e->lock);
	} while (b.again && !b.found && ++tries < PATIENCE);
	if (!b.found)
		return;
	report(a, &b.finding);
	if (!b.finding.stage2)
		blame_all(b.finding.pfn, b.finding.kind);
}

/* Keys of an extent whose sets are plain: one mapper each, none waits. False: they are not. */
static bool count_plain(struct extent *e, u64 *keys)
{
	const u64 *page;
	u64 small = 0, all;

	spin_lock(&e->lock);
	all = e->gib | e->large;
	*keys += (e->gib != 0) + (e->large != 0);
	page = e->keys ? pfn_ptr(PFN(e->keys)) : NULL;
	for (u32 i = 0; page && i < EXTENT_FRAMES; i++) {
		small += page[i] != 0;
		all |= page[i];
	}
	if (small != e->small_keys)
		all |= RMAP_OLD; /* not plain */
	spin_unlock(&e->lock);
	*keys += small;
	return !(all & RMAP_FLAGS & ~RMAP_KEY);
}

/*
 * If every leaf has its key, and there are no more keys than leaves, every key has its leaf: then a
 * count is enough. Otherwise each key is looked at.
 */
static void audit_backward(struct audit *a, u64 leaves)
{
	bool plain = true;

	for (u64 i = 0; i < frames.extent_count; i++) {
		plain &= count_plain(&frames.extents[i], &a->keys);
	}
	if (plain && a->keys == leaves && !a->findings && !a->keyless)
		return;
	for (u64 i = 0; i < frames.extent_count; i++) {
		check_extent(a, &frames.extents[i]);
	}
}

void audit_run(struct audit *a)
{
	struct stage2 *s;
	u64 leaves = 0;

	a->tables = a->leaves = a->keys = a->findings = 0;
	a->keyless = false;
	for (u32 i = 0; (s = stage2_nth(i)); i++) {
		if ((!a->only || s == a->only) && !in_quarantine(s))
			audit_forward(a, s);
		for (u8 level = 1; level <= 3; level++)
			leaves += stage2_leaves(s, level);
	}
	audit_backward(a, leaves);
}
