/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "lib/assert.h"
#include "lib/bitmap.h"
#include "lib/grace.h"
#include "lib/log.h"
#include "lib/spinlock.h"
#include "mm/phys.h"
#include "tests/unit/host.h"

u8 *host_arena;
u64 host_failures;
u64 host_warnings;

static u64 arena_size;

void host_arena_open(u64 size)
{
	void *p;

	host_arena_close();
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED) {
		perror("host arena");
		exit(1);
	}
	host_arena = p;
	arena_size = size;
}

void host_arena_close(void)
{
	if (host_arena)
		munmap(host_arena, arena_size);
	host_arena = NULL;
}

static void sink(enum log_level level, const char *line, size_t len)
{
	fprintf(stderr, "<%d> %.*s\n", (int)level, (int)len, line);
}

static void warned(void)
{
	__atomic_fetch_add(&host_warnings, 1, __ATOMIC_RELAXED);
}

/*
 * A sleep, because who yields goes to the end of the queue: beside programs that compute, each turn
 * of a lock would cost a time slice of theirs.
 */
static void yield(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000 }, NULL);
}

/* Each thread is a CPU. */
static u32 thread_number(void)
{
	static u32 threads;
	static __thread u32 number;

	if (!number)
		number = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
	if (number >= MAX_CPUS)
		abort();
	return number;
}

void host_hooks_open(void)
{
	grace_cpu_hook = thread_number;
	spin_poll_hook = yield;
	backtrace_hook = warned;
	if (getenv("CORBEL_TEST_LOG"))
		log_sink = sink;
}

u64 host_random(u64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

u64 host_seed(void)
{
	const char *text = getenv("CORBEL_TEST_SEED");
	u64 seed = text ? strtoull(text, NULL, 0) : 0;

	return seed ? seed : 0x1db3d743c0ffeeull;
}

void host_check_failed(const char *cond, const char *file, int line)
{
	if (__atomic_fetch_add(&host_failures, 1, __ATOMIC_RELAXED) < 10)
		fprintf(stderr, "%s:%d: %s does not hold\n", file, line, cond);
}
