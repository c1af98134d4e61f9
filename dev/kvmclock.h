/* SPDX-License-Identifier: MIT */
/*
 * kvmclock: the guest computes its time from its TSC by factors that Corbel writes into guest
 * memory once.
 *
 *	ns since the VM's start = scale(guest TSC - tsc_timestamp) + system_time
 *
 * Corbel's guests see TSC 0 at the VM's start, so both offsets are 0, on every vCPU and for ever:
 * no page ever grows stale, and no two vCPUs differ by rounding.
 */
#pragma once

#include "virt/vm.h"

struct kvmclock {
	u64 wall_base_ns; /* UTC, ns since 1970, at host TSC 0 */
	bool stable;	  /* may guests trust that vCPUs' TSCs agree? */
	u32 mul;	  /* see struct pvclock_vcpu_time_info */
	s8 shift;
};

/* stable only where that is proven for all CPUs. 0, or io_register's error. */
int kvmclock_create(struct kvmclock *k, struct vm *vm, u64 wall_base_ns, bool stable);
