/* SPDX-License-Identifier: MIT */
/*
 * The last steps of the loader: page tables that map memory one to one, again at the direct map's
 * address, and the hypervisor's image where it is linked; then the jump. They live until the
 * hypervisor has built its own.
 */
#pragma once

#include "lib/types.h"

#define HANDOVER_DIRECTMAP 0xffff800000000000ull

u64 handover_tsc(void);
/*
 * Build the tables with pages from `alloc` (bytes, below; cleared pages or 0). Returns what CR3
 * must be, 0 if memory ran out. With five-level paging already on, a root is added whose first and
 * last entry are the four-level root.
 */
u64 handover_tables(u64 (*alloc)(u64 bytes, u64 below), u64 link_base, u64 image_base,
		    u64 image_size);
void handover_jump(u64 root, u64 entry, u64 bootinfo) NORETURN;
