/* SPDX-License-Identifier: MIT */
/*
 * #VMEXIT codes to neutral kinds (APM vol. 2, appendix C "SVM Intercept Exit Codes"; asm/svm.h has
 * their numbers).
 */
#include <asm/processor-flags.h>
#include <asm/svm.h>
#include "arch/x86/trap.h"
#include "lib/log.h"
#include "svm/svm.h"
#include "virt/vm.h"

#define EXIT_CODE_INVALID  0xffffffffu /* VMEXIT_INVALID; QEMU stores only the low half */
#define EXIT_CODE_NPF	   0x400u
#define EXIT_CODE_BUS_LOCK 0xa5u
#define EXIT_CODE_LAST	   EXIT_CODE_BUS_LOCK
#define ERROR_CODE_VECTORS (BIT(8) | MASK(14, 10) | BIT(17) | BIT(21))

/* 0: EXIT_IRQ is no default; so every code that is not listed maps to EXIT_UNEXPECTED by the +1. */
#define KIND(k) ((k) + 1)
static const u8 kinds[EXIT_CODE_LAST + 1] = {
	[SVM_EXIT_READ_CR0... SVM_EXIT_READ_CR0 + 15] = KIND(EXIT_CR_ACCESS),
	[SVM_EXIT_WRITE_CR0... SVM_EXIT_WRITE_CR0 + 15] = KIND(EXIT_CR_ACCESS),
	[SVM_EXIT_READ_DR0... SVM_EXIT_READ_DR0 + 31] = KIND(EXIT_DR_ACCESS),
	[SVM_EXIT_EXCP_BASE... SVM_EXIT_EXCP_BASE + 31] = KIND(EXIT_EXCEPTION),
	[SVM_EXIT_INTR] = KIND(EXIT_IRQ),
	[SVM_EXIT_NMI... SVM_EXIT_SMI] = KIND(EXIT_NMI), /* taken at STGI */
	[SVM_EXIT_VINTR] = KIND(EXIT_IRQ_WINDOW),
	[SVM_EXIT_CR0_SEL_WRITE] = KIND(EXIT_CR_ACCESS),
	[SVM_EXIT_RDPMC] = KIND(EXIT_RDPMC),
	[SVM_EXIT_RSM] = KIND(EXIT_VIRT_INSN), /* #UD outside SMM */
	[SVM_EXIT_SWINT] = KIND(EXIT_EXCEPTION),
	[SVM_EXIT_IRET] = KIND(EXIT_NMI_WINDOW),
	[SVM_EXIT_INVD] = KIND(EXIT_INVD),
	[SVM_EXIT_PAUSE] = KIND(EXIT_PAUSE),
	[SVM_EXIT_INVLPGA] = KIND(EXIT_VIRT_INSN),
	[SVM_EXIT_TASK_SWITCH] = KIND(EXIT_TASK_SWITCH),
	[SVM_EXIT_SHUTDOWN] = KIND(EXIT_TRIPLE_FAULT),
	[SVM_EXIT_VMRUN] = KIND(EXIT_VIRT_INSN),
	[SVM_EXIT_VMLOAD... SVM_EXIT_SKINIT] = KIND(EXIT_VIRT_INSN),
	[SVM_EXIT_WBINVD] = KIND(EXIT_INVD),
	[SVM_EXIT_MONITOR] = KIND(EXIT_MONITOR),
	[SVM_EXIT_MWAIT... SVM_EXIT_MWAIT_COND] = KIND(EXIT_MWAIT),
	[SVM_EXIT_XSETBV] = KIND(EXIT_XSETBV),
	[SVM_EXIT_RDPRU] = KIND(EXIT_VIRT_INSN), /* not offered: #UD */
	[EXIT_CODE_BUS_LOCK] = KIND(EXIT_BUS_LOCK),
};

static void exit_io(struct vm_exit *x, const struct vmcb *c)
{
	u64 info = c->exit_info1;

	x->kind = EXIT_IO;
	x->io.in = info & IOIO_IN;
	x->io.string = info & IOIO_STRING;
	x->io.rep = info & IOIO_REP;
	x->io.size = info >> IOIO_SIZE_SHIFT & 7;
	x->io.port = (u16)(info >> IOIO_PORT_SHIFT);
	x->insn_len = (u8)(c->exit_info2 - c->rip); /* EXITINFO2: the next RIP */
}

static void exit_npf(struct vm_exit *x, const struct vmcb *c)
{
	u64 info = c->exit_info1;

	x->fault.gpa = GPA(c->exit_info2);
	x->fault.access = info & NPF_FETCH ? ACCESS_X : info & NPF_WRITE ? ACCESS_W : ACCESS_R;
	x->fault.walk = info & NPF_WALK;
	x->fault.mapped = info & NPF_PRESENT;
	x->fault.gva_valid = false;
}

static void exit_exception(struct svm_vcpu *s, struct vm_exit *x, u32 vector)
{
	if (vector == 18) { /* the machine check is the host's */
		machine_check_from_exit();
		x->kind = EXIT_NMI;
		return;
	}
	x->exception.vector = (u8)vector;
	x->exception.has_error = ERROR_CODE_VECTORS >> vector & 1;
	if (vector == 14) /* intercepted while one instruction is let through */
		s->vmcb->cr2 = s->vmcb->exit_info2;
	if ((vector == 3 || vector == 4) && !x->insn_len)
		x->insn_len = 1; /* INT3, INTO */
	x->exception.error = (u32)s->vmcb->exit_info1;
	x->exception.dr6 = 0; /* #DB: the saved DR6 is what the handler shall see */
	x->exception.stepped = false;
}

