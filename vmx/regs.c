/* SPDX-License-Identifier: MIT */
/*
 * Guest registers in the VMCS, as virt/ reads and writes them: ops->get_reg, set_reg, get_seg,
 * set_seg.
 *
 * CR0 and CR4: a bit set in the mask belongs to the host. The guest reads it from the shadow, and
 * an attempt to change it exits (SDM "Guest/Host Masks and Read Shadows for CR0 and CR4"). Other
 * bits are the guest's, read and written without an exit.
 */
#include "lib/assert.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "virt/guestmem.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

/*
 * PG: changing it changes EFER.LMA, the entry control, PDPTEs. NE: VMX wants it set. CD, NW:
 * caching belongs to the host. The reserved bits are there so that nothing that the future defines
 * is handed out.
 */
#define CR0_GUEST_BITS \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_WP | X86_CR0_AM)
#define CR0_NEVER (X86_CR0_CD | X86_CR0_NW) /* set in the shadow at most */

/*
 * What every CPU with VMX has and the CPU alone can handle. The rest exits: whether the guest may
 * have it is in virt/'s CPUID policy, and VMXE is hidden.
 */
#define CR4_GUEST_BITS                                                                      \
	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | \
	 X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)

static u64 get_cr(enum vmcs_field real, enum vmcs_field shadow, u64 guest_bits)
{
	return (vmcs_read(real) & guest_bits) | (vmcs_read(shadow) & ~guest_bits);
}

static u64 get_cr0(void)
{
	return get_cr(VMCS_GUEST_CR0, VMCS_CR0_SHADOW, CR0_GUEST_BITS);
}

static u64 get_cr4(void)
{
	return get_cr(VMCS_GUEST_CR4, VMCS_CR4_SHADOW, CR4_GUEST_BITS);
}

/*
 * SDM "IA-32e Paging": LMA is LME and PG; the entry control says the same (SDM "Checks on Guest
 * Control Registers ...").
 */
static void update_long_mode(struct vmx_vcpu *x, u64 cr0, u64 efer)
{
	bool lma = (efer & EFER_LME) && (cr0 & X86_CR0_PG);
	u32 entry = vmx_controls.entry | (lma ? ENTRY_CTL_IA32E : 0);

	vmcs_write(VMCS_GUEST_EFER, (efer & ~EFER_LMA) | (lma ? EFER_LMA : 0));
	if (entry != x->entry_controls) {
		x->entry_controls = entry;
		vmcs_write(VMCS_ENTRY_CONTROLS, entry);
	}
}

/* Only what loads them on a CPU does: until then the guest may have what it likes in memory. */
static void set_cr0(struct vmx_vcpu *x, u64 value)
{
	if ((get_cr0() ^ value) & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW))
		x->v.todo |= TODO_PDPTES;
	vmcs_write(VMCS_CR0_SHADOW, value);
	vmcs_write(VMCS_CR0_MASK, ~(u64)CR0_GUEST_BITS);
	vmcs_write(VMCS_GUEST_CR0, (value & ~(u64)CR0_NEVER) | vmx_controls.cr0_must | X86_CR0_ET);
	update_long_mode(x, value, vmcs_read(VMCS_GUEST_EFER));
	x->v.todo |= TODO_FLUSH_GUEST;
}

static void set_cr4(struct vmx_vcpu *x, u64 value)
{
	/*
	 * While the guest runs, the real MCE decides whether a machine check of the host arrives or
	 * shuts the CPU down.
	 */
	u64 host_mce = read_cr4() & X86_CR4_MCE;

	if ((get_cr4() ^ value) & (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP))
		x->v.todo |= TODO_PDPTES;
	vmcs_write(VMCS_CR4_SHADOW, value);
	vmcs_write(VMCS_CR4_MASK, ~(u64)CR4_GUEST_BITS);
	vmcs_write(VMCS_GUEST_CR4, (value & ~(u64)X86_CR4_MCE) | host_mce | vmx_controls.cr4_must);
	x->v.todo |= TODO_FLUSH_GUEST;
}

static void set_cr3(struct vmx_vcpu *x, u64 value)
{
	vmcs_write(VMCS_GUEST_CR3, value);
	x->v.todo |= TODO_PDPTES | TODO_FLUSH_GUEST;
}

/*
 * SDM "PDPTE Registers": with EPT, an entry takes them from the VMCS, so whoever changes CR0, CR3
 * or CR4 from outside loads them. (The guest's own MOV to CR3 does it by itself.) virt/ has checked
 * them; if another vCPU has made them bad meanwhile, which would fail the entry, none is present.
 * False: they are missing, and the vCPU waits.
 */
bool vmx_load_pdptes(struct vmx_vcpu *x)
{
	u64 pdptes[4];
	int err;

	if ((x->entry_controls & ENTRY_CTL_IA32E) || !(vmcs_read(VMCS_GUEST_CR0) & X86_CR0_PG) ||
	    !(vmcs_read(VMCS_GUEST_CR4) & X86_CR4_PAE))
		return true;
	err = guest_read_pdptes(&x->v, vmcs_read(VMCS_GUEST_CR3), pdptes);
	if (err == -EAGAIN)
		return false;
	for (u32 i = 0; i < ARRAY_SIZE(pdptes); i++)
		vmcs_write(VMCS_GUEST_PDPTE0 + 2 * i, err ? 0 : pdptes[i]);
	return true;
}

/*
 * SDM "Checks on Guest Non-Register State": in the shadow of STI or MOV SS, BS must be pending
 * exactly if TF is set (BTF is never set: guests have no DEBUGCTL). An intercepted single-step #DB
 * after STI leaves a state that fails this check (XSA-308).
 */
