/* SPDX-License-Identifier: MIT */
/*
 * The descriptor of a 2 MiB extent, and the page of heads of one that is split. Private to the
 * frame allocator (frames.c, frames_init.c), the reverse map and the audit. Owners change under
 * frames.lock, or on the boot CPU before frames_init returns; the reverse map's part (mm/rmap.h)
 * under the extent's lock.
 *
 *	extents[pfn >> 9]
 *	+--------------------+
 *	| whole: kind, vm    |	all 512 frames have this owner; in a list if it is FRAME_FREE
 *	+--------------------+
 *	| split: heads ------|-> [ head of frame 0 | 1 | ... | 511 ]
 *	+--------------------+	free ones form a list; in a list itself if there are any
 *
 * The page of heads is a frame of the extent itself, of kind FRAME_META. Only extents that the boot
 * memory map makes mixed have theirs behind the extent array.
 */
#pragma once

#include "lib/list.h"
#include "lib/spinlock.h"
#include "mm/frames.h"
#include "mm/phys.h"

#define FRAME_END 0xffffu /* no frame, in links of heads */

struct extent {
	struct list link; /* in frames.whole or frames.partial, if in any */
	u64 heads;	  /* pfn of the page of heads; 0: the extent is whole */
	u16 vm;		  /* whole: the owner */
	u8 kind;	  /* whole: the owner */
	u16 free;	  /* split: free frames, and the first of their list */
	u16 first_free;
	/* The reverse map. */
	u64 large;     /* keys of leaves of 2 MiB */
	u64 gib;       /* in the first extent of a GiB: keys of its leaves of 1 GiB */
	u64 keys : 36; /* pfn of the page of 512 sets, of leaves of 4 KiB; 0: there are none */
	u64 small_keys : 28; /* keys in that page's sets */
	struct spinlock lock;
} ALIGNED(64);
_Static_assert(sizeof(struct extent) == 64, "16 GiB of memory cost half a MiB of descriptors");

/* Owner of a frame in a split extent; prev and next link free ones. */
struct frame_head {
	u8 kind;
	u8 reserved;
	u16 vm;
	u16 prev, next;
};
_Static_assert(sizeof(struct frame_head) * EXTENT_FRAMES == PAGE_SIZE, "heads fill one page");

/* The allocator's state, defined in frames.c. */
struct frames {
	struct spinlock lock;
	struct extent *extents;
	u64 extent_count;
	struct list whole;   /* extents that are whole and free */
	struct list partial; /* those that are split, with a free frame */
	struct frame_stats stats;
};
extern struct frames frames;

static inline struct frame_head *extent_heads(const struct extent *e)
{
	return pfn_ptr(PFN(e->heads));
}

static inline struct frame_owner owner_of(u8 kind, u16 vm)
{
	return (struct frame_owner){ .kind = kind, .vm = vm };
}

static inline struct extent *extent_of(pfn_t f)
{
	u64 index = f.v / EXTENT_FRAMES;

	return index < frames.extent_count ? &frames.extents[index] : NULL;
}

/* frame_owner_peek of a frame of extent e. */
static inline struct frame_owner owner_in(const struct extent *e, pfn_t f)
{
	u64 heads = READ_ONCE(e->heads);
	const struct frame_head *h;

	if (!heads)
		return owner_of(e->kind, e->vm);
	h = (const struct frame_head *)pfn_ptr(PFN(heads)) + f.v % EXTENT_FRAMES;
	return owner_of(h->kind, h->vm);
}

/* A whole extent gets another owner as a whole; lists and figures follow. */
void extent_set_whole(struct extent *e, struct frame_owner owner);

/*
 * Make a whole extent that is in no list a split one: every frame keeps the extent's owner, except
 * that the page of heads is `heads`. It joins the list of partial extents if it was free.
 */
void extent_split(struct extent *e, pfn_t heads);
/* A frame of a split extent gets another owner; lists and figures follow, the extent stays so. */
void extent_set_owner(struct extent *e, u32 index, struct frame_owner owner);
