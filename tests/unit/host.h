/* SPDX-License-Identifier: MIT */
/* What host tests share: an arena as physical memory, random numbers that a seed repeats. */
#pragma once

#include "lib/addr.h"

/*
 * `size` bytes of zeroed physical memory from address 0 on, at host_arena; pages cost nothing until
 * they are touched, so hundreds of gigabytes are fine. A second call throws the first arena away.
 */
void host_arena_open(u64 size);
void host_arena_close(void);

/*
 * Set the hooks of lib: log lines go to stderr if CORBEL_TEST_LOG is set, otherwise the log is
 * silent; who spins for a lock gives its time away, because the thread that holds the lock may wait
 * for just this host CPU.
 */
void host_hooks_open(void);

/* How often a WARN_ON was true, each place once. */
extern u64 host_warnings;

/* xorshift64*; state must not be 0. */
u64 host_random(u64 *state);
/* Seed of a test: from CORBEL_TEST_SEED, else fixed. */
u64 host_seed(void);

/* Violations found in threads, where cmocka's asserts must not be used. Prints the first few. */
extern u64 host_failures;
#define HOST_CHECK(cond)                                              \
	do {                                                          \
		if (!(cond))                                          \
			host_check_failed(#cond, __FILE__, __LINE__); \
	} while (0)
void host_check_failed(const char *cond, const char *file, int line);
