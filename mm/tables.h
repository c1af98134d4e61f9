/* SPDX-License-Identifier: MIT */
/*
 * Where a VM's stage-2 tables come from: blocks of 64 frames, 63 tables and a page with their
 * descriptors, which are found from a table's address alone.
 *
 *	block	[ descriptors: 64 x 64 bytes | table 1 | table 2 | ... | table 63 ]
 *
 * The VM keeps its blocks until it goes, so a reserve of free tables is at hand for a fault, and
 * the number of tables is bounded by the memory that the VM has. One that was used and is free is
 * poisoned: no entry is present, and whoever writes to it is found out when it is used again.
 */
#pragma once

#include "lib/addr.h"
#include "lib/spinlock.h"

#define TABLE_BLOCK_ORDER 6
#define TABLE_BLOCK	  (PAGE_SIZE << TABLE_BLOCK_ORDER)

struct stage2;
struct s2_table;

struct table_pool {
	struct spinlock lock; /* RANK_STAGE2 */
	hpa_t free;	      /* linked by their descriptors */
	hpa_t blocks;	      /* linked by the descriptors of their first pages */
	u64 nr_free;
	u64 tables; /* free and in use */
	u64 bound;  /* at most that many in use */
	u64 low;    /* with fewer free ones, another block is fetched before they are gone */
};

void table_pool_init(struct table_pool *pool);
/* The VM has `frames` more of memory: as many tables more as it needs in 4 KiB leaves. */
void table_pool_allow(struct table_pool *pool, u64 frames);
/* All tables are free: give the blocks back. */
void table_pool_destroy(struct stage2 *s);

/* For struct stage2_env; of s->pool. */
int table_pool_alloc(struct stage2 *s, hpa_t *table);
void table_pool_free(struct stage2 *s, hpa_t table);
u64 *table_pool_ptr(struct stage2 *s, hpa_t table);
struct s2_table *table_pool_desc(struct stage2 *s, const u64 *entries);
