/* SPDX-License-Identifier: MIT */
/*
 * What `make bench` links to Corbel's objects to measure missing pages: a VM with an `image` has it
 * from here, a page at a time, with no contents but how many locks were taken until then.
 */
#include "lib/spinlock.h"
#include "mm/lazy.h"

void __real_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l);
void __real_lazy_attach(struct lazy_image *image, struct backing *b, u64 at);
void __wrap_lazy_attach(struct lazy_image *image, struct backing *b, u64 at);

static u64 taken;

void __wrap_spin_lock(struct spinlock *l)
{
	taken++;
	__real_spin_lock(l);
}

static int fetch(const struct backing_source *source, struct backing_fetch *f)
{
	(void)source;
	*(u64 *)f->to = taken;
	return 0;
}

static struct backing_source pages = { .name = "bench", .piece = PAGE_SIZE, .fetch = fetch };

void __wrap_lazy_attach(struct lazy_image *image, struct backing *b, u64 at)
{
	__real_lazy_attach(image, b, at);
	pages.from = image->source.from;
	pages.to = image->source.to;
	b->source = &pages;
}
