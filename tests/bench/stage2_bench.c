/* SPDX-License-Identifier: MIT */
/*
 * What the stage-2 engine, the reverse map and the audit cost on the build host, in time and in
 * memory, beside a chain of 128-byte descriptors as the known alternative. Prints "bench: NAME
 * VALUE UNIT" lines. Times are the best of RUNS; docs/BENCHMARKS.md says what each figure is.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/grace.h"
#include "mm/audit.h"
#include "mm/extent.h"
#include "svm/npt.h"
#include "tests/unit/host.h"
#include "vmx/ept.h"

#define RUNS	  15
#define LEAVES	  65536ull
#define FRAMES_1G (GIB / PAGE_SIZE)

static const struct stage2_env env = {
	.table_alloc = table_pool_alloc,
	.table_free = table_pool_free,
	.table_ptr = table_pool_ptr,
	.table_desc = table_pool_desc,
};

static struct stage2 vm;
static pfn_t guest; /* the VM's memory begins there */

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

static void say(const char *what, const char *which, double value, const char *unit)
{
	printf("bench: stage2-%s-%s %.1f %s\n", what, which, value, unit);
	fflush(stdout);
}

/* --- the machine --- */

/* A machine with `size` of guest memory, and a VM without any mapping. */
static void open_vm(const struct pt_format *fmt, u64 size)
{
	u64 all = size + MAX(size / 64, 64 * MIB) + GIB;
	struct mem_range map = { HPA(0), all, FRAME_FREE };

	host_arena_open(all);
	must(frames_init(&map, 1, HPA(all)), "frames");
	guest = extent_alloc(size / EXTENT_SIZE, MIN(size, GIB) / EXTENT_SIZE, FRAME_GUEST, 1);
	must(!pfn_valid(guest), "guest memory");
	must(stage2_init(&vm, fmt, &env, 3, 1ull << 36, 1), "init");
	table_pool_allow(&vm.pool, size >> PAGE_SHIFT);
}

static void close_vm(void)
{
	struct flush_debt debt;

	must(stage2_unmap(&vm, GFN(0), 1ull << 36, &debt), "unmap");
	stage2_debt_paid(&debt);
	must(rmap_set_memory() != 0, "memory of keys");
	stage2_destroy(&vm);
	table_pool_destroy(&vm);
}

static void map(u64 gfn, u64 pfn, u8 level)
{
	must(stage2_map_leaf(&vm, GFN(gfn), PFN(guest.v + pfn), S2_RWX, level), "map");
}

/* --- the engine: nanoseconds a leaf, one by one as faults come --- */

static void map_all(u8 level)
{
	for (u64 i = 0; i < LEAVES; i++)
		map(i * s2_level_frames(level), i * s2_level_frames(level), level);
}

static void look_up(u8 level)
{
	struct stage2_leaf leaf;

	for (u64 i = 0; i < LEAVES; i++)
		must(!stage2_lookup(&vm, GFN(i * s2_level_frames(level)), &leaf), "lookup");
}

static void protect(u8 level)
{
	u64 frames_ = s2_level_frames(level);
	struct flush_debt debt;

	for (u64 i = 0; i < LEAVES; i++) {
		must(stage2_protect(&vm, GFN(i * frames_), frames_, S2_R, &debt), "protect");
		stage2_debt_paid(&debt);
	}
}

static void unmap_each(u8 level)
{
	u64 frames_ = s2_level_frames(level);
	struct flush_debt debt;

	for (u64 i = 0; i < LEAVES / 2; i++) {
		must(stage2_unmap(&vm, GFN(i * frames_), frames_, &debt), "unmap");
		stage2_debt_paid(&debt);
	}
}

static void unmap_rest(u8 level)
{
	struct flush_debt debt;

	must(stage2_unmap(&vm, GFN(0), LEAVES * s2_level_frames(level), &debt), "unmap");
	stage2_debt_paid(&debt);
}

