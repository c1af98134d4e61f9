/* SPDX-License-Identifier: MIT */
/*
 * Nested page tables have the layout of long-mode page tables (APM volume 2, "Nested Paging" and
 * "Page-Translation-Table Entry Fields"). A guest's access counts as a user access in them,
 * therefore U/S is set at every level.
 */
#include "svm/npt.h"

#define NPT_P	  BIT(0)
#define NPT_RW	  BIT(1)
#define NPT_US	  BIT(2)
#define NPT_PWT	  BIT(3)
#define NPT_PCD	  BIT(4)
#define NPT_A	  BIT(5)
#define NPT_D	  BIT(6)
#define NPT_LARGE BIT(7) /* in a level-1 entry this is the PAT bit, which we leave clear */
#define NPT_NX	  BIT(63)

#define NPT_READ (NPT_P | NPT_US)

const struct pt_format npt_format = {
	.name = "NPT",
	.levels = 4,
	.present_mask = NPT_P,
	.addr_mask = MASK(51, 12),
	.large_bit = NPT_LARGE,
	.table_bits = NPT_READ | NPT_RW,
	.prot_mask = NPT_READ | NPT_RW | NPT_NX,
	.prot_bits = {
		/* A present entry can be read: nothing without S2_R exists. */
		[S2_R] = NPT_READ | NPT_NX,
		[S2_R | S2_W] = NPT_READ | NPT_RW | NPT_NX,
		[S2_R | S2_X] = NPT_READ,
		[S2_RWX] = NPT_READ | NPT_RW,
	},
	.memtype_mask = NPT_PCD | NPT_PWT,
	/*
	 * Indices into the host's PAT ("Combining Memory Types, Nested Paging"): 0 is WB, with
	 * which the guest's own PAT decides; 3 is UC, which it cannot weaken.
	 */
	.memtype_bits = { [S2_WB] = 0, [S2_UC] = NPT_PCD | NPT_PWT },
	.accessed = NPT_A,
	.dirty = NPT_D,
};
