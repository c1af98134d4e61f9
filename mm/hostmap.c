/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "lib/error.h"
#include "lib/spinlock.h"
#include "mm/frames.h"
#include "mm/hostmap.h"
#include "mm/phys.h"

/* SDM vol. 3 "Paging", entry formats. */
#define PTE_P	 BIT(0)
#define PTE_W	 BIT(1)
#define PTE_PWT	 BIT(3)
#define PTE_PCD	 BIT(4)
#define PTE_PS	 BIT(7)
#define PTE_PAT4 BIT(7)	 /* of a 4 KiB leaf */
#define PTE_PATL BIT(12) /* of a large leaf */
#define PTE_G	 BIT(8)
#define PTE_NX	 BIT(63)
#define PTE_ADDR MASK(51, 12)

extern u8 image_start[], text_end[], rodata_end[], image_end[];

/*
 * In the image, so that they lie below 4 GiB: CPUs load CR3 in 32-bit mode. root5 is used where
 * five-level paging is on.
 */
static u64 root4[512] ALIGNED(4096);
static u64 root5[512] ALIGNED(4096);
static u64 image_offset; /* virtual - physical, of the image */
static bool have_1g;
static u64 max_hpa; /* of what host_map() can map */
static struct spinlock lock = SPINLOCK_INIT(RANK_BACKING);

static const u64 cache_bits[] = {
	[HOST_WB] = 0, [HOST_UC] = PTE_PCD | PTE_PWT, [HOST_WC] = PTE_PAT4 | PTE_PWT
};

static u64 image_hpa(const void *p)
{
	return (u64)p - image_offset;
}

u64 host_cr3(void)
{
	return image_hpa(read_cr4() & X86_CR4_LA57 ? root5 : root4);
}

/*
 * The entry that maps va at `level`, tables made on the way; NULL if there is no memory or a larger
 * leaf is in the way.
 */
static u64 *entry_at(u64 va, u32 level)
{
	u64 *table = root4;

	for (u32 l = 4; l > level; l--) {
		u64 *e = &table[(va >> (12 + 9 * (l - 1))) & 511];

		if (!(*e & PTE_P)) {
			void *page = frame_alloc_zero(FRAME_HOST_PT, VM_NONE);

			if (!page)
				return NULL;
			*e = ptr_hpa(page).v | PTE_P | PTE_W;
		}
		if (l <= 3 && (*e & PTE_PS))
			return NULL;
		table = hpa_ptr(HPA(*e & PTE_ADDR));
	}
	return &table[(va >> (12 + 9 * (level - 1))) & 511];
}

/* Largest level whose pages fit at va and hpa, with at least one page to go. */
static u32 best_level(u64 va, u64 hpa, u64 size)
{
	if (have_1g && !((va | hpa) & (GIB - 1)) && size >= GIB)
		return 3;
	return !((va | hpa) & (2 * MIB - 1)) && size >= 2 * MIB ? 2 : 1;
}

/* bits: leaf bits in the layout of a 4 KiB leaf. What is mapped already stays as it is. */
static int map(u64 va, u64 hpa, u64 size, u64 bits)
{
	while (size) {
		u32 level = best_level(va, hpa, size);
		u64 page = 1ull << (12 + 9 * (level - 1)), *e = entry_at(va, level), leaf = bits;

		if (!e && level == 1)
			return trace_error(-ENOMEM);
		if (e && !(*e & PTE_P)) {
			if (level > 1)
				leaf = (bits & ~PTE_PAT4) | PTE_PS |
				       (bits & PTE_PAT4 ? PTE_PATL : 0);
			*e = hpa | leaf | PTE_P;
		} else if (level > 1 && (!e || !(*e & PTE_PS))) {
			/* Partly mapped in smaller pages: go on in those. */
			page = 4096;
			e = entry_at(va, 1);
			if (!e)
				return trace_error(-ENOMEM);
			if (!(*e & PTE_P))
				*e = hpa | bits | PTE_P;
		}
		va += page;
		hpa += page;
		size -= page;
	}
	return 0;
}

