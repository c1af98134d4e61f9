/* SPDX-License-Identifier: MIT */
/*
 * The time that devices go by: one function for the counter, and what boot knows about the world's
 * time.
 */
#pragma once

#include "arch/x86/timer.h"
#include "lib/types.h"

#ifdef CORBEL_HOST
u64 dev_tsc(void); /* the test's clock */
#else
#include "arch/x86/insn.h"
/* The host's TSC. */
static inline u64 dev_tsc(void)
{
	return rdtsc();
}
#endif

/* Set by boot before the first VM is created. */
struct dev_time {
	u64 wall_base_ns; /* UTC, ns since 1970, at host TSC 0; 0: unknown */
};
extern struct dev_time dev_time;

/*
 * A ratio as a fixed-point factor with 32 fractional bits: computed once, so that hot paths convert
 * by one multiplication. num / den must be below 2^32.
 */
static inline u64 ratio_make(u64 num, u64 den)
{
	return (num / den << 32) + ((num % den) << 32) / den;
}

/* value * ratio, saturating. */
static inline u64 ratio_apply(u64 value, u64 ratio)
{
	unsigned __int128 x = (unsigned __int128)value * ratio >> 32;
	return x > ~0ull ? ~0ull : (u64)x;
}
