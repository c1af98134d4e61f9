/* SPDX-License-Identifier: MIT */
#include "virt/corruption.h"
#include "lib/assert.h"
#include "lib/log.h"
#include "mm/audit.h"
#include "mm/frames.h"

enum on_corruption on_corruption;

void vm_corrupted(struct stage2 *s, const char *cond, const char *file, int line)
{
	struct vm *vm = container_of(s, struct vm, stage2);

	if (on_corruption == CORRUPTION_PANIC)
		panic("vm %s: %s:%d: data corruption: %s", vm->name, file, line, cond);
	vm_bugged(vm, cond, file, line);
	if (vm->state != VM_RUNNING)
		vm_quarantine(vm); /* otherwise when it has come to rest */
}

void vm_quarantine(const struct vm *vm)
{
	u64 count;

	if (!vm_is_corrupt(vm))
		return;
	count = frames_quarantine(vm->id);
	if (vm->stage2.owner != vm->id)
		count += frames_quarantine(vm->stage2.owner);
	if (count)
		log_warn("vm %s: %lu frames are in quarantine until the machine restarts", vm->name,
			 count);
}

static void log_finding(void *arg, const struct audit_finding *f)
{
	const struct vm *vm = arg;

	log_err("vm %s: audit: %s at level %u, gfn %#lx, pfn %#lx: %#lx, expected %#lx", vm->name,
		audit_kind_name(f->kind), f->level, f->gfn.v, f->pfn.v, f->seen, f->expected);
}

static u64 proofs, disproofs;

void vm_prove(struct vm *vm)
{
	struct audit a = { .only = &vm->stage2, .report = log_finding, .arg = vm };

	if (!PROVE_MMU || vm_is_corrupt(vm))
		return;
	audit_run(&a);
	proofs++;
	disproofs += a.findings != 0;
}

void vm_prove_report(void)
{
	if (PROVE_MMU)
		log_info("audits of VMs at rest: %lu, with findings: %lu", proofs, disproofs);
}

void vm_free_tables(struct vm *vm)
{
	if (!vm_is_corrupt(vm))
		stage2_destroy(&vm->stage2);
	if (!vm_is_corrupt(vm))
		table_pool_destroy(&vm->stage2);
	stage2_forget(&vm->stage2);
	vm_quarantine(vm);
}
