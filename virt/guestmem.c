/* SPDX-License-Identifier: MIT */
/*
 * Guest physical memory: checked, and copied once.
 *
 * Slots don't change while the VM runs, so a range that was found good stays good: a write looks at
 * the whole range first and changes nothing if some byte of it can't be written.
 */
#include "virt/guestmem.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/slotmem.h"

/* Errors here are what guests can cause, so they are not traced. */
static bool range_ok(struct vm *vm, u64 gpa, u64 len, u8 prot)
{
	if (len && gpa + len - 1 < gpa)
		return false;
	while (len) {
		const struct memslot *s = vm_slot(vm, GPA(gpa));
		u64 n;

		if (!s || (s->prot & prot) != prot)
			return false;
		n = MIN(len, s->gpa.v + s->size - gpa);
		gpa += n;
		len -= n;
	}
	return true;
}

/* A piece of a good range that is contiguous in host memory: its address; *len is cut to its size.
 */
static u8 *piece(struct vm *vm, u64 gpa, size_t *len)
{
	struct memslot *s = vm_slot(vm, GPA(gpa));
	u64 in_slot = s->gpa.v + s->size - gpa, in_extent = EXTENT_SIZE - gpa % EXTENT_SIZE;

	*len = MIN(*len, MIN(in_slot, in_extent));
	return slot_ptr(s, gpa);
}

/* A ring's index is read while the guest writes it, and the reverse: never in two halves. */
static void copy(void *dst, const void *src, size_t n)
{
	if (n == sizeof(u16) && !(((uintptr_t)dst | (uintptr_t)src) & 1))
		WRITE_ONCE(*(u16 *)dst, READ_ONCE(*(const u16 *)src));
	else
		memcpy(dst, src, n);
}

int guest_read(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
	u8 *to = dst;

	if (!range_ok(vm, gpa.v, len, S2_R))
		return -EFAULT;
	for (size_t done = 0, n; done < len; done += n) {
		n = len - done;
		const u8 *from = piece(vm, gpa.v + done, &n);
		copy(to + done, from, n);
	}
	return 0;
}

int guest_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
	const u8 *from = src;

	if (!range_ok(vm, gpa.v, len, S2_W))
		return -EFAULT;
	for (size_t done = 0, n; done < len; done += n) {
		n = len - done;
		u8 *to = piece(vm, gpa.v + done, &n);
		copy(to, from + done, n);
	}
	return 0;
}

int guest_fill(struct vm *vm, gpa_t gpa, u8 byte, size_t len)
{
	if (!range_ok(vm, gpa.v, len, S2_W))
		return -EFAULT;
	for (size_t done = 0, n; done < len; done += n) {
		n = len - done;
		u8 *to = piece(vm, gpa.v + done, &n);
		memset(to, byte, n);
	}
	return 0;
}

/* Does the slot cover the aligned piece of that size around gpa? */
static bool slot_covers(const struct memslot *s, u64 gpa, u64 size)
{
	u64 base = ALIGN_DOWN(gpa, size);

	return base >= s->gpa.v && base + size <= s->gpa.v + s->size;
}

/*
 * Is the GiB around gpa one piece of the host, and all of it clean? Clearing the rest would take a
 * tenth of a second, so one leaf comes when the last extent has been touched. That one is looked at
 * first: a guest that goes through its memory upwards needs no search.
 */
static bool whole_gib(const struct memslot *s, u64 gpa, pfn_t pfn)
{
	u32 first = slot_extent(s, ALIGN_DOWN(gpa, GIB)), last = first + GIB / EXTENT_SIZE - 1;
	u64 bias = extent_bias(s, last);

	while (bias && last-- > first)
		if (extent_bias(s, last) != bias)
			return false;
	return bias && !((gpa_gfn(GPA(gpa)).v ^ pfn.v) & (GIB / PAGE_SIZE - 1));
}

int guest_frame(struct vm *vm, gpa_t gpa, pfn_t *pfn, u8 *prot, u8 *level)
{
	struct memslot *s = vm_slot(vm, gpa);

	if (!s)
		return -EFAULT;
	*pfn = hpa_pfn(ptr_hpa(slot_ptr(s, gpa.v)));
	*prot = s->prot;
	*level = slot_covers(s, gpa.v, EXTENT_SIZE) ? 2 : 1;
	if (slot_covers(s, gpa.v, GIB) && whole_gib(s, gpa.v, *pfn))
		*level = 3;
	return 0;
}
