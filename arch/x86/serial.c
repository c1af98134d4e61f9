/* SPDX-License-Identifier: MIT */
#include <linux/serial_reg.h>
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ioapic.h"
#include "arch/x86/serial.h"
#include "arch/x86/trap.h"
#include "lib/error.h"
#include "lib/spinlock.h"

#define TX_RING	    32768u
#define RX_RING	    1024u
#define FIFO	    16
#define DRAIN_US    1000
#define POLL_US	    10000
#define VECTOR_UART (VECTOR_DEVICE + 3) /* + enum serial_line */

struct serial {
	u16 base;
	struct spinlock tx_lock;
	u32 tx_in, tx_out; /* free-running */
	u32 rx_in, rx_out;
	void (*rx_hook)(void);
	char *tx;
	u8 *rx;
};

static char tx[SERIAL_LINES][TX_RING];
static u8 rx[SERIAL_LINES][RX_RING];
#define LINE(i)                                                                 \
	{                                                                       \
		.tx_lock = SPINLOCK_INIT(RANK_SERIAL), .tx = tx[i], .rx = rx[i] \
	}
static struct serial lines[SERIAL_LINES] = { LINE(0), LINE(1) };
static struct serial *const console = &lines[SERIAL_CONSOLE];
static bool crashed;
static struct timer poll_timer;
DEFINE_PERCPU(struct timer, drain_timer);

u16 serial_port(enum serial_line line)
{
	return lines[line].base;
}

