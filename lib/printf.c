/* SPDX-License-Identifier: MIT */
#include "lib/printf.h"
#include "lib/string.h"

struct out {
	char *buf;
	size_t size, len;
};

struct spec {
	bool left, zero, alt, negative, wide;
	int width, precision; /* precision -1: none */
};

static void put(struct out *o, char c)
{
	if (o->len + 1 < o->size)
		o->buf[o->len] = c;
	o->len++;
}

static void put_field(struct out *o, const struct spec *s, const char *prefix, const char *body,
		      int n, int zeros)
{
	int total = (int)strlen(prefix) + zeros + n;

	for (int i = total; !s->left && i < s->width; i++)
		put(o, ' ');
	while (*prefix)
		put(o, *prefix++);
	while (zeros-- > 0)
		put(o, '0');
	for (int i = 0; i < n; i++)
		put(o, body[i]);
	for (int i = total; s->left && i < s->width; i++)
		put(o, ' ');
}

static void put_number(struct out *o, const struct spec *s, u64 value, u32 base)
{
	const char *prefix = s->negative ? "-" : s->alt && base == 16 && value ? "0x" : "";
	char buf[24];
	int n = 0, zeros = 0;

	for (u64 rest = value; rest; rest /= base)
		buf[sizeof(buf) - 1 - (size_t)n++] = "0123456789abcdef"[rest % base];
	if (!n && s->precision)
		buf[sizeof(buf) - 1 - (size_t)n++] = '0';
	if (s->precision > n)
		zeros = s->precision - n;
	else if (s->precision < 0 && s->zero && !s->left)
		zeros = s->width - n - (int)strlen(prefix);
	put_field(o, s, prefix, buf + sizeof(buf) - n, n, zeros > 0 ? zeros : 0);
}

static const char *parse_flags(const char *f, struct spec *s)
{
	for (;; f++) {
		if (*f == '-')
			s->left = true;
		else if (*f == '0')
			s->zero = true;
		else if (*f == '#')
			s->alt = true;
		else
			return f;
	}
}

static const char *parse_int(const char *f, va_list *ap, int *out)
{
	if (*f == '*') {
		*out = va_arg(*ap, int);
		return f + 1;
	}
	for (*out = 0; *f >= '0' && *f <= '9'; f++)
		*out = *out * 10 + (*f - '0');
	return f;
}

static const char *parse_spec(const char *f, va_list *ap, struct spec *s)
{
	*s = (struct spec){ .precision = -1 };
	f = parse_flags(f, s);
	f = parse_int(f, ap, &s->width);
	if (s->width < 0) {
		s->left = true;
		s->width = -s->width;
	}
	if (*f == '.')
		f = parse_int(f + 1, ap, &s->precision);
	for (; *f == 'l' || *f == 'z'; f++)
		s->wide = true;
	return f;
}

static void convert(struct out *o, char c, struct spec *s, va_list *ap)
{
	const char *str;
	char ch;
	s64 v;

	switch (c) {
	case 'd':
		v = s->wide ? va_arg(*ap, s64) : va_arg(*ap, int);
		s->negative = v < 0;
		put_number(o, s, v < 0 ? 0 - (u64)v : (u64)v, 10);
		break;
	case 'u':
	case 'x':
		put_number(o, s, s->wide ? va_arg(*ap, u64) : va_arg(*ap, unsigned int),
			   c == 'u' ? 10 : 16);
		break;
	case 'p':
		s->alt = true;
		put_number(o, s, (u64)(uintptr_t)va_arg(*ap, void *), 16);
		break;
	case 's':
		str = va_arg(*ap, const char *);
		if (!str)
			str = "(null)";
		put_field(o, s, "", str,
			  (int)strnlen(str, s->precision < 0 ? 1u << 20 : (size_t)s->precision), 0);
		break;
	case 'c':
		ch = (char)va_arg(*ap, int);
		put_field(o, s, "", &ch, 1, 0);
		break;
	default: /* "%%", and an unknown conversion shows itself */
		put(o, c);
	}
}

int fmt_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct out o = { buf, size, 0 };
	struct spec s;
	va_list args;

	va_copy(args, ap);
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(&o, *fmt);
			continue;
		}
		fmt = parse_spec(fmt + 1, &args, &s);
		if (!*fmt)
			break;
		convert(&o, *fmt, &s, &args);
	}
	va_end(args);
	if (size)
		buf[MIN(o.len, size - 1)] = '\0';
	return (int)o.len;
}

int fmt_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = fmt_vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return n;
}
