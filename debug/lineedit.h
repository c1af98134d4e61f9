/* SPDX-License-Identifier: MIT */
/*
 * Editing one line by keys as terminals send them, with a history. Knows nothing of terminals'
 * output or of commands: bytes go in, a line and events come out. Pure.
 *
 *	left right ^B ^F, home end ^A ^E	move
 *	backspace delete ^D, ^W ^U ^K		delete a character, a word, to the start, to the end
 *	up down ^P ^N				history
 *	TAB, enter, ^C, ^L			events for the caller
 */
#pragma once

#include "debug/terminal.h"

#define LINE_MAX_LEN 160
#define LINE_HISTORY 16

enum line_event {
	LINE_NOTHING,
	LINE_CHANGED,  /* text or cursor */
	LINE_ENTER,    /* the line is complete; line_reset() comes next */
	LINE_CANCEL,   /* ^C */
	LINE_COMPLETE, /* TAB */
	LINE_CLEAR,    /* ^L: draw the screen anew */
	LINE_REFUSED,  /* a key that does nothing here; also a full line */
};

struct line {
	char text[LINE_MAX_LEN + 1]; /* terminated */
	u32 len, cursor;
	u8 key_state;	  /* within an escape sequence of a key */
	u8 key_number;	  /* its parameter */
	bool last_was_cr; /* CR LF is one enter */
	u32 history_next,
		history_at; /* entries ever made; the one shown, history_next: the new line */
	char history[LINE_HISTORY][LINE_MAX_LEN + 1];
	char draft[LINE_MAX_LEN + 1]; /* the new line, while a history entry is shown */
};

enum line_event line_key(struct line *l, u8 c);
/* Put the line into the history (unless empty or the same as the last) and begin a new one. */
void line_reset(struct line *l, bool keep);
/* Insert at the cursor; what does not fit is left out. Returns how many bytes were inserted. */
u32 line_insert(struct line *l, const char *text, u32 n);
/* The part around the cursor that fits behind a prompt. */
void line_view(const struct line *l, const char *prompt, struct edit_view *view);
