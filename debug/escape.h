/* SPDX-License-Identifier: MIT */
/*
 * Text that comes from somebody else, made harmless: escape sequences (ECMA-48 control sequences,
 * and strings such as window titles) are recognized and dropped, whatever is cut into however many
 * pieces.
 */
#pragma once

#include "lib/types.h"

enum escape_state { ESCAPE_NONE, ESCAPE_BEGIN, ESCAPE_CSI, ESCAPE_STRING, ESCAPE_STRING_END };

struct escape_filter {
	u8 state; /* enum escape_state */
	u8 count; /* bytes of this sequence so far: an endless one is given up */
};

#define ESCAPE_DROP	  (-1)
#define ESCAPE_ERASE_LINE (-2) /* CSI K: the only sequence that has a meaning here */

/*
 * What a byte means on a plain screen: a character to show (0x20..0x7e; '?' for one that is not
 * ASCII), one of the controls \b \n \r \t, ESCAPE_ERASE_LINE, or ESCAPE_DROP. Pure.
 */
int escape_filter(struct escape_filter *f, u8 c);
