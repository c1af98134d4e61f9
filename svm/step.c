/* SPDX-License-Identifier: MIT */
/*
 * One instruction of the guest, then EXIT_STEP: v->want_step, for whoever wants it. SVM has no
 * monitor trap flag; TF serves, as long as the guest does not see it:
 *
 *	PUSHF: the stored image is corrected
 *	POPF, IRET: TF is what that loaded
 *	JMP, CALL, IRET out of a task: likewise, and TF is corrected in its TSS
 *	SYSCALL, SYSENTER, SYSRET may leave with TF in R11, or with TF clear and no trap: no TF, but
 *	a breakpoint where they lead to
 *	exceptions, INT n: all exit, without having pushed TF, and are injected with TF clear; then
 *	an interrupt to ourselves, which is taken right after the delivery (GIF is 0 until then),
 *	ends the run at the handler's first instruction
 *	DR6 has what the guest left there, and what is new is told
 *
 * VMRUN of QEMU loads DR7, but only MOV DR7 arms breakpoints there, and only it disarms them again:
 * ARMED_DR. QEMU is also where INT3 counts as INT n. Both are taken to be so where the CPU has no
 * NRIPS, which all CPUs of the last fifteen years have.
 */
#include <asm/processor-flags.h>
#include <asm/svm.h>
#include "arch/x86/cpu.h"
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "svm/svm.h"
#include "virt/decode.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/vm.h"

/* All but NMI and what is reserved. */
#define STEP_EXCEPTIONS ((u32)(MASK(21, 16) | MASK(14, 10) | MASK(8, 3) | MASK(1, 0)))
#define BP		BIT(3)
/* Of breakpoint i in DR7: all that concerns it; enabled, on execution. */
#define DR7_SLOT(i) (15ull << (16 + 4 * (i)) | 3ull << 2 * (i))
#define DR7_ON(i)   (2ull << 2 * (i))

static void write_intercepts(struct svm_vcpu *s, bool step)
{
	struct vmcb *c = s->vmcb;

	c->intercept_exceptions = step		  ? STEP_EXCEPTIONS
				  : s->soft_exits ? (u32)(SVM_EXCEPTIONS | BP)
						  : SVM_EXCEPTIONS;
	c->intercept1 &= (u32)~INTERCEPT_SWINT;
	if (step || (s->soft_exits && !svm_setup_.nrips))
		c->intercept1 |= (u32)INTERCEPT_SWINT;
}

/* DR7 has changed, or whose it is. What the guest's own MOV DR7 has armed is not armed twice. */
void svm_arm_dr(struct svm_vcpu *s)
{
	s->v.todo &= (u8)~ARMED_DR;
	if (s->vmcb->intercept_dr && s->vmcb->dr7 & DR7_ENABLED && !svm_setup_.nrips)
		s->v.todo |= ARMED_DR;
}

/* ops->debug_exits */
void svm_debug_exits(struct vcpu *v, bool breakpoints, bool debug_registers)
{
	struct svm_vcpu *s = svm_of(v);

	s->soft_exits = breakpoints;
	s->vmcb->intercept_dr = debug_registers ? ~0u : 0;
	write_intercepts(s, false);
	svm_arm_dr(s);
}

/* ---- Before the entry ---- */

static bool is_prefix(u8 byte, bool is_64)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64 ... 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return is_64 && (byte & 0xf0) == 0x40;
	}
}

/* Where SYSCALL, SYSENTER or SYSRET leads to. */
static u64 target(struct svm_vcpu *s, u8 opcode, bool is_64, bool rex_w)
{
	const struct vmcb *c = s->vmcb;

	if (opcode == 0x34)
		return c->sysenter_eip;
	if (opcode == 0x07)
		return rex_w ? s->v.gpr[RCX] : (u32)s->v.gpr[RCX];
	if (!(s->efer & EFER_LMA))
		return (u32)c->star;
	return is_64 ? c->lstar : c->cstar;
}