void vmx_fix_pending_debug(struct vmx_vcpu *x)
{
	u64 pending, fixed;

	if (!(vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) &
	      (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOVSS)))
		return;
	pending = vmcs_read(VMCS_GUEST_PENDING_DEBUG);
	fixed = (pending & ~PENDING_DEBUG_BS) |
		(x->v.rflags & X86_EFLAGS_TF ? PENDING_DEBUG_BS : 0);
	if (fixed != pending)
		vmcs_write(VMCS_GUEST_PENDING_DEBUG, fixed);
}

static void set_interruptibility(struct vmx_vcpu *x, u64 mask, bool on)
{
	u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) & ~mask;

	if (on && mask == INTERRUPTIBILITY_NMI)
		state |= INTERRUPTIBILITY_NMI;
	else if (on) /* the STI kind needs IF (SDM, same checks) */
		state |=
			x->v.rflags & X86_EFLAGS_IF ? INTERRUPTIBILITY_STI : INTERRUPTIBILITY_MOVSS;
	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, state);
	x->v.todo |= TODO_DEBUG;
}

/* Registers that are one VMCS field and nothing else; 0: not such a one. */
static const u16 plain_fields[VREGS] = {
	[VR_RSP] = VMCS_GUEST_RSP,
	[VR_CR3] = VMCS_GUEST_CR3,
	[VR_DR7] = VMCS_GUEST_DR7,
	[VR_EFER] = VMCS_GUEST_EFER,
	[VR_PAT] = VMCS_GUEST_PAT,
	[VR_SYSENTER_CS] = VMCS_GUEST_SYSENTER_CS,
	[VR_SYSENTER_ESP] = VMCS_GUEST_SYSENTER_ESP,
	[VR_SYSENTER_EIP] = VMCS_GUEST_SYSENTER_EIP,
	[VR_TSC_OFFSET] = VMCS_TSC_OFFSET,
};

u64 vmx_get_reg(struct vcpu *v, enum vreg reg)
{
	u64 value;

	if (plain_fields[reg])
		return vmcs_read(plain_fields[reg]);
	if (vmx_switched_get(to_vmx(v), reg, &value))
		return value;
	switch (reg) {
	case VR_CR0:
		return get_cr0();
	case VR_CR4:
		return get_cr4();
	case VR_INTR_SHADOW:
		return !!(vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) &
			  (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOVSS));
	case VR_NMI_BLOCKED:
		return !!(vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_NMI);
	default:
		WARN_ON(true);
		return 0;
	}
}

void vmx_set_reg(struct vcpu *v, enum vreg reg, u64 value)
{
	struct vmx_vcpu *x = to_vmx(v);

	if (vmx_switched_set(x, reg, value))
		return;
	switch (reg) {
	case VR_CR0:
		return set_cr0(x, value);
	case VR_CR3:
		return set_cr3(x, value);
	case VR_CR4:
		return set_cr4(x, value);
	case VR_EFER:
		return update_long_mode(x, get_cr0(), value);
	case VR_INTR_SHADOW:
		return set_interruptibility(x, INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOVSS,
					    value);
	case VR_NMI_BLOCKED:
		return set_interruptibility(x, INTERRUPTIBILITY_NMI, value);
	default:
		if (!WARN_ON(reg >= VREGS || !plain_fields[reg]))
			vmcs_write(plain_fields[reg], value);
	}
}

/*
 * Segment fields stand at steps of 2 in the order of enum vseg; GDTR and IDTR have base and limit
 * only.
 */
#define SEG_FIELD(first, seg) ((enum vmcs_field)((first) + 2 * (seg)))
_Static_assert(SEG_FIELD(VMCS_GUEST_ES_LIMIT, SEG_IDTR) == VMCS_GUEST_IDTR_LIMIT,
	       "order of enum vseg");
_Static_assert(SEG_FIELD(VMCS_GUEST_ES_BASE, SEG_GDTR) == VMCS_GUEST_GDTR_BASE,
	       "order of enum vseg");

void vmx_get_seg(struct vcpu *v, enum vseg seg, struct segment *out)
{
	u64 ar;

	(void)v;
	*out = (struct segment){ .base = vmcs_read(SEG_FIELD(VMCS_GUEST_ES_BASE, seg)),
				 .limit = (u32)vmcs_read(SEG_FIELD(VMCS_GUEST_ES_LIMIT, seg)) };
	if (seg >= SEG_GDTR)
		return;
	ar = vmcs_read(SEG_FIELD(VMCS_GUEST_ES_AR, seg));
	out->selector = (u16)vmcs_read(SEG_FIELD(VMCS_GUEST_ES_SEL, seg));
	out->attr = (u16)(ar & SEG_AR_MASK);
	out->unusable = ar & SEG_AR_UNUSABLE;
}

/*
 * SDM "Checks on Guest Segment Registers" wants "accessed" in usable code and data segments and
 * "busy" in TR, as a load of the register would have left them; a caller need not know.
 */
void vmx_set_seg(struct vcpu *v, enum vseg seg, const struct segment *in)
{
	u32 ar = in->attr & SEG_AR_MASK;

	(void)v;
	vmcs_write(SEG_FIELD(VMCS_GUEST_ES_BASE, seg), in->base);
	vmcs_write(SEG_FIELD(VMCS_GUEST_ES_LIMIT, seg), in->limit);
	if (seg >= SEG_GDTR)
		return;
	if (seg == SEG_TR)
		ar |= 2;
	else if (in->unusable)
		ar |= SEG_AR_UNUSABLE;
	else if (seg != SEG_LDTR)
		ar |= 1;
	vmcs_write(SEG_FIELD(VMCS_GUEST_ES_AR, seg), ar);
	vmcs_write(SEG_FIELD(VMCS_GUEST_ES_SEL, seg), in->selector);
}
