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
#define VECTOR_UART (VECTOR_DEVICE + 4)

static u16 base;
static char tx[TX_RING];
static u32 tx_in, tx_out; /* free-running */
static u8 rx[RX_RING];
static u32 rx_in, rx_out;
static bool crashed;
static struct spinlock tx_lock = SPINLOCK_INIT(RANK_SERIAL);
static void (*rx_hook)(void);
static struct timer poll_timer;
DEFINE_PERCPU(struct timer, drain_timer);

u16 serial_port(void)
{
	return base;
}

int serial_init(u16 port, u32 baud)
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
	base = port;
	return 0;
}

/* The transmitter is empty: give it what fits. */
static void drain_some(void)
{
	while (tx_in != tx_out && (inb(base + UART_LSR) & UART_LSR_THRE))
		for (u32 i = 0; i < FIFO && tx_in != tx_out; i++)
			outb(base + UART_TX, (u8)tx[tx_out++ % TX_RING]);
}

static void drain_fire(struct timer *t)
{
	u64 flags = irq_save();

	spin_lock(&tx_lock);
	drain_some();
	if (tx_in != tx_out)
		timer_arm(t, rdtsc() + (u64)DRAIN_US * tsc_khz / 1000);
	spin_unlock(&tx_lock);
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
	for (u32 i = 0; i < 1000000 && !(inb(base + UART_LSR) & UART_LSR_THRE); i++)
		cpu_pause();
	outb(base + UART_TX, (u8)c);
}

void serial_write(const char *bytes, size_t n)
{
	u64 flags;

	if (!base)
		return;
	if (crashed) {
		while (n--)
			put_now(*bytes++);
		return;
	}
	flags = irq_save();
	spin_lock(&tx_lock);
	while (n--) {
		while (tx_in - tx_out == TX_RING)
			drain_some();
		tx[tx_in++ % TX_RING] = *bytes++;
	}
	drain_some();
	if (tx_in != tx_out && bitmap_test(cpus_online.bits, this_cpu(cpu_id)))
		drain_later();
	spin_unlock(&tx_lock);
	irq_restore(flags);
}

void serial_crash_mode(void)
{
	u32 left;

	/* counted once: another CPU may be draining, too, until it is stopped */
	crashed = true;
	for (left = MIN(tx_in - tx_out, TX_RING); base && left; left--)
		put_now(tx[tx_out++ % TX_RING]);
}

void serial_drain(void)
{
	u64 flags = irq_save();

	spin_lock(&tx_lock);
	while (base && tx_in != tx_out)
		drain_some();
	for (u32 i = 0; base && i < 1000000 && !(inb(base + UART_LSR) & UART_LSR_TEMT); i++)
		cpu_pause();
	spin_unlock(&tx_lock);
	irq_restore(flags);
}

/*
 * A full ring leaves the bytes to the UART, for serial_read() to fetch: the interrupt is an edge,
 * and none comes while the UART still has some. Line errors are the sender's to notice.
 */
static void receive(void)
{
	bool any = false;

	while (rx_in - __atomic_load_n(&rx_out, __ATOMIC_ACQUIRE) < RX_RING &&
	       (inb(base + UART_LSR) & UART_LSR_DR)) {
		rx[rx_in % RX_RING] = inb(base + UART_RX);
		__atomic_store_n(&rx_in, rx_in + 1, __ATOMIC_RELEASE);
		any = true;
	}
	if (any)
		rx_hook();
}

int serial_read(void)
{
	u32 out = rx_out;
	u64 flags;
	u8 c;

	if (__atomic_load_n(&rx_in, __ATOMIC_ACQUIRE) == out) {
		flags = irq_save();
		receive();
		irq_restore(flags);
	}
	if (__atomic_load_n(&rx_in, __ATOMIC_ACQUIRE) == out)
		return -1;
	c = rx[out % RX_RING];
	__atomic_store_n(&rx_out, out + 1, __ATOMIC_RELEASE);
	return c;
}

static void poll(struct timer *t)
{
	receive();
	timer_arm(t, rdtsc() + (u64)POLL_US * tsc_khz / 1000);
}

void serial_start_input(u32 gsi, u16 flags, void (*received)(void))
{
	if (!base)
		return;
	rx_hook = received;
	if (gsi && !ioapic_route(gsi, flags, VECTOR_UART, cpus[0].apic_id)) {
		trap_set_irq(VECTOR_UART, receive);
		outb(base + UART_IER, UART_IER_RDI);
		return;
	}
	timer_init(&poll_timer, poll);
	timer_arm(&poll_timer, rdtsc() + (u64)POLL_US * tsc_khz / 1000);
}
