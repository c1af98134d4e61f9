/* SPDX-License-Identifier: MIT */
/* Guest registers in the VMCB. */
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "svm/svm.h"

#define CR0_HOST (X86_CR0_CD | X86_CR0_NW) /* the host's: the guest only believes to have them */

/* Where a register lies in the VMCB; those that are not here are more than a field. */
#define IN_VMCB(reg, field) [reg] = offsetof(struct vmcb, field)
static const u16 offsets[VREGS] = {
	IN_VMCB(VR_RSP, rsp),
	IN_VMCB(VR_CR2, cr2),
	IN_VMCB(VR_CR3, cr3),
	IN_VMCB(VR_CR4, cr4),
	IN_VMCB(VR_DR6, dr6),
	IN_VMCB(VR_DR7, dr7),
	IN_VMCB(VR_PAT, g_pat),
	IN_VMCB(VR_STAR, star),
	IN_VMCB(VR_LSTAR, lstar),
	IN_VMCB(VR_CSTAR, cstar),
	IN_VMCB(VR_SFMASK, sfmask),
	IN_VMCB(VR_KERNEL_GS_BASE, kernel_gs_base),
	IN_VMCB(VR_SYSENTER_CS, sysenter_cs),
	IN_VMCB(VR_SYSENTER_ESP, sysenter_esp),
	IN_VMCB(VR_SYSENTER_EIP, sysenter_eip),
	IN_VMCB(VR_TSC_OFFSET, tsc_offset),
};

static u64 *field(struct vmcb *c, enum vreg reg)
{
	return (u64 *)((u8 *)c + offsets[reg]);
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
	/*
	 * Reads are intercepted only while they would show something else; then all writes, too: to
	 * the CPU one that clears CD and NW changes nothing, and the selective intercept lets it
	 * pass.
	 */
	if (value & CR0_HOST)
		s->vmcb->intercept_cr |= (u32)(INTERCEPT_CR_READ(0) | INTERCEPT_CR_WRITE(0));
	else
		s->vmcb->intercept_cr &= (u32) ~(INTERCEPT_CR_READ(0) | INTERCEPT_CR_WRITE(0));
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
	case VR_DR7:
		s->vmcb->dr7 = value;
		svm_arm_dr(s);
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
	static const u16 segments[SEGS] = {
		IN_VMCB(SEG_ES, es),	 IN_VMCB(SEG_CS, cs), IN_VMCB(SEG_SS, ss),
		IN_VMCB(SEG_DS, ds),	 IN_VMCB(SEG_FS, fs), IN_VMCB(SEG_GS, gs),
		IN_VMCB(SEG_LDTR, ldtr), IN_VMCB(SEG_TR, tr), IN_VMCB(SEG_GDTR, gdtr),
		IN_VMCB(SEG_IDTR, idtr),
	};

	return (struct vmcb_seg *)((u8 *)c + segments[seg]);
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
