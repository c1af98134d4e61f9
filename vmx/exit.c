/* SPDX-License-Identifier: MIT */
/*
 * From VMX exit reasons to the neutral kinds of virt/exit.h (SDM app. C "VMX Basic Exit Reasons";
 * "Basic VM-Exit Information"). Fields of the VMCS are read only for the reasons that define them.
 */
#include "arch/x86/debugreg.h"
#include "arch/x86/trap.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

const char *vmx_exit_reason_name(u32 reason)
{
	static const struct {
		u32 reason;
		const char *name;
	} names[] = { VMX_EXIT_REASONS };

	for (u32 i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].reason == (reason & 0xffff))
			return names[i].name;
	return "?";
}

static void set_nmi_blocking(bool on)
{
	u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY) & ~INTERRUPTIBILITY_NMI;

	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, state | (on ? INTERRUPTIBILITY_NMI : 0));
}

/*
 * SDM "Information for VM Exits That Occur During Event Delivery": the event has not happened. An
 * NMI that was being delivered blocks NMIs already, which would make its second injection fail (SDM
 * "Checks on Guest Non-Register State").
 */
static NOINLINE void put_back(struct vmx_vcpu *x, u32 info)
{
	u32 type = INTR_TYPE(info);
	bool has_error = info & INTR_ERROR_VALID;
	bool soft = type >= INTR_TYPE_SOFT_INT;

	x->v.event = (struct event){
		.valid = true,
		.type = (u8)(type > INTR_TYPE_SOFT_INT ? EVENT_EXCEPTION : type),
		.vector = (u8)(info & INTR_VECTOR),
		.has_error = has_error,
		.error = has_error ? (u32)vmcs_read(VMCS_IDT_VECTORING_ERROR) : 0,
		.insn_len = soft ? (u8)vmcs_read(VMCS_EXIT_INSN_LEN) : 0,
	};
	if (type == INTR_TYPE_NMI)
		set_nmi_blocking(false);
}

/*
 * SDM "Information About NMI Unblocking Due to IRET": the guest's IRET ended the blocking and then
 * faulted; it will be executed again, so NMIs stay blocked.
 */
static void restore_nmi_blocking(struct vmx_vcpu *x, u64 info)
{
	if (unlikely(info & INTR_NMI_UNBLOCK) && !x->v.event.valid)
		set_nmi_blocking(true);
}

static u8 insn_len(void)
{
	return (u8)vmcs_read(VMCS_EXIT_INSN_LEN);
}

/* For reasons that can interrupt the delivery of an event. */
static void check_delivery(struct vmx_vcpu *x)
{
	u32 info = (u32)vmcs_read(VMCS_IDT_VECTORING_INFO);

	if (unlikely(info & INTR_VALID))
		put_back(x, info);
}

static void no_detail(struct vmx_vcpu *x)
{
	x->v.exit.insn_len = 0;
}

/* A vector there is with EXIT_CTL_ACK only. */
static void irq_detail(struct vmx_vcpu *x)
{
	u32 info = (u32)vmcs_read(VMCS_EXIT_INTR_INFO);

	x->v.exit.insn_len = 0;
	x->v.exit.irq = info & INTR_VALID ? info & INTR_VECTOR : 0;
	check_delivery(x);
}

/*
 * SDM "Information for VM Exits Due to Vectored Events". Host NMIs and machine checks are handled
 * here and now.
 */
