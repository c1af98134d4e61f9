/* SPDX-License-Identifier: MIT */
/*
 * A PS/2 keyboard, for the two keys that choose the screen's page. Nothing else is read from it:
 * what is typed on the machine itself goes nowhere.
 */
#pragma once

#include "debug/screen.h"

/*
 * Look for an i8042 with a keyboard, and take its interrupt. False: there is none, or it does not
 * answer. `pressed` is called in interrupt context on the boot CPU: F1 is the log's page, F2 the
 * status. Once, on any CPU, after ioapic_init(); waits up to some 10 ms.
 */
bool keyboard_init(void (*pressed)(enum screen_page page));
