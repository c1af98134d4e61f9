/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ioapic.h"
#include "lib/error.h"

#define IOREGSEL	0x00
#define IOWIN		(0x10 / 4)
#define IOAPIC_VERSION	1
#define IOAPIC_REDIR(n) (0x10 + 2 * (n))
#define REDIR_MASKED	BIT(16)
#define REDIR_LEVEL	BIT(15)
#define REDIR_LOW	BIT(13)

static volatile u32 *regs[ACPI_MAX_IOAPICS];
static u32 lines[ACPI_MAX_IOAPICS];

static u32 io_get(u32 i, u32 reg)
{
	regs[i][IOREGSEL] = reg;
	return regs[i][IOWIN];
}

static void io_set(u32 i, u32 reg, u32 value)
{
	regs[i][IOREGSEL] = reg;
	regs[i][IOWIN] = value;
}

static void mask_hpet(void)
{
	volatile u64 *hpet = acpi.hpet ? arch_map(acpi.hpet, 4096, false) : NULL;

	if (!hpet)
		return;
	hpet[0x10 / 8] &= ~BIT(1); /* no legacy replacement routing */
	for (u32 n = 0; n <= (hpet[0] >> 8 & 31); n++)
		hpet[(0x100 + 0x20 * n) / 8] &= ~BIT(2); /* interrupt enable */
}

void ioapic_init(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	for (u32 i = 0; i < acpi.ioapic_count; i++) {
		regs[i] = arch_map(acpi.ioapic[i].address, 4096, false);
		if (!regs[i])
			continue;
		lines[i] = (io_get(i, IOAPIC_VERSION) >> 16 & 0xff) + 1;
		for (u32 n = 0; n < lines[i]; n++)
			io_set(i, IOAPIC_REDIR(n), REDIR_MASKED);
	}
	mask_hpet();
}

int ioapic_route(u32 gsi, u16 flags, u8 vector, u32 apic_id)
{
	u32 low = vector;

	if (apic_id > 254)
		/* without interrupt remapping, 8 bits are all there is */
		return trace_error(-ERANGE);
	if ((flags & 3) == 3)
		low |= REDIR_LOW;
	if ((flags >> 2 & 3) == 3)
		low |= REDIR_LEVEL;
	for (u32 i = 0; i < acpi.ioapic_count; i++) {
		u32 n = gsi - acpi.ioapic[i].gsi_base;

		if (!regs[i] || gsi < acpi.ioapic[i].gsi_base || n >= lines[i])
			continue;
		io_set(i, IOAPIC_REDIR(n) + 1, apic_id << 24);
		io_set(i, IOAPIC_REDIR(n), low);
		return 0;
	}
	return trace_error(-ENODEV);
}

u32 ioapic_isa_gsi(u8 irq, u16 *flags)
{
	*flags = 0;
	for (u32 i = 0; i < acpi.override_count; i++) {
		if (acpi.override[i].irq == irq) {
			*flags = acpi.override[i].flags;
			return acpi.override[i].gsi;
		}
	}
	return irq;
}
