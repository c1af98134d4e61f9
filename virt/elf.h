/* SPDX-License-Identifier: MIT */
/*
 * ELF files, 32-bit and 64-bit, as kernels for the 32-bit entry of Multiboot and PVH. Headers are
 * given in their 64-bit form.
 */
#pragma once

#include <linux/elf.h>
#include "virt/loading.h"

/* Check and copy the header: all program headers are in the file. NULL, or what is wrong. */
const char *elf_open(const struct loading *l, Elf64_Ehdr *h);
/* Program header n, which is below e_phnum. */
void elf_segment(const struct loading *l, const Elf64_Ehdr *h, u32 n, Elf64_Phdr *p);
/*
 * Load all that is PT_LOAD at its physical addresses. e_entry becomes physical as well, if it is a
 * virtual address of a segment. 0, or l->err.
 */
int elf_load(struct loading *l, Elf64_Ehdr *h);
