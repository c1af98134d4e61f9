/* SPDX-License-Identifier: MIT */
/*
 * Power-off and reset: the ACPI sleep registers of a hardware-reduced platform (ACPI "Sleep Control
 * and Status Registers"), the reset control port 0xcf9, and the keyboard controller's reset line.
 * No state.
 */
#pragma once

#include "virt/vm.h"

#define POWER_SLEEP_CONTROL 0x600
#define POWER_SLEEP_STATUS  0x601
#define POWER_RESET	    0xcf9 /* the FADT's reset register */
#define POWER_RESET_VALUE   0x06
#define POWER_S5_TYPE	    5 /* \_S5 of the DSDT */

/* Registers the ports. 0, or io_register's error. */
int power_create(struct vm *vm);
