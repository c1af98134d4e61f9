/* SPDX-License-Identifier: MIT */
/* The serial line on which a gdb talks to debug/gdb.c, and the task that does it. */
#pragma once

#include "arch/x86/cpu.h"

/* The task, on this CPU: the one that starts VMs. */
void gdb_line_init(u32 cpu);
/* If SERIAL_GDB is there: it is open from now on. gsi and flags: as for serial_start_input(). */
void gdb_line_start(u32 gsi, u16 flags);
/* A VM has ended. */
void gdb_line_wake(void);
