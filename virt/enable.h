/* SPDX-License-Identifier: MIT */
/*
 * Virtualization on each CPU (docs/ARCHITECTURE.md, "Turning virtualization on"): read, compare,
 * decide, enable, verify. Knows nothing of VMs: a service with a user count.
 */
#pragma once

#include "virt/ops.h"

enum virt_mixed { VIRT_MIXED_EXCLUDE, VIRT_MIXED_REFUSE, VIRT_MIXED_COMMON };

struct virt_cpu {
	struct virt_caps caps; /* as this CPU read them */
	struct virt_cpu_state state;
	u32 differences; /* fields that break their rule against the reference */
	bool read;	 /* caps are there */
	bool excluded;	 /* differs: parked, no vCPU runs here */
	bool wanted;	 /* virtualization is to be on here; atomic */
};

/*
 * Choose the backend among those given by what setup_cpu enumerates, read every online CPU's record
 * by IPI, each on its own CPU, compare, and decide on control words from the reference. setup_cpu:
 * a CPU number; if it can't virtualize, the lowest that can takes its place, with one line that
 * says so. Once, on the boot CPU, interrupts on. 0, or -EOPNOTSUPP with lines that say what is
 * missing: then there is no backend and Corbel is a monitor only.
 */
int virt_setup(const struct virt_ops *const backends[], u32 count, u32 setup_cpu,
	       enum virt_mixed mixed);

/*
 * First user turns it on on every CPU that is not excluded, last one off; all or nothing. 0,
 * -ENODEV (no backend), or an error.
 */
int virt_enable_get(void);
void virt_enable_put(void);
bool virt_enabled(void);
/* Why no VM can run, one line; empty if it can. */
const char *virt_obstacle(void);

/*
 * Before a CPU goes offline: no vCPU is assigned to it any more. After one has come online: the
 * whole path again, record, comparison and (if there are users) enabling. 0, or an error with lines
 * that say why no vCPU will run there. Where virt_enable_get() is called.
 */
void virt_cpu_retire(u32 cpu);
int virt_cpu_join(u32 cpu);

/* On this CPU, without asking anybody: before a reset or power-off, or when it goes offline. */
void virt_disable_here(void);

/* The reference record; which CPU read it is in its field cpu. NULL before virt_setup(). */
const struct virt_caps *virt_reference(void);
const struct virt_cpu *virt_cpu(u32 cpu);
/* CPUs that vCPUs may run on. */
const struct cpumask *virt_cpus(void);
/* Differences of a CPU, one call each; returns how many. */
u32 virt_diff(u32 cpu,
	      void (*emit)(void *arg, const char *field, const char *rule, u64 expected, u64 seen),
	      void *arg);
