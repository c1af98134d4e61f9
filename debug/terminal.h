/* SPDX-License-Identifier: MIT */
/*
 * A place where lines of text appear above the line that somebody is editing: the serial line, the
 * screen. Uses nothing but \r, \b and "erase to the end of the line", so that every terminal
 * program does. The console serializes.
 */
#pragma once

#include "lib/types.h"

#define TERMINAL_WIDTH                                                                            \
	79 /* the edited line never gets so wide that it wraps: 80 columns are the least that one \
	      has */

/* The line being edited, or the part of it that fits. */
struct edit_view {
	char text[TERMINAL_WIDTH];
	u32 len, cursor; /* cursor: 0..len */
};

struct terminal {
	void (*write)(const char *bytes, size_t n);
	bool shown;	       /* `view` is on it */
	bool midline;	       /* the last text did not end with a line break */
	struct edit_view view; /* as it was drawn */
};

/* Text: \n becomes \r\n, any other control character '?'. The edited line must be hidden. */
void terminal_text(struct terminal *t, const char *text, size_t n);
/*
 * Bring the edited line onto the terminal, with as few bytes as possible if an earlier state of it
 * is there.
 */
void terminal_show(struct terminal *t, const struct edit_view *view);
/* Make room for output: the edited line goes, a line that output left unfinished ends. */
void terminal_hide(struct terminal *t);
/* The edited line stays, and whatever comes next comes below it. */
void terminal_finish(struct terminal *t);
