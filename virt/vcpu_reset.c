/* SPDX-License-Identifier: MIT */
/*
 * How a vCPU begins: power-on, INIT, start-up IPI. SDM vol. 3 "Processor State After Reset" (table
 * "Processor States Following Power-up, Reset, or INIT"), "MP Initialization Protocol Algorithm".
 */
#include <asm/processor-flags.h>
#include "arch/x86/insn.h"
#include "virt/cpuid.h"
#include "virt/debug.h"
#include "virt/fpu.h"
#include "virt/ops.h"
#include "virt/vm.h"

/* What INIT leaves alone, of what ops->vcpu_reset sets. FPU, XCR0 and TSC_AUX are not touched. */
static const u8 kept_by_init[] = {
	VR_PAT,		 VR_STAR,	    VR_LSTAR,	    VR_CSTAR,
	VR_SFMASK,	 VR_KERNEL_GS_BASE, VR_SYSENTER_CS, VR_SYSENTER_ESP,
	VR_SYSENTER_EIP, VR_TSC_OFFSET,
};

void vcpu_send_init(struct vcpu *v)
{
	__atomic_fetch_and(&v->requests, ~(u32)REQ_SIPI, __ATOMIC_SEQ_CST);
	vcpu_request(v, REQ_INIT);
}

void vcpu_send_sipi(struct vcpu *v, u8 vector)
{
	WRITE_ONCE(v->sipi_vector, vector);
	vcpu_request(v, REQ_SIPI);
}

/* What power-on and INIT have in common. */
static void reset(struct vcpu *v)
{
	for (u32 i = 0; i < GPRS; i++)
		v->gpr[i] = 0;
	v->gpr[RDX] = v->vm->cpuid->basic[1].eax;
	for (u32 i = 0; i < ARRAY_SIZE(v->dr); i++)
		v->dr[i] = 0;
	v->event = (struct event){ 0 };
	v->exit.done = v->want_irq_window = v->want_nmi_window = v->nmi_pending = false;
	split_put(v); /* a pass is for the instruction that stood there */
	memory_wait_end(v);
	v->activity = v->index ? VCPU_WAIT_SIPI : VCPU_ACTIVE;
	virt_ops->vcpu_reset(v);
}

void vcpu_power_on(struct vcpu *v)
{
	/* this CPU may know translations of an earlier life, or of an earlier VM with this root */
	v->requests = REQ_FLUSH | REQ_SLOTS;
	v->kvmclock_msr = 0;
	v->launched_before = false;
	v->xcr0 = 1;
	fpu_reset(v->fpu);
	reset(v);
	virt_ops->set_reg(v, VR_TSC_OFFSET, 0 - v->vm->tsc_base);
}

/* vCPU 0 goes on at the reset vector, where a jump to it restarts the VM. */
void vcpu_take_init(struct vcpu *v)
{
	u64 kept[ARRAY_SIZE(kept_by_init)];
	u64 cr0 = virt_ops->get_reg(v, VR_CR0) & (X86_CR0_CD | X86_CR0_NW);

	for (u32 i = 0; i < ARRAY_SIZE(kept); i++)
		kept[i] = virt_ops->get_reg(v, kept_by_init[i]);
	reset(v);
	for (u32 i = 0; i < ARRAY_SIZE(kept); i++)
		virt_ops->set_reg(v, kept_by_init[i], kept[i]);
	virt_ops->set_reg(v, VR_CR0, cr0 | X86_CR0_ET);
	vcpu_load_dr(v);
	if (v->vm->debug)
		debug_vcpu_load(v);
	if (v->vm->irqchip)
		v->vm->irqchip->init(v);
}

void vcpu_take_sipi(struct vcpu *v)
{
	struct segment cs;
	u8 vector = READ_ONCE(v->sipi_vector);

	if (v->activity != VCPU_WAIT_SIPI)
		return;
	virt_ops->get_seg(v, SEG_CS, &cs);
	cs.selector = (u16)(vector << 8);
	cs.base = (u64)vector << PAGE_SHIFT;
	virt_ops->set_seg(v, SEG_CS, &cs);
	v->rip = 0;
	v->activity = VCPU_ACTIVE;
}
