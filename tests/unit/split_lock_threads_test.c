/* SPDX-License-Identifier: MIT */
/*
 * The owner of MSR_TEST_CTRL on simulated cores, all events in random orders: first one thread
 * plays all CPUs, and the machine is looked at after each step; then each CPU is a thread, under
 * ThreadSanitizer. CORBEL_TEST_LONG=1: ten million steps.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "lib/log.h"
#include "tests/unit/host.h"
#include "tests/unit/split_lock_fake.h"

#define SHORT_RUN 200000
#define LONG_RUN  10000000

/* ---- Random orders; one thread, and the whole machine is looked at after each step ---- */

static u64 steps_wanted(void)
{
	return getenv("CORBEL_TEST_LONG") ? LONG_RUN : SHORT_RUN;
}

static void random_step(u64 *seed, u32 id, bool *in_pass)
{
	struct trap_frame f = at(0x1000 + id);
	u64 r = host_random(seed);

	be(id);
	if (!cpu[id].is_online) {
		if (r % 4 == 0) {
			core[core_of(id)].reg ^= host_random(seed) & (DETECT | NO_LOCK);
			go_online(id);
		}
		return;
	}
	switch (r >> 8 & 15) {
	case 0: /* the clock */
		__atomic_add_fetch(&tsc, r >> 16 & 511, __ATOMIC_RELAXED);
		break;
	case 1:
		if (!*in_pass && (r >> 16 & 7) == 0) /* nobody knows what it was about to do */
			(void)split_lock_switch(r >> 20 & 1);
		break;
	case 2:
		if (faults() && (r >> 16 & 3) == 0)
			HOST_CHECK(trap_ac_hook(&f));
		break;
	case 3:
		if ((r >> 16 & 7) == 0) {
			go_offline(id);
			*in_pass = false;
		}
		break;
	case 4:
		split_lock_vcpu_load();
		split_lock_vcpu_put();
		break;
	case 5:
	case 6:
	case 7:
		take_interrupts();
		break;
	default:
		if (*in_pass)
			(void)split_lock_pass_end();
		*in_pass = !*in_pass && faults() && split_lock_pass_begin();
		break;
	}
}

static void random_orders(void **state)
{
	u64 seed = host_seed(), steps = steps_wanted();
	bool in_pass[CPUS_MAX] = { false };
	u32 cores;

	(void)state;
	for (u64 i = 0; i < steps; i++) {
		if (i % (steps / 16) == 0) {
			cores = 2 + (u32)(host_random(&seed) % (CORES_MAX - 1));
			boot(cores, host_random(&seed) & (UC_LOCK | NO_LOCK | DETECT));
			memset(in_pass, 0, sizeof(in_pass));
		}
		u32 id = (u32)(host_random(&seed) % nr_cpus);

		random_step(&seed, id, &in_pass[id]);
		/* The core that was touched; all of them now and then. */
		for (u32 n = 0; n < nr_cpus; n++) {
			struct split_lock_core s;

			if (!cpu[n].is_online || (core_of(n) != core_of(id) && (i & 63)))
				continue;
			be(n);
			if (!split_lock_read_core(&s) || !sound(&s))
				fail_msg("CPU %u, step %lu, core %u", id, i, core_of(n));
		}
	}
	assert_int_equal(host_failures, 0);
}

/* ---- Each CPU is a thread ---- */

static u64 steps_left; /* atomic */
static u64 executed;   /* atomic: instructions of guests that split a lock */
static u64 asked;      /* atomic */

/* A guest's instruction: it is executed once, with detection off or let through, or given up. */
static void guest_splits(u64 *seed)
{
	bool step = false;

	__atomic_add_fetch(&asked, 1, __ATOMIC_RELAXED);
	split_lock_vcpu_load();
	while (faults()) {
		step = split_lock_pass_begin();
		if (host_random(seed) % 8 == 0) /* exits before it is executed */
			take_interrupts();
		if (host_random(seed) % 64 == 0) { /* its vCPU goes elsewhere, and comes back */
			(void)split_lock_pass_end();
			split_lock_vcpu_put();
			split_lock_vcpu_load();
		}
	}
	__atomic_add_fetch(&executed, 1, __ATOMIC_RELAXED);
	if (step)
		(void)split_lock_pass_end();
	split_lock_vcpu_put();
}