static const struct {
	const char *name;
	void (*run)(u8 level);
	u64 leaves;
} steps[] = {
	{ "map", map_all, LEAVES },	     { "lookup", look_up, LEAVES },
	{ "protect", protect, LEAVES },	     { "unmap-single", unmap_each, LEAVES / 2 },
	{ "unmap", unmap_rest, LEAVES / 2 },
};

static void measure_engine(const struct pt_format *fmt, u8 level, const char *size)
{
	double best[ARRAY_SIZE(steps)];
	char name[32];

	open_vm(fmt, LEAVES * s2_level_frames(level) * PAGE_SIZE);
	for (u32 run = 0; run < RUNS; run++) {
		for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
			double start = now_ns(), took;

			steps[i].run(level);
			took = (now_ns() - start) / (double)steps[i].leaves;
			best[i] = run && best[i] < took ? best[i] : took;
		}
	}
	close_vm();
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		snprintf(name, sizeof(name), "%s-%s", steps[i].name, size);
		say(fmt->name, name, best[i], "ns a leaf");
	}
}

/* --- many mappers of a frame: keys, and the chain --- */

static u64 test_key(u64 i)
{
	return rmap_key((u16)(i % 1000 + 1), 0, 1, i / 1000);
}

enum order { FORWARDS, BACKWARDS, AT_RANDOM };
static const char *const order_names[] = { "forwards", "backwards", "at-random" };

static u32 *order_of(u32 n, enum order order)
{
	u32 *index = calloc(n, sizeof(*index));
	u64 seed = host_seed();

	for (u32 i = 0; i < n; i++)
		index[i] = order == BACKWARDS ? n - 1 - i : i;
	for (u32 i = n; order == AT_RANDOM && i-- > 1;) {
		u32 j = (u32)(host_random(&seed) % (i + 1)), t = index[i];

		index[i] = index[j];
		index[j] = t;
	}
	return index;
}

static void key_add(pfn_t pfn, u64 key)
{
	struct rmap_op op;
	int err;

	must(!rmap_lock(&op, pfn, 1), "lock");
	while ((err = rmap_insert(&op, key)) == -EAGAIN)
		must(rmap_refill(&op), "memory for keys");
	must(err, "key");
	rmap_unlock(&op);
}

static void say_removal(const char *what, u32 n, enum order order, double ns_each)
{
	char name[32];

	snprintf(name, sizeof(name), "remove-%u-%s", n, order_names[order]);
	say(what, name, ns_each, "ns a mapping");
}

/* `frames_` frames, n mappers each. Bytes are those beyond a page of 8-byte words. */
static void measure_keys(u32 n, enum order order, u32 frames_)
{
	u32 *index = order_of(n, order);
	double start = now_ns(), added, took;
	char name[32];
	u64 bytes;

	for (u32 i = 0; i < n; i++) {
		for (u32 f = 0; f < frames_; f++)
			key_add(PFN(guest.v + f), test_key(i));
	}
	added = now_ns() - start;
	bytes = rmap_set_memory() - ALIGN_UP(frames_, EXTENT_FRAMES) * sizeof(u64);
	start = now_ns();
	for (u32 i = 0; i < n; i++) {
		for (u32 f = 0; f < frames_; f++)
			must(rmap_remove(PFN(guest.v + f), test_key(index[i])), "remove");
	}
	took = now_ns() - start;
	if (order == FORWARDS) {
		snprintf(name, sizeof(name), "add-%u", n);
		say("rmap", name, added / n / frames_, "ns a mapping");
		snprintf(name, sizeof(name), "bytes-%u", n);
		say("rmap", name, (double)bytes / n / frames_ + 8.0 / n, "bytes a mapping");
	}
	say_removal("rmap", n, order, took / n / frames_);
	free(index);
}

