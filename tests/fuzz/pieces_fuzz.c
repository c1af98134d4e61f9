/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as an LZ4 block, against liblz4: what it unpacks to the wanted size, so do we, to the
 * same bytes. And any bytes as a file of pieces, the checksums of its tables made right.
 */
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lz4.h"
#include "lib/pieces.h"
#include "lib/xxh64.h"

#define SIZE_MAX_HERE 70000

static void block(const u8 *data, size_t length, u64 size)
{
	u8 *ours = malloc(size + !size), *theirs = calloc(1, size + !size);
	int got = LZ4_decompress_safe((const char *)data, (char *)theirs, (int)length, (int)size);
	const char *wrong = lz4_unpack(data, length, ours, size);

	if (!wrong && got >= 0 && ((u64)got != size || memcmp(ours, theirs, size)))
		abort();
	/* liblz4 lets an offset of 0 pass, which the format forbids. */
	if (wrong && got >= 0 && (u64)got == size && !strstr(wrong, "outside"))
		abort();
	free(ours);
	free(theirs);
}

static void unpack_piece(const struct pieces *p, u32 i, u8 *piece)
{
	struct pieces_cursor c = { 0 };

	while (c.out < pieces_size(p, i) && !pieces_unpack(p, i, &c, piece))
		;
}

static void file(const u8 *data, size_t length)
{
	struct pieces_header h = { .magic = PIECES_MAGIC };
	u8 *copy = malloc(sizeof(h) + length), *piece = malloc(PIECE_SIZE);
	u64 tables;
	struct pieces p;

	memcpy(&h.size, data, MIN(length, sizeof(h) - offsetof(struct pieces_header, size)));
	tables = h.nr_pieces * sizeof(struct pieces_entry) + h.nr_hot * sizeof(u32);
	if (tables <= length)
		h.check = xxh64(data, tables, xxh64(&h, offsetof(struct pieces_header, check), 0));
	memcpy(copy, &h, sizeof(h));
	memcpy(copy + sizeof(h), data, length);
	if (!pieces_open(&p, copy, sizeof(h) + length))
		for (u32 i = 0; i < MIN(p.nr, 4u); i++)
			unpack_piece(&p, i, piece);
	free(copy);
	free(piece);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	if (size < 4)
		return 0;
	if (data[0] & 1)
		file(data + 1, size - 1);
	else
		block(data + 4, size - 4, (data[1] | data[2] << 8 | data[3] << 16) % SIZE_MAX_HERE);
	return 0;
}
