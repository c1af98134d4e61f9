/* SPDX-License-Identifier: MIT */
/*
 * debug/console.c and debug/vmconsole.c: who gets the line, what is kept, what never reaches the
 * terminal.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "debug/console.h"
#include "debug/monitor.h"
#include "debug/escape.h"
#include "lib/error.h"
#include "tests/unit/debug_fake.h"

#define LEAVE "\x1d"
static const struct monitor_actions actions = { .version = "test" };

static int setup(void **state)
{
	(void)state;
	fake_open(&actions);
	assert_int_equal(console_vm_add(&fake_linux, &fake_uart), 0);
	fake_clear();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	console_vm_remove(&fake_linux);
	console_edit_end(); /* the next test begins with an empty terminal */
	assert_int_equal(fake_frames_out, 0);
	return 0;
}

static void log_keeps_the_edited_line(void **state)
{
	(void)state;
	fake_type("vm li");
	fake_type("\x1b[D");
	assert_string_equal(fake_serial.line, "corbel> vm li");
	assert_int_equal(fake_serial.column, 12);
	fake_clear();
	log_info("hello");
	assert_true(fake_said("\r\x1b[K["));
	assert_true(fake_said("I] hello\r\ncorbel> vm li\b"));
	assert_string_equal(fake_serial.line, "corbel> vm li");
	assert_int_equal(fake_serial.column, 12);
	assert_string_equal(fake_screen.line, "corbel> vm li");
}

static void log_line_cannot_control_the_terminal(void **state)
{
	(void)state;
	log_info("a\x1b[2Jb\nc\x9b");
	assert_true(fake_said("a?[2Jb\r\nc?\r\n"));
}

static void log_while_a_vm_is_attached(void **state)
{
	(void)state;
	console_attach(&fake_linux);
	fake_clear();
	log_info("quiet");
	assert_int_equal(fake_serial.len, 0);
	assert_non_null(strstr(fake_screen.text, "quiet"));
	fake_guest("half a line");
	log_warn("loud");
	assert_true(fake_said("half a line\r\n["));
	assert_true(fake_said("W] loud\r\n"));
	assert_false(fake_said("corbel>"));
	assert_string_equal(fake_screen.line, "corbel> ");
}

static void print_above_the_edited_line(void **state)
{
	(void)state;
	fake_type("abc");
	fake_clear();
	monitor_printf("one\ntwo\n");
	assert_string_equal(fake_serial.text, "\r\x1b[Kone\r\ntwo\r\ncorbel> abc");
	fake_clear();
	monitor_printf("key=");
	log_info("line");
	assert_false(fake_said("key="));
	monitor_printf("value\n");
	assert_true(fake_said("key=value\r\ncorbel> abc"));
	console_print("unfinished", 10);
	log_info("line");
	assert_true(fake_said("unfinished\r\n["));
	assert_string_equal(fake_serial.line, "corbel> abc");
}

static void guest_is_kept_while_nobody_looks(void **state)
{
	(void)state;
	fake_guest("\x1b[2Jboot\r\nlogin: ");
	assert_int_equal(fake_serial.len, 0);
	assert_int_equal(fake_screen.len, 0);
	assert_int_equal(console_attach(&fake_linux), 0);
	assert_ptr_equal(console_attached(), &fake_linux);
	assert_true(fake_said("-- linux: Ctrl-] returns to the monitor\r\n\x1b[2Jboot\r\nlogin: "));
	fake_clear();
	fake_guest("more");
	assert_string_equal(fake_serial.text, "more");
	assert_null(strstr(fake_screen.text, "more"));
}

static void leaving_resets_the_terminal(void **state)
{
	(void)state;
	fake_type("half");
	console_attach(&fake_linux);
	fake_guest("\x1b[31m\x1b[?25l\x1b]0;title");
	fake_clear();
	fake_type(LEAVE);
	assert_null(console_attached());
	assert_memory_equal(fake_serial.text, "\x18\x1b\\", 3);
	assert_true(fake_said("\x1b[m"));
	assert_true(fake_said("\x1b[?25h"));
	assert_true(fake_said("\x1b[r"));
	assert_true(fake_said("\x1b[?47l"));
	assert_true(fake_said("\r\ncorbel> half"));
	fake_clear();
	fake_guest("\x1b[31mred");
	assert_int_equal(fake_serial.len, 0);
	console_attach_monitor();
	assert_int_equal(fake_serial.len, 0);
}