/*
 * The alternative: a word for each frame that points to the one leaf, or to a chain of descriptors
 * with 14 pointers each, of which only the first has room. Removal searches the chain, and fills
 * the gap with the last pointer of the first descriptor.
 */
#define DESC_POINTERS 14
struct desc {
	struct desc *more;
	u64 count;
	u64 *leaves[DESC_POINTERS];
};
_Static_assert(sizeof(struct desc) == 128, "as the known ones");
#define CHAIN 1ull /* the word points to a descriptor, not to a leaf */

static u64 descs;

static struct desc *desc_of(u64 word)
{
	return (struct desc *)(uintptr_t)(word & ~CHAIN);
}

static struct desc *desc_add(u64 *word, struct desc *more)
{
	struct desc *d = aligned_alloc(64, sizeof(*d));

	d->more = more;
	d->count = 0;
	*word = (u64)(uintptr_t)d | CHAIN;
	descs++;
	return d;
}

static void chain_add(u64 *word, u64 *leaf)
{
	u64 *only = (u64 *)(uintptr_t)*word;
	struct desc *d;

	if (!*word) {
		*word = (u64)(uintptr_t)leaf;
		return;
	}
	if (!(*word & CHAIN)) {
		d = desc_add(word, NULL);
		d->leaves[d->count++] = only;
	}
	d = desc_of(*word);
	if (d->count == DESC_POINTERS)
		d = desc_add(word, d);
	d->leaves[d->count++] = leaf;
}

static void chain_remove(u64 *word, const u64 *leaf)
{
	struct desc *first = desc_of(*word);

	if (*word == (u64)(uintptr_t)leaf) {
		*word = 0;
		return;
	}
	must(!(*word & CHAIN), "chain");
	for (struct desc *d = first; d; d = d->more) {
		for (u64 i = 0; i < d->count; i++) {
			if (d->leaves[i] != leaf)
				continue;
			d->leaves[i] = first->leaves[--first->count];
			if (!first->count) {
				*word = (u64)(uintptr_t)first->more | CHAIN;
				free(first);
			} else if (first->count == 1 && !first->more) {
				*word = (u64)(uintptr_t)first->leaves[0];
				free(first);
			}
			return;
		}
	}
	must(-ENOENT, "chain");
}

/* With long chains only the first removals are measured: all would take hours. */
static void measure_chain(u32 n, enum order order, u32 frames_)
{
	u64 *chains = calloc(frames_, sizeof(u64));
	u32 *index = order_of(n, order), removals = MIN(n, 10000000 / n + 1);
	u64 *leaves = calloc(n, sizeof(u64));
	double start = now_ns(), added, took;
	char name[32];

	descs = 0;
	for (u32 i = 0; i < n; i++) {
		for (u32 f = 0; f < frames_; f++)
			chain_add(&chains[f], &leaves[i]);
	}
	added = now_ns() - start;
	if (order == FORWARDS) {
		snprintf(name, sizeof(name), "add-%u", n);
		say("chain", name, added / n / frames_, "ns a mapping");
		snprintf(name, sizeof(name), "bytes-%u", n);
		say("chain", name, 128.0 * (double)descs / n / frames_ + 8.0 / n,
		    "bytes a mapping");
	}
	start = now_ns();
	for (u32 i = 0; i < removals; i++) {
		for (u32 f = 0; f < frames_; f++)
			chain_remove(&chains[f], &leaves[index[i]]);
	}
	took = now_ns() - start;
	say_removal("chain", n, order, took / removals / frames_);
	for (u32 f = 0; f < frames_; f++) {
		for (struct desc *d = desc_of(chains[f]), *more; chains[f] & CHAIN && d; d = more) {
			more = d->more;
			free(d);
		}
	}
	free(chains);
	free(index);
	free(leaves);
}

