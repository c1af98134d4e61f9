/* SPDX-License-Identifier: MIT */
/*
 * Where the set of keys of a frame is, and the short way to its first key, in line: what a fault of
 * the guest waits for. Private to the reverse map, the single writer and the audit.
 */
#pragma once

#include "mm/extent.h"
#include "mm/rmap.h"

#define GIB_FRAMES (512 * EXTENT_FRAMES)

/* The extent whose lock covers the set, and that holds its word. */
static inline struct extent *extent_for(pfn_t pfn, u8 level)
{
	return extent_of(level == 3 ? PFN(ALIGN_DOWN(pfn.v, GIB_FRAMES)) : pfn);
}

/* NULL: a set that is empty because there is no page of them. */
static inline u64 *set_of(struct extent *e, pfn_t pfn, u8 level)
{
	if (level == 3)
		return &e->gib;
	if (level == 2)
		return &e->large;
	return e->keys ? (u64 *)pfn_ptr(PFN(e->keys)) + pfn.v % EXTENT_FRAMES : NULL;
}

/*
 * If the frame has no key, and is guest memory of that VM or of none: its extent, locked and with
 * the key added. NULL: nothing happened; rmap_lock() and rmap_insert() tell why not. Level 1 or 2.
 */
static inline struct extent *rmap_first_lock(pfn_t pfn, u8 level, u64 key, u16 vm)
{
	struct extent *e = extent_of(pfn);
	struct frame_owner owner;
	u64 *set;

	if (unlikely(!e))
		return NULL;
	spin_lock(&e->lock);
	owner = owner_in(e, pfn);
	set = set_of(e, pfn, level);
	if (likely(set && !*set && owner.kind == FRAME_GUEST &&
		   (owner.vm == vm || owner.vm == VM_NONE))) {
		*set = key;
		if (level == 1)
			e->small_keys++;
		return e;
	}
	spin_unlock(&e->lock);
	return NULL;
}

/* The leaf was lost to another CPU: the key goes again. */
void rmap_first_undo(struct extent *e, pfn_t pfn, u8 level);
