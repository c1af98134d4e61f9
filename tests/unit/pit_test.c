/* SPDX-License-Identifier: MIT */
#include "tests/unit/dev_fake.h"

#define TICKS(n) (((u64)(n)*1000 + 50) * tsc_khz / PIT_HZ) /* host TSC until n ticks are over */
#define CONTROL	 0x43
#define GATE	 0x61
#define IRQ	 0x20

static struct vm *vm;
static struct vcpu *boot;

static int setup(void **state)
{
	(void)state;
	fake_now = 1000000;
	fake_log_lines = 0;
	vm = fake_vm(2);
	if (!vm || platform_write_firmware(vm))
		return -1;
	boot = vm->vcpus[0];
	out(boot, 0x20, 0x11);
	out(boot, 0x21, IRQ);
	out(boot, 0x21, 4);
	out(boot, 0x21, 3); /* EOI by itself */
	out(boot, 0x21, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	return fake_frames != 0 || fake_log_lines;
}

/* From a vCPU that is not the timer's. */
static void program(u32 counter, u32 mode, u32 count)
{
	struct vcpu *v = vm->vcpus[1];

	out(v, CONTROL, (u8)(counter << 6 | 3 << 4 | mode << 1));
	out(v, (u16)(0x40 + counter), (u8)count);
	out(v, (u16)(0x40 + counter), (u8)(count >> 8));
}

/* As a 16-bit counter or, with digits, in BCD. */
static u32 count(u32 counter)
{
	u16 port = (u16)(0x40 + counter);
	u32 low;

	out(boot, CONTROL, (u8)(counter << 6));
	low = (u32)in(boot, port);
	return low | (u32)in(boot, port) << 8;
}

static u8 status(u32 counter)
{
	out(boot, CONTROL, (u8)(0xe0 | 2u << counter));
	return (u8)in(boot, (u16)(0x40 + counter));
}

/* Interrupts until then; vCPU 0 takes each at once. */
static u32 interrupts(u64 ticks)
{
	u32 n = 0;
	u64 until = fake_now + TICKS(ticks);

	for (;;) {
		int vector = fake_take(boot);
		u64 next = boot->device_timer.armed ? boot->device_timer.deadline : ~0ull;

		if (vector >= 0) {
			assert_int_equal(vector, IRQ);
			n++;
		} else if (fake_now >= until) {
			return n;
		} else {
			fake_advance(vm, MAX(MIN(next, until), fake_now) - fake_now);
		}
	}
}

static void test_periodic(void **state)
{
	(void)state;
	for (u32 mode = 2; mode <= 7; mode += mode == 3 ? 3 : 1) { /* 6 and 7 are 2 and 3 */
		program(0, mode, 1193);
		assert_int_equal(interrupts(10), 1); /* the output was low until now, or before 0 */
		assert_in_range(interrupts(1193 * 100), 99, 101);
		program(0, mode, 0);
		interrupts(10);
		assert_int_equal(interrupts(65536 * 3), 3);
		program(0, 0, 65535);
		assert_int_equal(interrupts(0), 0);
	}
	assert_false(vm->vcpus[1]->device_timer.armed);
}

static void test_one_shot(void **state)
{
	(void)state;
	program(0, 0, 1000);
	assert_int_equal(interrupts(990), 0);
	assert_int_equal(status(0) >> 7, 0);
	assert_int_equal(interrupts(20), 1);
	assert_int_equal(status(0) >> 7, 1);
	assert_int_equal(interrupts(200000), 0);
	assert_false(boot->device_timer.armed);
	out(boot, 0x40, 100); /* again, without a control word */
	out(boot, 0x40, 0);
	assert_int_equal(interrupts(110), 1);
	program(0, 0, 1000);
	fake_now += TICKS(1000); /* the host's timer is late */
	assert_int_equal(status(0) >> 7, 1);
	assert_int_equal(fake_take(boot), IRQ); /* who sees the output high has the interrupt */
	program(0, 4, 1000);
	assert_int_equal(interrupts(990), 0);
	assert_int_equal(interrupts(20), 1);
	assert_int_equal(interrupts(200000), 0);
	program(0, 1, 1000); /* waits for a gate that never rises */
	assert_int_equal(interrupts(200000), 0);
	program(0, 2, 1000);
	interrupts(0);
	out(boot, CONTROL, 0x30); /* the control word alone stops it */
	assert_int_equal(interrupts(200000), 0);
}

/* Interrupts that nobody took in time are one, and the raster stays. */
static void test_missed(void **state)
{
	(void)state;
	program(0, 2, 10000);
	interrupts(0);
	fake_now += TICKS(10000 * 7 + 5000);
	boot->device_timer.armed = false;
	vcpu_request(boot, REQ_TIMER);
	assert_int_equal(fake_take(boot), IRQ);
	assert_int_equal(fake_take(boot), -1);
	assert_int_equal(interrupts(4900), 0);
	assert_int_equal(interrupts(200), 1);
}

/* HAZARDS row 35, for this timer. */
static void test_storm(void **state)
{
	(void)state;
	for (u32 n = 1; n < 20; n++) {
		program(0, 2, n);
		assert_in_range(interrupts(PIT_HZ / 100), 450, 502);
	}
}

static void test_counts(void **state)
{
	(void)state;
	assert_int_equal(count(0), 0); /* nothing was loaded */
	program(0, 2, 1000);
	for (u64 i = 0, begin = fake_now; i < 1000; i += 7) {
		fake_now = begin + TICKS(i);
		assert_int_equal(count(0), 1000 - i);
	}
	program(1, 3, 1000);
	fake_advance(vm, TICKS(100));
	assert_int_equal(count(1), 800);
	assert_int_equal(status(1), 0x80 | 3 << 4 | 3 << 1);
	fake_advance(vm, TICKS(450));
	assert_int_equal(count(1), 900);
	assert_int_equal(status(1) >> 7, 0);
	program(1, 0, 100);
	fake_advance(vm, TICKS(110));
	assert_int_equal(count(1), 0xfff6); /* counts on behind 0 */
	out(boot, CONTROL, 0x71);	    /* BCD */
	assert_int_equal(status(1), 0x40 | 3 << 4 | 1);
	out(boot, 0x41, 0x34);
	out(boot, 0x41, 0x12);
	assert_int_equal(status(1), 3 << 4 | 1);
	fake_advance(vm, TICKS(35));
	assert_int_equal(count(1), 0x1199);
	fake_advance(vm, TICKS(1200));
	assert_int_equal(count(1), 0x9999);
	out(boot, 0x41, 0);
	out(boot, 0x41, 0);
	assert_int_equal(count(1), 0); /* 10000 */
	fake_advance(vm, TICKS(1));
	assert_int_equal(count(1), 0x9999);
}

static void test_latches(void **state)
{
	(void)state;
	program(1, 2, 0x8421);
	out(boot, CONTROL, 1 << 6);
	fake_advance(vm, TICKS(0x500));
	out(boot, CONTROL, 1 << 6); /* the first latch stays until it is read */
	assert_int_equal(in(boot, 0x41), 0x21);
	assert_int_equal(in(boot, 0x41), 0x84);
	assert_int_equal(in(boot, 0x41), 0x21); /* 0x7f21, as it counts */
	assert_int_equal(in(boot, 0x41), 0x7f);
	out(boot, CONTROL, 0xc0 | 4); /* status before count */
	fake_advance(vm, TICKS(10));
	assert_int_equal(in(boot, 0x41), 0x80 | 3 << 4 | 2 << 1);
	assert_int_equal(in(boot, 0x41), 0x21);
	assert_int_equal(in(boot, 0x41), 0x7f);
	out(boot, CONTROL, 0x54); /* low byte only */
	out(boot, 0x41, 200);
	assert_int_equal(in(boot, 0x41), 200);
	fake_advance(vm, TICKS(50));
	assert_int_equal(in(boot, 0x41), 150);
	out(boot, CONTROL, 0x64); /* high byte only */
	out(boot, 0x41, 2);
	fake_advance(vm, TICKS(0x80));
	assert_int_equal(in(boot, 0x41), 1);
	assert_int_equal(in(boot, 0x41), 1);
	assert_int_equal(in(boot, CONTROL), 0xff);
}

/* Port 0x61, as kernels measure their TSC by it. */
static void test_gate(void **state)
{
	(void)state;
	out(boot, GATE, 0);
	program(2, 0, 1000);
	fake_advance(vm, TICKS(5000));
	assert_int_equal(in(boot, GATE) & 0x20, 0);
	assert_int_equal(count(2), 1000);
	out(boot, GATE, 1);
	assert_int_equal(in(boot, GATE) & 0x2f, 1);
	fake_advance(vm, TICKS(500));
	out(boot, GATE, 2);
	fake_advance(vm, TICKS(5000));
	assert_int_equal(in(boot, GATE) & 0x2f, 2);
	assert_int_equal(count(2), 500);
	out(boot, GATE, 0xff);
	fake_advance(vm, TICKS(490));
	assert_int_equal(in(boot, GATE) & 0x2f, 0x0f);
	fake_advance(vm, TICKS(20));
	assert_int_equal(in(boot, GATE) & 0x2f, 0x2f);
	program(2, 1, 100); /* is started by the gate */
	fake_advance(vm, TICKS(500));
	assert_int_equal(in(boot, GATE) & 0x20, 0x20);
	out(boot, GATE, 0);
	out(boot, GATE, 1);
	assert_int_equal(in(boot, GATE) & 0x20, 0);
	fake_advance(vm, TICKS(50));
	out(boot, GATE, 0);
	assert_int_equal(in(boot, GATE) & 0x20, 0);
	fake_advance(vm, TICKS(60));
	assert_int_equal(in(boot, GATE) & 0x20, 0x20);
	program(2, 3, 100); /* begins anew with the gate */
	fake_advance(vm, TICKS(70));
	out(boot, GATE, 1);
	assert_int_equal(count(2), 100);
	fake_advance(vm, TICKS(60));
	assert_int_equal(in(boot, GATE) & 0x20, 0);
	out(boot, GATE, 0);
	assert_int_equal(in(boot, GATE) & 0x20, 0x20);
	program(2, 5, 100);
	out(boot, GATE, 1);
	assert_int_equal(in(boot, GATE) & 0x20, 0x20);
	fake_advance(vm, TICKS(100) + 100);
	assert_int_equal(in(boot, GATE) & 0x20, 0);
	for (u32 i = 0, last = 2, changes = 0; i < 100; i++) { /* the refresh clock goes on */
		u32 now = in(boot, GATE) >> 4 & 1;

		changes += now != last;
		last = now;
		if (i == 99)
			assert_in_range(changes, 30, 36);
		fake_advance(vm, 15000); /* 5 us */
	}
}

static void test_reset(void **state)
{
	(void)state;
	program(0, 2, 1000);
	assert_int_equal(interrupts(5000), 6);
	timer_cancel(&boot->device_timer); /* the vCPU came to rest */
	platform_reset(vm);
	boot->requests = 0;
	assert_int_equal(interrupts(5000), 0);
	assert_false(boot->device_timer.armed);
	assert_int_equal(count(0), 0);
}

static void test_random(void **state)
{
	static const u16 ports[] = { 0x40, 0x41, 0x42, 0x43, GATE };

	(void)state;
	srand(7);
	for (u32 i = 0; i < 200000; i++) {
		u16 port = ports[(u32)rand() % ARRAY_SIZE(ports)];
		struct vcpu *v = vm->vcpus[rand() % 2];
		u64 value = (u64)rand();

		switch (rand() % 4) {
		case 0:
			io_write(v, IO_PORT, port, 1u << rand() % 3, value);
			break;
		case 1:
			if (!io_read(v, IO_PORT, port, 1u << rand() % 3, &value))
				assert_true(value < 256);
			break;
		case 2:
			fake_advance(vm, (u64)rand() % TICKS(70000));
			break;
		default:
			fake_take(boot);
			break;
		}
		if (boot->device_timer.armed && !boot->requests)
			assert_int_equal(boot->device_timer.deadline, platform_of(vm)->pit.next);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_periodic), TEST(test_one_shot), TEST(test_missed),
		TEST(test_storm),    TEST(test_counts),	  TEST(test_latches),
		TEST(test_gate),     TEST(test_reset),	  TEST(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