static void measure_mappers(void)
{
	static const struct {
		u32 mappers, frames;
	} sizes[] = { { 1, 100000 }, { 2, 50000 }, { 14, 10000 }, { 10000, 1 }, { 1000000, 1 } };

	open_vm(&npt_format, GIB);
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (enum order order = FORWARDS; order <= AT_RANDOM; order++) {
			measure_keys(sizes[i].mappers, order, sizes[i].frames);
			measure_chain(sizes[i].mappers, order, sizes[i].frames);
		}
	}
	close_vm();
}

/* --- large VMs: time, and memory beside the tables --- */

static u64 metadata(void)
{
	struct frame_stats stats;

	frames_stats(&stats);
	return stats.frames[FRAME_META] * PAGE_SIZE;
}

/* The frame allocator's pages of heads: one in each extent that is split. */
static u64 heads(void)
{
	u64 count = 0;

	for (u64 i = 0; i < frames.extent_count; i++)
		count += frames.extents[i].heads != 0;
	return count * PAGE_SIZE;
}

static void measure_vm(const char *name, u64 size, u8 level)
{
	/* One descriptor for each extent of the guest, whether it is mapped or not. */
	u64 before, heads_before, extents = size / EXTENT_SIZE * sizeof(struct extent);
	double start, took;

	open_vm(&ept_format, size);
	before = metadata();
	heads_before = heads();
	start = now_ns();
	for (u64 gfn = 0; gfn < size >> PAGE_SHIFT; gfn += s2_level_frames(level))
		map(gfn, gfn, level);
	took = now_ns() - start;
	say(name, "build", took / 1e6, "ms");
	say(name, "metadata", (double)(metadata() - before + extents) / 1024, "KiB");
	say(name, "heads", (double)(heads() - heads_before) / 1024, "KiB of that");
	say(name, "tables", (double)vm.tables * PAGE_SIZE / 1024, "KiB");
	start = now_ns();
	close_vm();
	say(name, "unmap", (now_ns() - start) / 1e6, "ms");
}

/* --- the audit --- */

static void complain(void *arg, const struct audit_finding *f)
{
	(void)arg;
	fprintf(stderr, "stage2_bench: %s\n", audit_kind_name(f->kind));
	exit(1);
}

/* 4 GiB of 4 KiB leaves; backing in order, shuffled within each 2 MiB, or shuffled as a whole. */
static void measure_audit(const char *name, u32 piece)
{
	struct audit a = { .report = complain };
	double best = 0;
	u32 count = 4 * FRAMES_1G, *index = piece ? order_of(piece, AT_RANDOM) : NULL;

	open_vm(&npt_format, 4 * GIB);
	for (u32 i = 0; i < count; i++)
		map(i, piece ? i / piece * piece + index[i % piece] : i, 1);
	for (u32 run = 0; run < RUNS; run++) {
		double start = now_ns(), took;

		audit_run(&a);
		took = now_ns() - start;
		best = run && best < took ? best : took;
	}
	must(a.leaves != count || a.keys != count || a.findings, "audit");
	say("audit-4g", name, best / 1e6, "ms");
	close_vm();
	free(index);
}

/* --- a fault: what it locks and writes --- */

static __thread u32 locks;
void __real_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l)
{
	locks++;
	__real_spin_lock(l);
}

#define LINE 64
static u64 lines_changed(const void *a, const void *b, u64 size)
{
	u64 count = 0;

	for (u64 i = 0; i < size; i += LINE)
		count += memcmp((const u8 *)a + i, (const u8 *)b + i, LINE) != 0;
	return count;
}

/* The second leaf of a table, as most are. What is written is seen by what is different later. */
static void measure_fault(const char *name, u8 level)
{
	u64 size = 128 * MIB, step = s2_level_frames(level), lines;
	u8 *before;
	static struct stage2 vm_before;

	open_vm(&ept_format, 32 * MIB);
	map(0, 0, level);
	before = malloc(size);
	memcpy(before, host_arena, size);
	memcpy(&vm_before, &vm, sizeof(vm));
	locks = 0;
	map(step, step, level);
	lines = lines_changed(before, host_arena, size);
	say(name, "locks", locks, "locks");
	say(name, "lines", (double)lines, "cache lines of tables, descriptors and keys");
	lines = memcmp(&vm_before, &vm, sizeof(vm)) != 0;
	say(name, "vm-lines", (double)lines, "cache lines of the VM");
	free(before);
	close_vm();
}

