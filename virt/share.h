/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is on a CPU: proportional shares by virtual run time.
 *
 * A vCPU's virtual time is its time on the CPU divided by its weight. Of those that wait, the one
 * with the least runs next, so that over time each gets of the CPU what its weight is of the sum.
 *
 * The queue's virtual time is where each would be had the CPU been divided at every moment: it
 * advances by time divided by the sum of weights. It is the measure for those that wake. Who slept
 * does not get back what it did not use: it wakes at most one slice of its own behind the queue.
 * Who has had more than its share stays ahead of it, at most four slices.
 *
 * Pure arithmetic, without clock or lock (virt/sched.c has both). Times are ticks of any one clock;
 * they may wrap.
 */
#pragma once

#include "lib/list.h"

#define SHARE_WEIGHT	 100 /* an ordinary one */
#define SHARE_WEIGHT_MAX 1000

struct share {
	struct list node; /* in share_queue.waiting; alone: it runs, or sleeps */
	u64 vtime;	  /* its virtual time: ticks * SHARE_WEIGHT / weight */
	u32 weight;	  /* 1..SHARE_WEIGHT_MAX */
	bool woke;	  /* it waits since it woke: vtime is settled at the next look */
};

struct share_queue {
	struct list waiting; /* in the order of arrival */
	u32 nr_waiting;	     /* may be read without the lock */
	u32 weights;	     /* sum of those that wait, but not of who just woke */
	u64 vtime;
	u64 slice; /* ticks */
};

void share_queue_init(struct share_queue *q, u64 slice);
/* Of that weight, not waiting; share_move() gives it its first queue. */
void share_init(struct share *s, u32 weight);

/*
 * s waits for the CPU: it woke or is new, or else it ran just now. If it waited elsewhere until now
 * (share_leave, share_move), `woke` is s->woke.
 */
void share_wait(struct share_queue *q, struct share *s, bool woke);
/* It waits no longer: it is to run, or moves. */
void share_leave(struct share_queue *q, struct share *s);
/*
 * s, which does not wait, has run for that long. Before it waits or sleeps, and before
 * share_next(q, s).
 */
void share_ran(struct share_queue *q, struct share *s, u64 ticks);
/*
 * Who is to run: `running`, if it is not NULL, unless one that waits has less. NULL: nobody waits.
 * Equals have their turn in the order of arrival.
 */
struct share *share_next(struct share_queue *q, struct share *running);
/* s, off the CPU and not waiting yet, lets the next of those that wait go first. */
void share_yield(struct share_queue *q, struct share *s);
/*
 * s, which does not wait, belongs to another queue now, and is there what it was here; or, if
 * `from` is NULL, new.
 */
void share_move(struct share *s, const struct share_queue *from, const struct share_queue *to);
