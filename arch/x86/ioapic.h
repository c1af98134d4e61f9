/* SPDX-License-Identifier: MIT */
/* The machine's I/O APICs and PICs: everything masked at boot, single lines routed afterwards. */
#pragma once

#include "lib/types.h"

/*
 * Mask every line of every I/O APIC, the 8259s, and the HPET's interrupts. Once, on the boot CPU.
 */
void ioapic_init(void);
/*
 * Unmask a GSI as a fixed interrupt; flags as in the MADT (polarity, trigger; 0: as ISA). -ENODEV:
 * no I/O APIC has it.
 */
int ioapic_route(u32 gsi, u16 flags, u8 vector, u32 apic_id);
/* GSI and flags of an ISA interrupt. */
u32 ioapic_isa_gsi(u8 irq, u16 *flags);
