/* SPDX-License-Identifier: MIT */
/*
 * Address types that the compiler keeps apart and that cost nothing.
 *
 *   gpa_t / gfn_t   guest physical byte address / 4 KiB frame number
 *   hpa_t / pfn_t   host physical byte address / 4 KiB frame number
 *
 * Guest virtual addresses are plain u64 and are called gva; host virtual addresses are pointers.
 */
#pragma once

#include "lib/types.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ul
#define PAGE_MASK  (~(PAGE_SIZE - 1))

typedef struct {
	u64 v;
} gpa_t;
typedef struct {
	u64 v;
} gfn_t;
typedef struct {
	u64 v;
} hpa_t;
typedef struct {
	u64 v;
} pfn_t;

#define GPA(x) ((gpa_t){ (x) })
#define GFN(x) ((gfn_t){ (x) })
#define HPA(x) ((hpa_t){ (x) })
#define PFN(x) ((pfn_t){ (x) })

static inline gfn_t gpa_gfn(gpa_t a)
{
	return GFN(a.v >> PAGE_SHIFT);
}

static inline pfn_t hpa_pfn(hpa_t a)
{
	return PFN(a.v >> PAGE_SHIFT);
}

static inline hpa_t pfn_hpa(pfn_t f)
{
	return HPA(f.v << PAGE_SHIFT);
}
