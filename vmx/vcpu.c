/* SPDX-License-Identifier: MIT */
/*
 * The life of a VM and a vCPU under VMX: create, reset, load on a CPU, put, destroy. Running is in
 * run.c.
 */
#include "arch/x86/desc.h"
#include "arch/x86/msr.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

/*
 * SDM "Pause-Loop Exiting", in TSC ticks: PAUSEs less than that apart are one loop, and a loop that
 * lasts longer than a lock is usually held exits.
 */
#define PAUSE_GAP    128
#define PAUSE_WINDOW 4096

/*
 * Make x's VMCS current on this CPU for a moment, or for a stay. Returns what was current before,
 * for leave_vmcs(). On failure the VM is dead, and each access that follows reports itself.
 */
static struct vmx_vcpu *enter_vmcs(struct vmx_vcpu *x)
{
	struct vmx_vcpu *before = this_cpu(vmx_current);

	if (before != x) {
		VM_BUG_ON(x->v.vm, vmptrld(x->vmcs) != VMX_OK);
		this_cpu(vmx_current) = x;
	}
	return before;
}

static void leave_vmcs(struct vmx_vcpu *x, struct vmx_vcpu *before)
{
	if (before == x)
		return;
	VM_BUG_ON(x->v.vm, vmclear(x->vmcs) != VMX_OK);
	this_cpu(vmx_current) = before;
	if (before)
		VM_BUG_ON(before->v.vm, vmptrld(before->vmcs) != VMX_OK);
}

/* What is 0 after a reset, of the host and of the guest; a new VMCS may hold anything. */
static const u16 zero_fields[] = {
	VMCS_HOST_DS_SEL,	  VMCS_HOST_ES_SEL,
	VMCS_HOST_FS_SEL,	  VMCS_HOST_GS_SEL,
	VMCS_HOST_SYSENTER_CS,	  VMCS_HOST_SYSENTER_ESP,
	VMCS_HOST_SYSENTER_EIP,	  VMCS_HOST_FS_BASE,
	VMCS_PF_ERROR_MASK,	  VMCS_PF_ERROR_MATCH,
	VMCS_CR3_TARGET_COUNT,	  VMCS_EXIT_MSR_STORE_COUNT,
	VMCS_EXIT_MSR_LOAD_COUNT, VMCS_ENTRY_MSR_LOAD_COUNT,
	VMCS_ENTRY_INTR_INFO,	  VMCS_GUEST_INTERRUPTIBILITY,
	VMCS_GUEST_ACTIVITY,	  VMCS_GUEST_PENDING_DEBUG,
	VMCS_GUEST_DEBUGCTL,	  VMCS_GUEST_CR3,
	VMCS_GUEST_RSP,		  VMCS_GUEST_SYSENTER_CS,
	VMCS_GUEST_SYSENTER_ESP,  VMCS_GUEST_SYSENTER_EIP,
};
_Static_assert(ACTIVITY_ACTIVE == 0, "the activity state is among them");

/* SDM "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields" */
static void write_controls(struct vmx_vcpu *x)
{
	x->proc = 0;
	vmx_apicv(&x->v, NULL, NULL, 0);
	vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls.entry);
	if (vmx_controls.pause_loop) {
		vmcs_write(VMCS_PAUSE_GAP, PAUSE_GAP);
		vmcs_write(VMCS_PAUSE_WINDOW, PAUSE_WINDOW);
	}
	x->windows = 0;
	x->entry_controls = vmx_controls.entry;
	if (x->vpid)
		vmcs_write(VMCS_VPID, x->vpid);
	vmcs_write(VMCS_EPT_POINTER, x->eptp);
	vmcs_write(VMCS_EXCEPTION_BITMAP, VMX_EXCEPTIONS);
	vmcs_write(VMCS_LINK_POINTER, ~0ull);
}

/* SDM "Host-State Area": what is the same on every CPU and not 0. */
static void write_host_constants(void)
{
	vmcs_write(VMCS_HOST_CS_SEL, HOST_CS);
	vmcs_write(VMCS_HOST_SS_SEL, HOST_SS);
	vmcs_write(VMCS_HOST_TR_SEL, HOST_TSS);
	vmcs_write(VMCS_HOST_PAT, HOST_PAT);
	vmcs_write(VMCS_HOST_RIP, (u64)(uintptr_t)vmx_exit);
}

