/* SPDX-License-Identifier: MIT */
/*
 * The frame allocator: whole extents and, inside split ones, frames. See mm/extent.h for the
 * picture.
 *
 * A frame comes from a partial extent if there is one, otherwise a whole free one is split. An
 * extent whose frames are all free again becomes whole at once, so that large allocations find what
 * they need and the figures come out even.
 */
#include "lib/assert.h"
#include "lib/bitmap.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/extent.h"

struct frames frames = { .lock = SPINLOCK_INIT(RANK_FRAMES) };

static bool same_owner(struct frame_owner a, struct frame_owner b)
{
	return a.kind == b.kind && a.vm == b.vm;
}

static bool may_own(enum frame_kind kind)
{
	return kind > FRAME_FREE && kind < FRAME_QUARANTINE;
}

static u64 extent_pfn(const struct extent *e)
{
	return (u64)(e - frames.extents) * EXTENT_FRAMES;
}

static void count_frames(u8 from, u8 to, u64 n)
{
	frames.stats.frames[from] -= n;
	frames.stats.frames[to] += n;
}

/* --- lists --- */

static struct extent *first_extent(const struct list *list)
{
	return list_empty(list) ? NULL : list_entry(list->next, struct extent, link);
}

static void whole_list_add(struct extent *e)
{
	list_add(&frames.whole, &e->link);
	frames.stats.whole_free_extents++;
}

static void whole_list_del(struct extent *e)
{
	list_del(&e->link);
	frames.stats.whole_free_extents--;
}

static void free_list_add(struct extent *e, u32 index)
{
	struct frame_head *heads = extent_heads(e);

	heads[index].prev = FRAME_END;
	heads[index].next = e->first_free;
	if (e->first_free != FRAME_END)
		heads[e->first_free].prev = (u16)index;
	e->first_free = (u16)index;
	if (!e->free++)
		list_add(&frames.partial, &e->link);
}

static void free_list_del(struct extent *e, u32 index)
{
	struct frame_head *heads = extent_heads(e);
	struct frame_head *h = &heads[index];

	if (h->prev == FRAME_END)
		e->first_free = h->next;
	else
		heads[h->prev].next = h->next;
	if (h->next != FRAME_END)
		heads[h->next].prev = h->prev;
	if (!--e->free)
		list_del(&e->link);
}

/* --- states of an extent --- */

void extent_set_whole(struct extent *e, struct frame_owner owner)
{
	count_frames(e->kind, owner.kind, EXTENT_FRAMES);
	if (e->kind == FRAME_FREE)
		whole_list_del(e);
	e->kind = owner.kind;
	e->vm = owner.vm;
	if (e->kind == FRAME_FREE)
		whole_list_add(e);
}

void extent_set_owner(struct extent *e, u32 index, struct frame_owner owner)
{
	struct frame_head *h = &extent_heads(e)[index];

	count_frames(h->kind, owner.kind, 1);
	if (h->kind == FRAME_FREE)
		free_list_del(e, index);
	h->kind = owner.kind;
	h->vm = owner.vm;
	if (h->kind == FRAME_FREE)
		free_list_add(e, index);
}

void extent_split(struct extent *e, pfn_t heads)
{
	WRITE_ONCE(e->heads, heads.v);
	e->free = 0;
	e->first_free = FRAME_END;
	memset(extent_heads(e), 0, PAGE_SIZE);
	for (u32 i = EXTENT_FRAMES; i-- > 0;) {
		struct frame_head *h = &extent_heads(e)[i];

		h->kind = e->kind;
		h->vm = e->vm;
		if (e->kind == FRAME_FREE)
			free_list_add(e, i);
	}
	if (heads.v / EXTENT_FRAMES == extent_pfn(e) / EXTENT_FRAMES)
		extent_set_owner(e, heads.v % EXTENT_FRAMES, owner_of(FRAME_META, VM_NONE));
}

static void free_frame(struct extent *e, u32 index);