/* --- faults of all threads at once --- */

static pthread_barrier_t barrier;
static u64 threads;

struct faulter {
	pthread_t id;
	u32 cpu;
	u64 first;
	double start, end;
};

static __thread u32 cpu;

static u32 cpu_number(void)
{
	return cpu;
}

static void *fault_main(void *arg)
{
	struct faulter *f = arg;

	cpu = f->cpu;
	pthread_barrier_wait(&barrier);
	f->start = now_ns();
	for (u64 i = f->first; i < f->first + LEAVES / threads; i++)
		map(i * EXTENT_FRAMES, i * EXTENT_FRAMES, 2);
	f->end = now_ns();
	return NULL;
}

/* From the start of the first thread to the end of the last one. */
static double fault_run(void)
{
	struct faulter some[64];
	double start = 0, end = 0;

	pthread_barrier_init(&barrier, NULL, (u32)threads);
	for (u64 i = 0; i < threads; i++) {
		some[i].cpu = (u32)i + 1;
		some[i].first = i * (LEAVES / threads);
		must(pthread_create(&some[i].id, NULL, fault_main, &some[i]), "thread");
	}
	for (u64 i = 0; i < threads; i++) {
		pthread_join(some[i].id, NULL);
		start = i && start < some[i].start ? start : some[i].start;
		end = end > some[i].end ? end : some[i].end;
	}
	pthread_barrier_destroy(&barrier);
	return end - start;
}

static void measure_threads(u64 count)
{
	double best = 0;
	char name[32];

	threads = count;
	open_vm(&ept_format, LEAVES * EXTENT_SIZE);
	for (u32 run = 0; run < RUNS; run++) {
		double took = fault_run();

		best = run && best < took ? best : took;
		unmap_rest(2);
	}
	close_vm();
	snprintf(name, sizeof(name), "%lu-threads", threads);
	say("faults", name, (double)(LEAVES / threads * threads) / best * 1e3, "million a second");
}

static void engine(void)
{
	measure_engine(&ept_format, 1, "4k");
	measure_engine(&ept_format, 2, "2m");
	measure_engine(&npt_format, 1, "4k");
	measure_engine(&npt_format, 2, "2m");
}

static void vms(void)
{
	measure_vm("16g-2m", 16 * GIB, 2);
	measure_vm("16g-4k", 16 * GIB, 1);
	measure_vm("1t-1g", 1024 * GIB, 3);
	measure_vm("1t-2m", 1024 * GIB, 2);
}

static void audits(void)
{
	measure_audit("contiguous", 0);
	measure_audit("shuffled-in-2m", EXTENT_FRAMES);
	measure_audit("shuffled", 4 * FRAMES_1G);
}

static void faults(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	measure_fault("fault-4k", 1);
	measure_fault("fault-2m", 2);
	measure_threads(1);
	measure_threads((u64)MIN(MAX(cores, 2), 64));
}

/* All parts, or those that are named. */
int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} parts[] = { { "engine", engine },
		      { "mappers", measure_mappers },
		      { "vms", vms },
		      { "audits", audits },
		      { "faults", faults } };

	grace_cpu_hook = cpu_number;
	for (u32 i = 0; i < ARRAY_SIZE(parts); i++) {
		bool wanted = argc == 1;

		for (int k = 1; k < argc; k++)
			wanted |= !strcmp(argv[k], parts[i].name);
		if (wanted)
			parts[i].run();
	}
	return 0;
}
