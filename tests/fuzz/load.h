/* SPDX-License-Identifier: MIT */
/* Loading an image into the fake VM, of 32 MiB: what the fuzzers of all boot protocols share. */
#pragma once

#include <stdlib.h>

#include "lib/error.h"
#include "lib/string.h"
#include "tests/unit/fake_vm.h"
#include "virt/loader.h"

#define TOP (32 * MIB)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fake_vm_open(96 * MIB);
	if (vm_add_memory(&fake_vm, GPA(0), 0xa0000, 0) ||
	    vm_add_memory(&fake_vm, GPA(MIB), TOP - MIB, 0))
		abort();
	return 0;
}

/* What is true of boot_load()'s result for any image. */
static inline void check_result(int err, const char *why, size_t why_len)
{
	size_t len = strnlen(why, why_len);

	if (fake_bugs || fake_vm.dead)
		abort();
	if (err && err != -ENOEXEC)
		abort();
	if (err && why_len > 1 && (!len || len >= why_len))
		abort();
	for (size_t i = 0; err && i < len; i++)
		if (why[i] < ' ' || why[i] > '~')
			abort();
}
