/* SPDX-License-Identifier: MIT */
/*
 * Packed contents of memory, of which each piece of 2 MiB can be unpacked alone, a block of 64 KiB
 * at a time: what a VM's memory is loaded from by need. The host tool mkpieces makes such files
 * with liblz4, and reads them with this code. All numbers are little-endian:
 *
 *	struct pieces_header
 *	struct pieces_entry [nr_pieces]
 *	u32 hot [nr_hot]		pieces to be loaded ahead, the most wanted first
 *	the pieces, at any place behind the above:
 *		struct pieces_block	of the piece's first 64 KiB
 *		LZ4 block
 *		struct pieces_block	of the next 64 KiB ...
 *
 * Nothing in a file is believed before it is checked: the header and both tables by a checksum and
 * by their ranges when the file is opened, each block when it is unpacked.
 */
#pragma once

#include "lib/addr.h"

#define PIECE_SIZE   (2 * MIB)
#define PIECE_BLOCK  (64 * KIB)
#define PIECES_MAGIC "CRBLPCS1"

struct pieces_header {
	char magic[8];
	u64 size;      /* bytes of the contents, not 0 */
	u32 nr_pieces; /* of PIECE_SIZE, but for the last, which has the rest of size */
	u32 nr_hot;
	u64 check; /* xxh64(both tables, seed = xxh64(the header up to here, seed = 0)) */
};

struct pieces_entry {
	u64 offset; /* in the file */
	u64 length; /* in the file; 0: the piece is all zeros */
};

struct pieces_block {
	u32 length; /* 0: all zeros; the block's own size: not packed */
	u32 check;  /* the lower half of xxh64(unpacked block, seed = its offset in the contents) */
};

struct pieces {
	const u8 *file;
	const struct pieces_entry *entries;
	const u32 *hot;
	u64 size;
	u32 nr, nr_hot;
};

/* Is it such a file, by its first bytes? */
bool pieces_detect(const void *file, u64 length);

/*
 * Check header and tables. file is aligned to 8 bytes and must stay as long as *p is used. NULL, or
 * what is wrong with it. Context: any.
 */
const char *pieces_open(struct pieces *p, const void *file, u64 length);

/* Bytes of piece i, i < p->nr. */
u64 pieces_size(const struct pieces *p, u32 i);

/* How far a piece is unpacked. All zero at first. */
struct pieces_cursor {
	u64 in, out; /* bytes of the packed and of the unpacked piece */
};

/*
 * Unpack the next block of piece i, i < p->nr, to its place in dst, which has pieces_size() bytes;
 * the piece is done once c->out is that. NULL, or what is wrong; dst is then undefined.
 * Context: any; takes some 50 microseconds.
 */
const char *pieces_unpack(const struct pieces *p, u32 i, struct pieces_cursor *c, void *dst);
