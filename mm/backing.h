/* SPDX-License-Identifier: MIT */
/*
 * Backing objects: memory with a life of its own. Slots (virt/slots.h) show ranges of an object to
 * VMs, several slots may show the same one.
 *
 *	words, one for each 2 MiB of the object (a "part")
 *	[ PRESENT | ZERO | MISSING | BUSY | POISON | TABLE | ... ]
 *						  |
 *				       [ the same, one for each 4 KiB ]
 *
 * A word is the address of the memory (in Corbel's direct map), or of the table, and a state. The
 * memory is set aside when the object is made; what the states tell is whether it has contents:
 *
 *	ZERO ------> BUSY -> PRESENT	who touches it first clears it; others spin that long
 *	MISSING ---> BUSY -> PRESENT	its contents come from elsewhere; others wait
 *	   ^----------'			given up: the fetch failed, or who made it has gone
 *	MISSING ---> ZERO, READONLY, POISON	as who resolves it says
 *
 * An object may have a parent, whose contents nobody changes any more:
 *
 *	INHERITED -> COPIED -> PRESENT	as the parent has it, until somebody wants to write: he
 *				copies the page, then unmaps the parent's from where the object is
 *				shown. Until both are done nobody writes the copy.
 *
 * Such an object has only the memory that was written, page by page. After a reset it has no parent
 * any more, and ZERO without an address: memory comes with the first touch.
 *
 *	[ first ] <- [ frozen ] <-+- [ of the VM that was forked ]
 *				  `- [ of its clone ]
 *
 * Only compare-and-swap changes a word, so faults on different parts never meet: who takes a word
 * to BUSY puts the contents in. Locks are only for what is INHERITED: who maps it holds that of its
 * 2 MiB, and so does who makes it COPIED. So what is mapped of a parent was mapped before that, and
 * is unmapped after it.
 */
#pragma once

#include "lib/addr.h"
#include "lib/list.h"
#include "lib/spinlock.h"
#include "mm/frames.h"

/*
 * One fetch that is under way: who needs the piece first has claimed it, and makes all the calls;
 * everybody else who needs it waits for that. The beginning is all zero.
 */
struct backing_fetch {
	u64 offset;   /* of the piece in the object, a multiple of the source's piece size */
	u64 size;     /* bytes: the piece, cut at the object's end; a multiple of 4 KiB */
	void *to;     /* where the contents go: `size` bytes, contiguous, not cleared */
	u64 state[6]; /* the source's own, all zero before the first call */
};

/*
 * Where an object's contents come from.
 *
 * fetch() does a slice of the work, of at most 50 microseconds or so, and is called until it is
 * done. 0: all of [to, to + size) is written. -EAGAIN: call again. Any other error: the contents
 * can't be had (a damaged piece: -EIO), and why was logged by the source once; the piece is given
 * up, and the VMs that wait for it stop with a memory fault that names the source. The source must
 * write zeroes where its image says nothing.
 *
 * Context: the claimer's, in its own time: a vCPU's turn on any CPU, or a task; interrupts on or
 * off, no lock held. Different pieces are fetched by several CPUs at once; consecutive calls for
 * one piece may come from different CPUs, never at the same time. A fetch may be abandoned between
 * two calls, without a word, and begun anew later: it must hold nothing outside of f->state and
 * f->to. Not allowed in fetch(): waiting, IPIs, guest memory, allocation that it could lose by
 * that.
 */
struct backing_source {
	const char *name; /* for messages: "image foo.cbl" */
	u32 piece;	  /* bytes that are fetched at a time: 4 KiB or 2 MiB */
	/* In the object, multiples of the piece: what is missing after backing_reset() with zero */
	u64 from, to;
	int (*fetch)(const struct backing_source *source, struct backing_fetch *f);
};

enum backing_state {
	BACKING_PRESENT,
	BACKING_ZERO,	  /* to be cleared by who touches it first */
	BACKING_MISSING,  /* contents come from elsewhere */
	BACKING_CLEARING, /* BUSY, for a moment: spin */
	BACKING_FETCHING, /* BUSY, for longer: wait */
	BACKING_READONLY, /* there, and nobody may write it */
	BACKING_POISON,	  /* lost: a memory error, to who touches it */
	BACKING_TABLE,
	BACKING_INHERITED,
	BACKING_COPIED, /* the parent's page may still be mapped */
};
#define BACKING_STATE 15ull

/* Beyond that many generations that are shown somewhere there are no children. */
#define BACKING_LINE_MAX 32

struct backing {
	char name[32];		/* of a [memory] section; empty: a VM's own */
	struct list node;	/* the owner's */
	void *vm;		/* whose own it is; NULL: it may be shown to several. virt's */
	u64 size;		/* bytes, a multiple of 4 KiB */
	u16 owner;		/* of its guest frames: the VM, or VM_NONE */
	struct backing *parent; /* NULL: none. This is one of its users */
	bool sparse;		/* it has, or had, a parent: memory comes page by page */
	bool frozen;		/* nobody changes it; it goes with its last user */
	bool own;		/* with a parent: something was written */
	bool lost; /* mapped by a VM whose structures were damaged: frames are never reused */
	u32 parts; /* that are left, while it is being freed */
	u32 users; /* slots and fetches under way; atomic */
	const struct backing_source *source; /* NULL: none. Set before anybody uses it */
	u64 fetched;			     /* pieces that came from there; atomic */
	u64 words[];
};

static inline u8 backing_state(u64 word)
{
	return word & BACKING_STATE;
}

/* The memory of a word that is no table. */
static inline u8 *backing_memory(u64 word)
{
	return (u8 *)(uintptr_t)(word & ~BACKING_STATE);
}

