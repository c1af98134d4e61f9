/* SPDX-License-Identifier: MIT */
#include "boot/config_text.h"

#include "boot/config.h"
#include "lib/string.h"

struct quoted quote(struct text t)
{
	struct quoted q;
	size_t n = 0;

	q.s[n++] = '\'';
	for (size_t i = 0; i < t.n && i < QUOTE_MAX; i++)
		q.s[n++] = t.s[i] >= ' ' && t.s[i] <= '~' ? t.s[i] : '.';
	if (t.n > QUOTE_MAX) {
		memcpy(q.s + n, "...", 3);
		n += 3;
	}
	q.s[n++] = '\'';
	q.s[n] = '\0';
	return q;
}

bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_char(char c)
{
	return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' || c == '_';
}

bool is_name(struct text t)
{
	if (!t.n || t.n > CONFIG_NAME_MAX)
		return false;
	for (size_t i = 0; i < t.n; i++) {
		if (!is_name_char(t.s[i]))
			return false;
	}
	return true;
}

struct text trim(struct text t)
{
	while (t.n && is_blank(t.s[0])) {
		t.s++;
		t.n--;
	}
	while (t.n && is_blank(t.s[t.n - 1]))
		t.n--;
	return t;
}

bool text_is(struct text t, const char *word)
{
	return strlen(word) == t.n && !memcmp(t.s, word, t.n);
}

struct text cut(struct text *t, char c, bool *found)
{
	struct text head = *t;

	for (size_t i = 0; i < t->n; i++) {
		if (t->s[i] == c) {
			head.n = i;
			t->s += i + 1;
			t->n -= i + 1;
			*found = true;
			return head;
		}
	}
	t->s += t->n;
	t->n = 0;
	*found = false;
	return head;
}

void text_copy(char *to, struct text t)
{
	memcpy(to, t.s, t.n);
	to[t.n] = '\0';
}

static s32 digit_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (lower(c) >= 'a' && lower(c) <= 'f')
		return lower(c) - 'a' + 10;
	return 16;
}

bool text_number(struct text t, u32 base, u64 max, u64 *out)
{
	u64 value = 0;

	if (!t.n)
		return false;
	for (size_t i = 0; i < t.n; i++) {
		u64 digit = (u64)digit_value(t.s[i]);

		if (digit >= base || digit > max || value > (max - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	return true;
}

bool text_hex(struct text t, u64 max, u64 *out)
{
	return t.n > 2 && t.s[0] == '0' && t.s[1] == 'x' &&
	       text_number((struct text){ t.s + 2, t.n - 2 }, 16, max, out);
}

struct text next_word(struct text *t)
{
	struct text word;

	while (t->n && (u8)t->s[0] <= ' ') {
		t->s++;
		t->n--;
	}
	word = (struct text){ t->s, 0 };
	while (word.n < t->n && (u8)t->s[word.n] > ' ')
		word.n++;
	t->s += word.n;
	t->n -= word.n;
	return word;
}

s32 word_index(struct text value, const char *words)
{
	struct text rest = { words, strlen(words) };
	s32 i = 0;

	for (struct text word = next_word(&rest); word.n; word = next_word(&rest)) {
		if (text_is(word, "or"))
			continue;
		if (word.s[word.n - 1] == ',')
			word.n--;
		if (word.n == value.n && !memcmp(word.s, value.s, value.n))
			return i;
		i++;
	}
	return -1;
}
