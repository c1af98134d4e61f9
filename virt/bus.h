/* SPDX-License-Identifier: MIT */
/*
 * The I/O bus of a VM: three address spaces (ports, MMIO, MSRs), in which devices register ranges.
 *
 * Registration happens while the VM is not running. Handlers run on the vCPU's CPU with interrupts
 * off; several vCPUs may be in one device at once, the device locks itself. A handler must not
 * block; it may stop the VM (vm_stop).
 */
#pragma once

#include "lib/addr.h"

enum io_space { IO_PORT, IO_MMIO, IO_MSR, IO_SPACES };
#define IO_MAX_REGIONS 32

struct vcpu;
struct vm;

struct io_region {
	const char *name;
	u64 base; /* port, gpa or MSR number */
	u64 size;
	/*
	 * offset is within the region; size is 1, 2, 4 or 8 bytes (8 for MSRs). Values are
	 * zero-extended. A read handler sets *value. Return 0, or an error: #GP for an MSR; for
	 * ports and MMIO a read then yields all ones, a write is dropped. Either may be NULL:
	 * -ENXIO. -EAGAIN from an MMIO write: the instruction is executed again, because the
	 * handler has more to do than it may at once.
	 */
	int (*read)(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value);
	int (*write)(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value);
	void *dev;
};

struct io_bus {
	struct io_region region[IO_SPACES][IO_MAX_REGIONS]; /* sorted by base */
	u32 count[IO_SPACES];
};

/*
 * 0; -EEXIST: overlaps a region; -ENOSPC: too many; -EINVAL: size 0 or wraps. The region is copied.
 */
int io_register(struct vm *vm, enum io_space space, const struct io_region *region);
/*
 * A port or MMIO. 0, -ENXIO: nobody there, or the handler's error; *value means nothing then. size:
 * 1 to 8 bytes. An access that isn't wholly inside one region is made byte by byte, and 0 if
 * anybody answers; what nobody answers reads as ones. On the runner.
 */
int io_read(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 *value);
int io_write(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 value);
/* The same for an MSR, which is not in the region of the last access (v->io_last). */
int io_read_msr(struct vcpu *v, u32 msr, u64 *value);
int io_write_msr(struct vcpu *v, u32 msr, u64 value);
