/* SPDX-License-Identifier: MIT */
/*
 * A gdb looks at a Corbel that has crashed, with its corbel.elf: threads are the CPUs as they were
 * stopped. Everything can be read, nothing changed, because it is evidence and nothing runs on;
 * "kill" resets the machine.
 *
 * Bytes in, packets out: no lock, no interrupt, no memory that is not its own.
 */
#pragma once

#include "arch/x86/cpu.h"
#include "arch/x86/trap.h"

/* The registers that a CPU was stopped with; NULL: it did not answer. */
extern const struct trap_frame *postmortem_frames[MAX_CPUS];

/* Once. crashed: the CPU that gdb sees first. */
void postmortem_init(u32 crashed, void (*write)(const char *bytes, size_t n));
/* A byte came from the line. */
void postmortem_input(u8 c);
