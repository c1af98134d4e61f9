/* SPDX-License-Identifier: MIT */
/* 32-bit and PAE paging: the CPU's walk, and Corbel's (OUTS, INS, and instructions on devices). */
#include "tests/guest/modes/modes.h"

#define WIN	 0x40000000u /* linear, of the tests */
#define IDENTITY 16u	     /* MiB, one to one */
#define LAPIC	 0xfee00030u
#define PAGED(cr4, cr3) \
	STEP(OP_SET_CR4, cr4), STEP(OP_SET_CR3, cr3), STEP(OP_SET_CR0, PG | CR0_FLAT)
#define FIRST 3 /* step behind them */

static u32 at(const void *p)
{
	return (u32)(u64)p;
}

/* QEMU's reserved-bit faults come without P. */
static bool reserved(u32 fault, u32 error)
{
	return fault == PF(error | 9) || (!on_intel() && fault == PF(error | 8));
}

u32 *tables32(u32 **window)
{
	u32 *pd = pages(1), *pt;

	for (u32 i = 0; i < IDENTITY / 4; i++) {
		pt = pages(1);
		pd[i] = at(pt) | 3;
		for (u32 n = 0; n < 1024; n++)
			pt[n] = (i << 22 | n << 12) | 3;
	}
	*window = pages(1);
	pd[WIN >> 22] = at(*window) | 7;
	return pd;
}

/* The same as PAE, with the PDPT not at its page's start. */
u64 *tables_pae(u64 **window, u64 **pd_of_window)
{
	u64 *pdpt = (u64 *)pages(1) + 4, *pd = pages(1);

	for (u32 i = 0; i < IDENTITY / 2; i++)
		pd[i] = i << 21 | 0x83;
	*pd_of_window = pages(1);
	*window = pages(1);
	(*pd_of_window)[0] = at(*window) | 7;
	pdpt[0] = at(pd) | 1;
	pdpt[WIN >> 30] = at(*pd_of_window) | 1;
	return pdpt;
}

