/* SPDX-License-Identifier: MIT */
#include "dev/uart16550.h"

#include <linux/serial_reg.h>

#define UART_PORTS	 8
#define IIR_FIFO_ENABLED 0xc0
#define MCR_MASK	 0x1f
#define IER_MASK	 0x0f
#define MODEM_LINES_PRESENT \
	(UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS) /* as if a terminal was connected */

static bool fifo_on(const struct uart *u)
{
	return u->fcr & UART_FCR_ENABLE_FIFO;
}

static u8 capacity(const struct uart *u)
{
	return fifo_on(u) ? UART_FIFO_SIZE : 1;
}

static u8 trigger_level(const struct uart *u)
{
	static const u8 level[] = { 1, 4, 8, 14 };
	return fifo_on(u) ? level[u->fcr >> UART_FCR_R_TRIG_SHIFT] : 1;
}

static void fifo_clear(struct uart *u)
{
	u->fifo_head = u->fifo_count = 0;
}

static void fifo_push(struct uart *u, u8 byte)
{
	u->fifo[(u->fifo_head + u->fifo_count++) % UART_FIFO_SIZE] = byte;
}

static u8 fifo_pop(struct uart *u)
{
	u8 byte = u->fifo[u->fifo_head];
	if (u->fifo_count) { /* an empty one repeats its last byte */
		u->fifo_head = (u->fifo_head + 1) % UART_FIFO_SIZE;
		u->fifo_count--;
	}
	return byte;
}

/*
 * The pending interrupt of the highest priority ("Interrupt Control Functions"). Bytes below the
 * trigger level are a time-out at once: nothing more is coming within four character times that
 * take no time.
 */
