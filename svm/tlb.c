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
};
DEFINE_PERCPU(struct asids, svm_asids);

static void draw(struct svm_vcpu *s)
{
	struct asids *a = this_cpu_ptr(struct asids, svm_asids);

	if (!a->next || a->next >= svm_setup_.asids) {
		a->generation++;
		a->next = 1; /* 0 is the host */
		s->vmcb->tlb_control = TLB_FLUSH_ALL;
	}
	s->vmcb->asid = a->next++;
	s->asid_generation = a->generation;
	s->asid_cpu = this_cpu(cpu_id);
}

void svm_asid_check(struct svm_vcpu *s)
{
	if (s->asid_cpu != this_cpu(cpu_id) ||
	    s->asid_generation != this_cpu_ptr(struct asids, svm_asids)->generation)
		draw(s);
}

void svm_flush(struct vcpu *v)
{
	draw(svm_of(v));
}
