/* SPDX-License-Identifier: MIT */
/*
 * The host's local APICs (SDM vol. 3 "Advanced Programmable Interrupt Controller"): xAPIC by MMIO,
 * x2APIC by MSRs. The mode is the same on all CPUs: x2APIC where the boot CPU has it, or the
 * firmware left it on.
 */
#pragma once

#include "lib/types.h"

#define APIC_ID	       0x020
#define APIC_VERSION   0x030
#define APIC_TPR       0x080
#define APIC_EOI       0x0b0
#define APIC_SVR       0x0f0
#define APIC_IRR       0x200 /* 32 vectors each 16 bytes */
#define APIC_ESR       0x280
#define APIC_ICR       0x300
#define APIC_ICR_HIGH  0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_LVT_ERROR 0x370
#define APIC_TMICT     0x380
#define APIC_TMCCT     0x390
#define APIC_TDCR      0x3e0

#define APIC_LVT_MASKED	    BIT(16)
#define APIC_TIMER_DEADLINE BIT(18)
#define APIC_ICR_NMI	    (4u << 8)
#define APIC_ICR_INIT	    (5u << 8)
#define APIC_ICR_STARTUP    (6u << 8)
#define APIC_ICR_PENDING    BIT(12)
#define APIC_ICR_ASSERT	    BIT(14)

extern bool apic_x2;

/* Boot CPU: choose the mode, map the registers. -ENODEV: no APIC. */
int apic_init(void);
/* Each CPU: enable its APIC in the chosen mode, mask all LVTs, spurious vector. */
void apic_init_cpu(void);
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
u32 apic_id(void);
static inline void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}
/*
 * Send an IPI: delivery mode and vector as in ICR 10:0. In xAPIC mode apic_id must be below 255 or
 * the IPI is dropped with a warning.
 */
void apic_ipi(u32 apic_id, u32 icr_low);
/* NMI to all but self; before apic_init: nothing. */
void apic_nmi_others(void);
