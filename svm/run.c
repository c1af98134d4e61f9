/* SPDX-License-Identifier: MIT */
/*
 * One entry and what comes back: ops->run. This is the hot path; what most entries don't need hides
 * behind one test.
 */
#include <asm/processor-flags.h>
#include <asm/svm.h>
#include "arch/x86/cpu.h"
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "svm/insn.h"
#include "svm/svm.h"
#include "virt/exit_cost.h"
#include "virt/guestmem.h"
#include "virt/vm.h"

#define CS_ATTR_L BIT(9) /* as the VMCB packs it */

static bool is_soft(u8 type, u8 vector)
{
	return type == EVENT_SOFT_INT || (type == EVENT_EXCEPTION && (vector == 3 || vector == 4));
}

static void put_event(struct svm_vcpu *s)
{
	const struct event *e = &s->v.event;
	u64 inj = e->vector | (u64)e->type << EVENT_TYPE_SHIFT | EVENT_VALID;

	/* What INT n, INT3 and INTO push is where the instruction ends. */
	if (e->insn_len && is_soft(e->type, e->vector)) {
		s->vmcb->next_rip = s->v.rip + e->insn_len;
		if (!svm_setup_.nrips) {
			s->v.todo |= ARMED_SOFT;
			s->soft_len = e->insn_len;
			s->v.rip += e->insn_len;
		}
	}
	if (e->has_error)
		inj |= EVENT_HAS_ERROR | (u64)e->error << EVENT_ERROR_SHIFT;
	if (e->type == EVENT_NMI) {
		s->nmi_blocked = true;
		s->v.want_step &= (u8)~STEP_NMI;
		s->vmcb->intercept1 |= (u32)INTERCEPT_IRET;
	}
	s->vmcb->event_inj = inj; /* #VMEXIT clears it (APM vol. 2 "#VMEXIT") */
	vcpu_trace(&s->v, TRACE_INJECT, (u32)e->type << 8 | e->vector, e->error, s->v.rip);
	s->v.event = (struct event){ 0 };
}

/*
 * A delivery that was interrupted is started again by us, except for INT n, INT3 and INTO: RIP
 * still stands there, so the guest executes them again. QEMU reports external interrupts as
 * exceptions with their vector.
 */
static void take_back_event(struct svm_vcpu *s)
{
	u64 info = s->vmcb->exit_int_info;
	u8 vector = info & EVENT_VECTOR, type = info >> EVENT_TYPE_SHIFT & 7;

	if (type == EVENT_EXCEPTION && vector >= 32)
		type = EVENT_EXT_INT;
	if (is_soft(type, vector))
		return;
	s->v.event = (struct event){ .valid = true, .type = type, .vector = vector };
	if (info & EVENT_HAS_ERROR) {
		s->v.event.has_error = true;
		s->v.event.error = (u32)(info >> EVENT_ERROR_SHIFT);
	}
	if (type == EVENT_NMI)
		s->nmi_blocked = false; /* put_event() blocks again */
}

/*
 * There is no interrupt-window exit: a virtual interrupt that is intercepted before it is delivered
 * serves as one.
 */
static void set_irq_window(struct svm_vcpu *s, bool want)
{
	struct vmcb *c = s->vmcb;

	if (want) {
		s->v.todo |= ARMED_IRQ_WINDOW;
		c->int_ctl |= V_IRQ | V_IGN_TPR | V_INTR_PRIO(0xf);
		c->intercept1 |= (u32)INTERCEPT_VINTR;
	} else {
		s->v.todo &= (u8)~ARMED_IRQ_WINDOW;
		c->int_ctl &= ~(V_IRQ | V_IGN_TPR | V_INTR_PRIO(0xf));
		c->intercept1 &= (u32)~INTERCEPT_VINTR;
	}
}

/*
 * There is no NMI-window exit either. While NMIs are blocked, the intercept of IRET is one. What
 * else an NMI waits for is over after the next step of the guest: the delivery of an event, which a
 * pending interrupt of the host ends; or a shadow, which ends an interrupt window. With IF clear it
 * is that of MOV SS: one single step. Returns whether an interrupt window is wanted.
 */
static bool wait_for_nmi(struct svm_vcpu *s, bool event)
{
	/* whatever exit comes: look again */
	vcpu_request_own(&s->v, REQ_EVENT);
	if (event)
		ipi_kick(this_cpu(cpu_id));
	else if (s->v.rflags & X86_EFLAGS_IF)
		return true;
	else
		s->v.want_step |= STEP_NMI;
	return false;
}

