/* SPDX-License-Identifier: MIT */
/*
 * Images of snapshots, out of dumps of each kind of a machine that has memory below 4 GiB and above
 * it; and dumps that are not what the tool takes them for.
 */
#define _GNU_SOURCE /* as the tool */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static char said[200];
static jmp_buf died;
#define exit(status)		     longjmp(died, status)
#define vfprintf(file, format, args) vsnprintf(said, sizeof(said), format, args)
#define main			     mkpieces
#include "tools/mkpieces.c"
#undef main
#undef exit
#include <cmocka.h>

#define LOW  (8 * MIB) /* of the machine's memory; as much from 4 GiB on */
#define HIGH (4 * GIB)
#define SIZE (6 * MIB) /* of the VM's memory, in two slots */

enum dump_kind { RAW, RAM_FILE, CORE };

static u8 ram[2 * LOW], model[2][SIZE];
static char folder[] = "/tmp/mkpieces-XXXXXX", dump[64], image[64];

static void *at(u64 address)
{
	return ram + (address < LOW ? address : address - HIGH + LOW);
}

static u64 word(u64 address, enum backing_state state)
{
	return address ? (DIRECT_MAP + address) | state : state;
}

static void fill(u64 address, u64 size, u8 *copy)
{
	static u8 n;

	for (u64 i = 0; i < size; i += 8)
		((u8 *)at(address))[i] = copy[i] = (u8)(i / 8 + ++n);
}

/* A child with a parent: what is low lies high in the other slot's, and the other way round. */
static u64 put_object(u32 slot)
{
	const u64 here = slot ? HIGH : 0, there = slot ? 0 : HIGH;
	struct backing *child = at(here + 0x20000), *parent = at(there + 0x30000);
	u64 *table = at(there + 0x40000), *old = at(here + 0x50000);

	child->size = parent->size = SIZE;
	child->parent = (void *)(uintptr_t)(DIRECT_MAP + there + 0x30000);
	child->words[0] = word(0, BACKING_INHERITED);
	child->words[1] = word(there + 0x40000, BACKING_TABLE);
	child->words[2] = word(0, BACKING_INHERITED);
	parent->words[0] = word(here + 2 * MIB, BACKING_PRESENT);
	parent->words[1] = word(here + 0x50000, BACKING_TABLE);
	parent->words[2] = word(0, BACKING_ZERO);
	fill(here + 2 * MIB, 2 * MIB, model[slot]);
	for (u32 i = 0; i < 512; i++) {
		table[i] = word(0, i % 3 ? BACKING_INHERITED : BACKING_ZERO);
		old[i] = word(0, BACKING_ZERO);
	}
	table[7] = word(here + 4 * MIB, BACKING_COPIED);
	fill(here + 4 * MIB, PAGE_SIZE, model[slot] + 2 * MIB + 7 * PAGE_SIZE);
	old[8] = word(there + 5 * MIB, BACKING_PRESENT);
	fill(there + 5 * MIB, PAGE_SIZE, model[slot] + 2 * MIB + 8 * PAGE_SIZE);
	return here + 0x20000;
}

static struct state_header *put_record(u64 address)
{
	struct state_header *h;

	memset(ram, 0, sizeof(ram));
	memset(model, 0, sizeof(model));
	h = at(address);
	*h = (struct state_header){ .magic = STATE_MAGIC,
				    .version = STATE_VERSION,
				    .size = sizeof(*h) + 100,
				    .address = address,
				    .end = HIGH + LOW,
				    .name = "linux",
				    .memory = { put_object(0), put_object(1) } };
	memset(h + 1, 0x77, 100);
	h->check = check_of(h);
	return h;
}

static void write_at(int fd, u64 offset, const void *bytes, u64 size)
{
	assert_int_equal(pwrite(fd, bytes, size, (off_t)offset), size);
}

