/* SPDX-License-Identifier: MIT */
/*
 * GDT, TSS and IDT of each CPU (SDM vol. 3 "Protected-Mode Memory Management", "Interrupt and
 * Exception Handling").
 */
#pragma once

#include "lib/types.h"

#define HOST_CS	 0x08
#define HOST_SS	 0x10
#define HOST_TSS 0x18 /* 16 bytes */

/* IST stacks: what may arrive when the current stack can't be trusted. */
enum ist { IST_NONE, IST_DF, IST_NMI, IST_MC, IST_COUNT = IST_MC };

#define STACK_SIZE 16384
#define IST_SIZE   8192

struct PACKED tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, iomap_base;
};

/*
 * Load GDT, TSS, IDT and the data segments on this CPU; its GS base is set already. ist[] are the
 * tops of its IST stacks (index 1..3). At the very top of each stands the CPU's GS base, where the
 * paranoid entries find it.
 */
void desc_load(const u64 ist[IST_COUNT + 1]);
