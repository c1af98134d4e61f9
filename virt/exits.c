/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "lib/error.h"
#include "lib/log.h"
#include "virt/cpuid.h"
#include "virt/exits.h"
#include "virt/fpu.h"
#include "virt/guestmem.h"
#include "virt/msr_policy.h"
#include "virt/ops.h"
#include "virt/sched.h"

#define KVM_ENOSYS 1000
#define DR7_GD	   BIT(13)
/* SDM "First Instruction Executed"; FFFF:0000 has a stub, dev/platform.c */
#define RESET_VECTOR 0xfffffff0ul

static const char *const kind_names[EXIT_KINDS] = {
	[EXIT_IRQ] = "irq",
	[EXIT_NMI] = "nmi",
	[EXIT_IRQ_WINDOW] = "irq-window",
	[EXIT_NMI_WINDOW] = "nmi-window",
	[EXIT_CPUID] = "cpuid",
	[EXIT_HYPERCALL] = "hypercall",
	[EXIT_IO] = "io",
	[EXIT_MSR_READ] = "rdmsr",
	[EXIT_MSR_WRITE] = "wrmsr",
	[EXIT_HLT] = "hlt",
	[EXIT_STAGE2_FAULT] = "stage2-fault",
	[EXIT_EXCEPTION] = "exception",
	[EXIT_CR_ACCESS] = "cr-access",
	[EXIT_XSETBV] = "xsetbv",
	[EXIT_PAUSE] = "pause",
	[EXIT_MONITOR] = "monitor",
	[EXIT_MWAIT] = "mwait",
	[EXIT_INVD] = "invd",
	[EXIT_RDPMC] = "rdpmc",
	[EXIT_VIRT_INSN] = "virt-insn",
	[EXIT_TASK_SWITCH] = "task-switch",
	[EXIT_TRIPLE_FAULT] = "triple-fault",
	[EXIT_TIMER] = "timer",
	[EXIT_ENTRY_FAILED] = "entry-failed",
	[EXIT_UNEXPECTED] = "unexpected",
};

const char *exit_kind_name(enum exit_kind kind)
{
	return kind < EXIT_KINDS ? kind_names[kind] : "?";
}

/* The interrupt itself is taken here, by the host's IDT; what it wants done may need this CPU. */
void vcpu_take_irqs(struct vcpu *v)
{
	irq_window();
	if (sched_work_pending())
		__atomic_fetch_or(&v->requests, REQ_RESCHED, __ATOMIC_RELAXED);
}

static void exit_nothing(struct vcpu *v)
{
	(void)v;
}

static void exit_window(struct vcpu *v)
{
	v->want_irq_window = v->want_nmi_window = false;
	__atomic_fetch_or(&v->requests, REQ_EVENT, __ATOMIC_RELAXED);
}

static void exit_cpuid(struct vcpu *v)
{
	u32 leaf = (u32)v->gpr[RAX];
	const struct cpuid_regs *r = cpuid_fixed(v->vm->cpuid, leaf);
	struct cpuid_regs buf;

	if (!r) {
		fpu_read_xcr0(v); /* leaf 0xD tells sizes by it */
		cpuid_execute(v, leaf, (u32)v->gpr[RCX], &buf);
		r = &buf;
	}
	v->gpr[RAX] = r->eax;
	v->gpr[RBX] = r->ebx;
	v->gpr[RCX] = r->ecx;
	v->gpr[RDX] = r->edx;
	vcpu_skip(v);
}

/* No hypercall is offered yet; KVM's answer to an unknown number is what guests understand. */
static void exit_hypercall(struct vcpu *v)
{
	v->gpr[RAX] = (u64)-KVM_ENOSYS;
	vcpu_skip(v);
}

static void exit_io(struct vcpu *v)
{
	u32 size = v->exit.io.size;
	u64 mask = MASK(size * 8 - 1, 0), value = mask;

	if (unlikely(v->exit.io.string)) {
		string_io_execute(v);
		return;
	}
	if (v->exit.io.in) {
		if (io_read(v, IO_PORT, v->exit.io.port, size, &value))
			value = mask;
		/* A 32-bit result clears the upper half, smaller ones leave it. */
		v->gpr[RAX] = size == 4 ? (u32)value : (v->gpr[RAX] & ~mask) | (value & mask);
	} else {
		io_write(v, IO_PORT, v->exit.io.port, size, v->gpr[RAX] & mask);
	}
	vcpu_skip(v);
}

