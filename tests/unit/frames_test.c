/* SPDX-License-Identifier: MIT */
/* The frame allocator: boot maps, a model with random operations, refusals, and threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/extent.h"
#include "tests/unit/host.h"

#define ARENA	 (64 * MIB)
#define NO_LIMIT HPA(1ull << 46)

/* --- helpers --- */

static struct frame_stats stats(void)
{
	struct frame_stats s;

	frames_stats(&s);
	return s;
}

static u8 kind_of(u64 hpa)
{
	return frame_owner(hpa_pfn(HPA(hpa))).kind;
}

/* Figures, lists and owners agree with each other, whatever happened before. */
static void check_figures(void)
{
	struct frame_stats seen = { 0 }, said = stats();
	u64 total = frames.extent_count * EXTENT_FRAMES;
	u64 in_partial = 0, in_whole = 0;

	for (u64 f = 0; f < total; f++)
		seen.frames[frame_owner(PFN(f)).kind]++;
	for (u32 k = 0; k < FRAME_KINDS; k++)
		assert_int_equal(seen.frames[k], said.frames[k]);
	list_for_each(link, &frames.partial) {
		const struct extent *e = list_entry(link, struct extent, link);

		assert_int_not_equal(e->heads, 0);
		assert_int_not_equal(e->free, 0);
		in_partial += e->free;
	}
	list_for_each(link, &frames.whole) {
		assert_int_equal(list_entry(link, struct extent, link)->heads, 0);
		in_whole++;
	}
	assert_int_equal(in_whole, said.whole_free_extents);
	assert_int_equal(in_whole * EXTENT_FRAMES + in_partial, said.frames[FRAME_FREE]);
}

static void init_simple(u64 size)
{
	struct mem_range map[] = { { HPA(0), size, FRAME_FREE } };

	host_arena_open(size);
	assert_int_equal(frames_init(map, 1, NO_LIMIT), 0);
	check_figures();
}

/* --- boot maps --- */

static void test_descriptor_is_small(void **state)
{
	(void)state;
	assert_true(sizeof(struct extent) <= 128);
}

static void test_refuses_useless_maps(void **state)
{
	struct mem_range none[] = { { HPA(0), ARENA, FRAME_NONE }, { HPA(MIB), MIB, FRAME_IMAGE } };
	struct mem_range empty[] = { { HPA(MIB + 1), PAGE_SIZE, FRAME_FREE } };
	struct mem_range first[] = { { HPA(0), PAGE_SIZE, FRAME_FREE } };
	struct mem_range taken[] = { { HPA(0), ARENA, FRAME_FREE },
				     { HPA(0), ARENA, FRAME_IMAGE } };
	struct mem_range high[] = { { HPA(GIB), ARENA, FRAME_FREE } };
	/* One free page at the top of 64 GiB: no place for 32768 descriptors. */
	struct mem_range small[] = { { HPA(64 * GIB), PAGE_SIZE, FRAME_FREE } };

	(void)state;
	host_arena_open(ARENA);
	assert_int_equal(frames_init(NULL, 0, NO_LIMIT), -EINVAL);
	assert_int_equal(frames_init(none, 2, NO_LIMIT), -EINVAL);
	assert_int_equal(frames_init(empty, 1, NO_LIMIT), -EINVAL);
	assert_int_equal(frames_init(first, 1, NO_LIMIT), -EINVAL);
	assert_int_equal(frames_init(taken, 2, NO_LIMIT), -ENOMEM);
	assert_int_equal(frames_init(high, 1, HPA(GIB)), -EINVAL);
	assert_int_equal(frames_init(small, 1, NO_LIMIT), -ENOMEM);
}