/* If nothing but its own page of heads is in use, a split extent becomes whole and free. */
static void extent_try_join(struct extent *e)
{
	u64 heads = e->heads;
	bool own = heads / EXTENT_FRAMES == extent_pfn(e) / EXTENT_FRAMES;

	if (e->free + own < EXTENT_FRAMES)
		return;
	if (own)
		extent_set_owner(e, heads % EXTENT_FRAMES, owner_of(FRAME_FREE, VM_NONE));
	list_del(&e->link);
	WRITE_ONCE(e->heads, 0);
	e->kind = FRAME_FREE;
	e->vm = VM_NONE;
	whole_list_add(e);
	if (!own)
		free_frame(extent_of(PFN(heads)), heads % EXTENT_FRAMES);
}

/*
 * A frame with an owner becomes free. In a whole extent it becomes the page of heads that is needed
 * now: it is the one frame of the extent that nobody uses.
 */
static void free_frame(struct extent *e, u32 index)
{
	if (!e->heads) {
		extent_split(e, PFN(extent_pfn(e) + index));
		return;
	}
	extent_set_owner(e, index, owner_of(FRAME_FREE, VM_NONE));
	extent_try_join(e);
}

/* --- allocate --- */

static bool all_free(const struct frame_head *heads, u32 n)
{
	while (n && heads[n - 1].kind == FRAME_FREE)
		n--;
	return !n;
}

/* Index of n free frames in a row, aligned to n, or EXTENT_FRAMES: around the first in the list,
 * which is likely, or the lowest. */
static u32 find_block(const struct extent *e, u32 n)
{
	const struct frame_head *heads = extent_heads(e);
	u32 base = ALIGN_DOWN(e->first_free, n);

	if (all_free(heads + base, n))
		return base;
	for (base = 0; base < EXTENT_FRAMES && !all_free(heads + base, n);)
		base += n;
	return base;
}

static pfn_t take_block(struct extent *e, u32 index, u32 n, struct frame_owner owner)
{
	struct frame_head *heads = extent_heads(e);

	for (u32 i = index; i < index + n; i++) {
		free_list_del(e, i);
		heads[i].kind = owner.kind;
		heads[i].vm = owner.vm;
	}
	count_frames(FRAME_FREE, owner.kind, n);
	return PFN(extent_pfn(e) + index);
}

/*
 * A block of 1 to 256 frames: from one of the first partial extents, else from a whole one; the
 * other partial ones are searched only when there is no whole one left.
 */
static pfn_t alloc_block(u32 n, struct frame_owner owner)
{
	u32 patience = list_empty(&frames.whole) ? ~0u : 8;
	struct extent *e;
	u32 index;

	list_for_each(link, &frames.partial) {
		if (!patience--)
			break;
		e = list_entry(link, struct extent, link);
		index = find_block(e, n);
		if (index < EXTENT_FRAMES)
			return take_block(e, index, n, owner);
	}
	e = first_extent(&frames.whole);
	if (!e)
		return PFN_NONE;
	whole_list_del(e);
	extent_split(e, PFN(extent_pfn(e)));
	return take_block(e, find_block(e, n), n, owner);
}

pfn_t frame_alloc_order(u32 order, enum frame_kind kind, u16 vm)
{
	struct frame_owner owner = owner_of(kind, vm);
	pfn_t f;

	if (order == EXTENT_SHIFT - PAGE_SHIFT)
		return extent_alloc(1, 1, kind, vm);
	if (WARN_ON(order > EXTENT_SHIFT - PAGE_SHIFT || !may_own(kind)))
		return PFN_NONE;
	spin_lock(&frames.lock);
	f = alloc_block(1u << order, owner);
	spin_unlock(&frames.lock);
	return f;
}

pfn_t frame_alloc(enum frame_kind kind, u16 vm)
{
	return frame_alloc_order(0, kind, vm);
}

void *frame_alloc_zero(enum frame_kind kind, u16 vm)
{
	pfn_t f = frame_alloc(kind, vm);

	return pfn_valid(f) ? memset(pfn_ptr(f), 0, PAGE_SIZE) : NULL;
}

