/* SPDX-License-Identifier: MIT */
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/spinlock.h"

#define AREA_MAGIC 0x676f4c6c65627243ull /* "CrbelLog" */

void (*log_sink)(enum log_level level, const char *line, size_t len);
u64 (*log_clock_ns)(void);
u32 (*log_cpu)(void);
enum log_level log_sink_level = LOG_INFO;

/* Lines with '\n', oldest overwritten first. After log_keep(), first has the boot before's. */
static struct log_area first;
static struct log_area *log = &first;
static u64 dropped;
bool log_crashed;
static struct spinlock log_lock = SPINLOCK_INIT(RANK_LOG);
u64 (*log_irq_save_hook)(void);
void (*log_irq_restore_hook)(u64 flags);

static u64 log_irq_save(void)
{
	return log_irq_save_hook ? log_irq_save_hook() : 0;
}

static void log_irq_restore(u64 flags)
{
	if (log_irq_restore_hook)
		log_irq_restore_hook(flags);
}

static size_t format_line(char *buf, size_t size, enum log_level level, const char *fmt, va_list ap)
{
	static const char mark[] = { 'E', 'W', 'I', 'D' };
	u64 us = log_clock_ns ? log_clock_ns() / 1000 : 0;
	int n = fmt_snprintf(buf, size, "[%5lu.%06lu %u %c] ", us / 1000000, us % 1000000,
			     log_cpu ? log_cpu() : 0, mark[level]);

	n += fmt_vsnprintf(buf + n, size - (size_t)n, fmt, ap);
	return MIN((size_t)n, size - 1);
}

static u64 check_of(u64 written)
{
	return (written ^ AREA_MAGIC) * 0x9e3779b97f4a7c15ull;
}

static void ring_put(const char *line, size_t len)
{
	for (size_t i = 0; i <= len; i++)
		log->ring[log->written++ % LOG_RING] = i < len ? line[i] : '\n';
	log->check = check_of(log->written);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[256];
	va_list ap;
	size_t len;
	u64 flags;

	va_start(ap, fmt);
	len = format_line(line, sizeof(line), level, fmt, ap);
	va_end(ap);
	flags = log_irq_save();
	/*
	 * NMI and crash context may have interrupted the holder: give up after a while rather than
	 * hang.
	 */
	for (u32 tries = 0; !spin_trylock(&log_lock); tries++) {
		if (tries > 10000000 && READ_ONCE(log_crashed)) {
			spin_init(&log_lock, RANK_LOG);
			tries = 0;
		} else if (tries > 10000000) {
			dropped++;
			log_irq_restore(flags);
			return;
		}
		__builtin_ia32_pause();
	}
	ring_put(line, len);
	if (log_sink && level <= log_sink_level)
		log_sink(level, line, len);
	spin_unlock(&log_lock);
	log_irq_restore(flags);
}

/* Copies the line that starts at *pos; moves *pos past it. False at the end. */
static bool next_line(const struct log_area *a, struct log_line *l)
{
	u64 flags = log_irq_save();
	bool found = false;

	spin_lock(&log_lock);
	if (a->written > LOG_RING && l->pos < a->written - LOG_RING) {
		/* Overwritten: go on at the oldest whole line. */
		l->pos = a->written - LOG_RING;
		while (l->pos < a->written && a->ring[l->pos++ % LOG_RING] != '\n')
			;
	}
	for (l->len = 0; l->pos < a->written && !found;) {
		char c = a->ring[l->pos++ % LOG_RING];

		if (c == '\n')
			found = true;
		else if (l->len < sizeof(l->text))
			l->text[l->len++] = c;
	}
	spin_unlock(&log_lock);
	log_irq_restore(flags);
	return found;
}

void log_keep(struct log_area *area)
{
	u64 *old = (u64 *)area, *new = (u64 *)&first;
	struct log_area *before = &first;

	first.magic = AREA_MAGIC;
	/* They change places: then no third area is needed. */
	for (size_t i = 0; i < sizeof(first) / sizeof(u64); i++) {
		u64 word = old[i];

		old[i] = new[i];
		new[i] = word;
	}
	log = area;
	if (before->magic != AREA_MAGIC || before->check != check_of(before->written))
		before->written = 0;
}

bool log_previous(bool *ended)
{
	*ended = first.ended == 1;
	return log != &first && first.written;
}

bool log_next(bool previous, struct log_line *l)
{
	if (!previous)
		return next_line(log, l);
	if (log == &first || !next_line(&first, l))
		return false;
	for (size_t i = 0; i < l->len; i++)
		if (l->text[i] < ' ' || l->text[i] > '~')
			l->text[i] = '?';
	return true;
}

void log_ended(void)
{
	log->ended = 1;
}
