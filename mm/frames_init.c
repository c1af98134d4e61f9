/* SPDX-License-Identifier: MIT */
/*
 * From the firmware's memory map to the extent array. The map may overlap and come in any order;
 * nothing here sorts it: what a place is, and how far down that holds, is asked of the whole map
 * each time it may have changed.
 */
#include "lib/error.h"
#include "lib/string.h"
#include "mm/extent.h"

/* The boot memory map, and the place of the extent array with the pages of heads behind it. */
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

static void fill_mixed(const struct boot_map *map, struct extent *e, pfn_t heads)
{
	u64 base = extent_base(e), low;

	extent_split(e, heads);
	for (u64 end = base + EXTENT_SIZE; end > base; end = low) {
		u8 kind = kind_at(map, end - PAGE_SIZE, &low);

		low = MAX(low, base);
		for (u64 f = end >> PAGE_SHIFT; f-- > low >> PAGE_SHIFT;)
			extent_set_owner(e, f % EXTENT_FRAMES, owner_of(kind, VM_NONE));
	}
}

/*
 * From the top down, so that the lowest extents stand first in the lists. Takes pages of heads from
 * `heads` on, and returns the next one.
 */
static u64 fill_extents(const struct boot_map *map, u64 heads)
{
	u64 low = ~0ull;
	u8 kind = FRAME_NONE;

	for (u64 i = frames.extent_count; i-- > 0;) {
		struct extent *e = &frames.extents[i];
		u64 base = extent_base(e);

		if (base < low)
			kind = kind_at(map, base + EXTENT_SIZE - PAGE_SIZE, &low);
		if (base >= low)
			extent_set_whole(e, owner_of(kind, VM_NONE));
		else
			fill_mixed(map, e, PFN(heads++));
	}
	return heads;
}

int frames_init(const struct mem_range *ranges, size_t count, hpa_t max_hpa)
{
	struct boot_map map = { .ranges = ranges,
				.count = count,
				.max = ALIGN_DOWN(max_hpa.v, PAGE_SIZE) };
	u64 extents = ALIGN_UP(ram_end(&map), EXTENT_SIZE) >> EXTENT_SHIFT;
	u64 size = ALIGN_UP(extents * sizeof(struct extent), PAGE_SIZE), heads;
	/* An extent is mixed because something begins or ends in it: a range, or all this. */
	u64 mixed = MIN(2 * count + 2, extents);

	if (!extents)
		return trace_error(-EINVAL);
	size += mixed * PAGE_SIZE;
	if (!place_array(&map, size, MIB) && !place_array(&map, size, 0))
		return trace_error(-ENOMEM);

	frames.extents = hpa_ptr(HPA(map.array));
	frames.extent_count = extents;
	list_init(&frames.whole);
	list_init(&frames.partial);
	frames.stats = (struct frame_stats){ 0 };
	frames.stats.frames[FRAME_NONE] = extents * EXTENT_FRAMES;
	memset(frames.extents, 0, size);
	for (u64 i = 0; i < extents; i++)
		spin_init(&frames.extents[i].lock, RANK_EXTENT);
	heads = fill_extents(&map, (map.array + size) / PAGE_SIZE - mixed);
	for (; heads < (map.array + size) / PAGE_SIZE; heads++)
		frame_free(PFN(heads), FRAME_META, VM_NONE);
	return 0;
}
