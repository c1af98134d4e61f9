/* SPDX-License-Identifier: MIT */
/*
 * Forking the memory of a VM of 1 GiB on the build host, all of it mapped in leaves of one size:
 * what the fork takes, and the first write afterwards, which moves the protection down. Prints
 * "bench: NAME VALUE UNIT" lines, the best of several runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define SIZE GIB
#define RUNS 5

static struct vm clone;

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "fork_bench: %s\n", what);
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* As the exit handler does it. */
static void map(struct vm *vm, u64 gpa, u8 access, u8 largest)
{
	struct guest_frame f;
	int err;

	must(guest_frame(vm, GPA(gpa), access, &f) == MEMORY_OK, "a page is not there");
	if (f.inherited)
		err = guest_map_inherited(vm, GPA(gpa), f.pfn, f.prot, MIN(f.level, largest));
	else
		err = stage2_map_leaf(&vm->stage2, GFN(gpa >> PAGE_SHIFT), f.pfn, f.prot,
				      MIN(f.level, largest));
	must(!err, "a leaf can't be mapped");
}

static void once(u8 level, double *fork, double *write, double *next)
{
	u64 step = s2_level_frames(level) << PAGE_SHIFT;
	double t[4];

	fake_vm_open(2 * SIZE + 512 * MIB); /* a GiB of it is aligned */
	must(!vm_add_memory(&fake_vm, GPA(0), SIZE, 0), "no memory");
	vm_clear_ahead(&fake_vm);
	for (u64 gpa = 0; gpa < SIZE; gpa += EXTENT_SIZE) /* so that all of a GiB is there */
		must(!guest_touch(&fake_vm, GPA(gpa), 1), "not touched");
	for (u64 gpa = 0; gpa < SIZE; gpa += step)
		map(&fake_vm, gpa, ACCESS_W, level);
	must(stage2_leaves(&fake_vm.stage2, level) == SIZE / step, "other leaves");
	fake_vm_add(&clone, vm_new_id());
	t[0] = now_us();
	must(!vm_fork_memory(&fake_vm, &clone), "not forked");
	t[1] = now_us();
	map(&fake_vm, 3 * MIB, ACCESS_W, level);
	t[2] = now_us();
	map(&fake_vm, 3 * MIB + PAGE_SIZE, ACCESS_W, level);
	t[3] = now_us();
	*fork = MIN(*fork, t[1] - t[0]);
	*write = MIN(*write, t[2] - t[1]);
	*next = MIN(*next, t[3] - t[2]);
	stage2_destroy(&clone.stage2);
}

int main(void)
{
	static const char *const sizes[] = { [1] = "4k", [2] = "2m", [3] = "1g" };

	host_hooks_open();
	for (u8 level = 1; level <= 3; level++) {
		double fork = 1e9, write = 1e9, next = 1e9;

		for (u32 n = 0; n < RUNS; n++)
			once(level, &fork, &write, &next);
		printf("bench: fork-1g-%s %.1f us\n", sizes[level], fork);
		printf("bench: fork-1g-%s-first-write %.1f us\n", sizes[level], write);
		printf("bench: fork-1g-%s-next-write %.1f us\n", sizes[level], next);
	}
	return 0;
}
