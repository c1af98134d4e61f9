/* SPDX-License-Identifier: MIT */
/*
 * Bringing up the other CPUs: INIT-SIPI-SIPI to all at once, then a bounded wait for each one's
 * state word (SDM vol. 3 "Multiple-Processor (MP) Initialization"). A CPU that fails is left out
 * with its reason; the rest go on.
 */
#pragma once

#include "lib/types.h"

struct smp_boot {
	/* physical, below 640 KiB, mapped one to one and executable; 0: no CPU can be started */
	u64 trampoline;
	void *trampoline_ptr; /* where it can be written */
	u64 cr3;	      /* root of the hypervisor's tables, below 4 GiB */
	/* where a CPU goes once it is online; interrupts off; never returns */
	void (*ap_main)(void);
	const u64 *(*ist)(u32 cpu); /* tops of a CPU's IST stacks, as desc_load() wants them */
};

/*
 * cpus[] is filled in, with stacks and per-CPU areas. Returns the number of CPUs that are online,
 * the caller included.
 */
u32 smp_start(const struct smp_boot *boot);
/* The boot CPU itself is online. */
void smp_boot_cpu_online(void);
