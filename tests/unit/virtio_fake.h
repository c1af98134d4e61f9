/* SPDX-License-Identifier: MIT */
/* A virtio driver in a fake guest: rings in fake_memory, registers by the VM's bus. */
#pragma once

#include <linux/virtio_mmio.h>
#include "dev/virtio.h"
#include "tests/unit/dev_fake.h"

/* The first VMs' rings; what is behind them is for buffers. */
#define RING_GPA(vm, queue) (0x10000ull + ((vm)*2 + (queue)) * 0x4000ull)
#define BUFFERS		    0x40000ull

struct fake_ring {
	struct vcpu *v;
	u32 slot, queue;
	u16 size, next, avail, used;
	u64 desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail_ring;
	struct vring_used *used_ring;
};

struct fake_buffer {
	u64 gpa;
	u32 len;
	bool device_writes;
};

u32 virtio_get(struct vcpu *v, u32 slot, u32 reg);
void virtio_set(struct vcpu *v, u32 slot, u32 reg, u32 value);
/* Reset, negotiate what is offered and wanted (VERSION_1 always). False: refused. */
bool virtio_begin(struct vcpu *v, u32 slot, u64 wanted);
/* An empty ring, ready. */
void virtio_ring(struct fake_ring *r, struct vcpu *v, u32 slot, u32 queue, u16 size);
void virtio_driver_ok(struct vcpu *v, u32 slot);
/* Put a chain into the ring; returns its head. */
u16 virtio_add(struct fake_ring *r, const struct fake_buffer *buffers, u32 n);
/* As the CPU executes it, again and again until it is done; how often that was. */
u32 virtio_kick(struct fake_ring *r);
/* How many chains came back since the last look; *last is the latest one. */
u32 virtio_used(struct fake_ring *r, struct vring_used_elem *last);
