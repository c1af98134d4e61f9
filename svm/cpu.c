/* SPDX-License-Identifier: MIT */
/*
 * SVM on this CPU, on and off (APM vol. 2 "Enabling SVM"). Steps are recorded, and undone in
 * reverse.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "mm/phys.h"
#include "svm/insn.h"
#include "svm/svm.h"

enum { STEP_SVME = 1, STEP_HSAVE = 2, STEP_DEBUGCTL = 4 };
enum { SAVED_HSAVE, SAVED_DEBUGCTL };

static int refuse(struct virt_cpu_state *s, int err, const char *why)
{
	fmt_snprintf(s->why, sizeof(s->why), "%s", why);
	svm_cpu_disable(s);
	return trace_error(err);
}

int svm_cpu_enable(struct virt_cpu_state *s)
{
	u64 vm_cr, efer = rdmsr(MSR_EFER);

	if (!svm_present())
		return refuse(s, -ENODEV, "CPUID shows no SVM");
	if (!rdmsr_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS))
		return refuse(s, -EPERM, "SVM is disabled by the firmware (VM_CR.SVMDIS)");
	if (efer & EFER_SVME)
		return refuse(s, -EBUSY, "EFER.SVME is set already: another hypervisor is active");
	if (wrmsr_safe(MSR_EFER, efer | EFER_SVME))
		return refuse(s, -EIO, "writing EFER.SVME faults");
	if (!(rdmsr(MSR_EFER) & EFER_SVME)) /* STGI on the way back would be #UD */
		return refuse(s, -EIO, "EFER.SVME does not stay set");
	s->steps |= STEP_SVME;
	if (rdmsr_safe(MSR_VM_HSAVE_PA, &s->saved[SAVED_HSAVE]) ||
	    wrmsr_safe(MSR_VM_HSAVE_PA, ptr_hpa(s->region).v))
		return refuse(s, -EIO, "VM_HSAVE_PA can't be written");
	s->steps |= STEP_HSAVE;
	if (rdmsr(MSR_VM_HSAVE_PA) != ptr_hpa(s->region).v)
		return refuse(s, -EIO, "VM_HSAVE_PA does not keep its value");
	/*
	 * Guests run with this CPU's: what the firmware left there (bus-lock traps, branch steps)
	 * would be theirs.
	 */
	if (!rdmsr_safe(MSR_DEBUGCTL, &s->saved[SAVED_DEBUGCTL]) && s->saved[SAVED_DEBUGCTL]) {
		if (wrmsr_safe(MSR_DEBUGCTL, 0))
			return refuse(s, -EIO, "DEBUGCTL can't be written");
		s->steps |= STEP_DEBUGCTL;
	}
	return 0;
}

void svm_cpu_disable(struct virt_cpu_state *s)
{
	if (s->steps & STEP_DEBUGCTL && wrmsr_safe(MSR_DEBUGCTL, s->saved[SAVED_DEBUGCTL]))
		log_err("CPU %u: DEBUGCTL can't be put back", this_cpu(cpu_id));
	if (s->steps & STEP_HSAVE && wrmsr_safe(MSR_VM_HSAVE_PA, s->saved[SAVED_HSAVE]))
		log_err("CPU %u: VM_HSAVE_PA can't be put back", this_cpu(cpu_id));
	if (s->steps & STEP_SVME) {
		svm_stgi(); /* with SVME off, GIF could not be set any more */
		if (wrmsr_safe(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME) ||
		    rdmsr(MSR_EFER) & EFER_SVME) {
			log_err("CPU %u: EFER.SVME can't be cleared, SVM stays on",
				this_cpu(cpu_id));
			return;
		}
	}
	s->steps = 0;
	s->enabled = false;
}
