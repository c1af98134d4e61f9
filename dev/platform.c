/* SPDX-License-Identifier: MIT */
#include "dev/platform.h"

#include <asm-generic/errno.h>
#include <linux/virtio_blk.h>
#include "arch/x86/tsc.h"
#include "dev/acpi.h"
#include "dev/clock.h"
#include "dev/lapic.h"
#include "dev/pm_timer.h"
#include "dev/virtio_console.h"
#include "dev/virtio_rng.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/guestmem.h"
#include "virt/slots.h"
#include "virt/state.h"

_Static_assert(sizeof(struct platform) <= PAGE_SIZE, "a platform is one frame");

struct dev_time dev_time;

/* ISA interrupts are GSIs of the same number, but for the timer's. */
static void irq_line(struct vm *vm, u32 gsi, bool level)
{
	ioapic_set_line(&platform_of(vm)->ioapic, gsi, level);
	pic_set_line(&platform_of(vm)->pic, gsi == PIT_GSI ? 0 : gsi, level);
}

void pic_output(struct vm *vm, bool level)
{
	ioapic_set_line(&platform_of(vm)->ioapic, 0, level);
	for (u32 i = 0; level && i < vm->nr_vcpus; i++)
		if (lapic_takes_extint(lapic_of(vm->vcpus[i])))
			vcpu_request(vm->vcpus[i], REQ_EVENT);
}

static int irq_pending(struct vcpu *v)
{
	if (unlikely(READ_ONCE(platform_of(v->vm)->pic.output)) && lapic_takes_extint(lapic_of(v)))
		return IRQ_EXTINT;
	return lapic_pending(v);
}

/* Beside the PIC's interrupt the LAPIC may have one, which nobody would ask for again. */
static u8 irq_ack(struct vcpu *v, int pending)
{
	if (likely(pending != IRQ_EXTINT)) {
		lapic_ack(v, (u8)pending);
		return (u8)pending;
	}
	vcpu_request(v, REQ_EVENT);
	WRITE_ONCE(lapic_of(v)->extint, false);
	return pic_ack(&platform_of(v->vm)->pic);
}

static void timer(struct vcpu *v)
{
	struct pit *pit = &platform_of(v->vm)->pit;

	lapic_timer_expired(v);
	if (unlikely((READ_ONCE(pit->next) || v->device_timer.armed) && !v->index))
		pit_timer(pit);
}

void lapic_eoi_broadcast(struct vm *vm, u8 vector)
{
	ioapic_eoi(&platform_of(vm)->ioapic, vector);
}

void platform_reset(struct vm *vm)
{
	struct platform *p = platform_of(vm);
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		lapic_reset(vm->vcpus[i]);
		vm->vcpus[i]->kvmclock_msr = 0;
	}
	ioapic_reset(&p->ioapic);
	pic_reset(&p->pic);
	pit_reset(&p->pit);
	power_reset(&p->power);
	if (p->mce)
		mce_reset(p->mce);
	uart_reset(&p->uart);
	for (u32 i = 0; i < VIRTIO_SLOTS; i++)
		if (p->virtio[i])
			virtio_reset(p->virtio[i]);
}

void platform_hold(struct vm *vm, bool held)
{
	struct uart *u = platform_uart(vm);

	for (u32 i = 0; i < VIRTIO_SLOTS; i++) {
		struct virtio *d = platform_virtio(vm, i);

		if (!d)
			continue;
		spin_lock(&d->lock);
		d->held = held;
		spin_unlock(&d->lock);
	}
	if (!held && u->input_ready)
		u->input_ready(u->arg);
}

int platform_fork(struct vm *vm, struct vm *clone)
{
	struct virtio *disk = platform_virtio(vm, VIRTIO_SLOT_BLK);

	return disk ? virtio_blk_fork(disk, platform_virtio(clone, VIRTIO_SLOT_BLK)) : 0;
}

#define FIELD(m, ...)	   STATE_FIELD(struct platform, m, __VA_ARGS__)
#define RUN(from, to, ...) STATE_RUN(struct platform, from, to, __VA_ARGS__)
static const struct state_field fields[] = {
	RUN(ioapic.entry[0], ioapic.entry[IOAPIC_PINS - 1], STATE_BITS, IOAPIC_ENTRY_BITS),
	FIELD(ioapic.lines, STATE_MAX, MASK(IOAPIC_PINS - 1, 0)),
	RUN(ioapic.select, ioapic.id, STATE_ANY),
	RUN(pic.lines, pic.open, STATE_ANY),
	FIELD(pic.output, STATE_MAX, 1),
	FIELD(pit.line, STATE_MAX, 1),
	FIELD(pit.control, STATE_MAX, 15),
	FIELD(pit.next, STATE_TIME),
	RUN(uart.line, uart.input_waits, STATE_MAX, 1),
	RUN(uart.ier, uart.modem, STATE_ANY),
	FIELD(uart.fifo_head, STATE_MAX, UART_FIFO_SIZE - 1),
	FIELD(uart.fifo_count, STATE_MAX, UART_FIFO_SIZE),
	FIELD(uart.fifo, STATE_ANY),
	FIELD(uart.second_wrote, STATE_MAX, 1),
	FIELD(rtc.index, STATE_MAX, RTC_CELLS - 1),
	FIELD(rtc.cells, STATE_ANY),
	FIELD(power.pressed, STATE_ANY),
	RUN(testdev.item, testdev.offset, STATE_ANY),
};

