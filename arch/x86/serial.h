/* SPDX-License-Identifier: MIT */
/*
 * Serial ports: 16550s at I/O ports. There are two lines: the console's, and gdb's. Output goes
 * through a ring that is drained as the transmitter takes it (by a timer where it is slower than
 * us), input through an interrupt where there is one, else by a timer on the boot CPU.
 */
#pragma once

#include "lib/types.h"

enum serial_line { SERIAL_CONSOLE, SERIAL_GDB, SERIAL_LINES };

/*
 * Is a UART there? Programs 8N1 at that rate, FIFOs on. Works from the first instruction on.
 * -ENODEV: nothing answers.
 */
int serial_init(enum serial_line line, u16 port, u32 baud);
/* The port in use, 0: none. */
u16 serial_port(enum serial_line line);
/* Queue bytes; waits only while the ring, of 32 KiB, is full. Any CPU, any context but NMI. */
void serial_write_to(enum serial_line line, const char *bytes, size_t n);
/* To the console's line. */
void serial_write(const char *bytes, size_t n);
/* How many bytes it would queue without waiting. */
u32 serial_room(void);
/* From now on write straight to the console's port, taking no lock: for the crash report. */
void serial_crash_mode(void);
/* After that: the next byte from the console's port, or -1. No interrupt is needed. */
int serial_crash_read(void);
/* Wait until all is out of the console's line (before power-off). */
void serial_drain(void);
/* Next received byte, or -1. One reader. */
int serial_read(enum serial_line line);
/*
 * Receive by interrupt (gsi of the I/O APIC, its flags from the MADT) or by polling (gsi 0);
 * `received` is called in interrupt context on the boot CPU.
 */
void serial_start_input(enum serial_line line, u32 gsi, u16 flags, void (*received)(void));
