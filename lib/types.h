/* SPDX-License-Identifier: MIT */
/*
 * Fixed-width types and the few macros that everything uses. No code, no hardware; compiles on the
 * host too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define BIT(n)			      (1ul << (n))
#define MASK(hi, lo)		      ((~0ul >> (63 - (hi))) & (~0ul << (lo)))
#define ARRAY_SIZE(a)		      (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)		      ((a) < (b) ? (a) : (b))
#define MAX(a, b)		      ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)		      (((x) + (a)-1) & ~((typeof(x))(a)-1)) /* a: a power of two */
#define ALIGN_DOWN(x, a)	      ((x) & ~((typeof(x))(a)-1))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define KIB (1ul << 10)
#define MIB (1ul << 20)
#define GIB (1ul << 30)

#define PACKED	     __attribute__((packed))
#define ALIGNED(n)   __attribute__((aligned(n)))
#define NORETURN     __attribute__((noreturn))
#define NOINLINE     __attribute__((noinline))
#define INLINE	     inline __attribute__((always_inline)) /* whatever it takes */
#define MUST_CHECK   __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define FALLTHROUGH  __attribute__((fallthrough))
#define likely(x)    __builtin_expect(!!(x), 1)
#define unlikely(x)  __builtin_expect(!!(x), 0)

/* Exactly one load or store, which the compiler may neither repeat nor tear; no order. */
#define READ_ONCE(x)	 __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