static void nothing_new_shows_the_last_line(void **state)
{
	(void)state;
	fake_guest("old\r\n~ # ");
	console_attach(&fake_linux);
	fake_type(LEAVE);
	fake_clear();
	console_attach(&fake_linux);
	assert_true(fake_said("monitor\r\n~ # "));
	assert_false(fake_said("old"));
}

static void replay_is_bounded(void **state)
{
	struct console_stats stats;
	char text[32];

	(void)state;
	for (u32 i = 0; i < 10000; i++) {
		snprintf(text, sizeof(text), "line %06u\r\n", i);
		fake_guest(text);
	}
	assert_true(console_vm_stats(&fake_linux, &stats));
	assert_int_equal(stats.written, 130000);
	assert_int_equal(stats.unseen, 130000);
	assert_string_equal(stats.last_line, "line 009999");
	console_attach(&fake_linux);
	/* 4096 bytes are 315 lines and a bit, the bit is left out. */
	assert_true(fake_said("; 125905 bytes skipped\r\nline 009685\r\n"));
	assert_true(fake_said("line 009999\r\n"));
	assert_true(console_vm_stats(&fake_linux, &stats));
	assert_int_equal(stats.unseen, 0);
}

static void replay_without_line_breaks(void **state)
{
	(void)state;
	for (u32 i = 0; i < 70000; i++)
		fake_guest("x");
	console_attach(&fake_linux);
	assert_true(fake_said("65904 bytes skipped\r\nxxx"));
	fake_type(LEAVE);
	console_attach(&fake_linux);
}

static void expect_last_line(const char *written, const char *shown)
{
	struct console_stats stats;

	fake_guest(written);
	assert_true(console_vm_stats(&fake_linux, &stats));
	assert_string_equal(stats.last_line, shown);
}

static void last_line_is_harmless(void **state)
{
	char wide[300];

	(void)state;
	expect_last_line("", "");
	expect_last_line("hello", "hello");
	expect_last_line("\r\n", "hello");
	expect_last_line("\r\n \t\r\n", "hello");
	expect_last_line("\x1b[1;31mred\x1b[0m\r\n", "red");
	expect_last_line("\x1b]0;evil title\x07prompt$ ", "prompt$");
	expect_last_line("\r\n10%\r20%\r100%", "100%");
	expect_last_line("\r\ncaf\xc3\xa9 \x1b", "caf?");
	expect_last_line("\nquote\"d\n", "quote\"d");
	memset(wide, 'w', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	fake_guest(wide);
	wide[119] = '\0';
	expect_last_line("", wide);
}

static void *writer(void *arg)
{
	char text[16];

	for (u32 i = 0; i < 20000; i++) {
		snprintf(text, sizeof(text), "%08u\n", i);
		fake_guest(text);
	}
	__atomic_store_n((bool *)arg, true, __ATOMIC_SEQ_CST);
	return NULL;
}

/*
 * Whoever attaches while the guest writes on another CPU sees all of it up to the end, and nothing
 * twice.
 */
static void attach_while_the_guest_writes(void **state)
{
	bool done = false;
	u32 last = 0, n;
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, writer, &done);
	for (u32 i = 0; i < 1000 && !__atomic_load_n(&done, __ATOMIC_SEQ_CST); i++) {
		console_attach(&fake_linux);
		sched_yield();
		console_attach_monitor();
	}
	console_attach(&fake_linux);
	pthread_join(thread, NULL);
	assert_non_null(strstr(fake_serial.text, "00019999\n"));
	for (char *line = strtok(fake_serial.text, "\r\n"); line; line = strtok(NULL, "\r\n")) {
		if (strspn(line, "0123456789") != 8 || strlen(line) != 8)
			continue;
		n = (u32)strtoul(line, NULL, 10);
		assert_in_range(n, last, 20000); /* equal: the last line is shown again */
		last = n;
	}
}

static void typed_reaches_the_guest(void **state)
{
	(void)state;
	console_attach(&fake_linux);
	fake_type("echo hi\r\x03\x1b[A");
	assert_int_equal(fake_typed_len, 12);
	assert_memory_equal(fake_typed, "echo hi\r\x03\x1b[A", 12);
}