/*
 * What comes before and after most entries needs no function call but the entry itself, so that the
 * compiler has no register to save: rare work returns what it was given, or comes last.
 */
static NOINLINE struct svm_vcpu *rare_work(struct svm_vcpu *s)
{
	bool event = s->v.event.valid, irq_window = s->v.want_irq_window;

	if (s->v.want_nmi_window && !s->nmi_blocked)
		irq_window |= wait_for_nmi(s, event);
	if (s->v.want_step) {
		svm_step_begin(s);
		s->v.todo |= ARMED_WANTED;
	}
	if (event)
		put_event(s);
	if (irq_window || s->v.todo & ARMED_IRQ_WINDOW)
		set_irq_window(s, irq_window);
	if (s->v.todo & ARMED_DR && s->step.how != STEP_TARGET)
		write_dr7(s->vmcb->dr7);
	return s;
}

/* Instructions whose exits are hot, as they stand without prefix: first bytes, low byte first. */
static const struct insn_pattern cpuid_insn = { 0xa20f, 0xffff, 2 };
static const struct insn_pattern hlt_insn = { 0xf4, 0xff, 1 };
static const struct insn_pattern rdmsr_insn = { 0x320f, 0xffff, 2 };
static const struct insn_pattern wrmsr_insn = { 0x300f, 0xffff, 2 };
static const struct insn_pattern vmmcall_insn = { 0xd9010f, 0xffffff, 3 };

/*
 * CPUs that don't tell the length: 0 stays where virt/ shall decode the instruction. Guests have no
 * LA57: 64-bit code has page tables of 4 levels.
 */
static inline void hot_exit(struct svm_vcpu *s, const struct vmcb *c, enum exit_kind kind,
			    const struct insn_pattern *insn)
{
	s->v.exit.kind = (u8)kind;
	s->v.exit.done = false;
	s->v.exit.insn_len = 0;
	if (likely(!svm_setup_.nrips)) {
		if (likely(c->cs.attr & CS_ATTR_L && s->efer & EFER_LMA))
			guest_confirm_insn(&s->v, c->cr3, insn);
		return;
	}
	s->v.exit.insn_len = svm_told_length(c);
}

/* Fill v->exit from the VMCB. The hottest first. */
static inline void translate(struct svm_vcpu *s, const struct vmcb *c)
{
	u32 code = (u32)c->exit_code;

	if (code == SVM_EXIT_MSR && c->exit_info1 & 1)
		hot_exit(s, c, EXIT_MSR_WRITE, &wrmsr_insn);
	else if (code == SVM_EXIT_CPUID)
		hot_exit(s, c, EXIT_CPUID, &cpuid_insn);
	else if (code == SVM_EXIT_HLT)
		hot_exit(s, c, EXIT_HLT, &hlt_insn);
	else if (code == SVM_EXIT_MSR)
		hot_exit(s, c, EXIT_MSR_READ, &rdmsr_insn);
	else if (code == SVM_EXIT_VMMCALL)
		hot_exit(s, c, EXIT_HYPERCALL, &vmmcall_insn);
	else
		svm_translate_exit(s);
}

static NOINLINE void after_rare_exit(struct svm_vcpu *s)
{
	bool back = s->vmcb->exit_int_info & EVENT_VALID;

	s->v.todo &= (u8)~ARMED_WANTED;
	if (s->v.todo & ARMED_FLUSH)
		svm_flushed(s);
	if (s->v.todo & ARMED_SOFT && back)
		s->v.rip = s->vmcb->rip -= s->soft_len;
	s->v.todo &= (u8)~ARMED_SOFT;
	if (s->v.todo & ARMED_DR)
		write_dr7(DR7_RESET);
	if (back)
		take_back_event(s);
	translate(s, s->vmcb);
	if (s->step.how != STEP_NONE)
		svm_step_end(s);
}

void svm_run(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);
	struct vmcb *c;

	if (unlikely(s->v.rare))
		s = rare_work(s);
	c = s->vmcb;
	c->rax = s->v.gpr[RAX];
	c->rip = s->v.rip;
	c->rflags = s->v.rflags;
	if (s->v.exit.done)
		c->int_state = 0;
	exit_cost_entry(&s->v);
	s = svm_of(svm_enter(&s->v, s->vmcb_hpa, s->host_vmcb));
	exit_cost_exit(&s->v);
	c = s->vmcb;
	s->v.gpr[RAX] = c->rax;
	s->v.rip = c->rip;
	s->v.rflags = c->rflags;
	if (unlikely(s->v.todo & ARMED_AFTER || c->exit_int_info & EVENT_VALID))
		return after_rare_exit(s);
	translate(s, c);
}