static void exit_rdmsr(struct vcpu *v)
{
	u64 value;

	if (guest_rdmsr(v, (u32)v->gpr[RCX], &value)) {
		vcpu_gp(v);
		return;
	}
	v->gpr[RAX] = (u32)value;
	v->gpr[RDX] = value >> 32;
	vcpu_skip(v);
}

static void exit_wrmsr(struct vcpu *v)
{
	if (guest_wrmsr(v, (u32)v->gpr[RCX], (u32)v->gpr[RAX] | v->gpr[RDX] << 32))
		vcpu_gp(v);
	else
		vcpu_skip(v);
}

static void exit_hlt(struct vcpu *v)
{
	vcpu_skip(v);
	/* the trap of a single step ends the halt at once */
	v->activity = v->event.valid ? VCPU_ACTIVE : VCPU_IN_HLT;
	/* What is pending now must not sleep: looked at before the vCPU gives the CPU up. */
	__atomic_fetch_or(&v->requests, REQ_EVENT, __ATOMIC_RELAXED);
}

static void no_memory(struct vcpu *v)
{
	u64 gpa = v->exit.fault.gpa.v;

	if (v->exit.fault.access == ACCESS_X && gpa == RESET_VECTOR)
		vm_stop(v->vm, STOP_RESET, "jump to the reset vector");
	else if (v->exit.fault.access == ACCESS_X)
		vm_stop(v->vm, STOP_MEMORY_FAULT,
			"executes at gpa %#lx (rip %#lx), where no memory is", gpa, v->rip);
	else if (v->exit.fault.walk)
		vm_stop(v->vm, STOP_MEMORY_FAULT,
			"has page tables at gpa %#lx (rip %#lx), where no memory is", gpa, v->rip);
	else
		mmio_execute(v);
}

static void exit_stage2_fault(struct vcpu *v)
{
	gpa_t gpa = v->exit.fault.gpa;
	u64 frames;
	pfn_t pfn;
	u8 prot, level;
	int err;

	if (guest_frame(v->vm, gpa, &pfn, &prot, &level)) {
		no_memory(v);
		return;
	}
	if (v->exit.fault.access == ACCESS_W && !(prot & S2_W)) {
		/*
		 * A write to read-only memory does nothing, as on a PC's ROM; the guest's tables
		 * can't be there.
		 */
		if (v->exit.fault.walk)
			vm_stop(v->vm, STOP_MEMORY_FAULT,
				"has page tables in read-only memory at gpa %#lx", gpa.v);
		else
			mmio_execute(v);
		return;
	}
	/* Map the whole piece of its level, from its start. */
	frames = 1ull << (9 * (level - 1));
	err = stage2_map(&v->vm->stage2, GFN(gpa_gfn(gpa).v & ~(frames - 1)),
			 PFN(pfn.v & ~(frames - 1)), frames, prot, S2_WB, level);
	/*
	 * -EEXIST: another vCPU was faster, or made it weaker meanwhile: what the guest does next
	 * tells.
	 */
	if (err && err != -EEXIST)
		vm_stop(v->vm, STOP_INTERNAL, "cannot map gpa %#lx: error %d", gpa.v, err);
}

/*
 * #AC and #DB are intercepted only so that their delivery can't loop inside the CPU: they go on to
 * the guest.
 */
static void exit_exception(struct vcpu *v)
{
	if (v->exit.exception.vector == 1) {
		virt_ops->set_reg(v, VR_DR6, virt_ops->get_reg(v, VR_DR6) | v->exit.exception.dr6);
		/* Delivery clears GD (SDM "Debug Control Register"); injection does not. */
		virt_ops->set_reg(v, VR_DR7, virt_ops->get_reg(v, VR_DR7) & ~(u64)DR7_GD);
	}
	vcpu_exception(v, v->exit.exception.vector, v->exit.exception.has_error,
		       v->exit.exception.error);
	/* INT1 is injected as what it is: past the instruction */
	v->event.insn_len = v->exit.insn_len;
}

