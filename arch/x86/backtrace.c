/* SPDX-License-Identifier: MIT */
#include "arch/x86/backtrace.h"
#include "lib/log.h"
#include "lib/printf.h"

/*
 * .ksyms: u32 count; then per symbol, sorted, {u32 offset from image_start, u32 offset of its
 * name}; then the names.
 */
struct ksym {
	u32 address, name;
};
extern const u8 ksyms_start[], ksyms_end[], image_start[], text_end[];

#define MAX_DEPTH 24

static bool in_text(u64 address)
{
	return address >= (u64)image_start && address < (u64)text_end;
}

void symbol_format(u64 address, char *buf, size_t size)
{
	const struct ksym *sym = (const struct ksym *)(ksyms_start + 8);
	u32 count = ksyms_end - ksyms_start >= 8 ? *(const u32 *)ksyms_start : 0;
	u32 offset = (u32)(address - (u64)image_start), lo = 0, hi = count;

	if (!count || !in_text(address) || offset < sym[0].address) {
		fmt_snprintf(buf, size, "%#lx", address);
		return;
	}
	while (hi - lo > 1) {
		u32 mid = (lo + hi) / 2;

		if (sym[mid].address <= offset)
			lo = mid;
		else
			hi = mid;
	}
	fmt_snprintf(buf, size, "%s+%#x", (const char *)ksyms_start + sym[lo].name,
		     offset - sym[lo].address);
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

		symbol_format(rip, text, sizeof(text));
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
