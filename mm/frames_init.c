/* SPDX-License-Identifier: MIT */
/*
 * From the firmware's memory map to the extent array. The map may overlap and come in any order;
 * nothing here sorts it: what a place is, and how far down that holds, is asked of the whole map
 * each time it may have changed.
 */
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/extent.h"

/* The boot memory map, and the extent array once it has a place. */
struct boot_map {
	const struct mem_range *ranges;
	size_t count;
	u64 max;
	u64 array, array_size;
};

/* A range in whole pages: free ones shrink, others grow. Frame 0 and all above max are cut off. */
static void range_edges(const struct boot_map *map, size_t i, u64 *base, u64 *end)
{
	const struct mem_range *r = &map->ranges[i];
	u64 top = r->size > ~r->base.v ? ~0ull : r->base.v + r->size;

	top = MIN(top, map->max);
	if (r->kind == FRAME_FREE) {
		*base = ALIGN_UP(r->base.v, PAGE_SIZE);
		*end = ALIGN_DOWN(top, PAGE_SIZE);
	} else {
		*base = ALIGN_DOWN(r->base.v, PAGE_SIZE);
		*end = ALIGN_UP(top, PAGE_SIZE);
	}
	*base = MAX(*base, PAGE_SIZE);
	*end = MAX(*end, *base);
}

/* How strong a kind's claim is where ranges overlap. */
static u32 claim(u8 kind)
{
	if (kind == FRAME_NONE)
		return FRAME_KINDS;
	return kind == FRAME_FREE ? 1 : FRAME_KINDS - kind + 1;
}

/* What the page at `at` is. From *low up to here nothing begins or ends. */
static u8 kind_at(const struct boot_map *map, u64 at, u64 *low)
{
	u8 kind = FRAME_NONE;
	u32 best = 0;

	*low = 0;
	for (size_t i = 0; i < map->count; i++) {
		u64 base, end;

		range_edges(map, i, &base, &end);
		if (base <= at && at < end && claim(map->ranges[i].kind) > best) {
			kind = map->ranges[i].kind;
			best = claim(kind);
		}
		if (base <= at)
			*low = MAX(*low, end <= at ? end : base);
	}
	if (at - map->array < map->array_size)
		kind = FRAME_META;
	if (map->array_size && map->array <= at)
		*low = MAX(*low, at - map->array < map->array_size ? map->array
								   : map->array + map->array_size);
	return kind;
}

static bool all_free(const struct boot_map *map, u64 base, u64 end)
{
	u64 low;

	for (; end > base; end = low) {
		if (kind_at(map, end - PAGE_SIZE, &low) != FRAME_FREE)
			return false;
	}
	return true;
}

/* End of the highest piece that is RAM; 0 if none of it is free. */
static u64 ram_end(const struct boot_map *map)
{
	u64 highest = 0;
	bool usable = false;

	for (size_t i = 0; i < map->count; i++) {
		u64 base, end;

		range_edges(map, i, &base, &end);
		if (map->ranges[i].kind == FRAME_NONE || base == end)
			continue;
		highest = MAX(highest, end);
		usable |= map->ranges[i].kind == FRAME_FREE;
	}
	return usable ? highest : 0;
}

/* The lowest free place from `floor` on; it begins where some range begins or ends. */
static bool place_array(struct boot_map *map, u64 size, u64 floor)
{
	u64 best = ~0ull;

	for (size_t i = 0; i < 2 * map->count; i++) {
		u64 edge[2], at;

		range_edges(map, i / 2, &edge[0], &edge[1]);
		at = edge[i % 2];
		if (at >= floor && at < best && size <= map->max && at <= map->max - size &&
		    all_free(map, at, at + size))
			best = at;
	}
	if (best == ~0ull)
		return false;
	map->array = best;
	map->array_size = size;
	return true;
}

static u64 extent_base(const struct extent *e)
{
	return (u64)(e - frames.extents) << EXTENT_SHIFT;
}

/* The lowest free page of a mixed extent. */
static pfn_t lowest_free(const struct boot_map *map, const struct extent *e)
{
	u64 base = extent_base(e), low;
	pfn_t found = PFN_NONE;

	for (u64 end = base + EXTENT_SIZE; end > base; end = low) {
		u8 kind = kind_at(map, end - PAGE_SIZE, &low);

		low = MAX(low, base);
		if (kind == FRAME_FREE)
			found = hpa_pfn(HPA(low));
	}
	return found;
}

static void fill_mixed(const struct boot_map *map, struct extent *e, pfn_t heads)
{
	u64 base = extent_base(e), low;

	extent_split(e, heads);
	for (u64 end = base + EXTENT_SIZE; end > base; end = low) {
		u8 kind = kind_at(map, end - PAGE_SIZE, &low);

		low = MAX(low, base);
		for (u64 f = end >> PAGE_SHIFT; f-- > low >> PAGE_SHIFT;) {
			if (f != heads.v)
				extent_set_owner(e, f % EXTENT_FRAMES, owner_of(kind, VM_NONE));
		}
	}
}

/* Mixed extents without a free frame: their heads come from elsewhere. Without any, they are as
 * good as not there. */
static void fill_full(const struct boot_map *map, struct list *full)
{
	while (!list_empty(full)) {
		struct extent *e = list_entry(full->next, struct extent, link);
		pfn_t heads = frame_alloc(FRAME_META, VM_NONE);

		list_del(&e->link);
		if (pfn_valid(heads))
			fill_mixed(map, e, heads);
		else
			log_warn("frames: no memory to describe the extent at %#llx: left out",
				 (unsigned long long)extent_base(e));
	}
}

/* From the top down, so that the lowest extents stand first in the lists. */
static void fill_extents(const struct boot_map *map)
{
	struct list full = LIST_INIT(full);
	u64 low = ~0ull;
	u8 kind = FRAME_NONE;

	for (u64 i = frames.extent_count; i-- > 0;) {
		struct extent *e = &frames.extents[i];
		u64 base = extent_base(e);
		pfn_t heads;

		if (base < low)
			kind = kind_at(map, base + EXTENT_SIZE - PAGE_SIZE, &low);
		if (base >= low) {
			extent_set_whole(e, owner_of(kind, VM_NONE));
			continue;
		}
		heads = lowest_free(map, e);
		if (pfn_valid(heads))
			fill_mixed(map, e, heads);
		else
			list_add(&full, &e->link);
	}
	fill_full(map, &full);
}

int frames_init(const struct mem_range *ranges, size_t count, hpa_t max_hpa)
{
	struct boot_map map = { .ranges = ranges,
				.count = count,
				.max = ALIGN_DOWN(max_hpa.v, PAGE_SIZE) };
	u64 extents = ALIGN_UP(ram_end(&map), EXTENT_SIZE) >> EXTENT_SHIFT;
	u64 size = ALIGN_UP(extents * sizeof(struct extent), PAGE_SIZE);

	if (!extents)
		return trace_error(-EINVAL);
	if (!place_array(&map, size, MIB) && !place_array(&map, size, 0))
		return trace_error(-ENOMEM);

	frames.extents = hpa_ptr(HPA(map.array));
	frames.extent_count = extents;
	list_init(&frames.whole);
	list_init(&frames.partial);
	frames.stats = (struct frame_stats){ 0 };
	frames.stats.frames[FRAME_NONE] = extents * EXTENT_FRAMES;
	memset(frames.extents, 0, size);
	fill_extents(&map);
	return 0;
}
