/* SPDX-License-Identifier: MIT */
/* Spin locks with threads as CPUs, under ThreadSanitizer: a count without atomics stays right. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "lib/spinlock.h"
#include "tests/unit/host.h"

#define THREADS 4
#define ROUNDS	20000 /* together more than the 65536 tickets there are: they wrap */

static struct spinlock lock = SPINLOCK_INIT(RANK_VM);
static u64 count, inside;
static u64 got[THREADS]; /* by trylock */

static void once(void)
{
	inside++;
	HOST_CHECK(inside == 1);
	count++;
	inside--;
	spin_unlock(&lock);
}

static void *with_lock(void *arg)
{
	(void)arg;
	for (u32 i = 0; i < ROUNDS; i++) {
		spin_lock(&lock);
		once();
	}
	return NULL;
}

/* Half of the threads wait, the others only try. */
static void *with_trylock(void *arg)
{
	u64 *mine = arg;

	for (u32 i = 0; i < ROUNDS; i++) {
		if (!spin_trylock(&lock))
			continue;
		++*mine;
		once();
	}
	return NULL;
}

static void run(void *(*even)(void *), void *(*odd)(void *))
{
	pthread_t thread[THREADS];

	count = inside = 0;
	for (u32 i = 0; i < THREADS; i++) {
		got[i] = 0;
		assert_int_equal(pthread_create(&thread[i], NULL, i % 2 ? odd : even, &got[i]), 0);
	}
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(host_failures, 0);
	assert_int_equal(lock.next, lock.owner);
}

static void all_wait(void **state)
{
	(void)state;
	run(with_lock, with_lock);
	assert_int_equal(count, THREADS * ROUNDS);
}

static void some_try(void **state)
{
	u64 tried = 0;

	(void)state;
	run(with_lock, with_trylock);
	for (u32 i = 1; i < THREADS; i += 2)
		tried += got[i];
	assert_int_equal(count, THREADS / 2 * ROUNDS + tried);
	assert_true(spin_trylock(&lock)); /* free again */
	assert_false(spin_trylock(&lock));
	spin_unlock(&lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_wait),
		cmocka_unit_test(some_try),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
