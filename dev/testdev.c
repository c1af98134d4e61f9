/* SPDX-License-Identifier: MIT */
#include "dev/testdev.h"

#include <asm-generic/errno-base.h>
#include "lib/string.h"

/* Of the exit port: a word, so that a test may write it as wide as it likes. */
#define EXIT_PORTS 4

enum {
	ITEM_SIGNATURE = 0x00,
	ITEM_ID = 0x01, /* bit 0: the port interface; no DMA */
	ITEM_RAM_SIZE = 0x03,
	ITEM_NB_CPUS = 0x05,
	ITEM_MAX_CPUS = 0x0f,
	ITEM_CMDLINE_SIZE = 0x14,
	ITEM_CMDLINE_DATA = 0x15,
};

static int exit_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev, (void)offset, (void)size;
	vm_stop(v->vm, value ? STOP_FAILURE : STOP_EXIT, "status %lu", value);
	return 0;
}

/* One byte of the selected item; what is not there, and what is behind an item's end, reads as 0.
 */
static u8 item_byte(const struct testdev *t)
{
	u64 number = 0, size = sizeof(number);
	const void *from = &number;

	switch (t->item) {
	case ITEM_SIGNATURE:
		from = "QEMU";
		size = 4;
		break;
	case ITEM_ID:
		number = 1;
		break;
	case ITEM_RAM_SIZE:
		number = t->memory;
		break;
	case ITEM_NB_CPUS:
	case ITEM_MAX_CPUS:
		number = t->cpus;
		break;
	case ITEM_CMDLINE_SIZE:
		number = strlen(t->cmdline) + 1;
		break;
	case ITEM_CMDLINE_DATA:
		from = t->cmdline;
		size = strlen(t->cmdline);
		break;
	}
	return t->offset < size ? ((const u8 *)from)[t->offset] : 0;
}

static int fwcfg_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct testdev *t = dev;

	(void)v;
	if (!offset || size != 1)
		return -ENXIO;
	spin_lock(&t->lock);
	*value = item_byte(t);
	t->offset++;
	spin_unlock(&t->lock);
	return 0;
}

static int fwcfg_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	struct testdev *t = dev;

	(void)v;
	if (offset || size != 2)
		return -ENXIO;
	spin_lock(&t->lock);
	t->item = (u16)value;
	t->offset = 0;
	spin_unlock(&t->lock);
	return 0;
}

int testdev_create(struct testdev *t, struct vm *vm, u64 memory, const char *cmdline)
{
	const struct io_region exit = { .name = "debug exit",
					.base = TESTDEV_EXIT_PORT,
					.size = EXIT_PORTS,
					.write = exit_write },
			       fwcfg = { .name = "fw_cfg",
					 .base = TESTDEV_FWCFG_PORT,
					 .size = 2,
					 .read = fwcfg_read,
					 .write = fwcfg_write,
					 .dev = t };
	int err = io_register(vm, IO_PORT, &exit);

	spin_init(&t->lock, RANK_DEVICE);
	t->memory = memory;
	t->cpus = vm->nr_vcpus;
	t->cmdline = cmdline;
	return err ? err : io_register(vm, IO_PORT, &fwcfg);
}
