/* SPDX-License-Identifier: MIT */
/*
 * A block is a row of sequences: a token, literals, and a match, which repeats what was written up
 * to 64 KiB before. The token holds both lengths, 15 meaning "and the bytes that follow, up to the
 * first that is not 255". The last sequence ends behind its literals.
 */
#include "lib/lz4.h"
#include "lib/string.h"

#define MATCH_MIN 4
#define MORE	  15 /* a length in a token */

struct input {
	const u8 *at, *end;
};

/* A length whose first part is `length`; ~0: the input ends within it. It can't wrap: each byte
 * adds at most 255. */
static u64 read_length(struct input *in, u64 length)
{
	u8 more;

	if (length < MORE)
		return length;
	do {
		if (in->at == in->end)
			return ~0ull;
		more = *in->at++;
		length += more;
	} while (more == 255);
	return length;
}

/* The match may begin less than size bytes before: then it repeats what it has just written. */
static void copy_match(u8 *dst, u64 offset, u64 size)
{
	const u8 *from = dst - offset;

	if (offset >= size) {
		memcpy(dst, from, size);
		return;
	}
	if (offset >= 8) {
		for (; size >= 8; size -= 8, dst += 8, from += 8)
			memcpy(dst, from, 8);
	}
	while (size--)
		*dst++ = *from++;
}

const char *lz4_unpack(const void *src, u64 src_size, void *dst, u64 dst_size)
{
	struct input in = { src, (const u8 *)src + src_size };
	u8 *out = dst, *start = dst, *end = out + dst_size;
	u64 length, offset;
	u8 token;

	while (in.at != in.end) {
		token = *in.at++;
		length = read_length(&in, token >> 4);
		if (length > (u64)(in.end - in.at))
			return "literals are cut short";
		if (length > (u64)(end - out))
			return "literals reach beyond its size";
		memcpy(out, in.at, length);
		out += length;
		in.at += length;
		if (in.at == in.end)
			return out == end ? NULL : "too short for its size";

		if (in.end - in.at < 2)
			return "a match is cut short";
		offset = in.at[0] | in.at[1] << 8;
		in.at += 2;
		if (!offset || offset > (u64)(out - start))
			return "a match begins outside of what was unpacked";
		length = read_length(&in, token & 15);
		if (length == ~0ull)
			return "a match is cut short";
		length += MATCH_MIN;
		if (length > (u64)(end - out))
			return "a match reaches beyond its size";
		copy_match(out, offset, length);
		out += length;
	}
	return "its last sequence is cut short";
}
