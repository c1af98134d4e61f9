/* SPDX-License-Identifier: MIT */
/*
 * mkpieces [-H LIST] IN OUT: pack IN, any file, into pieces that Corbel unpacks one by one, by need
 * (lib/pieces.h). LIST names the pieces to be loaded ahead, a number a line, the most wanted first.
 * mkpieces -x IN OUT: unpack. mkpieces -l IN: say what is in it.
 *
 * What was packed is opened and compared with Corbel's own code before it is called good.
 */
#include <errno.h>
#include <lz4hc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/pieces.h"
#include "lib/xxh64.h"

#define LEVEL 9 /* of LZ4's HC: what gets smaller above it takes very long */

static NORETURN PRINTF(1, 2) void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("mkpieces: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void *allocate(u64 size)
{
	void *memory = malloc(size ? size : 1);

	if (!memory)
		die("no memory for %llu bytes", (unsigned long long)size);
	return memory;
}

static u8 *read_file(const char *path, u64 *size)
{
	FILE *file = fopen(path, "rb");
	u8 *data;
	long end;

	if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0)
		die("%s: %s", path, strerror(errno));
	rewind(file);
	*size = (u64)end;
	data = allocate(*size);
	if (fread(data, 1, *size, file) != *size)
		die("%s: cannot be read", path);
	fclose(file);
	return data;
}

static void write_file(const char *path, const void *data, u64 size)
{
	FILE *file = fopen(path, "wb");

	if (!file || fwrite(data, 1, size, file) != size || fclose(file))
		die("%s: %s", path, strerror(errno));
}

/* The numbers of the file, each once, all below nr. */
static u32 *read_hot(const char *path, u32 nr, u32 *nr_hot)
{
	u32 *hot = allocate(nr * sizeof(*hot));
	u8 *seen = calloc(nr, 1);
	u32 line = 0;
	char text[64];
	FILE *file = fopen(path, "r");

	if (!file)
		die("%s: %s", path, strerror(errno));
	for (*nr_hot = 0; fgets(text, sizeof(text), file);) {
		char *end;
		unsigned long i = strtoul(text, &end, 0);

		line++;
		if (end == text || strspn(end, " \t\r\n") != strlen(end))
			die("%s:%u: a piece's number is expected", path, line);
		if (i >= nr)
			die("%s:%u: there is no piece %lu, only %u pieces", path, line, i, nr);
		if (!seen[i])
			hot[(*nr_hot)++] = (u32)i;
		seen[i] = 1;
	}
	fclose(file);
	free(seen);
	return hot;
}

static bool all_zero(const u8 *data, u64 size)
{
	return !data[0] && !memcmp(data, data + 1, size - 1);
}

/* Packs size bytes at `at` of the contents to out, which has room for them and a header. */
static u64 pack_block(const u8 *data, u64 at, u64 size, u8 *out)
{
	struct pieces_block b = { .check = (u32)xxh64(data + at, size, at) };
	int length = 0;

	if (!all_zero(data + at, size)) {
		length = LZ4_compress_HC((const char *)data + at, (char *)out + sizeof(b),
					 (int)size, (int)size - 1, LEVEL);
		b.length = length > 0 ? (u32)length : (u32)size;
	}
	if (b.length == size)
		memcpy(out + sizeof(b), data + at, size);
	memcpy(out, &b, sizeof(b));
	return sizeof(b) + b.length;
}

static u64 pack_piece(const u8 *data, u64 at, u64 size, u8 *out)
{
	u64 length = 0;

	if (all_zero(data + at, size))
		return 0;
	for (u64 done = 0; done < size; done += PIECE_BLOCK)
		length += pack_block(data, at + done, MIN(size - done, PIECE_BLOCK), out + length);
	return length;
}