TEST(paging32, "32-bit paging: pages, rights, WP, a device; PS means nothing without CR4.PSE")
{
	u32 *pt, *pd = tables32(&pt), *a = pages(1);
	struct step s[] = {
		PAGED(0, at(pd)),
		STEP(OP_READ, WIN + 4),
		STEP(OP_OUTS, WIN + 4),
		STEP(OP_INS, WIN + 8),
		STEP(OP_READ, WIN + 0x1000),
		STEP(OP_OUTS, WIN + 0x1000),
		STEP(OP_WRITE, WIN + 0x1000, 1),
		STEP(OP_INS, WIN + 0x1000),
		STEP(OP_WRITE, WIN + 0x2000, 1), /* read-only, without WP */
		STEP(OP_INS, WIN + 0x2001),
		STEP(OP_READ, WIN + 0x3030), /* the LAPIC */
		STEP(OP_SET_CR0, PG | CR0_FLAT | X86_CR0_WP),
		STEP(OP_WRITE, WIN + 0x2000, 2),
		STEP(OP_INS, WIN + 0x2000),
		STEP(OP_READ, WIN + 0x400000), /* PS, but no PSE: a table */
		STEP(OP_OUTS, WIN + 0x400000),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;

	a[1] = 0x5566;
	pt[0] = at(a) | 3;
	pt[2] = (at(a) + 0) | 1;
	pt[3] = 0xfee00000 | 3;
	pd[(WIN >> 22) + 1] = at(pt) | 0x83;
	RUN(s);
	EXPECT(t[0].value, 0x5566);
	EXPECT(t[1].fault, NO_FAULT);
	EXPECT(a[2], 0x66);
	EXPECT(t[3].fault, PF(0));
	EXPECT(t[3].cr2, WIN + 0x1000);
	EXPECT(t[4].fault, PF(0));
	EXPECT(t[5].fault, PF(2));
	EXPECT(t[6].fault, PF(2));
	EXPECT(t[6].cr2, WIN + 0x1000);
	EXPECT(t[7].fault, NO_FAULT);
	EXPECT(t[8].fault, NO_FAULT);
	EXPECT(a[0], 0x6601); /* INS gives what OUTS left */
	EXPECT(t[9].value, apic_read(APIC_VERSION));
	EXPECT(t[11].fault, PF(3));
	EXPECT(t[12].fault, PF(3));
	EXPECT(t[13].value, 0x6601);
	EXPECT(t[14].fault, NO_FAULT);
	EXPECT(pt[2] & 0x60, 0x60); /* accessed and dirty */
}

TEST(paging_pse, "4 MiB pages: the right memory, the reserved bit, addresses above 4 GiB")
{
	u32 *pt, *pd = tables32(&pt), *a = pages(1);
	u32 offset = at(a) & 0x3fffff;
	struct step s[] = {
		PAGED(X86_CR4_PSE, at(pd)),
		STEP(OP_READ, WIN + offset),
		STEP(OP_OUTS, WIN + offset),
		STEP(OP_INS, WIN + offset + 5),
		STEP(OP_READ, WIN + 0x400000 + offset),
		STEP(OP_OUTS, WIN + 0x400000 + offset),
		STEP(OP_READ, WIN + 0x800000 + offset),
		STEP(OP_INVLPG, WIN),
		STEP(OP_READ, WIN + offset),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;

	*a = 0x778899;
	pd[WIN >> 22] = (at(a) & ~0x3fffffu) | 0x83;
	pd[(WIN >> 22) + 1] = pd[WIN >> 22] | BIT(21);
	pd[(WIN >> 22) + 2] = pd[WIN >> 22] | BIT(13); /* 4 GiB higher: nothing is there */
	RUN(s);
	EXPECT(t[0].value, 0x778899);
	EXPECT(t[1].fault, NO_FAULT);
	EXPECT(a[1], 0x9900);
	EXPECT_TRUE(reserved(t[3].fault, 0));
	EXPECT(t[4].fault, PF(9));
	EXPECT(t[5].value, ~0u);
	EXPECT(t[7].value, 0x778899);
}

TEST(paging_pae, "PAE paging: 4 KiB and 2 MiB pages, NX, reserved bits, a device")
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd);
	u32 *a = pages(1), offset = at(a) & 0x1fffff;
	struct step s[] = {
		PAGED(X86_CR4_PAE, at(pdpt)),
		STEP(OP_READ, WIN),
		STEP(OP_OUTS, WIN),
		STEP(OP_INS, WIN + 4),
		STEP(OP_READ, WIN + 0x200000 + offset),
		STEP(OP_OUTS, WIN + 0x200000 + offset),
		STEP(OP_READ, WIN + 0x1030), /* the LAPIC */
		STEP(OP_READ, WIN + 0x2000), /* bit 62 */
		STEP(OP_OUTS, WIN + 0x2000),
		STEP(OP_READ, WIN + 0x3000), /* NX without NXE */
		STEP(OP_OUTS, WIN + 0x3000),
		STEP(OP_SET_EFER, EFER_NXE),
		STEP(OP_SET_CR3, at(pdpt)),
		STEP(OP_READ, WIN + 0x3000),
		STEP(OP_OUTS, WIN + 0x3000),
		STEP(OP_CALL, WIN + 0x3000),
		STEP(OP_READ, WIN * 2), /* no PDPTE */
		STEP(OP_OUTS, WIN * 2),
		STEP(OP_GET_CR3),
		STEP(OP_SET_EFER, 0),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;

	*a = 0x99aabb;
	pt[0] = at(a) | 3;
	pt[1] = 0xfee00003;
	pt[2] = pt[0] | BIT(62);
	pt[3] = pt[0] | PTE_NX;
	pd[1] = (at(a) & ~0x1fffffu) | 0x83;
	RUN(s);
	EXPECT(t[0].value, 0x99aabb);
	EXPECT(t[1].fault, NO_FAULT);
	EXPECT(a[1] & 0xff, 0xbb);
	EXPECT(t[3].value, 0x99aabb);
	EXPECT(t[4].fault, NO_FAULT);
	EXPECT(t[5].value, apic_read(APIC_VERSION));
	EXPECT_TRUE(reserved(t[6].fault, 0));
	EXPECT(t[7].fault, PF(9));
	EXPECT_TRUE(reserved(t[8].fault, 0));
	EXPECT(t[9].fault, PF(9));
	EXPECT(t[12].value, 0x99aabb);
	EXPECT(t[13].fault, NO_FAULT);
	EXPECT(t[14].fault, PF(0x11));
	EXPECT(t[15].fault, PF(0));
	EXPECT(t[16].fault, PF(0));
	EXPECT(t[17].value, at(pdpt));
}

static const u32 cr0_paged = PG | CR0_FLAT;

/* Turning PAE paging on with this in the second PDPTE: what that faults with. */
static u32 turn_on(u64 entry)
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd);
	struct step s[] = { PAGED(X86_CR4_PAE, at(pdpt)), STEP(OP_END) };

	pdpt[1] = entry;
	RUN(s);
	return s[2].fault;
}