/*
 * The base of the TSS that TR selects, from the 16-byte descriptor (SDM "TSS Descriptor in 64-bit
 * mode").
 */
static u64 tss_base(const struct desc_ptr *gdt)
{
	const u64 *descriptor;
	u16 tr;

	asm volatile("str %0" : "=r"(tr));
	ASSERT(tr == HOST_TSS);
	descriptor = (const u64 *)(uintptr_t)(gdt->base + tr);
	return (descriptor[0] >> 16 & 0xffffff) | (descriptor[0] >> 56 & 0xff) << 24 |
	       descriptor[1] << 32;
}

/* ... and what belongs to the CPU on which the vCPU is now. */
static void write_host_cpu(struct vmx_vcpu *x)
{
	vmcs_write(VMCS_HOST_CR0, read_cr0());
	vmcs_write(VMCS_HOST_CR3, read_cr3());
	vmcs_write(VMCS_HOST_CR4, read_cr4());
	vmcs_write(VMCS_HOST_EFER, rdmsr(MSR_EFER));
	vmcs_write(VMCS_HOST_GS_BASE, this_cpu(percpu_offset));
	vmcs_write(VMCS_HOST_TR_BASE, tss_base(&x->host_gdt));
	vmcs_write(VMCS_HOST_GDTR_BASE, x->host_gdt.base);
	vmcs_write(VMCS_HOST_IDTR_BASE, x->host_idt.base);
}

/* ops->vcpu_create */
int vmx_vcpu_create(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);
	u32 *region = frame_alloc_zero(FRAME_HW, v->vm->id);
	struct vmx_vcpu *before;

	if (!region)
		return trace_error(-ENOMEM);
	x->vmcs = ptr_hpa(region);
	*region = vmx_controls.revision;
	if (vmclear(x->vmcs) != VMX_OK) {
		frame_free(hpa_pfn(x->vmcs), FRAME_HW, v->vm->id);
		return trace_error(-EIO);
	}
	x->vpid = vmx_controls.vpid ? vmx_vpid_alloc() : 0;
	x->proc2 = vmx_controls.proc2 & ~(u32)(x->vpid ? 0 : PROC2_VPID);
	x->eptp = v->vm->stage2.root.v | EPTP_WB | EPTP_4_LEVELS |
		  (vmx_controls.ept_ad ? EPTP_AD : 0);
	x->host_epoch = 0;
	v->loaded_cpu = CPU_NONE;
	before = enter_vmcs(x);
	write_host_constants();
	vmcs_write(VMCS_TSC_OFFSET, 0);
	leave_vmcs(x, before);
	vmx_vcpu_reset(v);
	return 0;
}

void vmx_vcpu_destroy(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);

	if (WARN_ON(v->loaded_cpu != CPU_NONE))
		return;
	vmx_vpid_free(x->vpid);
	frame_free(hpa_pfn(x->vmcs), FRAME_HW, v->vm->id);
}

/*
 * SDM "Processor State After Reset", table "IA-32 and Intel 64 Processor States Following Power-up,
 * Reset, or INIT"
 */
static void reset_segments(struct vcpu *v)
{
	struct segment seg = { .limit = 0xffff };

	vmx_set_seg(v, SEG_GDTR, &seg);
	vmx_set_seg(v, SEG_IDTR, &seg);
	seg.attr = 0x82;
	vmx_set_seg(v, SEG_LDTR, &seg);
	seg.attr = 0x8b; /* the manual's type is no TSS at all; VM entry wants a busy one */
	vmx_set_seg(v, SEG_TR, &seg);
	seg.attr = 0x93;
	for (enum vseg i = SEG_ES; i <= SEG_GS; i++)
		vmx_set_seg(v, i, &seg);
	seg = (struct segment){
		.base = 0xffff0000, .selector = 0xf000, .limit = 0xffff, .attr = 0x9b
	};
	vmx_set_seg(v, SEG_CS, &seg);
}

