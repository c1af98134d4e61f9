/* SPDX-License-Identifier: MIT */
#include "tests/unit/virtio_fake.h"

#include <asm-generic/errno.h>

u32 virtio_get(struct vcpu *v, u32 slot, u32 reg)
{
	return (u32)mmio_get(v, VIRTIO_GPA(slot) + reg, 4);
}

void virtio_set(struct vcpu *v, u32 slot, u32 reg, u32 value)
{
	mmio_set(v, VIRTIO_GPA(slot) + reg, 4, value);
}

bool virtio_begin(struct vcpu *v, u32 slot, u64 wanted)
{
	u32 status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

	wanted |= BIT(VIRTIO_F_VERSION_1);
	virtio_set(v, slot, VIRTIO_MMIO_STATUS, 0);
	virtio_set(v, slot, VIRTIO_MMIO_STATUS, status);
	virtio_set(v, slot, VIRTIO_MMIO_STATUS, status |= VIRTIO_CONFIG_S_DRIVER);
	for (u32 half = 0; half < 2; half++) {
		virtio_set(v, slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		virtio_set(v, slot, VIRTIO_MMIO_DRIVER_FEATURES, (u32)(wanted >> half * 32));
	}
	virtio_set(v, slot, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_FEATURES_OK);
	return virtio_get(v, slot, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void virtio_ring(struct fake_ring *r, struct vcpu *v, u32 slot, u32 queue, u16 size)
{
	u64 base = RING_GPA(v->vm->id - 1u, queue);

	memset(fake_memory + base, 0, 0x4000);
	*r = (struct fake_ring){ .v = v, .slot = slot, .queue = queue, .size = size };
	r->desc_gpa = base;
	r->avail_gpa = base + 0x2000;
	r->used_gpa = base + 0x3000;
	r->desc = (void *)(fake_memory + r->desc_gpa);
	r->avail_ring = (void *)(fake_memory + r->avail_gpa);
	r->used_ring = (void *)(fake_memory + r->used_gpa);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_SEL, queue);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_NUM, size);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_DESC_LOW, (u32)r->desc_gpa);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (u32)r->avail_gpa);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_USED_LOW, (u32)r->used_gpa);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	virtio_set(v, slot, VIRTIO_MMIO_QUEUE_READY, 1);
}

void virtio_driver_ok(struct vcpu *v, u32 slot)
{
	virtio_set(v, slot, VIRTIO_MMIO_STATUS,
		   virtio_get(v, slot, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
}

u16 virtio_add(struct fake_ring *r, const struct fake_buffer *buffers, u32 n)
{
	u16 head = r->next % r->size;

	for (u32 i = 0; i < n; i++) {
		struct vring_desc *s = &r->desc[r->next++ % r->size];

		s->addr = buffers[i].gpa;
		s->len = buffers[i].len;
		s->flags = (u16)((buffers[i].device_writes ? VRING_DESC_F_WRITE : 0) |
				 (i + 1 < n ? VRING_DESC_F_NEXT : 0));
		s->next = r->next % r->size;
	}
	r->avail_ring->ring[r->avail++ % r->size] = head;
	r->avail_ring->idx = r->avail;
	return head;
}

u32 virtio_kick(struct fake_ring *r)
{
	u32 times = 1;

	while (io_write(r->v, IO_MMIO, VIRTIO_GPA(r->slot) + VIRTIO_MMIO_QUEUE_NOTIFY, 4,
			r->queue) == -EAGAIN)
		times++;
	return times;
}

u32 virtio_used(struct fake_ring *r, struct vring_used_elem *last)
{
	u32 n = (u16)(r->used_ring->idx - r->used);

	r->used = r->used_ring->idx;
	if (n && last)
		*last = r->used_ring->ring[(u16)(r->used - 1) % r->size];
	return n;
}
