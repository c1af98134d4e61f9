/* SPDX-License-Identifier: MIT */
#include "tests/unit/dev_fake.h"

#include <pthread.h>
#include <sched.h>

#define VCPUS	4
#define LEVEL	0x8000
#define MASKED	0x10000
#define LOGICAL 0x800
#define REMOTE	0x4000

static struct vm *vm;

static int setup(void **state)
{
	(void)state;
	vm = fake_vm(VCPUS);
	for (u32 i = 0; i < VCPUS; i++) {
		apic_set(vm->vcpus[i], APIC_SVR, 0x1ff);
		apic_set(vm->vcpus[i], APIC_DFR, ~0u);
		apic_set(vm->vcpus[i], APIC_LDR, 1u << (24 + i));
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_vm_free(vm);
	return fake_frames != 0;
}

static u32 get(u8 index)
{
	mmio_set(vm->vcpus[0], IOAPIC_GPA, 4, index);
	return (u32)mmio_get(vm->vcpus[0], IOAPIC_GPA + 0x10, 4);
}

static void set(u8 index, u32 value)
{
	mmio_set(vm->vcpus[0], IOAPIC_GPA, 4, index);
	mmio_set(vm->vcpus[0], IOAPIC_GPA + 0x10, 4, value);
}

static void entry(u32 pin, u32 dest, u32 low)
{
	set((u8)(0x11 + pin * 2), dest << 24);
	set((u8)(0x10 + pin * 2), low);
}

static u32 low(u32 pin)
{
	return get((u8)(0x10 + pin * 2));
}

static void line(u32 pin, bool level)
{
	vm_irq_line(vm, pin, level);
}

/* Who takes this vector now? */
static u32 takers(int vector)
{
	u32 set = 0;
	for (u32 i = 0; i < VCPUS; i++)
		if (fake_take_eoi(vm->vcpus[i]) == vector)
			set |= 1u << i;
	return set;
}

/* HAZARDS row 37: every index, every bit of an entry. */
static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(get(1), 0x170020);
	for (u32 pin = 0; pin < 24; pin++)
		assert_int_equal(low(pin), MASKED);
	for (u32 index = 0; index < 256; index++) {
		set((u8)index, 0xffffffff);
		u32 value = get((u8)index);
		if (index == 0 || index == 2)
			assert_int_equal(value, 0x0f000000);
		else if (index == 1)
			assert_int_equal(value, 0x170020);
		else if (index >= 0x10 && index < 0x40)
			assert_int_equal(value, index & 1 ? 0xff000000 : 0x1afff);
		else
			assert_int_equal(value, 0);
	}
	platform_reset(vm);
	assert_int_equal(low(23), MASKED);
	assert_int_equal(get(0), 0);
}

static void test_every_access(void **state)
{
	(void)state;
	struct vcpu *v = vm->vcpus[0];
	for (u32 off = 0; off < 0x1000; off++)
		for (u32 size = 1; size <= 8; size *= 2) {
			mmio_set(v, IOAPIC_GPA + off, size, 0x0101010101010101);
			u64 value = mmio_get(v, IOAPIC_GPA + off, size);
			if (off == 0)
				assert_int_equal(value, 1);
			else if (off == 0x10)
				assert_int_equal(value, size == 1   ? 0x20
							: size == 2 ? 0x20
								    : 0x170020);
			else
				assert_int_equal(value, 0);
		}
	set(0x10, 0x55);
	mmio_set(v, IOAPIC_GPA + 0x10, 1, 0x66); /* narrow writes to the window do nothing */
	mmio_set(v, IOAPIC_GPA + 0x10, 2, 0x66);
	assert_int_equal(get(0x10), 0x55);
	mmio_set(v, IOAPIC_GPA, 1, 0x01); /* the index is 8 bits */
	assert_int_equal(mmio_get(v, IOAPIC_GPA + 0x10, 4), 0x170020);
}

static void test_edge(void **state)
{
	(void)state;
	entry(4, 2, 0x34);
	line(4, true);
	line(4, true);
	assert_int_equal(takers(0x34), 1 << 2);
	assert_int_equal(takers(0x34), 0);
	assert_int_equal(low(4), 0x34); /* no remote IRR */
	line(4, false);
	assert_int_equal(takers(0x34), 0);
	line(4, true);
	assert_int_equal(takers(0x34), 1 << 2);
	line(4, false);
	entry(4, 2, MASKED | 0x34);
	line(4, true); /* lost */
	entry(4, 2, 0x34);
	assert_int_equal(takers(0x34), 0);
	line(24, true); /* no such pin */
	line(~0u, true);
}

