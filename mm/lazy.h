/* SPDX-License-Identifier: MIT */
/* The built-in loader: a backing object's contents come by need from packed pieces in memory. */
#pragma once

#include "lib/pieces.h"
#include "mm/backing.h"

#define LAZY_ORDER 256

struct lazy_image {
	struct backing_source source;
	struct pieces pieces;
	struct backing *backing;
	u32 fetched, damaged;  /* pieces, since lazy_restart(); atomic */
	u16 order[LAZY_ORDER]; /* the first of them, as they came: the next hot set */
	u32 next_hot, ahead;   /* of the hot set: looked at so far, and fetched by lazy_ahead() */
	struct backing_fetch fetch;
};

/*
 * Check the file, which is aligned to 8 bytes. NULL, or what is wrong with it. name and file stay
 * as long as *image is used. Context: any.
 */
const char *lazy_open(struct lazy_image *image, const char *name, const void *file, u64 length);
/*
 * The image is what the object has from offset `at` on, a multiple of 2 MiB, up to the last of its
 * pieces, which must be inside; the rest of that piece is zero. All else stays as it is:
 * backing_reset() is to come.
 */
void lazy_attach(struct lazy_image *image, struct backing *b, u64 at);
/* The object's image, or NULL. */
struct lazy_image *lazy_image_of(const struct backing *b);
/* Counters and hot set begin anew; no fetch of lazy_ahead's is under way. Attached, or all zero. */
void lazy_restart(struct lazy_image *image);
/*
 * A slice of fetching the hot set ahead. False: all of it has been looked at. True: call again, and
 * wake who waits for [fetch.offset, fetch.offset + fetch.size). One caller at a time.
 */
bool lazy_ahead(struct lazy_image *image);