static enum svm_step classify_0f(struct svm_vcpu *s, u8 opcode, bool is_64, bool rex_w)
{
	switch (opcode) {
	case 0x21:
	case 0x23:
		return STEP_DR;
	case 0x05:
	case 0x07:
	case 0x34:
		s->step.target = target(s, opcode, is_64, rex_w);
		return STEP_TARGET;
	default:
		return STEP_TF;
	}
}

/* Where the second byte of EFLAGS is in the TSS, by the page tables of this task. */
static gpa_t task_flags(struct svm_vcpu *s)
{
	const struct vmcb *c = s->vmcb;
	u64 flags = c->tr.base + (c->tr.attr & 8 ? 0x24 : 0x10); /* 32 bits, 16 bits */
	struct walk_fault fault;
	gpa_t gpa;

	if (!(c->cr0 & X86_CR0_PE) || s->efer & EFER_LMA ||
	    guest_walk(&s->v, flags + 1, ACCESS_R | WALK_QUIET, 0, &gpa, &fault))
		return GPA(0);
	return gpa;
}

/* How the instruction at RIP must be done. */
static enum svm_step classify(struct svm_vcpu *s)
{
	bool is_64 = vcpu_mode(&s->v) == INSN_64;
	struct walk_fault fault;
	u8 b[INSN_MAX_LEN];
	int n = guest_fetch(&s->v, b, &fault), i = 0;

	while (i < n && is_prefix(b[i], is_64))
		i++;
	if (i >= n) /* the guest's fetch will fault, too */
		return STEP_TF;
	if (b[i] == 0xcf || b[i] == 0xea || b[i] == 0x9a || b[i] == 0xff)
		s->step.task_flags = task_flags(s);
	if (b[i] == 0x9c)
		return STEP_PUSHF;
	if (b[i] == 0x9d || b[i] == 0xcf)
		return STEP_POPF;
	if (b[i] != 0x0f || i + 1 == n)
		return STEP_TF;
	return classify_0f(s, b[i + 1], is_64, is_64 && i && (b[i - 1] & 0xf8) == 0x48);
}

static void begin_target(struct svm_vcpu *s)
{
	struct vmcb *c = s->vmcb;

	u32 i = c->dr7 & DR7_SLOT(3) ? 0 : 3;

	s->step.dr = (u8)i;
	s->step.saved_dr = i ? read_dr3() : read_dr0();
	s->step.dr7 = c->dr7;
	if (i)
		write_dr3(s->step.target);
	else
		write_dr0(s->step.target);
	c->dr7 = (c->dr7 & ~DR7_SLOT(i)) | DR7_ON(i);
	if (!svm_setup_.nrips)
		write_dr7(DR7_RESET | DR7_ON(i));
}

void svm_step_begin(struct svm_vcpu *s)
{
	if (s->v.event.valid) {
		s->step.how = STEP_EVENT;
		ipi_kick(this_cpu(cpu_id));
		return;
	}
	s->step.tr = s->vmcb->tr.selector;
	s->step.task_flags = GPA(0);
	s->step.how = classify(s);
	s->step.own_tf = s->v.rflags & X86_EFLAGS_TF;
	s->step.dr6 = s->vmcb->dr6;
	if (s->step.how != STEP_DR)
		s->vmcb->dr6 = DR6_RESET;
	write_intercepts(s, true);
	if (s->step.how == STEP_TARGET)
		begin_target(s);
	else
		s->v.rflags |= X86_EFLAGS_TF;
}

/* ---- After the exit ---- */

static void end_target(struct svm_vcpu *s)
{
	if (!svm_setup_.nrips)
		write_dr7(DR7_RESET);
	if (s->step.dr)
		write_dr3(s->step.saved_dr);
	else
		write_dr0(s->step.saved_dr);
	s->vmcb->dr7 = s->step.dr7;
}

/* Flags that were saved have TF in bit 0 of their second byte, which is here. */
static void clear_tf(struct svm_vcpu *s, gpa_t at)
{
	u8 byte;

	if (guest_read(s->v.vm, at, &byte, 1))
		return;
	byte &= (u8)~1;
	if (guest_write(s->v.vm, at, &byte, 1))
		return; /* another vCPU has just unmapped it */
}

