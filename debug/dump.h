/* SPDX-License-Identifier: MIT */
/* What a vCPU was like when something unexpected happened to it. */
#pragma once

#include "virt/vcpu.h"

/*
 * vcpu_dump_hook: log registers and segments, and if the CPU refused them, what about them is
 * wrong: it does not say itself. The checks are the manual's (SDM "Checks on the Guest State Area",
 * APM vol. 2 "Canonicalization and Consistency Checks"), those that a mistake in virt/ or a new
 * boot protocol is likely to break. On the runner, loaded.
 */
void dump_vcpu(struct vcpu *v);
