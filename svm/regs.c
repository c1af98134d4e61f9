/* SPDX-License-Identifier: MIT */
/* Guest registers in the VMCB. */
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "svm/svm.h"

#define CR0_HOST (X86_CR0_CD | X86_CR0_NW) /* the host's: the guest only believes to have them */

static u64 *field(struct vmcb *c, enum vreg reg)
{
	switch (reg) {
	case VR_RSP:
		return &c->rsp;
	case VR_CR2:
		return &c->cr2;
	case VR_CR3:
		return &c->cr3;
	case VR_CR4:
		return &c->cr4;
	case VR_DR6:
		return &c->dr6;
	case VR_DR7:
		return &c->dr7;
	case VR_PAT:
		return &c->g_pat;
	case VR_STAR:
		return &c->star;
	case VR_LSTAR:
		return &c->lstar;
	case VR_CSTAR:
		return &c->cstar;
	case VR_SFMASK:
		return &c->sfmask;
	case VR_KERNEL_GS_BASE:
		return &c->kernel_gs_base;
	case VR_SYSENTER_CS:
		return &c->sysenter_cs;
	case VR_SYSENTER_ESP:
		return &c->sysenter_esp;
	case VR_SYSENTER_EIP:
		return &c->sysenter_eip;
	default:
		return &c->tsc_offset;
	}
}

/* CR0 is not intercepted where it only changes TS and MP: those bits come from the VMCB. */
static u64 guest_cr0(const struct svm_vcpu *s)
{
	return (s->vmcb->cr0 & ~CR0_HOST) | (s->cr0 & CR0_HOST);
}

u64 svm_get_reg(struct vcpu *v, enum vreg reg)
{
	struct svm_vcpu *s = svm_of(v);

	switch (reg) {
	case VR_CR0:
		return guest_cr0(s);
	case VR_EFER:
		return s->efer;
	case VR_INTR_SHADOW:
		return s->vmcb->int_state & INT_STATE_SHADOW;
	case VR_NMI_BLOCKED:
		return s->nmi_blocked;
	default:
		return *field(s->vmcb, reg);
	}
}

static void set_efer(struct svm_vcpu *s, u64 value)
{
	s->efer = value;
	s->vmcb->efer = value | EFER_SVME; /* VMRUN insists on it */
}

static void set_cr0(struct svm_vcpu *s, u64 value)
{
	u64 lma = (value & X86_CR0_PG) && (s->efer & EFER_LME) ? EFER_LMA : 0;

	s->cr0 = value;
	s->vmcb->cr0 = value & ~CR0_HOST;
	set_efer(s, (s->efer & ~EFER_LMA) | lma);
	/* Reads are intercepted only while they would show something else. */
	if (value & CR0_HOST)
		s->vmcb->intercept_cr |= (u32)INTERCEPT_CR_READ(0);
	else
		s->vmcb->intercept_cr &= (u32)~INTERCEPT_CR_READ(0);
}

void svm_set_reg(struct vcpu *v, enum vreg reg, u64 value)
{
	struct svm_vcpu *s = svm_of(v);

	switch (reg) {
	case VR_CR0:
		/* APM vol. 2 "TLB Management": a change of PG drops all translations */
		if ((guest_cr0(s) ^ value) & X86_CR0_PG)
			svm_flush(v);
		set_cr0(s, value);
		break;
	case VR_EFER:
		set_efer(s, value);
		break;
	case VR_INTR_SHADOW:
		s->vmcb->int_state = value ? INT_STATE_SHADOW : 0;
		break;
	case VR_NMI_BLOCKED:
		s->nmi_blocked = value;
		break;
	default:
		*field(s->vmcb, reg) = value;
		/* MOV CR3 and changes of CR4 drop translations; done here by hand, so must that. */
		if (reg == VR_CR3 || reg == VR_CR4)
			svm_flush(v);
	}
}

static struct vmcb_seg *segment(struct vmcb *c, enum vseg seg)
{
	static const u16 offsets[SEGS] = {
		[SEG_ES] = offsetof(struct vmcb, es),	  [SEG_CS] = offsetof(struct vmcb, cs),
		[SEG_SS] = offsetof(struct vmcb, ss),	  [SEG_DS] = offsetof(struct vmcb, ds),
		[SEG_FS] = offsetof(struct vmcb, fs),	  [SEG_GS] = offsetof(struct vmcb, gs),
		[SEG_LDTR] = offsetof(struct vmcb, ldtr), [SEG_TR] = offsetof(struct vmcb, tr),
		[SEG_GDTR] = offsetof(struct vmcb, gdtr), [SEG_IDTR] = offsetof(struct vmcb, idtr),
	};

	return (struct vmcb_seg *)((u8 *)c + offsets[seg]);
}

/* The VMCB packs the attributes: bits 15:12 of the descriptor word stand at 11:8. */
static u16 unpack(u16 attr)
{
	return (u16)((attr & 0xff) | (attr & 0xf00) << 4);
}

static u16 pack(u16 attr)
{
	return (u16)((attr & 0xff) | (attr & 0xf000) >> 4);
}

void svm_get_seg(struct vcpu *v, enum vseg seg, struct segment *out)
{
	const struct vmcb_seg *s = segment(svm_of(v)->vmcb, seg);

	*out = (struct segment){
		.base = s->base, .limit = s->limit, .selector = s->selector, .attr = unpack(s->attr)
	};
	out->unusable = seg < SEG_GDTR && !(out->attr & SEG_ATTR_P);
}

void svm_set_seg(struct vcpu *v, enum vseg seg, const struct segment *in)
{
	struct vmcb *c = svm_of(v)->vmcb;

	*segment(c, seg) = (struct vmcb_seg){ .selector = in->selector,
					      .attr = in->unusable ? 0 : pack(in->attr),
					      .limit = in->limit,
					      .base = in->base };
	if (seg == SEG_SS)
		c->cpl = in->attr >> SEG_ATTR_DPL_SHIFT & 3;
}

void svm_get_mmu(struct vcpu *v, struct guest_mmu *out)
{
	const struct svm_vcpu *s = svm_of(v);
	const struct vmcb *c = s->vmcb;

	*out = (struct guest_mmu){ .cr0 = c->cr0,
				   .cr3 = c->cr3,
				   .cr4 = c->cr4,
				   .efer = s->efer,
				   .cs_attr = unpack(c->cs.attr),
				   .cpl = c->cpl };
}
