/* SPDX-License-Identifier: MIT */
/*
 * Stage-2 tables: guest physical to host physical. One engine for EPT and NPT.
 *
 *	level 4  [ root: 512 entries, 512 GiB each ]
 *	              |  table
 *	level 3  [ 1 GiB each ]----- large leaf: 1 GiB
 *	              |  table
 *	level 2  [ 2 MiB each ]----- large leaf: 2 MiB
 *	              |  table
 *	level 1  [ 4 KiB each ]----- leaf
 *
 * Concurrency: any number of CPUs map at once, and only meet at the lock of a frame's keys
 * (mm/rmap.h), one for 2 MiB of host memory; splits of one VM take turns. An entry changes only by
 * compare-and-swap (installing) or exchange (removing), tables are filled before they are linked,
 * whoever loses the race frees its table and looks again. Unmap and protect may run beside that. At
 * every moment a translation is the old one, the new one, or a fault. tests/unit/stage2_test.c
 * checks this with a memory that records its history and with threads.
 *
 * Stale translations: whatever removes or weakens a mapping returns a *flush debt*. Frames and
 * tables that were unlinked may not be reused before it is paid on every CPU where the VM ran. The
 * type must be used; only stage2_debt_paid() consumes it, and only then the keys of what was
 * unmapped leave the reverse map (mm/rmap.h). When two CPUs unmap the same range at
 * once, each leaf is removed by one of them (the hook `changed` tells), and it is that one's debt
 * that covers it: the other may have no debt at all, and may not conclude that the frame is free.
 *
 * Memory, allocation and the owner of the flush are injected (struct stage2_env), so the same file
 * runs in host tests.
 */
#pragma once

#include "lib/addr.h"
#include "lib/list.h"
#include "lib/spinlock.h"
#include "mm/corruption.h"
#include "mm/pt_format.h"
#include "mm/rmap.h"
#include "mm/tables.h"

struct stage2;

/* Of a table. A walk may begin at one that is seen LINKED in its read section: see fill_near(). */
enum s2_table_state { S2_TABLE_NEW, S2_TABLE_LINKED, S2_TABLE_GARBAGE };

/*
 * What a table page serves as, beside the page itself. Each walk compares it with what it takes the
 * table for: a table that is reached under another role, or after it was freed, is noticed before
 * it is used.
 */
struct s2_table {
	u64 canary;	/* 0: no table */
	u64 base;	/* first gfn that it covers */
	u64 stamp;	/* in the garbage: the flush debt that frees it */
	hpa_t next;	/* in the garbage, or in a list of free tables */
	u32 generation; /* how often the page has become a table */
	u32 live;	/* present entries; atomic */
	u64 *entries;
	u16 vm;
	u8 level; /* of its entries */
	u8 state; /* enum s2_table_state; atomic */
};
_Static_assert(sizeof(struct s2_table) <= 64, "one cache line");

struct stage2_env {
	/* A cleared table page, or -ENOMEM. Any context in which stage2_map may be called. */
	int (*table_alloc)(struct stage2 *s, hpa_t *table);
	/* Neither hardware nor a walk of software can reach the table. */
	void (*table_free)(struct stage2 *s, hpa_t table);
	/* Pointer to a table's 512 entries; NULL: it is no table of this space. */
	u64 *(*table_ptr)(struct stage2 *s, hpa_t table);
	/*
	 * The descriptor that goes with them. Stays readable, as what a table that was freed left,
	 * as long as the space, and keeps its generation as long as the page.
	 */
	struct s2_table *(*table_desc)(struct stage2 *s, const u64 *entries);
	/*
	 * DATA_CORRUPTION_ON(s, ...) was true; any context, locks up to RANK_EXTENT may be held.
	 * May be NULL.
	 */
	void (*corrupted)(struct stage2 *s, const char *cond, const char *file, int line);
	/*
	 * Hook of the single writer, for tests: entry at (gfn, level) changed from old to new, in
	 * that order in memory. gfn is the first that the entry covers. Called whenever old
	 * or new is present, also for entries of a table that is not linked yet or not any more:
	 * each leaf that comes is reported once, and once when it goes. May be NULL.
	 */
	void (*changed)(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry);
	/* only frames of s->owner, or shared ones (mm/frames.h), are mapped; others are damage */
	bool private_frames;
};

