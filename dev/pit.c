/* SPDX-License-Identifier: MIT */
/* Intel 8254 data sheet: "Programming the 8254", "Mode Definitions". */
#include "dev/pit.h"

#include <asm-generic/errno-base.h>
#include "dev/clock.h"

#define PORT	     0x40
#define PORT_CONTROL 3
#define PORT_GATE    0x61
#define SPEAKER	     2

#define CONTROL_COUNTER_SHIFT 6
#define CONTROL_READ_BACK     3 /* in place of a counter's number */
#define CONTROL_ACCESS_SHIFT  4
#define CONTROL_MODE_SHIFT    1
#define CONTROL_BCD	      BIT(0)
#define READ_BACK_NO_COUNT    BIT(5)
#define READ_BACK_NO_STATUS   BIT(4)
#define STATUS_OUT	      BIT(7)
#define STATUS_NULL_COUNT     BIT(6)
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

enum mode {
	TERMINAL_COUNT,
	ONE_SHOT,
	RATE,
	SQUARE,
	SOFTWARE_STROBE,
	HARDWARE_STROBE,
};

#define GATE_OPEN     BIT(0)
#define GATE_WRITABLE 0x0f
#define GATE_REFRESH  BIT(4)
#define GATE_OUT      BIT(5)
#define REFRESH_TICKS 18 /* 15 us */

static bool periodic(const struct pit_counter *c)
{
	return c->mode == RATE || c->mode == SQUARE;
}

/* The gate starts these, and does not stop them. */
static bool triggered(const struct pit_counter *c)
{
	return c->mode == ONE_SHOT || c->mode == HARDWARE_STROBE;
}

/* How far it has come since it was loaded. */
static u64 ticks_at(const struct pit *pit, const struct pit_counter *c, u64 now)
{
	if (!c->counting)
		return c->ticks;
	return c->ticks + ratio_apply(now - c->start, pit->tick_per_tsc);
}

static bool out(const struct pit_counter *c, u64 ticks)
{
	if (!c->loaded)
		return c->mode != TERMINAL_COUNT;
	if (c->mode == TERMINAL_COUNT)
		return ticks >= c->count;
	if (!c->counting && c->mode != SOFTWARE_STROBE)
		return true;
	switch (c->mode) {
	case ONE_SHOT:
		return ticks >= c->count;
	case RATE:
		return ticks % c->count != c->count - 1;
	case SQUARE:
		return ticks % c->count < (c->count + 1) / 2;
	default:
		return ticks != c->count;
	}
}

static u32 from_bcd(u32 x)
{
	return (x & 0xf) + (x >> 4 & 0xf) * 10 + (x >> 8 & 0xf) * 100 + (x >> 12 & 0xf) * 1000;
}

static u32 to_bcd(u32 x)
{
	return x % 10 | x / 10 % 10 << 4 | x / 100 % 10 << 8 | x / 1000 % 10 << 12;
}

static u16 count_at(const struct pit_counter *c, u64 ticks)
{
	u32 left;

	if (!c->loaded)
		return 0;
	if (c->mode == RATE)
		left = c->count - (u32)(ticks % c->count);
	else if (c->mode == SQUARE) /* by twos, once for each half */
		left = (c->count - (u32)(ticks * 2 % c->count)) & ~1u;
	else
		left = c->count - (u32)(ticks % (c->bcd ? 10000 : 65536));
	return (u16)(c->bcd ? to_bcd((left + 10000) % 10000) : left);
}

static void set_line(struct pit *pit, bool level)
{
	if (level == pit->line)
		return;
	pit->line = level;
	vm_irq_line(pit->vm, PIT_GSI, level);
}

/* Counter 0's output is to rise at pit->next; vCPU 0 is to see to it. */
static void schedule(struct pit *pit)
{
	struct pit_counter *c = &pit->counter[0];
	u64 ticks = c->mode == SOFTWARE_STROBE ? c->count + 1 : c->count, span;

	pit->next = 0;
	if (c->counting && !triggered(c)) {
		span = ratio_apply(ticks, pit->tsc_per_tick);
		pit->next = c->start + (periodic(c) ? MAX(span, pit->min_period) : span);
	}
	vcpu_request(pit->vm->vcpus[0], REQ_TIMER);
}

static void output_changed(struct pit *pit, const struct pit_counter *c, u64 now)
{
	if (c != &pit->counter[0])
		return;
	set_line(pit, out(c, ticks_at(pit, c, now)));
	schedule(pit);
}