/* Every piece unpacked, compared with data if that is not NULL, and kept if it is `out`. */
static void unpack_all(const struct pieces *p, const char *path, const u8 *data, u8 *out)
{
	u8 *piece = allocate(PIECE_SIZE);

	for (u32 i = 0; i < p->nr; i++) {
		u64 at = (u64)i * PIECE_SIZE, size = pieces_size(p, i);
		struct pieces_cursor c = { 0 };
		const char *wrong = NULL;

		while (!wrong && c.out < size)
			wrong = pieces_unpack(p, i, &c, piece);
		if (wrong)
			die("%s: piece %u: %s", path, i, wrong);
		if (data && memcmp(data + at, piece, size))
			die("%s: piece %u: does not unpack to what was packed", path, i);
		if (out)
			memcpy(out + at, piece, size);
	}
	free(piece);
}

static void open_file(struct pieces *p, const char *path, const u8 *file, u64 length)
{
	const char *wrong = pieces_open(p, file, length);

	if (wrong)
		die("%s: %s", path, wrong);
}

static void pack(const char *in, const char *out, const char *list)
{
	struct pieces_header h = { .magic = PIECES_MAGIC };
	struct pieces_entry *entries;
	struct pieces p;
	u64 size, tables, end;
	u32 *hot = NULL;
	u8 *data = read_file(in, &size), *file;

	if (!size)
		die("%s: is empty", in);
	if ((size - 1) / PIECE_SIZE >= 0xffffffffu)
		die("%s: is too large", in);
	h.size = size;
	h.nr_pieces = (u32)((size - 1) / PIECE_SIZE + 1);
	if (list)
		hot = read_hot(list, h.nr_pieces, &h.nr_hot);
	tables = h.nr_pieces * sizeof(*entries) + h.nr_hot * sizeof(*hot);
	file = allocate(sizeof(h) + tables + size +
			(size / PIECE_BLOCK + 1) * sizeof(struct pieces_block));
	entries = (void *)(file + sizeof(h));
	end = sizeof(h) + tables;
	for (u32 i = 0; i < h.nr_pieces; i++) {
		u64 at = (u64)i * PIECE_SIZE;

		entries[i].offset = end;
		entries[i].length = pack_piece(data, at, MIN(size - at, PIECE_SIZE), file + end);
		end += entries[i].length;
	}
	if (hot)
		memcpy(entries + h.nr_pieces, hot, h.nr_hot * sizeof(*hot));
	h.check = xxh64(entries, tables, xxh64(&h, offsetof(struct pieces_header, check), 0));
	memcpy(file, &h, sizeof(h));
	open_file(&p, out, file, end);
	unpack_all(&p, out, data, NULL);
	write_file(out, file, end);
	free(hot);
	free(file);
	free(data);
}

static void unpack(const char *in, const char *out)
{
	struct pieces p;
	u64 length;
	u8 *file = read_file(in, &length), *data;

	open_file(&p, in, file, length);
	data = allocate(p.size);
	unpack_all(&p, in, NULL, data);
	write_file(out, data, p.size);
	free(data);
	free(file);
}

static void list(const char *in)
{
	struct pieces p;
	u64 length;
	u32 zero = 0;
	u8 *file = read_file(in, &length);

	open_file(&p, in, file, length);
	unpack_all(&p, in, NULL, NULL);
	for (u32 i = 0; i < p.nr; i++)
		zero += !p.entries[i].length;
	printf("%llu bytes in %llu: %u pieces, %u of zeros, %u hot\n", (unsigned long long)p.size,
	       (unsigned long long)length, p.nr, zero, p.nr_hot);
	free(file);
}

int main(int argc, char **argv)
{
	const char *hot = NULL;
	char what = 0;
	int option;

	while ((option = getopt(argc, argv, "H:xl")) != -1) {
		if (option == 'H')
			hot = optarg;
		else
			what = (char)option;
	}
	if (what == 'l' && argc - optind == 1)
		list(argv[optind]);
	else if (what == 'x' && argc - optind == 2)
		unpack(argv[optind], argv[optind + 1]);
	else if (!what && argc - optind == 2)
		pack(argv[optind], argv[optind + 1], hot);
	else
		die("usage: mkpieces [-H LIST] IN OUT | -x IN OUT | -l IN");
	return 0;
}
