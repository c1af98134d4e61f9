/* SPDX-License-Identifier: MIT */
/*
 * A guest's memory as a debugger sees it, and breakpoints. Between debug_begin() and debug_end(),
 * all vCPUs of the VM at rest.
 */
#pragma once

#include "virt/debug.h"

/*
 * Memory by linear address, as the vCPU's paging maps it, whatever the rights: no A or D bit
 * changes, and breakpoints don't show. Returns how many bytes could be read.
 */
size_t gdb_memory_read(struct vcpu *v, u64 linear, void *dst, size_t len);
/* 0, or -EFAULT: only what stands before the first byte that can't be written is. */
int gdb_memory_write(struct vcpu *v, u64 linear, const void *src, size_t len);
/*
 * Breakpoints are the VM's; v says by which tables it is found. Setting one twice, or clearing one
 * that is not there, is no error. -EFAULT: no memory there; -ENOSPC: too many; -EINVAL: data of
 * other than 1, 2, 4 or 8 bytes, or not aligned, or code that has one by another address;
 * -EOPNOTSUPP: x86 has no such kind.
 */
int gdb_break_set(struct vcpu *v, enum debug_break type, u64 linear, u64 len);
void gdb_break_clear(struct vcpu *v, enum debug_break type, u64 linear);
/* Forget all. Also of a VM that does not run; needs no debug_begin(). */
void gdb_break_clear_all(struct vm *vm);