int hostmap_init(u64 image_at)
{
	u32 width;
	int err;

	image_offset = (u64)image_start - image_at;
	have_1g = cpuid(0x80000000, 0).eax >= 0x80000001 && (cpuid(0x80000001, 0).edx & BIT(26));
	width = cpuid(0x80000000, 0).eax >= 0x80000008 ? cpuid(0x80000008, 0).eax & 0xff : 36;
	max_hpa = MIN(1ull << width, HOST_STACKS - HOST_IO_BASE);
	err = map((u64)image_start, image_at, (u64)(text_end - image_start), PTE_G);
	if (!err)
		err = map((u64)text_end, image_hpa(text_end), (u64)(rodata_end - text_end),
			  PTE_G | PTE_NX);
	if (!err)
		err = map((u64)rodata_end, image_hpa(rodata_end), (u64)(image_end - rodata_end),
			  PTE_G | PTE_NX | PTE_W);
	/* What must not change must not through the direct map either; map() lets it be so. */
	if (!err)
		err = map(DIRECTMAP_BASE + image_at, image_at, (u64)(rodata_end - image_start),
			  PTE_G | PTE_NX);
	/*
	 * With five levels, the first and the last entry of the root lead to the same four-level
	 * tables.
	 */
	root5[0] = root5[511] = image_hpa(root4) | PTE_P | PTE_W;
	return err;
}

int hostmap_add_ram(hpa_t base, u64 size)
{
	u64 start = ALIGN_DOWN(base.v, PAGE_SIZE), end = ALIGN_UP(base.v + size, PAGE_SIZE);

	return map(DIRECTMAP_BASE + start, start, end - start, PTE_W | PTE_NX | PTE_G);
}

int hostmap_add_trampoline(hpa_t page)
{
	return map(page.v, page.v, PAGE_SIZE, 0);
}

bool hostmap_seal(hpa_t trampoline)
{
	u64 *e;

	if (trampoline.v) {
		e = entry_at(DIRECTMAP_BASE + trampoline.v, 1);
		*e &= ~PTE_W;
		invlpg(hpa_ptr(trampoline));
	}
	for (const u8 *p = image_start; p < rodata_end; p += PAGE_SIZE) {
		e = entry_at(DIRECTMAP_BASE + image_hpa(p), 1);
		if (!e || *e & PTE_W)
			return false;
	}
	return true;
}

void *hostmap_add_stack(u64 offset, u64 size)
{
	for (u64 at = 0; at < size; at += PAGE_SIZE) {
		pfn_t f = frame_alloc(FRAME_HEAP, VM_NONE);

		if (!pfn_valid(f) ||
		    map(HOST_STACKS + offset + at, pfn_hpa(f).v, PAGE_SIZE, PTE_W | PTE_NX | PTE_G))
			return NULL;
	}
	return (void *)(HOST_STACKS + offset + size);
}

void *host_map(hpa_t hpa, u64 size, enum host_cache cache)
{
	u64 start = ALIGN_DOWN(hpa.v, PAGE_SIZE), end = ALIGN_UP(hpa.v + MAX(size, 1), PAGE_SIZE),
	    flags;
	int err;

	/* Addresses come from firmware tables: none may reach the stacks, or past the CPU's width.
	 */
	if (hpa.v >= max_hpa || size > max_hpa - hpa.v)
		return NULL;
	flags = irq_save();
	spin_lock(&lock);
	err = map(HOST_IO_BASE + start, start, end - start,
		  PTE_W | PTE_NX | PTE_G | cache_bits[cache]);
	spin_unlock(&lock);
	irq_restore(flags);
	return err ? NULL : (void *)(HOST_IO_BASE + hpa.v);
}

void hostmap_activate(void)
{
	write_cr3(host_cr3());
}