static void reset_registers(struct vcpu *v)
{
	vmx_set_reg(v, VR_CR4, 0);
	vmx_set_reg(v, VR_EFER, 0);
	vmx_set_reg(v, VR_CR0, X86_CR0_ET | X86_CR0_CD | X86_CR0_NW);
	vmx_set_reg(v, VR_DR7, 0x400);
	vmx_set_reg(v, VR_PAT, PAT_RESET);
	v->rip = 0xfff0;
	v->rflags = X86_EFLAGS_FIXED;
}

/*
 * ops->vcpu_reset. The TSC offset is the run loop's: it stays. Another vCPU may be loaded here; it
 * is left as it was.
 */
void vmx_vcpu_reset(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);
	struct vmx_vcpu *before = enter_vmcs(x);

	write_controls(x);
	for (u32 i = 0; i < ARRAY_SIZE(zero_fields); i++)
		vmcs_write(zero_fields[i], 0);
	vmx_reset_switched(x);
	reset_registers(v);
	reset_segments(v);
	x->vmcs_rflags = ~0ull; /* no RFLAGS look like this: the next entry writes them */
	x->v.todo = TODO_FLUSH_GUEST;
	leave_vmcs(x, before);
}

/* ops->vcpu_load */
void vmx_vcpu_load(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);

	ASSERT(!this_cpu(vmx_current) && v->loaded_cpu == CPU_NONE);
	enter_vmcs(x);
	x->launched = false;
	asm volatile("sgdt %0" : "=m"(x->host_gdt));
	asm volatile("sidt %0" : "=m"(x->host_idt));
	if (x->host_epoch != this_cpu(vmx_epoch)) {
		write_host_cpu(x);
		vmx_flush_stage2(v); /* tlb.c says why */
		x->host_epoch = this_cpu(vmx_epoch);
	}
	v->loaded_cpu = this_cpu(cpu_id);
	vmx_switched_load(x);
}

/* ops->pause_exits */
void vmx_pause_exits(struct vcpu *v, bool on)
{
	struct vmx_vcpu *x = to_vmx(v);
	u32 proc2 = x->proc2 & ~(u32)PROC2_PAUSE_LOOP;

	if (on && vmx_controls.pause_loop)
		proc2 |= PROC2_PAUSE_LOOP;
	if (proc2 != x->proc2)
		vmcs_write(VMCS_PROC_CONTROLS2, proc2);
	x->proc2 = proc2;
}

/* ops->debug_exits */
void vmx_debug_exits(struct vcpu *v, bool breakpoints, bool debug_registers)
{
	struct vmx_vcpu *x = to_vmx(v);

	vmcs_write(VMCS_EXCEPTION_BITMAP, VMX_EXCEPTIONS | (breakpoints ? BIT(3) : 0));
	x->proc = (x->proc & ~(u32)PROC_MOV_DR) | (debug_registers ? (u32)PROC_MOV_DR : 0);
	vmx_write_proc(x);
}

/*
 * ops->bus_locks (SDM "Bus-Lock Detection"): an exit follows each bus lock. The CPU of a FAULTS
 * build that pretends has no such control.
 */
bool vmx_bus_locks(struct vcpu *v, enum bus_locks what)
{
	u32 bit = fault_here(FAULT_MARKED_AC, 0, NULL) ? 0 : (u32)PROC2_BUS_LOCK, proc2;
	struct vmx_vcpu *x = to_vmx(v);

	if (!v || !vmx_controls.bus_lock)
		return vmx_controls.bus_lock;
	proc2 = (x->proc2 & ~bit) | (what == BUS_LOCKS_FREE ? 0 : bit);
	if (proc2 != x->proc2)
		vmcs_write(VMCS_PROC_CONTROLS2, proc2);
	x->proc2 = proc2;
	return true;
}

/* ops->vcpu_put: VMCLEAR writes everything back to memory, so that any CPU may load it next. */
void vmx_vcpu_put(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);

	ASSERT(this_cpu(vmx_current) == x && v->loaded_cpu == this_cpu(cpu_id));
	vmx_switched_save(x);
	leave_vmcs(x, NULL);
	v->loaded_cpu = CPU_NONE;
	/*
	 * SDM "Loading Host Segment and Descriptor-Table Registers": an exit leaves both limits at
	 * 0xffff.
	 */
	asm volatile("lgdt %0" : : "m"(x->host_gdt));
	asm volatile("lidt %0" : : "m"(x->host_idt));
}
