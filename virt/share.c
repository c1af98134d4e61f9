/* SPDX-License-Identifier: MIT */
#include "virt/share.h"

#define TICKS_MAX BIT(50) /* of one run: days. Times SHARE_WEIGHT it still fits. */
#define AHEAD_MAX 4	  /* slices */

/* Virtual times wrap: which of two is earlier is a matter of their distance. */
static bool before(u64 a, u64 b)
{
	return (s64)(a - b) < 0;
}

static u64 scaled(u64 ticks, u32 weight)
{
	return MIN(ticks, TICKS_MAX) * SHARE_WEIGHT / weight;
}

static u64 ahead_max(const struct share_queue *q, const struct share *s)
{
	return scaled(AHEAD_MAX * q->slice, s->weight);
}

void share_queue_init(struct share_queue *q, u64 slice)
{
	*q = (struct share_queue){ .slice = slice };
	list_init(&q->waiting);
}

void share_init(struct share *s, u32 weight)
{
	*s = (struct share){ .weight = weight };
	list_init(&s->node);
}

void share_wait(struct share_queue *q, struct share *s, bool woke)
{
	s->woke = woke;
	if (!woke)
		q->weights += s->weight;
	list_add_tail(&q->waiting, &s->node);
	WRITE_ONCE(q->nr_waiting, q->nr_waiting + 1);
}

void share_leave(struct share_queue *q, struct share *s)
{
	if (!s->woke)
		q->weights -= s->weight;
	list_del(&s->node);
	WRITE_ONCE(q->nr_waiting, q->nr_waiting - 1);
}

void share_ran(struct share_queue *q, struct share *s, u64 ticks)
{
	s->vtime += scaled(ticks, s->weight);
	q->vtime += scaled(ticks, s->weight + q->weights);
}

/* The queue's time stays where those are that run or wait: not ahead of all, not far behind any. */
static void confine(struct share_queue *q, const struct share *running)
{
	const struct share *last = running;

	if (running && before(q->vtime, running->vtime - ahead_max(q, running)))
		q->vtime = running->vtime - ahead_max(q, running);
	list_for_each(n, &q->waiting) {
		const struct share *s = list_entry(n, struct share, node);

		if (!s->woke && (!last || before(last->vtime, s->vtime)))
			last = s;
	}
	if (last && before(last->vtime, q->vtime))
		q->vtime = last->vtime;
}

static void settle(struct share_queue *q, struct share *s)
{
	u64 earliest = q->vtime - scaled(q->slice, s->weight), latest = q->vtime + ahead_max(q, s);

	if (before(s->vtime, earliest))
		s->vtime = earliest;
	else if (before(latest, s->vtime))
		s->vtime = latest;
	s->woke = false;
	q->weights += s->weight;
}

struct share *share_next(struct share_queue *q, struct share *running)
{
	struct share *next = running;

	confine(q, running);
	list_for_each(n, &q->waiting) {
		struct share *s = list_entry(n, struct share, node);

		if (s->woke)
			settle(q, s);
		if (!next || before(s->vtime, next->vtime))
			next = s;
	}
	return next;
}

void share_yield(struct share_queue *q, struct share *s)
{
	const struct share *next = share_next(q, NULL);

	if (next && before(s->vtime, next->vtime))
		s->vtime = next->vtime;
}

void share_move(struct share *s, const struct share_queue *from, const struct share_queue *to)
{
	s->vtime = from ? s->vtime - READ_ONCE(from->vtime) : 0;
	s->vtime += READ_ONCE(to->vtime);
}
