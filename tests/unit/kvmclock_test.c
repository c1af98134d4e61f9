/* SPDX-License-Identifier: MIT */
/* kvmclock, and the small devices beside it: CMOS clock, power and reset. */
#include "tests/unit/dev_fake.h"

#include <asm/kvm_para.h>
#include "dev/power.h"

#define NEW_YEAR_2024 1704067200ull
#define WALL	      (NEW_YEAR_2024 * 1000000000 + 250000000)

static struct vm *vm;
static struct vcpu *v;

struct PACKED info {
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 mul;
	s8 shift;
	u8 flags, pad2[2];
};

static int setup(void **state)
{
	(void)state;
	dev_time = (struct dev_time){ .wall_base_ns = WALL };
	fake_tsc_stable = false;
	tsc_khz = 3000000;
	fake_now = 0;
	vm = fake_vm(2);
	v = vm->vcpus[0];
	memset(fake_memory, 0xee, sizeof(fake_memory));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	return fake_frames != 0;
}

static struct info info_at(u32 gpa)
{
	struct info info;
	memcpy(&info, fake_memory + gpa, sizeof(info));
	return info;
}

/* Linux's pvclock_scale_delta() */
static u64 guest_ns(const struct info *info, u64 tsc)
{
	u64 delta = tsc - info->tsc_timestamp;
	delta = info->shift < 0 ? delta >> -info->shift : delta << info->shift;
	return info->system_time + (u64)((unsigned __int128)delta * info->mul >> 32);
}

static void test_scale(void **state)
{
	(void)state;
	static const u32 khz[] = { 1000,    50000,   999999,  1000000, 1000001, 1999999,    2000000,
				   2399998, 3000000, 4000000, 4000001, 5700000, 4294967295u };
	for (u32 i = 0; i < ARRAY_SIZE(khz); i++) {
		tsc_khz = khz[i];
		struct vm *other = fake_vm(1);
		assert_int_equal(msr_set(other->vcpus[0], MSR_KVM_SYSTEM_TIME_NEW, 0x1001), 0);
		struct info info = info_at(0x1000);
		assert_true(info.mul >= 1u << 31);
		for (u64 s = 1; s < 1000000; s *= 10) {
			u64 ns = guest_ns(&info, (u64)khz[i] * 1000 * s), right = s * 1000000000;
			assert_true((ns > right ? ns - right : right - ns) <= s + 1); /* 1 ppb */
		}
		fake_vm_free(other);
	}
}

static void test_version_and_flags(void **state)
{
	(void)state;
	u64 value;
	memset(fake_memory + 0x2000, 0, 64);
	assert_int_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, 0x2001), 0);
	struct info info = info_at(0x2000);
	assert_int_equal(info.version, 2);
	assert_int_equal(info.flags, 0);
	assert_int_equal(info.tsc_timestamp | info.system_time | info.pad, 0);
	assert_int_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, 0x2001), 0);
	assert_int_equal(info_at(0x2000).version, 4);
	assert_int_equal(msr_get(v, MSR_KVM_SYSTEM_TIME_NEW, &value), 0);
	assert_int_equal(value, 0x2001);
	assert_int_equal(msr_get(vm->vcpus[1], MSR_KVM_SYSTEM_TIME_NEW, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, 0x3000),
			 0); /* off: nothing is written */
	assert_int_equal(fake_memory[0x3000], 0xee);
	platform_reset(vm);
	assert_int_equal(msr_get(v, MSR_KVM_SYSTEM_TIME_NEW, &value), 0);
	assert_int_equal(value, 0);
	fake_tsc_stable = true;
	struct vm *stable = fake_vm(1);
	assert_int_equal(msr_set(stable->vcpus[0], MSR_KVM_SYSTEM_TIME_NEW, 0x2001), 0);
	assert_int_equal(info_at(0x2000).flags, 1);
	fake_vm_free(stable);
}

