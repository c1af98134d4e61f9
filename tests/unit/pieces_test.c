/* SPDX-License-Identifier: MIT */
/* Packed pieces: our LZ4 and XXH64 against the libraries, and every damage of a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <lz4hc.h>
#include <xxhash.h>
#include "lib/lz4.h"
#include "lib/pieces.h"
#include "lib/xxh64.h"
#include "tests/unit/host.h"

static u64 seed;

static void checksum_is_the_librarys(void **state)
{
	u8 data[300];

	(void)state;
	for (u32 i = 0; i < sizeof(data); i++)
		data[i] = (u8)host_random(&seed);
	for (u32 size = 0; size < 256; size++) {
		u64 s = size % 3 ? host_random(&seed) : 0;

		assert_true(xxh64(data + size % 9, size, s) == XXH64(data + size % 9, size, s));
	}
}

/* Unpack a block of its own size to an area of its own size: ASan sees a step beside them. */
static const char *unpack(const void *block, u64 length, u64 size, void *want)
{
	u8 *src = malloc(length + !length), *dst = malloc(size + !size);
	const char *wrong;

	memcpy(src, block, length);
	wrong = lz4_unpack(src, length, dst, size);
	if (!wrong)
		assert_memory_equal(dst, want, size);
	free(src);
	free(dst);
	return wrong;
}

#define BLOCK(...) ((const u8[]){ __VA_ARGS__ }), sizeof((const u8[]){ __VA_ARGS__ })

static void blocks_by_hand(void **state)
{
	char a[300];

	(void)state;
	memset(a, 'a', sizeof(a));
	assert_null(unpack(BLOCK(0), 0, a));
	assert_null(unpack(BLOCK(0x30, 'a', 'a', 'a'), 3, a));
	/* a match that repeats itself; a length of 15 + 0; one of 15 + 255 + 6 */
	assert_null(unpack(BLOCK(0x15, 'a', 1, 0, 0x10, 'a'), 11, a));
	assert_null(unpack(BLOCK(0x1f, 'a', 1, 0, 0, 0x10, 'a'), 21, a));
	assert_null(unpack(BLOCK(0x1f, 'a', 1, 0, 255, 6, 0x10, 'a'), 282, a));
	assert_null(unpack(BLOCK(0x34, 'a', 'b', 'c', 3, 0, 0), 11, "abcabcabcab"));

	assert_string_equal(unpack(BLOCK(0x30, 'a', 'a'), 3, a), "literals are cut short");
	assert_string_equal(unpack(BLOCK(0xf0, 255, 255), 3, a), "literals are cut short");
	assert_string_equal(unpack(BLOCK(0x30, 'a', 'a', 'a'), 2, a),
			    "literals reach beyond its size");
	assert_string_equal(unpack(BLOCK(0x30, 'a', 'a', 'a'), 4, a), "too short for its size");
	assert_string_equal(unpack(BLOCK(0x10, 'a', 1), 9, a), "a match is cut short");
	assert_string_equal(unpack(BLOCK(0x1f, 'a', 1, 0, 255), 9, a), "a match is cut short");
	assert_string_equal(unpack(BLOCK(0x10, 'a', 0, 0, 0), 5, a),
			    "a match begins outside of what was unpacked");
	assert_string_equal(unpack(BLOCK(0x10, 'a', 2, 0, 0), 5, a),
			    "a match begins outside of what was unpacked");
	assert_string_equal(unpack(BLOCK(0x11, 'a', 1, 0, 0), 5, a),
			    "a match reaches beyond its size");
	assert_string_equal(unpack(BLOCK(0x10, 'a', 1, 0), 5, a), "its last sequence is cut short");
}

/* Words of few letters, runs, and noise, at random. */
static void fill(u8 *data, u64 size)
{
	for (u64 at = 0; at < size;) {
		u64 r = host_random(&seed), run = MIN(r >> 8 & 0x3ff, size - at);

		if (r & 1 && at)
			for (u64 i = 0; i < run; i++)
				data[at + i] = data[at + i - 1 - r % MIN(at, 70000ul)];
		else
			for (u64 i = 0; i < run; i++)
				data[at + i] = (u8)(r & 2 ? host_random(&seed) : r >> 20);
		at += run;
	}
}

