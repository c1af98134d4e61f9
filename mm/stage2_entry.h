/* SPDX-License-Identifier: MIT */
/*
 * The entries of stage-2 tables: how they are read, and the only way to change one. Private to the
 * engine (mm/stage2.c) and the audit.
 */
#pragma once

#include "mm/stage2.h"

#define ENTRIES	   512
#define MAX_LEVELS 5

/* Ignored by the hardware in entries that are not present, under EPT and NPT alike. */
#define FROZEN BIT(52)

static inline bool is_frozen(const struct pt_format *fmt, u64 entry)
{
	return (entry & FROZEN) && !s2_present(fmt, entry);
}

/*
 * A frozen entry that was a leaf says of which frame: in the address bits, inverted (L1TF: no
 * memory is up there). The frame's key is still there, and this is how it is found.
 */
static inline u64 frozen_leaf(const struct pt_format *fmt, u64 leaf)
{
	return FROZEN | (~leaf & fmt->addr_mask);
}

static inline bool was_leaf(const struct pt_format *fmt, u64 entry)
{
	return is_frozen(fmt, entry) && (entry & fmt->addr_mask);
}

static inline pfn_t frozen_pfn(const struct pt_format *fmt, u64 entry)
{
	return hpa_pfn(HPA(~entry & fmt->addr_mask));
}

static inline pfn_t entry_pfn(const struct pt_format *fmt, u64 entry)
{
	return hpa_pfn(s2_entry_hpa(fmt, entry));
}

/* May nothing be written below this entry, whatever it leads to? */
static inline bool is_readonly(const struct pt_format *fmt, u64 entry)
{
	return !(entry & s2_write_bit(fmt));
}

static inline u64 hw_bits(const struct pt_format *fmt)
{
	return fmt->accessed | fmt->dirty;
}

/* Entry i of a table below `level` that maps what the leaf at `level` maps, A and D included. */
static inline u64 child_of(const struct pt_format *fmt, u64 leaf, u8 level, u32 i)
{
	u64 child = leaf + (i * s2_level_frames(level - 1) << PAGE_SHIFT);

	return level == 2 ? child & ~fmt->large_bit : child;
}

/* Acquire: the contents of a table are seen by whoever sees the entry that links it. */
static inline u64 entry_read(const u64 *slot)
{
	return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

static inline u64 leaf_key(const struct stage2 *s, u64 gfn, u8 level)
{
	return rmap_key(s->vm, s->root_id, level, ALIGN_DOWN(gfn, s2_level_frames(level)));
}

/*
 * Change an entry and, where a leaf comes or goes, its key, under the lock of its frame's keys. 0;
 * -EAGAIN: the entry is not *old any more, *old is what it is now; nothing changed then, nor with
 * -ENOMEM (for a key), nor with -EPERM (a frame that no guest may have).
 */
int entry_cas(struct stage2 *s, u64 *slot, u64 gfn, u8 level, u64 *old, u64 new);

/* A walk has installed a leaf there: a fault may fill its neighbours without one. */
void entry_filled(struct stage2 *s, const u64 *slot, u64 gfn, u8 level);

/* A table of entries of that level that covers gfn, empty. 0 or -ENOMEM. */
int table_new(struct stage2 *s, u8 level, u64 gfn, hpa_t *table);
/*
 * For a split: all entries of a new table that nobody sees yet become what maps what `leaf` maps,
 * which is one level above; 0: empty. Their keys are the caller's:
 */
void table_fill(struct stage2 *s, hpa_t table, u64 leaf);
/*
 * The keys of the first `count` of them come before the entries do (from 0 to RMAP_NEW), and stay
 * (to RMAP_KEY) when the table is linked; or they go (to 0). The lock is kept from one to the next
 * where it is the same, as for all leaves of 4 KiB. 0; of keys that come also -ENOMEM, -EPERM: none
 * did.
 */
int table_keys(struct stage2 *s, hpa_t table, u64 leaf, u64 from, u64 to, u32 count);
/* An entry has been made that leads to the new table, in a read section that goes on. */
void table_linked(struct stage2 *s, hpa_t table);
/* The descriptor of the table that an entry is in. */
static inline struct s2_table *table_of(struct stage2 *s, const u64 *slot)
{
	return s->env->table_desc(s, (const u64 *)ALIGN_DOWN((uintptr_t)slot, PAGE_SIZE));
}
/* Nobody can reach the table: the keys of what it still says go, and it is freed. */
void table_release(struct stage2 *s, hpa_t table);
/*
 * The entries of the table, if it is one of this space that serves as what a walk takes it for:
 * entries of that level, gfn among what it covers. Otherwise NULL, and nobody may look into it.
 */
u64 *table_find(struct stage2 *s, hpa_t table, u64 gfn, u8 level);
/* The same; that there is none is damage, and is reported. */
u64 *table_at(struct stage2 *s, hpa_t table, u64 gfn, u8 level);

/*
 * Garbage: tables that were unlinked and that stale walks, of hardware and software, may still
 * read. Their descriptors hold the list, and the generation of the first flush debt that is sure to
 * be made after the unlinking: the stamp is taken under the lock, when all entries are frozen. So a
 * debt with at least this number was made, and is flushed, after that; and the list is ordered,
 * newest first.
 */
void garbage_add(struct stage2 *s, hpa_t table);
/*
 * Free what debts up to this generation cover, once no software walk is left that may have seen it.
 */
void garbage_free(struct stage2 *s, u64 generation);