TEST(pdpte_reserved, "CR0.PG with a reserved bit in a present PDPTE is #GP, and is not set")
{
	u32 width = cpuid(0x80000008, 0).eax & 0xff;
	u64 table = at(pages(1));

	if (!on_intel())
		skip("with nested paging SVM reads PDPTEs when it walks");
	EXPECT(turn_on(table | 1), NO_FAULT);
	EXPECT(turn_on(table | 1 | MASK(11, 9) | MASK(4, 3)), NO_FAULT);
	EXPECT(turn_on(~1ull), NO_FAULT);
	for (u32 bit = 1; bit < 64; bit++)
		if (bit < 3 || (bit > 4 && bit < 9) || bit >= width)
			EXPECT(turn_on(table | 1 | BIT(bit)), GP);
}

TEST(pdpte_loads, "CR3, CR0.CD and CR4.SMEP load PDPTEs, #GP if they are bad; OSXSAVE does not")
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd);
	u64 *other_pt, *other_pd, *other = tables_pae(&other_pt, &other_pd);
	u32 smep = has(7, 'b', 7) ? X86_CR4_SMEP : 0,
	    osxsave = has(1, 'c', 26) ? X86_CR4_OSXSAVE : 0;
	struct step s[] = {
		PAGED(X86_CR4_PAE, at(pdpt)),
		STEP(OP_READ, WIN),
		STEP(OP_SET_CR3, at(other)), /* bad */
		STEP(OP_GET_CR3),
		STEP(OP_WRITE, at(pdpt) + 24, 1 | BIT(5)), /* the fourth */
		STEP(OP_SET_CR4, X86_CR4_PAE | osxsave),
		STEP(OP_READ, WIN),
		STEP(OP_SET_CR4, X86_CR4_PAE),
		STEP(OP_SET_CR4, X86_CR4_PAE | smep),
		STEP(OP_GET_CR4),
		STEP(OP_SET_CR0, cr0_paged | X86_CR0_CD),
		STEP(OP_GET_CR0),
		STEP(OP_READ, WIN),
		STEP(OP_WRITE, at(pdpt) + 24, 0),
		STEP(OP_SET_CR0, cr0_paged | X86_CR0_CD),
		STEP(OP_SET_CR0, cr0_paged),
		STEP(OP_READ, WIN),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;
	u32 *a = pages(1);

	if (!on_intel())
		skip("with nested paging SVM reads PDPTEs when it walks");
	*a = 0xaabb;
	pt[0] = at(a) | 3;
	other[2] = 1 | BIT(1);
	RUN(s);
	EXPECT(t[0].value, 0xaabb);
	EXPECT(t[1].fault, GP);
	EXPECT(t[2].value, at(pdpt));
	EXPECT(t[4].fault, NO_FAULT);
	EXPECT(t[5].value, 0xaabb);
	EXPECT(t[7].fault, smep ? GP : NO_FAULT);
	EXPECT(t[8].value, X86_CR4_PAE);
	EXPECT(t[9].fault, GP);
	EXPECT(t[10].value, cr0_paged);
	EXPECT(t[11].value, 0xaabb);
	EXPECT(t[13].fault, NO_FAULT);
	EXPECT(t[14].fault, NO_FAULT);
	EXPECT(t[15].value, 0xaabb);
}