static void exception_detail(struct vmx_vcpu *x)
{
	struct vm_exit *e = &x->v.exit;
	u32 info = (u32)vmcs_read(VMCS_EXIT_INTR_INFO);
	u8 vector = (u8)(info & INTR_VECTOR);
	bool has_error = info & INTR_ERROR_VALID;

	e->insn_len = INTR_TYPE(info) >= INTR_TYPE_PRIV_EXCEPTION ? insn_len() : 0;
	check_delivery(x);
	if (INTR_TYPE(info) == INTR_TYPE_NMI || vector == 18) {
		/* Both are the host's; the guest has nothing to do with them and goes on. */
		e->kind = EXIT_NMI;
		if (vector == 18)
			machine_check_from_exit();
		else
			nmi_from_exit();
		return;
	}
	if (vector != 8) /* the bit is not defined for #DF */
		restore_nmi_blocking(x, info);
	e->exception.vector = vector;
	e->exception.has_error = has_error;
	e->exception.error = has_error ? (u32)vmcs_read(VMCS_EXIT_INTR_ERROR) : 0;
	e->exception.dr6 = 0;
	e->exception.stepped = false;
	if (vector == 1)
		e->exception.dr6 = vmcs_read(VMCS_EXIT_QUALIFICATION);
	if (vector == 1 || vector == 17) /* the instruction may be executed again in its shadow */
		x->v.todo |= TODO_DEBUG;
}

/*
 * SDM "Monitor Trap Flag". A #DB that is due as well would come at the next entry: it is taken now,
 * so that a debugger hears of both at once.
 */
static void step_detail(struct vmx_vcpu *x)
{
	struct vm_exit *e = &x->v.exit;
	u64 pending = vmcs_read(VMCS_GUEST_PENDING_DEBUG);

	e->insn_len = 0;
	check_delivery(x);
	if (!(pending & DR6_TRAPS))
		return;
	vmcs_write(VMCS_GUEST_PENDING_DEBUG, 0);
	x->v.todo |= TODO_DEBUG;
	e->kind = EXIT_EXCEPTION;
	e->exception.vector = 1;
	e->exception.has_error = false;
	e->exception.stepped = true;
	e->exception.dr6 = dr6_events(pending, vmcs_read(VMCS_GUEST_DR7), true);
	if (!e->exception.dr6)
		e->kind = EXIT_STEP;
}

/* SDM "Exit Qualification for I/O Instructions" */
static void io_detail(struct vmx_vcpu *x)
{
	struct vm_exit *e = &x->v.exit;
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);

	e->insn_len = insn_len();
	e->io.port = (u16)(q >> 16);
	e->io.size = (u8)((q & 7) + 1);
	e->io.in = q & BIT(3);
	e->io.string = q & BIT(4);
	e->io.rep = q & BIT(5);
}

/* SDM "Exit Qualification for Control-Register Accesses" */
static void cr_detail(struct vmx_vcpu *x)
{
	static const u8 ops[4] = { CR_WRITE, CR_READ, CR_CLTS, CR_LMSW };
	struct vm_exit *e = &x->v.exit;
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);

	e->insn_len = insn_len();
	e->cr.cr = q & 15;
	e->cr.op = ops[q >> 4 & 3];
	e->cr.gpr = q >> 8 & 15;
	e->cr.lmsw = (u16)(q >> 16);
}

/* SDM "Exit Qualification for EPT Violations". The CPU gives no instruction length here. */
static void ept_detail(struct vmx_vcpu *x)
{
	struct vm_exit *e = &x->v.exit;
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);
	bool linear = q & BIT(7);

	e->insn_len = 0;
	check_delivery(x);
	restore_nmi_blocking(x, q);
	e->fault.gpa = GPA(vmcs_read(VMCS_GUEST_PHYS_ADDR));
	e->fault.access = q & BIT(1) ? ACCESS_W : q & BIT(2) ? ACCESS_X : ACCESS_R;
	e->fault.gva_valid = linear;
	e->fault.walk = linear && !(q & BIT(8));
	e->fault.mapped = q & MASK(5, 3);
	e->fault.gva = linear ? vmcs_read(VMCS_GUEST_LINEAR_ADDR) : 0;
}

/* SDM "EOI Virtualization", "APIC-Write Emulation": trap-like, the instruction is done. */
static void apic_detail(struct vmx_vcpu *x)
{
	x->v.exit.insn_len = 0;
	x->v.exit.qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
}

