/* SPDX-License-Identifier: MIT */
#pragma once

#include "lib/log.h"

/* For dumps of a refused guest: say what its state must not be, if it is. */
static inline void wrong(bool is, const char *what)
{
	if (is)
		log_err("  invalid: %s", what);
}
