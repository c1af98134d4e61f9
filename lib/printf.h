/* SPDX-License-Identifier: MIT */
/*
 * Formatting without allocation. The subset of C: %d %u %x %p %s %c %% with flags - 0 #, width,
 * precision, * and l ll z.
 */
#pragma once

#include <stdarg.h>
#include "lib/types.h"

/*
 * As C's snprintf: writes at most size bytes with the terminator, returns the length that the whole
 * text has.
 */
int fmt_snprintf(char *buf, size_t size, const char *fmt, ...) PRINTF(3, 4);
int fmt_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap) PRINTF(3, 0);
