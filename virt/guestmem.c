/* SPDX-License-Identifier: MIT */
/*
 * Guest physical memory: checked, and copied once.
 *
 * A range that was found good stays good: memory that is there does not go, and the slots are
 * looked at once. So a write looks at the whole range first and changes nothing if some byte of it
 * can't be written.
 */
#include "virt/guestmem.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "lib/string.h"
#include "virt/slotmem.h"

/* A loader brings what is missing where it writes: a VM that runs is none of its business. */
static bool supply(struct vm *vm, const struct memslot *s, u64 gpa)
{
	struct backing_fetch f = { 0 };
	u64 offset = s->offset + (gpa - s->gpa.v);
	int err;

	if (READ_ONCE(vm->state) == VM_RUNNING)
		return false;
	if (!s->backing->source)
		return !backing_fill(s->backing, ALIGN_DOWN(offset, PAGE_SIZE), PAGE_SIZE,
				     FILL_ZERO, NULL);
	do
		err = backing_fetch(s->backing, offset, &f);
	while (err == -EAGAIN);
	return !err;
}

/*
 * A piece of a range: the memory at gpa. *n is cut to it: up to the end of the 2 MiB, the page or
 * the slot. NULL: *why. Errors here are what guests can cause, so they are not traced.
 */
static u8 *piece(struct vm *vm, const struct memslot *s, u64 gpa, u8 access, u64 *n,
		 struct guest_denied *why)
{
	struct slot_memory m = { .kind = MEMORY_NO_MEMORY };

	if (s)
		slot_memory(s, gpa, access, &m);
	if (m.kind == MEMORY_MISSING && access == ACCESS_W && supply(vm, s, gpa))
		slot_memory(s, gpa, access, &m);
	if (!m.ptr) {
		*why = (struct guest_denied){ .gpa = GPA(gpa), .kind = m.kind };
		return NULL;
	}
	*n = MIN(*n, MIN(s->gpa.v + s->size - gpa, m.level == 2 ? EXTENT_SIZE - gpa % EXTENT_SIZE
								: PAGE_SIZE - gpa % PAGE_SIZE));
	return m.ptr;
}

static bool range_ready(struct vm *vm, const struct slot_map *slots, u64 gpa, u64 len, u8 access,
			struct guest_denied *why)
{
	*why = (struct guest_denied){ .gpa = GPA(gpa), .kind = MEMORY_NO_MEMORY };
	if (len && gpa + len - 1 < gpa)
		return false;
	for (u64 n; len; gpa += n, len -= n) {
		n = len;
		if (!piece(vm, slot_find(slots, gpa), gpa, access, &n, why))
			return false;
	}
	return true;
}

/* A ring's index is read while the guest writes it, and the reverse: never in two halves. */
static void copy(void *dst, const void *src, size_t n)
{
	if (n == sizeof(u16) && !(((uintptr_t)dst | (uintptr_t)src) & 1))
		WRITE_ONCE(*(u16 *)dst, READ_ONCE(*(const u16 *)src));
	else
		memcpy(dst, src, n);
}

bool guest_copy(struct vm *vm, gpa_t gpa, void *buf, size_t len, u8 access,
		struct guest_denied *why)
{
	const struct slot_map *slots = vm_slots(vm);

	/* What lies in one page is there as a whole, or not at all. */
	if (gpa.v % PAGE_SIZE + len > PAGE_SIZE && !range_ready(vm, slots, gpa.v, len, access, why))
		return false;
	for (u64 at = gpa.v, end = gpa.v + len, n; at < end; at += n) {
		const struct memslot *s = slot_find(slots, at);
		u8 *part = (u8 *)buf + (at - gpa.v), *ptr;

		n = end - at;
		ptr = piece(vm, s, at, access, &n, why);
		if (!ptr)
			return false;
		if (access != ACCESS_W) {
			copy(part, ptr, n);
			continue;
		}
		copy(ptr, part, n);
		slot_dirty(s, at, n);
	}
	return true;
}

bool guest_ready(struct vm *vm, gpa_t gpa, u64 len, u8 access, struct guest_denied *why)
{
	return range_ready(vm, vm_slots(vm), gpa.v, len, access, why);
}

/* buf: NULL only looks. */
static int access(struct vm *vm, gpa_t gpa, void *buf, size_t len, u8 how)
{
	struct guest_denied why;
	bool good;

	grace_enter();
	good = buf ? guest_copy(vm, gpa, buf, len, how, &why)
		   : guest_ready(vm, gpa, len, how, &why);
	grace_leave();
	return good ? 0 : memory_access_failed(vm, why.gpa, how, why.kind);
}

