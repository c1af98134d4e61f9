/* SPDX-License-Identifier: MIT */
/* mem, log, screen, version, reboot, poweroff. */
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "debug/commands.h"
#include "debug/console.h"
#include "debug/status.h"
#include "lib/assert.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "virt/corruption.h"

#define KIB_PER_FRAME (PAGE_SIZE / KIB)

static void print_size(u64 frames)
{
	u64 kib = frames * KIB_PER_FRAME;

	monitor_printf(" kib=%lu mib=%lu.%lu\n", kib, kib / 1024, kib % 1024 * 10 / 1024);
}

bool cmd_mem(u32 argc, char **argv)
{
	struct frame_stats stats;
	struct vm *vm;
	u64 total = 0;

	(void)argv;
	if (argc != 1)
		return false;
	frames_stats(&stats);
	for (u32 kind = FRAME_FREE; kind < FRAME_KINDS; kind++) {
		monitor_printf("owner=\"%s\"", frame_kind_name(kind));
		print_size(stats.frames[kind]);
		total += stats.frames[kind];
	}
	monitor_printf("owner=total");
	print_size(total);
	monitor_printf("free_2mib_extents=%lu\n", stats.whole_free_extents);
	monitor_printf("rmap_nodes_kib=%lu corruptions=%lu on_corruption=%s\n",
		       rmap_set_memory() / KIB, READ_ONCE(corruptions),
		       on_corruption == CORRUPTION_PANIC ? "panic" : "kill");
	for (u32 i = 0; (vm = command_nth_vm(i)); i++) {
		monitor_printf("vm=%s", vm->name);
		print_size(frames_of_vm(vm->id) +
			   (vm->stage2.owner == vm->id ? 0 : frames_of_vm(vm->stage2.owner)));
	}
	return true;
}

/* A line is "[seconds CPU level] text", see lib/log.c. */
char command_log_level(const char *line, size_t len)
{
	for (size_t i = 1; i < len; i++) {
		if (line[i] == ']')
			return line[i - 1];
	}
	return 0;
}

static struct {
	bool previous, all;
	struct log_line line;
} shown;

static bool print_log(bool wanted)
{
	struct log_line *l = &shown.line;

	for (size_t sum = 0; wanted && sum < COMMAND_PIECE; sum += l->len) {
		if (!log_next(shown.previous, l))
			return false;
		if (shown.all || command_log_level(l->text, l->len) != 'D')
			monitor_printf("%.*s\n", (int)l->len, l->text);
	}
	return wanted;
}

bool cmd_log(u32 argc, char **argv)
{
	bool ended;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "-d") && strcmp(argv[1], "-p")))
		return false;
	shown.all = argc == 2;
	shown.previous = shown.all && argv[1][1] == 'p';
	shown.line.pos = 0;
	if (shown.previous && !log_previous(&ended))
		monitor_printf("log: nothing is left of the boot before\n");
	else
		command_continue(print_log);
	return true;
}

/* The log's page is not printed: it would be its own text, and `log` has all of it. */
static void print_screen(void)
{
	char text[256];

	if (status_shown() != SCREEN_STATUS) {
		monitor_printf("page=log\n");
		return;
	}
	for (u32 y = 0; console_screen_row(y, text, sizeof(text)); y++) {
		if (!text[0])
			continue;
		monitor_printf("page=status row=%u", y);
		command_text("text", text);
		monitor_printf("\n");
	}
}

bool cmd_screen(u32 argc, char **argv)
{
	if (!console_screen_row(0, (char[1]){ 0 }, 1))
		monitor_printf("screen: there is none, or none that the firmware offered\n");
	else if (argc == 2 && !strcmp(argv[1], "log"))
		status_show(SCREEN_LOG);
	else if (argc == 2 && !strcmp(argv[1], "status"))
		status_show(SCREEN_STATUS);
	else if (argc == 1)
		print_screen();
	else
		return false;
	return true;
}

bool cmd_top(u32 argc, char **argv)
{
	(void)argv;
	if (argc == 1)
		status_top();
	return argc == 1;
}

bool cmd_version(u32 argc, char **argv)
{
	(void)argv;
	if (argc == 1)
		monitor_printf("version=%s\n", monitor_actions->version);
	return argc == 1;
}

bool cmd_crash(u32 argc, char **argv)
{
	if (argc != 2)
		return false;
	if (!strcmp(argv[1], "assert"))
		ASSERT(!"this is what the operator wants");
	if (!strcmp(argv[1], "panic"))
		panic("the operator wants it");
	if (!strcmp(argv[1], "trap"))
		asm volatile("ud2");
	if (!strcmp(argv[1], "frame")) /* so that the report's backtrace faults */
		asm volatile("mov %0, %%rbp; ud2" : : "r"(0xffffa00000000000));
	if (!strcmp(argv[1], "hang"))
		halt_forever();
	return false;
}

bool cmd_reboot(u32 argc, char **argv)
{
	(void)argv;
	if (argc == 1)
		monitor_actions->reboot();
	return argc == 1;
}

bool cmd_poweroff(u32 argc, char **argv)
{
	(void)argv;
	if (argc == 1)
		monitor_actions->poweroff();
	return argc == 1;
}
