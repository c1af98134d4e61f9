/* SPDX-License-Identifier: MIT */
/* The serial port, mostly as Linux's 8250 driver uses it. */
#include "tests/unit/dev_fake.h"

#include <linux/serial_reg.h>

#define PORT 0x3f8

static struct vm *vm;
static struct vcpu *v;
static struct uart *u;
static u8 sent[256];
static size_t nr_sent, ready_calls;
static u32 edges;
static bool line;

static void output(void *arg, const u8 *bytes, size_t n)
{
	assert_ptr_equal(arg, &sent);
	memcpy(sent + nr_sent, bytes, n);
	nr_sent += n;
}

static void input_ready(void *arg)
{
	assert_ptr_equal(arg, &sent);
	ready_calls++;
}

static void irq_line(struct vm *of, u32 gsi, bool level)
{
	assert_ptr_equal(of, vm);
	if (gsi == POWER_BUTTONS_GSI) { /* platform_reset() lets it go */
		assert_false(level);
		return;
	}
	assert_int_equal(gsi, 4);
	assert_int_not_equal(level, line); /* only changes are told */
	edges += level;
	line = level;
}

static const struct irqchip_ops irqchip = { .line = irq_line };

static int setup(void **state)
{
	(void)state;
	vm = fake_vm(1);
	v = vm->vcpus[0];
	u = platform_uart(vm);
	vm->irqchip = &irqchip;
	u->output = output;
	u->input_ready = input_ready;
	u->arg = &sent;
	nr_sent = ready_calls = edges = 0;
	line = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	return fake_frames != 0;
}

static void set(u8 reg, u8 value)
{
	out(v, PORT + reg, value);
}

static u8 get(u8 reg)
{
	return (u8)in(v, PORT + reg);
}

static size_t type(const char *s)
{
	return uart_receive(u, (const u8 *)s, strlen(s));
}

/* serial8250 autoconfig(): finds a 16550A and nothing newer. */
static void test_autoconfig(void **state)
{
	(void)state;
	set(UART_IER, 0);
	assert_int_equal(get(UART_IER) & 0xf, 0);
	set(UART_IER, 0xff);
	assert_int_equal(get(UART_IER), 0xf); /* no sleep mode, no XScale bits */
	set(UART_IER, 0);
	set(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(get(UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	set(UART_MCR, 0);
	set(UART_LCR, UART_LCR_CONF_MODE_B);
	set(UART_EFR, 0);
	set(UART_LCR, 0);
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(get(UART_IIR) >> 6, 3);
	set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(get(UART_IIR) >> 5, 6);
	set(UART_LCR, UART_LCR_DLAB);
	set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(get(UART_IIR) >> 5, 6);
	set(UART_LCR, 0);
	set(UART_FCR, 0);
	assert_int_equal(get(UART_IIR) >> 6, 0);
	set(UART_SCR, 0x5a);
	assert_int_equal(get(UART_SCR), 0x5a);
}

/* serial8250_do_startup(): the THRE and the TXEN test find no bug. */
static void test_startup_probes(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		set(UART_IER, UART_IER_THRI);
		assert_true(line);
		assert_int_equal(get(UART_LSR), UART_LSR_TEMT | UART_LSR_THRE);
		assert_int_equal(get(UART_IIR), UART_IIR_THRI);
		assert_false(line); /* reading IIR acknowledges */
		assert_int_equal(get(UART_IIR), UART_IIR_NO_INT);
		set(UART_IER, 0);
	}
	set(UART_IER, UART_IER_THRI);
	set(UART_IER, 0);
	assert_false(line);
}

static void test_divisor_latch(void **state)
{
	(void)state;
	set(UART_IER, UART_IER_RDI);
	set(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	assert_int_equal(get(UART_DLL), 1);
	set(UART_DLL, 0x34);
	set(UART_DLM, 0x12);
	assert_int_equal(get(UART_DLL), 0x34);
	assert_int_equal(get(UART_DLM), 0x12);
	set(UART_LCR, UART_LCR_WLEN8);
	assert_int_equal(get(UART_LCR), UART_LCR_WLEN8);
	assert_int_equal(get(UART_IER), UART_IER_RDI);
	assert_int_equal(nr_sent, 0);
}

/*
 * serial8250_tx_chars(): bursts of up to 16, an edge for each burst, the last interrupt when all is
 * sent.
 */
static void test_transmit(void **state)
{
	(void)state;
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	set(UART_IER, UART_IER_THRI);
	assert_int_equal(edges, 1);
	for (u32 burst = 0; burst < 3; burst++) {
		assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_THRI);
		assert_false(line);
		for (u32 i = 0; i < 16; i++) {
			assert_true(get(UART_LSR) & UART_LSR_THRE);
			set(UART_TX, (u8)('a' + i));
		}
		assert_true(line);
		assert_int_equal(edges, 2 + burst);
	}
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_THRI);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_NO_INT);
	assert_int_equal(nr_sent, 48);
	assert_memory_equal(sent + 16, "abcdefghijklmnop", 16);
	set(UART_IER, 0); /* the console's polled output makes no interrupt */
	set(UART_TX, 'x');
	assert_false(line);
	assert_int_equal(sent[48], 'x');
}

