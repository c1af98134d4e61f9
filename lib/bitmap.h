/* SPDX-License-Identifier: MIT */
/* Bits in arrays of u64, and the set of CPUs built on it. Not atomic unless the name says so. */
#pragma once

#include "lib/types.h"

#define BITMAP_WORDS(n) (((n) + 63) / 64)

static inline bool bitmap_test(const u64 *map, u32 bit)
{
	return (READ_ONCE(map[bit / 64]) >> (bit % 64)) & 1;
}

static inline void bitmap_set(u64 *map, u32 bit)
{
	map[bit / 64] |= BIT(bit % 64);
}

static inline void bitmap_clear(u64 *map, u32 bit)
{
	map[bit / 64] &= ~BIT(bit % 64);
}

static inline bool bitmap_test_and_set_atomic(u64 *map, u32 bit)
{
	return (__atomic_fetch_or(&map[bit / 64], BIT(bit % 64), __ATOMIC_SEQ_CST) >> (bit % 64)) &
	       1;
}

static inline bool bitmap_test_and_clear_atomic(u64 *map, u32 bit)
{
	return (__atomic_fetch_and(&map[bit / 64], ~BIT(bit % 64), __ATOMIC_SEQ_CST) >>
		(bit % 64)) &
	       1;
}

/* Index of the first set bit at or after from, or nbits. */
static inline u32 bitmap_next(const u64 *map, u32 nbits, u32 from)
{
	for (u32 i = from; i < nbits; i++) {
		u64 rest = READ_ONCE(map[i / 64]) >> (i % 64);
		if (rest) {
			i += (u32)__builtin_ctzll(rest);
			return i < nbits ? i : nbits;
		}
		i |= 63;
	}
	return nbits;
}

/* How many of the first nbits are set; bits past nbits must be clear. */
static inline u32 bitmap_weight(const u64 *map, u32 nbits)
{
	u32 n = 0;
	for (u32 i = 0; i < BITMAP_WORDS(nbits); i++)
		for (u64 w = READ_ONCE(map[i]); w; w &= w - 1)
			n++;
	return n;
}

#define MAX_CPUS 256
struct cpumask {
	u64 bits[BITMAP_WORDS(MAX_CPUS)];
};
#define for_each_cpu(cpu, mask)                                                \
	for (u32 cpu = bitmap_next((mask)->bits, MAX_CPUS, 0); cpu < MAX_CPUS; \
	     cpu = bitmap_next((mask)->bits, MAX_CPUS, cpu + 1))
