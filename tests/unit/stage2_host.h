/* SPDX-License-Identifier: MIT */
/*
 * The machine around the stage-2 engine in host tests: memory for tables, and the hardware's side
 * of a walk. Tables are blocks of the host's heap, each at its own address, so that the sanitizers
 * see every access to a table that was freed.
 */
#pragma once

#include "mm/stage2.h"
#include "svm/npt.h"
#include "vmx/ept.h"

#define ENTRIES		512
#define FRAMES_2M	512ull
#define FRAMES_1G	(512ull * 512)
#define DEFAULT_MAX_GFN (1ull << 36)

extern s64 tables_live;	   /* allocated and not freed; atomic */
extern s64 allocs_left;	   /* until table_alloc fails; negative: never */
extern u64 leaves_seen[4]; /* leaves by level, as the hook saw them come and go; atomic */
extern void (*watch)(struct stage2 *s, gfn_t gfn, u8 level, u64 old_entry, u64 new_entry);
extern void (*watch_alloc)(u64 *table);
extern const struct stage2_env stage2_host_env;

/*
 * stage2_map; every second time where it comes to the same, as a fault does it. Inline, because
 * some tests have another machine.
 */
static inline int map_either(struct stage2 *s, gfn_t gfn, pfn_t pfn, u64 count, u8 prot, u8 type,
			     u8 largest)
{
	static __thread u32 calls;

	for (u8 level = 1; level <= largest; level++) {
		if (count == s2_level_frames(level) && !((gfn.v | pfn.v) % count) &&
		    type == S2_WB && calls++ % 2)
			return stage2_map_leaf(s, gfn, pfn, prot, level);
	}
	return stage2_map(s, gfn, pfn, count, prot, type, largest);
}

/* Pointer to a table's entries. */
u64 *stage2_table(struct stage2 *s, hpa_t table);
void open_stage2(struct stage2 *s, const struct pt_format *fmt, u8 max_leaf);
/* No frame has a key, and no memory is used for any. */
void check_no_keys(void);
/* Checks that nothing is left: tables, leaves, debts, failures, warnings, keys. */
void close_stage2(struct stage2 *s);

/* What a frame translates to. All zero: nothing. */
struct xlat {
	u64 pfn;
	u8 prot, type;
};
bool same_xlat(struct xlat a, struct xlat b);

/*
 * The hardware's way from the root to the leaf, written without the engine: where it is, and as it
 * was read. NULL: a fault.
 */
u64 *hw_walk(struct stage2 *s, u64 gfn, u8 *level, u64 *entry);
struct xlat hw_xlat(struct stage2 *s, u64 gfn);
/* Set A or D as the CPU does: only if the entry is still what the walk read. */
void hw_set(struct stage2 *s, u64 gfn, u64 bits);

/* A test in both formats; the format is its initial state. */
/* clang-format off */
#define BOTH(test)                                                                                 \
	{ #test " (EPT)", test, NULL, NULL, (void *)&ept_format },                                 \
	{ #test " (NPT)", test, NULL, NULL, (void *)&npt_format }
#define NO_AD(test)                                                                                \
	{ #test " (EPT, no A and D)", test, NULL, NULL, (void *)&ept_format_no_ad }
/* clang-format on */