static void test_overlaps_and_order(void **state)
{
	struct mem_range map[] = {
		{ HPA(5 * MIB + 123), 100, FRAME_NONE }, /* one page, whatever else says */
		{ HPA(5 * MIB), MIB, FRAME_IMAGE },
		{ HPA(16 * MIB), 48 * MIB, FRAME_FREE },
		{ HPA(5 * MIB + 512 * KIB), MIB, FRAME_MODULE },
		{ HPA(MIB), 8 * MIB, FRAME_FREE },
		{ HPA(0), 640 * KIB, FRAME_FREE },
		{ HPA(20 * MIB), 4 * MIB, FRAME_GUEST },
		{ HPA(22 * MIB), 20 * MIB, FRAME_FREE }, /* free twice */
	};
	u64 array;

	(void)state;
	host_arena_open(ARENA);
	assert_int_equal(frames_init(map, ARRAY_SIZE(map), NO_LIMIT), 0);
	check_figures();
	array = ptr_hpa(frames.extents).v;
	assert_true(array >= MIB);
	assert_int_equal(kind_of(array), FRAME_META);
	assert_int_equal(kind_of(0), FRAME_NONE);
	assert_int_not_equal(kind_of(639 * KIB), FRAME_NONE);
	assert_int_equal(kind_of(640 * KIB), FRAME_NONE);
	assert_int_equal(kind_of(MIB - 1), FRAME_NONE);
	assert_int_equal(kind_of(5 * MIB), FRAME_NONE);
	assert_int_equal(kind_of(5 * MIB + 4 * KIB), FRAME_IMAGE);
	assert_int_equal(kind_of(6 * MIB - 1), FRAME_IMAGE);
	assert_int_equal(kind_of(6 * MIB), FRAME_MODULE);
	assert_int_equal(kind_of(6 * MIB + 512 * KIB - 1), FRAME_MODULE);
	assert_int_equal(kind_of(6 * MIB + 512 * KIB), FRAME_FREE);
	assert_int_equal(kind_of(9 * MIB), FRAME_NONE);
	assert_int_equal(kind_of(16 * MIB), FRAME_FREE);
	assert_int_equal(kind_of(20 * MIB), FRAME_GUEST);
	assert_int_equal(kind_of(24 * MIB - 1), FRAME_GUEST);
	assert_int_equal(kind_of(24 * MIB), FRAME_FREE);
	assert_int_equal(kind_of(64 * MIB), FRAME_NONE);
	assert_int_equal(kind_of(1ull << 50), FRAME_NONE);
	assert_int_equal(frame_owner(PFN_NONE).kind, FRAME_NONE);
}

/* A mixed extent in which nothing is free keeps its owners apart, and can become whole. */
static void test_full_mixed_extent(void **state)
{
	struct mem_range map[] = {
		{ HPA(0), ARENA, FRAME_FREE },
		{ HPA(8 * MIB), MIB, FRAME_IMAGE },
		{ HPA(9 * MIB), MIB, FRAME_MODULE },
	};
	struct frame_stats before;

	(void)state;
	host_arena_open(ARENA);
	assert_int_equal(frames_init(map, ARRAY_SIZE(map), NO_LIMIT), 0);
	check_figures();
	before = stats();
	assert_int_equal(before.frames[FRAME_IMAGE], 256);
	assert_int_equal(before.frames[FRAME_MODULE], 256);

	assert_int_equal(frames_release(HPA(9 * MIB), MIB, FRAME_MODULE), 256);
	check_figures();
	assert_int_equal(kind_of(9 * MIB), FRAME_FREE);
	assert_int_equal(kind_of(9 * MIB - 1), FRAME_IMAGE);
	/* With the last frame the extent is whole, and its foreign page of heads is free too. */
	assert_int_equal(frames_release(HPA(8 * MIB), MIB, FRAME_IMAGE), 257);
	check_figures();
	assert_int_equal(frames.extents[4].heads, 0);
	assert_int_equal(stats().whole_free_extents, before.whole_free_extents + 1);
	assert_int_equal(frames_release(HPA(8 * MIB), MIB, FRAME_IMAGE), 0);
}