static void come_and_go(u32 me)
{
	split_lock_leave();
	bitmap_test_and_clear_atomic(cpus_online.bits, me);
	sched_yield();
	bitmap_test_and_set_atomic(cpus_online.bits, me);
	HOST_CHECK(!split_lock_join(true));
}

static void one_step(u32 me, u64 *seed)
{
	struct trap_frame f = at(0x1000 + me);
	u64 r = host_random(seed);

	__atomic_add_fetch(&tsc, r & 63, __ATOMIC_RELAXED);
	take_interrupts();
	switch (r >> 8 & 63) {
	case 0:
		(void)split_lock_switch(false);
		break;
	case 1:
	case 2:
	case 3:
		(void)split_lock_switch(true);
		break;
	case 4:
		if (faults())
			HOST_CHECK(trap_ac_hook(&f));
		break;
	case 5:
		come_and_go(me);
		break;
	default:
		guest_splits(seed);
	}
}

static void *cpu_thread(void *arg)
{
	u32 me = (u32)(uintptr_t)arg;
	u64 seed = host_seed() + me * 77777 + 1;
	struct split_lock_core s;

	be(me);
	while ((s64)__atomic_sub_fetch(&steps_left, 1, __ATOMIC_RELAXED) >= 0) {
		one_step(me, &seed);
		HOST_CHECK(split_lock_read_core(&s));
		sound(&s);
	}
	take_interrupts();
	split_lock_refresh();
	return NULL;
}

static void silent_sink(enum log_level level, const char *line, size_t len)
{
	(void)level;
	(void)line;
	(void)len;
}

static void run_threads(u32 cores, u64 steps)
{
	pthread_t thread[CPUS_MAX];
	u64 writes[CORES_MAX];

	boot(cores, UC_LOCK);
	log_sink = silent_sink;
	threads_run = true;
	executed = asked = 0;
	steps_left = steps;
	for (u32 c = 0; c < cores; c++)
		writes[c] = core[c].writes - look(2 * c).writes;
	for (u32 id = 0; id < nr_cpus; id++)
		assert_int_equal(
			pthread_create(&thread[id], NULL, cpu_thread, (void *)(uintptr_t)id), 0);
	for (u32 id = 0; id < nr_cpus; id++)
		pthread_join(thread[id], NULL);
	threads_run = false;
	all_take_interrupts();
	assert_int_equal(executed, asked);
	for (u32 c = 0; c < cores; c++) {
		struct split_lock_core s = look(2 * c);

		be(2 * c);
		split_lock_refresh();
		s = look(2 * c);
		assert_true(s.current && sound(&s));
		assert_int_equal(s.passes, 0);
		assert_int_equal(s.threads, 2);
		assert_int_equal(s.writes + writes[c], core[c].writes);
		go_offline(2 * c);
		go_offline(2 * c + 1);
		assert_int_equal(core[c].reg, UC_LOCK);
	}
	assert_int_equal(host_failures, 0);
}

/* 4: threads that take part at once, again and again */
static void *joining(void *arg)
{
	u32 me = (u32)(uintptr_t)arg;

	be(me);
	for (u32 i = 0; i < 2000; i++) {
		HOST_CHECK(!split_lock_join(true));
		split_lock_leave();
	}
	HOST_CHECK(!split_lock_join(true));
	return NULL;
}

static void siblings_initialise_at_once(void **state)
{
	pthread_t thread[4];

	(void)state;
	boot(2, NO_LOCK);
	for (u32 id = 0; id < 4; id++)
		go_offline(id);
	threads_run = true;
	for (u32 id = 0; id < 4; id++) {
		bitmap_set(cpus_online.bits, id);
		pthread_create(&thread[id], NULL, joining, (void *)(uintptr_t)id);
	}
	for (u32 id = 0; id < 4; id++)
		pthread_join(thread[id], NULL);
	threads_run = false;
	for (u32 id = 0; id < 4; id++) {
		struct split_lock_core s = look(id);

		assert_int_equal(s.threads, 2);
		assert_true(sound(&s));
	}
	assert_int_equal(core[0].reg & core[1].reg, DETECT);
	assert_int_equal(host_failures, 0);
}

static void two_cores(void **state)
{
	(void)state;
	run_threads(2, steps_wanted() / 4);
}

static void sixteen_cores(void **state)
{
	(void)state;
	run_threads(CORES_MAX, steps_wanted() / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_orders),
		cmocka_unit_test(siblings_initialise_at_once),
		cmocka_unit_test(two_cores),
		cmocka_unit_test(sixteen_cores),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
