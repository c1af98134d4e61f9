/* SPDX-License-Identifier: MIT */
#include "tests/unit/dev_fake.h"

#include "dev/lapic.h"

#define VCPUS	   3
#define MASKED	   0x10000
#define EXTINT	   0x700
#define IOAPIC	   0xfec00000
#define FIRST	   0x20
#define SECOND	   0xa0
#define CASCADE	   2
#define EOI	   0x20
#define IRR	   0x0a
#define ISR	   0x0b
#define IRQ_IOAPIC 0x91

static struct vm *vm;
static struct vcpu *boot;

static struct pic *pic(void)
{
	return &platform_of(vm)->pic;
}

static void line(u32 irq, bool level)
{
	vm_irq_line(vm, irq ? irq : PIT_GSI, level);
}

static void pulse(u32 irq)
{
	line(irq, false);
	line(irq, true);
}

/* As kernels do it: vectors 0x20 and 0x28, everything open. */
static void init(u8 icw4)
{
	static const u8 second_of[] = { 4, 2 };

	for (u16 chip = 0; chip < 2; chip++) {
		u16 port = chip ? SECOND : FIRST;

		out(boot, port, 0x11);
		out(boot, port + 1, (u8)(0x20 + 8 * chip));
		out(boot, port + 1, second_of[chip]);
		out(boot, port + 1, icw4);
		out(boot, port + 1, 0);
	}
}

