/* SPDX-License-Identifier: MIT */
/*
 * Grace periods: what others read without a lock is freed only after all who may have seen it have
 * left their read sections.
 *
 *	reader				who frees
 *	grace_enter()			take it out of the structure
 *	look, go on from there		grace_wait()
 *	grace_leave()			free it
 *
 * A CPU's sections are counted in a cache line of its own: readers of different CPUs do not meet.
 * Sections nest, may take locks, and end soon: no wait for an IPI, no output in them.
 */
#pragma once

#include "lib/types.h"

/* Any context but NMI. */
void grace_enter(void);
void grace_leave(void);
/*
 * Until every section that was open on any CPU is over; answers calls meanwhile. Not in a section,
 * no lock held.
 */
void grace_wait(void);

/* The calling CPU's number; set by boot, NULL: there is one CPU. */
extern u32 (*grace_cpu_hook)(void);