static void test_receive(void **state)
{
	(void)state;
	set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	set(UART_IER, UART_IER_RDI | UART_IER_RLSI);
	assert_int_equal(type("abc"), 3);
	assert_true(line);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RX_TIMEOUT);
	assert_int_equal(type("defgh"), 5);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RDI);
	assert_int_equal(type("0123456789"), 8);
	assert_int_equal(type("z"), 0);
	assert_int_equal(ready_calls, 0);
	for (u32 i = 0; i < 16; i++) {
		assert_true(get(UART_LSR) & UART_LSR_DR);
		assert_int_equal(get(UART_RX), "abcdefgh01234567"[i]);
		assert_int_equal(ready_calls, 1); /* once, as soon as there is room */
	}
	assert_false(get(UART_LSR) & (UART_LSR_DR | UART_LSR_OE)); /* refused is not overrun */
	assert_false(line);
	assert_int_equal(type("q"), 1);
	set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_false(line);
	assert_false(get(UART_LSR) & UART_LSR_DR);
	set(UART_FCR, 0);
	assert_int_equal(type("yz"), 1); /* without the FIFO there is one byte */
	assert_int_equal(get(UART_IIR), UART_IIR_RDI);
	assert_int_equal(get(UART_RX), 'y');
	assert_int_equal(ready_calls, 2);
	assert_int_equal(type("x"), 1);
	set(UART_FCR, UART_FCR_ENABLE_FIFO); /* switching clears */
	assert_false(get(UART_LSR) & UART_LSR_DR);
	set(UART_RX, 0); /* TX */
	get(UART_RX);	 /* empty: no crash */
}

static void test_loopback(void **state)
{
	(void)state;
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	set(UART_IER, UART_IER_RDI | UART_IER_RLSI);
	set(UART_MCR, UART_MCR_LOOP);
	assert_int_equal(type("no"), 0); /* the wire is off */
	for (u32 i = 0; i < 17; i++)
		set(UART_TX, (u8)i);
	assert_int_equal(nr_sent, 0);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RLSI); /* before received data */
	assert_true(get(UART_LSR) & UART_LSR_OE);
	assert_false(get(UART_LSR) & UART_LSR_OE);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RDI);
	for (u32 i = 0; i < 16; i++)
		assert_int_equal(get(UART_RX), i);
	assert_int_equal(ready_calls, 0);
	set(UART_MCR, 0);
	assert_int_equal(ready_calls, 1); /* the wire is back */
	set(UART_FCR, 0);
	set(UART_MCR, UART_MCR_LOOP);
	set(UART_TX, 1);
	set(UART_TX, 2);
	assert_int_equal(get(UART_RX), 2); /* without the FIFO the newcomer stays */
	assert_true(get(UART_LSR) & UART_LSR_OE);
}

