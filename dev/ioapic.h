/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: 24 pins, as in the Intel 82093AA data sheet, with the EOI register of its
 * successors. A pin is a GSI.
 *
 *	line (any CPU) -> lines ---+--> service: send, remote IRR --> lapic_deliver
 *	entry written -> entry ----+          ^
 *	EOI of the vector (broadcast, or by the EOI register) ---- clears remote IRR
 *
 * No lock: `lines` and the entries change by atomic operations; whoever makes a level-triggered pin
 * ready looks at the other conditions after that, and the one who sets remote IRR sends. Devices
 * may call ioapic_line under their own locks.
 */
#pragma once

#include "virt/vm.h"

#define IOAPIC_PINS	  24
#define IOAPIC_GPA	  0xfec00000ull
#define IOAPIC_ENTRY_BITS 0xff0000000001efffull /* without the delivery status */

struct ioapic {
	struct vm *vm;
	u64 entry[IOAPIC_PINS]; /* atomic; redirection table */
	u32 lines;		/* atomic; asserted pins */
	u8 select;		/* IOREGSEL */
	u8 id;
};

/* Power-on state; registers the MMIO page. 0, or io_register's error. */
int ioapic_create(struct ioapic *io, struct vm *vm);
/* The VM is not running. Lines keep their level: they belong to the devices. */
void ioapic_reset(struct ioapic *io);
/* Pins beyond the last are ignored. Any CPU. */
void ioapic_set_line(struct ioapic *io, u32 pin, bool level);
/* A level-triggered vector was acknowledged: by a LAPIC, or by the EOI register. Any CPU. */
void ioapic_eoi(struct ioapic *io, u8 vector);
