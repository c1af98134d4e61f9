/* SPDX-License-Identifier: MIT */
/*
 * The VM's memory: zero at the start, there to its end, and kept by nobody else.
 *
 * vm: memory = 24M
 */
#include "tests/guest/lib/test.h"

#define IMAGE_START 0x200000ul
#define MEMORY_END  (24ul << 20)
#define ACPI	    0x90000ul

extern u8 image_end[];

/* The first word of a range that is not zero, or its end. */
static u64 not_zero(u64 from, u64 to)
{
	while (from < to && !*(volatile u64 *)from)
		from += 8;
	return from;
}

TEST(zero_at_start, "all that nothing was loaded to is zero")
{
	EXPECT(not_zero(0x20000, ACPI), ACPI);
	EXPECT(not_zero(0xf0000 - 0x8000, 0xf0000), 0xf0000);
	EXPECT(not_zero(0x100000, IMAGE_START), IMAGE_START);
	EXPECT(not_zero((u64)image_end, 0x400000), 0x400000);
	EXPECT(not_zero(0xe00000, MEMORY_END), MEMORY_END);
}

TEST(all_there, "every page can be written and keeps its own value")
{
	u32 wrong = 0;

	for (u64 at = 0xe00000; at < MEMORY_END; at += PAGE_SIZE)
		*(volatile u64 *)at = at;
	for (u64 at = 0xe00000; at < MEMORY_END; at += PAGE_SIZE)
		wrong += *(volatile u64 *)at != at;
	EXPECT(wrong, 0);
}

TEST(behind_the_end, "behind the end nothing is: ones, and writes vanish")
{
	volatile u64 *p = (volatile u64 *)MEMORY_END;

	*p = 5;
	EXPECT(*p, ~0ull);
	EXPECT(*(volatile u32 *)(MEMORY_END - 4), 0);
	EXPECT(*(volatile u64 *)0xbffffff8, ~0ull);
}

TEST(rsdp, "the RSDP is where systems search for it")
{
	EXPECT(memcmp((void *)ACPI, "RSD PTR ", 8), 0);
	EXPECT(memcmp((void *)0xe0000, "RSD PTR ", 8), 0);
}

TEST(atomic, "locked operations over a page's end")
{
	u64 *p = (u64 *)((u8 *)pages(2) + PAGE_SIZE - 4);

	for (u32 i = 0; i < 100; i++)
		asm volatile("lock incq %0" : "+m"(*p));
	EXPECT(*p, 100);
}
