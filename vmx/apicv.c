/* SPDX-License-Identifier: MIT */
/*
 * APIC virtualization (SDM vol. 3 "APIC Virtualization and Virtual Interrupts") of a guest in
 * x2APIC mode: TPR shadow, virtualized x2APIC mode, APIC-register virtualization, and
 * virtual-interrupt delivery; all four or none; and posted interrupts, where the CPU has them, too.
 * What the CPU does not do alone, ICR and timer among it, exits as without.
 */
#include "arch/x86/trap.h"
#include "mm/phys.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

#define MSR_X2APIC	 0x800
#define APIC_TMR	 0x180 /* offset in the page: 8 words at steps of 16 */
#define STATUS_RVI	 0xffu /* SDM "Guest Interrupt Status" */
#define STATUS_SVI_SHIFT 8

/*
 * SDM "Virtualizing MSR-Based APIC Accesses". Reads are of the page, and of 8 bytes: not the ICR,
 * whose halves lie apart, nor the timer's current count, which is computed.
 */
void vmx_apicv_bitmap(u64 *bitmap)
{
	static const struct {
		u8 first, last; /* MSR - 0x800 */
		bool read, write;
	} passed[] = {
		{ 0x02, 0x03, true, false }, /* id, version */
		{ 0x08, 0x08, true, true },  /* TPR */
		{ 0x0a, 0x0a, true, false }, /* PPR */
		{ 0x0b, 0x0b, false, true }, /* EOI */
		{ 0x0d, 0x0d, true, false }, /* LDR */
		{ 0x0f, 0x28, true, false }, /* SVR, ISR, TMR, IRR, ESR */
		{ 0x3f, 0x3f, false, true }, /* self-IPI */
	};

	for (u32 i = 0; i < ARRAY_SIZE(passed); i++)
		for (u32 msr = passed[i].first; msr <= passed[i].last; msr++)
			vmx_msr_pass(bitmap, MSR_X2APIC + msr, passed[i].read, passed[i].write);
}

static void start(struct vmx_vcpu *x, u8 in_service)
{
	vmcs_write(VMCS_VIRTUAL_APIC, ptr_hpa((void *)x->apic).v);
	vmcs_write(VMCS_TPR_THRESHOLD, 0);
	vmcs_write(VMCS_GUEST_INTR_STATUS, (u64)in_service << STATUS_SVI_SHIFT);
	for (u32 i = 0; i < ARRAY_SIZE(x->eoi_exit); i++) {
		x->eoi_exit[i] = 0;
		vmcs_write(VMCS_EOI_EXIT0 + 2 * i, 0);
	}
}

/* ops->apicv; the VMCS is current. Also what a new VMCS gets. */
void vmx_apicv(struct vcpu *v, const void *page, const void *posted, u8 in_service)
{
	struct vmx_vcpu *x = to_vmx(v);

	v->apicv = page && vmx_controls.apicv;
	WRITE_ONCE(v->posts, v->apicv && vmx_controls.posted && v->vm->posted);
	x->apic = page;
	x->proc = vmx_controls.proc | (x->proc & (u32)PROC_MOV_DR);
	x->proc2 &= ~(u32)APICV_PROC2;
	if (v->apicv) {
		start(x, in_service);
		x->proc = (x->proc | APICV_PROC) & ~(u32)APICV_PROC_OFF;
		x->proc2 |= APICV_PROC2;
	}
	if (v->posts) {
		vmcs_write(VMCS_NOTIFY_VECTOR, VECTOR_NOTIFY);
		vmcs_write(VMCS_POSTED_DESCRIPTOR, ptr_hpa((void *)posted).v);
	}
	x->windows = 0;
	/* SDM "Posted-Interrupt Processing": the CPU has to know the vector to tell them apart */
	vmcs_write(VMCS_PIN_CONTROLS, vmx_controls.pin | (v->posts ? PIN_POSTED : 0));
	vmcs_write(VMCS_EXIT_CONTROLS, vmx_controls.exit | (v->posts ? EXIT_CTL_ACK : 0));
	vmcs_write(VMCS_PROC_CONTROLS, x->proc);
	vmcs_write(VMCS_PROC_CONTROLS2, x->proc2);
	vmcs_write(VMCS_MSR_BITMAP,
		   v->apicv ? vmx_controls.apicv_bitmap.v : vmx_controls.msr_bitmap.v);
}

/* ops->apicv_requested. The CPU evaluates what is pending at each entry. */
void vmx_apicv_requested(struct vcpu *v, u8 requested)
{
	struct vmx_vcpu *x = to_vmx(v);
	u64 status = vmcs_read(VMCS_GUEST_INTR_STATUS);

	if ((u8)status != requested)
		vmcs_write(VMCS_GUEST_INTR_STATUS, (status & ~(u64)STATUS_RVI) | requested);
	for (u32 i = 0; i < ARRAY_SIZE(x->eoi_exit); i++) {
		const u32 *tmr = &x->apic[(APIC_TMR + 32 * i) / 4];
		u64 level = READ_ONCE(tmr[0]) | (u64)READ_ONCE(tmr[4]) << 32;

		if (level == x->eoi_exit[i])
			continue;
		x->eoi_exit[i] = level;
		vmcs_write(VMCS_EOI_EXIT0 + 2 * i, level);
	}
}