static u8 interrupt_id(const struct uart *u)
{
	if (u->ier & UART_IER_RLSI && u->lsr_errors)
		return UART_IIR_RLSI;
	if (u->ier & UART_IER_RDI && u->fifo_count)
		return u->fifo_count >= trigger_level(u) ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
	if (u->ier & UART_IER_THRI && u->thr_empty)
		return UART_IIR_THRI;
	if (u->ier & UART_IER_MSI && u->modem & UART_MSR_ANY_DELTA)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

/*
 * After every change. Once per access, so that a byte sent while THRE is still pending makes no new
 * edge.
 */
static void update_line(struct uart *u)
{
	bool line = interrupt_id(u) != UART_IIR_NO_INT;
	if (line == u->line)
		return;
	u->line = line;
	vm_irq_line(u->vm, u->irq, line);
}

/* The modem inputs; in loopback they are wired to the outputs. */
static u8 modem_inputs(const struct uart *u)
{
	if (!(u->mcr & UART_MCR_LOOP))
		return MODEM_LINES_PRESENT;
	return (u8)((u->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
		    (u->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
		    (u->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
		    (u->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

static void write_mcr(struct uart *u, u8 value)
{
	u->mcr = value & MCR_MASK;
	u8 before = u->modem & 0xf0, now = modem_inputs(u), changed = before ^ now;
	u8 delta = (u8)((changed & UART_MSR_CTS ? UART_MSR_DCTS : 0) |
			(changed & UART_MSR_DSR ? UART_MSR_DDSR : 0) |
			(changed & before & UART_MSR_RI ? UART_MSR_TERI
							: 0) | /* the trailing edge only */
			(changed & UART_MSR_DCD ? UART_MSR_DDCD : 0));
	u->modem = (u8)(now | (u->modem & UART_MSR_ANY_DELTA) | delta);
}

/*
 * A byte arrives from our own transmitter. An overrun loses the newcomer in FIFO mode, the old byte
 * otherwise.
 */
static void loop_back(struct uart *u, u8 byte)
{
	if (u->fifo_count == capacity(u)) {
		u->lsr_errors |= UART_LSR_OE;
		if (fifo_on(u))
			return;
		fifo_clear(u);
	}
	fifo_push(u, byte);
}

static void transmit(struct uart *u, u8 byte)
{
	if (u->mcr & UART_MCR_LOOP) {
		loop_back(u, byte);
	} else {
		WRITE_ONCE(u->second_wrote, false);
		if (u->output)
			u->output(u->arg, &byte, 1);
	}
	u->thr_empty = true;
}

void uart_write_second(struct uart *u, const u8 *bytes, size_t n)
{
	spin_lock(&u->lock);
	WRITE_ONCE(u->second_wrote, true);
	if (u->output)
		u->output(u->arg, bytes, n);
	spin_unlock(&u->lock);
}

static void write_fcr(struct uart *u, u8 value)
{
	u8 on = value & UART_FCR_ENABLE_FIFO;
	if (on != (u->fcr & UART_FCR_ENABLE_FIFO) || (on && value & UART_FCR_CLEAR_RCVR))
		fifo_clear(u);
	u->fcr = on ? value & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK) : 0;
}

/* "Interrupt Enable Register": enabling THRE with an empty holding register interrupts at once. */
static void write_ier(struct uart *u, u8 value)
{
	if (value & UART_IER_THRI && !(u->ier & UART_IER_THRI))
		u->thr_empty = true;
	u->ier = value & IER_MASK;
}

static void write_reg(struct uart *u, u64 reg, u8 value)
{
	bool dlab = u->lcr & UART_LCR_DLAB;
	switch (reg) {
	case UART_TX:
		if (dlab)
			u->dll = value;
		else
			transmit(u, value);
		break;
	case UART_IER:
		if (dlab)
			u->dlm = value;
		else
			write_ier(u, value);
		break;
	case UART_FCR:
		write_fcr(u, value);
		break;
	case UART_LCR:
		u->lcr = value;
		break;
	case UART_MCR:
		write_mcr(u, value);
		break;
	case UART_SCR:
		u->scratch = value;
		break;
	}
}

static u8 read_iir(struct uart *u)
{
	u8 id = interrupt_id(u);
	if (id == UART_IIR_THRI)
		u->thr_empty = false; /* reading it is what resets it */
	return id | (fifo_on(u) ? IIR_FIFO_ENABLED : 0);
}

static u8 read_lsr(struct uart *u)
{
	u8 lsr = UART_LSR_TEMT | UART_LSR_THRE | u->lsr_errors | (u->fifo_count ? UART_LSR_DR : 0);
	u->lsr_errors = 0;
	return lsr;
}

static u8 read_msr(struct uart *u)
{
	u8 msr = u->modem;
	u->modem &= (u8)~UART_MSR_ANY_DELTA;
	return msr;
}

static u8 read_reg(struct uart *u, u64 reg)
{
	bool dlab = u->lcr & UART_LCR_DLAB;
	switch (reg) {
	case UART_RX:
		return dlab ? u->dll : fifo_pop(u);
	case UART_IER:
		return dlab ? u->dlm : u->ier;
	case UART_IIR:
		return read_iir(u);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		return read_lsr(u);
	case UART_MSR:
		return read_msr(u);
	default:
		return u->scratch;
	}
}

/* Under the lock: should input_ready be called after it? */
static bool has_room_again(struct uart *u)
{
	bool ready = u->input_waits && u->fifo_count < capacity(u) && !(u->mcr & UART_MCR_LOOP);
	if (ready)
		u->input_waits = false;
	return ready;
}

static void leave(struct uart *u)
{
	update_line(u);
	bool ready = has_room_again(u);
	spin_unlock(&u->lock);
	if (ready && u->input_ready)
		u->input_ready(u->arg);
}

/*
 * A wider access is that many byte accesses, as on the ISA bus; past the last register there is
 * nothing.
 */
static int port_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v;
	struct uart *u = dev;
	*value = 0;
	spin_lock(&u->lock);
	for (u32 i = 0; i < size; i++)
		*value |= (u64)(offset + i < UART_PORTS ? read_reg(u, offset + i) : 0xff) << i * 8;
	leave(u);
	return 0;
}

static int port_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	struct uart *u = dev;
	spin_lock(&u->lock);
	for (u32 i = 0; i < size && offset + i < UART_PORTS; i++)
		write_reg(u, offset + i, (u8)(value >> i * 8));
	leave(u);
	return 0;
}

size_t uart_receive(struct uart *u, const u8 *bytes, size_t n)
{
	size_t taken = 0;
	if (READ_ONCE(u->second_wrote) && u->second_receive(u->second, bytes, n, &taken))
		return taken;
	spin_lock(&u->lock);
	if (!(u->mcr & UART_MCR_LOOP)) /* in loopback the receiver is off the wire */
		for (; taken < n && u->fifo_count < capacity(u); taken++)
			fifo_push(u, bytes[taken]);
	u->input_waits = taken < n;
	update_line(u);
	spin_unlock(&u->lock);
	return taken;
}

void uart_reset(struct uart *u)
{
	spin_lock(&u->lock);
	u->ier = u->lcr = u->mcr = u->fcr = u->lsr_errors = u->scratch = u->dlm = 0;
	u->dll = 1; /* 115200 baud */
	u->thr_empty = u->second_wrote = false;
	u->modem = MODEM_LINES_PRESENT;
	fifo_clear(u);
	leave(u);
}

int uart_create(struct uart *u, struct vm *vm, u16 port, u32 irq)
{
	const struct io_region region = { .name = "uart",
					  .base = port,
					  .size = UART_PORTS,
					  .read = port_read,
					  .write = port_write,
					  .dev = u };
	u->vm = vm;
	u->irq = irq;
	spin_init(&u->lock, RANK_DEVICE);
	uart_reset(u);
	return io_register(vm, IO_PORT, &region);
}
