/* SPDX-License-Identifier: MIT */
/*
 * Registers of the local APIC: SDM vol. 3, "Local APIC Register Address Map" and "x2APIC Register
 * Address Space".
 */
#pragma once

#include "lib/types.h"

/* Offsets in the xAPIC page; the x2APIC MSR is 0x800 + offset / 16. */
#define APIC_ID		 0x020
#define APIC_VERSION	 0x030
#define APIC_TPR	 0x080
#define APIC_APR	 0x090
#define APIC_PPR	 0x0a0
#define APIC_EOI	 0x0b0
#define APIC_RRD	 0x0c0
#define APIC_LDR	 0x0d0
#define APIC_DFR	 0x0e0
#define APIC_SVR	 0x0f0
#define APIC_ISR	 0x100 /* 8 registers, as TMR and IRR */
#define APIC_TMR	 0x180
#define APIC_IRR	 0x200
#define APIC_ESR	 0x280
#define APIC_ICR	 0x300
#define APIC_ICR_HIGH	 0x310
#define APIC_LVT_TIMER	 0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERF	 0x340
#define APIC_LVT_LINT0	 0x350
#define APIC_LVT_LINT1	 0x360
#define APIC_LVT_ERROR	 0x370
#define APIC_TMICT	 0x380 /* initial count */
#define APIC_TMCCT	 0x390 /* current count */
#define APIC_TDCR	 0x3e0 /* divide configuration */
#define APIC_SELF_IPI	 0x3f0 /* x2APIC only */
#define APIC_REGS	 0x40  /* registers of 16 bytes */

/* an integrated APIC with 6 LVT entries, whose EOI broadcasts can be suppressed */
#define APIC_VERSION_VALUE (0x14 | 5 << 16 | BIT(24))
#define APIC_SVR_ENABLE	   BIT(8)
#define APIC_SVR_NO_BROADCAST \
	BIT(12) /* "Directed EOI": software writes the IOAPIC's EOI register */
#define APIC_DFR_FLAT 0xf

/* "Error Status Register" */
#define APIC_ESR_SEND_ILLEGAL BIT(5)
#define APIC_ESR_RECV_ILLEGAL BIT(6)
#define APIC_ESR_REGISTER     BIT(7)

/* "Local Vector Table" */
#define APIC_LVT_STATUS	     BIT(12) /* read-only */
#define APIC_LVT_REMOTE_IRR  BIT(14) /* read-only */
#define APIC_LVT_MASKED	     BIT(16)
#define APIC_LVT_TIMER_SHIFT 17
#define APIC_LVT_TIMER_MODE  (3u << APIC_LVT_TIMER_SHIFT)
enum apic_timer_mode { APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC, APIC_TIMER_DEADLINE };

/* Fields that the ICR, the LVTs, an IOAPIC entry and an MSI share. */
#define APIC_VECTOR	0xff
#define APIC_MODE_SHIFT 8
#define APIC_MODE	(7u << APIC_MODE_SHIFT)
#define APIC_LOGICAL	BIT(11)
#define APIC_STATUS	BIT(12)
#define APIC_TRIGGER	BIT(15)
enum apic_mode {
	APIC_FIXED,
	APIC_LOWEST,
	APIC_SMI,
	APIC_RESERVED,
	APIC_NMI,
	APIC_INIT,
	APIC_SIPI,
	APIC_EXTINT
};

/* "Interrupt Command Register" */
#define APIC_ICR_ASSERT		 BIT(14)
#define APIC_ICR_SHORTHAND_SHIFT 18
enum apic_shorthand { APIC_TO_DEST, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };

#define APIC_BASE_GPA 0xfee00000ull
