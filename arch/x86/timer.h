/* SPDX-License-Identifier: MIT */
/*
 * One-shot timers of a CPU, on its LAPIC timer (TSC deadline where the CPU has it). A timer belongs
 * to the CPU that armed it; arm and cancel there, with interrupts off. The callback runs in
 * interrupt context on that CPU, with the timer disarmed.
 */
#pragma once

#include "lib/list.h"

struct timer {
	struct list node;
	u64 deadline; /* host TSC */
	void (*fire)(struct timer *t);
	bool armed;
};

void timer_init(struct timer *t, void (*fire)(struct timer *t));
/* (Re-)arm for a host TSC value; one in the past fires as soon as interrupts are on. */
void timer_arm(struct timer *t, u64 deadline);
void timer_cancel(struct timer *t);

/*
 * Host TSC frequency in kHz, and ticks of the LAPIC timer's input. Set on the boot CPU before the
 * others start.
 */
extern u32 tsc_khz;
u64 tsc_to_ns(u64 ticks);