static int setup(void **state)
{
	(void)state;
	vm = fake_vm(VCPUS);
	if (!vm)
		return -1;
	boot = vm->vcpus[0];
	if (platform_write_firmware(vm))
		return -1;
	fake_log_lines = 0;
	init(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	return fake_frames != 0 || fake_log_lines;
}

static u8 get(u16 port, u8 what)
{
	out(boot, port, what);
	return (u8)in(boot, port);
}

static void assert_take(int vector)
{
	assert_int_equal(fake_take(boot), vector);
}

static void test_edge(void **state)
{
	(void)state;
	assert_take(-1);
	line(4, true);
	assert_int_equal(get(FIRST, IRR), 1 << 4);
	assert_take(0x24);
	assert_int_equal(get(FIRST, ISR), 1 << 4);
	assert_int_equal(get(FIRST, IRR), 0);
	out(boot, FIRST, EOI);
	assert_int_equal(get(FIRST, ISR), 0);
	assert_take(-1); /* the line is still there, but that edge was taken */
	line(4, false);
	assert_take(-1);
	line(4, true);
	line(4, false); /* over before anybody took it */
	assert_take(-1);
	pulse(4);
	line(4, true); /* no edge */
	assert_take(0x24);
	line(4, false);
	line(4, true); /* one while it is in service waits */
	assert_take(-1);
	out(boot, FIRST, EOI);
	assert_take(0x24);
	out(boot, FIRST, EOI);
	line(CASCADE, true); /* GSI 2 is the timer's */
	assert_take(0x20);
}

static void test_masked(void **state)
{
	(void)state;
	out(boot, FIRST + 1, 0x10);
	assert_int_equal(in(boot, FIRST + 1), 0x10);
	line(4, true);
	line(3, true);
	assert_take(0x23);
	out(boot, FIRST, EOI);
	assert_take(-1);
	out(boot, FIRST + 1, 0); /* a line that is still there is a request */
	assert_take(0x24);
	out(boot, FIRST, EOI);
	out(boot, FIRST + 1, 0xff);
	pulse(4);
	line(4, false);
	out(boot, FIRST + 1, 0);
	assert_take(-1);
	pulse(4);
	out(boot, FIRST + 1, 0xff); /* masked between request and INTA */
	assert_take(-1);
	platform_reset(vm);
	assert_int_equal(in(boot, FIRST + 1), 0xff);
	assert_int_equal(in(boot, SECOND + 1), 0xff);
}

static void test_level(void **state)
{
	(void)state;
	out(boot, 0x4d0, 0xff);
	out(boot, 0x4d1, 0xff);
	assert_int_equal(in(boot, 0x4d0), 0xf8);
	assert_int_equal(in(boot, 0x4d1), 0xde);
	line(5, true);
	for (u32 i = 0; i < 3; i++) {
		assert_take(0x25);
		out(boot, FIRST, EOI);
	}
	line(5, false);
	assert_take(-1);
	line(10, true);
	for (u32 i = 0; i < 3; i++) {
		assert_take(0x2a);
		out(boot, SECOND, EOI);
		out(boot, FIRST, EOI);
	}
	out(boot, FIRST, 0x11); /* ICW1 leaves ELCR alone */
	assert_int_equal(in(boot, 0x4d0), 0xf8);
}

static void test_priorities(void **state)
{
	(void)state;
	line(5, true);
	line(3, true);
	assert_take(0x23);
	assert_take(-1); /* 5 waits for the EOI */
	line(1, true);	 /* 1 does not */
	assert_take(0x21);
	assert_int_equal(get(FIRST, ISR), 1 << 3 | 1 << 1);
	out(boot, FIRST, EOI); /* of the highest */
	assert_int_equal(get(FIRST, ISR), 1 << 3);
	assert_take(-1);
	out(boot, FIRST, 0x60 | 3);
	assert_take(0x25);
	out(boot, FIRST, 0x60 | 4); /* not in service: nothing */
	assert_int_equal(get(FIRST, ISR), 1 << 5);
	out(boot, FIRST, EOI);
	out(boot, FIRST, EOI); /* one too many */
	assert_int_equal(get(FIRST, ISR), 0);
}

static void test_rotation(void **state)
{
	(void)state;
	out(boot, FIRST, 0xc0 | 4); /* 5 is the highest now */
	pulse(1);
	pulse(6);
	assert_take(0x26);
	out(boot, FIRST, 0xa0); /* EOI, and 6 becomes the lowest */
	pulse(6);
	assert_take(0x21);
	assert_take(-1);
	out(boot, FIRST, 0xe0 | 1); /* the same with a number */
	pulse(1);
	assert_take(0x26);
	pulse(3);
	assert_take(0x23); /* above 6 */
	out(boot, FIRST, 0x60 | 3);
	out(boot, FIRST, 0x60 | 6);
	assert_take(0x21);
}

static void test_auto_eoi(void **state)
{
	(void)state;
	init(3);
	line(3, false);
	pulse(3);
	assert_take(0x23);
	assert_int_equal(get(FIRST, ISR), 0);
	pulse(3);
	assert_take(0x23);
	out(boot, FIRST, 0x80); /* rotate by themselves */
	pulse(3);
	assert_take(0x23);
	pulse(3);
	pulse(7);
	assert_take(0x27);
	assert_take(0x23);
	out(boot, FIRST, 0);
	pulse(5);
	assert_take(0x25);
	pulse(5);
	pulse(3);
	assert_take(0x25); /* 3 is still the lowest, and stays it */
}

static void test_cascade(void **state)
{
	(void)state;
	line(14, true);
	assert_int_equal(get(FIRST, IRR), 1 << CASCADE);
	assert_take(0x2e);
	assert_int_equal(get(FIRST, ISR), 1 << CASCADE);
	assert_int_equal(get(SECOND, ISR), 1 << 6);
	line(9, true); /* the first chip does not let it through */
	assert_take(-1);
	line(1, true);
	assert_take(0x21);
	out(boot, FIRST, EOI);
	out(boot, FIRST, EOI);
	assert_take(0x29); /* above 14, as only the second chip knows */
	out(boot, SECOND, EOI);
	out(boot, FIRST, EOI);
	assert_take(-1); /* 14 is in service still */
	out(boot, SECOND, EOI);
	init(0x11); /* special fully nested mode */
	pulse(14);
	assert_take(0x2e);
	pulse(9);
	assert_take(0x29);
	pulse(5);
	assert_take(-1);
}

static void test_special_mask(void **state)
{
	(void)state;
	pulse(3);
	assert_take(0x23);
	pulse(6);
	assert_take(-1);
	out(boot, FIRST + 1, 1 << 3);
	out(boot, FIRST, 0x68);
	assert_take(0x26); /* what is masked holds nobody up */
	out(boot, FIRST, EOI);
	assert_int_equal(get(FIRST, ISR), 1 << 3);
	out(boot, FIRST, 0x48);
	out(boot, FIRST, EOI);
	assert_int_equal(get(FIRST, ISR), 0);
}

static void test_poll(void **state)
{
	(void)state;
	assert_int_equal(get(FIRST, 0x0c), 0);
	line(6, true);
	assert_int_equal(get(FIRST, 0x0c), 0x86);
	assert_int_equal(get(FIRST, ISR), 1 << 6);
	assert_take(-1);
	line(13, true);
	out(boot, FIRST, 0x0c);
	assert_int_equal(in(boot, FIRST + 1), 0x82);
	assert_int_equal(get(SECOND, 0x0c), 0x85);
	assert_int_equal(in(boot, SECOND), 0); /* back to IRR */
}

static void test_spurious(void **state)
{
	(void)state;
	line(4, true);
	assert_int_equal(vm->irqchip->pending(boot), IRQ_EXTINT);
	line(4, false);
	assert_int_equal(vm->irqchip->ack(boot, IRQ_EXTINT), 0x27);
	assert_int_equal(get(FIRST, ISR), 0);
}

/* The line has to rise anew; single chips and those without ICW4 have fewer words. */
static void test_init(void **state)
{
	(void)state;
	line(4, true);
	assert_take(0x24);
	init(1);
	assert_int_equal(get(FIRST, ISR), 0);
	assert_take(-1);
	pulse(4);
	assert_take(0x24);
	out(boot, FIRST, 0x12);
	pulse(4);
	assert_take(-1); /* not before it is complete */
	out(boot, FIRST + 1, 0x57);
	assert_take(0x54);
	out(boot, FIRST, 0x13);
	out(boot, FIRST + 1, 0x40);
	out(boot, FIRST + 1, 0x02);
	pulse(4);
	assert_take(0x44);
	assert_int_equal(get(FIRST, ISR), 0);
	out(boot, FIRST, 0x10);
	out(boot, FIRST + 1, 0x60);
	out(boot, FIRST + 1, 0x55);
	assert_int_equal(in(boot, FIRST + 1), 0);
	out(boot, FIRST + 1, 0x55);
	assert_int_equal(in(boot, FIRST + 1), 0x55);
}

/* Which vCPUs get it: by LINT0, by the IOAPIC's pin 0, and vCPU 0 without a LAPIC. */
static void test_wiring(void **state)
{
	(void)state;
	struct vcpu *other = vm->vcpus[2];
	u64 base;

	line(4, true);
	assert_int_equal(fake_take(vm->vcpus[1]), -1);
	assert_int_equal(vm->irqchip->pending(other), -1);
	apic_set(boot, APIC_LVT_LINT0, MASKED | EXTINT);
	fake_requested(boot, REQ_EVENT);
	assert_int_equal(vm->irqchip->pending(boot), -1);
	apic_set(boot, APIC_LVT_LINT0, EXTINT); /* what waits is noticed */
	assert_take(0x24);
	out(boot, FIRST, EOI);
	apic_set(boot, APIC_LVT_LINT0, MASKED | EXTINT);
	apic_set(other, APIC_SVR, 0x1ff);
	apic_set(other, APIC_LVT_LINT0, EXTINT);
	fake_requested(other, REQ_EVENT);
	pulse(4);
	assert_take(-1);
	assert_int_equal(fake_take(other), 0x24);
	out(boot, FIRST, EOI);
	apic_set(other, APIC_LVT_LINT0, MASKED);
	fake_requested(other, REQ_EVENT);
	mmio_set(boot, IOAPIC, 4, 0x11);
	mmio_set(boot, IOAPIC + 0x10, 4, 2u << 24);
	mmio_set(boot, IOAPIC, 4, 0x10);
	mmio_set(boot, IOAPIC + 0x10, 4, EXTINT);
	pulse(4);
	assert_take(-1);
	assert_int_equal(fake_take(other), 0x24);
	out(boot, FIRST, EOI);
	init(3);
	pulse(4);
	pulse(5);
	assert_int_equal(fake_take(other), 0x24);
	assert_int_equal(fake_take(other), 0x25); /* a message of its own */
	init(1);
	mmio_set(boot, IOAPIC + 0x10, 4, MASKED);
	assert_int_equal(msr_get(boot, 0x1b, &base), 0);
	assert_int_equal(msr_set(boot, 0x1b, base & ~(1ull << 11)), 0);
	pulse(4);
	assert_int_equal(fake_take(other), -1);
	assert_take(0x24);
}

/* Both controllers have one: none is forgotten, in whichever order they come. */
static void test_beside_lapic(void **state)
{
	(void)state;
	mmio_set(boot, IOAPIC, 4, 0x10 + 2 * 4);
	mmio_set(boot, IOAPIC + 0x10, 4, IRQ_IOAPIC);
	line(4, true); /* is wired to both */
	assert_take(0x24);
	assert_take(IRQ_IOAPIC);
	assert_take(-1);
	out(boot, FIRST, EOI);
	pulse(3); /* the LAPIC's vector in service holds nothing up */
	assert_take(0x23);
	apic_set(boot, APIC_EOI, 0);
	out(boot, FIRST, EOI);
	line(5, true);
	line(6, true);
	assert_take(0x25);
	out(boot, FIRST, EOI);
	assert_take(0x26);
}

/* Whatever the guest writes: an INTA gives a vector of one of the chips, and a request is asked
 * for. */
static void test_random(void **state)
{
	static const u16 ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };

	(void)state;
	srand(5);
	for (u32 i = 0; i < 200000; i++) {
		u16 port = ports[(u32)rand() % ARRAY_SIZE(ports)];
		u64 value;
		int vector;

		switch (rand() % 4) {
		case 0:
			out(boot, port, (u8)rand());
			break;
		case 1:
			io_read(boot, IO_PORT, port, 1u << rand() % 3, &value);
			break;
		case 2:
			line((u32)rand() % 18, rand() & 1);
			break;
		default:
			vector = fake_take(boot);
			assert_true(vector < 0 || vector >> 3 == pic()->chip[0].base >> 3 ||
				    vector >> 3 == pic()->chip[1].base >> 3);
			break;
		}
		if (pic()->output)
			assert_true(boot->requests & REQ_EVENT);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_edge),	 TEST(test_masked),	  TEST(test_level),
		TEST(test_priorities),	 TEST(test_rotation),	  TEST(test_auto_eoi),
		TEST(test_cascade),	 TEST(test_special_mask), TEST(test_poll),
		TEST(test_spurious),	 TEST(test_init),	  TEST(test_wiring),
		TEST(test_beside_lapic), TEST(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
