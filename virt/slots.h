/* SPDX-License-Identifier: MIT */
/*
 * Memory slots: which range of which backing object (mm/backing.h) a VM sees where.
 *
 *	gpa      0                 3G            4G        5G
 *	slots    [ 0: its own      ]             [ 1: its own ]    [ 2: shared, read-only ]
 *	             |                              |                  |
 *	objects  [ 0 ........... 3G ]            [ 0 .... 1G ]    [ 0 ... ]
 *
 * They change while the VM runs: readers take the array as it is, without a lock, and a change
 * makes a new one. Who found a slot may use it, if it is the VM's vCPU, until it next looks at its
 * requests; if it is a task on the monitor's CPU, until it ends; anybody else, to the end of a
 * read section (lib/grace.h), which guest_read() and its like are. Only after that, and after the
 * flush of what was mapped, the change is complete.
 *
 * Changes are made by one caller at a time: a task of the CPU that the monitor runs on, interrupts
 * on, or boot. They may wait for other CPUs for some 10 microseconds.
 */
#pragma once

#include "mm/backing.h"
#include "virt/memfault.h"
#include "virt/vm.h"

#define VM_MAX_SLOTS 512

enum slot_flags {
	SLOT_READONLY = BIT(0), /* a guest's writes vanish, as with a ROM */
	SLOT_NOEXEC = BIT(1),
	SLOT_SHARED = BIT(2),	 /* other VMs may see the object: a clone shares it, too */
	SLOT_LOG_DIRTY = BIT(3), /* vm_slot_dirty() tells which pages were written */
	/* Who touches what is MISSING waits, with a memory-fault exit; else it reads as zero. */
	SLOT_EXIT_ON_MISSING = MEMORY_FAULT_EXITS,
	SLOT_FLAGS = 0x1f
};

/*
 * `bias` is a cache of the object's words: for each 2 MiB of the guest that the slot touches, host
 * pointer - gpa (of any byte in it) once they are PRESENT as a whole, else 0. Never 0 then: gpas
 * are far smaller than host pointers.
 */
struct memslot {
	gpa_t gpa;
	u64 size;
	const u64 *gpa_bias; /* bias, moved so that gpa >> EXTENT_SHIFT is the index */
	u64 *bias;
	struct backing *backing;
	u64 offset;	/* in it; as gpa within 2 MiB */
	u64 *dirty;	/* SLOT_LOG_DIRTY: a bit for each page; NULL: none */
	u32 generation; /* counts its changes */
	u16 id;
	u8 flags;
	u8 prot; /* enum s2_prot, by the flags */
};

struct slot_map {
	u32 nr;
	u32 order;	       /* of its frames */
	struct memslot slot[]; /* sorted by gpa, and an empty one at the end */
};

extern const struct slot_map no_slots;
/* As it is now: look once, and never NULL. */
static inline const struct slot_map *vm_slots(const struct vm *vm)
{
	return __atomic_load_n(&vm->slots, __ATOMIC_ACQUIRE);
}

/* The slot that contains gpa, or NULL. By who may use it, see above. */
const struct memslot *vm_slot(const struct vm *vm, gpa_t gpa);
/* That of its number, or NULL. By who may change them. */
const struct memslot *vm_slot_by_id(const struct vm *vm, u16 id);

/*
 * Show [offset, offset + size) of the object at gpa; *id gets the slot's number, which stays while
 * the slot does. 0; -EINVAL: not aligned to 4 KiB, or no size, or flags that don't exist; -EDOM:
 * gpa and offset differ within 2 MiB; -ERANGE: beyond the CPU's physical address width; -EFBIG:
 * past the object's end; -EEXIST: overlaps a slot; -EADDRINUSE: overlaps a device; -ENOSPC: too
 * many slots; -ENOMEM. After an error everything is as before.
 */
int vm_slot_add(struct vm *vm, gpa_t gpa, u64 size, struct backing *b, u64 offset, u8 flags,
		u16 *id);
