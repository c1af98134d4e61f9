/* SPDX-License-Identifier: MIT */
/* The reverse map: mm/rmap.h has the picture and the order. */
#include "mm/rmap.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/rmap_first.h"

bool rmap_tracks(pfn_t pfn)
{
	return frame_owner_peek(pfn).kind != FRAME_NONE;
}

bool rmap_lock(struct rmap_op *op, pfn_t pfn, u8 level)
{
	struct extent *e = extent_for(pfn, level);

	op->e = NULL;
	if (!e)
		return false;
	spin_lock(&e->lock);
	op->owner = owner_in(extent_of(pfn), pfn);
	if (unlikely(op->owner.kind == FRAME_NONE)) {
		spin_unlock(&e->lock);
		return false;
	}
	op->e = e;
	op->pfn = pfn;
	op->level = level;
	op->reserve = (struct rmap_reserve){ 0 };
	return true;
}

void rmap_unlock(struct rmap_op *op)
{
	if (!op->e)
		return;
	spin_unlock(&op->e->lock);
	op->e = NULL;
	if (unlikely(op->reserve.nodes || op->reserve.pages))
		rmap_reserve_empty(&op->reserve);
}

bool rmap_move(struct rmap_op *op, pfn_t pfn, u8 level)
{
	if (!op->e || op->e != extent_for(pfn, level)) {
		rmap_unlock(op);
		return rmap_lock(op, pfn, level);
	}
	op->owner = owner_in(extent_of(pfn), pfn);
	op->pfn = pfn;
	op->level = level;
	if (unlikely(op->owner.kind == FRAME_NONE))
		rmap_unlock(op);
	return op->e;
}

int rmap_refill(struct rmap_op *op)
{
	int err;

	spin_unlock(&op->e->lock);
	err = rmap_reserve_fill(&op->reserve);
	spin_lock(&op->e->lock);
	return err;
}

static int attach_page(struct rmap_op *op)
{
	u64 *page = rmap_reserve_page(&op->reserve);

	if (!page)
		return -EAGAIN;
	op->e->keys = hpa_pfn(ptr_hpa(page)).v;
	return 0;
}

/* The page of sets goes with the last key in it. */
static void count_small(struct rmap_op *op, s32 more)
{
	struct extent *e = op->e;

	if (op->level != 1)
		return;
	e->small_keys += (u32)more;
	if (e->small_keys)
		return;
	rmap_reserve_put_page(&op->reserve, pfn_ptr(PFN(e->keys)));
	e->keys = 0;
}

int rmap_insert(struct rmap_op *op, u64 key)
{
	struct extent *e = op->e;
	int err = 0;
	u64 *set;

	if (op->owner.kind != FRAME_GUEST)
		return trace_error(-EPERM);
	if (op->level == 1 && !e->keys)
		err = attach_page(op);
	if (err)
		return err;
	set = set_of(e, op->pfn, op->level);
	if (likely(!*set))
		*set = key;
	else
		err = rmap_set_add(set, key, &op->reserve);
	if (!err)
		count_small(op, 1);
	return err;
}

void rmap_first_undo(struct extent *e, pfn_t pfn, u8 level)
{
	struct rmap_op op = { .e = e, .pfn = pfn, .level = level };

	*set_of(e, pfn, level) = 0;
	count_small(&op, -1);
	rmap_unlock(&op);
}

int rmap_delete(struct rmap_op *op, u64 key)
{
	u64 *set = set_of(op->e, op->pfn, op->level);

	if (!set || !rmap_set_remove(set, key, &op->reserve))
		return trace_error(-ENOENT);
	count_small(op, -1);
	return 0;
}

bool rmap_has(struct rmap_op *op, u64 key)
{
	u64 *set = set_of(op->e, op->pfn, op->level);

	return set && (*set == key || rmap_set_find(set, key));
}

int rmap_replace(struct rmap_op *op, u64 from, u64 to)
{
	u64 *set = set_of(op->e, op->pfn, op->level);
	u64 *at = set ? rmap_set_find(set, from) : NULL;

	if (!at)
		return -ENOENT;
	*at = to;
	return 0;
}

u32 rmap_run(struct rmap_op *op, u64 from, u64 to, u32 count)
{
	u64 next = 1ull << RMAP_GFN_SHIFT, *set = set_of(op->e, op->pfn, op->level);
	u64 from_next = from ? next : 0, to_next = to ? next : 0;
	u32 n = 0;

	/* All frames have the owner of the first. */
	if (!set || op->level != 1 || op->e->heads || op->owner.kind != FRAME_GUEST)
		return 0;
	count = MIN(count, EXTENT_FRAMES - op->pfn.v % EXTENT_FRAMES);
	for (; n < count && set[n] == from; n++, from += from_next, to += to_next)
		set[n] = to;
	count_small(op, (to_next ? (s32)n : 0) - (from_next ? (s32)n : 0));
	return n;
}