static const struct state_field pic_fields[] = {
	STATE_RUN(struct pic_chip, imr, base, STATE_ANY),
	STATE_RUN(struct pic_chip, lowest, icw, STATE_MAX, 7),
	STATE_RUN(struct pic_chip, single, poll, STATE_MAX, 1),
};

static const struct state_field pit_fields[] = {
	STATE_RUN(struct pit_counter, mode, access, STATE_MAX, 5),
	STATE_RUN(struct pit_counter, bcd, status_latched, STATE_MAX, 1),
	STATE_RUN(struct pit_counter, low, latch, STATE_ANY),
	STATE_FIELD(struct pit_counter, count, STATE_MAX, 65536),
	STATE_FIELD(struct pit_counter, start, STATE_TIME),
	STATE_FIELD(struct pit_counter, ticks, STATE_ANY),
};

/* What a guest has written to a disk is not in its record. */
static void platform_state(struct vm *vm, struct state *s)
{
	struct platform *p = platform_of(vm);
	const struct virtio *disk;

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		lapic_state(vm->vcpus[i], s);
	for (u32 i = 0; i < PIC_CHIPS; i++)
		STATE_PART(s, "PIC", i, &p->pic.chip[i], pic_fields);
	for (u32 i = 0; i < PIT_COUNTERS; i++)
		STATE_PART(s, "PIT", i, &p->pit.counter[i], pit_fields);
	if (STATE_PART(s, "platform", 0, p, fields) && s->loading)
		pit_restore(&p->pit);
	if (p->mce)
		state_bytes(s, "MCE", 0, p->mce, PAGE_SIZE);
	for (u32 i = 0; i < VIRTIO_SLOTS; i++)
		if (p->virtio[i])
			virtio_state(p->virtio[i], s);
	disk = p->virtio[VIRTIO_SLOT_BLK];
	s->disk = disk && !(disk->features & BIT(VIRTIO_BLK_F_RO));
}

static const struct irqchip_ops irqchip = {
	.reset = platform_reset,
	.pending = irq_pending,
	.ack = irq_ack,
	.timer = timer,
	.init = lapic_init,
	.eoi = lapic_eoi_exit,
	.written = lapic_written,
	.line = irq_line,
	.state = platform_state,
	.get_tpr = lapic_get_tpr,
	.set_tpr = lapic_set_tpr,
};

static int create_virtio(struct vm *vm, struct platform *p, const struct platform_devices *devices)
{
	int err = 0;

	if (devices->disk.base)
		err = virtio_blk_create(vm, &devices->disk, &p->virtio[VIRTIO_SLOT_BLK]);
	if (!err && devices->network.name)
		err = virtio_net_create(vm, &devices->network, &p->virtio[VIRTIO_SLOT_NET]);
	if (!err && devices->rng && dev_has_random())
		err = virtio_rng_create(vm, &p->virtio[VIRTIO_SLOT_RNG]);
	if (!err)
		err = virtio_console_create(vm, &p->uart, &p->virtio[VIRTIO_SLOT_CONSOLE]);
	return err;
}

static int create_devices(struct vm *vm, struct platform *p, const struct platform_devices *devices)
{
	int err = 0;
	for (u32 i = 0; !err && i < vm->nr_vcpus; i++)
		err = lapic_create(vm->vcpus[i]);
	if (!err)
		err = lapic_register(vm);
	if (!err)
		err = ioapic_create(&p->ioapic, vm);
	if (!err)
		err = pic_create(&p->pic, vm);
	if (!err)
		err = pit_create(&p->pit, vm);
	if (!err)
		err = uart_create(&p->uart, vm, PLATFORM_UART_PORT, PLATFORM_UART_IRQ);
	if (!err)
		err = rtc_create(&p->rtc, vm, dev_time.wall_base_ns);
	if (!err)
		err = kvmclock_create(&p->kvmclock, vm, dev_time.wall_base_ns, tsc_stable());
	if (!err)
		err = power_create(&p->power, vm);
	p->pm_timer = devices->pm_timer;
	if (!err && p->pm_timer)
		err = pm_timer_create(vm);
	if (!err && devices->mce)
		err = mce_create(vm, &p->mce);
	if (!err)
		err = create_virtio(vm, p, devices);
	return err;
}