static void what_the_library_packs(void **state)
{
	int room = LZ4_compressBound(200000);
	char *data = malloc(200000), *block = malloc((size_t)room);

	(void)state;
	for (u32 i = 0; i < 200; i++) {
		int size = (int)(host_random(&seed) % (i % 4 ? 2000 : 200000)), length;

		fill((u8 *)data, (u64)size);
		length = i % 2 ? LZ4_compress_default(data, block, size, room)
			       : LZ4_compress_HC(data, block, size, room, 9);
		assert_null(unpack(block, (u64)length, (u64)size, data));
		if (length > 1)
			assert_non_null(unpack(block, (u64)length - 1, (u64)size, data));
		assert_non_null(unpack(block, (u64)length, (u64)size + 1, data));
	}
	free(data);
	free(block);
}

/*
 * A file of three pieces: zeros; blocks that pack well, with one of zeros; a short one with a block
 * of noise, which is stored.
 */
#define NR	  3u
#define NOISE	  5000u
#define SIZE	  (2 * PIECE_SIZE + NOISE)
#define BLOCKS	  (PIECE_SIZE / PIECE_BLOCK)
#define PACKED_TO 400u /* a block of text */
struct file {
	struct pieces_header h;
	struct pieces_entry e[NR];
	u32 hot[2];
	u8 text[BLOCKS * (sizeof(struct pieces_block) + PACKED_TO)];
	struct pieces_block noise_block;
	u8 noise[NOISE];
};
static struct file good;
static u8 *contents;

static void seal(struct file *f)
{
	f->h.check = xxh64(f->e, sizeof(f->e) + sizeof(f->hot),
			   xxh64(&f->h, offsetof(struct pieces_header, check), 0));
}

static u64 add_block(u8 *out, u64 at)
{
	const char *from = (char *)contents + at;
	struct pieces_block b = { .check = (u32)XXH64(from, PIECE_BLOCK, at) };

	if (at % PIECE_SIZE != 5 * PIECE_BLOCK)
		b.length = (u32)LZ4_compress_default(from, (char *)out + sizeof(b), PIECE_BLOCK,
						     PACKED_TO);
	memcpy(out, &b, sizeof(b));
	return sizeof(b) + b.length;
}

static int make_good(void **state)
{
	(void)state;
	seed = host_seed();
	contents = calloc(1, SIZE);
	for (u64 i = 0; i < PIECE_SIZE; i++)
		if (i / PIECE_BLOCK != 5)
			contents[PIECE_SIZE + i] = (u8)(i / 10000 + 1);
	for (u32 i = 0; i < NOISE; i++)
		contents[2 * PIECE_SIZE + i] = good.noise[i] = (u8)host_random(&seed);
	good.h = (struct pieces_header){
		.magic = PIECES_MAGIC, .size = SIZE, .nr_pieces = NR, .nr_hot = 2
	};
	good.e[1].offset = offsetof(struct file, text);
	for (u64 at = 0; at < PIECE_SIZE; at += PIECE_BLOCK)
		good.e[1].length += add_block(good.text + good.e[1].length, PIECE_SIZE + at);
	good.e[2].offset = offsetof(struct file, noise_block);
	good.e[2].length = sizeof(good.noise_block) + NOISE;
	good.noise_block.length = NOISE;
	good.noise_block.check = (u32)XXH64(good.noise, NOISE, 2 * PIECE_SIZE);
	good.hot[0] = 2;
	seal(&good);
	return 0;
}

static int drop(void **state)
{
	(void)state;
	free(contents);
	return 0;
}

