/* SPDX-License-Identifier: MIT */
#include "debug/backtrace.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"

/*
 * .ksyms: what the bytes 0x80 .. 0xff stand for, two bytes each; then per symbol, sorted,
 * {u16 distance from the one before, the first from image_start; its name, ended by 0}.
 */
struct ksyms {
	u8 pairs[128][2], symbols[];
};
extern const struct ksyms ksyms_start;
extern const u8 ksyms_end[], image_start[], text_end[];

#define MAX_DEPTH 24

static bool in_text(u64 address)
{
	return address >= (u64)image_start && address < (u64)text_end;
}

/* Appends what c stands for to buf; returns the new length. Each of a pair is older than the
 * pair, so this ends. */
static size_t expand(u8 c, char *buf, size_t n, size_t size)
{
	if (c >= 0x80) {
		n = expand(ksyms_start.pairs[c - 0x80][0], buf, n, size);
		return expand(ksyms_start.pairs[c - 0x80][1], buf, n, size);
	}
	if (n < size)
		buf[n++] = (char)c;
	return n;
}

/* Of what is at address, or (1) right before it. */
static void format(u64 address, u32 before, char *buf, size_t size)
{
	const u8 *name = NULL, *at = ksyms_start.symbols;
	u64 start = (u64)image_start, next = start;
	char text[48];
	size_t n = 0;

	while (in_text(address) && at < ksyms_end) {
		next += at[0] | at[1] << 8;
		if (next > address - before)
			break;
		start = next;
		name = at + 2;
		at = name + strlen((const char *)name) + 1;
	}
	if (!name) {
		fmt_snprintf(buf, size, "%#lx", address);
		return;
	}
	while (*name)
		n = expand(*name++, text, n, sizeof(text));
	fmt_snprintf(buf, size, "%.*s+%#lx", (int)n, text, address - start);
}

void symbol_format(u64 address, char *buf, size_t size)
{
	format(address, 0, buf, size);
}

/* A frame pointer is followed only upwards, aligned, and within the hypervisor's half. */
static bool plausible(u64 rbp, u64 above)
{
	return rbp > above && !(rbp & 7) && rbp >> 47 == 0x1ffff && rbp - above < 0x10000;
}

void backtrace_from(u64 rip, u64 rbp)
{
	char text[80];

	for (u32 depth = 0; depth < MAX_DEPTH && in_text(rip); depth++) {
		u64 next;

		/* A call that does not return may be the last of its function. */
		format(rip, depth ? 1 : 0, text, sizeof(text));
		log_err("  #%-2u %#lx %s", depth, rip, text);
		if (!rbp || rbp & 7 || rbp >> 47 != 0x1ffff)
			return;
		next = ((u64 *)rbp)[0];
		rip = ((u64 *)rbp)[1];
		rbp = plausible(next, rbp) ? next : 0;
	}
}

void backtrace_here(void)
{
	u64 *fp = __builtin_frame_address(0);

	backtrace_from(fp[1], fp[0]);
}
