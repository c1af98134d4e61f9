/* SPDX-License-Identifier: MIT */
#include "arch/x86/serial.h"
#include "debug/console.h"
#include "debug/monitor.h"
#include "debug/vmconsole.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "virt/sched.h"

#define ESCAPE_KEY 0x1d /* Ctrl-] */
#define SINK_TRIES 10000000
#define BOOT_CPU   0

/*
 * Whatever the guest left the terminal in: end a sequence that was cut off (CAN, ST), normal
 * screen, scroll region (which moves the cursor, hence save and restore), attributes, insert mode,
 * wrap, cursor, cursor keys and keypad, character set, reports of mouse and paste.
 */
#define ESC "\x1b"
static const char terminal_reset[] =
	"\x18" ESC "\\" ESC "[?47l" ESC "7" ESC "[r" ESC "8" ESC "[m" ESC "[4l" ESC "[?7h" ESC
	"[?25h" ESC "[?1l" ESC ">" ESC "(B\x0f" ESC "[?1000l" ESC "[?1002l" ESC "[?1003l" ESC
	"[?1006l" ESC "[?2004l\r\n";

static struct spinlock lock = SPINLOCK_INIT(RANK_CONSOLE);
static bool crashed;
static u64 sink_missed; /* lines that only the log's ring has; atomic */

/* Under the lock. */
static struct terminal serial = { .write = serial_write };
static struct terminal screen = { .write = screen_write };
static struct vm_console
	*attached; /* the serial line's; NULL: the monitor. Written under the lock, atomic */
static struct edit_view edit;
static bool editing;

static struct list consoles = LIST_INIT(consoles); /* boot CPU's tasks */
static struct task pump_task;

static u64 console_lock(void)
{
	u64 flags = log_irq_save_hook ? log_irq_save_hook() : 0;

	if (!crashed)
		spin_lock(&lock);
	return flags;
}

static void console_unlock(u64 flags)
{
	if (!crashed)
		spin_unlock(&lock);
	if (log_irq_restore_hook)
		log_irq_restore_hook(flags);
}

/* ---- The monitor's and the log's output ---- */

static void serial_string(const char *s)
{
	serial_write(s, strlen(s));
}

/* Output above the edited line, which comes back with refresh(). */
static void text(struct terminal *t, const char *s, size_t n)
{
	if (t->shown)
		terminal_hide(t);
	terminal_text(t, s, n);
}

static void refresh(void)
{
	if (!editing)
		return;
	terminal_show(&screen, &edit);
	if (!attached)
		terminal_show(&serial, &edit);
}

static void log_line(struct terminal *t, const char *line, size_t len)
{
	terminal_hide(t);
	terminal_text(t, line, len);
	terminal_text(t, "\n", 1);
}

void console_log(enum log_level level, const char *line, size_t len)
{
	u64 missed = 0;

	/*
	 * The log's lock is held, interrupts are off. An NMI or a crash may have interrupted our
	 * own holder.
	 */
	for (u32 tries = 0; !crashed && !spin_trylock(&lock); tries++) {
		if (tries > SINK_TRIES) {
			__atomic_fetch_add(&sink_missed, 1, __ATOMIC_RELAXED);
			return;
		}
		__builtin_ia32_pause();
	}
	if (!attached || level <= LOG_WARN) {
		/* In the middle of whatever the guest is drawing. */
		serial.midline |= attached != NULL;
		log_line(&serial, line, len);
		missed = __atomic_exchange_n(&sink_missed, 0, __ATOMIC_RELAXED);
	}
	if (missed) {
		char note[64];
		int n = fmt_snprintf(note, sizeof(note), "(%lu lines are only in 'log')", missed);

		log_line(&serial, note, (size_t)n);
	}
	/* second: should it fault, the line is out. A crash report is to fit. */
	if (!crashed || level == LOG_ERR)
		log_line(&screen, line, len);
	refresh();
	if (!crashed)
		spin_unlock(&lock);
}

void console_crash_mode(void)
{
	crashed = true;
	editing = false;
	if (attached)
		serial_string(terminal_reset);
	attached = NULL;
	screen_show(SCREEN_LOG);
}

void console_print(const char *s, size_t n)
{
	u64 flags = console_lock();

	text(&screen, s, n);
	if (!attached)
		text(&serial, s, n);
	if (!screen.midline)
		refresh();
	console_unlock(flags);
}

void console_edit(const struct edit_view *view)
{
	u64 flags = console_lock();

	edit = *view;
	editing = true;
	refresh();
	console_unlock(flags);
}

void console_edit_end(void)
{
	u64 flags = console_lock();

	editing = false;
	terminal_finish(&screen);
	if (!attached)
		terminal_finish(&serial);
	console_unlock(flags);
}

void console_clear(void)
{
	u64 flags = console_lock();

	if (!attached) {
		serial_string(ESC "[H" ESC "[2J");
		serial.shown = serial.midline = false;
	}
	refresh();
	console_unlock(flags);
}

void console_bell(void)
{
	serial_write("\a", 1);
}

/* ---- The screen's pages ---- */

void console_screen_show(enum screen_page page)
{
	u64 flags = console_lock();

	screen_show(page);
	console_unlock(flags);
}

