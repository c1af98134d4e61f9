/* SPDX-License-Identifier: MIT */
/*
 * Memory slots: guest physical ranges, backed by whole host extents of 2 MiB.
 *
 *	gpa      0        0x90000 0xa0000   1M       2M                 4M
 *	slots    [   a    ][  b  )           [       c                   ...
 *	extents  a: [0 ................ 2M)    c: [0 ....... 2M)[2M ..... 4M) ...
 *	         b: [0 ................ 2M)
 *
 * Extents count from the slot's gpa rounded down to 2 MiB, and each stands for the guest's aligned
 * 2 MiB: a 2 MiB leaf is possible wherever the slot covers one wholly. No two slots share an
 * extent; what sticks out at a slot's edges is wasted (at most 4 MiB a slot less two pages), for a
 * rule without exceptions: a slot's memory is its own.
 *
 * An extent is cleared when it is first touched, by whoever comes first: `claimed` says that
 * somebody is at it, `touched` that it is done. Two bits instead of a lock, so that faults on
 * different extents never meet. (Clearing 2 MiB takes in the order of 100 microseconds: the largest
 * piece of work that a fault does.)
 */
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "arch/x86/insn.h"
#include "mm/audit.h"
#include "virt/corruption.h"
#include "virt/slotmem.h"

/* A kernel boots in less; about 25 ms of one CPU. */
#define CLEAR_AHEAD (256 * MIB)