static void start(struct pit_counter *c, u64 now)
{
	c->ticks = 0;
	c->start = now;
	c->counting = true;
}

static void load(struct pit *pit, struct pit_counter *c, u32 value)
{
	u64 now = dev_tsc();

	value = c->bcd ? from_bcd(value) : value;
	c->count = value ? value : c->bcd ? 10000 : 65536;
	c->loaded = true;
	if (!triggered(c)) {
		start(c, now);
		c->counting = c->gate;
	}
	output_changed(pit, c, now);
}

static void write_count(struct pit *pit, struct pit_counter *c, u8 byte)
{
	if (c->access != ACCESS_BOTH) {
		load(pit, c, c->access == ACCESS_HIGH ? (u32)byte << 8 : byte);
		return;
	}
	if (c->write_high)
		load(pit, c, (u32)byte << 8 | c->low);
	else
		c->low = byte;
	c->write_high = !c->write_high;
}

static void latch_count(const struct pit *pit, struct pit_counter *c, u64 now)
{
	if (c->latched)
		return;
	c->latch = count_at(c, ticks_at(pit, c, now));
	c->latched = c->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(const struct pit *pit, struct pit_counter *c, u64 now)
{
	if (c->status_latched)
		return;
	c->status =
		(u8)((out(c, ticks_at(pit, c, now)) ? STATUS_OUT : 0) |
		     (c->loaded ? 0 : STATUS_NULL_COUNT) | (u32)c->access << CONTROL_ACCESS_SHIFT |
		     (u32)c->mode << CONTROL_MODE_SHIFT | c->bcd);
	c->status_latched = true;
}

/* "Read-Back Command": latches of several counters at one moment. */
static void read_back(struct pit *pit, u8 value)
{
	u64 now = dev_tsc();

	for (u32 i = 0; i < PIT_COUNTERS; i++) {
		if (!(value & BIT(i + 1)))
			continue;
		if (!(value & READ_BACK_NO_COUNT))
			latch_count(pit, &pit->counter[i], now);
		if (!(value & READ_BACK_NO_STATUS))
			latch_status(pit, &pit->counter[i], now);
	}
}

static void write_control(struct pit *pit, u8 value)
{
	u32 n = value >> CONTROL_COUNTER_SHIFT, access = value >> CONTROL_ACCESS_SHIFT & 3;
	u32 mode = value >> CONTROL_MODE_SHIFT & 7;
	struct pit_counter *c = &pit->counter[n];

	if (n == CONTROL_READ_BACK) {
		read_back(pit, value);
		return;
	}
	if (access == ACCESS_LATCH) {
		latch_count(pit, c, dev_tsc());
		return;
	}
	*c = (struct pit_counter){ .mode = (u8)(mode > HARDWARE_STROBE ? mode & 3 : mode),
				   .access = (u8)access,
				   .bcd = value & CONTROL_BCD,
				   .gate = c->gate };
	output_changed(pit, c, dev_tsc());
}

static u8 read_count(struct pit *pit, struct pit_counter *c)
{
	bool high = c->access == ACCESS_HIGH;
	u16 value;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	value = c->latched ? c->latch : count_at(c, ticks_at(pit, c, dev_tsc()));
	if (c->latched)
		c->latched--;
	if (c->access == ACCESS_BOTH) {
		high = c->read_high;
		c->read_high = !high;
	}
	return (u8)(high ? value >> 8 : value);
}

static void set_gate(const struct pit *pit, struct pit_counter *c, bool open)
{
	u64 now = dev_tsc();

	if (open == c->gate)
		return;
	c->gate = open;
	if (!c->loaded)
		return;
	if (!open && !triggered(c)) {
		c->ticks = ticks_at(pit, c, now);
		c->counting = false;
	} else if (open && !periodic(c) && !triggered(c)) {
		c->start = now;
		c->counting = true;
	} else if (open) {
		start(c, now);
	}
}

static u8 read_gate(const struct pit *pit)
{
	const struct pit_counter *c = &pit->counter[SPEAKER];
	u64 now = dev_tsc();

	return (u8)(pit->control | (out(c, ticks_at(pit, c, now)) ? GATE_OUT : 0) |
		    (ratio_apply(now, pit->tick_per_tsc) / REFRESH_TICKS & 1 ? GATE_REFRESH : 0));
}

/* Counter 0's output rises. What was missed is one; the raster stays. */
static void rise(struct pit *pit, u64 now)
{
	struct pit_counter *c = &pit->counter[0];
	u64 period;

	set_line(pit, false);
	set_line(pit, true);
	if (!periodic(c)) {
		pit->next = 0;
		return;
	}
	period = pit->next - c->start;
	c->start = pit->next + (now - pit->next) / period * period;
	pit->next = c->start + period;
}

/*
 * Let happen what is due, although the timer has not fired yet: who sees the output high has the
 * interrupt.
 */
static void settle(struct pit *pit)
{
	u64 now = dev_tsc();

	if (pit->next && pit->next <= now)
		rise(pit, now);
}

/* 8 data lines: wider accesses are nobody's. The control word can't be read. */
static int port_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct pit *pit = dev;

	(void)v;
	if (size != 1 || offset == PORT_CONTROL)
		return -ENXIO;
	spin_lock(&pit->lock);
	settle(pit);
	*value = read_count(pit, &pit->counter[offset]);
	spin_unlock(&pit->lock);
	return 0;
}

