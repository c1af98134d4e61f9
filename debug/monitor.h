/* SPDX-License-Identifier: MIT */
/*
 * Corbel's prompt: a line goes in, a command runs, on the boot CPU, from a task with interrupts on.
 * Output has one record a line, with fields as key=value (values with blanks in double quotes), so
 * that scripts can read it.
 */
#pragma once

#include "lib/types.h"

struct vm;

/* What debug/ can't do by itself; set by boot. */
struct monitor_actions {
	const char *version;
	void (*poweroff)(void);
	void (*reboot)(void);
	int (*vm_reset)(
		struct vm *vm); /* stop it if it runs, and start it from power-on; 0 or an error */
	/* Make one of the configuration; begin to destroy one. NULL, or why not. */
	const char *(*vm_create)(const char *name);
	const char *(*vm_destroy)(struct vm *vm);
	const char *(*vm_clone)(struct vm *vm, const char *name);
	const char *(*vm_snapshot)(struct vm *vm);
	const char *(*vm_restore)(struct vm *vm);
};

/* Show the prompt. Once, after console_init(); *actions stays where it is. */
void monitor_init(const struct monitor_actions *actions);
/*
 * A byte of the operator's. From a task on the boot CPU. While a command runs they wait, but for
 * Ctrl-C, which ends it.
 */
void monitor_input(u8 c);
/*
 * Run one command line, [@TAG] COMMAND [-j] (see print.c), whose lines go to `output` and not to
 * the console; it is cut into words in place. The same context.
 */
void monitor_run_for(char *line, void (*output)(const char *text, size_t n));

#define MONITOR_LINE 510
/*
 * What commands print, from the same context. Appears once a line is complete; a line that is
 * longer than MONITOR_LINE is cut.
 */
void monitor_printf(const char *fmt, ...) PRINTF(1, 2);
/* Lines go there from now on; NULL: to the console. */
void monitor_print_to(void (*to)(const char *text, size_t n));
/*
 * A command's output begins and ends (print.c): with a tag (NULL: none) before each line and a last
 * line "TAG end lines=N", so that a script can tell it from all else on the line; as JSON.
 */
void monitor_print_begin(const char *tag, bool json);
void monitor_print_end(void);
/* Nobody watches what is being printed: no page that refreshes. */
bool monitor_for_script(void);

/* What a change of slots (virt/slots.h) failed with, in the user's words. */
const char *monitor_slot_error(int err);
