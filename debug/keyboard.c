/* SPDX-License-Identifier: MIT */
/* The i8042 as IBM's AT technical reference has it ("Keyboard controller"), scan code set 1. */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ioapic.h"
#include "arch/x86/trap.h"
#include "debug/keyboard.h"

#define PORT_DATA   0x60
#define PORT_STATUS 0x64 /* written: a command */
#define ISA_IRQ	    1
#define VECTOR	    (VECTOR_DEVICE + 5)

#define STATUS_OUTPUT BIT(0) /* a byte for us */
#define STATUS_INPUT  BIT(1) /* it has not taken our byte yet */
#define STATUS_AUX    BIT(5) /* the byte is the mouse's */
#define STATUS_NONE   0xff   /* nobody there */

#define COMMAND_READ  0x20 /* the command byte */
#define COMMAND_WRITE 0x60

#define BYTE_IRQ1     BIT(0)
#define BYTE_DISABLED BIT(4) /* the keyboard's clock */
#define BYTE_SET1     BIT(6) /* translate what it sends */

#define SCAN_F1 0x3b
#define SCAN_F2 0x3c

#define TRIES 1000 /* of 10 us */

static void (*hook)(enum screen_page page);

/* Until that bit of the status is as wanted. */
static bool wait_status(u8 bit, bool wanted)
{
	for (u32 i = 0; i < TRIES; i++) {
		if (!!(inb(PORT_STATUS) & bit) == wanted)
			return true;
		clock_delay_us(10);
	}
	return false;
}

static bool send(u16 port, u8 byte)
{
	if (!wait_status(STATUS_INPUT, false))
		return false;
	outb(port, byte);
	return true;
}

/* The firmware may leave bytes behind; while they are there, no interrupt comes. */
static void drop_bytes(void)
{
	for (u32 i = 0; i < 16 && (inb(PORT_STATUS) & STATUS_OUTPUT); i++)
		(void)inb(PORT_DATA);
}

static void interrupt(void)
{
	u8 status = inb(PORT_STATUS), code;

	if (!(status & STATUS_OUTPUT))
		return;
	code = inb(PORT_DATA);
	if (!(status & STATUS_AUX) && (code == SCAN_F1 || code == SCAN_F2))
		hook(code == SCAN_F1 ? SCREEN_LOG : SCREEN_STATUS);
}

bool keyboard_init(void (*pressed)(enum screen_page page))
{
	u16 flags;
	u32 gsi = ioapic_isa_gsi(ISA_IRQ, &flags);
	u8 byte;

	if (inb(PORT_STATUS) == STATUS_NONE)
		return false;
	drop_bytes();
	if (!send(PORT_STATUS, COMMAND_READ) || !wait_status(STATUS_OUTPUT, true))
		return false;
	byte = (u8)((inb(PORT_DATA) | BYTE_IRQ1 | BYTE_SET1) & ~BYTE_DISABLED);
	hook = pressed;
	trap_set_irq(VECTOR, interrupt);
	if (ioapic_route(gsi, flags, VECTOR, cpus[0].apic_id))
		return false;
	if (!send(PORT_STATUS, COMMAND_WRITE) || !send(PORT_DATA, byte))
		return false;
	drop_bytes();
	return true;
}
