/* SPDX-License-Identifier: MIT */
#include "dev/pm_timer.h"

#include "dev/clock.h"
#include "virt/vm.h"

static int port_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	u64 count = ratio_apply(dev_tsc() - v->vm->tsc_base,
				ratio_make(PM_TIMER_HZ, (u64)tsc_khz * 1000));

	(void)dev;
	*value = (u64)(u32)count >> (8 * offset) & MASK(8 * size - 1, 0);
	return 0;
}

int pm_timer_create(struct vm *vm)
{
	const struct io_region r = {
		.name = "pm timer", .base = PM_TIMER_PORT, .size = 4, .read = port_read
	};

	return io_register(vm, IO_PORT, &r);
}
