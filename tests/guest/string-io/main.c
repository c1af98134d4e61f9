/* SPDX-License-Identifier: MIT */
/* INS and OUTS, at the scratch register of COM1: values, registers, prefixes, pages. */
#include <linux/serial_reg.h>
#include "tests/guest/lib/test.h"

#define SCRATCH (0x3f8 + UART_SCR)

struct regs {
	u64 si, di, cx;
};

/* One instruction with these registers; what it faults with. */
#define STRING_IO_AT(port, insn, r) \
	TRY(insn, : "+S"((r).si), "+D"((r).di), "+c"((r).cx) : "d"(port) : "memory", "cc")
#define STRING_IO(insn, r) STRING_IO_AT(SCRATCH, insn, r)
/* Wider ones: MSR and scratch; MCR, LSR, MSR, scratch. */
#define WORD	    (SCRATCH - 1)
#define DOUBLE_WORD (SCRATCH - 3)
#define QUIET	    0xb06000

TEST(rep_outsb, "REP OUTSB writes each byte, the last one stays")
{
	static const u8 values[] = { 0x11, 0x22, 0x33 };
	struct regs r = { .si = (u64)values, .cx = 3 };

	EXPECT(STRING_IO("rep outsb", r), NO_FAULT);
	EXPECT(r.si, (u64)values + 3);
	EXPECT(r.cx, 0);
	EXPECT(inb(SCRATCH), 0x33);
}

TEST(rep_insb, "REP INSB fills memory, and no more")
{
	u8 *p = pages(1);
	struct regs r = { .di = (u64)p + 10, .cx = 100 };

	outb(SCRATCH, 0x5a);
	EXPECT(STRING_IO("rep insb", r), NO_FAULT);
	EXPECT(r.di, (u64)p + 110);
	EXPECT(r.cx, 0);
	for (u32 i = 0; i < 200; i++)
		EXPECT(p[i], i >= 10 && i < 110 ? 0x5a : 0);
}

TEST(backwards, "DF = 1 counts down")
{
	static const u8 values[] = { 1, 2, 3 };
	struct regs r = { .si = (u64)values + 2, .cx = 3 };

	EXPECT(STRING_IO("std; rep outsb; cld", r), NO_FAULT);
	EXPECT(r.si, (u64)values - 1);
	EXPECT(inb(SCRATCH), 1);
}

TEST(once, "without REP: one element, RCX stays; segment prefix; a count of 0 does nothing")
{
	static const u8 values[] = { 7, 8 };
	struct regs r = { .si = (u64)values, .cx = 55 };

	EXPECT(STRING_IO(".byte 0x2e; outsb", r), NO_FAULT);
	EXPECT(r.si, (u64)values + 1);
	EXPECT(r.cx, 55);
	EXPECT(inb(SCRATCH), 7);
	r = (struct regs){ .si = (u64)values + 1 };
	EXPECT(STRING_IO("rep outsb", r), NO_FAULT);
	EXPECT(r.si, (u64)values + 1);
	EXPECT(inb(SCRATCH), 7);
}

TEST(address_size, "with 67: the lower halves of RDI and RCX count, the upper become 0")
{
	u8 *p = pages(1);
	struct regs r = { .di = (u64)p, .cx = 0x100000002 };

	outb(SCRATCH, 9);
	EXPECT(STRING_IO(".byte 0x67, 0xf3, 0x6c", r), NO_FAULT);
	EXPECT(r.di, (u64)p + 2);
	EXPECT(r.cx, 0);
	EXPECT(p[0] | p[1] << 8 | p[2] << 16, 0x0909);
}

TEST(sizes, "words and double words")
{
	u32 *p = pages(1);
	struct regs r = { .di = (u64)p, .cx = 2 };

	outb(SCRATCH, 0x77);
	EXPECT(STRING_IO_AT(WORD, "rep insw", r), NO_FAULT);
	EXPECT(p[0], 0x77b077b0);
	EXPECT(r.di, (u64)p + 4);
	r = (struct regs){ .di = (u64)p, .cx = 1 };
	EXPECT(STRING_IO_AT(DOUBLE_WORD, "rep insl", r), NO_FAULT);
	EXPECT(p[0], 0x77000000 | QUIET);
	r = (struct regs){ .si = (u64)p, .cx = 1 };
	p[0] = 0x99000000;
	EXPECT(STRING_IO_AT(DOUBLE_WORD, "rep outsl", r), NO_FAULT);
	EXPECT(inb(SCRATCH), 0x99);
	EXPECT(r.si, (u64)p + 4);
}

