/* SPDX-License-Identifier: MIT */
#include "mm/lazy.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"

_Static_assert(PIECE_SIZE == EXTENT_SIZE, "a piece is a word of the object");
_Static_assert(sizeof(struct pieces_cursor) <= sizeof(((struct backing_fetch *)0)->state), "state");

static struct lazy_image *image_of(const struct backing_source *s)
{
	return container_of((struct backing_source *)(uintptr_t)s, struct lazy_image, source);
}

/* A block of 64 KiB a call. */
static int fetch(const struct backing_source *source, struct backing_fetch *f)
{
	struct lazy_image *image = image_of(source);
	struct pieces_cursor *c = (struct pieces_cursor *)f->state;
	u32 i = (u32)((f->offset - source->from) / PIECE_SIZE), n;
	u64 size = pieces_size(&image->pieces, i);
	const char *wrong = size > f->size ? "larger than its place"
					   : pieces_unpack(&image->pieces, i, c, f->to);

	if (wrong) {
		__atomic_fetch_add(&image->damaged, 1, __ATOMIC_RELAXED);
		log_err("%s: piece %u: %s", source->name, i, wrong);
		return -EIO;
	}
	if (c->out < size)
		return -EAGAIN;
	memset((u8 *)f->to + size, 0, f->size - size);
	n = __atomic_fetch_add(&image->fetched, 1, __ATOMIC_RELAXED);
	if (n < LAZY_ORDER)
		image->order[n] = (u16)i;
	return 0;
}

const char *lazy_open(struct lazy_image *image, const char *name, const void *file, u64 length)
{
	*image = (struct lazy_image){ .source = { name, PIECE_SIZE, 0, 0, fetch } };
	return pieces_open(&image->pieces, file, length);
}

void lazy_attach(struct lazy_image *image, struct backing *b, u64 at)
{
	image->source.from = at;
	image->source.to = at + image->pieces.nr * PIECE_SIZE;
	image->backing = b;
	b->source = &image->source;
}

struct lazy_image *lazy_image_of(const struct backing *b)
{
	return b->source && b->source->fetch == fetch ? image_of(b->source) : NULL;
}

void lazy_restart(struct lazy_image *image)
{
	backing_fetch_drop(image->backing, &image->fetch);
	image->fetched = image->damaged = image->next_hot = image->ahead = 0;
}

bool lazy_ahead(struct lazy_image *image)
{
	const struct pieces *p = &image->pieces;
	int err;

	if (image->next_hot == p->nr_hot)
		return false;
	err = backing_fetch(image->backing,
			    image->source.from + p->hot[image->next_hot] * PIECE_SIZE,
			    &image->fetch);
	image->next_hot += err != -EAGAIN;
	image->ahead += !err;
	return true;
}
