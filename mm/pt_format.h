/* SPDX-License-Identifier: MIT */
/*
 * How a vendor's stage-2 entry looks, as data: the engine (mm/stage2.c) knows levels and masks and
 * never "EPT" or "NPT". vmx/ept.c and svm/npt.c each define one; they hold no privileged
 * instruction, so that they link on the build host.
 */
#pragma once

#include "lib/addr.h"

enum s2_prot { S2_R = 1, S2_W = 2, S2_X = 4, S2_RWX = 7 };
/* WB: the guest's PAT decides within it. UC: device memory */
enum s2_memtype { S2_WB, S2_UC, S2_MEMTYPES };

struct pt_format {
	const char *name;
	u8 levels;	  /* of the root: 4. Level 1 maps 4 KiB, 2: 2 MiB, 3: 1 GiB */
	u64 present_mask; /* an entry is present if any of these bits is set */
	u64 addr_mask;	  /* the bits that hold an address */
	/* set in leaves at level 2 and 3, clear in table entries and in level-1 leaves */
	u64 large_bit;
	/*
	 * what an entry that points to a table carries besides the address: full permissions, or
	 * all but that to write (s2_write_bit)
	 */
	u64 table_bits;
	u64 prot_mask; /* the bits that hold a leaf's permissions */
	/*
	 * their value for each combination of enum s2_prot; 0 where the hardware has no such
	 * combination
	 */
	u64 prot_bits[8];
	u64 memtype_mask; /* the bits that hold a leaf's memory type */
	u64 memtype_bits[S2_MEMTYPES];
	u64 accessed, dirty; /* A and D of a leaf; 0 if the format has none */
};

/* 4 KiB frames that one entry of a level covers. */
static inline u64 s2_level_frames(u8 level)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): levels are 1..4 */
	return 1ull << (9 * (level - 1));
}

static inline bool s2_present(const struct pt_format *fmt, u64 entry)
{
	return entry & fmt->present_mask;
}

static inline bool s2_is_leaf(const struct pt_format *fmt, u64 entry, u8 level)
{
	return s2_present(fmt, entry) && (level == 1 || (level <= 3 && (entry & fmt->large_bit)));
}

static inline bool s2_is_table(const struct pt_format *fmt, u64 entry, u8 level)
{
	return s2_present(fmt, entry) && !s2_is_leaf(fmt, entry, level);
}

/* The address in a present entry: of the table, or of the leaf's first frame. */
static inline hpa_t s2_entry_hpa(const struct pt_format *fmt, u64 entry)
{
	return HPA(entry & fmt->addr_mask);
}

/* A leaf; pfn must be aligned to the level and prot be one that the format has. */
static inline u64 s2_make_leaf(const struct pt_format *fmt, u8 level, pfn_t pfn, u8 prot,
			       enum s2_memtype type)
{
	return pfn_hpa(pfn).v | fmt->prot_bits[prot] | fmt->memtype_bits[type] |
	       (level > 1 ? fmt->large_bit : 0);
}

/* Permissions of a leaf; 0 if not present, or a combination that the format does not have. */
static inline u8 s2_leaf_prot(const struct pt_format *fmt, u64 entry)
{
	u64 bits = entry & fmt->prot_mask;

	for (u8 prot = S2_RWX; bits && prot; prot--) {
		if (fmt->prot_bits[prot] == bits)
			return prot;
	}
	return 0;
}

/*
 * The right to write, where it is in leaves and in entries that point to tables: a write needs it
 * in each entry on its way.
 */
static inline u64 s2_write_bit(const struct pt_format *fmt)
{
	return fmt->prot_bits[S2_RWX] & ~fmt->prot_bits[S2_R | S2_X];
}

/* S2_MEMTYPES if the bits are none that the engine ever writes. */
static inline u8 s2_leaf_memtype(const struct pt_format *fmt, u64 entry)
{
	u8 type = 0;

	while (type < S2_MEMTYPES && fmt->memtype_bits[type] != (entry & fmt->memtype_mask))
		type++;
	return type;
}