static void test_release(void **state)
{
	struct mem_range map[] = {
		{ HPA(MIB), 15 * MIB, FRAME_FREE },
		{ HPA(16 * MIB), 16 * MIB, FRAME_HEAP },
		{ HPA(20 * MIB), 64 * KIB, FRAME_IMAGE },
	};
	struct frame_stats before;

	(void)state;
	host_arena_open(ARENA);
	assert_int_equal(frames_init(map, ARRAY_SIZE(map), NO_LIMIT), 0);
	before = stats();
	/* From the middle of one page to the middle of another: only what is whole. One frame
	 * becomes the heads. */
	assert_int_equal(frames_release(HPA(17 * MIB + 1), 2 * PAGE_SIZE, FRAME_HEAP), 0);
	assert_int_equal(kind_of(17 * MIB + PAGE_SIZE), FRAME_META);
	check_figures();
	/* Wrong kind, nothing there, above the end. */
	assert_int_equal(frames_release(HPA(16 * MIB), 16 * MIB, FRAME_MODULE), 0);
	assert_int_equal(frames_release(HPA(40 * MIB), GIB, FRAME_HEAP), 0);
	/* The rest, also past the end of memory; the image in between stays. */
	assert_int_equal(frames_release(HPA(16 * MIB), GIB, FRAME_HEAP), 4096 - 16);
	assert_int_equal(kind_of(20 * MIB), FRAME_IMAGE);
	assert_int_equal(kind_of(20 * MIB + 64 * KIB), FRAME_FREE);
	assert_int_equal(stats().whole_free_extents, before.whole_free_extents + 7);
	check_figures();
}

/* Descriptors of 256 GiB, with RAM at both ends; the array takes what it needs from the lower one.
 */
static void test_large_and_sparse(void **state)
{
	struct mem_range map[] = {
		{ HPA(240 * GIB), 16 * GIB, FRAME_FREE },
		{ HPA(2 * MIB), 3 * GIB, FRAME_FREE },
	};
	u64 array;

	(void)state;
	host_arena_open(256 * GIB);
	assert_int_equal(frames_init(map, ARRAY_SIZE(map), NO_LIMIT), 0);
	assert_int_equal(frames.extent_count, 128 * 1024);
	array = ALIGN_UP(frames.extent_count * sizeof(struct extent), EXTENT_SIZE) >> EXTENT_SHIFT;
	assert_int_equal(stats().whole_free_extents, (16 + 3) * 512 - array);
	assert_int_equal(kind_of(256 * GIB - 1), FRAME_FREE);
	assert_int_equal(kind_of(128 * GIB), FRAME_NONE);
	assert_true(pfn_valid(extent_alloc(8192, 512, FRAME_GUEST, 7)));
	assert_int_equal(kind_of(256 * GIB - 1), FRAME_GUEST);
	assert_int_equal(frames_of_vm(7), 8192 * EXTENT_FRAMES);
}

static void test_tiny(void **state)
{
	struct mem_range map[] = { { HPA(0), 12 * KIB, FRAME_FREE } };
	pfn_t f;

	(void)state;
	/* Three pages: the first is never used, one is the array, one the heads. Nothing is left,
	 * and nothing breaks. */
	host_arena_open(EXTENT_SIZE);
	assert_int_equal(frames_init(map, 1, NO_LIMIT), 0);
	check_figures();
	assert_int_equal(stats().frames[FRAME_META], 2);
	assert_false(pfn_valid(frame_alloc(FRAME_HEAP, VM_NONE)));
	assert_null(frame_alloc_zero(FRAME_HEAP, VM_NONE));
	assert_false(pfn_valid(extent_alloc(1, 1, FRAME_HEAP, VM_NONE)));

	map[0].size = 16 * KIB;
	assert_int_equal(frames_init(map, 1, NO_LIMIT), 0);
	f = frame_alloc(FRAME_HEAP, VM_NONE);
	assert_true(pfn_valid(f));
	assert_false(pfn_valid(frame_alloc(FRAME_HEAP, VM_NONE)));
	assert_int_equal(frame_free(f, FRAME_HEAP, VM_NONE), 0);
	check_figures();

	/* Two pages: an array, but no room to describe the mixed extent. */
	map[0].size = 8 * KIB;
	assert_int_equal(frames_init(map, 1, NO_LIMIT), -ENOMEM);
}

