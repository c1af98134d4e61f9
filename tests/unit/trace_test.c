/* SPDX-License-Identifier: MIT */
/* The ring of a CPU: what is read of it, also while that CPU writes as fast as it can. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/insn.h"
#include "arch/x86/trace.h"
#include "tests/unit/host.h"

struct cpu cpus[MAX_CPUS];

u64 read_flags(void)
{
	return 0;
}

void irq_disable(void)
{
}

void irq_enable(void)
{
	abort(); /* it was off */
}

static struct trace_event *ring;
static struct trace_event got[TRACE_EVENTS_KEPT];
static u32 got_count;

static void keep(void *arg, const struct trace_event *e)
{
	(void)arg;
	got[got_count++] = *e;
}

static u32 read_all(u32 count)
{
	u32 n;

	got_count = 0;
	n = trace_read(0, count, keep, NULL);
	assert_int_equal(n, got_count);
	return n;
}

static int open_ring(void **state)
{
	(void)state;
	free(ring);
	ring = aligned_alloc(TRACE_BYTES, TRACE_BYTES);
	memset(ring, 0, TRACE_BYTES);
	trace_set_classes(BIT(TRACE_CLASS_COUNT) - 1);
	trace_give_memory(0, ring);
	return 0;
}

static void write_event(u64 n)
{
	trace(TRACE_MAP, TRACE_WHO(0x1234, 0x56), (u32)n, n, ~n);
}

static void order(void **state)
{
	u64 n = 0;

	(void)state;
	assert_int_equal(read_all(10), 0);
	assert_int_equal(trace_read(1, 10, keep, NULL), 0); /* a CPU without a ring */
	for (; n < 5; n++)
		write_event(n);
	assert_int_equal(read_all(0), 0);
	assert_int_equal(read_all(3), 3);
	assert_int_equal(read_all(10), 5);
	for (u32 i = 0; i < 5; i++) {
		assert_int_equal(got[i].a, 4 - i);
		assert_true(got[i].b == ~got[i].a);
		assert_int_equal(got[i].who, (u64)(4 - i) << 32 | 0x12345600 | TRACE_MAP);
		assert_true(!i || got[i].tsc < got[i - 1].tsc);
	}
	/* Round and round: all but the two slots that might be under the pen. */
	for (; n < 3 * TRACE_EVENTS_KEPT + 7; n++)
		write_event(n);
	assert_int_equal(read_all(~0u), TRACE_EVENTS_KEPT - 2);
	for (u32 i = 0; i < got_count; i++)
		assert_int_equal(got[i].a, n - 1 - i);
}

static void filter(void **state)
{
	(void)state;
	trace_set_classes(BIT(TRACE_CLASS_COUNT) - 1 - BIT(TRACE_CLASS_FAULT));
	write_event(1);
	assert_int_equal(read_all(10), 0);
	trace(TRACE_KICK, 0, 7, 0, 0);
	assert_int_equal(read_all(10), 1);
	assert_int_equal(got[0].who, 7ull << 32 | TRACE_KICK);
	trace_set_classes(BIT(TRACE_CLASS_FAULT));
	trace(TRACE_KICK, 0, 8, 0, 0);
	write_event(2);
	assert_int_equal(read_all(10), 2);
	assert_int_equal(got[0].a, 2);
}

/* The events that were being overwritten: as a reader finds them who comes at any instant. */
static void torn(void **state)
{
	(void)state;
	for (u64 n = 0; n < TRACE_EVENTS_KEPT + 10; n++)
		write_event(n);
	for (u32 stores = 0; stores <= 4; stores++) {
		struct trace_event *slot = &ring[10], old = *slot;

		/* the writer is in the middle of the next one */
		if (stores > 0)
			slot->tsc = __builtin_ia32_rdtsc();
		if (stores > 1)
			slot->who = TRACE_KICK;
		if (stores > 2)
			slot->a = 0;
		if (stores > 3)
			slot->b = 0;
		assert_int_equal(read_all(~0u), TRACE_EVENTS_KEPT - 2);
		for (u32 i = 0; i < got_count; i++)
			assert_true(got[i].b == ~got[i].a && got[i].a == TRACE_EVENTS_KEPT + 9 - i);
		*slot = old;
	}
	/* it was overtaken: what is newer than the newest that it knew is not taken for old */
	ring[2000].tsc = __builtin_ia32_rdtsc();
	assert_int_equal(read_all(~0u), 9 + TRACE_EVENTS_KEPT - 2000);
}

static bool stop;

static void *writer(void *arg)
{
	trace_give_memory(0, ring); /* its own copy of the per-CPU variable */
	__atomic_store_n((bool *)arg, true, __ATOMIC_SEQ_CST);
	for (u64 n = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++)
		write_event(n);
	return NULL;
}

static void racing(void **state)
{
	u64 events = 0, most = 0;
	bool ready = false;
	pthread_t thread;

	(void)state;
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, writer, &ready), 0);
	while (!__atomic_load_n(&ready, __ATOMIC_SEQ_CST))
		;
	for (u32 round = 0; round < 20000; round++) {
		u32 n = read_all(~0u);

		for (u32 i = 0; i < n; i++) {
			assert_true(got[i].b == ~got[i].a &&
				    (u32)(got[i].who >> 32) == (u32)got[i].a);
			assert_true(!i || got[i].a == got[i - 1].a - 1);
		}
		events += n;
		most = MAX(most, n);
	}
	stop = true;
	pthread_join(thread, NULL);
	assert_true(events > 20000 && most > 10);
	print_message("%lu events seen while others were written, at most %lu at once\n", events,
		      most);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(trace_class_name(TRACE_CLASS_EXIT), "exit");
	assert_string_equal(trace_class_name(TRACE_CLASS_COUNT - 1), "vm");
	for (enum trace_type t = TRACE_FIRST + 1; t < TRACE_TYPES; t++)
		assert_true(trace_format(t)->name && trace_format(t)->class < TRACE_CLASS_COUNT);
	assert_string_equal(trace_format(TRACE_INJECT)->name, "inject");
	assert_string_equal(trace_format(TRACE_VM_STOP)->arg, "reason");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(order, open_ring),
		cmocka_unit_test_setup(filter, open_ring),
		cmocka_unit_test_setup(torn, open_ring),
		cmocka_unit_test_setup(racing, open_ring),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
