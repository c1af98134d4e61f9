/* SPDX-License-Identifier: MIT */
/*
 * For tests of the reverse map and its audit: VMs with tables from the pool, that map the same
 * frames.
 */
#pragma once

#include "mm/audit.h"
#include "tests/unit/stage2_host.h"

#define VMS	     3
#define WINDOW	     (4 * FRAMES_2M) /* gfns from 0, in each VM */
#define EXTENT_COUNT 3
#define MEMORY	     (64 * MIB)

extern struct stage2 vms[VMS];
extern pfn_t guest; /* EXTENT_COUNT extents that all VMs may map */
extern const struct stage2_env pool_env;

void open_vms(const struct pt_format *fmt);
/* Checks that nothing is left, and nothing was damaged. */
void close_vms(void);
u64 free_frames(void);
/* Frames count from `guest`. */
int map(u32 vm, u64 gfn, u64 pfn, u64 count, u8 largest);
/* And the debt is paid. */
void unmap(u32 vm, u64 gfn, u64 count);
/* The entry of gfn, in its level-1 table or, for a 2 MiB leaf, one up. */
u64 *entry_of(struct stage2 *s, u64 gfn);

struct keys {
	u64 key[128];
	u32 count;
};
struct keys keys_of(u64 pfn);
bool has_key(u64 pfn, u64 key);

/* What the last audit found. */
extern struct audit_finding found[16];
extern u32 nr_found;
struct audit audit(struct stage2 *only);
bool has_finding(enum audit_kind kind, const struct stage2 *s, u64 gfn);
/* That damage was VM `victims`' (a bit each) and no other's; it is forgotten. */
void expect_victims(u32 victims);
