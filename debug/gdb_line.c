/* SPDX-License-Identifier: MIT */
#include "debug/gdb_line.h"
#include "arch/x86/serial.h"
#include "debug/gdb.h"
#include "virt/debug.h"
#include "virt/sched.h"

static struct task task;

void gdb_line_wake(void)
{
	task_wake(&task);
}

static void run(struct task *t)
{
	int c;

	(void)t;
	while ((c = serial_read(SERIAL_GDB)) >= 0) {
		gdb_input((u8)c);
		gdb_poll();
	}
	gdb_poll();
}

static void write(const char *bytes, size_t n)
{
	serial_write_to(SERIAL_GDB, bytes, n);
}

void gdb_line_init(u32 cpu)
{
	task_add(&task, cpu, run);
}

void gdb_line_start(u32 gsi, u16 flags)
{
	if (!serial_port(SERIAL_GDB))
		return;
	debug_rest_hook = gdb_line_wake;
	gdb_init(write);
	serial_start_input(SERIAL_GDB, gsi, flags, gdb_line_wake);
}