/* --- allocation --- */

static void test_extents_leave_no_heads(void **state)
{
	struct frame_stats before, after;
	pfn_t f, g;

	(void)state;
	init_simple(ARENA);
	before = stats();
	f = extent_alloc(1, 1, FRAME_GUEST, 1);
	g = frame_alloc_order(9, FRAME_GUEST, 2);
	assert_true(pfn_valid(f) && pfn_valid(g));
	assert_int_equal(f.v % EXTENT_FRAMES, 0);
	assert_int_equal(g.v % EXTENT_FRAMES, 0);
	after = stats();
	assert_int_equal(after.frames[FRAME_META], before.frames[FRAME_META]);
	assert_int_equal(after.frames[FRAME_GUEST], 2 * EXTENT_FRAMES);
	assert_int_equal(frames_of_vm(1), EXTENT_FRAMES);
	assert_int_equal(extent_free(f, 1, FRAME_GUEST, 1), 0);
	assert_int_equal(frame_free_order(g, 9, FRAME_GUEST, 2), 0);
	after = stats();
	assert_memory_equal(&after, &before, sizeof(after));
	check_figures();
}

static void test_contiguous_extents(void **state)
{
	struct frame_stats before;
	pfn_t f, hole;

	(void)state;
	init_simple(ARENA);
	before = stats();
	hole = frame_alloc_order(9, FRAME_HEAP, VM_NONE); /* a low one is gone */
	f = extent_alloc(8, 8, FRAME_GUEST, 3);
	assert_true(pfn_valid(f));
	assert_int_equal(f.v % (8 * EXTENT_FRAMES), 0);
	for (u64 i = 0; i < 8 * EXTENT_FRAMES; i++)
		assert_int_equal(frame_owner(PFN(f.v + i)).vm, 3);
	assert_false(pfn_valid(extent_alloc(33, 1, FRAME_GUEST, 3)));
	assert_false(pfn_valid(extent_alloc(1ull << 40, 1, FRAME_GUEST, 3)));
	assert_false(pfn_valid(extent_alloc(1, 64, FRAME_GUEST, 3)));
	assert_int_equal(extent_free(PFN(f.v + 4 * EXTENT_FRAMES), 4, FRAME_GUEST, 3), 0);
	assert_int_equal(extent_free(f, 8, FRAME_GUEST, 3), -EINVAL);
	assert_int_equal(frames_of_vm(3), 4 * EXTENT_FRAMES);
	assert_int_equal(extent_free(f, 4, FRAME_GUEST, 3), 0);
	assert_int_equal(extent_free(hole, 1, FRAME_HEAP, VM_NONE), 0);
	assert_int_equal(stats().frames[FRAME_FREE], before.frames[FRAME_FREE]);
	check_figures();
}