int rmap_remove(pfn_t pfn, u64 key)
{
	struct rmap_op op;
	int err;

	if (!rmap_lock(&op, pfn, rmap_level(key)))
		return 0;
	err = rmap_delete(&op, key);
	rmap_unlock(&op);
	return err;
}

/* --- the log --- */

#define PAGE_GONE ((PAGE_SIZE - 2 * sizeof(u64)) / sizeof(struct rmap_gone))

struct rmap_log_page {
	struct rmap_log_page *next;
	u64 count;
	struct rmap_gone gone[PAGE_GONE];
};
_Static_assert(sizeof(struct rmap_log_page) <= PAGE_SIZE, "a page");

static void log_free_page(struct rmap_log *log)
{
	struct rmap_log_page *page = log->pages;

	log->pages = page->next;
	frame_free(hpa_pfn(ptr_hpa(page)), FRAME_META, VM_NONE);
}

int rmap_log_reserve(struct rmap_log *log, u64 count)
{
	log->count = 0;
	log->pages = NULL;
	if (!frames.extent_count)
		return 0; /* there is nothing that could have keys */
	for (u64 place = RMAP_LOG_FEW; place < count; place += PAGE_GONE) {
		pfn_t f = frame_alloc(FRAME_META, VM_NONE);
		struct rmap_log_page *page;

		if (!pfn_valid(f)) {
			while (log->pages)
				log_free_page(log);
			return trace_error(-ENOMEM);
		}
		page = pfn_ptr(f);
		page->count = 0;
		page->next = log->pages;
		log->pages = page;
	}
	return 0;
}

bool rmap_log_add(struct rmap_log *log, pfn_t pfn, u64 key)
{
	struct rmap_gone gone = { key, pfn };
	struct rmap_log_page *page = log->pages;

	if (log->count < RMAP_LOG_FEW) {
		log->few[log->count++] = gone;
		return true;
	}
	while (page && page->count == PAGE_GONE)
		page = page->next;
	if (!page)
		return false;
	page->gone[page->count++] = gone;
	return true;
}

static u64 forget(const struct rmap_gone *gone, u64 count)
{
	u64 missing = 0;

	for (u64 i = 0; i < count; i++)
		missing += rmap_remove(gone[i].pfn, gone[i].key) != 0;
	return missing;
}

u64 rmap_log_settle(struct rmap_log *log)
{
	u64 missing = forget(log->few, log->count);

	while (log->pages) {
		missing += forget(log->pages->gone, log->pages->count);
		log_free_page(log);
	}
	log->count = 0;
	return missing;
}

/* --- look --- */

struct spinlock rmap_moves = SPINLOCK_INIT(RANK_MOVES);

struct visit {
	bool (*visit)(void *arg, u64 key, pfn_t first);
	void *arg;
	pfn_t first;
};

static bool visit_key(void *arg, u64 key)
{
	const struct visit *v = arg;

	return v->visit(v->arg, key, v->first);
}

void rmap_for_each(pfn_t pfn, bool (*visit)(void *arg, u64 key, pfn_t first), void *arg)
{
	struct visit v = { .visit = visit, .arg = arg };
	struct rmap_op op = { 0 };
	bool more = true;

	spin_lock(&rmap_moves);
	/* 4 KiB and 2 MiB under one hold of the lock: a split moves keys from one to the other. */
	for (u8 level = 1; level <= 3 && more && rmap_move(&op, pfn, level); level++) {
		const u64 *set = set_of(op.e, pfn, level);

		v.first = PFN(ALIGN_DOWN(pfn.v, 1ull << 9 * (level - 1)));
		more = !set || rmap_set_for_each(set, visit_key, &v);
	}
	rmap_unlock(&op);
	spin_unlock(&rmap_moves);
}

bool rmap_extent_used(pfn_t pfn)
{
	const struct extent *e = extent_of(pfn);

	return e && (READ_ONCE(e->large) || e->keys || READ_ONCE(extent_for(pfn, 3)->gib));
}

static bool count_key(void *arg, u64 key, pfn_t first)
{
	(void)key;
	(void)first;
	++*(u64 *)arg;
	return true;
}

u64 rmap_count(pfn_t pfn)
{
	u64 count = 0;

	rmap_for_each(pfn, count_key, &count);
	return count;
}
