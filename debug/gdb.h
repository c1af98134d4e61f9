/* SPDX-License-Identifier: MIT */
/*
 * The server that a gdb talks to: VMs are its processes (by id), vCPUs their threads (index + 1).
 * One VM is attached when gdb connects: the one that command "gdb NAME" has chosen, or the first
 * that runs, or the first; others with gdb's attach. A VM that is attached stops; when one of its
 * vCPUs stops, all vCPUs of all attached VMs do. The other VMs are not concerned.
 *
 * All of it runs in one task, with interrupts on, on the CPU that starts VMs, and never waits: what
 * needs time goes on when gdb_poll() is called again.
 */
#pragma once

#include "lib/types.h"

/* Once. write: to the line; it queues what it is given. */
void gdb_init(void (*write)(const char *bytes, size_t n));
/* A byte came from the line. */
void gdb_input(u8 c);
/* After bytes, and after debug_rest_hook or vm_stopped_hook. */
void gdb_poll(void);
