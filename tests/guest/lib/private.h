/* SPDX-License-Identifier: MIT */
/* Between the files of tests/guest/lib. */
#pragma once

#include "tests/guest/lib/test.h"

#define VECTOR_USER_END 0x81 /* INT 0x81 ends user_run() */

struct multiboot_info;
void tests_run(const struct multiboot_info *info) NORETURN;
/* What each case may rely on: control registers, LAPIC, trap handlers, counters, the window. */
void cpu_defaults(void);
void traps_init(void);
void traps_defaults(void);
void paging_defaults(void);
void user_enter(u64 rip, const struct user_regs *regs, u64 rflags) NORETURN;
