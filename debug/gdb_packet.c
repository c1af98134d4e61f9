/* SPDX-License-Identifier: MIT */
/* gdb manual, appendix "Remote Serial Protocol", "Overview". */
#include "debug/gdb_packet.h"
#include "lib/printf.h"
#include "lib/string.h"

#define CTRL_C	 0x03
#define ESCAPE	 '}'
#define RUN_MAX	 97 /* repeats: the count is a printable character, its value + 29 */
#define RUN_BASE 29

enum { IDLE, BODY, CHECK_HIGH, CHECK_LOW };
enum { ACKS, ACKS_LAST, ACKS_NONE };

static const char digits[] = "0123456789abcdef";

void gdb_link_init(struct gdb_link *l, void (*write)(const char *bytes, size_t n))
{
	memset(l, 0, sizeof(*l));
	l->write = write;
}

void gdb_link_no_acks(struct gdb_link *l)
{
	l->acks = ACKS_LAST;
}

static void body(struct gdb_link *l, u8 c)
{
	l->sum = (u8)(l->sum + c);
	if (!l->escaped && c == ESCAPE) {
		l->escaped = true;
		return;
	}
	if (l->in_len == GDB_PACKET) {
		l->too_long = true;
		return;
	}
	l->in[l->in_len++] = l->escaped ? c ^ 0x20 : c;
	l->escaped = false;
}

static enum gdb_event whole(struct gdb_link *l)
{
	bool good = l->sum == l->check;

	l->state = IDLE;
	if (l->acks == ACKS)
		l->write(good ? "+" : "-", 1);
	if (!good)
		return GDB_NOTHING;
	l->in[l->in_len] = '\0';
	return l->too_long ? GDB_TOO_LONG : GDB_PACKET_IN;
}

static enum gdb_event check(struct gdb_link *l, u8 c)
{
	s32 digit = gdb_digit(c);

	if (digit < 0) { /* gdb sends it again when no answer comes */
		l->state = IDLE;
		return GDB_NOTHING;
	}
	l->check = (u8)(l->check << 4 | digit);
	if (l->state == CHECK_LOW)
		return whole(l);
	l->state = CHECK_LOW;
	return GDB_NOTHING;
}

enum gdb_event gdb_link_byte(struct gdb_link *l, u8 c)
{
	if (c == '$') {
		if (l->acks == ACKS_LAST)
			l->acks = ACKS_NONE;
		l->state = BODY;
		l->in_len = 0;
		l->sum = l->check = 0;
		l->escaped = l->too_long = false;
	} else if (l->state == BODY) {
		if (c == '#')
			l->state = CHECK_HIGH;
		else
			body(l, c);
	} else if (l->state != IDLE) {
		return check(l, c);
	} else if (c == CTRL_C) {
		return GDB_INTERRUPT;
	} else if (c == '-' && l->acks != ACKS_NONE && l->sent) {
		gdb_send(l);
	} else if (c == '+') {
		l->acks = l->acks == ACKS_LAST ? ACKS_NONE : ACKS;
	}
	return GDB_NOTHING;
}

/* ---- Sending ---- */

void gdb_begin(struct gdb_link *l)
{
	l->out_len = 0;
}

void gdb_put(struct gdb_link *l, const void *bytes, size_t n)
{
	n = MIN(n, GDB_PACKET - l->out_len);
	memcpy(l->out + l->out_len, bytes, n);
	l->out_len += n;
}

void gdb_hex(struct gdb_link *l, const void *bytes, size_t n)
{
	const u8 *b = bytes;

	while (n--) {
		gdb_put(l, &digits[*b >> 4], 1);
		gdb_put(l, &digits[*b++ & 15], 1);
	}
}

void gdb_putf(struct gdb_link *l, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	fmt_vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	gdb_put(l, text, strlen(text));
}

/* How the bytes go out: counted, and a few at a time. */
struct wire {
	struct gdb_link *l;
	char buf[64];
	u32 n;
	u8 sum;
};

static void wire_flush(struct wire *w)
{
	w->l->write(w->buf, w->n);
	w->n = 0;
}

static void wire(struct wire *w, u8 c)
{
	w->sum = (u8)(w->sum + c);
	if (w->n == sizeof(w->buf))
		wire_flush(w);
	w->buf[w->n++] = (char)c;
}

static bool is_special(u8 c)
{
	return c == '$' || c == '#' || c == '*' || c == ESCAPE;
}

/* How often out[at] may be said to repeat; counts that would look like # $ + - are avoided. */
static u32 repeats(const struct gdb_link *l, size_t at)
{
	u32 n = 0;

	while (n < RUN_MAX && at + n + 1 < l->out_len && l->out[at + n + 1] == l->out[at])
		n++;
	while (n && (is_special((u8)(n + RUN_BASE)) || n + RUN_BASE == '+' || n + RUN_BASE == '-'))
		n--;
	return n < 3 ? 0 : n;
}

void gdb_send(struct gdb_link *l)
{
	struct wire w = { .l = l };
	u8 sum;

	l->sent = true;
	wire(&w, '$');
	w.sum = 0;
	for (size_t at = 0; at < l->out_len; at++) {
		u8 c = l->out[at];
		u32 n = is_special(c) ? 0 : repeats(l, at);

		if (is_special(c)) {
			wire(&w, ESCAPE);
			c ^= 0x20;
		}
		wire(&w, c);
		if (n) {
			wire(&w, '*');
			wire(&w, (u8)(n + RUN_BASE));
			at += n;
		}
	}
	sum = w.sum;
	wire(&w, '#');
	wire(&w, (u8)digits[sum >> 4]);
	wire(&w, (u8)digits[sum & 15]);
	wire_flush(&w);
}

void gdb_reply(struct gdb_link *l, const char *text)
{
	gdb_begin(l);
	gdb_put(l, text, strlen(text));
	gdb_send(l);
}

/* ---- Reading the payload ---- */

s32 gdb_digit(u8 c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gdb_get_number(const char **s, u64 *value)
{
	const char *at = *s;

	for (*value = 0; gdb_digit((u8)*at) >= 0; at++) {
		if (*value >> 60)
			return false;
		*value = *value << 4 | (u64)gdb_digit((u8)*at);
	}
	if (at == *s)
		return false;
	*s = at;
	return true;
}

bool gdb_get_range(const char **s, u64 *address, u64 *len)
{
	return gdb_get_number(s, address) && *(*s)++ == ',' && gdb_get_number(s, len);
}

size_t gdb_get_hex(const char *s, void *bytes, size_t max)
{
	u8 *b = bytes;
	size_t n;

	for (n = 0; n < max && gdb_digit((u8)s[2 * n]) >= 0 && gdb_digit((u8)s[2 * n + 1]) >= 0;
	     n++)
		b[n] = (u8)(gdb_digit((u8)s[2 * n]) << 4 | gdb_digit((u8)s[2 * n + 1]));
	return n;
}
