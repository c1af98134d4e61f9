/* SPDX-License-Identifier: MIT */
/*
 * The 64-bit Linux boot protocol (Documentation/arch/x86/boot.rst in Linux): a bzImage into a VM's
 * memory, and a vCPU at its entry.
 *
 * What Corbel puts below 1 MiB, in a range that the memory map must give as RAM from 0 on. The
 * kernel leaves all of it behind early: it builds its own tables and copies zero page and command
 * line.
 *
 *	0x6000   GDT: null, null, code 0x10, data 0x18
 *	0x7000   zero page (struct boot_params)
 *	0x8000   page tables: PML4, PDPT, four page directories: the first 4 GiB, identity, 2 MiB
 *	         pages
 *	0x20000  command line, up to 64 KiB
 */
#pragma once

#include <asm/bootparam.h>
#include <asm/e820.h>
#include "virt/vm.h"

#define LINUX_GDT	  0x6000ull
#define LINUX_ZERO_PAGE	  0x7000ull
#define LINUX_PAGE_TABLES 0x8000ull
#define LINUX_CMDLINE	  0x20000ull
#define LINUX_CMDLINE_MAX 0x10000ull /* terminator included */
#define LINUX_LOW_TOP	  (LINUX_CMDLINE + LINUX_CMDLINE_MAX)

/* All of it belongs to the caller and is only read, during the call. */
struct linux_image {
	const void *kernel;
	u64 kernel_size;
	const void *initrd; /* size 0: none */
	u64 initrd_size;
	const char *cmdline; /* NULL: empty */
	/*
	 * The VM's memory map, as the kernel will see it: E820_RAM, E820_ACPI, ...; at most
	 * E820_MAX_ENTRIES_ZEROPAGE entries.
	 */
	const struct boot_e820_entry *e820;
	u32 e820_count;
	gpa_t rsdp; /* 0: none */
};

/* Where everything went: what linux_start needs, and the monitor may show. */
struct linux_entry {
	u64 rip;
	u64 kernel, kernel_end; /* free for the kernel's own unpacking up to the end */
	u64 initrd, initrd_end;
};

/*
 * Check the image and copy it, with zero page, command line, page tables and GDT, into the VM's
 * memory. Slots exist, nothing runs. 0 and *entry; or an error, with one sentence for the user in
 * why: -ENOEXEC: not a kernel that this protocol can start; -ENOSPC: something doesn't fit;
 * -EFAULT: the memory map names memory that is not there; -EINVAL: a bad argument. Memory may have
 * been written to then. Takes as long as the copying does: not with interrupts off for long images.
 */
int linux_load(struct vm *vm, const struct linux_image *img, struct linux_entry *entry, char *why,
	       size_t why_len);

/* Put a vCPU that is in reset state, and loaded on this CPU, at the kernel's entry. 0. */
int linux_start(struct vcpu *v, const struct linux_entry *entry);
