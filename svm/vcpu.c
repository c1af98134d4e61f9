/* SPDX-License-Identifier: MIT */
#include <asm/processor-flags.h>
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "svm/insn.h"
#include "svm/svm.h"
#include "virt/enable.h"
#include "virt/vm.h"

/*
 * APM vol. 2 "Pause Intercept Filtering": so many PAUSEs in a row, each within so many cycles of
 * the one before, are a loop that exits. (Without a threshold: so many since the entry.)
 */
#define PAUSE_COUNT	3000
#define PAUSE_THRESHOLD 128

/*
 * What every vCPU is stopped for. CR8 both ways (its TPR lives in the LAPIC), CR0 writes that
 * matter, CR4 writes.
 */
static void init_control(struct svm_vcpu *s)
{
	struct vmcb *c = s->vmcb;

	c->intercept_cr =
		(u32)(INTERCEPT_CR_READ(8) | INTERCEPT_CR_WRITE(8) | INTERCEPT_CR_WRITE(4));
	c->intercept_exceptions = SVM_EXCEPTIONS;
	c->intercept1 = (u32)(INTERCEPT_INTR | INTERCEPT_NMI | INTERCEPT_SMI | INTERCEPT_INIT |
			      INTERCEPT_CR0_SEL_WRITE | INTERCEPT_RDPMC | INTERCEPT_CPUID |
			      INTERCEPT_RSM | INTERCEPT_INVD | INTERCEPT_HLT | INTERCEPT_INVLPGA |
			      INTERCEPT_IOIO | INTERCEPT_MSR | INTERCEPT_TASK_SWITCH |
			      INTERCEPT_FERR_FREEZE | INTERCEPT_SHUTDOWN);
	c->intercept2 =
		(u32)(INTERCEPT2_VMRUN | INTERCEPT2_VMMCALL | INTERCEPT2_VMLOAD |
		      INTERCEPT2_VMSAVE | INTERCEPT2_STGI | INTERCEPT2_CLGI | INTERCEPT2_SKINIT |
		      INTERCEPT2_WBINVD | INTERCEPT2_MONITOR | INTERCEPT2_MWAIT |
		      INTERCEPT2_MWAIT_ARMED | INTERCEPT2_XSETBV | INTERCEPT2_RDPRU);
	c->intercept3 = s->v.split.bus_exits ? INTERCEPT3_BUS_LOCK : 0;
	c->pause_count = PAUSE_COUNT;
	c->pause_threshold = PAUSE_THRESHOLD;
	c->iopm = svm_setup_.iopm.v;
	c->msrpm = svm_setup_.msrpm.v;
	c->int_ctl = V_INTR_MASKING;
	c->np_control = NP_ENABLE;
	c->nested_cr3 = s->v.vm->stage2.root.v;
}

int svm_vcpu_create(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);

	s->vmcb = frame_alloc_zero(FRAME_HW, v->vm->id);
	if (!s->vmcb)
		return trace_error(-ENOMEM);
	s->vmcb_hpa = ptr_hpa(s->vmcb);
	s->asid_cpu = CPU_NONE;
	return 0;
}

void svm_vcpu_destroy(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);

	if (s->vmcb)
		frame_free(hpa_pfn(s->vmcb_hpa), FRAME_HW, v->vm->id);
	s->vmcb = NULL;
}

static void reset_segments(struct vmcb *c)
{
	struct vmcb_seg data = { .attr = 0x93, .limit = 0xffff };

	c->es = c->ss = c->ds = c->fs = c->gs = data;
	c->cs = (struct vmcb_seg){
		.selector = 0xf000, .attr = 0x9b, .limit = 0xffff, .base = 0xffff0000
	};
	c->gdtr = c->idtr = (struct vmcb_seg){ .limit = 0xffff };
	c->ldtr = (struct vmcb_seg){ .attr = 0x82, .limit = 0xffff };
	c->tr = (struct vmcb_seg){ .attr = 0x8b, .limit = 0xffff };
}

/* APM vol. 2 "Processor Initialization State". */
void svm_vcpu_reset(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);
	struct vmcb *c = s->vmcb;

	/* the clean bits stay 0: the CPU shall believe no field unchanged */
	memset(c, 0, sizeof(*c));
	init_control(s);
	reset_segments(c);
	s->v.todo = 0;
	svm_flush(v); /* an ASID: it may be loaded */
	s->nmi_blocked = false;
	v->want_step &= (u8)~STEP_NMI;
	c->dr6 = 0xffff0ff0;
	c->dr7 = 0x400;
	c->g_pat = PAT_RESET;
	v->rip = 0xfff0;
	v->rflags = X86_EFLAGS_FIXED;
	svm_set_reg(v, VR_EFER, 0);
	svm_set_reg(v, VR_CR0, X86_CR0_CD | X86_CR0_NW | X86_CR0_ET);
}

void svm_vcpu_load(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);
	u8 *region = virt_cpu(this_cpu(cpu_id))->state.region;

	/* The second frame of the CPU's region keeps what VMSAVE saves of the host. */
	s->host_vmcb = ptr_hpa(region + PAGE_SIZE);
	svm_vmsave(s->host_vmcb);
	if (svm_setup_.rdtscp)
		wrmsr(MSR_TSC_AUX, s->tsc_aux);
	svm_asid_check(s);
}

void svm_vcpu_put(struct vcpu *v)
{
	if (svm_setup_.rdtscp)
		svm_of(v)->tsc_aux = rdmsr(MSR_TSC_AUX);
}

/* ops->pause_exits */
void svm_pause_exits(struct vcpu *v, bool on)
{
	struct vmcb *c = svm_of(v)->vmcb;

	c->intercept1 &= (u32)~INTERCEPT_PAUSE;
	if (on && svm_setup_.pause_filter)
		c->intercept1 |= (u32)INTERCEPT_PAUSE;
}

/*
 * ops->bus_locks (APM vol. 2 "Bus Lock Threshold"): the CPU counts down before each bus lock, and
 * exits instead of it where it can't.
 */
bool svm_bus_locks(struct vcpu *v, enum bus_locks what)
{
	struct vmcb *c;

	if (!v || !svm_setup_.bus_lock)
		return svm_setup_.bus_lock;
	c = svm_of(v)->vmcb;
	c->intercept3 = what == BUS_LOCKS_FREE ? 0 : INTERCEPT3_BUS_LOCK;
	c->bus_lock_count = what == BUS_LOCKS_ONE;
	return true;
}
