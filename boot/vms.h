/* SPDX-License-Identifier: MIT */
/*
 * The VMs of the configuration: made, loaded, and what happens when they end. Boot CPU's tasks
 * only.
 */
#pragma once

#include "boot/bootinfo.h"
#include "boot/config.h"
#include "virt/vm.h"

/*
 * Make every VM of the configuration that is sound, and start those with autostart. Errors go to
 * the log, with file and line.
 */
void vms_create(const struct bootinfo *info, const struct config *config,
		const struct config_sink *sink);
/* VMs that ended badly, or could not be made or started, so far. */
u32 vms_failed(void);
/* A VM of the configuration that stopped: says so, and does what on_exit says. */
void vms_ended(struct vm *vm);
int vms_reset(struct vm *vm);
/* It has stopped, and vms_ended() is still to come. */
bool vms_has_ended(const struct vm *vm);

/* Boot, once; `cpu` is where the tasks of VMs run. */
void vms_init(u32 cpu);
/*
 * Make a VM of the configuration that is not there; it is not started. NULL, or one line that says
 * why not.
 */
const char *vms_make(const char *name);
/*
 * A second VM that is as this one is now, and runs on from there: all memory is shared until one of
 * them writes. Done by a task, which says so in the log. Name, console, MAC and disk are its own.
 * NULL, or one line that says why not.
 */
const char *vms_clone(struct vm *vm, const char *name);
/*
 * The same, but it stays as it is: a VM called NAME-snapshot that is never run. Restoring ends and
 * destroys the VM, and makes it again as a clone of its snapshot, which stays.
 */
const char *vms_snapshot(struct vm *vm);
const char *vms_restore(struct vm *vm);
/*
 * Give back all that a VM has, by a task, in slices. Its name is free at once; the log has a line
 * when all is done, and until then no VM is made or destroyed. NULL, or one line that says why not.
 */
const char *vms_destroy(struct vm *vm);
/* A VM is about to run: being cloned, or restored. */
bool vms_cloning(void);
/* Does any VM run? */
bool vms_any_running(void);
/* on_exit = poweroff was reached. */
bool vms_want_poweroff(void);
