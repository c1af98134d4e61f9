/* SPDX-License-Identifier: MIT */
/* Loading an image into the fake VM: what tests of all boot protocols share. Define TOP first. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"
#include "virt/loader.h"

static const struct boot_e820_entry map[] = {
	{ 0, 0x90000, E820_RAM },
	{ 0x90000, 0x10000, E820_ACPI },
	{ MIB, TOP - MIB, E820_RAM },
};

static struct vm *const vm = &fake_vm;
static struct boot_image img;
static struct boot_entry entry;
static char why[128];

/* The VM, with `map` as its memory, on a host with that much. */
static inline void load_open(u64 host)
{
	fake_vm_open(host);
	for (u32 i = 0; i < ARRAY_SIZE(map); i++)
		assert_int_equal(vm_add_memory(vm, GPA(map[i].addr), map[i].size, 0), 0);
}

static inline int load(void)
{
	memset(why, 0, sizeof(why));
	return boot_load(vm, &img, &entry, why, sizeof(why));
}

static inline void fails(const char *text)
{
	int err = load();

	if (err != -ENOEXEC || strcmp(why, text))
		print_message("got %d: %s\n", err, why);
	assert_int_equal(err, -ENOEXEC);
	assert_string_equal(why, text);
}