/*
 * Before anything has changed (APM vol. 2 "Task Switch Intercept"). An event that led to a task
 * gate was put back, unless it is an instruction's: that is not executed again.
 */
static void exit_task_switch(struct svm_vcpu *s)
{
	u64 event = s->vmcb->exit_int_info, info = s->vmcb->exit_info2;
	struct vm_exit *x = &s->v.exit;
	u8 type = event >> EVENT_TYPE_SHIFT & 7;

	x->task.selector = (u16)s->vmcb->exit_info1;
	x->task.source = info & TASK_SWITCH_IRET  ? TASK_IRET
			 : info & TASK_SWITCH_JMP ? TASK_JMP
			 : event & EVENT_VALID	  ? TASK_GATE
						  : TASK_CALL;
	if (x->task.source == TASK_GATE && !s->v.event.valid)
		s->v.event = (struct event){ .valid = true,
					     .type = type,
					     .vector = event & EVENT_VECTOR,
					     .insn_len = type == EVENT_SOFT_INT ? 2 : 1 };
}

/*
 * The guest ends its NMI handler: NMIs open after this IRET, not before it: one that came in
 * between would use the same stack. So it is stepped over, also while none waits.
 */
static void exit_iret(struct svm_vcpu *s)
{
	s->vmcb->intercept1 &= (u32)~INTERCEPT_IRET;
	s->v.want_step |= STEP_NMI;
}

void svm_translate_exit(struct svm_vcpu *s)
{
	const struct vmcb *c = s->vmcb;
	u32 code = (u32)c->exit_code;
	struct vm_exit *x = &s->v.exit;
	u8 kind = code <= EXIT_CODE_LAST ? kinds[code] : 0;

	x->done = false;
	if (code == SVM_EXIT_IOIO) /* the hot one, of those that come here */
		return exit_io(x, c);
	x->kind = kind ? kind - 1 : EXIT_UNEXPECTED;
	x->raw = code;
	x->insn_len = svm_told_length(c);
	switch (code) {
	case EXIT_CODE_NPF:
		x->kind = EXIT_STAGE2_FAULT;
		exit_npf(x, c);
		break;
	case EXIT_CODE_INVALID:
		x->kind = EXIT_ENTRY_FAILED;
		x->qualification = c->exit_info1;
		break;
	case SVM_EXIT_SWINT:
		svm_soft_interrupt(s);
		break;
	case SVM_EXIT_IRET:
		exit_iret(s);
		break;
	case SVM_EXIT_TASK_SWITCH:
		exit_task_switch(s);
		break;
	default:
		if (x->kind == EXIT_EXCEPTION)
			exit_exception(s, x, code - SVM_EXIT_EXCP_BASE);
		else if (x->kind == EXIT_CR_ACCESS)
			x->cr.op = CR_UNDECODED;
		else if (x->kind == EXIT_UNEXPECTED)
			x->qualification = c->exit_info1;
	}
}

void svm_dump(struct vcpu *v)
{
	const struct vmcb *c = svm_of(v)->vmcb;

	log_err("SVM: exit code %#lx info1 %#lx info2 %#lx intinfo %#lx", c->exit_code,
		c->exit_info1, c->exit_info2, c->exit_int_info);
	log_err("  event %#lx asid %u int_ctl %#lx int_state %#lx cpl %u", c->event_inj, c->asid,
		c->int_ctl, c->int_state, c->cpl);
	if ((u32)c->exit_code == EXIT_CODE_INVALID && !c->asid)
		log_err("  invalid: ASID 0");
}

/* clang-format off */
#define VMCB_SEGMENT(X, s) X(s.selector) X(s.attr) X(s.limit) X(s.base)
#define VMCB_FIELDS(X)                                                                   \
	X(intercept_cr) X(intercept_dr) X(intercept_exceptions) X(intercept1)            \
	X(intercept2) X(pause_threshold) X(pause_count) X(iopm) X(msrpm) X(tsc_offset)   \
	X(asid) X(tlb_control) X(int_ctl) X(int_state) X(exit_code) X(exit_info1)        \
	X(exit_info2) X(exit_int_info) X(np_control) X(event_inj) X(nested_cr3)          \
	X(virt_ext) X(clean) X(next_rip) X(cpl) X(efer) X(cr4) X(cr3) X(cr0) X(dr7)      \
	X(dr6) X(rflags) X(rip) X(rsp) X(rax) X(star) X(lstar) X(cstar) X(sfmask)        \
	X(kernel_gs_base) X(sysenter_cs) X(sysenter_esp) X(sysenter_eip) X(cr2)          \
	X(g_pat) X(dbgctl) VMCB_SEGMENT(X, es) VMCB_SEGMENT(X, cs) VMCB_SEGMENT(X, ss)   \
	VMCB_SEGMENT(X, ds) VMCB_SEGMENT(X, fs) VMCB_SEGMENT(X, gs)                      \
	VMCB_SEGMENT(X, gdtr) VMCB_SEGMENT(X, ldtr) VMCB_SEGMENT(X, idtr)                \
	VMCB_SEGMENT(X, tr)
/* clang-format on */

/* ops->fields */
void svm_list_fields(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value), void *arg)
{
	const struct vmcb *c = svm_of(v)->vmcb;

#define X(field) f(arg, #field, c->field);
	VMCB_FIELDS(X)
#undef X
}
