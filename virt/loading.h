/* SPDX-License-Identifier: MIT */
/*
 * What the boot protocols share, for virt/loader.c and the loaders only. The file comes from a disk
 * and may be anything: each number in it is checked before it is used.
 */
#pragma once

#include "virt/loader.h"

#define LOAD_MODULES_MAX 33 /* an initrd, and all modules that a configuration can have */
#define LOAD_RANGES_MAX	 96 /* segments of an image, and its modules */

struct load_range {
	u64 start, end;
};

struct load_module {
	u64 start, end, args; /* where they are in the guest */
};

/* One loading: what is known so far. */
struct loading {
	struct vm *vm;
	const struct boot_image *img;
	struct boot_entry *entry;
	struct load_range taken[LOAD_RANGES_MAX];
	u32 nr_taken;
	u64 info, info_end; /* what is free of the guest's boot information */
	u64 cmdline;
	struct load_module modules[LOAD_MODULES_MAX];
	int err; /* refuse() was called: nothing is written to the guest any more */
	char *why;
	size_t why_len;
};

/* Give up, with one sentence for the user; the first one stays. Returns l->err. */
int refuse(struct loading *l, const char *fmt, ...) PRINTF(2, 3);

/* size bytes at that offset of the kernel's file, or NULL if it ends before. */
const void *load_file(const struct loading *l, u64 offset, u64 size);

/* The entry of RAM in the memory map that contains [from, to), or NULL. */
const struct boot_e820_entry *load_ram(const struct loading *l, u64 from, u64 to);

/* Copy to the guest. 0, or l->err; `what` is a word for the user, here and below. */
int load_put(struct loading *l, u64 gpa, const void *from, u64 size, const char *what);

/*
 * A piece of an image where it wants to be: filesz bytes from the file, zeros up to memsz. It must
 * lie in RAM below 4 GiB and touch no other piece. 0, or l->err.
 */
int load_segment(struct loading *l, u64 gpa, u64 offset, u64 filesz, u64 memsz);

/*
 * All pieces are there. Begin at `entry`, which must lie in one of them, in 32-bit mode; put the
 * modules behind the image; prepare the boot information, with arguments and command line. 0, or
 * l->err.
 */
int load_modules(struct loading *l, u64 entry);

/*
 * Append to the boot information, aligned to 8 bytes: the address, 0 after refuse(). What is
 * appended in a row, in multiples of 8 bytes, is an array.
 */
u64 load_info(struct loading *l, const void *from, u64 size);

/*
 * The protocols. detect: does the file say that it is one? load: boot_load's contract, with
 * refuse() for the sentence.
 */
bool linux_detect(const struct loading *l);
int linux_load(struct loading *l);
bool multiboot_detect(const struct loading *l);
int multiboot_load(struct loading *l);
bool pvh_detect(const struct loading *l);
int pvh_load(struct loading *l);