/*
 * An object of `size` bytes, whose frames (FRAME_GUEST) are owned by `owner`; contiguous and
 * aligned in each GiB where there is room. All MISSING, or with `zero` all ZERO. 0; -EINVAL: no
 * multiple of 4 KiB; -ENOSPC: above 500 GiB; -ENOMEM, and nothing is left behind.
 */
int backing_create(u64 size, u16 owner, bool zero, struct backing **out);
/* The same, all ZERO, but memory comes page by page, with backing_own(). */
int backing_sparse(u64 size, u16 owner, struct backing **out);
/*
 * An object that has what the parent has, until it is written: the parent must be frozen before
 * anybody uses the child, and lives as long. Its memory is owned by `owner`. 0; -ENOMEM; -ENOSPC:
 * BACKING_LINE_MAX.
 */
int backing_child(struct backing *parent, u16 owner, struct backing **out);
/*
 * *b, which is sparse, is shown nowhere and has one user, is frozen and becomes what two children
 * have: *b and *clone, of one user each. 0, or backing_child()'s errors: *b is as it was, *clone
 * NULL or not touched.
 */
int backing_fork(struct backing **b, u16 owner, struct backing **clone);
/*
 * Nobody changes it any more, it is in nobody's list, and goes with its last user. Whose frames
 * they are does not change (frames_set_shared). A parent of which it is the last user is merged
 * into it: that takes a few instructions for each 2 MiB, or for each page of a part that *b has
 * written. Nobody uses it meanwhile.
 */
void backing_freeze(struct backing *b);
/*
 * The page gets memory of its own in *b, which is sparse: COPIED, if it was INHERITED (of a parent
 * that is PRESENT or ZERO there); PRESENT, if it was ZERO. 0; 1: it is COPIED; -ENOMEM. Any CPU.
 */
int backing_own(struct backing *b, u64 offset);
/* COPIED becomes PRESENT: what was mapped of the parent is not, and is flushed. */
void backing_owned(struct backing *b, u64 offset);
#define BACKING_LOCKS 256
extern struct spinlock backing_copying[BACKING_LOCKS];
/* Is the page (2: are the 2 MiB around it) INHERITED? Under the lock of the 2 MiB. */
bool backing_inherits(const struct backing *b, u64 offset, u8 level);
static inline struct spinlock *backing_lock(const struct backing *b, u64 offset)
{
	return &backing_copying[((uintptr_t)b / PAGE_SIZE + offset / EXTENT_SIZE) % BACKING_LOCKS];
}
/*
 * The object in *b's line that has the page: *b becomes it. *level is that of the word; *piece how
 * much is good for all of the line (2: the part, 1: the page). Any context.
 */
u64 *backing_find(struct backing **b, u64 offset, u8 *level, u8 *piece);

/*
 * Up to a GiB of its memory goes back, or 2 MiB of pages. False: nothing is left, *b is gone; its
 * parent has that user still, as after backing_reset(). No users; nothing of it is mapped.
 */
bool backing_free_step(struct backing *b);
/*
 * A step of having one user less: what nobody uses goes back, with its parents. *b is what is left
 * to do. False: nothing. For what goes with its last user; nothing of it is mapped then.
 */
bool backing_put_step(struct backing **b);
/*
 * As after creation; what its source has is MISSING. Nothing of it is mapped, nobody uses it
 * meanwhile.
 */
void backing_reset(struct backing *b, bool zero);

/* The word for an offset, and how much it stands for (2: the part, 1: a page). Any context. */
u64 *backing_word(const struct backing *b, u64 offset, u8 *level);
/*
 * Bring a word whose state is ZERO or CLEARING on, or MISSING if that is the same; by any CPU, not
 * from interrupt context. Returns the word as it is afterwards: PRESENT, or whatever it has become
 * meanwhile.
 */
u64 backing_touch(u64 *word, u8 level, bool missing_is_zero);

enum backing_fill {
	FILL_ZERO,
	FILL_COPY,
	FILL_READONLY,
	FILL_POISON,
	FILL_WRITABLE, /* what is READONLY becomes PRESENT; whoever maps it unmaps it afterwards */
};
/*
 * What is MISSING in [offset, offset + size), which is page aligned and inside, gets contents: zero
 * (also FILL_READONLY), those at `from` (size bytes), or none ever. What is not missing stays as it
 * is. 0 if anything changed; -EEXIST: nothing is missing (or read-only, for FILL_WRITABLE); -EBUSY:
 * it is being fetched; -ENOMEM: no table; -EOPNOTSUPP: a part of a piece that its source delivers
 * as a whole. Nothing is woken: memory_resolved() does (virt/memfault.h). For MISSING pages only a
 * table is ever made.
 */
int backing_fill(struct backing *b, u64 offset, u64 size, enum backing_fill how, const void *from);

/*
 * A slice of fetching the piece that holds `offset`, for an object that has a source. *f is all
 * zero at first, and the caller's until it is done. 0: this call was the last, the contents are
 * there; -EAGAIN: call again; -EBUSY: somebody else is at it; -EEXIST: it is not missing; -EIO and
 * others: it can't be had. After 0 and -EIO: memory_resolved() for [f->offset, f->offset +
 * f->size). For a vCPU that waits, and for tasks that fetch ahead (a recorded hot set).
 */
int backing_fetch(struct backing *b, u64 offset, struct backing_fetch *f) MUST_CHECK;
/* No more calls: what it had claimed is MISSING again. Nothing, if nothing is claimed. */
void backing_fetch_drop(struct backing *b, struct backing_fetch *f);
