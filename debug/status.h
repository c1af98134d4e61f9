/* SPDX-License-Identifier: MIT */
/* The screen's status page: CPUs, VMs, exits per second, the last warnings; twice a second. */
#pragma once

#include "debug/screen.h"

/*
 * Once, on the CPU of the monitor, from a task, with the VMs' list in use: F1 and F2 of a PS/2
 * keyboard choose the page from here on, and status_show() works.
 */
void status_init(void);
/* Show a page; the status page is drawn within the call and then refreshed. The same context. */
void status_show(enum screen_page page);
/*
 * `top`: the status page on the serial line, in place, every second until status_top_end(), which
 * says whether it was on. For a script: once. The same context.
 */
void status_top(void);
bool status_top_end(void);
/* The page that is shown. */
enum screen_page status_shown(void);
