/* SPDX-License-Identifier: MIT */
/* Off and reset. No runtime service of the firmware is called. */
#include "arch/x86/acpi.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "lib/log.h"

#define SLP_EN BIT(13)

static void gas_write8(const struct acpi_gas *gas, u8 value)
{
	volatile u8 *p;

	if (gas->space == 1) {
		outb((u16)gas->address, value);
	} else if (gas->space == 0) {
		p = arch_map(gas->address, 1, false);
		if (p)
			*p = value;
	}
}

static void short_wait(void)
{
	for (u32 i = 0; i < 1000000; i++)
		cpu_pause();
}

static void pm1_sleep(u16 port, u32 type)
{
	if (!port)
		return;
	outw(port, (u16)((inw(port) & ~(7u << 10)) | type << 10 | SLP_EN));
	short_wait();
}

void acpi_poweroff(void)
{
	if (acpi.hw_reduced && acpi.sleep_control.address && acpi.s5_known)
		gas_write8(&acpi.sleep_control, (u8)(acpi.s5_a << 2 | 1 << 5));
	if (acpi.s5_known) {
		pm1_sleep(acpi.pm1a, acpi.s5_a);
		pm1_sleep(acpi.pm1b, acpi.s5_b);
	} else {
		/*
		 * Without _S5_ (Bochs' DSDT), the two values that mean "off" on one chipset and
		 * nothing on others: 0 on PIIX4 (S0 on ICH), 7 on ICH (reserved on PIIX4).
		 */
		pm1_sleep(acpi.pm1a, 0);
		pm1_sleep(acpi.pm1a, 7);
	}
	log_err("power-off: the machine does not obey its ACPI tables (PM1a port %#x, SLP_TYP %u, "
		"_S5_ %s); switch it off by hand",
		acpi.pm1a, acpi.s5_a, acpi.s5_known ? "known" : "missing");
}

void machine_reset(void)
{
	const struct desc_ptr nothing = { 0, 0 };

	irq_disable();
	/* a reset drops what caches have not written back: the kept log, among others */
	asm volatile("wbinvd" : : : "memory");
	if (acpi.reset.address)
		gas_write8(&acpi.reset, acpi.reset_value);
	short_wait();
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	short_wait();
	outb(0x64, 0xfe); /* the keyboard controller's reset line */
	short_wait();
	asm volatile("lidt %0; int3" : : "m"(nothing));
	for (;;)
		asm volatile("hlt");
}