TEST(pdpte_copies, "a PDPTE that changes in memory counts from the next load on")
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd);
	u32 osxsave = has(1, 'c', 26) ? X86_CR4_OSXSAVE : 0;
	struct step s[] = {
		PAGED(X86_CR4_PAE, at(pdpt)),
		STEP(OP_READ, WIN),
		STEP(OP_WRITE, at(pdpt) + 8, 0),
		STEP(OP_CALL, ROUTINE(r32_cpuid)),
		STEP(OP_SET_CR4, X86_CR4_PAE | osxsave),
		STEP(OP_READ, WIN),
		STEP(OP_SET_CR3, at(pdpt)),
		STEP(OP_READ, WIN),
		STEP(OP_END),
	};

	if (!on_intel())
		skip("with nested paging SVM reads PDPTEs when it walks");
	pt[0] = at(pages(1)) | 3;
	RUN(s);
	EXPECT(s[FIRST].fault, NO_FAULT);
	EXPECT(s[FIRST + 4].fault, NO_FAULT);
	EXPECT(s[FIRST + 6].fault, PF(0));
}

/*
 * What is a directory of 32-bit paging is a PDPT as well; its first entry is used, and the accessed
 * bit is a reserved one of PDPTEs.
 */
TEST(pae_by_cr4, "CR4.PAE while 32-bit paging is on loads PDPTEs: bad ones are #GP, good ones work")
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd);
	u32 *pt32, *pd32 = tables32(&pt32);
	struct step s[] = {
		PAGED(0, at(pd32)),
		STEP(on_intel() ? OP_SET_CR4 : OP_GET_CR4, X86_CR4_PAE), /* bad: bits 1 and 5 */
		STEP(OP_GET_CR4),
		STEP(OP_SET_CR0, CR0_FLAT),
		STEP(OP_SET_CR3, at(pdpt)),
		STEP(OP_SET_CR4, X86_CR4_PAE),
		STEP(OP_SET_CR0, cr0_paged),
		STEP(OP_READ, WIN),
		STEP(OP_SET_CR0, CR0_FLAT),
		STEP(OP_SET_CR4, 0),
		STEP(OP_SET_CR3, at(pd32)),
		STEP(OP_SET_CR0, cr0_paged),
		STEP(OP_READ, WIN),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;
	u32 *a = pages(1), *b = pages(1);

	*a = 1, *b = 2;
	pt32[0] = at(a) | 3;
	pt[0] = at(b) | 3;
	RUN(s);
	if (on_intel()) {
		EXPECT(t[0].fault, GP);
		EXPECT(t[1].value, 0);
	}
	EXPECT(t[6].value, 2);
	EXPECT(t[11].value, 1);
}

TEST(v86_paging, "virtual-8086 mode with paging: user pages, a device, a missing page")
{
	u32 *pt, *pd = tables32(&pt), *first = (u32 *)(u64)(pd[0] & ~0xfffu);
	struct step s[] = {
		PAGED(0, at(pd)),
		STEP(OP_V86, ROUTINE(v86_read), 0xa030), /* the LAPIC */
		STEP(OP_V86, ROUTINE(v86_read), 0xb000),
		STEP(OP_V86, ROUTINE(v86_read), 0xc000), /* not for CPL 3 */
		STEP(OP_V86, ROUTINE(v86_cpuid)),
		STEP(OP_END),
	};
	struct step *t = s + FIRST;

	v86_tss(0);
	pd[0] |= 4;
	for (u32 i = 0; i < 16; i++)
		first[i] |= 4;
	first[10] = 0xfee00007;
	first[11] = 0;
	first[12] &= ~4u;
	RUN(s);
	EXPECT(t[0].fault, UD);
	EXPECT(t[0].value, apic_read(APIC_VERSION));
	EXPECT(t[1].fault, PF(4));
	EXPECT(t[1].cr2, 0xb000);
	EXPECT(t[2].fault, PF(5));
	EXPECT(t[3].fault, UD);
	EXPECT(t[3].value, cpuid(0, 0).ebx);
}
