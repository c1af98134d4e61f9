/* SPDX-License-Identifier: MIT */
/*
 * Missing-page exits on the build host, with threads as vCPUs of one VM: each meets a page that is
 * missing, waits, has it brought by its source (which writes one word), and maps it. Prints "bench:
 * NAME VALUE UNIT" lines: exits per second of all threads, and locks taken for each exit.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define THREADS 16
#define SIZE	(512 * MIB)
#define RUNS	5

static struct vcpu vcpus[THREADS];
static u32 nr_threads;
static __thread u64 taken;
static u64 locks; /* atomic */
static pthread_barrier_t begin;

void __real_spin_lock(struct spinlock *lock);
void __wrap_spin_lock(struct spinlock *lock);
void __wrap_spin_lock(struct spinlock *lock)
{
	taken++;
	__real_spin_lock(lock);
}

static int fetch(const struct backing_source *source, struct backing_fetch *f)
{
	(void)source;
	*(u64 *)f->to = f->offset;
	return 0;
}
static const struct backing_source source = { .name = "s", .piece = PAGE_SIZE, .fetch = fetch };

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "memfault_bench: %s\n", what);
	exit(1);
}

/* As the run loop and the exit handler do it. */
static void fault(struct vcpu *v, u64 gpa)
{
	const struct memory_fault missing = { .gpa = GPA(gpa),
					      .access = ACCESS_W,
					      .kind = MEMORY_MISSING };
	struct guest_frame f;

	must(guest_frame(v->vm, GPA(gpa), ACCESS_W, &f) == MEMORY_MISSING, "it is not missing");
	memory_fault(v, &missing);
	while (v->activity & VCPU_WAITS_MEMORY && memory_wait_step(v))
		;
	must(guest_frame(v->vm, GPA(gpa), ACCESS_W, &f) == MEMORY_OK, "it was not brought");
	must(!stage2_map_leaf(&v->vm->stage2, gpa_gfn(GPA(gpa)), f.pfn, f.prot, 1), "map");
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double begun[THREADS], ended[THREADS];

static void *run(void *arg)
{
	struct vcpu *v = arg;
	u64 each = SIZE / nr_threads, from = v->index * each;

	fake_current = v;
	taken = 0;
	pthread_barrier_wait(&begin);
	begun[v->index] = now();
	for (u64 gpa = from; gpa < from + each; gpa += PAGE_SIZE) {
		v->rip = gpa;
		fault(v, gpa);
	}
	ended[v->index] = now();
	__atomic_fetch_add(&locks, taken, __ATOMIC_RELAXED);
	return NULL;
}

/* How long it took, from the first thread's start to the last one's end. */
static double once(void)
{
	pthread_t threads[THREADS];
	double first, last;

	fake_vm_open(SIZE + 256 * MIB);
	for (u64 at = 0; at < SIZE + 256 * MIB; at += PAGE_SIZE) /* the host's own first touch */
		__atomic_fetch_or(&host_arena[at], 0, __ATOMIC_RELAXED);
	memset(vcpus, 0, sizeof(vcpus));
	fake_vm.nr_vcpus = nr_threads;
	for (u32 i = 0; i < nr_threads; i++) {
		vcpus[i].vm = &fake_vm;
		vcpus[i].index = i;
		fake_vm.vcpus[i] = &vcpus[i];
	}
	must(!vm_add_memory(&fake_vm, GPA(0), SIZE, SLOT_EXIT_ON_MISSING), "no memory");
	vm_slot(&fake_vm, GPA(0))->backing->source = &source;
	fake_vm.state = VM_RUNNING;
	locks = 0;
	pthread_barrier_init(&begin, NULL, nr_threads);
	for (u32 i = 0; i < nr_threads; i++)
		pthread_create(&threads[i], NULL, run, &vcpus[i]);
	for (u32 i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	first = begun[0];
	last = ended[0];
	for (u32 i = 1; i < nr_threads; i++) {
		first = MIN(first, begun[i]);
		last = MAX(last, ended[i]);
	}
	fake_vm.state = VM_STOPPED;
	return last - first;
}

int main(void)
{
	static const u32 counts[] = { 1, 2, 4, 16 };
	const double exits = (double)(SIZE / PAGE_SIZE);

	host_hooks_open();
	for (u32 i = 0; i < ARRAY_SIZE(counts); i++) {
		double best = 1e9;

		nr_threads = counts[i];
		for (u32 n = 0; n < RUNS; n++) {
			double t = once();

			best = t < best ? t : best;
		}
		printf("bench: memfault-%u-threads %.0f exits/s\n", nr_threads, exits / best);
		printf("bench: memfault-%u-locks %.4f locks/exit\n", nr_threads,
		       (double)locks / exits);
	}
	return 0;
}