/* vm->retry_devices */
static void retry_devices(struct vm *vm)
{
	for (u32 i = 0; i < VIRTIO_SLOTS; i++)
		if (platform_virtio(vm, i))
			virtio_retry(platform_virtio(vm, i));
}

int platform_create(struct vm *vm, const struct platform_devices *devices)
{
	struct platform *p = frame_alloc_zero(FRAME_HEAP, vm->id);
	if (!p)
		return -ENOMEM;
	vm->platform = p;
	vm->irqchip = &irqchip;
	vm->retry_devices = retry_devices;
	int err = create_devices(vm, p, devices);
	if (err)
		platform_destroy(vm);
	return err;
}

/* The network first, a large disk last. */
bool platform_destroy_step(struct vm *vm)
{
	struct platform *p = platform_of(vm);

	if (!p)
		return false;
	for (u32 i = VIRTIO_SLOTS; i--;) {
		if (!p->virtio[i])
			continue;
		if (!virtio_destroy_step(p->virtio[i]))
			p->virtio[i] = NULL;
		return true;
	}
	if (p->mce)
		mce_destroy(vm, p->mce);
	vm->irqchip = NULL;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		lapic_destroy(vm->vcpus[i]);
	frame_free(hpa_pfn(ptr_hpa(p)), FRAME_HEAP, vm->id);
	vm->platform = NULL;
	return false;
}

#define ACPI_ORDER 2 /* 16 KiB of tables: over 300 vCPUs */

static u8 virtio_mask(struct vm *vm)
{
	u8 mask = 0;

	for (u32 i = 0; i < VIRTIO_SLOTS; i++)
		if (platform_virtio(vm, i))
			mask |= (u8)BIT(i);
	return mask;
}

#define SHARED_MAX 64

/* What of its memory has a name; how many. */
static u32 shared_memory_of(struct vm *vm, struct acpi_memory memory[SHARED_MAX])
{
	const struct slot_map *m = vm_slots(vm);
	u32 n = 0;

	for (u32 i = 0; i < m->nr && n < SHARED_MAX; i++) {
		const struct memslot *s = &m->slot[i];

		if (s->backing->name[0])
			memory[n++] = (struct acpi_memory){ .name = s->backing->name,
							    .gpa = s->gpa.v,
							    .size = s->size,
							    .readonly = s->flags & SLOT_READONLY };
	}
	return n;
}

static int write_acpi(struct vm *vm)
{
	const size_t size = PAGE_SIZE << ACPI_ORDER;
	pfn_t f = frame_alloc_order(ACPI_ORDER, FRAME_HEAP, vm->id);
	if (!pfn_valid(f))
		return -ENOMEM;
	memset(pfn_ptr(f), 0, size);
	struct acpi_memory memory[SHARED_MAX];
	int used = acpi_build(pfn_ptr(f), size, ACPI_GPA, vm->nr_vcpus, virtio_mask(vm),
			      platform_of(vm)->pm_timer, memory, shared_memory_of(vm, memory));
	int err = used < 0 ? used : guest_write(vm, GPA(ACPI_GPA), pfn_ptr(f), (size_t)used);
	/* The RSDP again, for kernels that nobody tells: they search for it (ACPI "Finding the RSDP
	 * on IA-PC Systems"). */
	if (!err)
		err = guest_write(vm, GPA(PLATFORM_RSDP), pfn_ptr(f), ACPI_RSDP_SIZE);
	frame_free_order(f, ACPI_ORDER, FRAME_HEAP, vm->id);
	return err;
}

/*
 * What a PC's firmware has at FFFF:0000: software that wants to restart jumps there in real mode.
 *	mov dx, POWER_RESET; mov al, POWER_RESET_VALUE; out dx, al; hlt
 */
static int write_reset_stub(struct vm *vm)
{
	static const u8 stub[] = { 0xba, POWER_RESET & 0xff, POWER_RESET >> 8,
				   0xb0, POWER_RESET_VALUE,  0xee,
				   0xf4 };

	return guest_write(vm, GPA(PLATFORM_RESET_STUB), stub, sizeof(stub));
}

/* "Virtual Wire Mode via Local APIC" (MP specification): the PIC's interrupts reach the boot CPU.
 */
static void wire_pic(struct vm *vm)
{
	struct lapic *l = lapic_of(vm->vcpus[0]);

	*lapic_reg(l, APIC_SVR) |= APIC_SVR_ENABLE;
	*lapic_reg(l, APIC_LVT_LINT0) = APIC_EXTINT << APIC_MODE_SHIFT;
	*lapic_reg(l, APIC_LVT_LINT1) = APIC_NMI << APIC_MODE_SHIFT;
}

int platform_write_firmware(struct vm *vm)
{
	int err = write_acpi(vm);

	wire_pic(vm);
	return err ? err : write_reset_stub(vm);
}