static void correct_pushed(struct svm_vcpu *s)
{
	const struct vmcb *c = s->vmcb;
	struct segment ss;
	struct walk_fault fault;
	u64 linear = c->rsp;
	gpa_t at;

	if (vcpu_mode(&s->v) != INSN_64) {
		svm_get_seg(&s->v, SEG_SS, &ss);
		linear = (u32)(ss.base + (ss.attr & SEG_ATTR_DB ? (u32)c->rsp : (u16)c->rsp));
	}
	if (!guest_walk(&s->v, linear + 1, ACCESS_W, vcpu_cpl(&s->v), &at, &fault))
		clear_tf(s, at);
}

/*
 * What an NMI waited for: the IRET that ends the blocking, also one that faults (SDM "Handling
 * Multiple NMIs"); or a shadow, which whoever waits for it looks at again after each exit.
 */
static void end_nmi(struct svm_vcpu *s, bool done)
{
	if (!(s->v.want_step & STEP_NMI) || (s->nmi_blocked && !done))
		return;
	s->v.want_step &= (u8)~STEP_NMI;
	s->nmi_blocked = false;
	vcpu_request_own(&s->v, REQ_EVENT);
}

void svm_step_end(struct svm_vcpu *s)
{
	struct vmcb *c = s->vmcb;
	struct vm_exit *x = &s->v.exit;
	enum svm_step how = s->step.how;
	bool db = (u32)c->exit_code == SVM_EXIT_EXCP_BASE + 1, done, left;
	u64 seen = c->dr6, dr7 = c->dr7;

	s->step.how = STEP_NONE;
	if (how == STEP_EVENT) {
		/* The interrupt is still pending, and ends the next run at once. */
		if (x->kind == EXIT_IRQ && !s->v.event.valid)
			x->kind = EXIT_STEP;
		return;
	}
	write_intercepts(s, false);
	left = s->step.task_flags.v && c->tr.selector != s->step.tr;
	if (left && !s->step.own_tf)
		clear_tf(s, s->step.task_flags);
	done = db && seen & (how == STEP_TARGET ? BIT(s->step.dr) : DR6_BS);
	if (how == STEP_TARGET) {
		end_target(s);
	} else if (!((how == STEP_POPF || left) && done)) {
		if (!s->step.own_tf)
			s->v.rflags &= ~(u64)X86_EFLAGS_TF;
		if (how == STEP_PUSHF && done && !s->step.own_tf)
			correct_pushed(s);
	}
	c->dr6 = how == STEP_DR ? (seen & ~DR6_BS) | (s->step.dr6 & DR6_BS) : s->step.dr6;
	end_nmi(s, done || (x->kind == EXIT_EXCEPTION && !db));
	if (!db)
		return;
	seen = dr6_events(seen, dr7, done) & ~(s->step.own_tf ? 0 : DR6_BS);
	x->exception.dr6 = seen;
	x->exception.stepped = done;
	if (done && !seen)
		x->kind = EXIT_STEP;
}

void svm_soft_interrupt(struct svm_vcpu *s)
{
	struct vm_exit *x = &s->v.exit;
	struct walk_fault fault;
	u8 b[INSN_MAX_LEN];
	int n = guest_fetch(&s->v, b, &fault);
	int len = n > 0 ? insn_length(b, (size_t)n, vcpu_mode(&s->v)) : 0;

	if (len > 1 && b[len - 2] == 0xcd)
		s->v.event = (struct event){ .valid = true,
					     .type = EVENT_SOFT_INT,
					     .vector = b[len - 1],
					     .insn_len = (u8)len };
	if (len <= 0 || s->v.event.valid) {
		x->kind = EXIT_NMI; /* nothing to do: it is injected, or executed again */
		return;
	}
	x->exception.vector = b[len - 1] == 0xce ? 4 : 3;
	x->exception.has_error = x->exception.stepped = false;
	x->exception.dr6 = 0;
	x->insn_len = (u8)len;
}
