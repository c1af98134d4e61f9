/* SPDX-License-Identifier: MIT */
/*
 * Time: frequencies of TSC and APIC timer, measured once on the boot CPU against the ACPI PM timer
 * (or the PIT).
 */
#pragma once

#include "arch/x86/timer.h"

extern bool clock_has_deadline;	 /* the LAPIC timer has TSC-deadline mode */
extern u64 clock_apic_mult;	 /* APIC timer ticks per TSC tick, times 2^32 */
extern const char *clock_source; /* what the TSC was measured against */

/*
 * Boot CPU, APIC on, interrupts off; takes about 10 ms. Never fails: without any reference it
 * assumes 1 GHz and says so.
 */
void clock_calibrate(void);
/* Each CPU: timer interrupt in the chosen mode. */
void timer_init_cpu(void);
/* Nanoseconds since the TSC was 0 on this CPU. */
u64 clock_ns(void);
/* Busy wait; for bring-up only. */
void clock_delay_us(u32 us);
