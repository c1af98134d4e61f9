/* SPDX-License-Identifier: MIT */
/* Freestanding builds only: on the host these come from libc. */
#include "lib/string.h"

/*
 * Eight bytes a step, then the rest: CPUs with fast string operations don't care, and an emulator
 * counts steps.
 */
void *memcpy(void *dst, const void *src, size_t n)
{
	void *ret = dst;
	size_t words = n / 8, bytes = n % 8;

	asm volatile("rep movsq\n\t"
		     "mov %[bytes], %%rcx\n\t"
		     "rep movsb"
		     : "+D"(dst), "+S"(src), "+c"(words)
		     : [bytes] "r"(bytes)
		     : "memory");
	return ret;
}

void *memmove(void *dst, const void *src, size_t n)
{
	u8 *d = dst;
	const u8 *s = src;

	if (d <= s || d >= s + n)
		return memcpy(dst, src, n);
	while (n--)
		d[n] = s[n];
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	void *ret = dst;
	size_t words = n / 8, bytes = n % 8;

	asm volatile("rep stosq\n\t"
		     "mov %[bytes], %%rcx\n\t"
		     "rep stosb"
		     : "+D"(dst), "+c"(words)
		     : "a"((u8)c * 0x0101010101010101ul), [bytes] "r"(bytes)
		     : "memory");
	return ret;
}