/* Index of the first slot that ends above gpa: the only one that can contain it. */
static u32 slot_search(const struct vm *vm, u64 gpa)
{
	u32 low = 0, high = vm->nr_slots;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (vm->slots[mid].gpa.v + vm->slots[mid].size <= gpa)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct memslot *vm_slot(struct vm *vm, gpa_t gpa)
{
	u32 i = slot_search(vm, gpa.v);

	return i < vm->nr_slots && slot_has(&vm->slots[i], gpa.v) ? &vm->slots[i] : NULL;
}

static u64 extent_gpa(const struct memslot *s, u32 i)
{
	return ALIGN_DOWN(s->gpa.v, EXTENT_SIZE) + (u64)i * EXTENT_SIZE;
}

/* The part of extent i that belongs to the slot; the rest is never mapped and never read. */
static void clear_extent(const struct memslot *s, u32 i)
{
	u64 base = extent_gpa(s, i);
	u64 from = MAX(base, s->gpa.v), to = MIN(base + EXTENT_SIZE, s->gpa.v + s->size);

	memset((u8 *)pfn_ptr(s->extents[i]) + (from - base), 0, to - from);
}

u64 slot_touch(struct memslot *s, u32 i)
{
	u64 bias;

	if (!bitmap_test_and_set_atomic(s->touched, i)) {
		clear_extent(s, i);
		bias = (u64)(uintptr_t)pfn_ptr(s->extents[i]) - extent_gpa(s, i);
		__atomic_store_n(&s->bias[i], bias, __ATOMIC_RELEASE);
		return bias;
	}
	while (!(bias = extent_bias(s, i))) {
		/* The other CPU may want something from us meanwhile (DESIGN: who spins polls). */
		spin_wait();
	}
	return bias;
}

void vm_clear_ahead(struct vm *vm)
{
	u64 left = CLEAR_AHEAD;

	for (u32 i = 0; i < vm->nr_slots; i++) {
		struct memslot *s = &vm->slots[i];

		for (u32 j = 0; j < s->nr_extents && left; j++, left -= EXTENT_SIZE)
			if (!extent_bias(s, j))
				slot_touch(s, j);
	}
}

/* The three arrays of a slot share one allocation. Its order, by the number of extents. */
static u32 array_order(u32 extents)
{
	u64 bytes = extents * (sizeof(pfn_t) + sizeof(u64)) + BITMAP_WORDS(extents) * sizeof(u64);
	u32 order = 0;

	while (PAGE_SIZE << order < bytes)
		order++;
	return order;
}

static int slot_arrays_alloc(struct memslot *s, u16 vm)
{
	u32 order = array_order(s->nr_extents);
	pfn_t f;

	if (order > 9)
		return trace_error(-ENOSPC); /* about 250 GiB */
	f = frame_alloc_order(order, FRAME_HEAP, vm);
	if (!pfn_valid(f))
		return trace_error(-ENOMEM);
	s->extents = pfn_ptr(f);
	memset(s->extents, 0, PAGE_SIZE << order);
	s->bias = (u64 *)&s->extents[s->nr_extents];
	s->touched = &s->bias[s->nr_extents];
	s->gpa_bias = (const u64 *)((uintptr_t)s->bias - (s->gpa.v >> EXTENT_SHIFT) * sizeof(u64));
	return 0;
}

static void slot_arrays_free(struct memslot *s, u16 vm)
{
	frame_free_order(hpa_pfn(ptr_hpa(s->extents)), array_order(s->nr_extents), FRAME_HEAP, vm);
}

/* Give back the first n extents. A mismatch of owners has been reported by extent_free, and that
 * extent stays lost. */
static void extents_release(struct memslot *s, u32 n, u16 vm)
{
	for (u32 i = 0; i < n; i++)
		extent_free(s->extents[i], 1, FRAME_GUEST, vm);
}

/* Extents from i on that make up an aligned GiB of the guest inside the slot: all 512, or one. */
static u32 run_length(const struct memslot *s, u32 i)
{
	u64 gpa = extent_gpa(s, i);
	bool whole = gpa % GIB == 0 && gpa >= s->gpa.v && gpa + GIB <= s->gpa.v + s->size;

	return whole ? GIB / EXTENT_SIZE : 1;
}

static int extents_reserve(struct memslot *s, u16 vm)
{
	for (u32 i = 0, run; i < s->nr_extents; i += run) {
		pfn_t f = PFN_NONE;

		run = run_length(s, i);
		if (run > 1)
			f = extent_alloc(run, run, FRAME_GUEST, vm);
		if (!pfn_valid(f)) {
			run = 1;
			f = extent_alloc(1, 1, FRAME_GUEST, vm);
		}
		if (!pfn_valid(f)) {
			extents_release(s, i, vm);
			return trace_error(-ENOMEM);
		}
		for (u32 j = 0; j < run; j++)
			s->extents[i + j] = PFN(f.v + (u64)j * EXTENT_FRAMES);
	}
	return 0;
}

static int slot_create(struct memslot *s, gpa_t gpa, u64 size, u8 prot, u16 vm)
{
	u64 first = gpa.v >> EXTENT_SHIFT, last = (gpa.v + size - 1) >> EXTENT_SHIFT;
	int err;

	if (last - first >= BIT(31))
		return trace_error(-ENOSPC);
	*s = (struct memslot){ .gpa = gpa, .size = size, .prot = prot };
	s->nr_extents = (u32)(last - first + 1);
	err = slot_arrays_alloc(s, vm);
	if (err)
		return err;
	err = extents_reserve(s, vm);
	if (err)
		slot_arrays_free(s, vm);
	return err;
}

int vm_add_memory(struct vm *vm, gpa_t gpa, u64 size, u8 prot)
{
	u64 top = vm->stage2.max_gfn << PAGE_SHIFT;
	struct memslot slot;
	u32 at;
	int err;

	if (!size || (gpa.v | size) & ~PAGE_MASK || gpa.v >= top || size > top - gpa.v)
		return trace_error(-EINVAL);
	if (!prot || prot & ~S2_RWX)
		return trace_error(-EINVAL);
	if (READ_ONCE(vm->state) == VM_RUNNING)
		return trace_error(-EBUSY);
	at = slot_search(vm, gpa.v);
	if (at < vm->nr_slots && vm->slots[at].gpa.v < gpa.v + size)
		return trace_error(-EEXIST);
	if (vm->nr_slots >= VM_MAX_SLOTS)
		return trace_error(-ENOSPC);
	err = slot_create(&slot, gpa, size, prot, vm->id);
	if (err)
		return err;
	table_pool_allow(&vm->stage2.pool, size >> PAGE_SHIFT);
	memmove(&vm->slots[at + 1], &vm->slots[at], (vm->nr_slots - at) * sizeof(slot));
	vm->slots[at] = slot;
	vm->nr_slots++;
	return 0;
}

void vm_clear_memory(struct vm *vm)
{
	struct flush_debt debt = { 0 };

	/* The whole space at once: no leaf sticks out, so nothing is split and nothing can be
	 * missing for it. */
	if (VM_BUG_ON(vm, stage2_unmap(&vm->stage2, GFN(0), vm->stage2.max_gfn, &debt)))
		return;
	vm_pay_flush(vm, &debt);
	for (u32 i = 0; i < vm->nr_slots; i++) {
		struct memslot *s = &vm->slots[i];

		memset(s->touched, 0, BITMAP_WORDS(s->nr_extents) * sizeof(u64));
		memset(s->bias, 0, s->nr_extents * sizeof(u64));
	}
}

/* Its frames are given back, or in quarantine. */
static bool last_slot_done(struct vm *vm)
{
	struct memslot *s = &vm->slots[vm->nr_slots - 1];

	slot_arrays_free(s, vm->id);
	*s = (struct memslot){ 0 };
	vm->freed_extents = 0;
	return --vm->nr_slots;
}

/* A part may need memory, for what waits for the flush; the whole space needs none. */
static bool unmap_for_good(struct vm *vm, u64 from, u64 to)
{
	struct flush_debt debt = { 0 };
	int err = stage2_unmap(&vm->stage2, GFN(from >> PAGE_SHIFT), (to - from) >> PAGE_SHIFT,
			       &debt);

	if (err == -ENOMEM)
		err = stage2_unmap(&vm->stage2, GFN(0), vm->stage2.max_gfn, &debt);
	if (VM_BUG_ON(vm, err))
		return false;
	vm_pay_flush(vm, &debt);
	return !vm_is_corrupt(vm);
}

/*
 * The last GiB of the last slot: an aligned one of the guest, so that no leaf of stage 2 sticks
 * out, and nothing is split. Of a corrupt VM nothing is unmapped, and no frame is given back.
 */
bool vm_free_memory_step(struct vm *vm)
{
	struct memslot *s;
	u64 from, to;
	u32 i, n;

	if (!vm->nr_slots)
		return false;
	s = &vm->slots[vm->nr_slots - 1];
	n = s->nr_extents - vm->freed_extents;
	to = extent_gpa(s, n);
	from = MAX(ALIGN_DOWN(to - 1, GIB), extent_gpa(s, 0));
	i = (u32)((from - extent_gpa(s, 0)) >> EXTENT_SHIFT);
	to = MIN(to, vm->stage2.max_gfn << PAGE_SHIFT);
	if (vm_is_corrupt(vm) || !unmap_for_good(vm, from, to))
		return last_slot_done(vm);
	for (u32 k = i; k < n; k++) {
		if (audit_unmapped(s->extents[k]) && !vm_is_corrupt(vm))
			extent_free(s->extents[k], 1, FRAME_GUEST, vm->id);
		else if (extent_quarantine(s->extents[k], vm->id))
			log_warn("vm %s: 2 MiB are still mapped by another: in quarantine",
				 vm->name);
	}
	vm->freed_extents += n - i;
	return i || last_slot_done(vm);
}
