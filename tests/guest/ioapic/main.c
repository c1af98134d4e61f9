/* SPDX-License-Identifier: MIT */
/* The I/O APIC, with the serial port's interrupt (pin 4) as the line that a test can move. */
#include <linux/serial_reg.h>
#include "tests/guest/lib/apic.h"

#define COM1	   0x3f8
#define PIN	   4
#define VECTOR	   0x71
#define LEVEL	   BIT(15)
#define MASKED	   BIT(16)
#define REMOTE_IRR BIT(14)
#define IRQS	   (*(volatile u32 *)&this_cpu()->irqs[VECTOR])

/* The line of the THRE interrupt: up when it is enabled, down by a read of IIR. */
static void line_up(void)
{
	outb(COM1 + UART_IER, UART_IER_THRI);
}

static void line_down(void)
{
	outb(COM1 + UART_IER, 0);
	inb(COM1 + UART_IIR);
}

static void quiet(void)
{
	line_down();
	ioapic_entry(PIN, MASKED);
}

TEST(registers, "version, ID, entries; what does not exist reads as 0")
{
	EXPECT(ioapic_read(1) & 0xff, 0x20);
	u32 pins = (ioapic_read(1) >> 16 & 0xff) + 1;

	EXPECT(pins, 24);
	ioapic_write(0, 0x0f000000);
	EXPECT(ioapic_read(0), 0x0f000000);
	ioapic_write(0, 0);
	for (u32 i = 0; i < pins; i++)
		EXPECT(ioapic_entry_read(i) & MASKED, MASKED);
	EXPECT(ioapic_read((u8)(0x10 + 2 * pins)), 0);
	EXPECT(ioapic_read(0xff), 0);
	ioapic_write(0xff, ~0u);
	ioapic_entry(0, ~0ull);
	EXPECT(ioapic_entry_read(0), 0xff0000000001afff);
	ioapic_entry(0, MASKED);
}

TEST(edge, "edge: one interrupt for each rise of the line")
{
	quiet();
	ioapic_entry(PIN, VECTOR);
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	take_irqs();
	EXPECT(IRQS, 1); /* it stays up: no further one */
	line_down();
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 2, 100));
	quiet();
}

TEST(edge_masked, "an edge at a masked pin is lost")
{
	quiet();
	ioapic_entry(PIN, VECTOR | MASKED);
	line_up();
	ioapic_entry(PIN, VECTOR);
	take_irqs();
	EXPECT(IRQS, 0);
	quiet();
}

static void no_eoi(struct frame *f)
{
	this_cpu()->irqs[f->vector]++;
}

TEST(level, "level: again after each EOI while the line is up; remote IRR until then")
{
	quiet();
	trap_handler[VECTOR] = no_eoi;
	ioapic_entry(PIN, VECTOR | LEVEL);
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, REMOTE_IRR);
	EXPECT(apic_read(APIC_TMR + VECTOR / 32 * 16) >> VECTOR % 32 & 1, 1);
	take_irqs();
	EXPECT(IRQS, 1);
	apic_eoi();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 2, 100));
	line_down();
	apic_eoi();
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, 0);
	take_irqs();
	EXPECT(IRQS, 2);
	quiet();
}

TEST(level_masked, "level: a line that is up waits behind the mask")
{
	quiet();
	ioapic_entry(PIN, VECTOR | LEVEL | MASKED);
	line_up();
	take_irqs();
	EXPECT(IRQS, 0);
	trap_handler[VECTOR] = no_eoi;
	ioapic_write(0x10 + PIN * 2, VECTOR | LEVEL);
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	line_down();
	apic_eoi();
	quiet();
}

TEST(level_mask_in_handler, "masked while in service: EOI brings nothing, unmasking does")
{
	quiet();
	trap_handler[VECTOR] = no_eoi;
	ioapic_entry(PIN, VECTOR | LEVEL);
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	ioapic_write(0x10 + PIN * 2, VECTOR | LEVEL | MASKED);
	apic_eoi();
	take_irqs();
	EXPECT(IRQS, 1);
	ioapic_write(0x10 + PIN * 2, VECTOR | LEVEL);
	EXPECT_TRUE(WAIT_IRQ(IRQS == 2, 100));
	line_down();
	apic_eoi();
	quiet();
}

TEST(directed_eoi, "with suppressed broadcasts the I/O APIC's own EOI register ends it")
{
	quiet();
	if (!(apic_read(APIC_VERSION) & BIT(24)))
		skip("no suppression of EOI broadcasts");
	trap_handler[VECTOR] = no_eoi;
	apic_write(APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_NO_BROADCAST | 0xff);
	ioapic_entry(PIN, VECTOR | LEVEL);
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	line_down();
	apic_eoi();
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, REMOTE_IRR);
	*(volatile u32 *)(IOAPIC_GPA + 0x40) = VECTOR;
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, 0);
	quiet();
}

TEST(to_edge, "turning a pin to edge clears its remote IRR")
{
	quiet();
	trap_handler[VECTOR] = no_eoi;
	ioapic_entry(PIN, VECTOR | LEVEL);
	line_up();
	EXPECT_TRUE(WAIT_IRQ(IRQS == 1, 100));
	line_down();
	ioapic_write(0x10 + PIN * 2, VECTOR | MASKED);
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, 0);
	apic_eoi();
	quiet();
}

TEST(nobody, "a destination that nobody has loses the interrupt, and nothing hangs")
{
	quiet();
	ioapic_entry(PIN, VECTOR | LEVEL | 9ull << 56);
	line_up();
	take_irqs();
	EXPECT(IRQS, 0);
	EXPECT(ioapic_entry_read(PIN) & REMOTE_IRR, 0);
	quiet();
}
