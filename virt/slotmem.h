/* SPDX-License-Identifier: MIT */
/*
 * From a guest physical address to the memory behind it. Private to slots.c, guestmem.c and
 * guestwalk.c: pointers into a guest don't leave these files.
 */
#pragma once

#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/vm.h"

/*
 * Clear extent i of the slot, or wait until the CPU that is at it has done so; returns its bias.
 * Not from NMI or interrupt context: the code that was interrupted might be the one to wait for.
 */
u64 slot_touch(struct memslot *s, u32 i);

/* Number of the slot's extent that holds a gpa of the slot. */
static inline u32 slot_extent(const struct memslot *s, u64 gpa)
{
	return (u32)((gpa >> EXTENT_SHIFT) - (s->gpa.v >> EXTENT_SHIFT));
}

static inline bool slot_has(const struct memslot *s, u64 gpa)
{
	return gpa - s->gpa.v < s->size;
}

/*
 * The extent's bias, 0 if it isn't cleared. Acquire: what is read by it is read after the clearing.
 */
static inline u64 extent_bias(const struct memslot *s, u32 i)
{
	return __atomic_load_n(&s->bias[i], __ATOMIC_ACQUIRE);
}

/*
 * The memory behind a gpa of the slot, cleared by now; valid up to the end of the 2 MiB or of the
 * slot.
 */
static inline u8 *slot_ptr(struct memslot *s, u64 gpa)
{
	u32 i = slot_extent(s, gpa);
	u64 bias = extent_bias(s, i);

	if (unlikely(!bias))
		bias = slot_touch(s, i);
	return (u8 *)(uintptr_t)(bias + gpa);
}
