/* SPDX-License-Identifier: MIT */
/*
 * Hostile bytes from both ends: the operator's terminal, and a guest that writes to its console.
 * The first byte of each pair says who writes the second. Whatever happens, a guest that is not
 * attached never gets a control sequence through.
 */
#include <stdlib.h>
#include <string.h>

#include "debug/console.h"
#include "debug/lineedit.h"
#include "debug/monitor.h"
#include "lib/log.h"
#include "tests/unit/debug_fake.h"

static void nothing(void)
{
}

static int no_reset(struct vm *vm)
{
	(void)vm;
	return 0;
}

static const char *no_create(const char *name)
{
	(void)name;
	return "no";
}

static const char *no_destroy(struct vm *vm)
{
	(void)vm;
	return "no";
}

static const struct monitor_actions actions = {
	.version = "fuzz",
	.poweroff = nothing,
	.reboot = nothing,
	.vm_reset = no_reset,
	.vm_create = no_create,
	.vm_destroy = no_destroy,
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fake_open(&actions);
	if (console_vm_add(&fake_linux, &fake_uart))
		abort();
	return 0;
}

/* In what was said while the monitor was attached: only what Corbel itself uses. */
static void check_plain(void)
{
	for (const char *c = fake_serial.text; *c; c++) {
		if (*c == 0x1b && strncmp(c, "\x1b[K", 3) && strncmp(c, "\x1b[H", 3) &&
		    strncmp(c, "\x1b[2J", 4))
			abort();
		if (((u8)*c < ' ' && !strchr("\r\n\b\a\x1b", *c)) || (u8)*c > '~')
			abort();
	}
}

static void guest(u8 c)
{
	bool attached = console_attached() == &fake_linux;

	fake_clear();
	fake_uart.output(fake_uart.arg, &c, 1);
	if (fake_serial.len != attached)
		abort();
}

static void operator(u8 c)
{
	bool attached = console_attached() != NULL;

	fake_clear();
	console_input(c);
	if (!attached && !console_attached())
		check_plain();
	if (!console_attached() &&
	    (fake_serial.column > TERMINAL_WIDTH || fake_serial.line_len > TERMINAL_WIDTH))
		abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	console_attach_monitor();
	fake_type("\x03");
	fake_typed_len = 0;
	for (size_t i = 0; i + 1 < size; i += 2) {
		fake_uart_room = data[i] & 0x0f;
		if (data[i] >= 0xf0)
			log_at(data[i] & 3, "%c%c", data[i + 1], data[i + 1]);
		else if (data[i] & 0x80)
			guest(data[i + 1]);
		else
			operator(data[i + 1]);
		if (data[i] & 0x40)
			fake_run_tasks();
	}
	return 0;
}