struct stage2 {
	struct list node; /* of all that were initialized and not destroyed */
	const struct pt_format *fmt;
	const struct stage2_env *env;
	hpa_t root;
	u64 max_gfn; /* exclusive; set from the CPU's physical address width, at most 1 << 36 */
	u8 max_leaf; /* largest leaf level that the hardware has: 1, 2 or 3 */
	u16 vm;	     /* owner of the tables */
	u16 owner;  /* private_frames: of the frames; at first the VM. Changed while none are mapped
		     */
	u8 root_id; /* which of the VM's spaces this is, 0..15: part of its keys */
	struct spinlock
		split_lock; /* one split at a time: keys of tables that are not linked yet */
	/* calls under way that may leave keys and tables apart for a moment; atomic */
	u32 changing;
	u64 corruptions; /* how often DATA_CORRUPTION_ON was true; atomic */
	u64 generation;	 /* number of the last flush debt that was made; atomic */
	u64 unpaid;	 /* flush debts made and not paid yet; atomic */
	/* by frame_write_protect: leaves, and how many of these a flush covers; atomic */
	u64 weakened, flushed;
	u64 tables; /* table pages in use, root and garbage included; atomic */
	/*
	 * What each fault looks at, and writes: a line for each of the regions that tables cover,
	 * by a hash, so that faults here and there don't meet. All atomic.
	 */
	struct s2_recent {
		struct s2_table *table; /* a leaf was installed there lately; whatever it is now */
		u64 leaves[4];		/* parts of stage2_leaves(); may be below zero */
	} ALIGNED(64) recent[8];
	struct spinlock garbage_lock;
	hpa_t garbage; /* unlinked tables that wait for their debt, linked by their descriptors */
	struct table_pool pool; /* for an env that takes tables from there */
};

/*
 * What must be flushed before frames or tables are reused. generation 0: nothing. Functions that
 * take one set it in every case, and it counts in every case: also beside -ENOMEM something may
 * have been taken away.
 */
struct flush_debt {
	struct stage2 *stage2;
	u64 generation;
	struct rmap_log log; /* keys of leaves that were removed */
};

/*
 * Whatever returns an error below: -EUCLEAN: the walk met damage, which was reported, and ended
 * there.
 */

/* Returns 0, -ENOMEM (no root), -EINVAL (max_leaf or max_gfn out of range). */
int stage2_init(struct stage2 *s, const struct pt_format *fmt, const struct stage2_env *env,
		u8 max_leaf, u64 max_gfn, u16 vm);
/*
 * The space of that VM and root, or number i of all; or NULL. It stays as long as a key of it that
 * is not RMAP_OLD is seen under its lock, or as the caller knows that nobody destroys it.
 */
struct stage2 *stage2_find(u16 vm, u8 root);
struct stage2 *stage2_nth(u32 i);
/* It is not found any more by stage2_find and stage2_nth; its tables, and its keys, stay as they
 * are. */
void stage2_forget(struct stage2 *s);
/* No CPU uses the tables any more and all debts are paid: frees every table. Also after a
 * stage2_init that failed. */
void stage2_destroy(struct stage2 *s);

/*
 * Map [gfn, gfn + count) to [pfn, pfn + count) with the largest leaves that alignment, count and
 * max_leaf allow, at most `largest` (1..3). Where a table stands already, its entries are used,
 * however large the range. Existing equal mappings (frame, permissions, memory type) are left
 * alone. Returns 0; -EEXIST: another mapping stands there (nothing of it changed, what came before
 * is mapped). Other permissions are another mapping too: a fault that was under way while
 * stage2_protect took a right away must not give it back; -ENOMEM: no table (what came before is
 * mapped); -EINVAL: range outside the space, prot that the format doesn't have.
 */
int stage2_map(struct stage2 *s, gfn_t gfn, pfn_t pfn, u64 count, u8 prot, enum s2_memtype type,
	       u8 largest);

/*
 * What a fault wants: stage2_map of the leaf of that level (1..3), of RAM, that covers gfn, to the
 * piece of memory around pfn. Shorter where one was mapped nearby.
 */
int stage2_map_leaf(struct stage2 *s, gfn_t gfn, pfn_t pfn, u8 prot, u8 level);

/*
 * Remove what is mapped in [gfn, gfn + count); holes are fine. A large leaf that sticks out is
 * split first, at both ends before anything else changes: -ENOMEM then leaves every translation as
 * it was. (Unless somebody merges one anew meanwhile: then what came before it is removed.) Tables
 * that the range covers are unlinked with all that is in them. -EINVAL: outside the space.
 */
