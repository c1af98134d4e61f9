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

void acpi_poweroff(void)
{
	if (acpi.hw_reduced && acpi.sleep_control.address && acpi.s5_known)
		gas_write8(&acpi.sleep_control, (u8)(acpi.s5_a << 2 | 1 << 5));
	if (acpi.pm1a && acpi.s5_known) {
		outw(acpi.pm1a, (u16)((inw(acpi.pm1a) & ~(7u << 10)) | (u32)acpi.s5_a << 10 | SLP_EN));
		if (acpi.pm1b)
			outw(acpi.pm1b, (u16)((inw(acpi.pm1b) & ~(7u << 10)) | (u32)acpi.s5_b << 10 | SLP_EN));
	}
	short_wait();
	log_err("power-off: the machine does not obey its ACPI tables; switch it off by hand");
}

void machine_reset(void)
{
	const struct desc_ptr nothing = { 0, 0 };

	irq_disable();
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
