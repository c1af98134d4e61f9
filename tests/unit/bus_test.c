/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "tests/unit/host.h"
#include "virt/vm.h"

static struct vm vm;
static struct vcpu vcpu;
static int answer;

static int dev_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v;
	if (!answer)
		*value = (u64)(uintptr_t)dev << 32 | offset << 8 | size;
	return answer;
}

static u64 last_write;
static int dev_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	last_write = (u64)(uintptr_t)dev << 32 | offset << 16 | size << 8 | value;
	return answer;
}

static int add(enum io_space space, u64 base, u64 size, u32 dev)
{
	struct io_region r = { .name = "test",
			       .base = base,
			       .size = size,
			       .read = dev_read,
			       .write = dev_write,
			       .dev = (void *)(uintptr_t)dev };

	return io_register(&vm, space, &r);
}

static int setup(void **state)
{
	(void)state;
	memset(&vm, 0, sizeof(vm));
	memset(&vcpu, 0, sizeof(vcpu));
	vcpu.vm = &vm;
	answer = 0;
	return 0;
}

static void registering(void **state)
{
	(void)state;
	assert_int_equal(add(IO_PORT, 0x100, 0, 1), -EINVAL);
	assert_int_equal(add(IO_PORT, 0xfff8, 9, 1), -EINVAL);
	assert_int_equal(add(IO_PORT, 0xfff8, 8, 1), 0);
	assert_int_equal(add(IO_MMIO, ~0ull, 2, 1), -EINVAL);
	assert_int_equal(add(IO_MMIO, 0x1000, ~0ull, 1), -EINVAL);
	assert_int_equal(add(IO_MSR, 0xffffffff, 2, 1), -EINVAL);
	assert_int_equal(add(IO_MSR, 0xffffffff, 1, 1), 0);
	assert_int_equal(add(IO_PORT, 0x3f8, 8, 2), 0);
	for (u64 base = 0x3f1; base < 0x400; base++)
		assert_int_equal(add(IO_PORT, base, 8, 3), -EEXIST);
	assert_int_equal(add(IO_PORT, 0x300, 0x1000, 3), -EEXIST);
	assert_int_equal(add(IO_PORT, 0x3f0, 8, 3), 0);
	assert_int_equal(add(IO_PORT, 0x400, 8, 4), 0);
	for (u32 i = vm.bus.count[IO_MMIO]; i < IO_MAX_REGIONS; i++)
		assert_int_equal(add(IO_MMIO, i * 0x1000, 0x1000, 5), 0);
	assert_int_equal(add(IO_MMIO, 0x1000000, 0x1000, 5), -ENOSPC);
}

static void edges(void **state)
{
	u64 value;

	(void)state;
	assert_int_equal(add(IO_PORT, 0x3f8, 8, 1), 0);
	assert_int_equal(add(IO_PORT, 0x400, 2, 2), 0);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0x3f8, 1, &value), 0);
	assert_int_equal(value, 1ull << 32 | 1);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0x3fc, 4, &value), 0);
	assert_int_equal(value, 1ull << 32 | 4 << 8 | 4);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0x3f7, 1, &value), -ENXIO);
	assert_int_equal(io_read(&vcpu, IO_MMIO, ~0ull - 3, 8, &value), -ENXIO);
	answer = -EIO;
	assert_int_equal(io_read(&vcpu, IO_PORT, 0x3f8, 2, &value), -EIO);
	answer = 0;
	assert_int_equal(io_write(&vcpu, IO_PORT, 0x401, 1, 0x55), 0);
	assert_int_equal(last_write, 2ull << 32 | 1 << 16 | 1 << 8 | 0x55);
	assert_int_equal(io_write(&vcpu, IO_PORT, 0x402, 1, 0), -ENXIO);
}

static u8 narrow[4]; /* a device with a byte for each port */
static u32 narrow_writes;
static int narrow_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v, (void)dev;
	assert_int_equal(size, 1);
	*value = narrow[offset];
	return 0;
}

static int narrow_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v, (void)dev;
	assert_int_equal(size, 1);
	narrow[offset] = (u8)value;
	narrow_writes++;
	return 0;
}

