/* SPDX-License-Identifier: MIT */
#include "lib/assert.h"
#include "lib/log.h"
#include "lib/printf.h"

NORETURN void (*panic_hook)(const char *message);
void (*backtrace_hook)(void);

void panic(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	fmt_vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (panic_hook)
		panic_hook(text);
	log_err("panic: %s", text);
	__builtin_trap();
}

void assert_failed(const char *cond, const char *file, int line)
{
	panic("%s:%d: assertion failed: %s", file, line, cond);
}

void warn_at(const char *cond, const char *file, int line)
{
	log_warn("%s:%d: this should not be: %s", file, line, cond);
	if (backtrace_hook)
		backtrace_hook();
}
