/* SPDX-License-Identifier: MIT */
/*
 * Symbolic backtraces from frame pointers. The symbol table is made by the second link: see
 * tools/ksyms.
 */
#pragma once

#include "lib/types.h"

/*
 * Log the calls that led to (rip, rbp), innermost first, at error level. Survives damaged stacks.
 * Any context.
 */
void backtrace_from(u64 rip, u64 rbp);
/* From the caller. */
void backtrace_here(void);
/* "function+0x12" for an address of the hypervisor; plain hex for others. */
void symbol_format(u64 address, char *buf, size_t size);
