/* SPDX-License-Identifier: MIT */
/* Names as in the specification, "XXH64 algorithm description". */
#include "lib/string.h"
#include "lib/xxh64.h"

#define PRIME1 0x9e3779b185ebca87ull
#define PRIME2 0xc2b2ae3d27d4eb4full
#define PRIME3 0x165667b19e3779f9ull
#define PRIME4 0x85ebca77c2b2ae63ull
#define PRIME5 0x27d4eb2f165667c5ull

static u64 rotate(u64 x, u32 bits)
{
	return x << bits | x >> (64 - bits);
}

/* The builtin is one load, where our memcpy() is a string operation. */
static u64 read64(const u8 *p)
{
	u64 x;

	__builtin_memcpy(&x, p, sizeof(x));
	return x;
}

static u32 read32(const u8 *p)
{
	u32 x;

	__builtin_memcpy(&x, p, sizeof(x));
	return x;
}

static u64 mix(u64 acc, u64 lane)
{
	return rotate(acc + lane * PRIME2, 31) * PRIME1;
}

static u64 merge(u64 acc, u64 lane)
{
	return (acc ^ mix(0, lane)) * PRIME1 + PRIME4;
}

/* Four accumulators over stripes of 32 bytes. */
static u64 stripes(const u8 *p, u64 nr, u64 seed)
{
	u64 a = seed + PRIME1 + PRIME2, b = seed + PRIME2, c = seed, d = seed - PRIME1;

	for (; nr; nr--, p += 32) {
		a = mix(a, read64(p));
		b = mix(b, read64(p + 8));
		c = mix(c, read64(p + 16));
		d = mix(d, read64(p + 24));
	}
	seed = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
	return merge(merge(merge(merge(seed, a), b), c), d);
}

u64 xxh64(const void *data, u64 size, u64 seed)
{
	const u8 *p = data, *end = p + size;
	u64 acc = seed + PRIME5;

	if (size >= 32) {
		acc = stripes(p, size / 32, seed);
		p += size / 32 * 32;
	}
	acc += size;
	for (; end - p >= 8; p += 8)
		acc = rotate(acc ^ mix(0, read64(p)), 27) * PRIME1 + PRIME4;
	if (end - p >= 4) {
		acc = rotate(acc ^ read32(p) * PRIME1, 23) * PRIME2 + PRIME3;
		p += 4;
	}
	for (; p < end; p++)
		acc = rotate(acc ^ *p * PRIME5, 11) * PRIME1;
	acc = (acc ^ acc >> 33) * PRIME2;
	acc = (acc ^ acc >> 29) * PRIME3;
	return acc ^ acc >> 32;
}
