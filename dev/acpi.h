/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables of a guest, at a fixed place below 640 KiB that the memory map given to the guest
 * calls ACPI:
 *
 *	RSDP -> XSDT -> FADT -> DSDT (dsdt.asl: serial port, virtio devices, power-off, buttons)
 *	             -> MADT (CPUs, IOAPIC, IRQ 0)
 *	             -> SSDT (the CPUs' devices, and those of shared memory)
 */
#pragma once

#include "lib/types.h"

#define ACPI_GPA       0x90000ull /* of the RSDP, which is the first table */
#define ACPI_GPA_SIZE  0x10000ull
#define ACPI_RSDP_SIZE 36u

/* Compiled from dsdt.asl; its header has the length. */
extern const unsigned char dsdt_aml_code[];

/* Memory that other VMs may see, too: a device "CRBL0001" with its range and, as _DDN, its name. */
struct acpi_memory {
	const char *name; /* up to 31 characters */
	u64 gpa, size;
	bool readonly;
};

/*
 * Build the tables for a guest with cpus CPUs (APIC ids 0..cpus - 1, cpus >= 1), and the virtio
 * devices whose slot has a bit in virtio, and nr_memory ranges of memory, into buf, which will be
 * at gpa in the guest. buf is cleared by the caller. Returns the bytes used; -ENOSPC if size is too
 * small. Pure.
 */
int acpi_build(u8 *buf, size_t size, u64 gpa, u32 cpus, u8 virtio, bool pm_timer,
	       const struct acpi_memory *memory, u32 nr_memory);
