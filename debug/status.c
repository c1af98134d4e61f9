/* SPDX-License-Identifier: MIT */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "debug/commands.h"
#include "debug/console.h"
#include "debug/keyboard.h"
#include "debug/status.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "virt/enable.h"
#include "virt/sched.h"

#define REFRESH_US    500000u
#define RATE_US	      1000000u /* over at least so long */
#define VMS_MAX	      24
#define CPUS_MAX      16
#define WARNINGS      6
#define WARNING_WIDTH 160

/* Counters of a VM, then and now. */
struct sample {
	u64 exits, ran; /* TSC ticks on CPUs, all vCPUs */
};
static struct {
	u16 id; /* of the VM that it is of */
	struct sample then;
	u64 exits_rate, percent; /* per second; of one CPU */
} rates[VMS_MAX];
static u64 rated; /* TSC of `then` */

static char warnings[WARNINGS][WARNING_WIDTH];
static u32 nr_warnings; /* ever */
static u32 row;
static enum screen_page page, key_page; /* key_page: atomic */
static struct task task;
static struct timer timer;
static void (*sink)(u32 y, const char *text, size_t n); /* where rows go */
static bool top_on;
static u32 refreshes;

static PRINTF(1, 2) void put(const char *fmt, ...)
{
	char text[WARNING_WIDTH];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = fmt_vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sink(row++, text, MIN((size_t)n, sizeof(text) - 1));
}

static void blank(void)
{
	sink(row++, "", 0);
}

static struct sample take(const struct vm *vm)
{
	struct sample s = { .exits = command_vm_exits(vm) };

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		s.ran += sched_ran(vm->vcpus[i]);
	return s;
}

/* Rates since the last time; those of a VM that was not there then are 0. */
static void rate_vms(void)
{
	u64 now = rdtsc(), us = tsc_to_ns(now - rated) / 1000;
	struct vm *vm;

	if (rated && us < RATE_US)
		return;
	for (u32 i = 0; i < VMS_MAX && (vm = command_nth_vm(i)); i++) {
		struct sample s = take(vm), then = rates[i].then;
		bool known = rated && rates[i].id == vm->id && s.exits >= then.exits;

		rates[i].id = vm->id;
		rates[i].then = s;
		rates[i].exits_rate = known ? (s.exits - then.exits) * 1000000 / us : 0;
		rates[i].percent = known ? (s.ran - then.ran) * 100 / (now - rated) : 0;
	}
	rated = now;
}

static void put_cpus(void)
{
	u32 online = bitmap_weight(cpus_online.bits, MAX_CPUS), shown = 0;

	put("CPUs: %u of %u online, %u run vCPUs", online, nr_cpus,
	    bitmap_weight(virt_cpus()->bits, MAX_CPUS));
	for_each_cpu(cpu, &cpus_online) {
		const struct vcpu *v = sched_current(cpu);
		char name[48];

		if (shown++ == CPUS_MAX) {
			put("  ... and %u more", online - CPUS_MAX);
			break;
		}
		if (v)
			fmt_snprintf(name, sizeof(name), "%s/%u", v->vm->name, v->index);
		put("  CPU %-4u %4u vCPUs, %3u wait   %s", cpu, sched_load(cpu), sched_waiting(cpu),
		    v ? name : "-");
	}
}

static void put_vms(void)
{
	struct vm *vm;

	put("VM                                state    vCPUs  memory MiB   exits/s  CPU %%");
	for (u32 i = 0; (vm = command_nth_vm(i)); i++) {
		if (i == VMS_MAX) {
			put("... and more: see vms");
			break;
		}
		put("%-32s  %-8s %5u  %10lu  %8lu  %5lu", vm->name, command_vm_state(vm),
		    vm->nr_vcpus, command_vm_memory(vm) / MIB, rates[i].exits_rate,
		    rates[i].percent);
		if (vm->stop_text[0])
			put("    %s", vm->stop_text);
	}
}

static void put_warnings(void)
{
	nr_warnings = 0;
	for_each_log_line(l, false)
	{
		char level = command_log_level(l.text, l.len);

		if (level == 'W' || level == 'E')
			fmt_snprintf(warnings[nr_warnings++ % WARNINGS], WARNING_WIDTH, "%.*s",
				     (int)l.len, l.text);
	}
	put("Last warnings%s", nr_warnings ? "" : ": none");
	for (u32 i = nr_warnings - MIN(nr_warnings, (u32)WARNINGS); i < nr_warnings; i++)
		put("%s", warnings[i % WARNINGS]);
}

static void put_page(const char *keys)
{
	u64 s = clock_ns() / 1000000000;

	rate_vms();
	row = 0;
	put("Corbel %s   up %lu:%02lu:%02lu   %s", monitor_actions->version, s / 3600, s / 60 % 60,
	    s % 60, keys);
	blank();
	put_cpus();
	blank();
	put_vms();
	blank();
	put_warnings();
}

static void draw(void)
{
	sink = console_screen_status;
	put_page("F1: log   F2: status");
	while (console_screen_row(row, (char[1]){ 0 }, 1))
		blank();
}

static void refresh_later(void)
{
	u64 flags = irq_save();

	if (page == SCREEN_STATUS || top_on)
		timer_arm(&timer, rdtsc() + (u64)REFRESH_US * tsc_khz / 1000);
	irq_restore(flags);
}

void status_show(enum screen_page wanted)
{
	WRITE_ONCE(key_page, wanted);
	page = wanted;
	if (page == SCREEN_STATUS)
		draw();
	console_screen_show(page);
	refresh_later();
}

static void print_row(u32 y, const char *text, size_t n)
{
	(void)y;
	monitor_printf("%.*s\n", (int)n, text);
}

static void draw_top(void)
{
	sink = print_row;
	console_clear();
	put_page("any key ends this");
}

void status_top(void)
{
	sink = print_row;
	if (monitor_for_script()) {
		put_page("");
		return;
	}
	top_on = true;
	draw_top();
	refresh_later();
}

bool status_top_end(void)
{
	bool was = top_on;

	top_on = false;
	return was;
}

enum screen_page status_shown(void)
{
	return page;
}

static void run(struct task *t)
{
	(void)t;
	if (top_on && ++refreshes % 2 == 0) /* half as often: a serial line is slow */
		draw_top();
	if (READ_ONCE(key_page) != page || page == SCREEN_STATUS)
		status_show(READ_ONCE(key_page));
	else
		refresh_later();
}

/* In interrupt context. */
static void pressed(enum screen_page wanted)
{
	WRITE_ONCE(key_page, wanted);
	task_wake(&task);
}

static void fire(struct timer *t)
{
	(void)t;
	task_wake(&task);
}

void status_init(void)
{
	task_add(&task, this_cpu(cpu_id), run);
	timer_init(&timer, fire);
	if (console_screen_row(0, (char[1]){ 0 }, 1) && keyboard_init(pressed))
		log_info("keyboard: F1 shows the log on the screen, F2 the status");
}
