/* SPDX-License-Identifier: MIT */
/*
 * One serial line (and the screen) for everybody: the monitor with the log, or one VM's console.
 * Ctrl-] leaves a VM's console; a guest therefore never gets that byte.
 *
 *	monitor --- console_attach(vm) ---> the VM's console
 *	        <-- console_attach_monitor(), Ctrl-] ---
 *
 * What a VM writes while it is not attached is kept (the last 64 KiB) and never reaches the
 * terminal. On return from a VM the terminal is put into a sane state. The screen shows the
 * monitor and the log, or Corbel's status, never a guest.
 *
 * The lock (RANK_CONSOLE) is taken inside, and the serial port's within it; its holder must not
 * log.
 */
#pragma once

#include "debug/screen.h"
#include "debug/terminal.h"
#include "dev/uart16550.h"
#include "lib/log.h"

/*
 * The log's sink. Works from the first line on, before console_init(). Any CPU, any context; gives
 * up rather than hang.
 */
void console_log(enum log_level level, const char *line, size_t len);
/*
 * The machine is crashing: from now on no lock is taken, and the line is the log's. After
 * serial_crash_mode().
 */
void console_crash_mode(void);

/* Once, on the boot CPU, after sched_init() and before the first VM. */
void console_init(void);
/* A byte from the serial line. From a task on the boot CPU, interrupts on. */
void console_input(u8 c);

/*
 * Give a VM a console: sets the callbacks of its UART. Boot CPU, from a task or before tasks run,
 * the VM not running. 0, or -ENOMEM: then the VM works, but what it writes is lost.
 */
int console_vm_add(struct vm *vm, struct uart *uart);
/* The VM goes away, or its UART. The same contexts. */
void console_vm_remove(struct vm *vm);

/*
 * Show a VM's console, beginning with what it wrote unseen, at most 4 KiB of it. Boot CPU. -ENOENT:
 * it has none.
 */
int console_attach(struct vm *vm);
/*
 * Back to the monitor; no-op if it is attached. Any CPU, any context but NMI, no lock from
 * RANK_CONSOLE on held.
 */
void console_attach_monitor(void);
/* Whose console it is now; NULL: the monitor's. Boot CPU, or any CPU while that VM exists. */
struct vm *console_attached(void);

struct console_stats {
	u64 written, unseen;
	u32 queued;	     /* bytes that the guest has not taken yet */
	u64 lost;	     /* bytes typed while that queue was full; each rang the bell */
	char last_line[120]; /* printable characters only */
};
/* False: the VM has no console. Boot CPU, from a task. */
bool console_vm_stats(struct vm *vm, struct console_stats *out);

/*
 * The monitor's side. Boot CPU, from a task. While a VM is attached all this reaches the screen
 * only.
 */

/* Text with \n; other control characters become '?'. */
void console_print(const char *text, size_t n);
/* The line being edited, prompt included; it stays below all output until it ends. */
void console_edit(const struct edit_view *view);
void console_edit_end(void);
void console_clear(void);
void console_bell(void);

/*
 * The screen's pages (debug/screen.h), with the lock that they need. Any CPU, from a task; a crash
 * shows the log's page.
 */
void console_screen_show(enum screen_page page);
void console_screen_status(u32 y, const char *text, size_t n);
/* A copy of row y of the page that is shown, cut to size - 1 characters; false: no such row. */
bool console_screen_row(u32 y, char *buf, size_t size);
