/* SPDX-License-Identifier: MIT */
/*
 * What the stage-2 engine costs on the build host, in nanoseconds per leaf: the best of RUNS.
 * Prints "bench: NAME VALUE" lines, as the guest does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/error.h"
#include "mm/stage2.h"
#include "svm/npt.h"
#include "vmx/ept.h"

#define RUNS   9
#define LEAVES 65536ull

static int table_alloc(struct stage2 *s, hpa_t *table)
{
	void *p = aligned_alloc(PAGE_SIZE, 2 * PAGE_SIZE);

	(void)s;
	if (!p)
		return -ENOMEM;
	memset(p, 0, 2 * PAGE_SIZE);
	*table = HPA((u64)(uintptr_t)p);
	return 0;
}

static u64 *table_ptr(struct stage2 *s, hpa_t table)
{
	(void)s;
	return (u64 *)(uintptr_t)table.v;
}

/* Behind the page. */
static struct s2_table *table_desc(struct stage2 *s, const u64 *entries)
{
	(void)s;
	return (struct s2_table *)(uintptr_t)(entries + 512);
}

static void table_free(struct stage2 *s, hpa_t table)
{
	free(table_ptr(s, table));
}

static const struct stage2_env env = { .table_alloc = table_alloc,
				       .table_free = table_free,
				       .table_ptr = table_ptr,
				       .table_desc = table_desc };

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "stage2_bench: %s: %d\n", what, err);
	exit(1);
}

static struct stage2 stage2;

/* Leaf by leaf, as faults come. */
static void map(u8 level)
{
	u64 frames = 1ull << 9 * (level - 1);

	for (u64 i = 0; i < LEAVES; i++)
		must(stage2_map(&stage2, GFN(i * frames), PFN(i * frames), frames, S2_RWX, S2_WB,
				level),
		     "map");
}

static void look_up(u8 level)
{
	u64 frames = 1ull << 9 * (level - 1);
	struct stage2_leaf leaf;

	for (u64 i = 0; i < LEAVES; i++)
		must(!stage2_lookup(&stage2, GFN(i * frames), &leaf), "lookup");
}

static void protect(u8 level)
{
	u64 frames = 1ull << 9 * (level - 1);
	struct flush_debt debt;

	for (u64 i = 0; i < LEAVES; i++) {
		must(stage2_protect(&stage2, GFN(i * frames), frames, S2_R, &debt), "protect");
		stage2_debt_paid(&debt);
	}
}

static void unmap(u8 level)
{
	struct flush_debt debt;

	must(stage2_unmap(&stage2, GFN(0), LEAVES << 9 * (level - 1), &debt), "unmap");
	stage2_debt_paid(&debt);
}

static const struct {
	const char *name;
	void (*run)(u8 level);
} steps[] = { { "map", map }, { "lookup", look_up }, { "protect", protect }, { "unmap", unmap } };
#define STEPS (sizeof(steps) / sizeof(steps[0]))

static void measure(const struct pt_format *fmt, u8 level, const char *size)
{
	double best[STEPS];

	for (u32 run = 0; run < RUNS; run++) {
		must(stage2_init(&stage2, fmt, &env, level, 1ull << 36, 1), "init");
		for (u32 i = 0; i < STEPS; i++) {
			double start = now_ns(), took;

			steps[i].run(level);
			took = (now_ns() - start) / (double)LEAVES;
			best[i] = run && best[i] < took ? best[i] : took;
		}
		stage2_destroy(&stage2);
	}
	for (u32 i = 0; i < STEPS; i++)
		printf("bench: stage2-%s-%s-%s %.1f\n", fmt->name, steps[i].name, size, best[i]);
}

int main(void)
{
	measure(&ept_format, 1, "4k");
	measure(&ept_format, 2, "2m");
	measure(&npt_format, 1, "4k");
	measure(&npt_format, 2, "2m");
	return 0;
}