static bool whole_owned(const struct extent *e, struct frame_owner owner)
{
	return !e->heads && same_owner(owner_of(e->kind, e->vm), owner);
}

/* First of `count` whole free extents in a row, the first aligned; NULL if there are none. */
static struct extent *find_extents(u64 count, u64 align)
{
	struct frame_owner free = owner_of(FRAME_FREE, VM_NONE);
	u64 start = 0, n = 0;

	if (count == 1 && align == 1)
		return first_extent(&frames.whole);
	while (count <= frames.extent_count && start <= frames.extent_count - count) {
		if (n == count)
			return &frames.extents[start];
		if (whole_owned(&frames.extents[start + n], free)) {
			n++;
		} else {
			start = ALIGN_UP(start + n + 1, align);
			n = 0;
		}
	}
	return NULL;
}

pfn_t extent_alloc(u64 count, u64 align, enum frame_kind kind, u16 vm)
{
	struct extent *e;

	if (WARN_ON(!count || !align || (align & (align - 1)) || !may_own(kind)))
		return PFN_NONE;
	spin_lock(&frames.lock);
	e = find_extents(count, align);
	for (u64 i = 0; e && i < count; i++)
		extent_set_whole(e + i, owner_of(kind, vm));
	spin_unlock(&frames.lock);
	return e ? PFN(extent_pfn(e)) : PFN_NONE;
}

/* --- free --- */

struct frame_owner frame_owner_peek(pfn_t f)
{
	const struct extent *e = extent_of(f);

	return e ? owner_in(e, f) : owner_of(FRAME_NONE, VM_NONE);
}

static bool all_owned(u64 first, u64 n, struct frame_owner owner)
{
	for (u64 f = first; f - first < n; f++) {
		if (!same_owner(frame_owner_peek(PFN(f)), owner))
			return false;
		if (!extent_of(PFN(f))->heads)
			f |= EXTENT_FRAMES - 1;
	}
	return true;
}

/*
 * What is `from` in this range becomes free; from the top down, so that the lowest stand first in
 * the lists.
 */
static void release(u64 first, u64 end, struct frame_owner from)
{
	while (end > first) {
		struct extent *e = extent_of(PFN(--end));

		if (end % EXTENT_FRAMES == EXTENT_FRAMES - 1 && extent_pfn(e) >= first &&
		    whole_owned(e, from)) {
			extent_set_whole(e, owner_of(FRAME_FREE, VM_NONE));
			end = extent_pfn(e);
		} else if (same_owner(frame_owner_peek(PFN(end)), from)) {
			free_frame(e, end % EXTENT_FRAMES);
		}
	}
}

/* All or nothing: the owners are looked at before anything is freed. n: a multiple of `align`. */
static int free_block(pfn_t f, u64 n, u64 align, struct frame_owner owner)
{
	bool ok = false;

	if (!(f.v % align) && may_own(owner.kind)) {
		spin_lock(&frames.lock);
		ok = all_owned(f.v, n, owner);
		if (ok)
			release(f.v, f.v + n, owner);
		spin_unlock(&frames.lock);
	}
	return WARN_ON(!ok) ? trace_error(-EINVAL) : 0;
}

int frame_free_order(pfn_t f, u32 order, enum frame_kind kind, u16 vm)
{
	u64 n = order <= EXTENT_SHIFT - PAGE_SHIFT ? 1u << order : ~0ull;

	return free_block(f, n, n, owner_of(kind, vm));
}

int frame_free(pfn_t f, enum frame_kind kind, u16 vm)
{
	return frame_free_order(f, 0, kind, vm);
}

int extent_free(pfn_t f, u64 count, enum frame_kind kind, u16 vm)
{
	u64 n = count <= frames.extent_count ? count * EXTENT_FRAMES : ~0ull;

	return free_block(f, n, EXTENT_FRAMES, owner_of(kind, vm));
}

