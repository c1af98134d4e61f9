/* SPDX-License-Identifier: MIT */
/* A command is typed at the monitor of tests/unit/debug_fake.h, and its answer compared. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "tests/unit/debug_fake.h"

/* The command's whole answer, between the line that was typed and the prompt. */
static inline void expect(const char *command, const char *answer)
{
	char whole[1024];

	fake_type("\x03");
	fake_clear();
	snprintf(whole, sizeof(whole), "%s\r\n%scorbel> ", command, answer);
	fake_type(command);
	fake_type("\r");
	assert_string_equal(fake_serial.text, whole);
}

/* That is somewhere in the answer. */
static inline void expect_part(const char *command, const char *part)
{
	fake_type("\x03");
	fake_clear();
	fake_type(command);
	fake_type("\r");
	if (!fake_said(part))
		fail_msg("'%s' is not in: %s", part, fake_serial.text);
}
