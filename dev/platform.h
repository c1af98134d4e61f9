/* SPDX-License-Identifier: MIT */
/* All devices of one VM. */
#pragma once

#include "dev/ioapic.h"
#include "dev/kvmclock.h"
#include "dev/mce.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/power.h"
#include "dev/rtc.h"
#include "dev/testdev.h"
#include "dev/uart16550.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_net.h"
#include "virt/vm.h"

#define PLATFORM_UART_PORT  0x3f8
#define PLATFORM_UART_IRQ   4
#define PLATFORM_RESET_STUB 0xffff0ul
#define PLATFORM_RSDP	    0xe0000ul

struct platform {
	struct ioapic ioapic;
	struct pic pic;
	struct pit pit;
	struct uart uart;
	struct rtc rtc;
	struct kvmclock kvmclock;
	struct power power;
	bool pm_timer;
	struct mce *mce;		     /* NULL: no machine checks */
	struct testdev testdev;		     /* not of platform_create: testdev_create() */
	struct virtio *virtio[VIRTIO_SLOTS]; /* NULL: not in this VM */
};

/* What not every VM has. */
struct platform_devices {
	struct virtio_disk disk;
	struct virtio_network network;
	bool rng; /* where the CPU has a source */
	bool pm_timer;
	bool mce;
};

/*
 * The devices of a VM whose vCPUs exist, in power-on state: registers them on its bus, gives each
 * vCPU its LAPIC, and sets vm->platform and vm->irqchip. -ENOMEM, or io_register's error; nothing
 * is left behind then, except on the bus, whose VM is to be destroyed.
 */
int platform_create(struct vm *vm, const struct platform_devices *devices);
/*
 * A part of giving everything back, that takes no longer than some 10 us; false: nothing is left.
 * Before vm_destroy(): other VMs may send to this one's network until its card is gone.
 */
bool platform_destroy_step(struct vm *vm);
static inline void platform_destroy(struct vm *vm)
{
	while (platform_destroy_step(vm))
		;
}
/*
 * While held, no device touches the VM's memory: what other VMs send is dropped, what is typed
 * waits. Its vCPUs are at rest.
 */
void platform_hold(struct vm *vm, bool held);
/* A clone's disk, while the VM is held: virtio_blk_fork(). 0 also if there is none. */
int platform_fork(struct vm *vm, struct vm *clone);
/* Power-on state: see struct irqchip_ops. */
void platform_reset(struct vm *vm);
/*
 * What the guest believes its firmware left: in memory the ACPI tables at ACPI_GPA, with a second
 * RSDP where a BIOS has it, and the reset stub; vCPU 0's LAPIC in virtual wire mode. 0, -ENOMEM,
 * -EFAULT: no memory there. Again after each reset.
 */
int platform_write_firmware(struct vm *vm);

static inline struct platform *platform_of(struct vm *vm)
{
	return vm->platform;
}

/* NULL: the VM has no such device. */
static inline struct virtio *platform_virtio(struct vm *vm, enum virtio_slot slot)
{
	return vm->platform ? platform_of(vm)->virtio[slot] : NULL;
}

static inline struct uart *platform_uart(struct vm *vm)
{
	return &platform_of(vm)->uart;
}
