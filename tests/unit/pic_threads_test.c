/* SPDX-License-Identifier: MIT */
/*
 * Devices on threads of their own, which raise their lines and wait to be served, against a vCPU
 * that masks and opens, takes and acknowledges: no request may get lost, and none comes from
 * nowhere. Under ThreadSanitizer, with the real locks.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "dev/pic.h"
#include "tests/unit/host.h"

#define DEVICES	 3
#define ROUNDS	 20000
#define PATIENCE 5000000

static struct pic pic;
static struct io_region ports[3];
static u32 nr_ports;
static bool served[DEVICES];
static const u32 input_of[DEVICES] = { 4, 5, 11 };

int io_register(struct vm *vm, enum io_space space, const struct io_region *region)
{
	(void)vm, (void)space;
	ports[nr_ports++] = *region;
	return 0;
}

void pic_output(struct vm *vm, bool level)
{
	(void)vm, (void)level;
}

static void out(u32 region, u64 offset, u8 value)
{
	assert_int_equal(ports[region].write(NULL, &pic, offset, 1, value), 0);
}

static void *device(void *arg)
{
	u32 n = (u32)(uintptr_t)arg;

	for (u32 round = 0; round < ROUNDS; round++) {
		pic_set_line(&pic, input_of[n], true);
		while (!__atomic_load_n(&served[n], __ATOMIC_SEQ_CST))
			sched_yield();
		__atomic_store_n(&served[n], false, __ATOMIC_SEQ_CST);
		pic_set_line(&pic, input_of[n], false);
	}
	return NULL;
}

static u32 take(void)
{
	u8 vector = pic_ack(&pic);
	u32 n = 0;

	while (n < DEVICES && input_of[n] != vector - 0x20u)
		n++;
	assert_in_range(n, 0, DEVICES - 1); /* requests stay until they are served: no IRQ 7 */
	__atomic_store_n(&served[n], true, __ATOMIC_SEQ_CST);
	if (input_of[n] >= 8)
		out(1, 0, 0x20);
	out(0, 0, 0x20);
	return n;
}

static void none_is_lost(void **state)
{
	pthread_t thread[DEVICES];
	u32 took[DEVICES] = { 0 }, idle = 0;
	u64 seed = host_seed();

	(void)state;
	assert_int_equal(pic_create(&pic, NULL), 0);
	for (u32 chip = 0; chip < 2; chip++) {
		out(chip, 0, 0x11);
		out(chip, 1, (u8)(0x20 + 8 * chip));
		out(chip, 1, 0);
		out(chip, 1, 1);
	}
	for (u32 n = 0; n < DEVICES; n++)
		assert_int_equal(pthread_create(&thread[n], NULL, device, (void *)(uintptr_t)n), 0);
	while (took[0] < ROUNDS || took[1] < ROUNDS || took[2] < ROUNDS) {
		out(0, 1, host_random(&seed) & 0x30);
		out(1, 1, host_random(&seed) & 0x08);
		out(1, 1, 0);
		out(0, 1, 0);
		/* no write that would look again: whoever was last has to have seen the other */
		for (idle = 0; !__atomic_load_n(&pic.output, __ATOMIC_SEQ_CST); idle++) {
			assert_true(idle < PATIENCE);
			sched_yield();
		}
		took[take()]++;
	}
	for (u32 n = 0; n < DEVICES; n++)
		pthread_join(thread[n], NULL);
	for (u32 n = 0; n < DEVICES; n++)
		assert_int_equal(took[n], ROUNDS);
	assert_int_equal(host_failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(none_is_lost) };

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
