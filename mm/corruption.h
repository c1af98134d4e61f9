/* SPDX-License-Identifier: MIT */
/*
 * DATA_CORRUPTION_ON(stage2, gfn, cond): a structure of the hypervisor that describes a VM's memory
 * is damaged, there or (NO_GFN) nowhere in particular, and the damage may reach beyond that VM.
 * Always compiled in; evaluates to the condition; any context but NMI.
 *
 * What then happens is the owner's decision (stage2_env.corrupted): the VM dies and its memory is
 * never given to anybody else, or the machine stops. The first time at a place comes with a
 * backtrace; counters never stop. Whoever finds the damage goes on as well as it can, and never
 * follows what is damaged.
 */
#pragma once

#include "lib/types.h"

struct stage2;

#define NO_GFN (~0ull)
#define DATA_CORRUPTION_ON(s, gfn, cond)                                                 \
	({                                                                               \
		static bool seen_;                                                       \
		bool hit_ = (cond);                                                      \
		if (unlikely(hit_))                                                      \
			stage2_corrupted((s), (gfn), #cond, __FILE__, __LINE__, &seen_); \
		hit_;                                                                    \
	})
void stage2_corrupted(struct stage2 *s, u64 gfn, const char *cond, const char *file, int line,
		      bool *seen);

/* How often it was true, in all VMs. */
extern u64 corruptions;
/* Was it ever true for a VM of that number? Then what it leaves behind stays. */
bool vm_was_corrupt(u16 vm);
