/* SPDX-License-Identifier: MIT */
/* A vCPU becomes as one of another VM is. */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/debug.h"
#include "virt/fpu.h"
#include "virt/ops.h"
#include "virt/vm.h"

/* What decides which values of the others are good comes first. */
static const u8 control[] = { VR_CR3, VR_CR4, VR_EFER, VR_CR0 };

struct registers {
	u64 reg[VREGS];
	u64 tsc_aux; /* in the CPU while a vCPU is loaded */
	struct segment seg[SEGS];
};

static void set_registers(struct vcpu *v, const struct registers *r)
{
	for (u32 i = 0; i < ARRAY_SIZE(control); i++)
		virt_ops->set_reg(v, control[i], r->reg[control[i]]);
	for (u32 i = 0; i < VREGS; i++)
		if (i != VR_CR0 && i != VR_CR3 && i != VR_CR4 && i != VR_EFER)
			virt_ops->set_reg(v, i, r->reg[i]);
	for (u32 i = 0; i < SEGS; i++)
		virt_ops->set_seg(v, i, &r->seg[i]);
}

/* An instruction that waits, for memory or its turn, is executed anew. */
static void copy_fields(const struct vcpu *from, struct vcpu *to)
{
	memcpy(to->gpr, from->gpr, sizeof(to->gpr));
	to->rip = from->rip;
	to->rflags = from->rflags;
	to->event = from->event;
	to->activity = from->activity & ~(u32)VCPU_WAITS_MEMORY;
	if (to->activity == VCPU_DELAYED)
		to->activity = VCPU_ACTIVE;
	to->nmi_pending = from->nmi_pending;
	to->sipi_vector = from->sipi_vector;
	to->kvmclock_msr = from->kvmclock_msr;
	to->split.test_ctrl = from->split.test_ctrl;
	to->xcr0 = from->xcr0;
	memcpy(to->fpu, from->fpu, PAGE_SIZE << FPU_ORDER);
	memcpy(to->dr, from->dr, sizeof(to->dr));
	__atomic_fetch_or(&to->requests,
			  (from->requests & (REQ_NMI | REQ_INIT | REQ_SIPI)) | REQ_DEVICES |
				  REQ_EVENT | REQ_TIMER,
			  __ATOMIC_SEQ_CST);
}

int vcpu_copy(struct vcpu *from, struct vcpu *to)
{
	struct registers r;
	bool has_aux;
	u64 flags;

	if (!debug_begin(from))
		return trace_error(-EBUSY);
	for (u32 i = 0; i < VREGS; i++)
		r.reg[i] = virt_ops->get_reg(from, i);
	for (u32 i = 0; i < SEGS; i++)
		virt_ops->get_seg(from, i, &r.seg[i]);
	if (from->exit.done) /* the shadow ends with the instruction, at the next entry */
		r.reg[VR_INTR_SHADOW] = 0;
	has_aux = !rdmsr_safe(MSR_TSC_AUX, &r.tsc_aux);
	debug_end(from);
	flags = irq_save();
	virt_ops->vcpu_load(to);
	copy_fields(from, to);
	set_registers(to, &r);
	VM_BUG_ON(to->vm, has_aux && write_tsc_aux(r.tsc_aux));
	virt_ops->vcpu_put(to);
	irq_restore(flags);
	return 0;
}
