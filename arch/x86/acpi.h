/* SPDX-License-Identifier: MIT */
/*
 * What Corbel reads of the machine's ACPI tables, bounds-checked; a broken table degrades with one
 * clear line and never stops the boot. Layouts: ACPI specification, section "ACPI Software
 * Programming Model".
 */
#pragma once

#include "lib/bitmap.h"
#include "lib/types.h"

#define ACPI_MAX_IOAPICS   16
#define ACPI_MAX_OVERRIDES 32

struct PACKED acpi_gas { /* Generic Address Structure, as it is in the tables */
	u8 space;	 /* 0 memory, 1 I/O ports */
	u8 bits, offset, access;
	u64 address;
};

struct acpi_info {
	u64 lapic_base;
	u32 cpu_count; /* usable entries, duplicates removed */
	u32 cpu_apic_id[MAX_CPUS];
	u32 cpus_disabled, cpus_duplicate, cpus_ignored; /* in the MADT, but not used */
	u32 ioapic_count;
	struct {
		u64 address;
		u32 gsi_base;
	} ioapic[ACPI_MAX_IOAPICS];
	u32 override_count;
	struct {
		u8 irq;
		u32 gsi;
		u16 flags; /* MPS INTI flags: polarity 1:0, trigger 3:2 */
	} override[ACPI_MAX_OVERRIDES];
	bool pic; /* 8259s are there */

	u16 pm1a, pm1b;		  /* PM1 control ports, 0: none */
	struct acpi_gas pm_timer; /* address 0: none */
	bool pm_timer_32bit;
	struct acpi_gas reset;
	u8 reset_value;
	bool hw_reduced;
	struct acpi_gas sleep_control;
	bool s5_known;
	u8 s5_a, s5_b; /* SLP_TYPa, SLP_TYPb of _S5_ */

	struct acpi_gas serial; /* SPCR; address 0: none */
	u32 serial_gsi;		/* 0: none */
	u64 hpet;		/* 0: none */
	u64 mcfg;		/* base of segment 0, 0: none */
};

/*
 * Read the tables through arch_map-like `map` (cached; NULL on failure). Problems go to warn(), one
 * line each. *info is always usable; with no MADT it has no CPU. Pure but for map: runs on the host
 * under test.
 */
void acpi_read(u64 rsdp, const void *(*map)(u64 hpa, u64 size), void (*warn)(const char *line),
	       struct acpi_info *info);

/*
 * Put the boot CPU first, wherever the MADT has it, and also if it doesn't; the others keep the
 * MADT's order. Pure.
 */
void acpi_boot_cpu_first(struct acpi_info *info, u32 apic_id);

extern struct acpi_info acpi; /* the machine's, filled by boot */

/*
 * Power off by _S5_, reset by FADT, 0xcf9, keyboard controller, triple fault. Virtualization must
 * be off on every CPU.
 */
void acpi_poweroff(void);
void machine_reset(void) NORETURN;