int guest_read(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
	return access(vm, gpa, dst, len, ACCESS_R);
}

int guest_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
	return access(vm, gpa, (void *)src, len, ACCESS_W); /* only read from: ACCESS_W */
}

int guest_touch(struct vm *vm, gpa_t gpa, size_t len)
{
	return access(vm, gpa, NULL, len, ACCESS_W);
}

int guest_fill(struct vm *vm, gpa_t gpa, u8 byte, size_t len)
{
	u8 bytes[256];
	int err = 0;

	memset(bytes, byte, sizeof(bytes));
	for (size_t done = 0; !err && done < len; done += sizeof(bytes))
		err = guest_write(vm, GPA(gpa.v + done), bytes, MIN(len - done, sizeof(bytes)));
	return err;
}

enum memory_fault_kind guest_peek(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
	struct guest_denied why = { .kind = MEMORY_OK };

	return guest_copy(vm, gpa, dst, len, ACCESS_R, &why) ? MEMORY_OK : why.kind;
}

/* Does the slot cover the aligned piece of that size around gpa? */
static bool slot_covers(const struct memslot *s, u64 gpa, u64 size)
{
	u64 base = ALIGN_DOWN(gpa, size);

	return base >= s->gpa.v && base + size <= s->gpa.v + s->size;
}

/*
 * Is the GiB around gpa one piece of the host, and all of it there? Clearing the rest would take a
 * tenth of a second, so one leaf comes when the last extent has been touched. That one is looked at
 * first: a guest that goes through its memory upwards needs no search.
 */
static bool whole_gib(const struct memslot *s, u64 gpa, pfn_t pfn)
{
	u32 first = slot_part(s, ALIGN_DOWN(gpa, GIB)), last = first + GIB / EXTENT_SIZE - 1;
	u64 bias = slot_bias(s, last);

	while (bias && last-- > first)
		if (slot_bias(s, last) != bias)
			return false;
	return bias && !((gpa_gfn(GPA(gpa)).v ^ pfn.v) & (GIB / PAGE_SIZE - 1));
}

/* In a slot that is logged, pages are mapped one by one, writable by a write. */
static void log_access(u8 access, struct guest_frame *out)
{
	out->level = 1;
	out->logged = access == ACCESS_W;
	if (!out->logged)
		out->prot &= (u8)~S2_W;
}

enum memory_fault_kind guest_frame(struct vm *vm, gpa_t gpa, u8 access, struct guest_frame *out)
{
	const struct memslot *s = vm_slot(vm, gpa);
	struct slot_memory m;

	if (!s)
		return MEMORY_NO_MEMORY;
	slot_memory(s, gpa.v, access, &m);
	if (unlikely(m.kind == MEMORY_INHERITED)) {
		if (vm_own_page(vm, gpa))
			return MEMORY_EXHAUSTED;
		slot_memory_slow(s, gpa.v, access, &m);
	}
	if (m.kind != MEMORY_OK)
		return m.kind;
	*out = (struct guest_frame){ .pfn = hpa_pfn(ptr_hpa(m.ptr)), .prot = s->prot };
	out->inherited = m.inherited;
	out->level = m.level == 2 && slot_covers(s, gpa.v, EXTENT_SIZE) ? 2 : 1;
	if (slot_covers(s, gpa.v, GIB) && whole_gib(s, gpa.v, out->pfn))
		out->level = 3;
	if (!m.writable)
		out->prot &= (u8)~S2_W;
	if (s->dirty)
		log_access(access, out);
	return MEMORY_OK;
}

int guest_map_inherited(struct vm *vm, gpa_t gpa, pfn_t pfn, u8 prot, u8 level)
{
	const struct memslot *s = vm_slot(vm, gpa);
	u64 offset = s->offset + (gpa.v - s->gpa.v);
	int err = 0;

	spin_lock(backing_lock(s->backing, offset));
	if (backing_inherits(s->backing, offset, level))
		err = stage2_map_leaf(&vm->stage2, gpa_gfn(gpa), pfn, prot, level);
	spin_unlock(backing_lock(s->backing, offset));
	return err;
}

void guest_logged(struct vm *vm, gpa_t gpa)
{
	const struct memslot *s = vm_slot(vm, gpa);

	if (s)
		slot_dirty(s, gpa.v, 1);
}
