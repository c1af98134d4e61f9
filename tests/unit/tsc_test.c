/* SPDX-License-Identifier: MIT */
/*
 * Comparing TSCs, with two threads as CPUs whose TSCs and MSRs are made here. Their clock goes on
 * when another thread reads it, not with the host's time: how long the host lets a thread wait
 * is neither seen by the comparison nor by its limit of time.
 */
#define FAULTS 1 /* for its hook in cpuid() */
#include "arch/x86/tsc.c"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/host.h"

#define CPUS  3
#define APART (-123456789012ll)
#define TICKS 100
#define LAG   (1000 * TICKS)

struct cpumask cpus_online;
u32 tsc_khz = 1000000;
DEFINE_PERCPU(u32, cpu_id);

static int (*handler)(void *arg);
static pthread_t target;
static bool asked;
static char last_warning[128];

static struct {
	s64 off; /* of its TSC */
	u64 adjust, lag;
	bool variant, has_adjust, ignores, silent;
} cpu[CPUS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static u64 now = 1ull << 50; /* under the lock, like the next one */
static u32 last_reader;
static DEFINE_PERCPU(u64, last_tsc);

u64 rdtsc(void)
{
	u32 me = this_cpu(cpu_id);
	u64 time;

	sched_yield();
	pthread_mutex_lock(&lock);
	if (last_reader != me)
		now += TICKS;
	else if (cpu[1].silent)
		now += tsc_khz;
	last_reader = me;
	time = now;
	pthread_mutex_unlock(&lock);
	return this_cpu(last_tsc) = time + (u64)cpu[me].off;
}

void fault_inject_cpuid(u32 leaf, u32 subleaf, struct cpuid_regs *r)
{
	(void)subleaf;
	if (leaf == 0)
		r->eax = 7;
	if (leaf == 7)
		r->ebx = cpu[this_cpu(cpu_id)].has_adjust ? BIT(1) : 0;
	if (leaf == 0x80000000)
		r->eax = 0x80000008;
	if (leaf == 0x80000007)
		r->edx = cpu[this_cpu(cpu_id)].variant ? 0 : BIT(8);
}

int rdmsr_safe(u32 msr, u64 *value)
{
	HOST_CHECK(msr == MSR_TSC_ADJUST);
	*value = cpu[this_cpu(cpu_id)].adjust;
	return 0;
}

int wrmsr_safe(u32 msr, u64 value)
{
	u32 me = this_cpu(cpu_id);
	u64 by = value - cpu[me].adjust;

	if (msr == MSR_TSC)
		by = value - this_cpu(last_tsc) - cpu[me].lag;

	HOST_CHECK(me && msr == (cpu[me].has_adjust ? MSR_TSC_ADJUST : MSR_TSC));
	if (cpu[me].ignores)
		return 0;
	cpu[me].off += (s64)by;
	cpu[me].adjust += cpu[me].has_adjust ? by : 0;
	return 0;
}

void ipi_set_handler(enum ipi_kind kind, int (*h)(void *arg))
{
	assert_int_equal(kind, IPI_TSC);
	handler = h;
}

static u32 target_id;

static void *run(void *arg)
{
	this_cpu(cpu_id) = target_id;
	handler(arg);
	return NULL;
}

void ipi_post(enum ipi_kind kind, const struct cpumask *mask, void *arg)
{
	assert_int_equal(kind, IPI_TSC);
	assert_int_equal(bitmap_weight(mask->bits, MAX_CPUS), 1);
	if (asked)
		pthread_join(target, NULL);
	asked = false;
	for_each_cpu(id, mask)
		target_id = id;
	if (cpu[target_id].silent)
		return;
	asked = !pthread_create(&target, NULL, run, arg);
}

static void sink(enum log_level level, const char *line, size_t len)
{
	(void)level;
	memcpy(last_warning, line, MIN(len, sizeof(last_warning) - 1));
}

static int setup(void **state)
{
	(void)state;
	memset(cpu, 0, sizeof(cpu));
	memset(skews, 0, sizeof(skews));
	memset(last_warning, 0, sizeof(last_warning));
	memset(&cpus_online, 0, sizeof(cpus_online));
	for (u32 i = 0; i < CPUS; i++)
		bitmap_set(cpus_online.bits, i);
	log_sink = sink;
	tsc_init();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (asked)
		pthread_join(target, NULL);
	asked = false;
	return 0;
}

static void agree(void **state)
{
	(void)state;
	assert_false(tsc_stable());
	assert_int_equal(tsc_sync(1), 0);
	assert_false(tsc_stable()); /* not before all are known */
	assert_int_equal(tsc_sync(2), 0);
	assert_true(tsc_stable());
	assert_true(tsc_skew(1)->known && tsc_skew(1)->min <= 0 && tsc_skew(1)->max >= 0);
	assert_string_equal(last_warning, "");
	assert_int_equal(cpu[1].off, 0);
}

/* Both ways to change it; one takes time, which the next try makes up for. */
static void apart(void **state)
{
	(void)state;
	for (u32 has_adjust = 0; has_adjust < 2; has_adjust++) {
		cpu[1].off = APART;
		cpu[1].has_adjust = has_adjust;
		cpu[1].adjust = 77;
		cpu[1].lag = LAG;
		assert_int_equal(tsc_sync(1), 0);
		assert_true(tsc_skew(1)->agrees);
		assert_non_null(strstr(last_warning, "CPU 1: its TSC was -1234"));
		assert_non_null(strstr(last_warning, "ticks off: set right"));
		if (has_adjust)
			assert_int_equal(cpu[1].adjust, 77 - APART + cpu[1].off);
	}
}

static void stays_apart(void **state)
{
	(void)state;
	cpu[1].off = APART;
	cpu[1].ignores = true;
	assert_int_equal(tsc_sync(1), 0); /* CPU 2 is not known yet */
	assert_non_null(strstr(last_warning, "ticks off: it can't be set right"));
	assert_true(tsc_skew(1)->max < 0 && !tsc_skew(1)->agrees);
	assert_int_equal(tsc_sync(2), 0);
	assert_false(tsc_stable());
	assert_int_equal(tsc_sync(1), -ENODEV); /* the only one */
	bitmap_clear(cpus_online.bits, 1);
	assert_true(tsc_stable());
}

static void stops_in_sleep(void **state)
{
	(void)state;
	cpu[2].variant = true;
	assert_int_equal(tsc_sync(1), 0);
	assert_int_equal(tsc_sync(2), -ENODEV);
	assert_true(tsc_skew(2)->known && !tsc_skew(2)->agrees);
	assert_false(tsc_stable());
}

static void no_answer(void **state)
{
	(void)state;
	cpu[1].silent = true;
	assert_int_equal(tsc_sync(1), 0);
	assert_non_null(strstr(last_warning, "CPU 1: its TSC can't be compared: no answer"));
	assert_false(tsc_skew(1)->known || tsc_stable());
	cpu[1].silent = false;
	assert_int_equal(tsc_sync(1), 0);
	assert_true(tsc_skew(1)->agrees);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(agree, setup, teardown),
		cmocka_unit_test_setup_teardown(apart, setup, teardown),
		cmocka_unit_test_setup_teardown(stays_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(stops_in_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(no_answer, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
