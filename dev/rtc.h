/* SPDX-License-Identifier: MIT */
/*
 * The CMOS clock of a PC (Motorola MC146818) at ports 0x70/0x71: the date in BCD, 24 hours, and 114
 * bytes of memory. The date can't be set, and there are no alarms: no interrupt.
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define RTC_CELLS 128

struct rtc {
	struct spinlock lock;
	u8 index;
	u8 cells[RTC_CELLS];
	u64 wall_base_ns; /* UTC, ns since 1970, at host TSC 0 */
};

/* 0, or io_register's error. */
int rtc_create(struct rtc *rtc, struct vm *vm, u64 wall_base_ns);
