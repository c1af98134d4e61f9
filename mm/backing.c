/* SPDX-License-Identifier: MIT */
#include "mm/backing.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "mm/audit.h"
#include "mm/phys.h"
#include "mm/rmap.h"

#define TABLE_WORDS (EXTENT_SIZE / PAGE_SIZE)
#define GIB_PARTS   (u32)(GIB / EXTENT_SIZE)

struct spinlock backing_copying[BACKING_LOCKS] = { [0 ... BACKING_LOCKS - 1] =
							   SPINLOCK_INIT(RANK_BACKING) };

static u64 make_word(const void *memory, enum backing_state state)
{
	return (u64)(uintptr_t)memory | state;
}

static u64 word_read(const u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static bool word_cas(u64 *word, u64 old, enum backing_state state)
{
	return __atomic_compare_exchange_n(word, &old, (old & ~BACKING_STATE) | state, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* By who has it BUSY. */
static void word_set(u64 *word, enum backing_state state)
{
	__atomic_store_n(word, (word_read(word) & ~BACKING_STATE) | state, __ATOMIC_SEQ_CST);
}

static u64 *table_of(u64 word)
{
	return (u64 *)backing_memory(word);
}

static u64 level_size(u8 level)
{
	return level == 2 ? EXTENT_SIZE : PAGE_SIZE;
}

/* --- making and freeing --- */

/* Objects are as large as their words; 9: about 500 GiB. */
static u32 object_order(u64 parts)
{
	return frame_order(sizeof(struct backing) + parts * sizeof(u64));
}

/*
 * Memory of a word, nothing of which should be mapped: a part, or a page of a sparse object. What
 * that has may have come from a parent.
 */
static void free_memory(const struct backing *b, u64 word, u8 level)
{
	pfn_t f = hpa_pfn(ptr_hpa(backing_memory(word)));
	u16 owner = b->sparse ? frame_owner_peek(f).vm : b->owner;

	if (!backing_memory(word) || b->lost)
		return;
	if (level == 2 ? audit_unmapped(f) : !rmap_count(f))
		frame_free_order(f, level == 2 ? EXTENT_SHIFT - PAGE_SHIFT : 0, FRAME_GUEST, owner);
	else if (level == 1 || extent_quarantine(f, owner))
		log_warn("VM %u: memory is still mapped by another: it stays out of use", owner);
}

/* What the part's table has, and the table; the part itself is left. */
static void free_table(struct backing *b, u64 *word)
{
	u64 old = *word;

	if (backing_state(old) != BACKING_TABLE)
		return;
	for (u32 i = 0; b->sparse && i < TABLE_WORDS; i++)
		free_memory(b, table_of(old)[i], 1);
	*word = b->sparse ? make_word(NULL, BACKING_ZERO) : *table_of(old);
	frame_free(hpa_pfn(ptr_hpa(table_of(old))), FRAME_HEAP, VM_NONE);
}

/* A part becomes a table of pages in its state. 0 also if it is something else by now. */
static int split_part(u64 *part, u64 old)
{
	u64 *table = frame_alloc_zero(FRAME_HEAP, VM_NONE), step;

	step = backing_memory(old) ? PAGE_SIZE : 0;
	if (!table)
		return trace_error(-ENOMEM);
	for (u32 i = 0; i < TABLE_WORDS; i++)
		table[i] = make_word(backing_memory(old) + i * step, backing_state(old));
	if (!__atomic_compare_exchange_n(part, &old, make_word(table, BACKING_TABLE), false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		frame_free(hpa_pfn(ptr_hpa(table)), FRAME_HEAP, VM_NONE);
	return 0;
}

static int reserve(struct backing *b, u32 parts, enum backing_state state)
{
	for (u32 run; b->parts < parts; b->parts += run) {
		pfn_t f = PFN_NONE;

		run = b->parts % GIB_PARTS || parts - b->parts < GIB_PARTS ? 1 : GIB_PARTS;
		if (run > 1)
			f = extent_alloc(run, run, FRAME_GUEST, b->owner);
		if (!pfn_valid(f)) {
			run = 1;
			f = extent_alloc(1, 1, FRAME_GUEST, b->owner);
		}
		if (!pfn_valid(f))
			return trace_error(-ENOMEM);
		for (u32 i = 0; i < run; i++)
			b->words[b->parts + i] =
				make_word(pfn_ptr(PFN(f.v + (u64)i * EXTENT_FRAMES)), state);
	}
	return 0;
}

static u32 object_parts(u64 size)
{
	return (u32)(ALIGN_UP(size, EXTENT_SIZE) >> EXTENT_SHIFT);
}

static int object_alloc(u64 size, u16 owner, struct backing **out)
{
	pfn_t f = frame_alloc_order(object_order(object_parts(size)), FRAME_HEAP, VM_NONE);

	if (!pfn_valid(f))
		return trace_error(-ENOMEM);
	*out = pfn_ptr(f);
	memset(*out, 0, sizeof(**out));
	(*out)->size = size;
	(*out)->owner = owner;
	list_init(&(*out)->node);
	return 0;
}

static int check_size(u64 size)
{
	if (!size || size & ~PAGE_MASK)
		return trace_error(-EINVAL);
	if (size > BIT(18) * EXTENT_SIZE || object_order(object_parts(size)) > 9)
		return trace_error(-ENOSPC);
	return 0;
}

int backing_create(u64 size, u16 owner, bool zero, struct backing **out)
{
	int err = check_size(size);

	if (!err)
		err = object_alloc(size, owner, out);
	if (err)
		return err;
	err = reserve(*out, object_parts(size), zero ? BACKING_ZERO : BACKING_MISSING);
	while (err && backing_free_step(*out))
		;
	return err;
}

static int alloc_sparse(u64 size, u16 owner, enum backing_state state, struct backing **out)
{
	const u64 word = make_word(NULL, state);
	const u32 parts = object_parts(size);
	int err = object_alloc(size, owner, out);

	if (err)
		return err;
	(*out)->sparse = true;
	(*out)->parts = parts;
	for (u64 *w = (*out)->words; w < (*out)->words + parts; w++)
		*w = word;
	return 0;
}

int backing_sparse(u64 size, u16 owner, struct backing **out)
{
	int err = check_size(size);

	return err ? err : alloc_sparse(size, owner, BACKING_ZERO, out);
}

int backing_child(struct backing *parent, u16 owner, struct backing **out)
{
	u32 line = parent->users > 1;
	int err;

	for (const struct backing *b = parent->parent; b; b = b->parent)
		line += b->users > 1;
	if (line > BACKING_LINE_MAX)
		return trace_error(-ENOSPC);
	err = alloc_sparse(parent->size, owner, BACKING_INHERITED, out);
	if (err)
		return err;
	(*out)->parent = parent;
	__atomic_fetch_add(&parent->users, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int backing_fork(struct backing **b, u16 owner, struct backing **clone)
{
	struct backing *old = *b, *own;
	/* What has written nothing since it was forked is no parent: its own is as good. */
	bool parent = old->own || !old->parent;
	int err = backing_child(parent ? old : old->parent, owner, clone);

	if (err)
		return err;
	(*clone)->users = 1;
	if (!parent)
		return 0;
	err = backing_child(old, owner, &own);
	if (err) {
		while (backing_put_step(clone))
			;
		return err;
	}
	own->users = 1;
	*b = own;
	backing_freeze(old);
	(void)backing_put_step(&old); /* it has its children */
	return 0;
}

static void swap(u64 *a, u64 *b)
{
	u64 was = *a;

	*a = *b;
	*b = was;
}

/* What *b inherits of a part goes over to it. -ENOMEM: not all. */
static int merge_part(struct backing *b, struct backing *parent, u32 i)
{
	u64 *mine = &b->words[i], *theirs = &parent->words[i];

	if (backing_state(*mine) == BACKING_INHERITED)
		swap(mine, theirs);
	if (backing_state(*mine) != BACKING_TABLE || backing_state(*theirs) == BACKING_INHERITED)
		return 0;
	if (backing_state(*theirs) != BACKING_TABLE && split_part(theirs, *theirs))
		return -ENOMEM;
	for (u32 k = 0; k < TABLE_WORDS; k++)
		if (backing_state(table_of(*mine)[k]) == BACKING_INHERITED)
			swap(&table_of(*mine)[k], &table_of(*theirs)[k]);
	return 0;
}

void backing_freeze(struct backing *b)
{
	struct backing *parent;

	list_del(&b->node);
	b->vm = NULL;
	b->frozen = true;
	while ((parent = b->parent) && parent->users == 1) {
		for (u32 i = 0; i < b->parts; i++)
			if (merge_part(b, parent, i))
				return; /* it still has the rest */
		b->parent = parent->parent;
		b->lost |= parent->lost;
		parent->sparse = true; /* what is left are words of their own */
		while (backing_free_step(parent))
			;
	}
}

bool backing_free_step(struct backing *b)
{
	u32 keep = b->parts ? ALIGN_DOWN(b->parts - 1, GIB_PARTS) : 0;

	while (b->parts > keep) {
		u64 *word = &b->words[--b->parts];

		if (b->sparse && backing_state(*word) == BACKING_TABLE)
			keep = b->parts;
		free_table(b, word);
		free_memory(b, *word, 2);
	}
	if (b->parts)
		return true;
	frame_free_order(hpa_pfn(ptr_hpa(b)), object_order(object_parts(b->size)), FRAME_HEAP,
			 VM_NONE);
	return false;
}

bool backing_put_step(struct backing **b)
{
	struct backing *object = *b, *parent = object ? object->parent : NULL;

	if (!object || (object->users && __atomic_sub_fetch(&object->users, 1, __ATOMIC_SEQ_CST))) {
		*b = NULL;
		return false;
	}
	list_del(&object->node);
	if (!backing_free_step(object))
		*b = parent;
	return true;
}

void backing_reset(struct backing *b, bool zero)
{
	const struct backing_source *s = b->source;

	for (u32 i = 0; i < b->parts; i++) {
		u64 at = (u64)i << EXTENT_SHIFT;
		bool missing = !b->sparse && (!zero || (s && at >= s->from && at < s->to));

		free_table(b, &b->words[i]);
		word_set(&b->words[i], missing ? BACKING_MISSING : BACKING_ZERO);
	}
	b->parent = NULL;
}

/* --- contents --- */

u64 *backing_word(const struct backing *b, u64 offset, u8 *level)
{
	const u64 *part = &b->words[offset >> EXTENT_SHIFT];
	u64 word = word_read(part);

	*level = backing_state(word) == BACKING_TABLE ? 1 : 2;
	return *level == 2 ? (u64 *)part
			   : &table_of(word)[offset >> PAGE_SHIFT & (TABLE_WORDS - 1)];
}

u64 backing_touch(u64 *word, u8 level, bool missing_is_zero)
{
	u64 old;
	u8 state;

	for (;;) {
		old = word_read(word);
		state = backing_state(old);
		if (!backing_memory(old))
			return old;
		if (state == BACKING_ZERO || (state == BACKING_MISSING && missing_is_zero)) {
			if (!word_cas(word, old, BACKING_CLEARING))
				continue;
			memset(backing_memory(old), 0, level_size(level));
			word_set(word, BACKING_PRESENT);
		} else if (state != BACKING_CLEARING) {
			return old;
		} else {
			/* The other CPU may want something from us (DESIGN: who spins polls). */
			spin_wait();
		}
	}
}

u64 *backing_find(struct backing **b, u64 offset, u8 *level, u8 *piece)
{
	u64 *word = backing_word(*b, offset, level);

	*piece = *level;
	while (backing_state(word_read(word)) == BACKING_INHERITED) {
		*b = (*b)->parent;
		word = backing_word(*b, offset, level);
		*piece = MIN(*piece, *level);
	}
	return word;
}

/* What a page of the object is to begin with; NULL: zeros. */
static const u8 *inherited(struct backing *b, u64 offset)
{
	u8 level, piece;
	u64 *at = backing_find(&b, offset, &level, &piece), word = backing_touch(at, level, false);

	return backing_memory(word)
		       ? backing_memory(word) + ALIGN_DOWN(offset % level_size(level), PAGE_SIZE)
		       : NULL;
}

/* What it is copied from never changes, so nobody need wait for the copy. */
static int copy_page(struct backing *b, u64 offset, u64 *word, u64 old)
{
	bool copied = backing_state(old) == BACKING_INHERITED, done;
	const u8 *from = copied ? inherited(b, offset) : NULL;
	pfn_t f = frame_alloc(FRAME_GUEST, b->owner);

	if (!pfn_valid(f))
		return trace_error(-ENOMEM);
	if (from)
		memcpy(pfn_ptr(f), from, PAGE_SIZE);
	else
		memset(pfn_ptr(f), 0, PAGE_SIZE);
	spin_lock(backing_lock(b, offset));
	done = __atomic_compare_exchange_n(
		word, &old, make_word(pfn_ptr(f), copied ? BACKING_COPIED : BACKING_PRESENT), false,
		__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	spin_unlock(backing_lock(b, offset));
	if (!done)
		frame_free(f, FRAME_GUEST, b->owner);
	return 0;
}

int backing_own(struct backing *b, u64 offset)
{
	u64 *word, old;
	int err = 0;
	u8 level;

	__atomic_store_n(&b->own, true, __ATOMIC_RELAXED);
	do {
		word = backing_word(b, offset, &level);
		old = word_read(word);
		if (backing_memory(old) && backing_state(old) != BACKING_TABLE)
			return backing_state(old) == BACKING_COPIED;
		if (level == 1)
			err = copy_page(b, offset, word, old);
		else if (backing_state(old) != BACKING_TABLE)
			err = split_part(word, old);
	} while (!err);
	return err;
}

void backing_owned(struct backing *b, u64 offset)
{
	u8 level;
	u64 *word = backing_word(b, offset, &level), old = word_read(word);

	if (backing_state(old) == BACKING_COPIED)
		(void)word_cas(word, old, BACKING_PRESENT);
}

bool backing_inherits(const struct backing *b, u64 offset, u8 level)
{
	u8 there;
	u64 word = word_read(backing_word(b, offset, &there));

	return backing_state(word) == BACKING_INHERITED && there >= level;
}

static enum backing_state filled(enum backing_fill how)
{
	switch (how) {
	case FILL_ZERO:
		return BACKING_ZERO;
	case FILL_POISON:
		return BACKING_POISON;
	case FILL_READONLY:
		return BACKING_READONLY;
	default:
		return BACKING_PRESENT;
	}
}

/* One word that is as FILL_* wants it. False: somebody was faster. */
static bool fill_word(u64 *word, u64 old, u8 level, enum backing_fill how, const void *from)
{
	if (how != FILL_COPY && how != FILL_READONLY)
		return word_cas(word, old, filled(how));
	if (!word_cas(word, old, BACKING_CLEARING))
		return false;
	if (how == FILL_COPY && from)
		memcpy(backing_memory(old), from, level_size(level));
	else
		memset(backing_memory(old), 0, level_size(level));
	word_set(word, filled(how));
	return true;
}

/* How much of the range the word at its start stands for; a part is whole up to the object's end.
 */
static u64 word_span(const struct backing *b, u64 offset, u8 level)
{
	return MIN(level_size(level) - offset % level_size(level), b->size - offset);
}

int backing_fill(struct backing *b, u64 offset, u64 size, enum backing_fill how, const void *from)
{
	u64 end = offset + size, n;
	bool changed = false, busy = false;

	for (u64 at = offset; at < end; at += n) {
		u8 level, state;
		u64 *word = backing_word(b, at, &level), old = word_read(word);

		state = backing_state(old);
		n = MIN(word_span(b, at, level), end - at);
		if (state == BACKING_TABLE) {
			n = 0; /* it was split just now */
			continue;
		}
		busy |= state == BACKING_FETCHING;
		if (state != (how == FILL_WRITABLE ? BACKING_READONLY : BACKING_MISSING))
			continue;
		/* The last part is shorter than its memory: copied in pages. */
		if (level == 2 && (n < word_span(b, at, 2) || at % EXTENT_SIZE ||
				   (how == FILL_COPY && n < EXTENT_SIZE))) {
			if (b->source && b->source->piece > PAGE_SIZE)
				return -EOPNOTSUPP;
			if (split_part(word, old))
				return -ENOMEM;
			n = 0;
		} else if (fill_word(word, old, level, how,
				     from ? (const u8 *)from + (at - offset) : NULL)) {
			changed = true;
		} else {
			n = 0;
		}
	}
	return changed ? 0 : busy ? -EBUSY : -EEXIST;
}

static u64 *fetch_word(struct backing *b, const struct backing_fetch *f)
{
	u8 level;

	return backing_word(b, f->offset, &level);
}

static int fetch_begin(struct backing *b, u64 offset, struct backing_fetch *f)
{
	u8 want = b->source->piece == PAGE_SIZE ? 1 : 2, level;
	u64 *word, old;

	for (;;) {
		word = backing_word(b, offset, &level);
		old = word_read(word);
		if (backing_state(old) == BACKING_FETCHING)
			return -EBUSY;
		if (backing_state(old) == BACKING_TABLE)
			continue;
		if (backing_state(old) != BACKING_MISSING)
			return -EEXIST;
		if (level > want) {
			if (split_part(word, old))
				return -ENOMEM;
		} else if (word_cas(word, old, BACKING_FETCHING)) {
			break;
		}
	}
	__atomic_fetch_add(&b->users, 1, __ATOMIC_SEQ_CST);
	*f = (struct backing_fetch){ .offset = ALIGN_DOWN(offset, level_size(level)),
				     .to = backing_memory(old) };
	f->size = word_span(b, f->offset, level);
	return 0;
}

static void fetch_end(struct backing *b, struct backing_fetch *f, enum backing_state state)
{
	word_set(fetch_word(b, f), state);
	f->to = NULL;
	__atomic_fetch_sub(&b->users, 1, __ATOMIC_SEQ_CST);
}

int backing_fetch(struct backing *b, u64 offset, struct backing_fetch *f)
{
	int err = f->to ? 0 : fetch_begin(b, offset, f);

	if (!err)
		err = b->source->fetch(b->source, f);
	else
		return err;
	if (err != -EAGAIN)
		fetch_end(b, f, err ? BACKING_MISSING : BACKING_PRESENT);
	if (!err)
		__atomic_fetch_add(&b->fetched, 1, __ATOMIC_RELAXED);
	return err;
}

void backing_fetch_drop(struct backing *b, struct backing_fetch *f)
{
	if (f->to)
		fetch_end(b, f, BACKING_MISSING);
}
