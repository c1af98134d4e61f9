/* SPDX-License-Identifier: MIT */
/* mem, log, version, reboot, poweroff. */
#include "debug/commands.h"
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
		print_size(frames_of_vm(vm->id));
	}
	return true;
}

/* A line is "[seconds CPU level] text", see lib/log.c. */
static bool is_debug(const char *line, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++) {
		if (line[i] == ']')
			return i && line[i - 1] == 'D';
	}
	return false;
}

static void print_log_line(void *arg, const char *line, size_t len)
{
	if (*(const bool *)arg || !is_debug(line, len))
		monitor_printf("%.*s\n", (int)len, line);
}

bool cmd_log(u32 argc, char **argv)
{
	bool debug = argc == 2 && !strcmp(argv[1], "-d");

	if (argc != 1 && !debug)
		return false;
	log_replay(print_log_line, &debug);
	return true;
}

bool cmd_version(u32 argc, char **argv)
{
	(void)argv;
	if (argc == 1)
		monitor_printf("version=%s\n", monitor_actions->version);
	return argc == 1;
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
