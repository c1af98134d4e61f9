/* SPDX-License-Identifier: MIT */
/*
 * Bringing up the other CPUs: INIT-SIPI-SIPI to all at once, then a bounded wait for each one's
 * state word (SDM vol. 3 "Multiple-Processor (MP) Initialization"). A CPU that fails is left out
 * with its reason; the rest go on.
 */
#pragma once

#include "lib/types.h"

#define SMP_INIT_US  10000 /* between INIT and SIPI */
#define SMP_SIPI_US  200   /* between SIPI and the second one */
#define SMP_START_MS 1000  /* from there until it is online */

struct smp_boot {
	/* physical, below 640 KiB, mapped one to one and executable; 0: no CPU can be started */
	u64 trampoline;
	void *trampoline_ptr; /* where smp_prepare() can write it */
	u64 cr3;	      /* root of the hypervisor's tables, below 4 GiB */
	/* where a CPU goes once it is online; interrupts off; never returns */
	void (*ap_main)(void);
	const u64 *(*ist)(u32 cpu); /* tops of a CPU's IST stacks, as desc_load() wants them */
};

/* Write the trampoline, once and for all; *boot stays. */
void smp_prepare(const struct smp_boot *boot);
/*
 * cpus[] is filled in, with stacks and per-CPU areas. Returns the number of CPUs that are online,
 * the caller included.
 */
u32 smp_start(void);
/* The boot CPU itself is online. */
void smp_boot_cpu_online(void);

/*
 * One CPU, for a caller that has other things to do meanwhile: smp_init(), SMP_INIT_US later
 * smp_sipi(), SMP_SIPI_US later smp_sipi() again (for one that has started it is nothing), then
 * smp_check() until the answer is not -EAGAIN. The CPU is offline or dead, not this one and not the
 * boot CPU, which INIT would send back to the firmware. -ENODEV: it can't be started, in the log.
 */
int smp_init(u32 id);
void smp_sipi(u32 id);
/*
 * 0: it is online. -EAGAIN: not yet. -ETIMEDOUT, if late: given up, and should it come after all it
 * halts. -EIO: given up before. How far it came is in the log.
 */
int smp_check(u32 id, bool late);

/* This CPU goes offline and halts until smp_init(). Nothing of it is in use any more. */
void smp_park(void) NORETURN;
