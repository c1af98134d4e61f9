/* SPDX-License-Identifier: MIT */
/*
 * Control registers and EFER as the guest writes them (SDM vol. 3 "Control Registers"; vol. 2 "MOV
 * - Move to/from Control Registers").
 */
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "virt/cpuid.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/ops.h"

/*
 * SDM "PDPTE Registers": which changes load them, and #GP if one is bad. SVM reads them when it
 * walks (APM vol. 2 "Nested Paging and VMRUN/VMEXIT").
 */
#define CR0_LOADS_PDPTES (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)
#define CR4_LOADS_PDPTES (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)

/* If they are missing, the entry waits for them. */
static bool pdptes_bad(struct vcpu *v, u64 cr0, u64 cr3, u64 cr4)
{
	u64 pdptes[4];

	return virt_ops->loads_pdptes && cr0 & X86_CR0_PG && cr4 & X86_CR4_PAE &&
	       !(virt_ops->get_reg(v, VR_EFER) & EFER_LME) &&
	       guest_read_pdptes(v, cr3, pdptes) == -EINVAL;
}

int guest_set_cr0(struct vcpu *v, u64 value)
{
	u64 efer = virt_ops->get_reg(v, VR_EFER), cr4 = virt_ops->get_reg(v, VR_CR4);
	u64 old = virt_ops->get_reg(v, VR_CR0);
	struct segment cs;

	if (value >> 32)
		return -EINVAL;
	value = (value & CR0_DEFINED) | X86_CR0_ET; /* other low bits are ignored */
	if (((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
	    ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
		return -EINVAL;
	virt_ops->get_seg(v, SEG_CS, &cs);
	if ((value & ~old & X86_CR0_PG) && (efer & EFER_LME) &&
	    (!(cr4 & X86_CR4_PAE) || (cs.attr & SEG_ATTR_L)))
		return -EINVAL;
	if ((old & ~value & X86_CR0_PG) &&
	    ((cr4 & X86_CR4_PCIDE) || ((efer & EFER_LMA) && (cs.attr & SEG_ATTR_L))))
		return -EINVAL;
	if ((old ^ value) & CR0_LOADS_PDPTES &&
	    pdptes_bad(v, value, virt_ops->get_reg(v, VR_CR3), cr4))
		return -EINVAL;
	virt_ops->set_reg(v, VR_CR0, value);
	return 0;
}

int guest_set_cr4(struct vcpu *v, u64 value)
{
	u64 efer = virt_ops->get_reg(v, VR_EFER), old = virt_ops->get_reg(v, VR_CR4);

	if (value & ~v->vm->cpuid->cr4)
		return -EINVAL;
	if ((efer & EFER_LMA) && !(value & X86_CR4_PAE))
		return -EINVAL;
	if ((value & ~old & X86_CR4_PCIDE) &&
	    (!(efer & EFER_LMA) || (virt_ops->get_reg(v, VR_CR3) & 0xfff)))
		return -EINVAL;
	if ((old ^ value) & CR4_LOADS_PDPTES &&
	    pdptes_bad(v, virt_ops->get_reg(v, VR_CR0), virt_ops->get_reg(v, VR_CR3), value))
		return -EINVAL;
	virt_ops->set_reg(v, VR_CR4, value);
	return 0;
}

int guest_set_efer(struct vcpu *v, u64 value)
{
	u64 old = virt_ops->get_reg(v, VR_EFER);

	value = (value & ~EFER_LMA) | (old & EFER_LMA); /* read-only: follows LME and CR0.PG */
	if (value & ~v->vm->cpuid->efer)
		return -EINVAL;
	if (((value ^ old) & EFER_LME) && (virt_ops->get_reg(v, VR_CR0) & X86_CR0_PG))
		return -EINVAL;
	virt_ops->set_reg(v, VR_EFER, value);
	return 0;
}

bool guest_cr3_bad(struct vcpu *v, u64 value)
{
	return value >> v->vm->cpuid->phys_bits ||
	       pdptes_bad(v, virt_ops->get_reg(v, VR_CR0), value, virt_ops->get_reg(v, VR_CR4));
}

int guest_set_cr3(struct vcpu *v, u64 value)
{
	if (virt_ops->get_reg(v, VR_CR4) & X86_CR4_PCIDE)
		value &= ~BIT(63); /* "don't flush": a hint */
	if (guest_cr3_bad(v, value))
		return -EINVAL;
	virt_ops->set_reg(v, VR_CR3, value);
	return 0;
}

/* CR8 is bits 7:4 of the task priority register, in both modes of the APIC. */
static int write_cr8(struct vcpu *v, u64 value)
{
	if (value & ~0xfull || !v->vm->irqchip)
		return -EINVAL;
	v->vm->irqchip->set_tpr(v, (u8)(value << 4));
	return 0;
}

static int write_cr(struct vcpu *v, u8 cr, u64 value)
{
	switch (cr) {
	case 0:
		return guest_set_cr0(v, value);
	case 3:
		return guest_set_cr3(v, value);
	case 4:
		return guest_set_cr4(v, value);
	default:
		return write_cr8(v, value);
	}
}

static u64 read_cr(struct vcpu *v, u8 cr)
{
	static const u8 regs[5] = { [0] = VR_CR0, [3] = VR_CR3, [4] = VR_CR4 };

	if (cr == 8)
		return v->vm->irqchip ? v->vm->irqchip->get_tpr(v) >> 4 : 0;
	return virt_ops->get_reg(v, regs[cr]);
}

static int execute(struct vcpu *v, bool wide)
{
	u64 value, cr0 = virt_ops->get_reg(v, VR_CR0);
	u8 cr = v->exit.cr.cr;

	switch (v->exit.cr.op) {
	case CR_WRITE:
		value = vcpu_gpr(v, v->exit.cr.gpr);
		return write_cr(v, cr, wide ? value : (u32)value);
	case CR_READ:
		value = read_cr(v, cr);
		vcpu_set_gpr(v, v->exit.cr.gpr, wide ? value : (u32)value);
		return 0;
	case CR_CLTS:
		return guest_set_cr0(v, cr0 & ~X86_CR0_TS);
	case CR_LMSW: /* PE can be set, never cleared */
		return guest_set_cr0(v, (cr0 & ~0xeull) | (v->exit.cr.lmsw & 0xf));
	default:
		return -EINVAL;
	}
}

/* SMSW exits only where CR0 is not what the guest believes. No size tells more than 32 bits. */
static void smsw(struct vcpu *v, const struct mem_insn *insn)
{
	u64 cr0 = virt_ops->get_reg(v, VR_CR0);
	u16 word = (u16)cr0;

	if (insn->has_mem) {
		if (!msw_operand(v, &word))
			return;
	} else {
		if (insn->reg_size == 2)
			cr0 = (vcpu_gpr(v, insn->reg) & ~0xffffull) | word;
		vcpu_set_gpr(v, insn->reg, cr0);
	}
	vcpu_skip_len(v, insn->len);
}

/*
 * Where the CPU gives no operands, read them from the instruction. False: it is done, an event is
 * queued, or the VM stops.
 */
static bool decode(struct vcpu *v, enum insn_mode mode)
{
	struct walk_fault fault;
	struct mem_insn insn;
	u8 bytes[INSN_MAX_LEN];
	int n = guest_fetch(v, bytes, &fault);

	if (n <= 0 || decode_mem(bytes, (size_t)n, mode, &insn))
		goto bad;
	v->exit.insn_len = insn.len;
	v->exit.cr.gpr = insn.reg;
	if (insn.op == MEM_OP_WRITE_CR || insn.op == MEM_OP_READ_CR) {
		v->exit.cr.op = insn.op == MEM_OP_WRITE_CR ? CR_WRITE : CR_READ;
		v->exit.cr.cr = insn.sysreg;
		return true;
	}
	if (insn.op == MEM_OP_CLTS) {
		v->exit.cr.op = CR_CLTS;
		return true;
	}
	if (insn.op == MEM_OP_LMSW) {
		v->exit.cr.op = CR_LMSW;
		v->exit.cr.lmsw = (u16)vcpu_gpr(v, insn.reg);
		return !insn.has_mem || msw_operand(v, &v->exit.cr.lmsw);
	}
	if (insn.op == MEM_OP_SMSW) {
		smsw(v, &insn);
		return false;
	}
bad:
	vm_stop(v->vm, STOP_INTERNAL, "cannot decode the CR access at rip %#lx", v->rip);
	return false;
}

void cr_access(struct vcpu *v)
{
	enum insn_mode mode = vcpu_mode(v);

	if (v->exit.cr.op == CR_UNDECODED && !decode(v, mode))
		return;
	if (execute(v, mode == INSN_64))
		vcpu_gp(v);
	else
		vcpu_skip(v);
}
