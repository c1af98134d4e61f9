/* SPDX-License-Identifier: MIT */
/*
 * Guest registers that VM entry and exit leave alone: the MSRs of SYSCALL, SWAPGS and RDTSCP, CR2
 * and DR6 (virt/vcpu.c does DR0-3). Corbel itself uses none of them (an exit sets DR7 to 0x400, so
 * the guest's breakpoints can't fire in Corbel), so they stay in the CPU from load to put instead
 * of being exchanged at each exit.
 */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

#define TSC_AUX_INDEX (SWITCHED_MSRS - 1) /* exists only with RDTSCP */
#define NO_VREG	      VREGS
static const struct {
	u32 msr;
	u8 reg; /* enum vreg */
} switched[SWITCHED_MSRS] = {
	{ MSR_STAR, VR_STAR },
	{ MSR_LSTAR, VR_LSTAR },
	{ MSR_CSTAR, VR_CSTAR },
	{ MSR_SFMASK, VR_SFMASK },
	{ MSR_KERNEL_GS_BASE, VR_KERNEL_GS_BASE },
	[TSC_AUX_INDEX] = { MSR_TSC_AUX, NO_VREG },
};

/* In use: all, or all but TSC_AUX. */
static u32 switched_count(void)
{
	return vmx_controls.proc2 & PROC2_RDTSCP ? SWITCHED_MSRS : TSC_AUX_INDEX;
}

/*
 * The first row is in the VMCS, saved and loaded by each exit and entry. EFER is not passed: LMA
 * and LME have consequences.
 */
bool vmx_msr_switched(u32 msr)
{
	static const u32 in_vmcs[] = {
		MSR_FS_BASE,	 MSR_GS_BASE,	   MSR_PAT,
		MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
	};

	for (u32 i = 0; i < ARRAY_SIZE(in_vmcs); i++)
		if (in_vmcs[i] == msr)
			return true;
	for (u32 i = 0; i < switched_count(); i++)
		if (switched[i].msr == msr)
			return true;
	return false;
}

/* The values came from the guest's own WRMSR or passed vmx_switched_set(): none of them faults. */
void vmx_switched_load(struct vmx_vcpu *x)
{
	for (u32 i = 0; i < switched_count(); i++)
		wrmsr(switched[i].msr, x->msr[i]);
	write_dr6(x->dr6);
	write_cr2(x->cr2);
}

void vmx_switched_save(struct vmx_vcpu *x)
{
	for (u32 i = 0; i < switched_count(); i++)
		x->msr[i] = rdmsr(switched[i].msr);
	x->dr6 = read_dr6();
	x->cr2 = read_cr2();
}

static bool loaded(struct vmx_vcpu *x)
{
	return x->v.loaded_cpu != CPU_NONE;
}

bool vmx_switched_get(struct vmx_vcpu *x, enum vreg reg, u64 *value)
{
	if (reg == VR_CR2) {
		*value = loaded(x) ? read_cr2() : x->cr2;
		return true;
	}
	if (reg == VR_DR6) {
		*value = loaded(x) ? read_dr6() : x->dr6;
		return true;
	}
	for (u32 i = 0; i < TSC_AUX_INDEX; i++) {
		if (switched[i].reg == reg) {
			*value = loaded(x) ? rdmsr(switched[i].msr) : x->msr[i];
			return true;
		}
	}
	return false;
}

static void set_msr(struct vmx_vcpu *x, u32 i, u64 value)
{
	/*
	 * virt/ has checked the value. Should it have missed one: the VM's end, not the machine's.
	 */
	if (VM_BUG_ON(x->v.vm, loaded(x) && wrmsr_safe(switched[i].msr, value)))
		return;
	x->msr[i] = value;
}

bool vmx_switched_set(struct vmx_vcpu *x, enum vreg reg, u64 value)
{
	if (reg == VR_CR2) {
		x->cr2 = value;
		if (loaded(x))
			write_cr2(value);
		return true;
	}
	if (reg == VR_DR6) {
		x->dr6 = (u32)value; /* the upper half must be 0: MOV to DR6 faults otherwise */
		if (loaded(x))
			write_dr6(x->dr6);
		return true;
	}
	for (u32 i = 0; i < TSC_AUX_INDEX; i++) {
		if (switched[i].reg == reg) {
			set_msr(x, i, value);
			return true;
		}
	}
	return false;
}

/* SDM "Processor State After Reset"; TSC_AUX, which INIT keeps, is 0 from its creation only. */
void vmx_reset_switched(struct vmx_vcpu *x)
{
	for (u32 i = 0; i < TSC_AUX_INDEX; i++)
		set_msr(x, i, 0);
	vmx_switched_set(x, VR_DR6, 0xffff0ff0);
	vmx_switched_set(x, VR_CR2, 0);
}