void console_screen_status(u32 y, const char *row, size_t n)
{
	u64 flags = console_lock();

	screen_status(y, row, n);
	console_unlock(flags);
}

bool console_screen_row(u32 y, char *buf, size_t size)
{
	u64 flags = console_lock();
	const char *row;
	u32 n = screen_row(y, &row);

	if (n != SCREEN_NO_ROW)
		fmt_snprintf(buf, size, "%.*s", (int)n, row);
	console_unlock(flags);
	return n != SCREEN_NO_ROW;
}

/* ---- VMs ---- */

static struct vm_console *find(const struct vm *vm)
{
	list_for_each(node, &consoles) {
		struct vm_console *vc = list_entry(node, struct vm_console, node);

		if (vc->vm == vm)
			return vc;
	}
	return NULL;
}

/* Pass on what an attached guest has written since. Under the lock. */
static void show_new(struct vm_console *vc, u64 from, u64 end)
{
	while (from < end) {
		u64 at = from % VMCONSOLE_OUTPUT, n = MIN(end - from, VMCONSOLE_OUTPUT - at);

		serial_write((const char *)vc->output + at, n);
		from += n;
	}
	vc->seen = end;
}

/*
 * The UART's output callback: on the vCPU's CPU, interrupts off, the UART's lock held. Writes, then
 * looks whether it is attached; console_attach() attaches, then looks what is written: one of the
 * two shows it. Only who is attached waits for the line.
 */
static void vm_output(void *arg, const u8 *bytes, size_t n)
{
	struct vm_console *vc = arg;
	u64 flags;

	vmconsole_keep(vc, bytes, n);
	if (__atomic_load_n(&attached, __ATOMIC_SEQ_CST) != vc)
		return;
	flags = console_lock();
	if (attached == vc)
		show_new(vc, vc->seen, vmconsole_written(vc));
	console_unlock(flags);
}

/*
 * The UART has room again: on the vCPU's CPU. Only the boot CPU feeds it, so that the queue needs
 * no lock.
 */
static void vm_input_ready(void *arg)
{
	if (vmconsole_queued(arg))
		task_wake(&pump_task);
}

static void pump(struct task *t)
{
	(void)t;
	list_for_each(node, &consoles)
		vmconsole_pump(list_entry(node, struct vm_console, node));
}

void console_init(void)
{
	task_add(&pump_task, BOOT_CPU, pump);
}

int console_vm_add(struct vm *vm, struct uart *uart)
{
	struct vm_console *vc;
	int err = vmconsole_create(vm, uart, &vc);

	if (err)
		return err;
	list_add_tail(&consoles, &vc->node);
	uart->arg = vc;
	uart->output = vm_output;
	uart->input_ready = vm_input_ready;
	return 0;
}

void console_vm_remove(struct vm *vm)
{
	struct vm_console *vc = find(vm);

	if (!vc)
		return;
	if (console_attached() == vm)
		console_attach_monitor();
	vc->uart->output = NULL;
	vc->uart->input_ready = NULL;
	list_del(&vc->node);
	vmconsole_destroy(vc);
}

struct vm *console_attached(void)
{
	struct vm_console *vc = READ_ONCE(attached);

	return vc ? vc->vm : NULL;
}

static void replay(struct vm_console *vc)
{
	char note[128];
	u64 skipped, end = vmconsole_written(vc), from = vmconsole_replay_from(vc, end, &skipped);
	int n;

	n = fmt_snprintf(note, sizeof(note), "-- %s: Ctrl-] returns to the monitor", vc->vm->name);
	if (skipped)
		n += fmt_snprintf(note + n, sizeof(note) - (size_t)n, "; %lu bytes skipped",
				  skipped);
	log_line(&serial, note, (size_t)n);
	show_new(vc, from, end);
}

int console_attach(struct vm *vm)
{
	struct vm_console *vc = find(vm);
	u64 flags;

	if (!vc)
		return trace_error(-ENOENT);
	console_attach_monitor();
	flags = console_lock();
	__atomic_store_n(&attached, vc, __ATOMIC_SEQ_CST);
	replay(vc);
	console_unlock(flags);
	return 0;
}

void console_attach_monitor(void)
{
	u64 flags = console_lock();

	if (attached) {
		attached = NULL;
		serial_string(terminal_reset);
		serial.midline = false;
		refresh();
	}
	console_unlock(flags);
}

bool console_vm_stats(struct vm *vm, struct console_stats *out)
{
	struct vm_console *vc = find(vm);

	if (!vc)
		return false;
	out->written = vmconsole_written(vc);
	out->unseen = out->written - MIN(READ_ONCE(vc->seen), out->written);
	out->queued = vmconsole_queued(vc);
	out->lost = vc->input_lost;
	vmconsole_last_line(vc, out->last_line, sizeof(out->last_line));
	return true;
}

/* ---- Input ---- */

void console_input(u8 c)
{
	struct vm_console *vc = READ_ONCE(attached);

	if (!vc) {
		monitor_input(c);
	} else if (c == ESCAPE_KEY) {
		console_attach_monitor();
	} else {
		if (!vmconsole_type(vc, c))
			console_bell();
		vmconsole_pump(vc);
	}
}