/* HAZARDS row 39. */
static void test_bad_addresses(void **state)
{
	(void)state;
	static const u64 bad[] = { 0x1003,	     0x1fe5, 0x1ffd,	     FAKE_MEMORY | 1,
				   FAKE_MEMORY - 27, ~0ull,  1ull << 63 | 1, 0xfee00001 };
	u64 value;
	assert_int_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, 0x1001), 0);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_not_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, bad[i]), 0);
		assert_int_not_equal(msr_set(v, MSR_KVM_WALL_CLOCK_NEW, (bad[i] & ~1ull) | 0xffe),
				     0);
	}
	assert_int_equal(msr_get(v, MSR_KVM_SYSTEM_TIME_NEW, &value), 0);
	assert_int_equal(value, 0x1001);
	assert_int_equal(msr_set(v, MSR_KVM_SYSTEM_TIME_NEW, 0x1fe1),
			 0); /* the last place of a page */
	assert_int_not_equal(msr_set(v, MSR_KVM_WALL_CLOCK_NEW + 2, 0), 0);
}

static void test_wall_clock(void **state)
{
	(void)state;
	u32 wall[3];
	vm->tsc_base = 6000000000; /* the VM started 2 s after TSC 0 */
	assert_int_equal(msr_set(v, MSR_KVM_WALL_CLOCK_NEW, 0x4ff4), 0);
	memcpy(wall, fake_memory + 0x4ff4, sizeof(wall));
	assert_int_equal(wall[0] & 1, 0);
	assert_int_equal(wall[1], NEW_YEAR_2024 + 2);
	assert_int_equal(wall[2], 250000000);
}

static u8 cmos(u8 index)
{
	out(v, 0x70, index);
	return (u8)in(v, 0x71);
}

static void assert_date(u64 seconds, const u8 bcd[8])
{
	static const u8 cells[] = { 0x32, 9, 8, 7, 4, 2, 0, 6 };
	dev_time.wall_base_ns = seconds * 1000000000;
	struct vm *keep = vm, *other = fake_vm(1);
	vm = other;
	v = other->vcpus[0];
	for (u32 i = 0; i < 8; i++)
		assert_int_equal(cmos(cells[i]), bcd[i]);
	fake_vm_free(other);
	vm = keep;
	v = vm->vcpus[0];
}

static void test_rtc(void **state)
{
	(void)state;
	assert_date(0, (u8[]){ 0x19, 0x70, 0x01, 0x01, 0, 0, 0, 5 });
	assert_date(951825599,
		    (u8[]){ 0x20, 0x00, 0x02, 0x29, 0x11, 0x59, 0x59, 3 }); /* a leap day */
	assert_date(1704067199, (u8[]){ 0x20, 0x23, 0x12, 0x31, 0x23, 0x59, 0x59, 1 });
	assert_date(1709251200, (u8[]){ 0x20, 0x24, 0x03, 0x01, 0, 0, 0, 6 });
	assert_date(4102444800, (u8[]){ 0x21, 0x00, 0x01, 0x01, 0, 0, 0, 6 });
	assert_int_equal(cmos(10), 0x26);
	assert_int_equal(cmos(11), 0x02);
	assert_int_equal(cmos(12), 0);
	assert_int_equal(cmos(13), 0x80);
	assert_int_equal(in(v, 0x70), 0xff);
	u8 second = cmos(0);
	fake_now += 3000000000;
	assert_int_equal(cmos(0), second + 1);
	for (u32 i = 0; i < 256; i++) {
		out(v, 0x70, (u8)i);
		out(v, 0x71, 0x77);
		assert_int_equal(in(v, 0x71) == 0x77, (i & 0x7f) >= 14 && (i & 0x7f) != 0x32);
	}
}

static bool stops(u16 port, u8 value, enum stop_reason why)
{
	fake_stop = STOP_NONE;
	out(v, port, value);
	return fake_stop == why;
}

