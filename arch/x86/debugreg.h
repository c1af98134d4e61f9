/* SPDX-License-Identifier: MIT */
/* SDM vol. 3 "Debug Registers". */
#pragma once

#include "lib/types.h"

#define DR6_RESET   0xffff0ff0ull
#define DR6_TRAPS   0xfull /* a bit for each of DR0..DR3 */
#define DR6_BD	    BIT(13)
#define DR6_BS	    BIT(14)
#define DR6_BT	    BIT(15) /* a task switch to a TSS with T */
#define DR7_RESET   0x400ull
#define DR7_ENABLED 0xffull  /* two bits for each of DR0..DR3 */
#define DR7_LOCAL   0x155ull /* L0 to L3 and LE: a task switch clears them */
#define DR7_GD	    BIT(13)

/* Condition (0: execution) and, above it, length of breakpoint i. */
static inline u64 dr7_type(u64 dr7, u32 i)
{
	return dr7 >> (16 + 4 * i) & 15;
}

/*
 * What DR6 says of a #DB: bits of breakpoints that are not enabled may be set, too; and behind a
 * single step those of a breakpoint on the next instruction, which comes by itself.
 */
static inline u64 dr6_events(u64 dr6, u64 dr7, bool stepped)
{
	u64 events = dr6 & (DR6_TRAPS | DR6_BD | DR6_BS);

	for (u32 i = 0; i < 4; i++)
		if (!(dr7 >> 2 * i & 3) || (stepped && !(dr7_type(dr7, i) & 3)))
			events &= ~BIT(i);
	return events;
}
