/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "arch/x86/trace.h"

#define TRIES 100

static struct trace_event nowhere; /* exits of CPUs without a ring */
DEFINE_PERCPU(struct trace_ring, trace_ring) = { .next = { &nowhere } };
static struct trace_ring *rings[MAX_CPUS]; /* NULL: no memory */
static u32 classes = BIT(TRACE_CLASS_COUNT) - 1;

static const struct trace_format formats[] = {
#define X(type, class_, name_, arg_, a_, b_) \
	{ .name = name_, .arg = arg_, .a = a_, .b = b_, .class = TRACE_CLASS_##class_ },
	TRACE_EVENTS(X)
#undef X
};

const struct trace_format *trace_format(enum trace_type type)
{
	return &formats[type - TRACE_EXIT_KINDS];
}

const char *trace_class_name(enum trace_class class)
{
	static const char *const names[] = {
#define X(class, name) name,
		TRACE_CLASSES(X)
#undef X
	};

	return names[class];
}

static void set_classes(struct trace_ring *r)
{
	WRITE_ONCE(r->classes, classes);
	WRITE_ONCE(r->exit_step,
		   classes & BIT(TRACE_CLASS_EXIT) ? (u16)sizeof(struct trace_event) : 0);
}

void trace_give_memory(u32 id, void *memory)
{
	struct trace_ring *r =
		(struct trace_ring *)((u64)(uintptr_t)&trace_ring + cpus[id].percpu_offset);

	r->next.at = memory;
	rings[id] = r;
	set_classes(r);
}

u32 trace_classes(void)
{
	return classes;
}

void trace_set_classes(u32 set)
{
	classes = set;
	for (u32 id = 0; id < MAX_CPUS; id++)
		if (rings[id])
			set_classes(rings[id]);
}

void trace_event(u64 who, u64 a, u64 b)
{
	u64 flags = irq_save();
	struct trace_event *e = trace_begin();

	trace_end(e, who, a, b, sizeof(*e));
	irq_restore(flags);
}

/* ---- Reading ---- */

static u64 load(const u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static u32 position(const struct trace_ring *r)
{
	return __atomic_load_n(&r->next.low, __ATOMIC_ACQUIRE) / sizeof(struct trace_event);
}

/* The writer stores tsc first, and this reads it last: if it is an old one, so is the rest. */
static void copy(struct trace_event *e, const struct trace_event *slot)
{
	e->b = load(&slot->b);
	e->a = load(&slot->a);
	e->who = load(&slot->who);
	e->tsc = load(&slot->tsc);
}

/*
 * The last event that is complete. When `at` is read the second time, no slot behind that one has
 * been begun in this round; if so afterwards too, nobody has come round to the one before it.
 * False: the writer is too fast.
 */
static bool copy_newest(const struct trace_ring *r, const struct trace_event *base, u32 *at,
			struct trace_event *e)
{
	for (u32 tries = 0; tries < TRIES; tries++) {
		const u64 *behind;
		u64 tsc;

		*at = position(r);
		behind = &base[(*at + 1) % TRACE_EVENTS_KEPT].tsc;
		tsc = load(behind);
		if (position(r) != *at)
			continue;
		copy(e, &base[(*at - 1) % TRACE_EVENTS_KEPT]);
		if (load(behind) == tsc)
			return true;
	}
	return false;
}

/*
 * What was written before the newest is complete, and what overwrites it has a later TSC: so going
 * back, an event belongs to the past if its TSC does.
 */
u32 trace_read(u32 id, u32 count, void (*f)(void *arg, const struct trace_event *e), void *arg)
{
	const struct trace_ring *r = rings[id];
	const struct trace_event *base;
	struct trace_event e;
	u64 later;
	u32 at, n = 0;

	if (!r || !count)
		return 0;
	base = (const struct trace_event *)((uintptr_t)READ_ONCE(r->next.at) & ~(TRACE_BYTES - 1));
	if (!copy_newest(r, base, &at, &e))
		later = load(&base[(at - 1) % TRACE_EVENTS_KEPT].tsc);
	else if (!e.tsc)
		return 0;
	else
		f(arg, &e), later = e.tsc, n = 1;
	/* neither the slot that may be written now nor the one behind it */
	for (u32 back = 2; n < count && back < TRACE_EVENTS_KEPT - 1; back++, n++) {
		copy(&e, &base[(at - back) % TRACE_EVENTS_KEPT]);
		if (!e.tsc || e.tsc >= later)
			break;
		later = e.tsc;
		f(arg, &e);
	}
	return n;
}
