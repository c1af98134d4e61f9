/* SPDX-License-Identifier: MIT */
/*
 * What commands print, line by line: as it is, or as JSON, and with a script's tag in front. A row
 * of key=value is what JSON is made of, so no command knows of it.
 */
#include "debug/commands.h"
#include "debug/console.h"
#include "lib/printf.h"
#include "lib/string.h"

static void (*output)(const char *text, size_t n) = console_print;

static struct {
	const char *tag; /* NULL: a person reads it */
	bool json;
	u32 lines;
} mode;

struct out {
	char text[4 * MONITOR_LINE]; /* escapes double a character at most; tags, quotes */
	size_t len;
};

static void put(struct out *o, const char *text, size_t n)
{
	n = MIN(n, sizeof(o->text) - o->len);
	memcpy(o->text + o->len, text, n);
	o->len += n;
}

static void put_string(struct out *o, const char *text, size_t n)
{
	put(o, "\"", 1);
	for (; n; n--, text++) {
		if (*text == '"' || *text == '\\')
			put(o, "\\", 1);
		put(o, *text < ' ' ? "?" : text, 1);
	}
	put(o, "\"", 1);
}

/* JSON's numbers: no leading zeros; hexadecimal ones are strings. */
static bool is_number(const char *text, size_t n)
{
	size_t digits = 0, dots = 0;

	if (n && *text == '-')
		text++, n--;
	if (!n || (text[0] == '0' && n > 1 && text[1] != '.'))
		return false;
	for (size_t i = 0; i < n; i++) {
		digits += text[i] >= '0' && text[i] <= '9';
		dots += text[i] == '.' && i && i + 1 < n;
	}
	return digits + dots == n && dots < 2;
}

static size_t span(const char *text, size_t n, const char *ends)
{
	size_t i = 0;

	while (i < n && !strchr(ends, text[i]))
		i++;
	return i;
}

/* False: it is no row of key=value; what was put is to be forgotten. */
static bool put_row(struct out *o, const char *row, size_t n)
{
	for (const char *separator = "{"; n; separator = ",") {
		size_t key = span(row, n, "= \""), value;
		bool quoted;

		if (!key || key == n || row[key] != '=')
			return false;
		put(o, separator, 1);
		put_string(o, row, key);
		put(o, ":", 1);
		row += key + 1, n -= key + 1;
		quoted = n && *row == '"';
		row += quoted, n -= quoted;
		value = span(row, n, quoted ? "\"" : " \"");
		if (quoted && value == n)
			return false;
		if (!quoted && is_number(row, value))
			put(o, row, value);
		else
			put_string(o, row, value);
		row += value + quoted, n -= value + quoted;
		if (n && (*row != ' ' || n == 1))
			return false;
		row += n > 0, n -= n > 0;
	}
	put(o, "}", 1);
	return true;
}

static void put_json(struct out *o, const char *line, size_t n)
{
	size_t begin = o->len;

	if (n && put_row(o, line, n))
		return;
	o->len = begin;
	put(o, "{\"text\":", 8);
	put_string(o, line, n);
	put(o, "}", 1);
}

static void put_line(struct out *o, const char *line, size_t n) /* without its \n */
{
	mode.lines++;
	if (mode.tag) {
		put(o, mode.tag, strlen(mode.tag));
		put(o, " ", 1);
	}
	if (mode.json)
		put_json(o, line, n);
	else
		put(o, line, n);
	put(o, "\n", 1);
}

/* Lines go out whole: a log line from another CPU must not cut one into two. */
void monitor_printf(const char *fmt, ...)
{
	static char text[MONITOR_LINE + 1];
	static struct out o;
	static size_t len;
	const char *line = text;
	size_t n;
	va_list ap;

	va_start(ap, fmt);
	len += (size_t)fmt_vsnprintf(text + len, sizeof(text) - len, fmt, ap);
	va_end(ap);
	if (len > MONITOR_LINE) {
		/* Cut, but still a line. */
		text[MONITOR_LINE] = '\n';
		len = MONITOR_LINE + 1;
	}
	for (; (n = span(line, len, "\n")) < len; line += n + 1, len -= n + 1)
		put_line(&o, line, n);
	if (o.len)
		output(o.text, o.len);
	o.len = 0;
	memmove(text, line, len);
}

void monitor_print_to(void (*to)(const char *text, size_t n))
{
	output = to ? to : console_print;
}

void monitor_print_begin(const char *tag, bool json)
{
	mode.tag = tag;
	mode.json = json;
	mode.lines = 0;
}

void monitor_print_end(void)
{
	u32 lines = mode.lines;

	mode.json = false;
	if (mode.tag)
		monitor_printf("end lines=%u\n", lines);
	mode.tag = NULL;
}

bool monitor_for_script(void)
{
	return mode.tag || mode.json;
}
