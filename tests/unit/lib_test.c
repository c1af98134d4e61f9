/* SPDX-License-Identifier: MIT */
/* Formatting against the C library's; the log's ring; the order of locks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/spinlock.h"
#include "tests/unit/host.h"

#define RING 65536 /* LOG_RING of lib/log.c */

/* Ours and the C library's must agree, in every size of the buffer. */
#define SAME(...)                                                                          \
	do {                                                                               \
		char want[128], got[128];                                                  \
		int len = snprintf(want, sizeof(want), __VA_ARGS__);                       \
		for (size_t size = 0; size <= (size_t)len + 2; size++) {                   \
			memset(got, '~', sizeof(got));                                     \
			assert_int_equal(fmt_snprintf(got, size, __VA_ARGS__), len);       \
			assert_int_equal(got[size], '~');                                  \
			if (size)                                                          \
				assert_int_equal(strlen(got), MIN((size_t)len, size - 1)); \
			if (size)                                                          \
				assert_memory_equal(got, want, strlen(got));               \
		}                                                                          \
	} while (0)

static void numbers(void **state)
{
	static const int values[] = { 0, 1, -1, 9, 10, -10, 255, 65536, INT32_MAX, INT32_MIN };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
		int v = values[i];

		SAME("%d|%u|%x", v, (u32)v, (u32)v);
		SAME("%5d|%-5d|%05d", v, v, v);
		SAME("%#x|%#10x|%#010x|%-#10x|", (u32)v, (u32)v, (u32)v, (u32)v);
		SAME("%.0d|%.3d|%8.3d|%-8.3d|", v, v, v, v);
		SAME("%ld|%lu|%lx|%llx|%zu", (long)v, (unsigned long)v, (long)v, (long long)v,
		     (size_t)v);
		SAME("%*d|%-*d|%*d", 7, v, 7, v, -7, v);
	}
	SAME("%ld %lu %lx", INT64_MIN, UINT64_MAX, UINT64_MAX);
	SAME("%016lx", 0x123456789abcdeful);
}

static void strings(void **state)
{
	const char torn[] = { 'a', 'b', 'c' }; /* no terminator: the precision is the end */

	(void)state;
	SAME("%s|%10s|%-10s|%.2s|%10.2s|%.0s|", "text", "text", "text", "text", "text", "text");
	SAME("%c%c%3c%-3c|", 'a', 'b', 'c', 'd');
	SAME("100%% %s", "");
	SAME("%.3s", torn);
	SAME("%p", (void *)0x1234);
}

/* What the C library does not promise. */
static void odd(void **state)
{
	const char *volatile none = NULL;
	const char *volatile unknown = "%k|%5", *volatile cut = "abc%";
	char buf[32];

	(void)state;
	fmt_snprintf(buf, sizeof(buf), "%s", none);
	assert_string_equal(buf, "(null)");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
	fmt_snprintf(buf, sizeof(buf), unknown);
	assert_string_equal(buf, "k|");
	assert_int_equal(fmt_snprintf(buf, sizeof(buf), cut), 3);
	assert_string_equal(buf, "abc");
#pragma GCC diagnostic pop
}

static struct {
	u32 lines;
	char first[256], last[256];
	u32 next; /* number that the next line must have; lines without one end the sequence */
	bool in_order;
} seen;

static void see(void *arg, const char *line, size_t len)
{
	char *text = seen.lines ? seen.last : seen.first;
	const char *number;
	u32 n;

	(void)arg;
	assert_true(len < sizeof(seen.last));
	memcpy(text, line, len);
	text[len] = '\0';
	assert_int_equal(strlen(text), len);
	number = strstr(text, "line ");
	if (!number || sscanf(number, "line %u", &n) != 1 || (seen.lines && n != seen.next))
		seen.in_order = false;
	else
		seen.next = n + 1;
	seen.lines++;
}

static void replay(void)
{
	memset(&seen, 0, sizeof(seen));
	seen.in_order = true;
	for_each_log_line(l, false) see(NULL, l.text, l.len);
}

static u64 fake_ns(void)
{
	return 12345678000ull;
}

static u32 fake_cpu(void)
{
	return 3;
}

static char sunk[256];
static u32 sinks;

static void sink(enum log_level level, const char *line, size_t len)
{
	(void)level;
	memcpy(sunk, line, len);
	sunk[len] = '\0';
	sinks++;
}

static void log_lines(void **state)
{
	char text[600];

	(void)state;
	log_sink = sink;
	log_info("line %u", 0);
	assert_string_equal(sunk, "[    0.000000 0 I] line 0");
	log_clock_ns = fake_ns;
	log_cpu = fake_cpu;
	log_err("line %u", 1);
	assert_string_equal(sunk, "[   12.345678 3 E] line 1");
	log_debug("line %u", 2); /* too quiet for the sink, not for the ring */
	assert_int_equal(sinks, 2);
	replay();
	assert_int_equal(seen.lines, 3);
	assert_true(seen.in_order);
	assert_string_equal(seen.first, "[    0.000000 0 I] line 0");
	assert_string_equal(seen.last, "[   12.345678 3 D] line 2");

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_warn("line 3 %s", text); /* cut, and still one line */
	assert_int_equal(strlen(sunk), 255);
	replay();
	assert_int_equal(seen.lines, 4);
	assert_int_equal(strlen(seen.last), 255);
	log_sink = NULL;
}