static void test_level(void **state)
{
	(void)state;
	struct vcpu *v = vm->vcpus[1];
	entry(9, 1, LEVEL | 0x51);
	line(9, true);
	assert_int_equal(low(9), LEVEL | REMOTE | 0x51);
	assert_int_equal(fake_take(v), 0x51);
	assert_int_equal(apic_get(v, APIC_TMR + 0x20), 1u << 17);
	line(9, false);
	line(9, true); /* one message at a time */
	assert_int_equal(apic_get(v, APIC_IRR + 0x20), 0);
	apic_set(v, APIC_EOI, 0); /* still asserted: again */
	assert_int_equal(fake_take(v), 0x51);
	line(9, false);
	apic_set(v, APIC_EOI, 0);
	assert_int_equal(low(9), LEVEL | 0x51);
	assert_int_equal(fake_take(v), -1);
	/* Asserted while masked: delivered when unmasked. */
	set(0x10 + 18, MASKED | LEVEL | 0x51);
	line(9, true);
	assert_int_equal(fake_take(v), -1);
	set(0x10 + 18, LEVEL | 0x51);
	assert_int_equal(fake_take(v), 0x51);
	/* Remote IRR can't be written, and survives a mask and a new vector. */
	set(0x10 + 18, MASKED | LEVEL | 0x52);
	assert_int_equal(low(9), MASKED | LEVEL | REMOTE | 0x52);
	/* The old way to acknowledge: edge, and level again. */
	set(0x10 + 18, MASKED | 0x51);
	assert_int_equal(low(9), MASKED | 0x51);
	set(0x10 + 18, MASKED | LEVEL | REMOTE | 0x51);
	assert_int_equal(low(9), MASKED | LEVEL | 0x51);
	line(9, false);
	apic_set(v, APIC_EOI, 0);
	/* An edge with the same vector clears TMR. */
	entry(4, 1, 0x51);
	line(4, true);
	assert_int_equal(fake_take(v), 0x51);
	assert_int_equal(apic_get(v, APIC_TMR + 0x20), 0);
	apic_set(v, APIC_EOI, 0);
}

/* SVR's suppress bit: the LAPIC's EOI is not broadcast, the IOAPIC's own register ends the wait. */
static void test_directed_eoi(void **state)
{
	(void)state;
	struct vcpu *v = vm->vcpus[1];
	apic_set(v, APIC_SVR, 0x11ff);
	assert_int_equal(apic_get(v, APIC_SVR), 0x11ff);
	entry(9, 1, LEVEL | 0x51);
	entry(10, 1, LEVEL | 0x52);
	line(9, true);
	line(10, true);
	assert_int_equal(fake_take_eoi(v), 0x52);
	assert_int_equal(fake_take_eoi(v), 0x51);
	assert_int_equal(fake_take_eoi(v), -1);
	assert_int_equal(low(9), LEVEL | REMOTE | 0x51);
	line(10, false);
	mmio_set(v, IOAPIC_GPA + 0x40, 4, 0x52);
	assert_int_equal(low(10), LEVEL | 0x52);
	assert_int_equal(low(9), LEVEL | REMOTE | 0x51);
	mmio_set(v, IOAPIC_GPA + 0x40, 1, 0x51); /* still asserted */
	assert_int_equal(fake_take_eoi(v), 0x51);
	apic_set(v, APIC_SVR, 0x1ff);
	mmio_set(v, IOAPIC_GPA + 0x40, 4, 0x51);
	assert_int_equal(fake_take_eoi(v), 0x51); /* broadcast again */
	assert_int_equal(fake_take(v), 0x51);
}

/* Two pins with one vector; nobody at the destination. */
static void test_level_shared_and_lost(void **state)
{
	(void)state;
	entry(10, 0, LEVEL | 0x61);
	entry(11, 0, LEVEL | 0x61);
	line(10, true);
	line(11, true);
	assert_int_equal(fake_take(vm->vcpus[0]), 0x61);
	line(10, false);
	apic_set(vm->vcpus[0], APIC_EOI, 0);
	assert_int_equal(low(10), LEVEL | 0x61);
	assert_int_equal(low(11), LEVEL | REMOTE | 0x61);
	line(11, false);
	assert_int_equal(fake_take_eoi(vm->vcpus[0]), 0x61);
	entry(12, 77, LEVEL | 0x62);
	line(12, true);
	assert_int_equal(low(12), LEVEL | 0x62);
	entry(12, 3, LEVEL | 0x62); /* writing looks again */
	assert_int_equal(takers(0x62), 1 << 3);
}

static void test_destinations(void **state)
{
	(void)state;
	for (u32 dest = 0; dest < 256; dest++) {
		entry(5, dest, 0x71);
		line(5, true);
		assert_int_equal(takers(0x71), dest < VCPUS ? 1u << dest : dest == 255 ? 0xf : 0);
		line(5, false);
		entry(5, dest, LOGICAL | 0x71);
		line(5, true);
		assert_int_equal(takers(0x71), dest & 0xf);
		line(5, false);
		entry(5, dest, LOGICAL | 1 << 8 | 0x71);
		line(5, true);
		assert_int_equal(__builtin_popcount(takers(0x71)), !!(dest & 0xf));
		line(5, false);
	}
	/* x2APIC mode, 8-bit destinations: physical ids, cluster 0, 0xff everybody. */
	for (u32 i = 0; i < VCPUS; i++)
		assert_int_equal(msr_set(vm->vcpus[i], 0x1b, APIC_BASE_GPA | 3 << 10), 0);
	entry(5, 2, 0x71);
	line(5, true);
	assert_int_equal(takers(0x71), 1 << 2);
	line(5, false);
	entry(5, 6, LEVEL | LOGICAL | 0x72);
	line(5, true);
	assert_int_equal(low(5), LEVEL | LOGICAL | REMOTE | 0x72);
	line(5, false);
	assert_int_equal(takers(0x72), 6); /* with EOI by MSR */
	assert_int_equal(low(5), LEVEL | LOGICAL | 0x72);
	entry(5, 255, 0x73);
	line(5, true);
	assert_int_equal(takers(0x73), 0xf);
}

