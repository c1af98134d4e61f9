/* SPDX-License-Identifier: MIT */
/*
 * The 64-bit Linux boot protocol (Documentation/arch/x86/boot.rst in Linux): what Corbel puts below
 * 1 MiB, in a range that the memory map must give as RAM from 0 on. The kernel leaves all of it
 * behind early: it builds its own tables and copies zero page and command line.
 *
 *	0x6000   GDT: null, null, code 0x10, data 0x18
 *	0x7000   zero page (struct boot_params)
 *	0x8000   page tables: PML4, PDPT, four page directories: the first 4 GiB, identity, 2 MiB
 *	         pages
 *	0x20000  command line, up to 64 KiB
 */
#pragma once

#define LINUX_GDT	  0x6000ull
#define LINUX_ZERO_PAGE	  0x7000ull
#define LINUX_PAGE_TABLES 0x8000ull
#define LINUX_CMDLINE	  0x20000ull
#define LINUX_CMDLINE_MAX 0x10000ull /* terminator included */
#define LINUX_LOW_TOP	  (LINUX_CMDLINE + LINUX_CMDLINE_MAX)