/* Whatever the lengths: after the ring has wrapped there are whole lines, the newest, in order. */
static void log_wraps(void **state)
{
	char pad[101];
	u32 n = 0;

	(void)state;
	memset(pad, '.', sizeof(pad));
	pad[100] = '\0';
	for (u32 round = 0; round < 40; round++) {
		for (u32 i = 0; i < 200; i++, n++)
			log_debug("line %u %.*s", n, (int)(n * 7 % 101), pad);
		if (round < 10)
			continue;
		replay();
		assert_true(seen.in_order);
		assert_int_equal(seen.next, n);
		assert_non_null(strstr(seen.first, "] line "));
		assert_true(seen.lines > RING / 160 && seen.lines < RING / 20);
	}
}

static u32 replayed;

static void see_and_log(void *arg, const char *line, size_t len)
{
	(void)arg, (void)line, (void)len;
	replayed++;
	if (replayed < 2000) /* each makes the ring lose at least one that was not seen yet */
		log_debug(
			"from within a replay, and longer than the lines that it pushes out ......"
			"...............................................................");
}

/* No lock is held meanwhile, and what gets lost under the reader is skipped: it ends. */
static void log_in_replay(void **state)
{
	(void)state;
	for_each_log_line(l, false) see_and_log(NULL, l.text, l.len);
	assert_true(replayed >= 2000);
	replay();
	assert_non_null(strstr(seen.last, "from within a replay"));
}

static struct log_area area;
static u32 n_previous;
static char last_previous[256];

static void see_previous(void *arg, const char *line, size_t len)
{
	(void)arg;
	n_previous++;
	for (size_t i = 0; i < len; i++)
		assert_in_range(line[i], ' ', '~');
	snprintf(last_previous, sizeof(last_previous), "%.*s", (int)len, line);
}

/* Last of the log's tests: the log stays in `area`. What was there before comes out, if it was a
 * log. */
static void log_over_a_reset(void **state)
{
	static struct log_area boots[2];
	bool ended = true;

	(void)state;
	assert_false(log_previous(&ended));
	memset(&area, 0xa5, sizeof(area));
	log_keep(&area);
	assert_false(log_previous(&ended));
	log_info("first boot");
	boots[0] = area;

	/* the next boot: it has its own lines, and those */
	log_keep(&area);
	assert_true(log_previous(&ended));
	assert_false(ended);
	n_previous = 0;
	for_each_log_line(l, true) see_previous(NULL, l.text, l.len);
	assert_string_equal(last_previous, "[   12.345678 3 I] first boot");
	log_ended();
	log_info("second boot");

	for (u32 bit = 0; bit < 8 * offsetof(struct log_area, ended); bit++) {
		boots[1] = boots[0];
		((u8 *)&boots[1])[bit / 8] ^= (u8)(1 << bit % 8);
		log_keep(&boots[1]);
		assert_false(log_previous(&ended));
	}
	/* garbage in the ring is only garbage */
	boots[1] = boots[0];
	for (u32 i = 0; i < RING; i++)
		boots[1].ring[i] = (char)(i * 7919 >> 3);
	log_keep(&boots[1]);
	assert_true(log_previous(&ended));
	n_previous = 0;
	for_each_log_line(l, true) see_previous(NULL, l.text, l.len);
	assert_true(n_previous > 100);
}

static u32 held;

static u32 *held_ranks(void)
{
	return &held;
}

static void lock_order(void **state)
{
	struct spinlock vm = SPINLOCK_INIT(RANK_VM), vm2, runq = SPINLOCK_INIT(RANK_RUNQ);
	u64 warnings;

	(void)state;
	host_hooks_open();
	spin_init(&vm2, RANK_VM);
	spin_held_hook = held_ranks;
	warnings = host_warnings;
	spin_lock(&vm);
	spin_lock(&runq);
	assert_int_equal(held, 1u << RANK_VM | 1u << RANK_RUNQ);
	assert_false(spin_trylock(&runq));
	assert_int_equal(held, 1u << RANK_VM | 1u << RANK_RUNQ);
	spin_unlock(&vm); /* in any order */
	assert_true(spin_trylock(&vm2));
	spin_unlock(&vm2);
	assert_int_equal(host_warnings, warnings + 1); /* trylock of an earlier rank */
	spin_unlock(&runq);
	assert_int_equal(held, 0);
	spin_held_hook = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(strings),
		cmocka_unit_test(odd),
		cmocka_unit_test(log_lines),
		cmocka_unit_test(log_wraps),
		cmocka_unit_test(log_in_replay),
		cmocka_unit_test(log_over_a_reset),
		cmocka_unit_test(lock_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