u64 frames_release(hpa_t base, u64 size, enum frame_kind from)
{
	u64 first = ALIGN_UP(base.v, PAGE_SIZE) >> PAGE_SHIFT;
	u64 end = MIN((base.v + size) >> PAGE_SHIFT, frames.extent_count * EXTENT_FRAMES);
	u64 before, grown;

	if (WARN_ON(!may_own(from) || from == FRAME_META))
		return 0;
	spin_lock(&frames.lock);
	before = frames.stats.frames[FRAME_FREE];
	release(first, end, owner_of(from, VM_NONE));
	grown = frames.stats.frames[FRAME_FREE] - before;
	spin_unlock(&frames.lock);
	return grown;
}

/* --- look --- */

static u64 shared_owners[BITMAP_WORDS(1 << 16)];

bool frames_shared(u16 owner)
{
	return owner == VM_NONE || bitmap_test(shared_owners, owner);
}

void frames_set_shared(u16 owner, bool shared)
{
	if (shared)
		bitmap_set(shared_owners, owner);
	else
		bitmap_clear(shared_owners, owner);
}

struct frame_owner frame_owner(pfn_t f)
{
	struct frame_owner owner;

	spin_lock(&frames.lock);
	owner = frame_owner_peek(f);
	spin_unlock(&frames.lock);
	return owner;
}

void frames_stats(struct frame_stats *out)
{
	spin_lock(&frames.lock);
	*out = frames.stats;
	spin_unlock(&frames.lock);
}

u64 frames_end(void)
{
	return frames.extent_count << EXTENT_SHIFT;
}

/* How many frames of the extent are the VM's, and of these kinds. With `jail`: they go there. */
static u64 vm_frames_in(struct extent *e, u16 vm, u32 kinds, bool jail)
{
	struct frame_owner to = owner_of(FRAME_QUARANTINE, vm);
	u64 n = 0;

	if (!e->heads) {
		if (e->vm != vm || !(kinds >> e->kind & 1))
			return 0;
		if (jail)
			extent_set_whole(e, to);
		return EXTENT_FRAMES;
	}
	for (u32 i = 0; i < EXTENT_FRAMES; i++) {
		const struct frame_head *h = &extent_heads(e)[i];

		if (h->vm != vm || !(kinds >> h->kind & 1))
			continue;
		if (jail)
			extent_set_owner(e, i, to);
		n++;
	}
	return n;
}

/* The lock is taken once an extent: other CPUs may allocate meanwhile, and the sum is that much
 * off. */
static u64 vm_frames(u64 first, u64 count, u16 vm, u32 kinds, bool jail)
{
	u64 n = 0;

	for (u64 i = first; i < first + count; i++) {
		spin_lock(&frames.lock);
		n += vm_frames_in(&frames.extents[i], vm, kinds, jail);
		spin_unlock(&frames.lock);
	}
	return n;
}

u64 frames_of_vm(u16 vm)
{
	return vm_frames(0, frames.extent_count, vm, ~0u, false);
}

u64 frames_quarantine(u16 vm)
{
	u32 kinds = BIT(FRAME_STAGE2) | (frames_shared(vm) ? 0 : BIT(FRAME_GUEST));

	return vm_frames(0, frames.extent_count, vm, kinds, true);
}

u64 extent_quarantine(pfn_t f, u16 vm)
{
	return vm_frames(f.v / EXTENT_FRAMES, 1, vm, BIT(FRAME_GUEST), true);
}

const char *frame_kind_name(enum frame_kind kind)
{
	static const char *const names[FRAME_KINDS] = {
		[FRAME_NONE] = "none",
		[FRAME_FREE] = "free",
		[FRAME_IMAGE] = "image",
		[FRAME_MODULE] = "module",
		[FRAME_META] = "meta",
		[FRAME_HOST_PT] = "host-pt",
		[FRAME_HEAP] = "heap",
		[FRAME_HW] = "hw",
		[FRAME_STAGE2] = "stage2",
		[FRAME_GUEST] = "guest",
		[FRAME_QUARANTINE] = "quarantine",
	};

	return (u32)kind < FRAME_KINDS ? names[kind] : "?";
}
