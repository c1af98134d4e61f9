/* SPDX-License-Identifier: MIT */
#include "debug/terminal.h"
#include "lib/string.h"

#define CHUNK 128

void terminal_text(struct terminal *t, const char *text, size_t n)
{
	char out[CHUNK + 1];
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		u8 c = (u8)text[i];

		if (c == '\n')
			out[len++] = '\r';
		out[len++] = c == '\n' || (c >= ' ' && c <= '~') ? (char)c : '?';
		t->midline = c != '\n';
		if (len >= CHUNK || i + 1 == n) {
			t->write(out, len);
			len = 0;
		}
	}
}

static void move_left(struct terminal *t, u32 n)
{
	char back[TERMINAL_WIDTH];

	memset(back, '\b', sizeof(back));
	if (n)
		t->write(back, n);
}

void terminal_show(struct terminal *t, const struct edit_view *view)
{
	struct edit_view *old = &t->view;
	u32 same = 0, start, end;

	if (!t->shown)
		old->len = old->cursor = 0;
	while (same < old->len && same < view->len && old->text[same] == view->text[same])
		same++;
	/* From here on; going right is writing again what is there. */
	start = MIN(same, old->cursor);
	end = same < MAX(old->len, view->len) ? view->len : MAX(start, view->cursor);
	move_left(t, old->cursor - start);
	if (end > start)
		t->write(view->text + start, end - start);
	if (view->len < old->len)
		t->write("\x1b[K", 3);
	move_left(t, end - view->cursor);
	*old = *view;
	t->shown = true;
}

void terminal_hide(struct terminal *t)
{
	if (t->shown)
		t->write("\r\x1b[K", 4);
	else if (t->midline)
		t->write("\r\n", 2);
	t->shown = false;
	t->midline = false;
}

void terminal_finish(struct terminal *t)
{
	if (t->shown) {
		t->write(t->view.text + t->view.cursor, t->view.len - t->view.cursor);
		t->write("\r\n", 2);
	}
	t->shown = false;
	t->midline = false;
}
