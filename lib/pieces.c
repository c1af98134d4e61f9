/* SPDX-License-Identifier: MIT */
#include "lib/lz4.h"
#include "lib/pieces.h"
#include "lib/string.h"
#include "lib/xxh64.h"

bool pieces_detect(const void *file, u64 length)
{
	return length >= sizeof(PIECES_MAGIC) - 1 &&
	       !memcmp(file, PIECES_MAGIC, sizeof(PIECES_MAGIC) - 1);
}

u64 pieces_size(const struct pieces *p, u32 i)
{
	return MIN(p->size - (u64)i * PIECE_SIZE, PIECE_SIZE);
}

const char *pieces_open(struct pieces *p, const void *file, u64 length)
{
	const struct pieces_header *h = file;
	const char *wrong = NULL;
	u64 tables;

	if (!pieces_detect(file, length))
		return "no file of packed pieces";
	if (length < sizeof(*h))
		return "cut short within its header";
	/* No more pieces than entries have room in the file: then no size below can wrap. */
	if (!h->size || h->nr_pieces > length / sizeof(struct pieces_entry) ||
	    h->nr_pieces != (h->size - 1) / PIECE_SIZE + 1)
		return "its number of pieces does not fit its size";
	tables = h->nr_pieces * sizeof(struct pieces_entry) + (u64)h->nr_hot * sizeof(u32);
	if (tables > length - sizeof(*h))
		return "cut short within its tables";
	if (xxh64(h + 1, tables, xxh64(h, offsetof(struct pieces_header, check), 0)) != h->check)
		return "its header or tables are damaged";
	*p = (struct pieces){
		.file = file, .size = h->size, .nr = h->nr_pieces, .nr_hot = h->nr_hot
	};
	p->entries = (const void *)(h + 1);
	p->hot = (const void *)(p->entries + p->nr);
	for (u32 i = 0; i < p->nr; i++)
		if (p->entries[i].offset > length ||
		    p->entries[i].length > length - p->entries[i].offset)
			wrong = "a piece lies beyond the file's end";
	for (u32 i = 0; !wrong && i < p->nr_hot; i++)
		wrong = p->hot[i] < p->nr ? NULL
					  : "its hot set names a piece that it does not have";
	return wrong;
}

const char *pieces_unpack(const struct pieces *p, u32 i, struct pieces_cursor *c, void *dst)
{
	const struct pieces_entry *e = &p->entries[i];
	const u8 *in = p->file + e->offset + c->in;
	u64 size = MIN(pieces_size(p, i) - c->out, PIECE_BLOCK), left = e->length - c->in;
	struct pieces_block b;
	u8 *out = (u8 *)dst + c->out;
	const char *wrong = NULL;

	if (!e->length) {
		memset(out, 0, size);
		c->out += size;
		return NULL;
	}
	if (left < sizeof(b))
		return "cut short before a block";
	memcpy(&b, in, sizeof(b));
	if (b.length > MIN(left - sizeof(b), size))
		return "a block has a bad length";
	if (!b.length)
		memset(out, 0, size);
	else if (b.length == size)
		memcpy(out, in + sizeof(b), size);
	else
		wrong = lz4_unpack(in + sizeof(b), b.length, out, size);
	if (!wrong && (u32)xxh64(out, size, (u64)i * PIECE_SIZE + c->out) != b.check)
		wrong = "a block's checksum is wrong";
	c->in += sizeof(b) + b.length;
	c->out += size;
	return wrong;
}
