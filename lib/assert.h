/* SPDX-License-Identifier: MIT */
/*
 * Assertions about the hypervisor itself. What a guest can cause is never one of these: see
 * VM_BUG_ON in virt/vm.h.
 *
 *   ASSERT(cond)       always compiled in; a false condition stops the machine with a full report
 *   WARN_ON(cond)      once per place, with a backtrace; evaluates to the condition
 *   MMU_WARN_ON(cond)  WARN_ON in PROVE_MMU builds; elsewhere the condition is type-checked and
 *                      costs nothing
 */
#pragma once

#include "lib/types.h"

void assert_failed(const char *cond, const char *file, int line) NORETURN;
void warn_at(const char *cond, const char *file, int line);

/*
 * Owned by lib, set by arch/x86: what panics and what prints a backtrace. On the host they stay
 * NULL: abort.
 */
extern NORETURN void (*panic_hook)(const char *message);
extern void (*backtrace_hook)(void);

/* Stop the machine with a message; never returns. */
void panic(const char *fmt, ...) PRINTF(1, 2) NORETURN;

#define ASSERT(cond)                                              \
	do {                                                      \
		if (unlikely(!(cond)))                            \
			assert_failed(#cond, __FILE__, __LINE__); \
	} while (0)

#define WARN_ON(cond)                                                                     \
	({                                                                                \
		static bool warned_;                                                      \
		bool hit_ = (cond);                                                       \
		if (unlikely(hit_) && !__atomic_test_and_set(&warned_, __ATOMIC_RELAXED)) \
			warn_at(#cond, __FILE__, __LINE__);                               \
		hit_;                                                                     \
	})

#if PROVE_MMU
#define MMU_WARN_ON(cond) WARN_ON(cond)
#else
#define MMU_WARN_ON(cond) ((void)sizeof(!(cond)))
#endif