static void exit_xsetbv(struct vcpu *v)
{
	u64 value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32, allowed = v->vm->cpuid->xcr0;

	/* SVM may intercept before it looks at OSXSAVE and CPL: no user program gets through here
	 */
	if (!(virt_ops->get_reg(v, VR_CR4) & X86_CR4_OSXSAVE)) {
		vcpu_ud(v);
		return;
	}
	/*
	 * SDM "XSETBV": x87 always; AVX needs SSE; the AVX-512 parts only together, and with AVX.
	 */
	if (vcpu_cpl(v) || (u32)v->gpr[RCX] || !(value & 1) || (value & ~allowed) ||
	    ((value & 4) && !(value & 2)) ||
	    ((value & 0xe0) && ((value & 0xe0) != 0xe0 || !(value & 4))) ||
	    ((value & 0x18) && (value & 0x18) != 0x18)) {
		vcpu_gp(v);
		return;
	}
	v->xcr0 = value;
	xsetbv0(value);
	vcpu_skip(v);
}

static void exit_skip(struct vcpu *v)
{
	vcpu_skip(v);
}

static void exit_gp(struct vcpu *v)
{
	vcpu_gp(v);
}

static void exit_ud(struct vcpu *v)
{
	vcpu_ud(v);
}

static void exit_yield(struct vcpu *v)
{
	__atomic_fetch_or(&v->requests, REQ_RESCHED, __ATOMIC_RELAXED);
}

static void exit_task_switch(struct vcpu *v)
{
	vm_stop(v->vm, STOP_INTERNAL, "hardware task switch at rip %#lx: not supported", v->rip);
}

/*
 * A guest that wants to restart by a triple fault (Linux reboot=t) loads an IDT of limit 0 first;
 * any other triple fault is a crash.
 */
static void exit_triple_fault(struct vcpu *v)
{
	struct segment idtr;

	virt_ops->get_seg(v, SEG_IDTR, &idtr);
	if (idtr.limit == 0)
		vm_stop(v->vm, STOP_RESET, "deliberate triple fault (IDT limit 0)");
	else
		vm_stop(v->vm, STOP_TRIPLE_FAULT, "triple fault at rip %#lx", v->rip);
}

static void exit_failed(struct vcpu *v)
{
	virt_ops->dump(v);
	if (v->exit.kind == EXIT_ENTRY_FAILED)
		vm_stop(v->vm, STOP_ENTRY_FAILED,
			"the CPU refuses the guest's state: reason %#lx, detail %#lx, rip %#lx",
			v->exit.raw, v->exit.qualification, v->rip);
	else
		vm_stop(v->vm, STOP_INTERNAL, "unexpected exit: reason %#lx, detail %#lx, rip %#lx",
			v->exit.raw, v->exit.qualification, v->rip);
}

void (*const exit_handlers[EXIT_KINDS])(struct vcpu *v) = {
	[EXIT_IRQ] = vcpu_take_irqs,
	[EXIT_NMI] = exit_nothing,
	[EXIT_IRQ_WINDOW] = exit_window,
	[EXIT_NMI_WINDOW] = exit_window,
	[EXIT_CPUID] = exit_cpuid,
	[EXIT_HYPERCALL] = exit_hypercall,
	[EXIT_IO] = exit_io,
	[EXIT_MSR_READ] = exit_rdmsr,
	[EXIT_MSR_WRITE] = exit_wrmsr,
	[EXIT_HLT] = exit_hlt,
	[EXIT_STAGE2_FAULT] = exit_stage2_fault,
	[EXIT_EXCEPTION] = exit_exception,
	[EXIT_CR_ACCESS] = cr_access,
	[EXIT_XSETBV] = exit_xsetbv,
	[EXIT_PAUSE] = exit_yield, /* the instruction is executed again, harmlessly */
	[EXIT_MONITOR] = exit_ud,  /* not offered in CPUID */
	[EXIT_MWAIT] = exit_ud,
	[EXIT_INVD] = exit_skip, /* guest memory is coherent; INVD must not drop the host's lines */
	[EXIT_RDPMC] = exit_gp,	 /* no counters are offered */
	[EXIT_VIRT_INSN] = exit_ud,
	[EXIT_TASK_SWITCH] = exit_task_switch,
	[EXIT_TRIPLE_FAULT] = exit_triple_fault,
	[EXIT_TIMER] = exit_yield,
	[EXIT_ENTRY_FAILED] = exit_failed,
	[EXIT_UNEXPECTED] = exit_failed,
};
