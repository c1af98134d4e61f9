/* SPDX-License-Identifier: MIT */
#include "debug/lineedit.h"
#include "lib/string.h"

#define CTRL(c) ((c)&0x1f)
#define ESC	0x1b
#define DEL	0x7f

enum key_state { KEY_PLAIN, KEY_ESC, KEY_SEQUENCE, KEY_SS3 };
/*
 * The byte by which a key's own escape sequence ends, ESC [ 3 ~ and the like brought to one form.
 */
enum { KEY_DELETE = 'd' };

static enum line_event moved(struct line *l, u32 to)
{
	enum line_event event = to == l->cursor ? LINE_REFUSED : LINE_CHANGED;

	l->cursor = to;
	return event;
}

/* Delete [from, to); the cursor ends up at from. */
static enum line_event cut(struct line *l, u32 from, u32 to)
{
	if (from >= to)
		return LINE_REFUSED;
	memmove(l->text + from, l->text + to, l->len - to + 1);
	l->len -= to - from;
	l->cursor = from;
	return LINE_CHANGED;
}

u32 line_insert(struct line *l, const char *text, u32 n)
{
	n = MIN(n, LINE_MAX_LEN - l->len);
	memmove(l->text + l->cursor + n, l->text + l->cursor, l->len - l->cursor + 1);
	memcpy(l->text + l->cursor, text, n);
	l->len += n;
	l->cursor += n;
	return n;
}

static u32 word_start(const struct line *l)
{
	u32 i = l->cursor;

	while (i && l->text[i - 1] == ' ')
		i--;
	while (i && l->text[i - 1] != ' ')
		i--;
	return i;
}

static void set_text(struct line *l, const char *text)
{
	l->len = l->cursor = (u32)strlen(text);
	memmove(l->text, text, l->len + 1);
}

static enum line_event recall(struct line *l, bool older)
{
	u32 oldest = l->history_next - MIN(l->history_next, LINE_HISTORY);

	if (l->history_at == (older ? oldest : l->history_next))
		return LINE_REFUSED;
	if (l->history_at == l->history_next)
		memcpy(l->draft, l->text, sizeof(l->draft));
	l->history_at += older ? -1u : 1;
	set_text(l, l->history_at == l->history_next ? l->draft
						     : l->history[l->history_at % LINE_HISTORY]);
	return LINE_CHANGED;
}

void line_reset(struct line *l, bool keep)
{
	const char *last = l->history[(l->history_next - 1) % LINE_HISTORY];

	if (keep && l->len && (!l->history_next || strcmp(last, l->text)))
		memcpy(l->history[l->history_next++ % LINE_HISTORY], l->text, sizeof(l->text));
	l->history_at = l->history_next;
	set_text(l, "");
}

/* The last byte of ESC [ ... or ESC O ... */
static enum line_event cursor_key(struct line *l, u8 c)
{
	switch (c) {
	case 'A':
		return recall(l, true);
	case 'B':
		return recall(l, false);
	case 'C':
		return moved(l, MIN(l->cursor + 1, l->len));
	case 'D':
		return moved(l, l->cursor - (l->cursor > 0));
	case 'H':
		return moved(l, 0);
	case 'F':
		return moved(l, l->len);
	case KEY_DELETE:
		return cut(l, l->cursor, MIN(l->cursor + 1, l->len));
	default:
		return LINE_REFUSED;
	}
}

/* ESC [ number ~, as VT220 and its heirs number the keys. */
static u8 numbered_key(u8 number)
{
	static const u8 keys[] = { 0, 'H', 0, KEY_DELETE, 'F', 0, 0, 'H', 'F' };

	return number < ARRAY_SIZE(keys) ? keys[number] : 0;
}

static enum line_event sequence(struct line *l, u8 c)
{
	u8 state = l->key_state;

	l->key_state = KEY_PLAIN;
	if (c == ESC || c < ' ') { /* it was cut off, or the Escape key alone */
		l->key_state = c == ESC ? KEY_ESC : KEY_PLAIN;
		return c == ESC ? LINE_NOTHING : line_key(l, c);
	}
	if (state == KEY_ESC && (c == '[' || c == 'O')) {
		l->key_state = c == '[' ? KEY_SEQUENCE : KEY_SS3;
		l->key_number = 0;
		return LINE_NOTHING;
	}
	if (state == KEY_SEQUENCE && c < 0x40) {
		l->key_state = KEY_SEQUENCE;
		if (c >= '0' && c <= '9')
			l->key_number = (u8)(l->key_number * 10 + c - '0');
		return LINE_NOTHING;
	}
	if (state == KEY_ESC)
		return LINE_REFUSED;
	return cursor_key(l, c == '~' ? numbered_key(l->key_number) : (c < 'a' ? c : 0));
}

static enum line_event control(struct line *l, u8 c)
{
	/* Control characters that mean a key which has a sequence. */
	static const u8 keys[' '] = {
		[CTRL('A')] = 'H', [CTRL('B')] = 'D', [CTRL('D')] = KEY_DELETE, [CTRL('E')] = 'F',
		[CTRL('F')] = 'C', [CTRL('N')] = 'B', [CTRL('P')] = 'A',
	};

	switch (c) {
	case CTRL('C'):
		return LINE_CANCEL;
	case CTRL('H'):
	case DEL:
		return cut(l, l->cursor - (l->cursor > 0), l->cursor);
	case '\t':
		return LINE_COMPLETE;
	case '\r':
	case '\n':
		return LINE_ENTER;
	case CTRL('K'):
		return cut(l, l->cursor, l->len);
	case CTRL('L'):
		return LINE_CLEAR;
	case CTRL('U'):
		return cut(l, 0, l->cursor);
	case CTRL('W'):
		return cut(l, word_start(l), l->cursor);
	case ESC:
		l->key_state = KEY_ESC;
		return LINE_NOTHING;
	case 0:
		return LINE_NOTHING; /* a break, or a line that idles */
	default:
		return cursor_key(l, c < ARRAY_SIZE(keys) ? keys[c] : 0);
	}
}

enum line_event line_key(struct line *l, u8 c)
{
	bool second = c == '\n' && l->last_was_cr;

	l->last_was_cr = c == '\r';
	if (second)
		return LINE_NOTHING;
	if (l->key_state != KEY_PLAIN)
		return sequence(l, c);
	if (c < ' ' || c >= DEL)
		return control(l, c);
	return line_insert(l, (const char *)&c, 1) ? LINE_CHANGED : LINE_REFUSED;
}

void line_view(const struct line *l, const char *prompt, struct edit_view *view)
{
	u32 head = (u32)strlen(prompt), room = TERMINAL_WIDTH - head;
	/* Scroll by half a width, so that not every key redraws all. */
	u32 from = l->cursor < room ? 0 : (l->cursor - room / 2) / (room / 2) * (room / 2);
	u32 n = MIN(l->len - from, room);

	memcpy(view->text, prompt, head);
	memcpy(view->text + head, l->text + from, n);
	view->len = head + n;
	view->cursor = head + l->cursor - from;
}
