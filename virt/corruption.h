/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a VM when a structure of the hypervisor that describes it is damaged
 * (DATA_CORRUPTION_ON in mm/corruption.h), as `on_corruption` of the configuration says: it dies
 * and its memory goes into quarantine, or the machine stops with a full report.
 */
#pragma once

#include "virt/vm.h"

enum on_corruption { CORRUPTION_KILL, CORRUPTION_PANIC };
extern enum on_corruption on_corruption;

/* For struct stage2_env of a VM. */
void vm_corrupted(struct stage2 *s, const char *cond, const char *file, int line);

/* Are structures that describe the VM damaged? Then nothing of it is walked, and nothing freed. */
static inline bool vm_is_corrupt(const struct vm *vm)
{
	return READ_ONCE(vm->stage2.corruptions);
}

/*
 * The VM's memory and tables are given to nobody any more, if it is corrupt; nothing happens
 * otherwise. No vCPU of it runs.
 */
void vm_quarantine(const struct vm *vm);

/* In PROVE_MMU builds: an audit of the VM, which is at rest; findings go to the log. */
void vm_prove(struct vm *vm);
/* At power-off, in PROVE_MMU builds: how many audits there were goes to the log. */
void vm_prove_report(void);

/* Its tables are freed, or withheld with its memory if it is corrupt. Not running, never again. */
void vm_free_tables(struct vm *vm);
