/* SPDX-License-Identifier: MIT */
/* trace: what is recorded, and the rings as text that tools/trace reads. */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/trace.h"
#include "debug/commands.h"
#include "lib/printf.h"
#include "lib/string.h"

#define DUMP_VERSION  1
#define DUMP_DEFAULT  256 /* events of each CPU */
#define EVENTS_A_LINE 3	  /* whole groups of base64 */

static u32 crc32(u32 crc, const char *text, size_t n)
{
	for (crc = ~crc; n; n--) {
		crc ^= (u8)*text++;
		for (u32 bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static size_t base64(char *out, const u8 *bytes, size_t n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *o = out;

	for (size_t i = 0; i < n; i += 3) {
		u32 v = (u32)bytes[i] << 16 | (i + 1 < n ? (u32)bytes[i + 1] << 8 : 0) |
			(i + 2 < n ? bytes[i + 2] : 0);

		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*o++ = i + 2 < n ? digits[v & 63] : '=';
	}
	return (size_t)(o - out);
}

#define EVENTS_A_PIECE 90 /* 30 lines */

static struct dump {
	struct trace_event events[EVENTS_A_LINE];
	u32 count, classes; /* to dump; to record afterwards */
	u32 cpu, done;	    /* so far, of the events of this CPU */
	u32 skip, n, lines;
} dump;

/* The CRC is of all that stands before it. */
static void put_events(void)
{
	struct dump *d = &dump;
	char text[32 + sizeof(d->events) * 4 / 3 + 4];
	size_t n;

	if (!d->n)
		return;
	n = (size_t)fmt_snprintf(text, sizeof(text), "trace_cpu=%u n=%u data=\"", d->cpu, d->n);
	n += base64(text + n, (const u8 *)d->events, d->n * sizeof(d->events[0]));
	text[n++] = '"';
	monitor_printf("%.*s crc=0x%08x\n", (int)n, text, crc32(0, text, n));
	d->lines++;
	d->n = 0;
}

static void add_event(void *arg, const struct trace_event *e)
{
	(void)arg;
	if (dump.skip) {
		dump.skip--;
		return;
	}
	dump.events[dump.n++] = *e;
	if (dump.n == EVENTS_A_LINE)
		put_events();
}

static void put_type(u32 number, const char *name, const char *class, const char *const words[3])
{
	monitor_printf("trace_type=%u name=%s class=%s arg=%s a=%s b=%s\n", number, name, class,
		       words[0], words[1], words[2]);
}

static void put_types(void)
{
	static const char *const exit_words[] = { "entered", "rip", "detail" };
	struct vm *vm;

	for (enum exit_kind kind = 0; kind < EXIT_KINDS; kind++)
		put_type(kind, exit_kind_name(kind), trace_class_name(TRACE_CLASS_EXIT),
			 exit_words);
	for (enum trace_type t = TRACE_FIRST + 1; t < TRACE_TYPES; t++) {
		const struct trace_format *f = trace_format(t);

		put_type(t, f->name, trace_class_name(f->class),
			 (const char *const[]){ f->arg, f->a, f->b });
	}
	for (u32 i = 0; (vm = command_nth_vm(i)); i++)
		monitor_printf("trace_vm=%u name=%s\n", vm->id, vm->name);
}

static bool dump_some(bool wanted)
{
	u32 to = MIN(dump.done + EVENTS_A_PIECE, dump.count);

	if (wanted && dump.cpu < nr_cpus) {
		dump.skip = dump.done;
		dump.done = trace_read(dump.cpu, to, add_event, NULL);
		put_events();
		if (dump.done < to || to == dump.count)
			dump.cpu++, dump.done = 0;
		return true;
	}
	if (wanted)
		monitor_printf("trace=end lines=%u\n", dump.lines);
	trace_set_classes(dump.classes);
	return false;
}

/* Nothing is recorded meanwhile, so that all CPUs show the same moment. */
static void begin_dump(u32 count)
{
	dump = (struct dump){ .count = count, .classes = trace_classes() };
	trace_set_classes(0);
	monitor_printf("trace=begin version=%u tsc_khz=%u cpus=%u events=%u\n", DUMP_VERSION,
		       tsc_khz, nr_cpus, count);
	put_types();
	command_continue(dump_some);
}

static void count_event(void *arg, const struct trace_event *e)
{
	u64 *sums = arg;
	u8 type = (u8)e->who;

	sums[type < TRACE_EXIT_KINDS ? TRACE_CLASS_EXIT : trace_format(type)->class]++;
}

static void show(void)
{
	u64 sums[TRACE_CLASS_COUNT] = { 0 };

	for (u32 cpu = 0; cpu < nr_cpus; cpu++)
		monitor_printf("cpu=%u events=%u\n", cpu, trace_read(cpu, ~0u, count_event, sums));
	for (enum trace_class c = 0; c < TRACE_CLASS_COUNT; c++)
		monitor_printf("class=%s on=%u events=%lu\n", trace_class_name(c),
			       trace_classes() >> c & 1, sums[c]);
}

static bool turn(bool on, const char *name)
{
	for (enum trace_class c = 0; c < TRACE_CLASS_COUNT; c++) {
		u32 bits = (u32)BIT(c);

		if (name && strcmp(name, trace_class_name(c)))
			continue;
		trace_set_classes(on ? trace_classes() | bits : trace_classes() & ~bits);
		if (name)
			return true;
	}
	return !name;
}

#define COST_EVENTS 64

/* What an event costs: instructions where 1 tick of the TSC is one (docs/BENCHMARKS.md). */
static void show_cost(void)
{
	u64 flags = irq_save(), began = rdtsc(), ticks;

	for (u32 i = 0; i < COST_EVENTS; i++)
		trace(TRACE_COST, 0, i, 0, 0);
	ticks = rdtsc() - began;
	irq_restore(flags);
	monitor_printf("event_ticks=%lu\n", (ticks + COST_EVENTS - 1) / COST_EVENTS);
}

bool cmd_trace(u32 argc, char **argv)
{
	const char *word = argc == 3 ? argv[2] : NULL;
	bool on = argc > 1 && !strcmp(argv[1], "on");
	u32 count = DUMP_DEFAULT;

	if (argc == 1) {
		show();
		return true;
	}
	if (argc > 3)
		return false;
	if (!strcmp(argv[1], "dump")) {
		if (word && (!command_number(word, TRACE_EVENTS_KEPT + 1, &count) || !count))
			return false;
		begin_dump(count);
		return true;
	}
	if (argc == 2 && !strcmp(argv[1], "cost")) {
		show_cost();
		return true;
	}
	if ((!on && strcmp(argv[1], "off")) || !turn(on, word))
		return false;
	show();
	return true;
}