static int port_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	struct pit *pit = dev;

	(void)v;
	if (size != 1)
		return -ENXIO;
	spin_lock(&pit->lock);
	settle(pit);
	if (offset == PORT_CONTROL)
		write_control(pit, (u8)value);
	else
		write_count(pit, &pit->counter[offset], (u8)value);
	spin_unlock(&pit->lock);
	return 0;
}

static int gate_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	struct pit *pit = dev;

	(void)v, (void)offset, (void)size;
	spin_lock(&pit->lock);
	*value = read_gate(pit);
	spin_unlock(&pit->lock);
	return 0;
}

static int gate_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	struct pit *pit = dev;

	(void)v, (void)offset, (void)size;
	spin_lock(&pit->lock);
	pit->control = value & GATE_WRITABLE;
	set_gate(pit, &pit->counter[SPEAKER], value & GATE_OPEN);
	spin_unlock(&pit->lock);
	return 0;
}

void pit_timer(struct pit *pit)
{
	struct timer *host = &pit->vm->vcpus[0]->device_timer;

	spin_lock(&pit->lock);
	settle(pit);
	if (!pit->next)
		timer_cancel(host);
	else if (!host->armed || host->deadline != pit->next)
		timer_arm(host, pit->next);
	spin_unlock(&pit->lock);
}

static void timer_fired(struct timer *t)
{
	vcpu_request(container_of(t, struct vcpu, device_timer), REQ_TIMER);
}

void pit_reset(struct pit *pit)
{
	spin_lock(&pit->lock);
	for (u32 i = 0; i < PIT_COUNTERS; i++)
		pit->counter[i] =
			(struct pit_counter){ .access = ACCESS_BOTH, .gate = i != SPEAKER };
	pit->control = 0;
	pit->next = 0;
	set_line(pit, false);
	spin_unlock(&pit->lock);
}

/* Counts are divided by, and so is counter 0's period, which is anew what it was. */
void pit_restore(struct pit *pit)
{
	for (u32 i = 0; i < PIT_COUNTERS; i++)
		pit->counter[i].loaded &= pit->counter[i].count > 0;
	if (pit->next)
		schedule(pit);
}

int pit_create(struct pit *pit, struct vm *vm)
{
	const struct io_region counters = { .name = "pit",
					    .base = PORT,
					    .size = PORT_CONTROL + 1,
					    .read = port_read,
					    .write = port_write,
					    .dev = pit },
			       gate = { .name = "pit gate",
					.base = PORT_GATE,
					.size = 1,
					.read = gate_read,
					.write = gate_write,
					.dev = pit };
	int err = io_register(vm, IO_PORT, &counters);

	pit->vm = vm;
	spin_init(&pit->lock, RANK_DEVICE);
	timer_init(&vm->vcpus[0]->device_timer, timer_fired);
	pit->tick_per_tsc = ratio_make(PIT_HZ, (u64)tsc_khz * 1000);
	pit->tsc_per_tick = ratio_make((u64)tsc_khz * 1000, PIT_HZ);
	pit->min_period = MAX(ratio_apply(PIT_MIN_PERIOD_NS, ratio_make(tsc_khz, 1000000)), 1ull);
	pit_reset(pit);
	return err ? err : io_register(vm, IO_PORT, &gate);
}
