/* SPDX-License-Identifier: MIT */
/*
 * A hostile driver: the input is a program of register accesses and of writes to the memory that
 * the rings of all virtio devices lie in. They begin in working order, so that a byte that is
 * changed reaches far. Besides what the sanitizers see: a kick ends, nothing is written outside of
 * the guest's memory, nobody breaks without saying so, and all memory comes back.
 */
#include <stdlib.h>
#include <string.h>

#include <asm-generic/errno.h>
#include "tests/unit/virtio_fake.h"

#define VMS	    2
#define SECTORS	    67
#define KICKS	    4096
#define BUFFER(n)   (BUFFERS + (n)*0x800)
#define STEP	    6 /* bytes of input */
#define RING_MEMORY (BUFFERS - RING_GPA(0, 0))

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u8 file[SECTORS * 512];
static struct vm *vms[VMS];

/* A chain for each device that it understands, more of them than one. */
static void fill(struct fake_ring *r)
{
	const bool input = r->queue == 0 && r->slot != VIRTIO_SLOT_BLK;
	const struct fake_buffer chain[] = {
		{ BUFFER(0), 16, input },
		{ BUFFER(1), 1024, input || r->slot == VIRTIO_SLOT_BLK },
		{ BUFFER(2), 1, input || r->slot == VIRTIO_SLOT_BLK },
	};

	for (u32 i = 0; i < 4; i++)
		virtio_add(r, chain, 3);
}

static void start(struct vm *vm, u32 slot)
{
	struct fake_ring r;
	u32 queues = slot == VIRTIO_SLOT_BLK || slot == VIRTIO_SLOT_RNG ? 1 : 2;

	virtio_begin(vm->vcpus[0], slot, 0);
	for (u32 q = 0; q < queues; q++) {
		virtio_ring(&r, vm->vcpus[0], slot, q, 16);
		fill(&r);
	}
	virtio_driver_ok(vm->vcpus[0], slot);
}

/* The rings lie at the same place for all devices of a VM: one device at a time gets new ones. */
static void step(const u8 *in)
{
	struct vm *vm = vms[in[0] & 1];
	struct vcpu *v = vm->vcpus[0];
	u32 slot = in[0] >> 1 & 3, kicks = 0;
	u64 value = in[2] | (u64)in[3] << 8 | (u64)in[4] << 16 | (u64)in[5] << 24, ignored;

	switch (in[0] >> 3 & 7) {
	case 0:
		start(vm, slot);
		break;
	case 1:
		io_read(v, IO_MMIO, VIRTIO_GPA(slot) + in[1] * 2u, 1u << (in[2] & 3), &ignored);
		break;
	case 2:
		if (in[1] * 4u % VIRTIO_REGION_SIZE != VIRTIO_MMIO_QUEUE_NOTIFY)
			virtio_set(v, slot, in[1] * 4u % VIRTIO_REGION_SIZE, (u32)value);
		break;
	case 3:
		memcpy(fake_memory + RING_GPA(0, 0) + (in[1] | in[2] << 8) % (RING_MEMORY - 2),
		       in + 3, 2);
		break;
	case 4:
		memcpy(fake_memory + BUFFER(0) + in[1] % 32, in + 2, 4);
		break;
	case 5:
		vm->state = in[1] & 1 ? VM_RUNNING : VM_STOPPED;
		if (in[1] & 2)
			vm->irqchip->reset(vm);
		break;
	case 6:
		uart_receive(platform_uart(vm), in, STEP);
		break;
	default:
		while (io_write(v, IO_MMIO, VIRTIO_GPA(slot) + VIRTIO_MMIO_QUEUE_NOTIFY, 4,
				in[1] & 3) == -EAGAIN)
			if (++kicks == KICKS)
				abort();
	}
}

static void open_vms(void)
{
	fake_devices.disk = (struct virtio_disk){ .base = file,
						  .size = sizeof(file),
						  .id = "a disk with a long name" };
	fake_devices.rng = true;
	for (u32 i = 0; i < VMS; i++) {
		fake_devices.network = (struct virtio_network){ "lab", { 2, 0, 0, 0, 0, (u8)i } };
		vms[i] = fake_vm(1);
		vms[i]->id = (u16)(i + 1);
		vms[i]->state = VM_RUNNING;
		for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++)
			start(vms[i], slot);
	}
}

static void check(struct virtio *d)
{
	if (!(d->status & VIRTIO_CONFIG_S_NEEDS_RESET) || d->broken)
		return;
	abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	u8 head[64];

	memset(fake_memory, 0, FAKE_MEMORY);
	memcpy(head, file, sizeof(head));
	open_vms();
	for (; size >= STEP; data += STEP, size -= STEP)
		step(data);
	for (u32 i = 0; i < VMS; i++) {
		for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++)
			check(platform_virtio(vms[i], slot));
		fake_vm_free(vms[i]);
	}
	if (fake_frames || memcmp(head, file, sizeof(head)))
		abort();
	return 0;
}
