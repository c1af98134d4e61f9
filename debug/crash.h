/* SPDX-License-Identifier: MIT */
/*
 * When Corbel itself is broken: stop the other CPUs, say everything, halt or reset. One CPU crashes
 * at a time; what fails during the report does not hide the first reason.
 */
#pragma once

#include "arch/x86/trap.h"

/* Sinks that work with interrupts off and locks held by the dead; set by boot. */
extern void (*crash_output_hook)(void);

/* After the report: reset the machine instead of halting. Set by boot. */
extern bool crash_reboots;

void crash_trap(struct trap_frame *f) NORETURN;	  /* trap_crash_hook */
void crash_message(const char *message) NORETURN; /* panic_hook */
/* trap_nmi_hook: a crash elsewhere stops this CPU, the watchdog's makes it report; else counted. */
void crash_nmi(struct trap_frame *f);
