/* SPDX-License-Identifier: MIT */
/*
 * A record of a VM in which bytes were changed, under a good checksum: the input says which, three
 * bytes each (or all of a record, if it begins as one). It is refused, or the VM has devices that
 * its guest can use in any way. What the sanitizers see is wrong, and so is a use of the VM that
 * never ends.
 */
#include <stdlib.h>
#include <string.h>

#include <asm-generic/errno.h>
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "dev/lapic.h"
#include "lib/xxh64.h"
#include "tests/unit/virtio_fake.h"
#include "virt/cpuid.h"
#include "virt/state.h"

#define RECORD_MAX (64 * KIB)
#define KICKS	   4096

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static struct cpuid_policy policy, policy_of_next;
static u8 good[RECORD_MAX], bad[RECORD_MAX];
static u32 length;

static struct vm *make(u8 mac, struct cpuid_policy *p)
{
	*p = (struct cpuid_policy){ .tsc_khz = 3000000, .apic_khz = 3000000, .phys_bits = 40 };
	p->cr4 = X86_CR4_PAE;
	p->efer = EFER_LME | EFER_LMA;
	p->xcr0 = 7;
	fake_devices = (struct platform_devices){ .network = { "lab", { 2, 0, 0, 0, 0, mac } },
						  .rng = true,
						  .mce = true };
	return fake_vm_with(2, p);
}

static void save_good(void)
{
	struct vm *vm = make(1, &policy);
	struct vcpu *v = vm->vcpus[0];
	struct state_header *h;
	char why[128];

	vm->state = VM_RUNNING;
	apic_set(v, APIC_SVR, APIC_SVR_ENABLE | 0xff);
	apic_set(v, APIC_LVT_TIMER, 0x31 | APIC_TIMER_PERIODIC << APIC_LVT_TIMER_SHIFT);
	apic_set(v, APIC_TMICT, 100000);
	out(v, 0x43, 0x34);
	out(v, 0x40, 0x10);
	out(v, 0x40, 0x27);
	virtio_begin(v, VIRTIO_SLOT_CONSOLE, 0);
	for (u32 q = 0; q < 2; q++) {
		struct fake_ring r;

		virtio_ring(&r, v, VIRTIO_SLOT_CONSOLE, q, 16);
		virtio_add(&r, &(struct fake_buffer){ BUFFERS, 500, !q }, 1);
	}
	virtio_driver_ok(v, VIRTIO_SLOT_CONSOLE);
	(void)io_write(v, IO_MMIO, VIRTIO_GPA(VIRTIO_SLOT_CONSOLE) + VIRTIO_MMIO_QUEUE_NOTIFY, 4,
		       1);
	h = vm_save(vm, vm, why, sizeof(why));
	if (!h || h->size > RECORD_MAX)
		abort();
	length = h->size;
	memcpy(good, h, length);
	state_free(h);
	fake_vm_free(vm);
}

/* All registers that a guest reaches, time that passes, interrupts that are taken. */
static void use(struct vm *vm)
{
	u64 value;

	for (u32 round = 0; round < 2; round++) {
		for (u32 i = 0; i < vm->nr_vcpus; i++) {
			struct vcpu *v = vm->vcpus[i];

			vcpu_request(v, REQ_EVENT | REQ_TIMER);
			for (u32 n = 0; n < 300 && fake_take_eoi(v) >= 0; n++)
				vcpu_request(v, REQ_EVENT);
			for (u32 offset = 0; offset < PAGE_SIZE; offset += 16)
				apic_get(v, offset);
			for (u32 msr = 0x800; msr < 0x840; msr++)
				(void)msr_get(v, msr, &value);
		}
		for (u32 n = 0; n < vm->bus.count[IO_PORT]; n++)
			for (u32 i = 0; i < vm->bus.region[IO_PORT][n].size; i++)
				in(vm->vcpus[0], (u16)(vm->bus.region[IO_PORT][n].base + i));
		for (u32 i = 0; i < 0x40; i++) {
			mmio_set(vm->vcpus[0], IOAPIC_GPA, 4, i);
			mmio_get(vm->vcpus[0], IOAPIC_GPA + 0x10, 4);
		}
		out(vm->vcpus[0], 0x71, 0x55);
		uart_receive(platform_uart(vm), (const u8 *)"some input that is longer", 25);
		for (u32 slot = 0; slot < VIRTIO_SLOTS * 2u; slot++)
			for (u32 kicks = 0; kicks < KICKS; kicks++)
				if (io_write(vm->vcpus[0], IO_MMIO,
					     VIRTIO_GPA(slot / 2) + VIRTIO_MMIO_QUEUE_NOTIFY, 4,
					     slot % 2) != -EAGAIN)
					break;
		fake_advance(vm, 400000);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct state_header *h = (struct state_header *)bad;
	char why[128];
	struct vm *vm;

	fake_now = 1000000000;
	if (!length)
		save_good();
	memcpy(bad, good, length);
	if (size >= sizeof(*h) && !memcmp(data, STATE_MAGIC, 8)) {
		h->size = (u32)MIN(size, sizeof(bad));
		memcpy(h + 1, data + sizeof(*h), h->size - sizeof(*h));
	}
	for (; size >= 3; data += 3, size -= 3) {
		u32 at = data[0] | (data[1] & 0x3fu) << 8;

		if (at >= sizeof(*h) && at < length)
			bad[at] = data[2];
	}
	h->address = 0; /* as in a file: it is not believed */
	h->check = xxh64(h + 1, h->size - sizeof(*h),
			 xxh64(h, offsetof(struct state_header, check), 0));
	if (state_check(h, sizeof(bad)))
		abort();
	vm = make(2, &policy_of_next);
	vm->state = VM_RUNNING;
	if (!vm_load_state(vm, h, why, sizeof(why)))
		use(vm);
	else if (!strstr(why, ": "))
		abort();
	vm->irqchip->reset(vm);
	fake_vm_free(vm);
	if (fake_frames)
		abort();
	return 0;
}
