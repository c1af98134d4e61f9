/* SPDX-License-Identifier: MIT */
/*
 * One instruction of the guest, then an exit: v->want_step. SVM has no monitor trap flag; TF
 * serves, as long as the guest does not see it:
 *
 * - an exception of the instruction pushes RFLAGS: all are intercepted, and injected afterwards;
 * - so does an event that is injected: then TF stays clear, and an interrupt to ourselves, which is
 *   taken right after the delivery (GIF is 0 until then), ends the run;
 * - DR6.BS is put back;
 * - what TF is after an IRET is what that popped.
 *
 * PUSHF and the like would show it: only a guest that changes the instruction while it runs gets
 * there, and only by its own doing. INT3 and INTO can't be injected again with their length on all
 * CPUs: not intercepted, for the same reason.
 */
#include <asm/processor-flags.h>
#include <asm/svm.h>
#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "svm/svm.h"
#include "virt/guestmem.h"
#include "virt/vm.h"

#define STEP_EXCEPTIONS ((u32) ~(BIT(2) | BIT(3) | BIT(4) | BIT(9)))
#define DR6_BREAKPOINTS 0xfu
#define DR6_BS		BIT(14)
#define OPCODE_IRET	0xcf

/* With an operand-size or REX prefix, or none; who decorates it more loses its TF for once. */
static bool at_iret(struct vcpu *v)
{
	struct walk_fault fault;
	u8 bytes[15];
	int n = guest_fetch(v, bytes, &fault);

	return n > 0 &&
	       (bytes[0] == OPCODE_IRET || (n > 1 && bytes[1] == OPCODE_IRET &&
					    (bytes[0] == 0x66 || (bytes[0] & 0xf0) == 0x40)));
}

void svm_step_begin(struct svm_vcpu *s)
{
	struct vmcb *c = s->vmcb;

	if (s->v.event.valid) {
		s->step = STEP_EVENT;
		ipi_kick(this_cpu(cpu_id));
		return;
	}
	s->step = STEP_TF;
	s->step_traps = s->v.rflags & X86_EFLAGS_TF;
	s->step_iret = at_iret(&s->v);
	s->step_dr6 = c->dr6;
	s->v.rflags |= X86_EFLAGS_TF;
	c->intercept_exceptions = STEP_EXCEPTIONS;
}

/* A single step, and nothing else that the guest has asked for. */
static bool only_ours(const struct svm_vcpu *s)
{
	return !s->step_traps && !(s->vmcb->dr6 & DR6_BREAKPOINTS & ~s->step_dr6);
}

/* An IRET is done, whose TF is the guest's. One that was to be stepped over opens NMIs. */
static void end_nmi(struct svm_vcpu *s)
{
	if (!(s->armed & ARMED_IRET_STEP))
		return;
	s->armed &= (u8)~ARMED_IRET_STEP;
	s->nmi_blocked = false;
	__atomic_fetch_or(&s->v.requests, REQ_EVENT, __ATOMIC_RELAXED);
}

void svm_step_end(struct svm_vcpu *s)
{
	struct vmcb *c = s->vmcb;
	struct vm_exit *x = &s->v.exit;
	u8 step = s->step;
	bool trapped = (u32)c->exit_code == SVM_EXIT_EXCP_BASE + 1;

	s->step = STEP_NONE;
	if (step == STEP_EVENT) {
		/* The interrupt is still pending, and ends the next run at once. */
		if (x->kind == EXIT_IRQ && !s->v.event.valid)
			x->kind = EXIT_STEP;
		return;
	}
	c->intercept_exceptions = SVM_EXCEPTIONS;
	if (s->step_iret && trapped)
		end_nmi(s);
	else if (!s->step_traps)
		s->v.rflags &= ~(u64)X86_EFLAGS_TF;
	if (x->kind != EXIT_EXCEPTION || x->exception.vector != 1)
		return;
	if (!s->step_traps && !(s->step_dr6 & DR6_BS))
		c->dr6 &= ~(u64)DR6_BS;
	if (only_ours(s))
		x->kind = EXIT_STEP;
}
