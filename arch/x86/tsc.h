/* SPDX-License-Identifier: MIT */
/*
 * The CPUs' TSCs, compared when a CPU comes online. Corbel's timers and its guests take a TSC for
 * one clock of the whole machine, so one that is seen to be apart is set right in the CPU itself.
 */
#pragma once

#include "lib/types.h"

/*
 * What is known of a CPU's TSC: it was between min and max ticks ahead of that of the CPU that
 * compared. Whoever passes a TSC's value on to another CPU can't see it go backwards if 0 is
 * between them (SDM vol. 3 "Time-Stamp Counter Adjustment").
 */
struct tsc_skew {
	s64 min, max;
	bool known;
	bool agrees; /* 0 is between them, and the TSC never stops (CPUID 80000007H:EDX[8]) */
};

/* The boot CPU, once: what others are compared with. */
void tsc_init(void);
/*
 * Compare with online CPU id's, and set that right if it is apart; what could not be done is in the
 * log. One caller at a time, not from interrupt context. Takes the time of 32 messages there and
 * back. -ENODEV: that CPU would be the only one whose TSC doesn't agree.
 */
int tsc_sync(u32 id);
/* All CPUs that are online agree: kvmclock is monotonic across vCPUs. */
bool tsc_stable(void);
const struct tsc_skew *tsc_skew(u32 id);
