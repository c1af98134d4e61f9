/* SPDX-License-Identifier: MIT */
/*
 * mkpieces [-H LIST] IN OUT: pack IN, any file, into pieces that Corbel unpacks one by one, by need
 * (lib/pieces.h). LIST names the pieces to be loaded ahead, a number a line, the most wanted first.
 * mkpieces -x IN OUT: unpack. mkpieces -l IN: say what is in it.
 * mkpieces -s VM [-r] [-H LIST] DUMP OUT: the snapshot of that VM, out of the memory of the machine
 * that Corbel ran on: its saved state (virt/state.h), and behind that its memory, packed. DUMP is
 * an ELF core file of that machine (QEMU's dump-guest-memory), or its physical memory from address
 * 0 on, as it is (pmemsave). With -r it is a file that an emulator has its memory in, without the
 * hole below 4 GiB.
 *
 * What was packed is opened and compared with Corbel's own code before it is called good.
 */
#define _GNU_SOURCE /* SEEK_DATA */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4hc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/pieces.h"
#include "lib/xxh64.h"
#include "mm/backing.h"
#include "virt/state.h"

#define DIRECT_MAP 0xffff800000000000ull /* Corbel's: pointers are physical addresses behind it */
#define RANGES	   64			 /* of a core file */
#define PARENTS	   4096			 /* of an object; more are a loop */

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

/* The packed file of these contents: *length bytes of it, the caller's. */
static u8 *pack_data(const u8 *data, u64 size, const char *out, const char *list, u64 *length)
{
	struct pieces_header h = { .magic = PIECES_MAGIC };
	struct pieces_entry *entries;
	struct pieces p;
	u64 tables, end;
	u32 *hot = NULL;
	u8 *file;

	if ((size - 1) / PIECE_SIZE >= 0xffffffffu)
		die("%s: would be too large", out);
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
	free(hot);
	*length = end;
	return file;
}

static void pack(const char *in, const char *out, const char *list)
{
	u64 size, length;
	u8 *data = read_file(in, &size), *file;

	if (!size)
		die("%s: is empty", in);
	file = pack_data(data, size, out, list, &length);
	write_file(out, file, length);
	free(file);
	free(data);
}

/* --- snapshots --- */

/* Where a dump has which physical addresses. */
struct dump {
	const char *path;
	const u8 *file;
	u64 size;
	int fd;
	u32 nr; /* 0: as it is, from address 0 on */
	struct {
		u64 address, offset, size;
	} range[RANGES];
};

