/* SPDX-License-Identifier: MIT */
/*
 * What test suites and small firmwares expect of the machine that runs them, as QEMU has it: the
 * debug-exit port, and the port interface of fw_cfg (QEMU "docs/specs/fw_cfg.rst") with the few
 * items that describe the machine. Only for VMs that ask for it.
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define TESTDEV_EXIT_PORT                                                       \
	0xf4 /* 4 ports: a write ends the VM, with the value as its exit status \
	      */
#define TESTDEV_FWCFG_PORT 0x510 /* select an item, 16 bits; read it at the next port, bytewise */

struct testdev {
	struct spinlock lock;
	u16 item;
	u32 offset; /* of the next byte in the item */
	u64 memory;
	u32 cpus;
	const char *cmdline;
};

/*
 * memory: the RAM size that fw_cfg tells, in bytes; cmdline stays the caller's. 0, or io_register's
 * error.
 */
int testdev_create(struct testdev *t, struct vm *vm, u64 memory, const char *cmdline);
