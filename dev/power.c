/* SPDX-License-Identifier: MIT */
#include "dev/power.h"

#include <asm-generic/errno-base.h>

#define SLEEP_ENABLE	 BIT(5)
#define SLEEP_TYPE_SHIFT 2
#define SLEEP_TYPE	 7
#define RESET_CPU	 BIT(2) /* of port 0xcf9: the write that sets it resets */
#define PCI_CONFIG	 0xcf8
#define KBD_COMMAND	 0x64

/* Sleep control reads 0; the status register's wake bit is never set, as nothing sleeps. */
static int sleep_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v, (void)dev, (void)offset, (void)size;
	*value = 0;
	return 0;
}

static int sleep_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev, (void)size;
	if (offset == POWER_SLEEP_CONTROL - POWER_SLEEP_CONTROL && value & SLEEP_ENABLE &&
	    (value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE) == POWER_S5_TYPE)
		vm_stop(v->vm, STOP_POWEROFF, "powered off by the guest (ACPI S5)");
	return 0;
}

/* Ports that only take writes look unclaimed when read. */
static int no_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v, (void)dev, (void)offset, (void)size, (void)value;
	return -ENXIO;
}

/*
 * It lies among the registers by which kernels look for PCI: a wide write to those is none to it.
 */
static int reset_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev;
	if (PCI_CONFIG + offset == POWER_RESET && size == 1 && value & RESET_CPU)
		vm_stop(v->vm, STOP_RESET, "reset register");
	return 0;
}

/* Commands 0xf0..0xff pulse the output lines whose bit is 0; line 0 is the reset. */
static int kbd_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev, (void)offset, (void)size;
	if ((value & 0xf1) == 0xf0)
		vm_stop(v->vm, STOP_RESET, "keyboard controller");
	return 0;
}

static int buttons_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct power *p = dev;

	(void)v, (void)offset, (void)size;
	spin_lock(&p->lock);
	*value = p->pressed;
	p->pressed = 0;
	vm_irq_line(p->vm, POWER_BUTTONS_GSI, false);
	spin_unlock(&p->lock);
	return 0;
}

void power_press(struct power *p, enum power_button button)
{
	spin_lock(&p->lock);
	p->pressed |= button;
	vm_irq_line(p->vm, POWER_BUTTONS_GSI, true);
	spin_unlock(&p->lock);
}

void power_reset(struct power *p)
{
	u64 pressed;

	buttons_read(NULL, p, 0, 1, &pressed);
}

int power_create(struct power *p, struct vm *vm)
{
	const struct io_region regions[] = {
		{ .name = "sleep",
		  .base = POWER_SLEEP_CONTROL,
		  .size = 2,
		  .read = sleep_read,
		  .write = sleep_write },
		{ .name = "buttons",
		  .base = POWER_BUTTONS,
		  .size = 1,
		  .read = buttons_read,
		  .dev = p },
		{ .name = "reset",
		  .base = PCI_CONFIG,
		  .size = 8,
		  .read = no_read,
		  .write = reset_write },
		{ .name = "kbd reset",
		  .base = KBD_COMMAND,
		  .size = 1,
		  .read = no_read,
		  .write = kbd_write },
	};
	int err = 0;

	p->vm = vm;
	spin_init(&p->lock, RANK_DEVICE);
	for (u32 i = 0; !err && i < ARRAY_SIZE(regions); i++)
		err = io_register(vm, IO_PORT, &regions[i]);
	return err;
}