/* Two pages of the window side by side that lie apart in memory. */
static u8 *two_pages(u8 **first, u8 **second)
{
	*second = pages(1);
	pages(1);
	*first = pages(1);
	window(WINDOW_FREE + 1, (u64)*second | PTE_P | PTE_W);
	return window(WINDOW_FREE, (u64)*first | PTE_P | PTE_W);
}

TEST(page_border, "an element and a run that lie in two pages")
{
	u8 *first, *second, *at = two_pages(&first, &second);
	struct regs r = { .di = (u64)at + PAGE_SIZE - 2, .cx = 1 };

	outb(SCRATCH, 0x44);
	EXPECT(STRING_IO_AT(DOUBLE_WORD, "rep insl", r), NO_FAULT);
	EXPECT(first[PAGE_SIZE - 2] | first[PAGE_SIZE - 1] << 8, QUIET & 0xffff);
	EXPECT(second[0] | second[1] << 8, 0x4400 | QUIET >> 16);
	r = (struct regs){ .di = (u64)at + PAGE_SIZE - 3, .cx = 6 };
	EXPECT(STRING_IO("rep insb", r), NO_FAULT);
	EXPECT(first[PAGE_SIZE - 3] | first[PAGE_SIZE - 1] << 8, 0x4444);
	EXPECT(second[0] | second[2] << 8, 0x4444);
	EXPECT(second[3], 0);
}

TEST(missing_page, "REP INSB stops at a missing page, goes on when it is there")
{
	u8 *first, *second, *at = two_pages(&first, &second);
	struct regs r = { .di = (u64)at + PAGE_SIZE - 3, .cx = 6 };

	outb(SCRATCH, 0x66);
	window(WINDOW_FREE + 1, 0);
	EXPECT(STRING_IO("rep insb", r), PF(2));
	EXPECT(this_cpu()->cr2, (u64)at + PAGE_SIZE);
	EXPECT(r.cx, 3);
	EXPECT(r.di, (u64)at + PAGE_SIZE);
	EXPECT(first[PAGE_SIZE - 1], 0x66);
	window(WINDOW_FREE + 1, (u64)second | PTE_P | PTE_W);
	EXPECT(STRING_IO("rep insb", r), NO_FAULT);
	EXPECT(r.cx, 0);
	EXPECT(second[2], 0x66);
}

TEST(missing_page_out, "REP OUTSB backwards into a missing page")
{
	u8 *first, *second, *at = two_pages(&first, &second);
	struct regs r = { .si = (u64)at + PAGE_SIZE + 1, .cx = 4 };

	memset(second, 0x21, 2);
	first[PAGE_SIZE - 1] = 0x22;
	window(WINDOW_FREE, 0);
	EXPECT(STRING_IO("std; rep outsb; cld", r), PF(0));
	asm volatile("cld");
	EXPECT(this_cpu()->cr2, (u64)at + PAGE_SIZE - 1);
	EXPECT(r.cx, 2);
	EXPECT(r.si, (u64)at + PAGE_SIZE - 1);
	EXPECT(inb(SCRATCH), 0x21);
	window(WINDOW_FREE, (u64)first | PTE_P | PTE_W);
	r.cx = 1;
	EXPECT(STRING_IO("rep outsb", r), NO_FAULT);
	EXPECT(inb(SCRATCH), 0x22);
}

TEST(read_only_page, "INS to a page that cannot be written takes nothing from the port")
{
	u8 *p = pages(1);
	u8 *at = window(WINDOW_FREE, (u64)p | PTE_P);
	struct regs r = { .di = (u64)at, .cx = 2 };

	EXPECT(STRING_IO("rep insb", r), PF(3));
	EXPECT(r.cx, 2);
	EXPECT(p[0], 0);
}

TEST(non_canonical, "a non-canonical address is #GP")
{
	struct regs r = { .di = 0x0000800000000000, .cx = 1 };

	EXPECT(STRING_IO("rep insb", r), GP);
	r = (struct regs){ .si = 0xffff000000000000, .cx = 1 };
	EXPECT(STRING_IO("rep outsb", r), GP);
}

TEST(huge_count, "a count of 2^32 - 1 ends at the end of what is mapped")
{
	u8 *first, *second, *at = two_pages(&first, &second);
	struct regs r = { .di = (u64)at + PAGE_SIZE * 2 - 20, .cx = 0xffffffff };

	window(WINDOW_FREE + 2, 0);
	EXPECT(STRING_IO("rep insb", r), PF(2));
	EXPECT(r.cx, 0xffffffff - 20);
	EXPECT(this_cpu()->cr2, (u64)at + PAGE_SIZE * 2);
}
