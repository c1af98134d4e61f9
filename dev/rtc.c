/* SPDX-License-Identifier: MIT */
#include "dev/rtc.h"

#include <asm-generic/errno-base.h>
#include "dev/clock.h"

#define RTC_PORT 0x70

enum {
	RTC_SECONDS = 0,
	RTC_MINUTES = 2,
	RTC_HOURS = 4,
	RTC_WEEKDAY = 6,
	RTC_DAY = 7,
	RTC_MONTH = 8,
	RTC_YEAR = 9,
	RTC_A = 10, /* 0x26: 32768 Hz, 1024 Hz rate; no update ever in progress */
	RTC_B = 11, /* 0x02: 24 hours, BCD */
	RTC_C = 12,
	RTC_D = 13, /* 0x80: the battery is fine */
	RTC_MEMORY = 14,
	RTC_CENTURY = 0x32,
};

struct date {
	u32 year, month, day; /* month and day from 1 */
};

/*
 * Days since 1970-01-01 to a date of the Gregorian calendar; years begin in March, so that the leap
 * day is the last.
 */
static struct date date_of_days(u64 days)
{
	u64 z = days + 719468; /* days since 0000-03-01 */
	u64 era = z / 146097;  /* of 400 years */
	u32 day_of_era = (u32)(z % 146097);
	u32 year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	u32 day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	u32 from_march = (5 * day_of_year + 2) / 153;
	u32 month = from_march < 10 ? from_march + 3 : from_march - 9;
	return (struct date){ .year = (u32)(era * 400) + year_of_era + (month <= 2),
			      .month = month,
			      .day = day_of_year - (153 * from_march + 2) / 5 + 1 };
}

static u8 bcd(u64 x)
{
	return (u8)(x / 10 % 10 << 4 | x % 10);
}

static u8 read_cell(struct rtc *rtc, u8 index)
{
	u64 seconds = (rtc->wall_base_ns + tsc_to_ns(dev_tsc())) / 1000000000;
	struct date date = date_of_days(seconds / 86400);
	switch (index) {
	case RTC_SECONDS:
		return bcd(seconds % 60);
	case RTC_MINUTES:
		return bcd(seconds / 60 % 60);
	case RTC_HOURS:
		return bcd(seconds / 3600 % 24);
	case RTC_WEEKDAY: /* Sunday is 1; 1970 began on a Thursday */
		return bcd((seconds / 86400 + 4) % 7 + 1);
	case RTC_DAY:
		return bcd(date.day);
	case RTC_MONTH:
		return bcd(date.month);
	case RTC_YEAR:
		return bcd(date.year % 100);
	case RTC_CENTURY:
		return bcd(date.year / 100);
	case RTC_A:
		return 0x26;
	case RTC_B:
		return 0x02;
	case RTC_C:
		return 0;
	case RTC_D:
		return 0x80;
	default:
		return rtc->cells[index];
	}
}

static int port_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v, (void)size;
	struct rtc *rtc = dev;
	if (!offset)
		return -ENXIO; /* the index can't be read back */
	spin_lock(&rtc->lock);
	*value = read_cell(rtc, rtc->index);
	spin_unlock(&rtc->lock);
	return 0;
}

/* A 16-bit write to port 0x70 is index and value. */
static int port_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v;
	struct rtc *rtc = dev;
	spin_lock(&rtc->lock);
	if (!offset) {
		rtc->index = value & (RTC_CELLS - 1); /* bit 7 masks NMIs, which nobody sends */
		value >>= 8;
	}
	if ((offset || size > 1) && rtc->index >= RTC_MEMORY)
		rtc->cells[rtc->index] = (u8)value;
	spin_unlock(&rtc->lock);
	return 0;
}

int rtc_create(struct rtc *rtc, struct vm *vm, u64 wall_base_ns)
{
	const struct io_region region = { .name = "rtc",
					  .base = RTC_PORT,
					  .size = 2,
					  .read = port_read,
					  .write = port_write,
					  .dev = rtc };
	spin_init(&rtc->lock, RANK_DEVICE);
	rtc->wall_base_ns = wall_base_ns;
	return io_register(vm, IO_PORT, &region);
}
