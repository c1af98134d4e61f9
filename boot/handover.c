/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "boot/handover.h"

#define PTE_P	  BIT(0)
#define PTE_W	  BIT(1)
#define PTE_LARGE BIT(7)

/*
 * How much is mapped one to one: what a 4-level PDPT reaches. Only boot needs it; the hypervisor
 * maps real RAM afterwards.
 */
#define MAP_GIB 512

u64 handover_tsc(void)
{
	return rdtsc();
}

static u64 *table(u64 entry)
{
	return (u64 *)(uintptr_t)(entry & ~0xfffull);
}

static bool has_1g_pages(void)
{
	return cpuid(0x80000000, 0).eax >= 0x80000001 && (cpuid(0x80000001, 0).edx & BIT(26));
}

/*
 * [0, 512 GiB) with 1 GiB pages; with 2 MiB pages where the CPU has no larger ones, and then less:
 * 64 GiB (256 KiB of tables).
 */
static bool map_low(u64 *pdpt, u64 (*alloc)(u64 bytes, u64 below))
{
	bool huge = has_1g_pages();

	for (u64 g = 0; g < (huge ? MAP_GIB : 64); g++) {
		u64 pd;

		if (huge) {
			pdpt[g] = g << 30 | PTE_P | PTE_W | PTE_LARGE;
			continue;
		}
		pd = alloc(4096, BIT(47));
		if (!pd)
			return false;
		pdpt[g] = pd | PTE_P | PTE_W;
		for (u64 i = 0; i < 512; i++)
			table(pd)[i] = g << 30 | i << 21 | PTE_P | PTE_W | PTE_LARGE;
	}
	return true;
}

/* The entry for va in the table of `level` (4..1) below root, with the tables on the way made. */
static u64 *entry_at(u64 root, u64 va, int level, u64 (*alloc)(u64 bytes, u64 below))
{
	u64 *t = table(root);

	for (int l = 4; l > level; l--) {
		u64 *e = &t[(va >> (12 + 9 * (l - 1))) & 511];

		if (!(*e & PTE_P)) {
			u64 page = alloc(4096, BIT(47));

			if (!page)
				return NULL;
			*e = page | PTE_P | PTE_W;
		}
		t = table(*e);
	}
	return &t[(va >> (12 + 9 * (level - 1))) & 511];
}

u64 handover_tables(u64 (*alloc)(u64 bytes, u64 below), u64 link_base, u64 image_base,
		    u64 image_size)
{
	u64 root = alloc(4096, BIT(32)), pdpt = alloc(4096, BIT(47)), top;

	if (!root || !pdpt || !map_low(table(pdpt), alloc))
		return 0;
	*entry_at(root, 0, 4, alloc) = pdpt | PTE_P | PTE_W;
	*entry_at(root, HANDOVER_DIRECTMAP, 4, alloc) = pdpt | PTE_P | PTE_W;
	for (u64 at = 0; at < image_size; at += 4096) {
		u64 *e = entry_at(root, link_base + at, 1, alloc);

		if (!e)
			return 0;
		*e = (image_base + at) | PTE_P | PTE_W;
	}
	if (!(read_cr4() & BIT(12))) /* LA57 */
		return root;
	top = alloc(4096, BIT(32));
	if (top)
		table(top)[0] = table(top)[511] = root | PTE_P | PTE_W;
	return top;
}

void handover_jump(u64 root, u64 entry, u64 bootinfo)
{
	asm volatile("cli\n\tcld\n\tmov %0, %%cr3\n\tjmp *%1"
		     :
		     : "r"(root), "r"(entry), "D"(bootinfo)
		     : "memory");
	__builtin_unreachable();
}
