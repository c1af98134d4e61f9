/* SPDX-License-Identifier: MIT */
#include "dev/ioapic.h"

#include "dev/lapic.h"

#define IOAPIC_SELECT 0x00
#define IOAPIC_WINDOW 0x10
#define IOAPIC_EOI    0x40

#define REG_ID	    0x00
#define REG_VERSION 0x01
#define REG_ARB	    0x02
#define REG_ENTRIES 0x10

#define VERSION_VALUE (0x20 | (IOAPIC_PINS - 1) << 16) /* an 82093AA with an EOI register */

#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL	 BIT(15)
#define ENTRY_MASKED	 BIT(16)
#define ENTRY_DEST_SHIFT 56
#define ENTRY_WRITABLE \
	(0xff00000000000000ull | 0x1afff) /* all but delivery status and remote IRR */

static u64 entry_read(struct ioapic *io, u32 pin)
{
	return __atomic_load_n(&io->entry[pin], __ATOMIC_SEQ_CST);
}

static bool entry_swap(struct ioapic *io, u32 pin, u64 *old, u64 new)
{
	return __atomic_compare_exchange_n(&io->entry[pin], old, new, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

static u32 send(struct ioapic *io, u64 entry)
{
	const struct apic_msg msg = {
		.dest = (u32)(entry >> ENTRY_DEST_SHIFT),
		.dest8 = true,
		.logical = entry & APIC_LOGICAL,
		.level = entry & ENTRY_LEVEL,
		.mode = (entry & APIC_MODE) >> APIC_MODE_SHIFT,
		.vector = entry & APIC_VECTOR,
	};
	if (msg.mode == APIC_SIPI) /* reserved here */
		return 0;
	return lapic_deliver(io->vm, NULL, &msg);
}

/*
 * Only fixed and lowest-priority interrupts wait for an EOI; NMI and INIT are edges whatever the
 * entry says ("Delivery Mode").
 */
static bool waits_for_eoi(u64 entry)
{
	return entry & ENTRY_LEVEL && (entry & APIC_MODE) >> APIC_MODE_SHIFT <= APIC_LOWEST;
}

/* Send for an asserted level-triggered pin, unless it is masked or waits for its EOI. */
static void service_level(struct ioapic *io, u32 pin)
{
	u64 entry = entry_read(io, pin);
	do {
		bool asserted = __atomic_load_n(&io->lines, __ATOMIC_SEQ_CST) & 1u << pin;
		if (!asserted || !waits_for_eoi(entry) || entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR))
			return;
	} while (!entry_swap(io, pin, &entry, entry | ENTRY_REMOTE_IRR));
	/* Remote IRR is the acceptance by a LAPIC: with nobody there it isn't set. */
	if (!send(io, entry))
		__atomic_fetch_and(&io->entry[pin], ~ENTRY_REMOTE_IRR, __ATOMIC_SEQ_CST);
}

void ioapic_set_line(struct ioapic *io, u32 pin, bool level)
{
	if (pin >= IOAPIC_PINS)
		return;
	u32 bit = 1u << pin;
	if (!level) {
		__atomic_fetch_and(&io->lines, ~bit, __ATOMIC_SEQ_CST);
		return;
	}
	if (__atomic_fetch_or(&io->lines, bit, __ATOMIC_SEQ_CST) & bit)
		return;
	u64 entry = entry_read(io, pin);
	if (waits_for_eoi(entry))
		service_level(io, pin);
	else if (!(entry & ENTRY_MASKED)) /* an edge at a masked pin is lost */
		send(io, entry);
}

void ioapic_eoi(struct ioapic *io, u8 vector)
{
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 entry = entry_read(io, pin);
		if ((entry & APIC_VECTOR) != vector || !(entry & ENTRY_REMOTE_IRR))
			continue;
		__atomic_fetch_and(&io->entry[pin], ~ENTRY_REMOTE_IRR, __ATOMIC_SEQ_CST);
		service_level(io, pin);
	}
}

/*
 * One half of an entry. Turning a pin to edge-triggered clears its remote IRR: that is how systems
 * acknowledge on an IOAPIC without an EOI register.
 */
static void entry_write(struct ioapic *io, u32 pin, u32 shift, u32 value)
{
	u64 half = 0xffffffffull << shift & ENTRY_WRITABLE;
	u64 old = entry_read(io, pin), new;
	do {
		new = (old & ~half) | ((u64)value << shift & half);
		if (!(new &ENTRY_LEVEL))
			new &= ~ENTRY_REMOTE_IRR;
	} while (!entry_swap(io, pin, &old, new));
	service_level(io, pin);
}

static u32 read_reg(struct ioapic *io)
{
	u32 index = io->select;
	if (index == REG_VERSION)
		return VERSION_VALUE;
	if (index == REG_ID || index == REG_ARB)
		return (u32)io->id << 24;
	u32 pin = (index - REG_ENTRIES) / 2;
	if (index < REG_ENTRIES || pin >= IOAPIC_PINS)
		return 0;
	return (u32)(entry_read(io, pin) >> (index & 1) * 32);
}

static void write_reg(struct ioapic *io, u32 value)
{
	u32 index = io->select;
	u32 pin = (index - REG_ENTRIES) / 2;
	if (index == REG_ID)
		io->id = value >> 24 & 0xf;
	else if (index >= REG_ENTRIES && pin < IOAPIC_PINS)
		entry_write(io, pin, (index & 1) * 32, value);
}

/*
 * IOREGSEL and the EOI register take any width, they have 8 bits. IOWIN is 32 bits: a narrower read
 * gives its low bytes, such a write does nothing.
 */
static int mmio_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v;
	struct ioapic *io = dev;
	*value = 0;
	if (offset == IOAPIC_SELECT)
		*value = io->select;
	else if (offset == IOAPIC_WINDOW)
		*value = read_reg(io) & MASK(MIN(size, 4u) * 8 - 1, 0);
	return 0;
}

static int mmio_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	struct ioapic *io = dev;
	if (offset == IOAPIC_SELECT)
		WRITE_ONCE(io->select, (u8)value);
	else if (offset == IOAPIC_WINDOW && size >= 4)
		write_reg(io, (u32)value);
	else if (offset == IOAPIC_EOI)
		ioapic_eoi(io, (u8)value);
	return 0;
}

void ioapic_reset(struct ioapic *io)
{
	io->select = io->id = 0;
	for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
		__atomic_store_n(&io->entry[pin], ENTRY_MASKED, __ATOMIC_SEQ_CST);
}

int ioapic_create(struct ioapic *io, struct vm *vm)
{
	const struct io_region region = { .name = "ioapic",
					  .base = IOAPIC_GPA,
					  .size = PAGE_SIZE,
					  .read = mmio_read,
					  .write = mmio_write,
					  .dev = io };
	io->vm = vm;
	ioapic_reset(io);
	return io_register(vm, IO_MMIO, &region);
}
