/* SPDX-License-Identifier: MIT */
/* A vCPU in the record of its VM: all that the guest sees of it, but for its devices. */
#include <asm/processor-flags.h>
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "virt/cpuid.h"
#include "virt/debug.h"
#include "virt/exits.h"
#include "virt/fpu.h"
#include "virt/ops.h"
#include "virt/state.h"
#include "virt/vm.h"

#define FLAGS_DEFINED 0x3f7fd7ull /* SDM "EFLAGS Register" */
#define LOW_HALF      0xffffffffull
#define KEPT_REQUESTS (REQ_NMI | REQ_INIT | REQ_SIPI)

/* What is not in struct vcpu, or not as it is kept. */
struct registers {
	u64 reg[VREGS];
	u64 tsc_aux; /* in the CPU while a vCPU is loaded */
	u32 activity, requests;
	struct segment seg[SEGS];
};

#define REG(from, to, ...) STATE_RUN(struct registers, reg[VR_##from], reg[VR_##to], __VA_ARGS__)
static const struct state_field register_fields[] = {
	REG(RSP, RSP, STATE_ANY),
	REG(CR0, CR0, STATE_BITS, CR0_DEFINED),
	REG(CR2, CR4, STATE_ANY), /* CR3, CR4 and EFER: see vcpu_state() */
	REG(DR6, DR7, STATE_BITS, LOW_HALF),
	REG(EFER, STAR, STATE_ANY),
	REG(LSTAR, CSTAR, STATE_ADDRESS),
	REG(SFMASK, SFMASK, STATE_BITS, LOW_HALF),
	REG(KERNEL_GS_BASE, KERNEL_GS_BASE, STATE_ADDRESS),
	REG(SYSENTER_CS, SYSENTER_CS, STATE_BITS, LOW_HALF),
	REG(SYSENTER_ESP, SYSENTER_EIP, STATE_ADDRESS),
	REG(TSC_OFFSET, TSC_OFFSET, STATE_OFFSET),
	REG(INTR_SHADOW, NMI_BLOCKED, STATE_MAX, 1),
	STATE_FIELD(struct registers, tsc_aux, STATE_BITS, LOW_HALF),
	STATE_FIELD(struct registers, activity, STATE_MAX, VCPU_WAIT_SIPI),
	STATE_FIELD(struct registers, requests, STATE_BITS, KEPT_REQUESTS),
};

static const struct state_field segment_fields[] = {
	STATE_FIELD(struct segment, base, STATE_ADDRESS),
	STATE_RUN(struct segment, limit, selector, STATE_ANY),
	STATE_FIELD(struct segment, attr, STATE_BITS, 0xf0ff),
	STATE_FIELD(struct segment, unusable, STATE_MAX, 1),
};

static const struct state_field vcpu_fields[] = {
	STATE_FIELD(struct vcpu, gpr, STATE_ANY),
	STATE_FIELD(struct vcpu, rip, STATE_ADDRESS),
	STATE_FIELD(struct vcpu, rflags, STATE_BITS, FLAGS_DEFINED),
	STATE_FIELD(struct vcpu, event.valid, STATE_MAX, 1),
	STATE_FIELD(struct vcpu, event.type, STATE_MAX, EVENT_SOFT_INT),
	STATE_FIELD(struct vcpu, event.vector, STATE_ANY),
	STATE_FIELD(struct vcpu, event.has_error, STATE_MAX, 1),
	STATE_RUN(struct vcpu, event.error, event.insn_len, STATE_ANY),
	STATE_FIELD(struct vcpu, sipi_vector, STATE_ANY),
	STATE_FIELD(struct vcpu, nmi_pending, STATE_MAX, 1),
	STATE_FIELD(struct vcpu, kvmclock_msr, STATE_ANY),
	STATE_FIELD(struct vcpu, split.test_ctrl, STATE_BITS, TEST_CTRL_SPLIT_LOCK),
	STATE_RUN(struct vcpu, xcr0, dr, STATE_ANY),
};

/* An instruction that waits, for memory or its turn, is executed anew. */
static bool read_registers(struct vcpu *v, struct registers *r)
{
	if (!debug_begin(v))
		return false;
	for (u32 i = 0; i < VREGS; i++)
		r->reg[i] = virt_ops->get_reg(v, i);
	for (u32 i = 0; i < SEGS; i++)
		virt_ops->get_seg(v, i, &r->seg[i]);
	if (v->exit.done) /* the shadow ends with the instruction, at the next entry */
		r->reg[VR_INTR_SHADOW] = 0;
	(void)rdmsr_safe(MSR_TSC_AUX, &r->tsc_aux); /* 0 where there is none */
	debug_end(v);
	r->activity = v->activity & ~(u32)VCPU_WAITS_MEMORY;
	if (r->activity == VCPU_DELAYED)
		r->activity = VCPU_ACTIVE;
	r->requests = v->requests & KEPT_REQUESTS;
	return true;
}

static void write_registers(struct vcpu *v, const struct registers *r)
{
	u64 flags = irq_save();

	virt_ops->vcpu_load(v);
	v->rflags |= X86_EFLAGS_FIXED;
	for (u32 i = 0; i < VREGS; i++)
		virt_ops->set_reg(v, i, r->reg[i]);
	for (u32 i = 0; i < SEGS; i++)
		virt_ops->set_seg(v, i, &r->seg[i]);
	(void)write_tsc_aux(r->tsc_aux); /* where there is none, the guest knows of none */
	virt_ops->vcpu_put(v);
	irq_restore(flags);
	v->activity = r->activity;
	__atomic_fetch_or(&v->requests, r->requests | REQ_DEVICES | REQ_EVENT | REQ_TIMER,
			  __ATOMIC_SEQ_CST);
}

/* What the VM's CPUID decides, and what would fault in Corbel. */
static const char *invalid(const struct vcpu *v, const struct registers *r)
{
	const struct cpuid_policy *p = v->vm->cpuid;
	u64 efer = r->reg[VR_EFER], lma = efer & EFER_LME && r->reg[VR_CR0] & X86_CR0_PG;

	return r->reg[VR_CR3] >> p->phys_bits		       ? "CR3"
	       : r->reg[VR_CR4] & ~p->cr4		       ? "CR4"
	       : efer & ~p->efer || lma != !!(efer & EFER_LMA) ? "EFER"
	       : !fpu_xcr0_valid(v->xcr0, p->xcr0)	       ? "XCR0"
	       : !fpu_valid(v->fpu)			       ? "XSAVE area"
							       : NULL;
}

void vcpu_state(struct state *s, struct vcpu *v)
{
	struct registers r = { 0 };
	const char *wrong;

	if (!s->loading && !read_registers(v, &r)) {
		state_refuse(s, "a vCPU is not at rest", v->index);
		return;
	}
	for (u32 i = 0; i < SEGS; i++)
		STATE_PART(s, "segment", i, &r.seg[i], segment_fields);
	state_bytes(s, "FPU", v->index, v->fpu, fpu_size());
	STATE_PART(s, "registers", v->index, &r, register_fields);
	if (!STATE_PART(s, "vCPU", v->index, v, vcpu_fields) || !s->loading)
		return;
	wrong = invalid(v, &r);
	if (wrong)
		state_refuse(s, wrong, 0);
	else
		write_registers(v, &r);
}