int stage2_unmap(struct stage2 *s, gfn_t gfn, u64 count, struct flush_debt *debt) MUST_CHECK;
/*
 * Change permissions of what is mapped there; splits as above, except leaves that have them
 * already. Debt only if something became weaker or was split. -EINVAL: outside the space, or
 * permissions that the format doesn't have (none at all: stage2_unmap).
 */
int stage2_protect(struct stage2 *s, gfn_t gfn, u64 count, u8 prot,
		   struct flush_debt *debt) MUST_CHECK;
/*
 * The right to write goes, of all that is mapped there: at the top, in the highest entries that lie
 * in the range, so it takes as long as there are of those. A leaf that sticks out loses it as a
 * whole. What maps something there later, or gives S2_W by stage2_protect, first moves what was
 * taken down to the leaves, on its way. -EINVAL: outside the space.
 */
int stage2_protect_top(struct stage2 *s, gfn_t gfn, u64 count, struct flush_debt *debt) MUST_CHECK;
/*
 * Split the leaf that covers gfn down to `level` (1 or 2); same translations before and after. 0
 * also if nothing is mapped there.
 */
int stage2_split(struct stage2 *s, gfn_t gfn, u8 level, struct flush_debt *debt) MUST_CHECK;
/*
 * The same, down to 4 KiB; the leaves of what is split may be executed (enum s2_prot), in one go.
 * debt->generation is 0 if nothing was split.
 */
int stage2_split_exec(struct stage2 *s, gfn_t gfn, struct flush_debt *debt) MUST_CHECK;
/*
 * Merge a full table of equal, contiguous leaves below (gfn, level 2 or 3) into one leaf, through
 * non-present. 0 also if one such leaf stands there; -EAGAIN: not mergeable, or somebody changed it
 * meanwhile, nothing changed; -ENOMEM: no place for its key; -EINVAL: no such level or gfn.
 */
int stage2_merge(struct stage2 *s, gfn_t gfn, u8 level, struct flush_debt *debt) MUST_CHECK;

/*
 * The leaf at (gfn, level), if it stands there and maps pfn: takes away all rights but `keep`,
 * gives those in `add`, and with clear_accessed clears the A bit. Returns the entry as it was, 0 if
 * it is not there. No debt is made (stage2_owe): for many leaves at once, under the lock of a
 * frame's keys.
 */
u64 stage2_change_leaf(struct stage2 *s, gfn_t gfn, u8 level, pfn_t pfn, u8 keep, u8 add,
		       bool clear_accessed);
/* A debt for what stage2_change_leaf did so far. */
void stage2_owe(struct stage2 *s, struct flush_debt *debt);

/*
 * The caller flushed the debt on every CPU where the VM ran, and holds no lock: unlinked tables are
 * freed, after the software walks that may still be in them.
 */
void stage2_debt_paid(struct flush_debt *debt);

struct stage2_leaf {
	gfn_t gfn; /* first frame that the entry covers */
	pfn_t pfn; /* and where that one is: see stage2_leaf_pfn for others */
	/*
	 * 1..3; of the entry where the walk ended, also when nothing is mapped there (then up to 4)
	 */
	u8 level;
	u8 prot; /* enum s2_prot, of the whole way; 0: not mapped */
	u8 memtype;
	bool accessed, dirty;
	u64 entry; /* as it stands in memory */
};

/* How many leaves of that level (1..3) are present. */
static inline u64 stage2_leaves(const struct stage2 *s, u8 level)
{
	u64 sum = 0;

	for (u32 i = 0; i < ARRAY_SIZE(s->recent); i++)
		sum += READ_ONCE(s->recent[i].leaves[level]);
	return sum;
}

static inline pfn_t stage2_leaf_pfn(const struct stage2_leaf *leaf, gfn_t gfn)
{
	return PFN(leaf->pfn.v + (gfn.v - leaf->gfn.v));
}

/* Software walk. True if mapped; *leaf is filled in either way. */
bool stage2_lookup(struct stage2 *s, gfn_t gfn, struct stage2_leaf *leaf);

/*
 * Visit each entry on the way to gfn, from the root down, for the monitor. In a read section: visit
 * notes it, and prints nothing.
 */
void stage2_walk(struct stage2 *s, gfn_t gfn,
		 void (*visit)(void *arg, u8 level, hpa_t table, u32 index, u64 entry), void *arg);