static void test_refusals(void **state)
{
	struct frame_stats before;
	pfn_t f, block, whole, half;

	(void)state;
	init_simple(ARENA);
	f = frame_alloc(FRAME_STAGE2, 5);
	block = frame_alloc_order(3, FRAME_HW, VM_NONE);
	whole = extent_alloc(2, 1, FRAME_GUEST, 5);
	before = stats();
	assert_int_equal(frame_free(f, FRAME_STAGE2, 6), -EINVAL);
	assert_int_equal(frame_free(f, FRAME_HEAP, 5), -EINVAL);
	assert_int_equal(frame_free(PFN(f.v + 1000), FRAME_STAGE2, 5), -EINVAL);
	assert_int_equal(frame_free(PFN(1ull << 40), FRAME_STAGE2, 5), -EINVAL);
	assert_int_equal(frame_free(PFN_NONE, FRAME_STAGE2, 5), -EINVAL);
	assert_int_equal(frame_free(PFN(0), FRAME_NONE, VM_NONE), -EINVAL);
	assert_int_equal(frame_free_order(block, 4, FRAME_HW, VM_NONE), -EINVAL);
	assert_int_equal(frame_free_order(PFN(block.v + 1), 2, FRAME_HW, VM_NONE), -EINVAL);
	assert_int_equal(frame_free_order(block, 64, FRAME_HW, VM_NONE), -EINVAL);
	assert_int_equal(extent_free(whole, 3, FRAME_GUEST, 5), -EINVAL);
	assert_int_equal(extent_free(whole, 1ull << 60, FRAME_GUEST, 5), -EINVAL);
	assert_int_equal(extent_free(PFN(whole.v + 1), 1, FRAME_GUEST, 5), -EINVAL);
	assert_int_equal(extent_free(whole, 2, FRAME_GUEST, 4), -EINVAL);
	assert_int_equal(frames_release(HPA(0), ARENA, FRAME_META), 0);
	assert_int_equal(frames_release(HPA(0), ARENA, FRAME_GUEST), 0); /* a VM's */
	assert_false(pfn_valid(frame_alloc(FRAME_FREE, VM_NONE)));
	assert_false(pfn_valid(frame_alloc(FRAME_KINDS, VM_NONE)));
	assert_false(pfn_valid(frame_alloc_order(10, FRAME_HEAP, VM_NONE)));
	assert_false(pfn_valid(extent_alloc(0, 1, FRAME_HEAP, VM_NONE)));
	assert_false(pfn_valid(extent_alloc(1, 3, FRAME_HEAP, VM_NONE)));
	check_figures();
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));

	/* A block of which a part was freed already: all or nothing. */
	half = frame_alloc_order(4, FRAME_HW, VM_NONE);
	assert_int_equal(frame_free_order(PFN(half.v + 8), 3, FRAME_HW, VM_NONE), 0);
	assert_int_equal(frame_free_order(half, 4, FRAME_HW, VM_NONE), -EINVAL);
	assert_int_equal(frame_owner(half).kind, FRAME_HW);
	assert_int_equal(frame_free_order(half, 3, FRAME_HW, VM_NONE), 0);

	assert_int_equal(frame_free(f, FRAME_STAGE2, 5), 0);
	assert_int_equal(frame_free(f, FRAME_STAGE2, 5), -EINVAL); /* twice */
	assert_int_equal(extent_free(whole, 2, FRAME_GUEST, 5), 0);
	assert_int_equal(extent_free(whole, 2, FRAME_GUEST, 5), -EINVAL);
	check_figures();
}

static void test_exhaustion(void **state)
{
	struct frame_stats before;
	u64 n = 0, *frame;
	u64 first = 0;

	(void)state;
	init_simple(8 * MIB);
	before = stats();
	/* Chain all frames through their own contents: a frame that comes twice would close a
	 * circle. */
	while ((frame = frame_alloc_zero(FRAME_HEAP, 9))) {
		for (u32 i = 0; i < PAGE_SIZE / 8; i++)
			assert_int_equal(frame[i], 0);
		*frame = first;
		frame[511] = ~0ull;
		first = hpa_pfn(ptr_hpa(frame)).v;
		n++;
	}
	assert_int_equal(stats().frames[FRAME_FREE], 0);
	/* Three extents that were whole needed heads; nothing else is lost. */
	assert_int_equal(n, before.frames[FRAME_FREE] - before.whole_free_extents);
	assert_int_equal(frames_of_vm(9), n);
	for (; n; n--) {
		u64 next = *(u64 *)pfn_ptr(PFN(first));

		assert_int_equal(frame_free(PFN(first), FRAME_HEAP, 9), 0);
		first = next;
	}
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));
	assert_int_equal(stats().whole_free_extents, before.whole_free_extents);
	check_figures();
}

/* A whole extent may come back frame by frame, and a block in other pieces than it was handed out.
 */
