/* SPDX-License-Identifier: MIT */
/*
 * Which MSRs a guest may touch: an allow-list. Everything else is #GP. Devices add their own on the
 * VM's bus (IO_MSR).
 */
#pragma once

#include "lib/types.h"

enum msr_access {
	MSR_PASS, /* read and written by the guest without an exit; the vendor switches it */
	MSR_TRAP, /* handled in virt/msr.c */
};

struct msr_policy {
	u32 msr;
	u8 access; /* enum msr_access */
	const char *why;
};
extern const struct msr_policy msr_policy[];
extern const u32 msr_policy_count;

struct vcpu;
/* 0 and *value, or -ENXIO: #GP. On the runner. */
int guest_rdmsr(struct vcpu *v, u32 msr, u64 *value);
int guest_wrmsr(struct vcpu *v, u32 msr, u64 value);