static void write_dump(enum dump_kind kind, u64 size)
{
	int fd = open(dump, O_RDWR | O_CREAT | O_TRUNC, 0600);
	Elf64_Ehdr elf = { .e_ident = ELFMAG,
			   .e_type = ET_CORE,
			   .e_phoff = sizeof(elf),
			   .e_phentsize = sizeof(Elf64_Phdr),
			   .e_phnum = 3 };
	Elf64_Phdr segment[] = {
		{ .p_type = PT_NOTE },
		{ .p_type = PT_LOAD, .p_paddr = HIGH, .p_offset = 4096, .p_filesz = LOW },
		{ .p_type = PT_LOAD, .p_paddr = 0, .p_offset = 4096 + LOW, .p_filesz = LOW },
	};

	assert_true(fd >= 0);
	if (kind == RAW) {
		write_at(fd, 0, ram, LOW);
		write_at(fd, HIGH, ram + LOW, LOW);
	} else if (kind == RAM_FILE) {
		write_at(fd, 0, ram, sizeof(ram));
	} else {
		write_at(fd, 0, &elf, sizeof(elf));
		write_at(fd, sizeof(elf), segment, sizeof(segment));
		write_at(fd, 4096, ram + LOW, LOW);
		write_at(fd, 4096 + LOW, ram, LOW);
	}
	if (size)
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

/* The tool's status, 0 or 1; what it says is in `said`. */
static int run(bool no_hole)
{
	char *plain[] = { "mkpieces", "-s", "linux", dump, image, NULL };
	char *with[] = { "mkpieces", "-s", "linux", "-r", dump, image, NULL };

	optind = 0; /* all anew */
	said[0] = '\0';
	return setjmp(died) ? 1 : mkpieces(no_hole ? 6 : 5, no_hole ? with : plain);
}

static void check_image(void)
{
	u64 length;
	u8 *file = read_file(image, &length), *unpacked = malloc(SIZE);
	const struct state_header *h = (const void *)file;

	assert_true(is_record(h, length));
	assert_int_equal(h->address | h->order | h->end, 0);
	for (u32 i = 0; i < 2; i++) {
		struct pieces p;

		open_file(&p, image, file + h->memory[i], length - h->memory[i]);
		assert_int_equal(p.size, SIZE);
		memset(unpacked, 0x5a, SIZE);
		unpack_all(&p, image, NULL, unpacked);
		assert_memory_equal(unpacked, model[i], SIZE);
	}
	free(unpacked);
	free(file);
}

static void test_every_kind(void **state)
{
	static const u64 places[] = { 0x10000, HIGH + 0x10000 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(places); i++) {
		put_record(places[i]);
		for (enum dump_kind kind = RAW; kind <= CORE; kind++) {
			write_dump(kind, 0);
			if (run(kind == RAM_FILE))
				fail_msg("dump %u, record at %#lx: %s", kind, places[i], said);
			check_image();
		}
	}
}

static void refused(bool no_hole, const char *why)
{
	if (!run(no_hole) || !strstr(said, why))
		fail_msg("not '%s', but '%s'", why, said);
}

static void test_refused(void **state)
{
	struct state_header *h = put_record(0x10000);

	(void)state;
	write_dump(RAM_FILE, 0);
	refused(false, "ends at 0x1000000, but the machine's memory does at 0x100800000: -r?");
	write_dump(RAW, HIGH);
	refused(false, "ends at 0x100000000, but the machine's memory does at 0x100800000");
	write_dump(RAM_FILE, LOW + LOW / 2);
	refused(true, "no VM's memory at 0x100030000: is that a whole dump?");
	put_record(HIGH + 0x10000);
	write_dump(RAM_FILE, LOW + LOW / 2);
	refused(true, "the snapshot is not where it says, at 0x100010000");
	h = put_record(0x10000);
	h->disk = 1;
	h->check = check_of(h);
	write_dump(RAW, 0);
	refused(false, "linux has a disk that it may write, which no image has");
	h->disk = 0;
	h->version--;
	h->check = check_of(h);
	write_dump(RAW, 0);
	refused(false, "linux is of another version of Corbel");
	memcpy(h->name, "other", 5);
	h->version++;
	h->check = check_of(h);
	write_dump(RAW, 0);
	refused(false, "has no snapshot of linux (1 of other VMs)");
}

/* The tool leaves it to the end of the process. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind),
		cmocka_unit_test(test_refused),
	};
	int failed;

	if (!mkdtemp(folder))
		return 1;
	snprintf(dump, sizeof(dump), "%s/dump", folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	remove(dump);
	remove(image);
	remove(folder);
	return failed;
}
