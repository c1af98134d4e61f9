/* SPDX-License-Identifier: MIT */
/*
 * ASIDs (APM vol. 2 "TLB Control"). They are per CPU, with a generation: when a CPU runs out of
 * numbers it flushes its TLB and starts a new generation, and each vCPU draws a new number at its
 * next load there. A new number has no translations: that is also how a vCPU's are forgotten.
 */
#include "arch/x86/cpu.h"
#include "svm/svm.h"

struct asids {
	u64 generation;
	u32 next;
	/*
	 * A new generation began, but this CPU has not entered a guest with a flush since. Who
	 * asked for it may never run here (a VM that is being loaded, a reset that clears its
	 * VMCB), so the debt is the CPU's, and whoever is entered first pays it.
	 */
	bool flush_owed;
};
DEFINE_PERCPU(struct asids, svm_asids);

static void flush_at_entry(struct svm_vcpu *s)
{
	s->vmcb->tlb_control = TLB_FLUSH_ALL;
	s->v.todo |= ARMED_FLUSH;
}

static void draw(struct svm_vcpu *s)
{
	struct asids *a = this_cpu_ptr(struct asids, svm_asids);

	if (!a->next || a->next >= svm_setup_.asids) {
		a->generation++;
		a->next = 1; /* 0 is the host */
		a->flush_owed = true;
	}
	if (a->flush_owed)
		flush_at_entry(s);
	s->vmcb->asid = a->next++;
	s->asid_generation = a->generation;
	s->asid_cpu = this_cpu(cpu_id);
}

void svm_asid_check(struct svm_vcpu *s)
{
	const struct asids *a = this_cpu_ptr(struct asids, svm_asids);

	if (s->asid_cpu != this_cpu(cpu_id) || s->asid_generation != a->generation)
		draw(s);
	else if (a->flush_owed)
		flush_at_entry(s);
}

void svm_flushed(struct svm_vcpu *s)
{
	if ((u32)s->vmcb->exit_code == ~0u) /* VMEXIT_INVALID: the guest was not entered */
		return;
	s->vmcb->tlb_control = 0;
	s->v.todo &= (u8)~ARMED_FLUSH;
	this_cpu_ptr(struct asids, svm_asids)->flush_owed = false;
}

void svm_flush(struct vcpu *v)
{
	draw(svm_of(v));
}
