/* SPDX-License-Identifier: MIT */
/*
 * Power-off and reset: the ACPI sleep registers of a hardware-reduced platform (ACPI "Sleep Control
 * and Status Registers"), the reset control port 0xcf9, and the keyboard controller's reset line.
 *
 * The power and the sleep button: such a platform has no fixed ones, so the DSDT has control-method
 * buttons and a generic event device, whose interrupt is POWER_BUTTONS_GSI (level-triggered). It
 * stays until the register with a bit for each button pressed was read, which clears it.
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define POWER_SLEEP_CONTROL 0x600
#define POWER_SLEEP_STATUS  0x601
#define POWER_BUTTONS	    0x602
#define POWER_BUTTONS_GSI   9
#define POWER_RESET	    0xcf9 /* the FADT's reset register */
#define POWER_RESET_VALUE   0x06
#define POWER_S5_TYPE	    5 /* \_S5 of the DSDT */

enum power_button { POWER_BUTTON = 1, SLEEP_BUTTON = 2 };

struct power {
	struct vm *vm;
	struct spinlock lock;
	u8 pressed; /* enum power_button, those not yet read */
};

/* Nothing is pressed; registers the ports. 0, or io_register's error. */
int power_create(struct power *p, struct vm *vm);
/* The VM is not running. */
void power_reset(struct power *p);
/* What the guest does about it is its affair. Any CPU. */
void power_press(struct power *p, enum power_button button);
