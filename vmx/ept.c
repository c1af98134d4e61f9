/* SPDX-License-Identifier: MIT */
/*
 * Extended page tables (SDM volume 3, "EPT Translation Mechanism"). CPUs have A and D bits, which
 * EPTP turns on, or have none.
 */
#include "vmx/ept.h"

#define EPT_R	     BIT(0)
#define EPT_W	     BIT(1)
#define EPT_X	     BIT(2)
#define EPT_MT(type) ((u64)(type) << 3)
#define EPT_MT_UC    EPT_MT(0)
#define EPT_MT_WB    EPT_MT(6)
#define EPT_MT_MASK  EPT_MT(7)
#define EPT_IPAT     BIT(6) /* ignore the guest's PAT: never set, the guest's PAT is honoured */
#define EPT_LARGE    BIT(7)
#define EPT_A	     BIT(8)
#define EPT_D	     BIT(9)

/*
 * W without R is an EPT misconfiguration. X alone exists on some CPUs only (IA32_VMX_EPT_VPID_CAP
 * bit 0), so nothing without S2_R is offered, as on NPT.
 */
#define FORMAT \
	.name = "EPT", .levels = 4, .present_mask = EPT_R | EPT_W | EPT_X, \
	.addr_mask = MASK(51, 12), .large_bit = EPT_LARGE,                 \
	.table_bits = EPT_R | EPT_W | EPT_X,                               \
	.prot_mask = EPT_R | EPT_W | EPT_X,                                \
	.prot_bits = {                                                     \
		[S2_R] = EPT_R,                                            \
		[S2_R | S2_W] = EPT_R | EPT_W,                             \
		[S2_R | S2_X] = EPT_R | EPT_X,                             \
		[S2_RWX] = EPT_R | EPT_W | EPT_X,                          \
	},                                                                 \
	.memtype_mask = EPT_MT_MASK | EPT_IPAT,                            \
	.memtype_bits = { [S2_WB] = EPT_MT_WB, [S2_UC] = EPT_MT_UC }

const struct pt_format ept_format = { FORMAT, .accessed = EPT_A, .dirty = EPT_D };
const struct pt_format ept_format_no_ad = { FORMAT };
