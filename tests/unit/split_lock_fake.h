/* SPDX-License-Identifier: MIT */
/*
 * A machine for tests of the owner of MSR_TEST_CTRL: CPUs 2n and 2n + 1 are the threads of core n,
 * and share its register. One thread of the host plays all CPUs (be() says which one it is), or
 * each CPU is a thread.
 */
#pragma once

#include "arch/x86/msr.h"
#include "arch/x86/split_lock.h"
#include "arch/x86/timer.h"
#include "arch/x86/trap.h"

#define DETECT	  TEST_CTRL_SPLIT_LOCK
#define NO_LOCK	  TEST_CTRL_NO_LOCK
#define UC_LOCK	  BIT(28) /* a bit that is nobody's business */
#define CORES_MAX 16
#define CPUS_MAX  (2 * CORES_MAX)
#define KHZ	  1000 /* so that a microsecond is a tick */

struct fake_core {
	u64 reg; /* atomic */
	bool has;
	u64 stuck;	 /* bits that do not change when written */
	bool gp_on_read; /* as under a hypervisor that does not offer the register */
	bool gp_on_write;
	u64 writes; /* atomic */
	bool busy;  /* atomic: a write is under way */
};

struct fake_cpu {
	bool kicked; /* atomic */
	bool no_interrupts;
	struct timer *timer;
	u64 deadline;
	bool is_online;
};

extern struct fake_core core[CORES_MAX];
extern struct fake_cpu cpu[CPUS_MAX];
extern u64 tsc; /* atomic */
extern bool topology_known;
extern u32 moved_cpu;	    /* comes back in another core; CPU_ID_NONE: none does */
extern struct cpumask deaf; /* do not answer a call */
extern u32 unfit_accesses;  /* of registers that are not there */
extern char last_line[256];
extern u32 lines, backtraces;
extern bool kicks_at_once;
extern bool threads_run; /* CPUs are threads: a call is a kick that is not waited for */

/* This thread is that CPU from now on. */
void be(u32 id);
u32 core_of(u32 id);

/* A machine of n cores, whose firmware left `found` in the registers. boot(): and Corbel starts. */
void power_on(u32 cores, u64 found);
void boot(u32 cores, u64 found);
void go_online(u32 id);
void go_offline(u32 id);
/* What a CPU does about interrupts and its timer: this one; all of them in turn. */
void take_interrupts(void);
void all_take_interrupts(void);
/* Is a split lock of this CPU #AC right now? */
bool faults(void);
struct trap_frame at(u64 rip);

/* What the owner of a CPU's core knows. */
struct split_lock_core look(u32 id);
/* What must hold of every core whenever nobody is at work on it; else host_failures counts. */
bool sound(const struct split_lock_core *s);
