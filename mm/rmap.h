/* SPDX-License-Identifier: MIT */
/*
 * The reverse map: from a host frame to every stage-2 leaf that maps it.
 *
 *	extents[pfn >> 9]
 *	+-----------------+
 *	| lock            |
 *	| keys ---------->| [ set of frame 0 | 1 | ... | 511 ]	mapped as 4 KiB
 *	| large	  set	  |					mapped as 2 MiB
 *	| gib	  set	  |	in the first extent of a GiB:	mapped as 1 GiB
 *	+-----------------+
 *
 * A mapper is one 64-bit key: VM, root, level, and the first gfn of its leaf. The leaf is found by
 * a walk from the key, so tables may move. One key stands in place in a set's word; further ones
 * need nodes (mm/rmap_set.h). The page of 512 words is there while the extent has 4 KiB mappers. To
 * visit a frame is to look at three sets.
 *
 * A key is stored when the leaf is installed, and at its removal the whole of it must be found
 * where the leaf says. If it is not, that is damage: rmap functions return -ENOENT, and the caller
 * (mm/stage2.c) reports it by DATA_CORRUPTION_ON.
 *
 * Order. The single writer of stage-2 entries holds the extent's lock over key and leaf, so that
 * whoever holds it sees both or none; there are two exceptions, with a flag each:
 *   RMAP_NEW  the leaf is there, but the table that it is in may not be linked yet (a split)
 *   RMAP_OLD  the leaf is gone, but its flush debt is not paid: CPUs may still use the frame
 * A key goes when the debt is paid. So a frame without keys is a frame that no CPU of any VM can
 * reach: then, and only then, may it be given to somebody else.
 *
 * Where a leaf of 1 GiB is split, keys come and go in other extents, and a merge hides leaves for a
 * while. These, and the looks at a frame by which nothing may be missed, take turns: rmap_moves.
 *
 * Lock: RANK_EXTENT, one for 2 MiB. Any CPU, not from NMI context. Frames of which the allocator
 * knows nothing (device memory) have no keys.
 */
#pragma once

#include "lib/addr.h"
#include "mm/frames.h"
#include "mm/rmap_set.h"

/*
 * The key:  63 gfn 28 | 27 level 26 | 25 vm 10 | 9 root 6 | 5 flags 0
 */
#define RMAP_FLAGS	 0x3full
#define RMAP_KEY	 BIT(0) /* tells a key from a pointer in a set's word */
#define RMAP_NEW	 BIT(3)
#define RMAP_OLD	 BIT(4)
#define RMAP_ROOT_SHIFT	 6
#define RMAP_VM_SHIFT	 10
#define RMAP_LEVEL_SHIFT 26
#define RMAP_GFN_SHIFT	 28
_Static_assert(RMAP_VM_SHIFT - RMAP_ROOT_SHIFT == 4, "16 roots");
_Static_assert(RMAP_LEVEL_SHIFT - RMAP_VM_SHIFT == 16, "a VM id has 16 bits");
_Static_assert(RMAP_GFN_SHIFT - RMAP_LEVEL_SHIFT == 2, "levels 1..3");
_Static_assert(64 - RMAP_GFN_SHIFT + PAGE_SHIFT == 48, "guest physical addresses below 2^48");

static inline u64 rmap_key(u16 vm, u8 root, u8 level, u64 gfn)
{
	return gfn << RMAP_GFN_SHIFT | (u64)level << RMAP_LEVEL_SHIFT | (u64)vm << RMAP_VM_SHIFT |
	       (u64)root << RMAP_ROOT_SHIFT | RMAP_KEY;
}

static inline gfn_t rmap_gfn(u64 key)
{
	return GFN(key >> RMAP_GFN_SHIFT);
}

static inline u8 rmap_level(u64 key)
{
	return key >> RMAP_LEVEL_SHIFT & 3;
}

static inline u16 rmap_vm(u64 key)
{
	return (u16)(key >> RMAP_VM_SHIFT);
}

