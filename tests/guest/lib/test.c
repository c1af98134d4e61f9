/* SPDX-License-Identifier: MIT */
/* Runs the cases, and says what came of them. */
#include <linux/serial_reg.h>
#include "lib/printf.h"
#include "tests/guest/lib/apic.h"
#include "tests/guest/lib/private.h"

#define COM1	    0x3f8
#define EXIT_PORT   0xf4
#define CMOS_INDEX  0x70
#define CMOS_DATA   0x71
#define CMOS_NEXT   0x40 /* two bytes that survive a reset: the case that goes on, ... */
#define CMOS_FAILED 0x42 /* ... whether one failed before it, ... */
#define CMOS_MAGIC  0x43 /* ... and that this is so */
#define MAGIC	    0xa5

extern const struct test tests_begin[], tests_end[];

enum verdict { SILENT, SUCCESS, FAILURE, SKIPPED, ERROR };

bool reborn;
const char *vm_name = "?";
static char cmdline[256]; /* the name, then the words */
static const char *words = "";

static u32 current;  /* case */
static u8 verdict;   /* atomic; enum verdict, the worst so far */
static u32 findings; /* atomic */
static char reason[160];
static bool failed;
static u32 print_lock;

static void print(const char *prefix, const char *fmt, va_list ap)
{
	static char line[512];
	const char *from = line;
	u64 flags = read_flags(), n;

	irq_disable();
	while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE))
		cpu_pause();
	n = (u64)fmt_snprintf(line, sizeof(line), "%s", prefix);
	n += (u64)fmt_vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	n = MIN(n, sizeof(line) - 2);
	line[n++] = '\n';
	asm volatile("cld; rep outsb" : "+S"(from), "+c"(n) : "d"(COM1 + UART_TX) : "memory");
	__atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE);
	irq_restore(flags);
}

static void PRINTF(1, 2) say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print("", fmt, ap);
	va_end(ap);
}

void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print("#   ", fmt, ap);
	va_end(ap);
}

static void worsen(enum verdict to)
{
	u8 old = __atomic_load_n(&verdict, __ATOMIC_SEQ_CST);

	while (old < to && !__atomic_compare_exchange_n(&verdict, &old, (u8)to, false,
							__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

void expect_(const char *file, u32 line, const char *what, u64 seen, u64 expected)
{
	if (seen == expected) {
		worsen(SUCCESS);
		return;
	}
	worsen(FAILURE);
	if (__atomic_fetch_add(&findings, 1, __ATOMIC_SEQ_CST) < 5)
		note("%s:%u: %s: expected %#lx, seen %#lx", file, line, what, expected, seen);
}

static void NORETURN end_case(enum verdict with, const char *fmt, va_list ap)
{
	if (this_cpu()->index == 0)
		fmt_vsnprintf(reason, sizeof(reason), fmt, ap);
	worsen(with);
	context_go(&this_cpu()->abort);
}

void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_case(verdict == FAILURE ? FAILURE : SKIPPED, fmt, ap);
}

void error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_case(ERROR, fmt, ap);
}

bool has_word(const char *word)
{
	size_t n = strlen(word);

	for (const char *p = words; *p; p++)
		if ((p == words || p[-1] == ' ') && !strncmp(p, word, n) && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

bool on_intel(void)
{
	return cpuid(0, 0).ebx == 0x756e6547;
}

/* ---- What survives a reset ---- */

static u8 cmos_read(u8 index)
{
	outb(CMOS_INDEX, index);
	return inb(CMOS_DATA);
}

static void cmos_write(u8 index, u8 value)
{
	outb(CMOS_INDEX, index);
	outb(CMOS_DATA, value);
}

void reset_follows(void)
{
	cmos_write(CMOS_NEXT, (u8)current);
	cmos_write(CMOS_NEXT + 1, (u8)(current >> 8));
	cmos_write(CMOS_FAILED, failed || verdict == FAILURE);
	cmos_write(CMOS_MAGIC, MAGIC);
}

static void remember(void)
{
	if (cmos_read(CMOS_MAGIC) != MAGIC)
		return;
	reborn = true;
	current = cmos_read(CMOS_NEXT) | (u32)cmos_read(CMOS_NEXT + 1) << 8;
	failed = cmos_read(CMOS_FAILED);
	cmos_write(CMOS_MAGIC, 0);
}

/* ---- The run ---- */

static void report(const struct test *t)
{
	u32 number = current + 1;

	if (verdict == SILENT) {
		verdict = ERROR;
		fmt_snprintf(reason, sizeof(reason), "it checked nothing");
	}
	failed |= verdict == FAILURE || verdict == ERROR;
	switch (verdict) {
	case SUCCESS:
		say("ok %u - %s: %s", number, vm_name, t->name);
		break;
	case SKIPPED:
		say("ok %u - %s: %s # SKIP %s", number, vm_name, t->name, reason);
		break;
	case FAILURE:
		say("not ok %u - %s: %s # %s: %u findings", number, vm_name, t->name, t->what,
		    findings);
		break;
	default:
		say("not ok %u - %s: %s # error: %s", number, vm_name, t->name, reason);
		break;
	}
}

static void run_case(const struct test *t)
{
	verdict = SILENT;
	findings = 0;
	reason[0] = '\0';
	cpu_defaults();
	if (!context_save(&this_cpu()->abort))
		t->run();
	irq_disable();
	report(t);
	reborn = false;
}

struct PACKED multiboot_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline;
};

void tests_run(const struct multiboot_info *info)
{
	char *blank;

	fmt_snprintf(cmdline, sizeof(cmdline), "%s", (const char *)(u64)info->cmdline);
	vm_name = cmdline;
	blank = strchr(cmdline, ' ');
	if (blank) {
		*blank = '\0';
		words = blank + 1;
	}
	remember();
	if (!reborn)
		say("1..%u # %s", (u32)(tests_end - tests_begin), vm_name);
	for (; current < tests_end - tests_begin; current++)
		run_case(&tests_begin[current]);
	outl(EXIT_PORT, failed);
	halt_forever();
}