static void test_power(void **state)
{
	(void)state;
	assert_true(stops(POWER_SLEEP_STATUS, 0x80, STOP_NONE));
	assert_true(stops(POWER_SLEEP_STATUS, 0x34, STOP_NONE));
	for (u32 value = 0; value < 256; value++) {
		bool s5 = (value & 0x3c) == 0x34;
		assert_true(stops(POWER_SLEEP_CONTROL, (u8)value, s5 ? STOP_POWEROFF : STOP_NONE));
		assert_true(stops(POWER_RESET, (u8)value, value & 4 ? STOP_RESET : STOP_NONE));
		bool pulse = value >= 0xf0 && !(value & 1);
		assert_true(stops(0x64, (u8)value, pulse ? STOP_RESET : STOP_NONE));
	}
	assert_int_equal(in(v, 0x64), 0xff);
	assert_int_equal(in(v, POWER_RESET), 0xff);
	assert_int_equal(in(v, POWER_SLEEP_STATUS), 0);
}

/* The interrupt stays until somebody looks; then nothing is pressed any more. */
static void test_buttons(void **state)
{
	(void)state;
	struct platform *p = platform_of(vm);

	assert_int_equal(in(v, POWER_BUTTONS), 0);
	power_press(&p->power, SLEEP_BUTTON);
	power_press(&p->power, POWER_BUTTON);
	assert_int_equal(p->ioapic.lines, 1 << POWER_BUTTONS_GSI);
	assert_int_equal(in(v, POWER_BUTTONS), 3);
	assert_int_equal(p->ioapic.lines, 0);
	assert_int_equal(in(v, POWER_BUTTONS), 0);
	power_press(&p->power, POWER_BUTTON);
	assert_int_equal(p->ioapic.lines, 1 << POWER_BUTTONS_GSI);
	platform_reset(vm);
	assert_int_equal(p->ioapic.lines, 0);
	assert_int_equal(in(v, POWER_BUTTONS), 0);
}

static u64 item(u16 number, u32 size)
{
	u64 value = 0;

	assert_int_equal(io_write(v, IO_PORT, TESTDEV_FWCFG_PORT, 2, number), 0);
	for (u32 i = 0; i < size; i++)
		value |= in(v, TESTDEV_FWCFG_PORT + 1) << 8 * i;
	return value;
}

static void test_testdev(void **state)
{
	static const char cmdline[] = "words";

	(void)state;
	assert_int_equal(in(v, TESTDEV_FWCFG_PORT + 1), 0xff);
	assert_true(stops(TESTDEV_EXIT_PORT, 0, STOP_NONE));
	assert_int_equal(testdev_create(&platform_of(vm)->testdev, vm, 0x123456789a000, cmdline),
			 0);
	assert_int_equal(item(0, 8), 0x554d4551); /* QEMU, then nothing */
	assert_int_equal(item(1, 4), 1);
	assert_int_equal(item(3, 8), 0x123456789a000);
	assert_int_equal(item(5, 4), 2);
	assert_int_equal(item(15, 2), 2);
	assert_int_equal(item(0x14, 4), 6);
	assert_int_equal(item(0x15, 7), 0x7364726f77);
	for (u32 i = 0; i < 0x10000; i++)
		item((u16)i, 1);
	assert_int_equal(in(v, TESTDEV_FWCFG_PORT), 0xff); /* the selector can't be read */
	assert_int_not_equal(io_write(v, IO_PORT, TESTDEV_FWCFG_PORT, 1, 0), 0);
	assert_int_not_equal(io_write(v, IO_PORT, TESTDEV_FWCFG_PORT + 1, 1, 0), 0);
	assert_true(stops(TESTDEV_EXIT_PORT, 0, STOP_EXIT));
	assert_true(stops(TESTDEV_EXIT_PORT, 1, STOP_FAILURE));
	assert_true(stops(TESTDEV_EXIT_PORT + 3, 255, STOP_FAILURE));
	fake_stop = STOP_NONE;
	assert_int_equal(io_write(v, IO_PORT, TESTDEV_EXIT_PORT, 4, 0x100), 0);
	assert_int_equal(fake_stop, STOP_FAILURE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_scale),	  TEST(test_version_and_flags),
		TEST(test_bad_addresses), TEST(test_wall_clock),
		TEST(test_rtc),		  TEST(test_power),
		TEST(test_buttons),	  TEST(test_testdev),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
