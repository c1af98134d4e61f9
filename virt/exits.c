/* SPDX-License-Identifier: MIT */
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "arch/x86/trap.h"
#include "lib/error.h"
#include "mm/frames.h"
#include "virt/cpuid.h"
#include "virt/debug.h"
#include "virt/exits.h"
#include "virt/fpu.h"
#include "virt/guestmem.h"
#include "virt/msr_policy.h"
#include "virt/ops.h"
#include "virt/sched.h"
#include "virt/slots.h"

#define KVM_ENOSYS 1000
/* SDM "First Instruction Executed"; FFFF:0000 has a stub, dev/platform.c */
#define RESET_VECTOR 0xfffffff0ul

enum x_split x_split;

/* The interrupt itself is taken here, by the host's IDT; what it wants done may need this CPU. */
void vcpu_take_irqs(struct vcpu *v)
{
	irq_window();
	if (sched_work_pending())
		vcpu_request_own(v, REQ_RESCHED);
}

static void exit_irq(struct vcpu *v)
{
	u8 vector = v->exit.irq;

	v->exit.irq = 0;
	if (vector)
		irq_taken(vector);
	vcpu_take_irqs(v);
}

static void exit_nothing(struct vcpu *v)
{
	(void)v;
}

static void exit_window(struct vcpu *v)
{
	v->want_irq_window = v->want_nmi_window = false;
	vcpu_request_own(v, REQ_EVENT);
}

static void set_cpuid(struct vcpu *v, const struct cpuid_regs *r)
{
	v->gpr[RAX] = r->eax;
	v->gpr[RBX] = r->ebx;
	v->gpr[RCX] = r->ecx;
	v->gpr[RDX] = r->edx;
	vcpu_skip(v);
}

static NOINLINE void compose_cpuid(struct vcpu *v)
{
	struct cpuid_regs r;

	fpu_read_xcr0(v); /* leaf 0xD tells sizes by it */
	cpuid_execute(v, (u32)v->gpr[RAX], (u32)v->gpr[RCX], &r);
	set_cpuid(v, &r);
}

