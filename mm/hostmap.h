/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor's own page tables. W^X from the start: code is read-only and executable, all else
 * is not executable.
 *
 *	0 .. trampoline page		one to one, for CPUs that start (read-only, executable)
 *	DIRECTMAP_BASE + hpa		RAM, write-back; read-only where code and constants lie
 *	HOST_IO_BASE + hpa		what host_map() was asked for
 *	HOST_STACKS			per CPU: stack and IST stacks, guard pages between them
 *	0xffffffff80000000		the image
 *
 * The root is shared by all CPUs. Mappings are only added, and hostmap_seal() comes before there is
 * a second CPU, so no TLB flush is ever owed.
 */
#pragma once

#include "lib/addr.h"

#define HOST_IO_BASE 0xffffc00000000000ull
#define HOST_STACKS  0xffffff8000000000ull

enum host_cache { HOST_WB, HOST_UC, HOST_WC };

/* The root, physical, below 4 GiB. */
u64 host_cr3(void);
/*
 * Map physical memory with a cache type; the pointer stays valid for good. Asking again for the
 * same page gives the same address (the first type stays). NULL: no memory for tables.
 */
void *host_map(hpa_t hpa, u64 size, enum host_cache cache);

/* Boot, in this order, on the boot CPU; -ENOMEM. image_hpa: where the image lies. */
int hostmap_init(u64 image_hpa);
int hostmap_add_ram(hpa_t base, u64 size);
int hostmap_add_trampoline(hpa_t page);
/*
 * The trampoline (0: none) is written: make it read-only. On the boot CPU, alone. False: Corbel's
 * code or constants can be written through the direct map.
 */
bool hostmap_seal(hpa_t trampoline) MUST_CHECK;
/*
 * A stack of `size` bytes for a CPU at HOST_STACKS + offset; frames from the allocator. Returns its
 * top, or NULL.
 */
void *hostmap_add_stack(u64 offset, u64 size);
/* Switch this CPU to the tables. */
void hostmap_activate(void);
