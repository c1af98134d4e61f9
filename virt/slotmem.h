/* SPDX-License-Identifier: MIT */
/*
 * From a guest physical address to the memory behind it. Private to slots.c, guestmem.c and
 * guestwalk.c: pointers into a guest don't leave these files. Used by who may use a slot
 * (virt/slots.h).
 */
#pragma once

#include "mm/phys.h"
#include "virt/slots.h"

/* Where memory is, or why it can't be used. */
struct slot_memory {
	u8 *ptr;  /* NULL: `kind` says why */
	u8 kind;  /* enum memory_fault_kind */
	u8 level; /* 2: good for the 2 MiB around it, 1: for the page; as far as the slot goes */
	bool writable;	/* the memory itself, whatever the slot says */
	bool inherited; /* it is a parent's, until somebody writes */
};

/* The slot that contains gpa, or NULL. */
const struct memslot *slot_find(const struct slot_map *m, u64 gpa);

/* Number of the slot's 2 MiB that hold a gpa of the slot. */
static inline u32 slot_part(const struct memslot *s, u64 gpa)
{
	return (u32)((gpa >> EXTENT_SHIFT) - (s->gpa.v >> EXTENT_SHIFT));
}

static inline bool slot_has(const struct memslot *s, u64 gpa)
{
	return gpa - s->gpa.v < s->size;
}

/* 0 if it isn't there. Acquire: what is read by it is read after the clearing. */
static inline u64 slot_bias(const struct memslot *s, u32 i)
{
	return __atomic_load_n(&s->bias[i], __ATOMIC_ACQUIRE);
}

void slot_memory_slow(const struct memslot *s, u64 gpa, u8 access, struct slot_memory *m);
/*
 * The memory behind a gpa of the slot, for an access (enum access); cleared first, if that is its
 * turn: not from NMI or interrupt context, because the code that was interrupted might be the one
 * to wait for.
 */
static inline void slot_memory(const struct memslot *s, u64 gpa, u8 access, struct slot_memory *m)
{
	u64 bias = slot_bias(s, slot_part(s, gpa));

	_Static_assert((int)ACCESS_R == S2_R && (int)ACCESS_W == S2_W && (int)ACCESS_X == S2_X,
		       "an access is the right to it");
	if (likely(bias && s->prot & access))
		*m = (struct slot_memory){ .ptr = (u8 *)(uintptr_t)(bias + gpa),
					   .kind = MEMORY_OK,
					   .level = 2,
					   .writable = true };
	else
		slot_memory_slow(s, gpa, access, m);
}

/* Why a range can't be used: the first byte of it. */
struct guest_denied {
	gpa_t gpa;
	u8 kind; /* enum memory_fault_kind */
};
/* As guest_read and guest_write, but nobody waits; and whether they would succeed. */
bool guest_ready(struct vm *vm, gpa_t gpa, u64 len, u8 access, struct guest_denied *why);
bool guest_copy(struct vm *vm, gpa_t gpa, void *buf, size_t len, u8 access,
		struct guest_denied *why);

/* n bytes in one slot were written: into the log, after that. */
static inline void slot_dirty(const struct memslot *s, u64 gpa, u64 n)
{
	u64 first = (gpa - s->gpa.v) >> PAGE_SHIFT, last = (gpa + n - 1 - s->gpa.v) >> PAGE_SHIFT;

	for (u64 i = first; s->dirty && i <= last; i++)
		bitmap_test_and_set_atomic(s->dirty, (u32)i);
}