static void test_delivery_modes(void **state)
{
	(void)state;
	for (u32 mode = 0; mode < 8; mode++)
		for (u32 trigger = 0; trigger < 2; trigger++) {
			entry(6, 1, trigger * LEVEL | mode << 8 | 0x81);
			line(6, true);
			if (trigger && mode >= 2) /* edges whatever the entry says */
				assert_false(low(6) & REMOTE);
			line(6, false);
			assert_int_equal(fake_requested(vm->vcpus[1], REQ_NMI), mode == 4);
			assert_int_equal(fake_requested(vm->vcpus[1], REQ_INIT), mode == 5);
			assert_false(fake_requested(vm->vcpus[1], REQ_SIPI));
			assert_int_equal(takers(0x81), mode < 2 ? 1 << 1 : 0);
		}
	entry(7, 1, 0x0f); /* an illegal vector: the receiver's error */
	line(7, true);
	apic_set(vm->vcpus[1], APIC_ESR, 0);
	assert_int_equal(apic_get(vm->vcpus[1], APIC_ESR), 1 << 6);
}

static void test_random(void **state)
{
	(void)state;
	srand(3);
	for (u32 i = 0; i < 200000; i++) {
		u32 value = (u32)rand() ^ (u32)rand() << 16;
		switch (rand() % 4) {
		case 0:
			set((u8)rand(), value);
			break;
		case 1:
			line((u32)rand() % 26, rand() & 1);
			break;
		case 2:
			entry((u32)rand() % 24, (u32)rand() % 8, value & 0x8fff);
			break;
		default:
			fake_take_eoi(vm->vcpus[rand() % VCPUS]);
			break;
		}
		for (u32 pin = 0; pin < 24; pin++) {
			u64 e = platform_of(vm)->ioapic.entry[pin];
			assert_false((e & REMOTE) && !(e & LEVEL));
		}
	}
}

/*
 * Level-triggered devices on threads of their own, which raise their lines and wait to be served,
 * against a vCPU that serves them, masks and unmasks, and acknowledges: no interrupt may get lost.
 */
#define DEVICES 3
#define ROUNDS	20000
static bool asserted[DEVICES];
static u32 done[DEVICES];

static void *device(void *arg)
{
	u32 n = (u32)(uintptr_t)arg;
	for (u32 round = 0; round < ROUNDS; round++) {
		__atomic_store_n(&asserted[n], true, __ATOMIC_SEQ_CST);
		line(12 + n, true);
		while (__atomic_load_n(&asserted[n], __ATOMIC_SEQ_CST))
			sched_yield();
		__atomic_fetch_add(&done[n], 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void serve(struct vcpu *v)
{
	for (u32 n = 0; n < DEVICES; n++)
		if (__atomic_load_n(&asserted[n], __ATOMIC_SEQ_CST)) {
			line(12 + n, false);
			__atomic_store_n(&asserted[n], false, __ATOMIC_SEQ_CST);
		}
	apic_set(v, APIC_EOI, 0);
}

static void test_threads(void **state)
{
	(void)state;
	struct vcpu *v = vm->vcpus[0];
	pthread_t thread[DEVICES];
	u32 idle = 0, turns = 0;
	for (u32 n = 0; n < DEVICES; n++) { /* two share a vector */
		entry(12 + n, 0, LEVEL | (0x60 + n / 2 * 0x10));
		assert_int_equal(pthread_create(&thread[n], NULL, device, (void *)(uintptr_t)n), 0);
	}
	while (READ_ONCE(done[0]) + READ_ONCE(done[1]) + READ_ONCE(done[2]) < DEVICES * ROUNDS) {
		if (fake_take(v) >= 0) {
			serve(v);
			idle = 0;
		} else {
			assert_true(idle++ < 10000000);
			sched_yield();
		}
		if (++turns % 16 == 0) {
			set(0x10 + 24, MASKED | LEVEL | 0x60);
			set(0x10 + 24, LEVEL | 0x60);
		}
	}
	for (u32 n = 0; n < DEVICES; n++)
		pthread_join(thread[n], NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_registers),	 TEST(test_every_access),	   TEST(test_edge),
		TEST(test_level),	 TEST(test_level_shared_and_lost), TEST(test_directed_eoi),
		TEST(test_destinations), TEST(test_delivery_modes),	   TEST(test_random),
		TEST(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