static void test_modem_lines(void **state)
{
	(void)state;
	static const u8 outputs[] = { UART_MCR_RTS, UART_MCR_DTR, UART_MCR_OUT1, UART_MCR_OUT2 };
	static const u8 inputs[] = { UART_MSR_CTS, UART_MSR_DSR, UART_MSR_RI, UART_MSR_DCD };
	static const u8 deltas[] = { UART_MSR_DCTS, UART_MSR_DDSR, UART_MSR_TERI, UART_MSR_DDCD };
	assert_int_equal(get(UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
	set(UART_MCR, UART_MCR_LOOP);
	get(UART_MSR);
	set(UART_IER, UART_IER_MSI);
	for (u32 i = 0; i < 4; i++) {
		set(UART_MCR, UART_MCR_LOOP | outputs[i]);
		bool ring = inputs[i] == UART_MSR_RI;
		assert_int_equal(line, !ring);
		assert_int_equal(get(UART_IIR), ring ? UART_IIR_NO_INT : UART_IIR_MSI);
		assert_int_equal(get(UART_MSR), inputs[i] | (ring ? 0 : deltas[i]));
		assert_false(line);
		assert_int_equal(get(UART_MSR), inputs[i]);
		set(UART_MCR, UART_MCR_LOOP);
		assert_int_equal(get(UART_MSR), deltas[i]); /* the bell's trailing edge counts */
	}
	set(UART_MCR, 0xff);
	assert_int_equal(get(UART_MCR), 0x1f);
}

/* Line status, received data, THRE, modem status. */
static void test_interrupt_priorities(void **state)
{
	(void)state;
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	set(UART_IER, 0xf);
	get(UART_IIR);
	set(UART_MCR, UART_MCR_LOOP);
	for (u32 i = 0; i < 17; i++)
		set(UART_TX, 0);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RLSI);
	get(UART_LSR);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RDI);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_RDI); /* reading IIR does not change that */
	set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_THRI);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_MSI);
	get(UART_MSR);
	assert_int_equal(get(UART_IIR) & 0xf, UART_IIR_NO_INT);
	assert_int_equal(edges, 2); /* THRE at first, then never idle in between */
}

static void test_any_access(void **state)
{
	(void)state;
	u64 value;
	u->output = NULL;
	u->input_ready = NULL;
	srand(2);
	for (u32 i = 0; i < 200000; i++) {
		u16 port = (u16)(PORT + rand() % 8);
		u32 size = 1u << rand() % 3;
		if (rand() & 1)
			assert_int_equal(io_write(v, IO_PORT, port, size, (u64)rand()), 0);
		else
			assert_int_equal(io_read(v, IO_PORT, port, size, &value), 0);
		if (rand() % 4 == 0)
			type("some longer text that never fits");
		assert_true(u->fifo_count <= UART_FIFO_SIZE);
	}
	platform_reset(vm);
	assert_false(line);
	assert_int_equal(io_read(v, IO_PORT, PORT + 7, 4, &value), 0);
	assert_int_equal(value, 0xffffff00);
	assert_int_equal(io_read(v, IO_PORT, PORT + UART_LCR, 2, &value), 0);
	assert_int_equal(value, 0);
}

/* Through the real interrupt controllers: a typed character becomes a vector. */
static void test_end_to_end(void **state)
{
	(void)state;
	struct vm *whole = fake_vm(1);
	struct vcpu *cpu = whole->vcpus[0];
	apic_set(cpu, APIC_SVR, 0x1ff);
	mmio_set(cpu, IOAPIC_GPA, 4, 0x10 + 2 * 4);
	mmio_set(cpu, IOAPIC_GPA + 0x10, 4, 0x24);
	out(cpu, PORT + UART_IER, UART_IER_RDI);
	assert_int_equal(uart_receive(platform_uart(whole), (const u8 *)"x", 1), 1);
	assert_int_equal(fake_take_eoi(cpu), 0x24);
	assert_int_equal(in(cpu, PORT), 'x');
	assert_int_equal(fake_take_eoi(cpu), -1);
	fake_vm_free(whole);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_autoconfig),	  TEST(test_startup_probes),
		TEST(test_divisor_latch), TEST(test_transmit),
		TEST(test_receive),	  TEST(test_loopback),
		TEST(test_modem_lines),	  TEST(test_interrupt_priorities),
		TEST(test_any_access),	  TEST(test_end_to_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