int serial_init(enum serial_line line, u16 port, u32 baud)
{
	u16 divisor = (u16)(115200 / baud);

	outb(port + UART_SCR, 0x5a);
	if (inb(port + UART_SCR) != 0x5a)
		return trace_error(-ENODEV);
	outb(port + UART_IER, 0);
	outb(port + UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	outb(port + UART_DLL, (u8)divisor);
	outb(port + UART_DLM, (u8)(divisor >> 8));
	outb(port + UART_LCR, UART_LCR_WLEN8);
	outb(port + UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	outb(port + UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	lines[line].base = port;
	return 0;
}

/* The transmitter is empty: give it what fits. */
static void drain_some(struct serial *s)
{
	while (s->tx_in != s->tx_out && (inb(s->base + UART_LSR) & UART_LSR_THRE))
		for (u32 i = 0; i < FIFO && s->tx_in != s->tx_out; i++)
			outb(s->base + UART_TX, (u8)s->tx[s->tx_out++ % TX_RING]);
}

static void drain_fire(struct timer *t)
{
	u64 flags = irq_save();
	bool more = false;

	for (u32 i = 0; i < SERIAL_LINES; i++) {
		struct serial *s = &lines[i];

		spin_lock(&s->tx_lock);
		drain_some(s);
		more |= s->tx_in != s->tx_out;
		spin_unlock(&s->tx_lock);
	}
	if (more)
		timer_arm(t, rdtsc() + (u64)DRAIN_US * tsc_khz / 1000);
	irq_restore(flags);
}

static void drain_later(void)
{
	struct timer *t = this_cpu_ptr(struct timer, drain_timer);

	if (!t->fire)
		timer_init(t, drain_fire);
	if (!t->armed)
		timer_arm(t, rdtsc() + (u64)DRAIN_US * tsc_khz / 1000);
}

static void put_now(char c)
{
	for (u32 i = 0; i < 1000000 && !(inb(console->base + UART_LSR) & UART_LSR_THRE); i++)
		cpu_pause();
	outb(console->base + UART_TX, (u8)c);
}

void serial_write_to(enum serial_line line, const char *bytes, size_t n)
{
	struct serial *s = &lines[line];
	u64 flags;

	if (!s->base)
		return;
	flags = irq_save();
	spin_lock(&s->tx_lock);
	while (n--) {
		while (s->tx_in - s->tx_out == TX_RING)
			drain_some(s);
		s->tx[s->tx_in++ % TX_RING] = *bytes++;
	}
	drain_some(s);
	if (s->tx_in != s->tx_out && bitmap_test(cpus_online.bits, this_cpu(cpu_id)))
		drain_later();
	spin_unlock(&s->tx_lock);
	irq_restore(flags);
}

void serial_write(const char *bytes, size_t n)
{
	if (!crashed)
		serial_write_to(SERIAL_CONSOLE, bytes, n);
	while (crashed && console->base && n--)
		put_now(*bytes++);
}

u32 serial_room(void)
{
	return TX_RING - (READ_ONCE(console->tx_in) - READ_ONCE(console->tx_out));
}

void serial_crash_mode(void)
{
	u32 left;

	/* counted once: another CPU may be draining, too, until it is stopped */
	crashed = true;
	for (left = MIN(console->tx_in - console->tx_out, TX_RING); console->base && left; left--)
		put_now(console->tx[console->tx_out++ % TX_RING]);
}

int serial_crash_read(void)
{
	if (!console->base || !(inb(console->base + UART_LSR) & UART_LSR_DR))
		return -1;
	return inb(console->base + UART_RX);
}

void serial_drain(void)
{
	struct serial *s = console;
	u64 flags = irq_save();

	spin_lock(&s->tx_lock);
	while (s->base && s->tx_in != s->tx_out)
		drain_some(s);
	for (u32 i = 0; s->base && i < 1000000 && !(inb(s->base + UART_LSR) & UART_LSR_TEMT); i++)
		cpu_pause();
	spin_unlock(&s->tx_lock);
	irq_restore(flags);
}

/*
 * A full ring leaves the bytes to the UART, for serial_read() to fetch: the interrupt is an edge,
 * and none comes while the UART still has some. Line errors are the sender's to notice.
 */
static void receive(struct serial *s)
{
	bool any = false;

	while (s->rx_in - __atomic_load_n(&s->rx_out, __ATOMIC_ACQUIRE) < RX_RING &&
	       (inb(s->base + UART_LSR) & UART_LSR_DR)) {
		s->rx[s->rx_in % RX_RING] = inb(s->base + UART_RX);
		__atomic_store_n(&s->rx_in, s->rx_in + 1, __ATOMIC_RELEASE);
		any = true;
	}
	if (any)
		s->rx_hook();
}

int serial_read(enum serial_line line)
{
	struct serial *s = &lines[line];
	u32 out = s->rx_out;
	u64 flags;
	u8 c;

	if (__atomic_load_n(&s->rx_in, __ATOMIC_ACQUIRE) == out) {
		flags = irq_save();
		receive(s);
		irq_restore(flags);
	}
	if (__atomic_load_n(&s->rx_in, __ATOMIC_ACQUIRE) == out)
		return -1;
	c = s->rx[out % RX_RING];
	__atomic_store_n(&s->rx_out, out + 1, __ATOMIC_RELEASE);
	return c;
}

static void console_irq(void)
{
	receive(&lines[SERIAL_CONSOLE]);
}

static void gdb_irq(void)
{
	receive(&lines[SERIAL_GDB]);
}

/* Lines whose interrupt is not known. */
static void poll(struct timer *t)
{
	for (u32 i = 0; i < SERIAL_LINES; i++)
		if (lines[i].rx_hook)
			receive(&lines[i]);
	timer_arm(t, rdtsc() + (u64)POLL_US * tsc_khz / 1000);
}

void serial_start_input(enum serial_line line, u32 gsi, u16 flags, void (*received)(void))
{
	struct serial *s = &lines[line];

	if (!s->base)
		return;
	s->rx_hook = received;
	if (gsi && !ioapic_route(gsi, flags, VECTOR_UART + line, cpus[0].apic_id)) {
		trap_set_irq(VECTOR_UART + line, line == SERIAL_GDB ? gdb_irq : console_irq);
		outb(s->base + UART_IER, UART_IER_RDI);
		return;
	}
	if (!poll_timer.fire)
		timer_init(&poll_timer, poll);
	if (!poll_timer.armed)
		timer_arm(&poll_timer, rdtsc() + (u64)POLL_US * tsc_khz / 1000);
}