static void exit_cpuid(struct vcpu *v)
{
	u64 leaf = (u32)v->gpr[RAX];

	if (likely(cpuid_is_fixed(leaf)))
		set_cpuid(v, &v->vm->cpuid->basic[leaf]);
	else
		compose_cpuid(v);
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
	u64 mask = MASK(size * 8 - 1, 0), value;

	if (unlikely(v->exit.io.string)) {
		string_io_execute(v);
		return;
	}
	if (v->exit.io.in) {
		if (unlikely(io_read(v, IO_PORT, v->exit.io.port, size, &value)))
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
	int err = guest_wrmsr(v, (u32)v->gpr[RCX], (u32)v->gpr[RAX] | v->gpr[RDX] << 32);

	if (!err)
		vcpu_skip(v);
	else if (err != -EAGAIN) /* it waits for memory: the same again */
		vcpu_gp(v);
}

static void exit_hlt(struct vcpu *v)
{
	vcpu_skip(v);
	/* the trap of a single step ends the halt at once */
	v->activity = v->event.valid ? VCPU_ACTIVE : VCPU_IN_HLT;
	/* What is pending now must not sleep: looked at before the vCPU gives the CPU up. */
	vcpu_request_own(v, REQ_EVENT);
}

static void no_memory(struct vcpu *v)
{
	u64 gpa = v->exit.fault.gpa.v;

	if (v->exit.fault.walk || (v->exit.fault.access == ACCESS_X && gpa != RESET_VECTOR))
		vcpu_trace(v, TRACE_MEMORY_FAULT, v->exit.fault.access, gpa, v->rip);
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

/* The memory is there and can't be used like this; waits, or stops the VM. */
static void denied(struct vcpu *v, u8 kind)
{
	const struct memory_fault fault = { .gpa = v->exit.fault.gpa,
					    .access = v->exit.fault.access,
					    .kind = kind,
					    .gva = v->exit.fault.gva,
					    .gva_valid = v->exit.fault.gva_valid,
					    .walk = v->exit.fault.walk };
	const struct memslot *s = vm_slot(v->vm, fault.gpa);

	/*
	 * A write to a read-only slot does nothing, as on a PC's ROM; the guest's tables can't be
	 * there.
	 */
	if (kind == MEMORY_READONLY && s && s->flags & SLOT_READONLY && !fault.walk)
		mmio_execute(v);
	else
		memory_fault(v, &fault);
}

/* The 2 MiB around gfn become leaves of 4 KiB, in which the guest may execute. 0 or -ENOMEM. */
static int map_exec(struct vm *vm, u64 gfn, u64 pfn)
{
	u64 offset = gfn % EXTENT_FRAMES;
	struct flush_debt debt;
	int err = stage2_split_exec(&vm->stage2, GFN(gfn), &debt);
	bool done = debt.generation != 0;

	vm_pay_flush(vm, &debt);
	/*
	 * Leaves of 4 KiB stood there already. What is none of these any more, somebody else
	 * changed: the guest faults again.
	 */
	for (u64 i = 0; i < EXTENT_FRAMES && !err && !done; i++)
		(void)stage2_change_leaf(&vm->stage2, GFN(gfn - offset + i), 1,
					 PFN(pfn - offset + i), S2_RWX, S2_X, false);
	return err;
}

/* One leaf of that level around gpa. */
static INLINE int map_level(struct vm *vm, gpa_t gpa, const struct guest_frame *f, u8 level)
{
	u8 prot = level > 1 && x_split == X_SPLIT_ON ? f->prot & (u8)~S2_X : f->prot;

	return unlikely(f->inherited)
		       ? guest_map_inherited(vm, gpa, f->pfn, prot, level)
		       : stage2_map_leaf(&vm->stage2, gpa_gfn(gpa), f->pfn, prot, level);
}

/*
 * What a leaf of f->level was not all for, or could not be (err). If something else stands in a
 * part of it, a smaller one. A GiB that has been mapped in leaves of 2 MiB becomes one leaf, unless
 * another CPU is at it.
 */
static NOINLINE int map_more(struct vm *vm, gpa_t gpa, const struct guest_frame *f, u8 access,
			     int err)
{
	bool exec = access == ACCESS_X && f->prot & S2_X;
	struct flush_debt debt;
	gfn_t gfn = gpa_gfn(gpa);
	u8 level = f->level;

	while (err == -EEXIST && --level)
		err = map_level(vm, gpa, f, level);
	if (!err && level == 3 && !stage2_merge(&vm->stage2, gfn, 3, &debt))
		vm_pay_flush(vm, &debt);
	if (exec && f->level > 1 && x_split == X_SPLIT_ON && (!err || err == -EEXIST))
		err = map_exec(vm, gfn.v, f->pfn.v);
	else if (exec && err == -EEXIST)
		/* what is left of a larger leaf, a page of which was copied */
		(void)stage2_change_leaf(&vm->stage2, gfn, 1, f->pfn, S2_RWX, S2_X, false);
	return err;
}

/*
 * A page that is written, in a slot that is logged. A leaf without the right to write may stand
 * there; `mapped` only says what to try first.
 */
static NOINLINE int map_logged(struct vm *vm, gpa_t gpa, bool mapped, pfn_t pfn, u8 prot)
{
	gfn_t gfn = gpa_gfn(gpa);
	int err = mapped ? -EEXIST : stage2_map_leaf(&vm->stage2, gfn, pfn, prot, 1);

	if (err == -EEXIST && !stage2_change_leaf(&vm->stage2, gfn, 1, pfn, S2_RWX, S2_W, false))
		err = stage2_map_leaf(&vm->stage2, gfn, pfn, prot, 1);
	guest_logged(vm, gpa);
	return err;
}

/* The leaf that the access needs. */
static void map_fault(struct vcpu *v, gpa_t gpa, u8 access, bool mapped,
		      const struct guest_frame *f)
{
	int err = unlikely(f->logged) ? map_logged(v->vm, gpa, mapped, f->pfn, f->prot)
				      : map_level(v->vm, gpa, f, f->level);

	if (unlikely(err || f->level == 3 || access == ACCESS_X))
		err = map_more(v->vm, gpa, f, access, err);
	vcpu_trace(v, TRACE_MAP, f->level, gpa_gfn(gpa).v, f->pfn.v);
	/*
	 * -EEXIST: another vCPU was faster, or made it weaker meanwhile: what the guest does next
	 * tells.
	 */
	if (err && err != -EEXIST)
		vm_stop(v->vm, STOP_INTERNAL, "cannot map gpa %#lx: error %d", gpa.v, err);
}

static void exit_stage2_fault(struct vcpu *v)
{
	gpa_t gpa = v->exit.fault.gpa;
	struct guest_frame f;
	u8 kind = guest_frame(v->vm, gpa, v->exit.fault.access, &f);

	if (kind == MEMORY_NO_MEMORY)
		no_memory(v);
	else if (kind != MEMORY_OK)
		denied(v, kind);
	else
		map_fault(v, gpa, v->exit.fault.access, v->exit.fault.mapped, &f);
}

void exit_memory_came(struct vcpu *v)
{
	const struct memory_fault *w = &v->wait.fault;
	struct guest_frame f;

	if (v->exit.kind == EXIT_STAGE2_FAULT &&
	    guest_frame(v->vm, w->gpa, w->access, &f) == MEMORY_OK)
		map_fault(v, w->gpa, w->access, false, &f);
}

/*
 * #AC and #DB are intercepted so that their delivery can't loop inside the CPU: they go on to the
 * guest. So does any other, of the one instruction that is let through. But a split lock is #AC
 * too, and #DB and #BP may be a debugger's.
 */
static void exit_exception(struct vcpu *v)
{
	if (v->exit.exception.vector == 17 && split_fault(v))
		return;
	if (unlikely(v->vm->debug) && debug_exception(v))
		return;
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
	u64 value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32;

	/* SVM may intercept before it looks at OSXSAVE and CPL: no user program gets through here
	 */
	if (!(virt_ops->get_reg(v, VR_CR4) & X86_CR4_OSXSAVE)) {
		vcpu_ud(v);
		return;
	}
	if (vcpu_cpl(v) || (u32)v->gpr[RCX] || !fpu_xcr0_valid(value, v->vm->cpuid->xcr0)) {
		vcpu_gp(v);
		return;
	}
	v->xcr0 = value;
	xsetbv0(value);
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
	vcpu_request_own(v, REQ_RESCHED);
}

static void exit_apic_eoi(struct vcpu *v)
{
	v->vm->irqchip->eoi(v, (u8)v->exit.qualification);
}

static void exit_apic_write(struct vcpu *v)
{
	v->vm->irqchip->written(v, (u32)v->exit.qualification);
}

/*
 * A guest that wants to restart by a triple fault (Linux reboot=t) loads an IDT of limit 0 first;
 * any other triple fault is a crash.
 */
void (*vcpu_dump_hook)(struct vcpu *v);

static void dump(struct vcpu *v)
{
	virt_ops->dump(v);
	if (vcpu_dump_hook)
		vcpu_dump_hook(v);
}

static void exit_triple_fault(struct vcpu *v)
{
	struct segment idtr;

	virt_ops->get_seg(v, SEG_IDTR, &idtr);
	if (idtr.limit == 0) {
		vm_stop(v->vm, STOP_RESET, "deliberate triple fault (IDT limit 0)");
		return;
	}
	dump(v);
	vm_stop(v->vm, STOP_TRIPLE_FAULT, "triple fault at rip %#lx", v->rip);
}

static void exit_failed(struct vcpu *v)
{
	dump(v);
	if (v->exit.kind == EXIT_ENTRY_FAILED)
		vm_stop(v->vm, STOP_ENTRY_FAILED,
			"the CPU refuses the guest's state: reason %#lx, detail %#lx, rip %#lx",
			v->exit.raw, v->exit.qualification, v->rip);
	else
		vm_stop(v->vm, STOP_INTERNAL, "unexpected exit: reason %#lx, detail %#lx, rip %#lx",
			v->exit.raw, v->exit.qualification, v->rip);
}

/*
 * Each kind: its name, and who handles it. A PAUSE is executed again, harmlessly. INVD is skipped:
 * guest memory is coherent, and the host's lines must not be dropped. MONITOR, MWAIT and counters
 * are not offered.
 */
#define EXITS(X)                                           \
	X(IRQ, "irq", exit_irq)                            \
	X(NMI, "nmi", exit_nothing)                        \
	X(IRQ_WINDOW, "irq-window", exit_window)           \
	X(NMI_WINDOW, "nmi-window", exit_window)           \
	X(CPUID, "cpuid", exit_cpuid)                      \
	X(HYPERCALL, "hypercall", exit_hypercall)          \
	X(IO, "io", exit_io)                               \
	X(MSR_READ, "rdmsr", exit_rdmsr)                   \
	X(MSR_WRITE, "wrmsr", exit_wrmsr)                  \
	X(HLT, "hlt", exit_hlt)                            \
	X(STAGE2_FAULT, "stage2-fault", exit_stage2_fault) \
	X(EXCEPTION, "exception", exit_exception)          \
	X(CR_ACCESS, "cr-access", cr_access)               \
	X(XSETBV, "xsetbv", exit_xsetbv)                   \
	X(PAUSE, "pause", sched_yield)                     \
	X(MONITOR, "monitor", exit_ud)                     \
	X(MWAIT, "mwait", exit_ud)                         \
	X(INVD, "invd", vcpu_skip)                         \
	X(RDPMC, "rdpmc", exit_gp)                         \
	X(VIRT_INSN, "virt-insn", exit_ud)                 \
	X(APIC_EOI, "apic-eoi", exit_apic_eoi)             \
	X(APIC_WRITE, "apic-write", exit_apic_write)       \
	X(TASK_SWITCH, "task-switch", task_switch)         \
	X(TRIPLE_FAULT, "triple-fault", exit_triple_fault) \
	X(TIMER, "timer", exit_yield)                      \
	X(BUS_LOCK, "bus-lock", split_bus_lock)            \
	X(BUS_LOCKED, "bus-locked", exit_nothing)          \
	X(STEP, "step", exit_nothing)                      \
	X(DR_ACCESS, "dr-access", debug_dr_access)         \
	X(ENTRY_FAILED, "entry-failed", exit_failed)       \
	X(UNEXPECTED, "unexpected", exit_failed)

#define HANDLER(kind, name, handler) [EXIT_##kind] = handler,
#define NAME(kind, name, handler)    [EXIT_##kind] = name,

void (*const exit_handlers[EXIT_KINDS])(struct vcpu *v) = { EXITS(HANDLER) };

const char *exit_kind_name(enum exit_kind kind)
{
	static const char *const names[EXIT_KINDS] = { EXITS(NAME) };

	return kind < EXIT_KINDS ? names[kind] : "?";
}
