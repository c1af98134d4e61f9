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
	__atomic_fetch_or(&s->v.requests, REQ_EVENT, __ATOMIC_RELAXED);
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

/*
 * The exits that are hot, all by instructions: their neutral kind, and the instruction as it stands
 * without prefix (its first bytes, low byte first).
 */
struct hot_exit {
	struct insn_pattern insn;
	u8 kind;
	u8 reserved[3]; /* 16 bytes: an index is one shift */
};
#define HOT_FIRST SVM_EXIT_CPUID
static const struct hot_exit hot_exits[] = {
	[SVM_EXIT_CPUID - HOT_FIRST] = { { 0xa20f, 0xffff, 2 }, EXIT_CPUID, { 0 } },
	[SVM_EXIT_HLT - HOT_FIRST] = { { 0xf4, 0xff, 1 }, EXIT_HLT, { 0 } },
	[SVM_EXIT_MSR - HOT_FIRST] = { { 0x320f, 0xffff, 2 }, EXIT_MSR_READ, { 0 } },
	[SVM_EXIT_VMMCALL - HOT_FIRST] = { { 0xd9010f, 0xffffff, 3 }, EXIT_HYPERCALL, { 0 } },
};
static const struct hot_exit msr_write = { { 0x300f, 0xffff, 2 }, EXIT_MSR_WRITE, { 0 } };

/*
 * For CPUs that don't tell the length; 0 stays where virt/ shall decode the instruction. Guests
 * have no LA57: 64-bit code has page tables of 4 levels.
 */
static inline void fetch_length(struct svm_vcpu *s, const struct vmcb *c,
				const struct hot_exit *hot)
{
	if (c->cs.attr & CS_ATTR_L && s->efer & EFER_LMA)
		guest_confirm_insn(&s->v, c->cr3, &hot->insn);
}

/* Fill v->exit from the VMCB. */
static inline void translate(struct svm_vcpu *s, const struct vmcb *c)
{
	u32 code = (u32)c->exit_code;
	const struct hot_exit *hot;

	if (code - HOT_FIRST >= ARRAY_SIZE(hot_exits) || !hot_exits[code - HOT_FIRST].insn.len)
		return svm_translate_exit(s);
	hot = &hot_exits[code - HOT_FIRST];
	if (code == SVM_EXIT_MSR && c->exit_info1 & 1)
		hot = &msr_write;
	s->v.exit.kind = hot->kind;
	s->v.exit.insn_len = svm_told_length(c);
	if (!s->v.exit.insn_len)
		fetch_length(s, c, hot);
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
	if (s->v.clear_shadow) {
		c->int_state = 0;
		s->v.clear_shadow = false;
	}
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