static inline u8 rmap_root(u64 key)
{
	return key >> RMAP_ROOT_SHIFT & 15;
}

/* Has the frame keys? False: device memory, or none at all. Any context. */
bool rmap_tracks(pfn_t pfn);

/* --- for the single writer: the set of (pfn, level), locked --- */

struct extent;
struct rmap_op {
	struct extent *e;
	pfn_t pfn;
	struct frame_owner owner; /* of the frame, read under the lock */
	u8 level;
	struct rmap_reserve reserve;
};

/*
 * Lock the set of keys of the frame at this level. False: there is none (device memory), nothing is
 * locked. Afterwards rmap_unlock(), which also gives memory back.
 */
bool rmap_lock(struct rmap_op *op, pfn_t pfn, u8 level);
/* Nothing happens if it is not locked. */
void rmap_unlock(struct rmap_op *op);
/*
 * Let go of the lock, get the memory that rmap_insert lacked, lock again. 0, or -ENOMEM; locked
 * again in either case.
 */
int rmap_refill(struct rmap_op *op);
/*
 * Add a key. 0; -EAGAIN: first rmap_refill(); -EPERM: it is no guest memory (a table, the
 * hypervisor's, free, in quarantine).
 */
int rmap_insert(struct rmap_op *op, u64 key);
/* Remove a key, flags compared. 0; -ENOENT. */
int rmap_delete(struct rmap_op *op, u64 key);
/* Is the key there, flags compared? */
bool rmap_has(struct rmap_op *op, u64 key);
/* The key gets other flags; `from` and `to` have all of theirs. 0; -ENOENT. */
int rmap_replace(struct rmap_op *op, u64 from, u64 to);

/*
 * The same for up to `count` frames side by side whose keys are, too: those of leaves of 4 KiB, one
 * behind the other. 0 as `from` or `to`: the keys come, or go. Ends at a set that has anything else
 * than `from` in its word; returns how many became `to`.
 */
u32 rmap_run(struct rmap_op *op, u64 from, u64 to, u32 count);

/*
 * From one set to another; *op was rmap_lock()ed, or is all zero. The lock is
 * kept where it is the same one. False: nothing is locked.
 */
bool rmap_move(struct rmap_op *op, pfn_t pfn, u8 level);

/* RANK_MOVES. Held from before the first key is changed, or leaf hidden, until all stand. */
extern struct spinlock rmap_moves;

/* rmap_delete of one key. No lock held. Device memory: 0. */
int rmap_remove(pfn_t pfn, u64 key);

/* --- keys that wait for their flush: what an unmap took out of tables that stay --- */

#define RMAP_LOG_FEW 4
struct rmap_log {
	struct rmap_gone {
		u64 key;
		pfn_t pfn;
	} few[RMAP_LOG_FEW];
	u64 count;
	struct rmap_log_page *pages; /* the rest, and place for it */
};
/* Place for `count` keys in an empty log. 0; -ENOMEM: the log is empty. */
int rmap_log_reserve(struct rmap_log *log, u64 count);
/* False: there is no place. */
bool rmap_log_add(struct rmap_log *log, pfn_t pfn, u64 key);
/* The flush is paid: remove the keys, and give the memory back. Returns how many were not found. */
u64 rmap_log_settle(struct rmap_log *log);

/* --- for everyone --- */

/*
 * Every key of the frame, of all three levels, also those that wait for their flush; pfn is the
 * first frame that the key's leaf maps. Under the locks: visit must not take locks up to
 * RANK_EXTENT, nor change keys. Stops when it returns false.
 */
void rmap_for_each(pfn_t pfn, bool (*visit)(void *arg, u64 key, pfn_t first), void *arg);
/* Does any frame of the extent have keys? */
bool rmap_extent_used(pfn_t pfn);
/* How many keys rmap_for_each would show. 0: nobody can reach the frame. */
u64 rmap_count(pfn_t pfn);
