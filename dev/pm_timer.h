/* SPDX-License-Identifier: MIT */
/*
 * ACPI "Power Management Timer": a counter of 32 bits at 3.579545 MHz, without its interrupt. A
 * clock for kernels that don't know kvmclock. Only for VMs that ask for it: Linux, which has better
 * clocks here, would compare them with this one twice a second, and two reads of it with an exit
 * each may take longer than it believes a clock can: it then warns, and gives the TSC up.
 */
#pragma once

struct vm;

#define PM_TIMER_PORT 0x608
#define PM_TIMER_HZ   3579545

/* 0, or io_register's error. */
int pm_timer_create(struct vm *vm);