static void test_free_in_pieces(void **state)
{
	struct frame_stats before;
	pfn_t f;

	(void)state;
	init_simple(ARENA);
	before = stats();
	f = extent_alloc(1, 1, FRAME_GUEST, 1);
	assert_int_equal(frame_free(PFN(f.v + 77), FRAME_GUEST, 1), 0);
	assert_int_equal(frame_owner(PFN(f.v + 77)).kind, FRAME_META);
	assert_int_equal(extent_free(f, 1, FRAME_GUEST, 1), -EINVAL);
	check_figures();
	for (u64 i = 0; i < EXTENT_FRAMES; i++) {
		if (i != 77)
			assert_int_equal(frame_free(PFN(f.v + i), FRAME_GUEST, 1), 0);
	}
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));

	f = frame_alloc_order(8, FRAME_HW, VM_NONE);
	for (u64 i = 0; i < 256; i += 16)
		assert_int_equal(frame_free_order(PFN(f.v + i), 4, FRAME_HW, VM_NONE), 0);
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));
	check_figures();
}

/* --- random operations against a model --- */

#define MODEL_FRAMES (ARENA / PAGE_SIZE)
#define MODEL_BLOCKS 4096

struct block {
	u64 pfn, frames;
	u8 kind;
	u16 vm;
};
static struct block blocks[MODEL_BLOCKS];
static u32 block_count;
static u16 model_vm[MODEL_FRAMES]; /* 0: not allocated by us */

static void model_alloc(u64 *seed)
{
	u64 r = host_random(seed);
	u8 kind = r & 1 ? FRAME_GUEST : FRAME_HEAP;
	u16 vm = (r >> 8) % 7 + 1;
	u32 order = (r >> 16) % 64 < 48 ? 0 : (r >> 24) % 10;
	u64 count = (r >> 32) % 32 ? 0 : (r >> 40) % 3 + 1;
	u64 n = count ? count * EXTENT_FRAMES : 1ull << order;
	pfn_t f = count ? extent_alloc(count, 1, kind, vm) : frame_alloc_order(order, kind, vm);

	if (!pfn_valid(f))
		return;
	assert_int_equal(f.v % MIN(n, EXTENT_FRAMES), 0);
	for (u64 i = 0; i < n; i++) {
		assert_int_equal(model_vm[f.v + i], 0);
		model_vm[f.v + i] = vm;
	}
	*(u64 *)pfn_ptr(f) = f.v * 3;
	blocks[block_count++] = (struct block){ f.v, n, kind, vm };
}

static int free_block(const struct block *b, u8 kind, u16 vm)
{
	if (b->frames >= EXTENT_FRAMES)
		return extent_free(PFN(b->pfn), b->frames / EXTENT_FRAMES, kind, vm);
	return frame_free_order(PFN(b->pfn), (u32)__builtin_ctzll(b->frames), kind, vm);
}

static void model_free(u32 which)
{
	struct block b = blocks[which];

	assert_int_equal(*(u64 *)pfn_ptr(PFN(b.pfn)), b.pfn * 3);
	assert_int_equal(frame_owner(PFN(b.pfn)).vm, b.vm);
	assert_int_equal(free_block(&b, b.kind, b.vm + 1), -EINVAL);
	assert_int_equal(free_block(&b, b.kind, b.vm), 0);
	for (u64 i = 0; i < b.frames; i++)
		model_vm[b.pfn + i] = 0;
	blocks[which] = blocks[--block_count];
}

static void test_random(void **state)
{
	struct frame_stats before;
	u64 seed = host_seed(), sum[8] = { 0 };

	(void)state;
	init_simple(ARENA);
	before = stats();
	for (u32 i = 0; i < 200000; i++) {
		/* Waves: mostly allocating, then mostly freeing, so that memory is full and empty
		 * many times. */
		bool grow = host_random(&seed) % 16 < (i / 10000 % 2 ? 5 : 11);

		if (block_count && (!grow || block_count == MODEL_BLOCKS))
			model_free((u32)(host_random(&seed) % block_count));
		else
			model_alloc(&seed);
		if (i % 10000 == 0)
			check_figures();
	}
	for (u64 f = 0; f < MODEL_FRAMES; f++)
		sum[model_vm[f]]++;
	for (u16 vm = 1; vm < 8; vm++)
		assert_int_equal(frames_of_vm(vm), sum[vm]);
	while (block_count)
		model_free(block_count - 1);
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));
	assert_int_equal(stats().whole_free_extents, before.whole_free_extents);
	check_figures();
}

