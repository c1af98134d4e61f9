/* SPDX-License-Identifier: MIT */
/*
 * Finds a CPU that hangs within Corbel with interrupts off. Each CPU gives a sign of life by a
 * timer, every two seconds, and looks at the next CPU's. One that gave none for ten seconds is sent
 * an NMI; one that still gave none by the second NMI reports itself, as a crash, from where it
 * hangs; if it does not even take NMIs, the CPU that looks does.
 *
 * A guest can't keep a CPU from it: the timer ends its run. This is also the only deadline of a CPU
 * that runs one vCPU alone. A task that runs for ever is not found, as interrupts are on in tasks.
 */
#pragma once

#include "lib/types.h"

/* This CPU takes part from now on. Each CPU, when it comes online, interrupts off. */
void watchdog_start(void);
/* CPUs will be stopped on purpose: nobody looks any more. Any context. */
void watchdog_stop(void);
/* An NMI came to this CPU: it is one that hangs. NMI context. */
bool watchdog_hangs(void);
