/* SPDX-License-Identifier: MIT */
/*
 * Backing objects: memory with a life of its own. Slots (virt/slots.h) show ranges of an object to
 * VMs, several slots may show the same one.
 *
 *	entries, one for each 2 MiB of the object (a "part")
 *	[ EMPTY | RESERVED | CLAIMED | PRESENT | TABLE | POISON ... ]
 *		    |                     |       |
 *		 frames, without       frames    [ the same states: one word for each 4 KiB ]
 *		 contents yet
 *
 * A word is the address of the memory (in Corbel's direct map) and a state. Only compare-and-swap
 * changes one, so that faults on different parts never meet: whoever takes a word to CLAIMED puts
 * the contents in, everybody else waits for that one. No lock is taken by who finds it PRESENT.
 *
 *	EMPTY ----> CLAIMED ----> PRESENT, PRESENT + READONLY	(contents are there)
 *	RESERVED -> CLAIMED ----> POISON			(they never will be)
 *	    ^----------'  given up: the fetch failed, or whoever waited for it has gone
 *
 * Contents come from one of these:
 *	zero	by the CPU that faults, at once; spinning is bounded by the time to clear 2 MiB
 *	source	an object with a source is fetched from there, a piece at a time, see below
 *	hand	by who resolves: the monitor's `populate`, a loader that writes a kernel
 */
#pragma once

#include "lib/addr.h"
#include "mm/frames.h"

/*
 * One fetch that is under way: who needs the piece first has claimed it, and makes all the calls;
 * everybody else who needs it waits for that.
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
 * Context: the claimer's, in its own time: a vCPU's turn on any CPU, or a task; interrupts on, no
 * lock held. Different pieces are fetched by several CPUs at once; consecutive calls for one piece
 * may come from different CPUs, never at the same time. A fetch may be abandoned between two calls,
 * without a word, and begun anew later: it must hold nothing outside of f->state and f->to. Not
 * allowed in fetch(): waiting, IPIs, guest memory, allocation that it could lose by that.
 */
struct backing_source {
	const char *name; /* for messages: "image foo.cbl" */
	u32 piece;	  /* bytes that are fetched at a time: 4 KiB or 2 MiB */
	int (*fetch)(const struct backing_source *source, struct backing_fetch *f);
};

/*
 * A slice of fetching the piece that holds `offset`, for its object. *f is all zero at first, and
 * the caller's until it is done. 0: the contents are there, whoever brought them; -EAGAIN: call
 * again; -EBUSY: somebody else is at it; -EIO and others: it can't be had. Context as for fetch():
 * for a vCPU that waits, and for a task that fetches ahead (a recorded hot set: one piece after the
 * other, a slice at a time). Wakes who waits for the piece.
 */
struct backing;
int backing_fetch(struct backing *b, u64 offset, struct backing_fetch *f) MUST_CHECK;
/* No more calls with *f: what it had claimed is anybody's again. Nothing, if nothing is claimed. */
void backing_fetch_drop(struct backing *b, struct backing_fetch *f);