/* What is wrong with the file or one of its pieces; those that are good have the right contents. */
static const char *try_file(const struct file *f, u64 length)
{
	u8 *copy = malloc(length + !length), *piece = malloc(PIECE_SIZE);
	const char *wrong;
	struct pieces p;

	memcpy(copy, f, length);
	wrong = pieces_open(&p, copy, length);
	for (u32 i = 0; !wrong && i < p.nr; i++) {
		struct pieces_cursor c = { 0 };

		while (!wrong && c.out < pieces_size(&p, i))
			wrong = pieces_unpack(&p, i, &c, piece);
		if (!wrong)
			assert_memory_equal(piece, contents + i * PIECE_SIZE, pieces_size(&p, i));
	}
	free(copy);
	free(piece);
	return wrong;
}

static void a_good_file(void **state)
{
	struct pieces p;

	(void)state;
	assert_null(try_file(&good, sizeof(good)));
	assert_null(pieces_open(&p, &good, sizeof(good)));
	assert_int_equal(p.size, SIZE);
	assert_int_equal(p.nr, NR);
	assert_int_equal(pieces_size(&p, 1), PIECE_SIZE);
	assert_int_equal(pieces_size(&p, 2), NOISE);
	assert_int_equal(p.nr_hot, 2);
	assert_int_equal(p.hot[0], 2);
}

static void cut_anywhere(void **state)
{
	(void)state;
	for (u64 length = 0; length < sizeof(good); length += length < 200 ? 1 : 97)
		assert_non_null(try_file(&good, length));
}

static void one_bit_anywhere(void **state)
{
	u64 unused = good.e[1].offset + good.e[1].length, step;

	(void)state;
	for (u64 bit = 0; bit < 8 * sizeof(good); bit += step) {
		u64 at = bit / 8;
		struct file f = good;

		step = at < 250 || at - good.e[2].offset < 10 ? 1 : 409;
		((u8 *)&f)[at] ^= (u8)(1 << bit % 8);
		if (at < unused || at >= good.e[2].offset)
			assert_non_null(try_file(&f, sizeof(f)));
		else
			assert_null(try_file(&f, sizeof(f)));
	}
}

/* Lies whose checksums are right. */
static void lies(void **state)
{
	struct file f;

	(void)state;
#define LIE(change, what)                                           \
	do {                                                        \
		f = good;                                           \
		change;                                             \
		seal(&f);                                           \
		assert_string_equal(try_file(&f, sizeof(f)), what); \
	} while (0)
	LIE(f.h.size = 0, "its number of pieces does not fit its size");
	LIE(f.h.size = ~0ull, "its number of pieces does not fit its size");
	LIE(f.h.size = 3 * PIECE_SIZE + 1, "its number of pieces does not fit its size");
	LIE((f.h.nr_pieces = 0xffffffff, f.h.size = 0xffffffffull * PIECE_SIZE),
	    "its number of pieces does not fit its size");
	LIE(f.h.nr_hot = 0xffffffff, "cut short within its tables");
	LIE(f.e[1].offset = sizeof(f) - 1, "a piece lies beyond the file's end");
	LIE(f.e[1].offset = ~0ull, "a piece lies beyond the file's end");
	LIE(f.e[1].length = ~0ull, "a piece lies beyond the file's end");
	LIE(f.hot[1] = NR, "its hot set names a piece that it does not have");
	LIE(f.e[1].length--, "a block has a bad length");
	LIE(f.e[1].length = 7, "cut short before a block");
	LIE(f.noise_block.length = NOISE + 1, "a block has a bad length");
	LIE(f.noise_block.length = 0, "a block's checksum is wrong");
	LIE(f.noise_block.check ^= 1, "a block's checksum is wrong");
	LIE(f.noise[0] ^= 1, "a block's checksum is wrong");
	LIE((f.e[0] = good.e[1], f.e[1] = good.e[0]), "a block's checksum is wrong");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksum_is_the_librarys),
		cmocka_unit_test(blocks_by_hand),
		cmocka_unit_test(what_the_library_packs),
		cmocka_unit_test(a_good_file),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(one_bit_anywhere),
		cmocka_unit_test(lies),
	};

	return cmocka_run_group_tests(tests, make_good, drop);
}
