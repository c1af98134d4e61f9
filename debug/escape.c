/* SPDX-License-Identifier: MIT */
#include "debug/escape.h"

#define ESC	0x1b
#define BEL	0x07
#define CAN	0x18
#define SUB	0x1a
#define LONGEST 64 /* a sequence that is longer is noise, and must not hide what follows */

static int ground(u8 c)
{
	if (c == '\b' || c == '\n' || c == '\r' || c == '\t')
		return c;
	if (c >= ' ' && c <= '~')
		return c;
	/* UTF-8: one mark for the lead byte, nothing for those that continue it. */
	return c >= 0xc0 ? '?' : ESCAPE_DROP;
}

static u8 after_esc(u8 c)
{
	switch (c) {
	case '[':
		return ESCAPE_CSI;
	case ']': /* OSC */
	case 'P': /* DCS */
	case 'X': /* SOS */
	case '^': /* PM */
	case '_': /* APC */
		return ESCAPE_STRING;
	default:
		/* 0x20..0x2f are intermediate bytes: the final one is still to come. */
		return c >= 0x20 && c <= 0x2f ? ESCAPE_BEGIN : ESCAPE_NONE;
	}
}

static int inside(struct escape_filter *f, u8 c)
{
	switch (f->state) {
	case ESCAPE_BEGIN:
		f->state = after_esc(c);
		break;
	case ESCAPE_CSI:
		if (c < 0x40 || c > 0x7e)
			break;
		f->state = ESCAPE_NONE;
		return c == 'K' ? ESCAPE_ERASE_LINE : ESCAPE_DROP;
	case ESCAPE_STRING:
		if (c == BEL)
			f->state = ESCAPE_NONE;
		break;
	case ESCAPE_STRING_END: /* ESC \ ends a string; ESC and anything else begins a sequence */
		f->state = c == '\\' ? ESCAPE_NONE : after_esc(c);
		break;
	}
	return ESCAPE_DROP;
}

int escape_filter(struct escape_filter *f, u8 c)
{
	if (c == ESC) {
		f->state = f->state == ESCAPE_STRING ? ESCAPE_STRING_END : ESCAPE_BEGIN;
		f->count = 0;
		return ESCAPE_DROP;
	}
	/* A line break inside a sequence: it was cut off, the text is what counts. */
	if (f->state == ESCAPE_NONE || c == CAN || c == SUB || c == '\n' || ++f->count > LONGEST) {
		f->state = ESCAPE_NONE;
		return ground(c);
	}
	return inside(f, c);
}