static void typed_waits_for_the_guest(void **state)
{
	struct console_stats stats;

	(void)state;
	console_attach(&fake_linux);
	fake_uart_room = 16;
	fake_uart.input_ready(fake_uart.arg);
	assert_int_equal(fake_task_wakes, 0);
	fake_clear();
	for (u32 i = 0; i < 16 + 1024 + 3; i++)
		console_input((u8)('a' + i % 26));
	assert_string_equal(fake_serial.text, "\a\a\a");
	console_vm_stats(&fake_linux, &stats);
	assert_int_equal(stats.queued, 1024);
	assert_int_equal(stats.lost, 3);
	/*
	 * The guest reads, from another CPU: the boot CPU is asked to feed it, also with the
	 * monitor attached.
	 */
	fake_type(LEAVE);
	fake_uart_room = 1000;
	fake_uart.input_ready(fake_uart.arg);
	assert_int_equal(fake_task_wakes, 1);
	assert_int_equal(fake_typed_len, 16);
	fake_run_tasks();
	assert_int_equal(fake_typed_len, 1016);
	fake_uart_room = 4096;
	fake_uart.input_ready(fake_uart.arg);
	fake_run_tasks();
	assert_int_equal(fake_typed_len, 1040);
	for (u32 i = 0; i < 1040; i++)
		assert_int_equal(fake_typed[i], 'a' + i % 26);
}

static void no_memory_for_a_console(void **state)
{
	struct uart uart = { 0 };
	s32 before = fake_frames_out;

	(void)state;
	for (u32 left = 0; left < 2; left++) {
		fake_frames_left = left;
		assert_int_equal(console_vm_add(&fake_lab, &uart), -ENOMEM);
		assert_int_equal(fake_frames_out, before);
		assert_null(uart.output);
	}
	fake_clear();
	assert_int_equal(console_attach(&fake_lab), -ENOENT);
	assert_null(console_attached());
}

static void removal_detaches(void **state)
{
	(void)state;
	console_attach(&fake_linux);
	console_vm_remove(&fake_linux);
	assert_null(console_attached());
	assert_null(fake_uart.output);
	assert_int_equal(fake_frames_out, 0);
	console_vm_remove(&fake_linux);
}

static void crash_needs_no_lock(void **state)
{
	(void)state;
	console_attach(&fake_linux);
	fake_clear();
	console_crash_mode();
	log_err("panic");
	assert_true(fake_said("\x1b[?25h"));
	assert_true(fake_said("E] panic\r\n"));
	assert_false(fake_said("corbel>"));
	log_warn("details");
	assert_true(fake_said("W] details\r\n"));
	assert_non_null(strstr(fake_screen.text, "E] panic\r\n"));
	assert_null(strstr(fake_screen.text, "details"));
}

static void escape_sequences(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "plain\r\n\t\b", "plain\r\n\t\b" },
		{ "a\x1b[1;2Hb\x1b[?25lc", "abc" },
		{ "a\x1b(Bb\x1b#8c\x1b=d", "abcd" },
		{ "a\x1b]0;t\x07"
		  "b\x1b]2;t\x1b\\c\x1bPq\x1b\\d",
		  "abcd" },
		{ "a\x1b]0;t\x1b[31mb", "ab" },
		{ "a\x1b[31\x18"
		  "b\x1b[31\nc",
		  "ab\nc" },
		{ "\x01\x7f\x80\xbf\xc3\xa9\xf0\x9f\x98\x80", "??" },
		{ "a\x1b[K"
		  "b",
		  "aKb" },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct escape_filter f = { 0 };
		char out[64];
		u32 n = 0;

		for (const char *c = cases[i].in; *c; c++) {
			int r = escape_filter(&f, (u8)*c);

			if (r != ESCAPE_DROP)
				out[n++] = r == ESCAPE_ERASE_LINE ? 'K' : (char)r;
		}
		out[n] = '\0';
		assert_string_equal(out, cases[i].out);
	}
}

static void endless_sequence_is_given_up(void **state)
{
	struct escape_filter f = { 0 };
	u32 shown = 0;

	(void)state;
	escape_filter(&f, 0x1b);
	escape_filter(&f, ']');
	for (u32 i = 0; i < 1000; i++)
		shown += escape_filter(&f, 'x') == 'x';
	assert_in_range(shown, 900, 999);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(log_keeps_the_edited_line),
		TEST(log_line_cannot_control_the_terminal),
		TEST(log_while_a_vm_is_attached),
		TEST(print_above_the_edited_line),
		TEST(guest_is_kept_while_nobody_looks),
		TEST(leaving_resets_the_terminal),
		TEST(nothing_new_shows_the_last_line),
		TEST(replay_is_bounded),
		TEST(replay_without_line_breaks),
		TEST(last_line_is_harmless),
		TEST(attach_while_the_guest_writes),
		TEST(typed_reaches_the_guest),
		TEST(typed_waits_for_the_guest),
		TEST(no_memory_for_a_console),
		TEST(removal_detaches),
		TEST(escape_sequences),
		TEST(endless_sequence_is_given_up),
		TEST(crash_needs_no_lock), /* the last: there is no way back */
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
