/* SPDX-License-Identifier: MIT */
/* The LAPIC of this vCPU in whatever mode it is, and the I/O APIC. */
#pragma once

#include "dev/lapic_regs.h"
#include "tests/guest/lib/test.h"

#define IOAPIC_GPA  0xfec00000ul
#define VECTOR_CALL 0xfd /* cpu_start() */

u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
/* ICR: to an APIC id (or a logical destination, by APIC_LOGICAL in low). */
void apic_icr(u32 dest, u32 low);
void apic_eoi(void);
/* Through the mode "off" where it has to be; registers are then as after reset, and enabled by SVR.
 */
void apic_mode(bool x2apic);
/* Enabled, nothing masked by TPR, no timer, no error. What each case begins with on vCPU 0. */
void apic_defaults(void);
bool apic_pending(u8 vector);
bool apic_in_service(u8 vector);

u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 value);
void ioapic_entry(u32 pin, u64 entry);
u64 ioapic_entry_read(u32 pin);