/* Over the end of a region, from before it, and over two of them: byte by byte. */
static void borders(void **state)
{
	struct io_region r = { "narrow", 0x100, 2, narrow_read, narrow_write, NULL };
	u64 value;

	(void)state;
	assert_int_equal(io_register(&vm, IO_PORT, &r), 0);
	memcpy(narrow, "\x12\x34", 2);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0x101, 2, &value), 0);
	assert_int_equal(value, 0xff34);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0xff, 4, &value), 0);
	assert_int_equal(value, 0xff3412ff);
	assert_int_equal(io_read(&vcpu, IO_PORT, 0xfe, 2, &value), -ENXIO);
	assert_int_equal(io_write(&vcpu, IO_PORT, 0x101, 4, 0x44332211), 0);
	assert_int_equal(narrow[1], 0x11);
	assert_int_equal(narrow_writes, 1);
	r.base = 0x102;
	assert_int_equal(io_register(&vm, IO_PORT, &r), 0);
	assert_int_equal(io_write(&vcpu, IO_PORT, 0x100, 4, 0x88776655), 0);
	assert_int_equal(narrow_writes, 5);
	assert_int_equal(narrow[0] | narrow[1] << 8, 0x8877); /* the second one's came last */
	assert_int_equal(io_write(&vcpu, IO_PORT, 0xffff, 4, 0), -ENXIO);
	/* an MSR is one address */
	r.read = dev_read, r.base = 0x10;
	assert_int_equal(io_register(&vm, IO_MSR, &r), 0);
	assert_int_equal(io_read_msr(&vcpu, 0xf, &value), -ENXIO);
}

static void msrs_take_one_address(void **state)
{
	u64 value;

	(void)state;
	assert_int_equal(add(IO_MSR, 0x1b, 1, 1), 0);
	assert_int_equal(add(IO_MSR, 0x800, 0x100, 2), 0);
	assert_int_equal(io_read_msr(&vcpu, 0x1b, &value), 0);
	assert_int_equal(io_read_msr(&vcpu, 0x8ff, &value), 0);
	assert_int_equal(value, 2ull << 32 | 0xff << 8 | 8);
	assert_int_equal(io_read_msr(&vcpu, 0x900, &value), -ENXIO);
}

static void handlers_may_be_missing(void **state)
{
	struct io_region r = { .name = "hole", .base = 8, .size = 8 };
	u64 value;

	(void)state;
	assert_int_equal(io_register(&vm, IO_PORT, &r), 0);
	assert_int_equal(io_read(&vcpu, IO_PORT, 8, 1, &value), -ENXIO);
	assert_int_equal(io_write(&vcpu, IO_PORT, 8, 1, 0), -ENXIO);
}

/* Random regions and accesses against a table with an owner per port. */
static void against_a_model(void **state)
{
	static u8 owner[0x10000];
	u64 seed = host_seed();

	(void)state;
	for (int round = 0; round < 50; round++) {
		memset(owner, 0, sizeof(owner));
		setup(NULL);
		for (u32 dev = 1; dev <= IO_MAX_REGIONS; dev++) {
			u64 base = host_random(&seed) % 512, size = 1 + host_random(&seed) % 16;
			bool free = true;

			for (u64 i = 0; i < size; i++)
				free = free && !owner[base + i];
			assert_int_equal(add(IO_PORT, base, size, dev), free ? 0 : -EEXIST);
			if (free)
				memset(owner + base, (int)dev, size);
		}
		for (int i = 0; i < 5000; i++) {
			u64 port = host_random(&seed) % 540, value;
			u32 size = 1u << host_random(&seed) % 3;
			bool any = false, whole = true;

			for (u32 j = 0; j < size; j++) {
				any = any || owner[port + j];
				whole = whole && owner[port + j] == owner[port];
			}
			assert_int_equal(io_read(&vcpu, IO_PORT, port, size, &value),
					 any ? 0 : -ENXIO);
			if (any && whole)
				assert_int_equal(value >> 32, owner[port]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(registering, setup),
		cmocka_unit_test_setup(edges, setup),
		cmocka_unit_test_setup(borders, setup),
		cmocka_unit_test_setup(msrs_take_one_address, setup),
		cmocka_unit_test_setup(handlers_may_be_missing, setup),
		cmocka_unit_test_setup(against_a_model, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
