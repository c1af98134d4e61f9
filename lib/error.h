/* SPDX-License-Identifier: MIT */
/*
 * Errors are negative errno codes (the numbers of linux-libc-dev). An error is made visible where
 * it is born:
 *
 *	if (!frame)
 *		return trace_error(-ENOMEM);
 *
 * logs file, line and code at debug level and hands the code on. Whoever only passes an error up
 * does not trace again.
 */
#pragma once

#include <asm-generic/errno.h>
#include "lib/types.h"

int trace_error_at(int code, const char *file, int line);
#define trace_error(code) trace_error_here((code), __FILE__, __LINE__)

/* What it returns is an error: compiler and static analysis may rely on that. */
static inline int trace_error_here(int code, const char *file, int line)
{
	int err = trace_error_at(code, file, line);

	if (err >= 0)
		__builtin_unreachable();
	return err;
}

/* A short word for an error code ("no memory"); never NULL. */
const char *error_name(int code);
