/* SPDX-License-Identifier: MIT */
/* Pieces of the configuration's text: what all keys are read with. Private to boot/config*.c. */
#pragma once

#include "lib/types.h"

/* Not terminated. */
struct text {
	const char *s;
	size_t n;
};

#define QUOTE_MAX 48

/* Text as it may be shown on any terminal: in quotes, shortened, without control characters. */
struct quoted {
	char s[QUOTE_MAX + 6];
};
struct quoted quote(struct text t);

bool is_blank(char c);
char lower(char c);
struct text trim(struct text t);
bool text_is(struct text t, const char *word);
/*
 * Cut t at the first c: returns what is before it, leaves what is after it; without c, all is
 * before and *found is false.
 */
struct text cut(struct text *t, char c, bool *found);
/* Take the next word off t; empty at the end. */
struct text next_word(struct text *t);
/* With a NUL. The caller has checked that t fits. */
void text_copy(char *to, struct text t);

/* A whole number in base 10 or 16, at most max. False: it is none, *out is as it was. */
bool text_number(struct text t, u32 base, u64 max, u64 *out);
/* The same for a number as 0x100000. */
bool text_hex(struct text t, u64 max, u64 *out);
/* Position of value among words as in "auto, linux or flat", or -1. */
s32 word_index(struct text value, const char *words);

/* What VMs and networks can be called. */
#define NAME_IS "a name (1 to 31 of a-z A-Z 0-9 - _)"
bool is_name(struct text t);
