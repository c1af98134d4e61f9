/* SPDX-License-Identifier: MIT */
/*
 * Boot protocols: how a kernel's file becomes a VM's memory, and the state in which vCPU 0 begins.
 * docs/GUESTS.md describes each for users.
 */
#pragma once

#include <asm/bootparam.h>
#include <asm/e820.h>
#include "virt/vm.h"

struct boot_file {
	const void *data;
	u64 size;
	const char *args; /* the kernel's command line, or what a module is handed over with */
	u64 at; /* of a module that comes there by need (data: NULL); 0: it is to be copied */
};

/* What to start. All of it belongs to the caller and is only read, during the call. */
struct boot_image {
	const char *protocol; /* "linux", "multiboot", "pvh", "flat"; "auto": look at the file */
	struct boot_file kernel;
	/* Modules, in this order; Linux takes one, which is its initrd, "flat" none. */
	const struct boot_file *modules;
	u32 nr_modules;
	u64 address; /* of a flat image */
	/*
	 * The VM's memory map, as the kernel will see it: E820_RAM, E820_ACPI, ..., ascending, at
	 * most E820_MAX_ENTRIES_ZEROPAGE entries.
	 */
	const struct boot_e820_entry *e820;
	u32 e820_count;
	gpa_t rsdp; /* 0: none */
};

enum boot_mode { BOOT_REAL, BOOT_PROTECTED, BOOT_LONG };

/* The state in which vCPU 0 begins; what is not here is as after reset, or 0. */
struct boot_entry {
	enum boot_mode mode;
	u64 rip; /* BOOT_REAL: the linear address */
	u64 rax, rbx, rsi;
	u64 cr3, gdt; /* BOOT_LONG only; the GDT has four entries */
};

/*
 * Check the file and copy it, with what its protocol wants to find, into the VM's memory, which
 * reads as zero before. Slots exist, nothing runs. 0 and *entry; or -ENOEXEC, with one sentence for
 * the user in why: memory may have been written to then. Takes as long as the copying does: not
 * with interrupts off.
 */
int boot_load(struct vm *vm, const struct boot_image *img, struct boot_entry *entry, char *why,
	      size_t why_len);

/* Put a vCPU that is in reset state, and loaded on this CPU, at the kernel's entry. */
void boot_start(struct vcpu *v, const struct boot_entry *entry);