static void open_dump(struct dump *d, const char *path)
{
	int fd = open(path, O_RDONLY);
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	const Elf64_Phdr *segment;
	const Elf64_Ehdr *elf;

	if (end < 0)
		die("%s: %s", path, strerror(errno));
	*d = (struct dump){ .path = path, .size = (u64)end, .fd = fd };
	d->file = end ? mmap(NULL, d->size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	if (d->file == MAP_FAILED)
		die("%s: can't be read", path);
	elf = (const void *)d->file;
	if (d->size < sizeof(*elf) || memcmp(elf->e_ident, ELFMAG, SELFMAG))
		return;
	if (elf->e_type != ET_CORE || elf->e_phentsize != sizeof(*segment) || elf->e_phoff % 8 ||
	    elf->e_phoff > d->size || elf->e_phnum > (d->size - elf->e_phoff) / sizeof(*segment))
		die("%s: is no core file for this tool", path);
	segment = (const void *)(d->file + elf->e_phoff);
	for (u32 i = 0; i < elf->e_phnum; i++) {
		if (segment[i].p_type != PT_LOAD)
			continue;
		if (d->nr == RANGES || segment[i].p_offset > d->size ||
		    segment[i].p_filesz > d->size - segment[i].p_offset)
			die("%s: segment %u is not in the file, or too many", path, i);
		d->range[d->nr].address = segment[i].p_paddr;
		d->range[d->nr].offset = segment[i].p_offset;
		d->range[d->nr++].size = segment[i].p_filesz;
	}
}

static const void *physical(const struct dump *d, u64 address, u64 size)
{
	for (u32 i = 0; i < d->nr; i++) {
		u64 at = address - d->range[i].address;

		if (address >= d->range[i].address && at < d->range[i].size &&
		    size <= d->range[i].size - at)
			return d->file + d->range[i].offset + at;
	}
	die("%s: has no physical address %#llx", d->path, (unsigned long long)address);
}

static u64 check_of(const struct state_header *h)
{
	return xxh64(h + 1, h->size - sizeof(*h),
		     xxh64(h, offsetof(struct state_header, check), 0));
}

static bool is_record(const struct state_header *h, u64 room)
{
	return room >= sizeof(*h) && !memcmp(h->magic, STATE_MAGIC, sizeof(h->magic)) &&
	       h->size >= sizeof(*h) && h->size <= room && check_of(h) == h->check &&
	       !h->name[sizeof(h->name) - 1];
}

/* The next 2 MiB of the file in which there is something: most of a large dump may be a hole. */
static u64 skip_hole(const struct dump *d, u64 at)
{
	off_t data = at % PIECE_SIZE ? (off_t)at : lseek(d->fd, (off_t)at, SEEK_DATA);

	return data < 0 ? d->size : ALIGN_DOWN((u64)data, sizeof(u64));
}

static const struct state_header *find_record(const struct dump *d, const char *vm)
{
	const struct state_header *found = NULL;
	u64 others = 0;

	for (u64 at = skip_hole(d, 0); at + sizeof(*found) <= d->size;
	     at = skip_hole(d, at + sizeof(u64))) {
		const struct state_header *h = (const void *)(d->file + at);

		if (!is_record(h, d->size - at))
			continue;
		if (h->version != STATE_VERSION)
			die("%s: %s is of another version of Corbel", d->path, h->name);
		others++;
		if (strcmp(h->name, vm))
			fprintf(stderr, "mkpieces: %s: a snapshot of %s\n", d->path, h->name);
		else if (found)
			die("%s: has several snapshots of %s", d->path, vm);
		else
			found = h;
	}
	if (!found)
		die("%s: has no snapshot of %s (%llu of other VMs)", d->path, vm,
		    (unsigned long long)others);
	return found;
}

/* Which addresses are where in a file that does not say so; the record says where memory ends. */
static void place_memory(struct dump *d, const struct state_header *h, bool no_hole)
{
	u64 high = no_hole && h->end > 4 * GIB ? MIN(h->end - 4 * GIB, d->size) : 0;
	u64 low = d->size - high;

	if (d->nr)
		return;
	d->range[0].size = low;
	d->range[1].address = 4 * GIB;
	d->range[1].offset = low;
	d->range[1].size = high;
	d->nr = 2;
	if (!high && ALIGN_UP(d->size, PIECE_SIZE) < h->end)
		die("%s: ends at %#llx, but the machine's memory does at %#llx: -r?", d->path,
		    (unsigned long long)d->size, (unsigned long long)h->end);
	if (physical(d, h->address, sizeof(*h)) != h)
		die("%s: the snapshot is not where it says, at %#llx", d->path,
		    (unsigned long long)h->address);
}

static const struct backing *object(const struct dump *d, u64 address)
{
	const struct backing *b = physical(d, address, sizeof(*b));

	if (!b->size || b->size % PAGE_SIZE)
		die("%s: no VM's memory at %#llx: is that a whole dump?", d->path,
		    (unsigned long long)address);
	return physical(d, address, sizeof(*b) + (b->size + PIECE_SIZE - 1) / PIECE_SIZE * 8);
}

/* What the page reads as; NULL: zero. */
static const u8 *page_at(const struct dump *d, const struct backing *b, u64 offset)
{
	u64 word = 0, at = offset % PIECE_SIZE;

	for (u32 n = 0; n < PARENTS && offset < b->size; n++) {
		word = b->words[offset / PIECE_SIZE];
		at = offset % PIECE_SIZE;
		if (backing_state(word) == BACKING_TABLE) {
			word = *(const u64 *)physical(
				d, (word & ~BACKING_STATE) - DIRECT_MAP + at / PAGE_SIZE * 8, 8);
			at = 0;
		}
		if (backing_state(word) != BACKING_INHERITED)
			break;
		b = object(d, (u64)(uintptr_t)b->parent - DIRECT_MAP);
	}
	if (backing_state(word) == BACKING_ZERO)
		return NULL;
	if (backing_state(word) != BACKING_PRESENT && backing_state(word) != BACKING_COPIED &&
	    backing_state(word) != BACKING_READONLY)
		die("%s: the VM's memory at %#llx was not there", d->path,
		    (unsigned long long)offset);
	return physical(d, (word & ~BACKING_STATE) - DIRECT_MAP + at, PAGE_SIZE);
}

/* The object's contents, packed; *length bytes, the caller's. */
static u8 *pack_object(const struct dump *d, u64 address, const char *out, const char *list,
		       u64 *length)
{
	const struct backing *b = object(d, address);
	u8 *data = calloc(b->size, 1), *file;

	if (!b->size || !data)
		die("no memory for %llu bytes", (unsigned long long)b->size);
	for (u64 at = 0; at < b->size; at += PAGE_SIZE) {
		const u8 *page = page_at(d, b, at);

		if (page)
			memcpy(data + at, page, PAGE_SIZE);
	}
	file = pack_data(data, b->size, out, list, length);
	free(data);
	return file;
}

static void snapshot(const char *vm, const char *in, const char *out, const char *list,
		     bool no_hole)
{
	const struct state_header *h;
	struct state_header *file;
	struct dump d;
	u64 end;

	open_dump(&d, in);
	h = find_record(&d, vm);
	place_memory(&d, h, no_hole);
	if (h->disk)
		die("%s: %s has a disk that it may write, which no image has", in, vm);
	end = ALIGN_UP(h->size, 8);
	file = allocate(end);
	memset(file, 0, end);
	memcpy(file, h, h->size);
	file->address = file->order = file->end = 0;
	for (u32 i = 0; i < STATE_OBJECTS && h->memory[i]; i++) {
		u64 length;
		u8 *packed = pack_object(&d, h->memory[i], out, i ? NULL : list, &length);

		file = realloc(file, end + ALIGN_UP(length, 8));
		if (!file)
			die("no memory for %s", out);
		memcpy((u8 *)file + end, packed, length);
		memset((u8 *)file + end + length, 0, ALIGN_UP(length, 8) - length);
		file->memory[i] = end;
		end += ALIGN_UP(length, 8);
		free(packed);
	}
	file->check = check_of(file);
	write_file(out, file, end);
	free(file);
	munmap((void *)(uintptr_t)d.file, d.size);
	close(d.fd);
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

static void list_pieces(const char *in, const u8 *file, u64 length)
{
	struct pieces p;
	u32 zero = 0;

	open_file(&p, in, file, length);
	unpack_all(&p, in, NULL, NULL);
	for (u32 i = 0; i < p.nr; i++)
		zero += !p.entries[i].length;
	printf("%llu bytes in %llu: %u pieces, %u of zeros, %u hot\n", (unsigned long long)p.size,
	       (unsigned long long)length, p.nr, zero, p.nr_hot);
}

static void list(const char *in)
{
	u64 length;
	u8 *file = read_file(in, &length);
	const struct state_header *h = (const void *)file;

	if (!is_record(h, length)) {
		list_pieces(in, file, length);
	} else {
		printf("a snapshot of %s\n", h->name);
		for (u32 i = 0; i < STATE_OBJECTS && h->memory[i]; i++)
			if (h->memory[i] < length)
				list_pieces(in, file + h->memory[i], length - h->memory[i]);
	}
	free(file);
}

int main(int argc, char **argv)
{
	const char *hot = NULL, *vm = NULL;
	bool no_hole = false;
	char what = 0;
	int option;

	while ((option = getopt(argc, argv, "H:s:rxl")) != -1) {
		if (option == 'H')
			hot = optarg;
		else if (option == 's')
			vm = optarg;
		else if (option == 'r')
			no_hole = true;
		else
			what = (char)option;
	}
	if (what == 'l' && argc - optind == 1)
		list(argv[optind]);
	else if (what == 'x' && argc - optind == 2)
		unpack(argv[optind], argv[optind + 1]);
	else if (vm && !what && argc - optind == 2)
		snapshot(vm, argv[optind], argv[optind + 1], hot, no_hole);
	else if (!what && argc - optind == 2)
		pack(argv[optind], argv[optind + 1], hot);
	else
		die("usage: mkpieces [-s VM [-r]] [-H LIST] IN OUT | -x IN OUT | -l IN");
	return 0;
}