/*
 * Whoever waits for a page of it goes on, and finds no memory. -ENOENT: no such slot; -ENOMEM. Its
 * own memory goes back when nobody uses it any more.
 */
int vm_slot_remove(struct vm *vm, u16 id);
/* Errors of vm_slot_add, and -ENOENT. */
int vm_slot_move(struct vm *vm, u16 id, gpa_t gpa);
int vm_slot_flags(struct vm *vm, u16 id, u8 flags);

/* Objects that may be shown to several VMs: they stay for ever. Made at boot. */
extern struct list shared_memory;
/* Zero. Errors of backing_create. */
int shared_memory_add(const char *name, u64 size);
struct backing *shared_memory_find(const char *name);

/*
 * Which pages of the slot, `count` from number `first` on (a multiple of 64), were written since
 * this was last asked: a bit each in `bits`, *dirty of them. From now on they count anew: they are
 * write-protected again, and that is flushed. What a running guest writes meanwhile is in this
 * answer or in the next one. 0; -ENOENT; -EOPNOTSUPP: no SLOT_LOG_DIRTY; -EINVAL: not in the slot;
 * -ENOMEM: nothing was asked.
 */
int vm_slot_dirty(struct vm *vm, u16 id, u64 first, u64 count, u64 *bits, u64 *dirty);

/*
 * Resolve [gpa, gpa + size), 4 KiB aligned, as backing_fill() (FILL_COPY: from `from`), and wake
 * who waits for it: *woken. 0; -EINVAL: not aligned; -EFAULT: not in slots wholly; or
 * backing_fill's error: what came before it is resolved. FILL_WRITABLE: -EOPNOTSUPP for what others
 * may see.
 */
int vm_resolve(struct vm *vm, gpa_t gpa, u64 size, enum backing_fill how, const void *from,
	       u32 *woken);
/* Stop the VMs that wait there. -ESRCH: nobody does; -EINVAL, -EFAULT as above. */
int vm_give_up(struct vm *vm, gpa_t gpa, u64 size, u32 *waited);

/*
 * A slot with an object of the VM's own, of which no other slot shows anything: zero, or MISSING
 * with SLOT_EXIT_ON_MISSING. Errors of vm_slot_add and backing_create.
 */
int vm_add_memory(struct vm *vm, gpa_t gpa, u64 size, u8 flags);
/*
 * `to`, which has no slots, gets those of `vm`. Objects that are the VM's own become parents that
 * nobody changes: both VMs see a child of them, and what one writes the other does not see. All
 * else they share. No vCPU of either runs, and nobody touches their memory; the caller is as for
 * slots. How long it takes does not depend on what is mapped. 0; -EOPNOTSUPP: some memory comes by
 * need (from the operator, or from a file), nothing changed; -ENOMEM, -ENOSPC (BACKING_LINE_MAX),
 * -EUCLEAN (damage: it is dead): `to` is to be destroyed, `vm` has all that it had.
 */
int vm_fork_memory(struct vm *vm, struct vm *to);
/*
 * The page is to be written: if it is a parent's (MEMORY_INHERITED), the VM gets a copy, and what
 * is mapped of the parent goes. By its vCPU, or as for slots; may wait for other CPUs. 0; -ENOMEM.
 */
int vm_own_page(struct vm *vm, gpa_t gpa);
/* All memory of its own is as new, nothing is mapped (for a reset). Not running. */
void vm_clear_memory(struct vm *vm);
/*
 * Clear the memory that a guest touches first, so that it does not wait for that, 2 MiB at a time,
 * in its first faults: the lowest 256 MiB. What is beyond is cleared when it is touched.
 */
void vm_clear_ahead(struct vm *vm);
/*
 * Up to a GiB of its memory is unmapped, or goes back to the allocator. Not running, and never
 * again. False: nothing is left.
 */
bool vm_free_memory_step(struct vm *vm);