/* SDM "Exit Qualification for Task Switches" */
static void task_detail(struct vmx_vcpu *x)
{
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);

	x->v.exit.insn_len = insn_len();
	x->v.exit.task.selector = (u16)q;
	x->v.exit.task.source = q >> 30 & 3;
	check_delivery(x);
}

/* SDM "Bus-Lock Detection": trap-like. */
static void bus_lock_detail(struct vmx_vcpu *x)
{
	x->v.exit.insn_len = 0;
	check_delivery(x);
	vcpu_request_own(&x->v, REQ_BUS_LOCKED);
}

/* What Corbel never enabled: for a report. (The length may mean nothing.) */
static void unexpected(struct vmx_vcpu *x)
{
	x->v.exit.insn_len = insn_len();
	x->v.exit.qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
	check_delivery(x);
}

/*
 * An instruction of which nothing but its length has to be known: run.c reads that without a call.
 */
#define INSN_ONLY NULL

/* What each reason becomes. "Never enabled" and "can't happen" are rows too, as ranges. */
const struct vmx_exit_reason vmx_exit_reasons[EXIT_REASONS] = {
	[EXIT_REASON_EXCEPTION_NMI] = { EXIT_EXCEPTION, exception_detail },
	[EXIT_REASON_EXTERNAL_INTERRUPT] = { EXIT_IRQ, irq_detail },
	[EXIT_REASON_TRIPLE_FAULT] = { EXIT_TRIPLE_FAULT, no_detail },
	/*
	 * INIT is blocked in VMX root and nobody sends one; SIPI needs a guest in wait-for-SIPI,
	 * which is never entered; the SMIs come only with dual-monitor SMM.
	 */
	[EXIT_REASON_INIT_SIGNAL... EXIT_REASON_OTHER_SMI] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_INTERRUPT_WINDOW] = { EXIT_IRQ_WINDOW, no_detail },
	[EXIT_REASON_NMI_WINDOW] = { EXIT_NMI_WINDOW, no_detail },
	[EXIT_REASON_TASK_SWITCH] = { EXIT_TASK_SWITCH, task_detail },
	[EXIT_REASON_CPUID] = { EXIT_CPUID, INSN_ONLY },
	[EXIT_REASON_GETSEC] = { EXIT_VIRT_INSN, INSN_ONLY },
	[EXIT_REASON_HLT] = { EXIT_HLT, INSN_ONLY },
	[EXIT_REASON_INVD] = { EXIT_INVD, INSN_ONLY },
	[EXIT_REASON_INVLPG] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_RDPMC] = { EXIT_RDPMC, INSN_ONLY },
	[EXIT_REASON_RDTSC... EXIT_REASON_RSM] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_VMCALL] = { EXIT_HYPERCALL, INSN_ONLY },
	[EXIT_REASON_VMCLEAR... EXIT_REASON_VMON] = { EXIT_VIRT_INSN, INSN_ONLY },
	[EXIT_REASON_CR_ACCESS] = { EXIT_CR_ACCESS, cr_detail },
	[EXIT_REASON_DR_ACCESS] = { EXIT_DR_ACCESS, INSN_ONLY },
	[EXIT_REASON_IO_INSTRUCTION] = { EXIT_IO, io_detail },
	[EXIT_REASON_MSR_READ] = { EXIT_MSR_READ, INSN_ONLY },
	[EXIT_REASON_MSR_WRITE] = { EXIT_MSR_WRITE, INSN_ONLY },
	/*
	 * These two and "machine check during entry" come with bit 31: vmx_unusual_exit() takes
	 * them first.
	 */
	[EXIT_REASON_INVALID_STATE...
		EXIT_REASON_MSR_LOAD_FAIL] = { EXIT_ENTRY_FAILED, unexpected },
	[35] = { EXIT_UNEXPECTED, unexpected }, /* not defined */
	[EXIT_REASON_MWAIT_INSTRUCTION] = { EXIT_MWAIT, INSN_ONLY },
	[EXIT_REASON_MONITOR_TRAP_FLAG] = { EXIT_STEP, step_detail },
	[38] = { EXIT_UNEXPECTED, unexpected }, /* not defined */
	[EXIT_REASON_MONITOR_INSTRUCTION] = { EXIT_MONITOR, INSN_ONLY },
	[EXIT_REASON_PAUSE_INSTRUCTION] = { EXIT_PAUSE, INSN_ONLY },
	[EXIT_REASON_MCE_DURING_VMENTRY] = { EXIT_ENTRY_FAILED, unexpected },
	/* 42 is not defined; TPR threshold, APIC accesses; loads of descriptor tables */
	[42 ... EXIT_REASON_APIC_ACCESS] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_EOI_INDUCED] = { EXIT_APIC_EOI, apic_detail },
	[EXIT_REASON_GDTR_IDTR... EXIT_REASON_LDTR_TR] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_EPT_VIOLATION] = { EXIT_STAGE2_FAULT, ept_detail },
	[EXIT_REASON_EPT_MISCONFIG] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_INVEPT] = { EXIT_VIRT_INSN, INSN_ONLY },
	[EXIT_REASON_RDTSCP] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_PREEMPTION_TIMER] = { EXIT_TIMER, no_detail },
	[EXIT_REASON_INVVPID] = { EXIT_VIRT_INSN, INSN_ONLY },
	[EXIT_REASON_WBINVD] = { EXIT_INVD, INSN_ONLY },
	[EXIT_REASON_XSETBV] = { EXIT_XSETBV, INSN_ONLY },
	[EXIT_REASON_APIC_WRITE] = { EXIT_APIC_WRITE, apic_detail },
	[EXIT_REASON_RDRAND... EXIT_REASON_INVPCID] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_VMFUNC] = { EXIT_VIRT_INSN, INSN_ONLY },
	/* ENCLS to XRSTORS, PCONFIG, SPP, UMWAIT, TPAUSE, LOADIWKEY, ENCLV, ENQCMD */
	[EXIT_REASON_ENCLS... EXIT_REASON_BUS_LOCK - 1] = { EXIT_UNEXPECTED, unexpected },
	[EXIT_REASON_BUS_LOCK] = { EXIT_BUS_LOCKED, bus_lock_detail },
	[EXIT_REASON_NOTIFY] = { EXIT_UNEXPECTED, unexpected },
	/*
	 * No control turns these two off where they exist (SDM "Instructions That Cause VM Exits
	 * Unconditionally").
	 */
	[EXIT_REASON_SEAMCALL... EXIT_REASON_TDCALL] = { EXIT_VIRT_INSN, INSN_ONLY },
	/* RDMSRLIST, WRMSRLIST, URDMSR, UWRMSR */
	[78 ... EXIT_REASONS - 1] = { EXIT_UNEXPECTED, unexpected },
};

/*
 * A reason with flags above bit 15, or one that no manual had when this was written. Bit 31: the
 * entry failed and the guest did not run (SDM "VM-Entry Failures During or After Loading Guest
 * State"). Bit 26: a bus lock, and this exit had priority.
 */
void vmx_unusual_exit(struct vmx_vcpu *x, u32 raw)
{
	struct vm_exit *e = &x->v.exit;
	bool failed = raw & VMX_EXIT_REASONS_FAILED_VMENTRY;

	if (raw & EXIT_REASON_BUS_LOCKED && (raw & ~(u32)EXIT_REASON_BUS_LOCKED) < EXIT_REASONS) {
		vcpu_request_own(&x->v, REQ_BUS_LOCKED);
		return vmx_translate_exit(x, raw & ~(u32)EXIT_REASON_BUS_LOCKED);
	}

	e->kind = failed ? EXIT_ENTRY_FAILED : EXIT_UNEXPECTED;
	e->insn_len = 0;
	if (failed && (raw & 0xffff) == EXIT_REASON_MCE_DURING_VMENTRY)
		machine_check_from_exit();
	e->qualification = failed ? raw : vmcs_read(VMCS_EXIT_QUALIFICATION);
	x->launched |= !failed;
}
