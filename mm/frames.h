/* SPDX-License-Identifier: MIT */
/*
 * Host frames: who owns each one, and which are free.
 *
 * One descriptor of at most 128 bytes per 2 MiB extent, in an array indexed by pfn >> 9. While an
 * extent is whole (free, or owned by one owner as 2 MiB) the descriptor says it all. When it splits
 * into 4 KiB frames, one frame of the extent itself is attached as its page of 512 8-byte heads,
 * one a frame: an owner word, or a link of the extent's free list. There is no global per-4K array.
 * The reverse map (mm/rmap.h) keeps its keys beside that, in the same descriptor.
 *
 * All functions: any CPU, interrupts on or off, not from NMI context. Lock: RANK_FRAMES, taken
 * inside.
 */
#pragma once

#include "lib/addr.h"

#define EXTENT_SHIFT  21
#define EXTENT_SIZE   (1ull << EXTENT_SHIFT)
#define EXTENT_FRAMES 512

enum frame_kind {
	FRAME_NONE, /* no RAM, or not ours: firmware, ACPI, holes */
	FRAME_FREE,
	FRAME_IMAGE,   /* Corbel's own image, and what the loader handed over */
	FRAME_MODULE,  /* files that were loaded at boot */
	FRAME_META,    /* extent array, pages of heads */
	FRAME_HOST_PT, /* Corbel's own page tables */
	FRAME_HEAP,    /* per-CPU areas, stacks, VM and vCPU structures */
	FRAME_HW,      /* VMXON regions, VMCS, VMCB, bitmaps, host save areas */
	FRAME_STAGE2,  /* stage-2 tables */
	FRAME_GUEST,   /* guest memory */
	/* memory and tables of a VM whose structures were damaged: never used again */
	FRAME_QUARANTINE,
	FRAME_KINDS
};

/*
 * Owner of frames that belong to no VM. The others, 1..65535, are the numbers of VMs, and of what
 * they had when they were forked: shared memory, which several VMs may map and nobody writes.
 */
#define VM_NONE 0
bool frames_shared(u16 owner); /* of guest memory: also VM_NONE */
void frames_set_shared(u16 owner, bool shared);

struct frame_owner {
	u8 kind; /* enum frame_kind */
	u16 vm;
};

#define PFN_NONE PFN(~0ull)
static inline bool pfn_valid(pfn_t f)
{
	return f.v != ~0ull;
}

/*
 * A piece of the boot memory map, page aligned. Overlaps and any order are fine: the least free
 * kind wins.
 */
struct mem_range {
	hpa_t base;
	u64 size;
	u8 kind; /* enum frame_kind: FRAME_FREE, or who has it already */
};

/*
 * Build the extent array from the boot memory map (it is carved out of free memory). Once, on the
 * boot CPU. What lies above max_hpa is ignored. Where ranges overlap, FRAME_NONE wins, then the
 * lower kind, FRAME_FREE last. Frame 0 is never given out: it is what page-table entries that are
 * zero point at (L1TF). Returns 0, -EINVAL (no usable range), -ENOMEM (no place for the array and
 * the pages of heads that mixed extents need).
 */
int frames_init(const struct mem_range *map, size_t count, hpa_t max_hpa);

/*
 * Further memory becomes free (boot-services memory after the take-over). Only frames that are
 * `from` and belong to no VM change; what is only partly inside is not freed. Returns by how many
 * frames free memory grew (pages of heads come and go).
 */
u64 frames_release(hpa_t base, u64 size, enum frame_kind from);

/* One frame, not cleared; PFN_NONE if there is none. */
pfn_t frame_alloc(enum frame_kind kind, u16 vm) MUST_CHECK;
/* One frame, cleared, as a pointer; NULL if there is none. */
void *frame_alloc_zero(enum frame_kind kind, u16 vm) MUST_CHECK;
/* The least order whose frames hold that many bytes, at least 1. */
static inline u32 frame_order(u64 bytes)
{
	u64 pages = (bytes - 1) >> PAGE_SHIFT;

	return pages ? 64 - (u32)__builtin_clzll(pages) : 0;
}

/*
 * 2^order frames, contiguous and aligned to their size, order 0..9, not cleared; PFN_NONE if there
 * are none.
 */
pfn_t frame_alloc_order(u32 order, enum frame_kind kind, u16 vm) MUST_CHECK;
/*
 * `count` whole extents, contiguous, the first aligned to `align` extents (a power of two);
 * PFN_NONE if there are none. Not cleared.
 */
pfn_t extent_alloc(u64 count, u64 align, enum frame_kind kind, u16 vm) MUST_CHECK;

/*
 * Give back. The owner must be the one that allocated: a mismatch is damage in the hypervisor,
 * nothing is freed, and -EINVAL comes back after a WARN_ON. frame_free: 2^order frames;
 * extent_free: whole extents. A whole extent may also come back in smaller pieces, and a block of
 * frames likewise.
 */
int frame_free_order(pfn_t f, u32 order, enum frame_kind kind, u16 vm);
int frame_free(pfn_t f, enum frame_kind kind, u16 vm);
int extent_free(pfn_t f, u64 count, enum frame_kind kind, u16 vm);

/* Who owns a frame; FRAME_NONE for what is no RAM. Any pfn is fine. */
struct frame_owner frame_owner(pfn_t f);
/*
 * The same without the lock: right for a frame whose owner can't change meanwhile, because the
 * caller keeps it from being freed; anything for others.
 */
struct frame_owner frame_owner_peek(pfn_t f);

/*
 * What belongs to that owner as FRAME_STAGE2 or, if it is not shared, as FRAME_GUEST becomes
 * FRAME_QUARANTINE: it can't be freed or mapped any more. Mappings that other VMs have of it stay.
 * Returns how many frames that are. Walks the extents.
 */
u64 frames_quarantine(u16 vm);
/* The same of one extent, that of frame f, which is there. */
u64 extent_quarantine(pfn_t f, u16 vm);

struct frame_stats {
	u64 frames[FRAME_KINDS]; /* 4 KiB frames by kind */
	u64 whole_free_extents;
};
void frames_stats(struct frame_stats *out);
/* Where the machine's memory ends, rounded up to 2 MiB. */
u64 frames_end(void);
/* Frames (of any kind) that a VM owns. Walks the extents: for the monitor. */
u64 frames_of_vm(u16 vm);
const char *frame_kind_name(enum frame_kind kind);