/* --- threads --- */

static void *thread_main(void *arg)
{
	u16 vm = (u16)(uintptr_t)arg;
	u64 seed = host_seed() + vm;
	pfn_t held[64];

	for (u32 i = 0; i < 64; i++)
		held[i] = PFN_NONE;
	for (u32 i = 0; i < 20000; i++) {
		pfn_t *f = &held[host_random(&seed) % 64];

		if (pfn_valid(*f)) {
			HOST_CHECK(*(u64 *)pfn_ptr(*f) == vm);
			HOST_CHECK(frame_free(*f, FRAME_HEAP, vm) == 0);
			*f = PFN_NONE;
		} else {
			*f = frame_alloc(FRAME_HEAP, vm);
			HOST_CHECK(pfn_valid(*f));
			*(u64 *)pfn_ptr(*f) = vm;
		}
	}
	for (u32 i = 0; i < 64; i++) {
		if (pfn_valid(held[i]))
			HOST_CHECK(frame_free(held[i], FRAME_HEAP, vm) == 0);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct frame_stats before;
	pthread_t threads[4];

	(void)state;
	init_simple(ARENA);
	before = stats();
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, thread_main, (void *)(i + 1)),
				 0);
	for (u32 i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(host_failures, 0);
	assert_memory_equal(before.frames, stats().frames, sizeof(before.frames));
	check_figures();
}

/* What a damaged VM had is nobody's, and can't be freed by mistake; the rest of it can. */
static void test_quarantine(void **state)
{
	pfn_t whole, frame, other, heap;
	u64 free_before;

	(void)state;
	init_simple(ARENA);
	whole = extent_alloc(2, 1, FRAME_GUEST, 5);
	frame = frame_alloc(FRAME_STAGE2, 5);
	other = frame_alloc(FRAME_STAGE2, 6);
	heap = frame_alloc(FRAME_HEAP, 5);
	free_before = stats().frames[FRAME_FREE];
	assert_int_equal(frames_quarantine(5), 2 * EXTENT_FRAMES + 1);
	assert_int_equal(frames_quarantine(5), 0);
	check_figures();
	assert_int_equal(stats().frames[FRAME_QUARANTINE], 2 * EXTENT_FRAMES + 1);
	assert_int_equal(frame_owner(whole).kind, FRAME_QUARANTINE);
	assert_int_equal(frame_owner(whole).vm, 5);
	assert_int_equal(frame_owner(other).kind, FRAME_STAGE2);
	assert_int_equal(extent_free(whole, 2, FRAME_GUEST, 5), -EINVAL);
	assert_int_equal(extent_free(whole, 2, FRAME_QUARANTINE, 5), -EINVAL);
	assert_int_equal(frame_free(frame, FRAME_STAGE2, 5), -EINVAL);
	assert_int_equal(stats().frames[FRAME_FREE], free_before);
	assert_int_equal(frame_free(heap, FRAME_HEAP, 5), 0);
	/* The number is taken as long as this is there. */
	assert_int_equal(frames_of_vm(5), 2 * EXTENT_FRAMES + 1);
	check_figures();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptor_is_small),
		cmocka_unit_test(test_refuses_useless_maps),
		cmocka_unit_test(test_overlaps_and_order),
		cmocka_unit_test(test_full_mixed_extent),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_large_and_sparse),
		cmocka_unit_test(test_tiny),
		cmocka_unit_test(test_extents_leave_no_heads),
		cmocka_unit_test(test_contiguous_extents),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_exhaustion),
		cmocka_unit_test(test_free_in_pieces),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_quarantine),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
