/* SPDX-License-Identifier: MIT */
/*
 * Random numbers (virtio 1.2, "Entropy Device"): what the CPU's RDRAND gives, passed on as it is.
 * It is worth what the CPU's generator is worth, and no more than the guest's own RDRAND. A CPU
 * without it has no source that deserves the name, so there is no device then.
 */
#pragma once

#include "dev/virtio.h"

#ifdef CORBEL_HOST
bool dev_random(u64 *value); /* the test's */
bool dev_has_random(void);
#else
#include "arch/x86/insn.h"
/* False: the generator had nothing, again and again (SDM "RDRAND"). */
static inline bool dev_random(u64 *value)
{
	for (u32 tries = 0; tries < 10; tries++)
		if (rdrand(value))
			return true;
	return false;
}

static inline bool dev_has_random(void)
{
	return cpuid(1, 0).ecx & BIT(30);
}
#endif

/* 0 and *out; -ENOMEM, or io_register's error. Only where dev_has_random(). */
int virtio_rng_create(struct vm *vm, struct virtio **out);
