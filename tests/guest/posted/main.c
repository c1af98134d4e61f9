/* SPDX-License-Identifier: MIT */
/*
 * Interrupts for a vCPU that is in guest mode all the time, and its own side of them: the CPU may
 * take them from memory, without an exit (posted interrupts of VMX). What is seen here is the same
 * with and without.
 *
 * vm: vcpus = 2
 * vm: cpus = 0-1
 * vm: pin = 0:0 1:1
 */
#include <linux/serial_reg.h>
#include "tests/guest/lib/apic.h"

#define COM1	   0x3f8
#define PIN	   4
#define VECTOR	   0x61
#define LEVEL	   0x42
#define REMOTE_IRR BIT(14)
#define TRIGGER	   BIT(15)
#define MASKED	   BIT(16)
#define SPURIOUS   0xff
#define PINGS	   1000

static void go_x2(void *arg)
{
	(void)arg;
	apic_mode(true);
	memset(this_cpu()->irqs, 0, sizeof(this_cpu()->irqs));
}

static void both_x2(void)
{
	need_cpus(2);
	cpu_call(1, go_x2, NULL);
	apic_mode(true);
}

static u32 got(u8 vector)
{
	return READ_ONCE(cpu_of(1)->irqs[vector]);
}

static bool over;

/* No exit of its own. */
static void spin(void *arg)
{
	(void)arg;
	irq_enable();
	while (!READ_ONCE(over))
		asm volatile("");
	irq_disable();
}

static void begin(void (*fn)(void *), void *arg)
{
	both_x2();
	WRITE_ONCE(over, false);
	cpu_start(1, fn, arg);
}

static void end(void)
{
	WRITE_ONCE(over, true);
	cpu_wait(1);
}

static void send(u8 vector)
{
	apic_icr(1, APIC_ICR_ASSERT | vector);
}

TEST(spins, "1,000 to one that spins, each waited for: the handler has run once for each")
{
	u64 start, ticks = ~0ull;
	u32 i;

	begin(spin, NULL);
	for (i = 1; i <= PINGS; i++) {
		start = rdtsc();
		send(VECTOR);
		if (!WAIT_FOR(got(VECTOR) == i, 5000))
			break;
		ticks = MIN(ticks, rdtsc() - start);
	}
	end();
	EXPECT(i, PINGS + 1);
	EXPECT(got(VECTOR), PINGS);
	note("%lu ticks from the ICR to the other's handler", ticks);
}

TEST(crowd, "200 vectors at once: each comes, also those of a lower class")
{
	u32 missing = 0;

	begin(spin, NULL);
	for (u32 v = 32; v < 232; v++)
		send((u8)v);
	for (u32 v = 32; v < 232; v++)
		missing += !WAIT_FOR(got((u8)v) == 1, 5000);
	end();
	EXPECT(missing, 0);
}

static void masked(void *arg)
{
	apic_write(APIC_TPR, 0xff);
	WRITE_ONCE(*(bool *)arg, true);
	irq_enable();
	while (!READ_ONCE(over))
		asm volatile("");
	if (!WAIT_FOR(apic_pending(VECTOR), 5000))
		error("it did not come");
	EXPECT(got(VECTOR), 0);
	apic_write(APIC_TPR, 0);
	EXPECT_TRUE(WAIT_FOR(got(VECTOR) == 1, 5000));
	irq_disable();
	EXPECT(got(VECTOR), 1);
}

TEST(by_tpr, "one that TPR holds back is in IRR, and comes when TPR falls")
{
	bool ready = false;

	begin(masked, &ready);
	WAIT_FOR(READ_ONCE(ready), 5000);
	send(VECTOR);
	delay_us(300);
	end();
}

static void closed(void *arg)
{
	WRITE_ONCE(*(bool *)arg, true);
	while (!READ_ONCE(over))
		asm volatile("");
	EXPECT(got(VECTOR), 0);
	irq_enable();
	EXPECT_TRUE(WAIT_FOR(got(VECTOR) == 1, 5000));
	irq_disable();
}

TEST(by_if, "one that comes with IF clear comes behind STI")
{
	bool ready = false;

	begin(closed, &ready);
	WAIT_FOR(READ_ONCE(ready), 5000);
	send(VECTOR);
	delay_us(300);
	end();
}

/* Halts, spins and exits in turn. */
static void restless(void *arg)
{
	(void)arg;
	for (u32 i = 0; !READ_ONCE(over); i++) {
		irq_enable();
		for (u32 n = 0; n < i % 50; n++)
			asm volatile("");
		if (i % 3 == 0)
			cpuid(1, 0);
		irq_disable();
		if (i % 4 == 0)
			asm volatile("sti; hlt; cli" : : : "memory");
	}
}

TEST(leaves, "1,000 to one that halts, exits and spins in turn: none is lost, or not sent")
{
	u32 i;

	begin(restless, NULL);
	for (i = 1; i <= PINGS; i++) {
		send(VECTOR);
		if (!WAIT_FOR(got(VECTOR) == i, 5000))
			break;
	}
	WRITE_ONCE(over, true);
	send(VECTOR); /* should it sleep */
	cpu_wait(1);
	EXPECT(i, PINGS + 1);
	EXPECT(got(SPURIOUS), 0);
}

static void on_level(struct frame *f)
{
	inb(COM1 + UART_IIR); /* the line falls */
	apic_eoi();
	this_cpu()->irqs[f->vector]++;
}

TEST(level, "a level-triggered one among them: its EOI reaches the I/O APIC, 100 times")
{
	u32 i, sent = 0;

	begin(spin, NULL);
	trap_handler[LEVEL] = on_level;
	ioapic_entry(PIN, LEVEL | TRIGGER | 1ull << 56);
	for (i = 1; i <= 100; i++) {
		outb(COM1 + UART_IER, UART_IER_THRI);
		for (u32 n = 0; n < 5; n++, sent++)
			send(VECTOR);
		if (!WAIT_FOR(got(LEVEL) == i && !(ioapic_entry_read(PIN) & REMOTE_IRR), 5000))
			break;
		outb(COM1 + UART_IER, 0);
	}
	ioapic_entry(PIN, MASKED);
	end();
	trap_handler[LEVEL] = NULL;
	EXPECT(i, 101);
	EXPECT_TRUE(got(VECTOR) && got(VECTOR) <= sent);
}
