/* SPDX-License-Identifier: MIT */
/*
 * The log: lines with a time, a CPU and a level, kept in a ring and handed to a sink (serial,
 * screen).
 *
 * Callable on every CPU, in every context; in NMI context a line is dropped and counted when the
 * lock is taken. One call is one line; no trailing newline in the format.
 */
#pragma once

#include "lib/types.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_at(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
#define log_err(...)   log_at(LOG_ERR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/*
 * Where finished lines go besides the ring: text without newline. Owned by lib, set once by boot.
 */
extern void (*log_sink)(enum log_level level, const char *line, size_t len);
/* Stamps of a line; set by arch/x86 once there is a clock and a per-CPU area. */
extern u64 (*log_clock_ns)(void);
extern u32 (*log_cpu)(void);
/* How interrupts are kept off while the log's lock is held; set by arch/x86. */
extern u64 (*log_irq_save_hook)(void);
extern void (*log_irq_restore_hook)(u64 flags);
/* Lines up to this level reach the sink; all reach the ring. */
extern enum log_level log_sink_level;

/*
 * The machine is being stopped: who held the log's lock may never give it back. Set by arch/x86;
 * lines are then written all the same, after a wait.
 */
extern bool log_crashed;

/*
 * A ring where a warm reset leaves its contents alone; reset or power loss in the middle of a line
 * cost that line. Nothing in it is believed: it may be any memory.
 */
#define LOG_RING 65536u /* a power of two: the index is a free-running count */
struct log_area {
	u64 magic;
	u64 written; /* bytes ever */
	u64 check;   /* of written: whether these four are a log's at all */
	u64 ended;   /* 1: the machine was switched off or reset on purpose */
	char ring[LOG_RING];
};

/*
 * Keep the log in *area from now on, what was logged so far included, and keep what area had. Once,
 * before other CPUs run. Area is mapped as ordinary memory for good.
 */
void log_keep(struct log_area *area);
/* The log of the boot before: false, there is none. *ended: it was switched off on purpose. */
bool log_previous(bool *ended);
/* A line of a log, with its stamp as text; all zero at first. One that is longer is cut. */
struct log_line {
	u64 pos; /* behind it, in the log */
	size_t len;
	char text[256];
};
/*
 * The next line of this log, or of the boot before, oldest first: what is not printable in that one
 * becomes '?'. Lines that are overwritten meanwhile are skipped. False: there are no more.
 */
bool log_next(bool previous, struct log_line *l);
#define for_each_log_line(l, previous) for (struct log_line l = { 0 }; log_next(previous, &l);)
/* The machine is about to be switched off or reset on purpose. */
void log_ended(void);
