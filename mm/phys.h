/* SPDX-License-Identifier: MIT */
/*
 * From a host physical address to a pointer. All RAM that Corbel manages is mapped, writable and
 * not executable, at DIRECTMAP_BASE; device memory is not (see mm/hostmap.h). Host tests map an
 * arena of their own.
 */
#pragma once

#include "lib/addr.h"

#ifdef CORBEL_HOST
extern u8 *host_arena; /* physical address 0 of the test's machine */
#define DIRECTMAP_BASE ((u64)(uintptr_t)host_arena)
#else
#define DIRECTMAP_BASE 0xffff800000000000ull
#endif

static inline void *hpa_ptr(hpa_t a)
{
	return (void *)(uintptr_t)(DIRECTMAP_BASE + a.v);
}

static inline void *pfn_ptr(pfn_t f)
{
	return hpa_ptr(pfn_hpa(f));
}

/* Only for pointers that hpa_ptr() made. */
static inline hpa_t ptr_hpa(const void *p)
{
	return HPA((u64)(uintptr_t)p - DIRECTMAP_BASE);
}
