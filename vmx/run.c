/* SPDX-License-Identifier: MIT */
/*
 * One entry and what comes back: ops->run. This is the hot path. What rarely changes is compared
 * with a copy in memory before the VMCS is touched, and what is rarely needed hides behind one test
 * of `todo`.
 */
#include "lib/error.h"
#include "virt/exit_cost.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

static NOINLINE void write_rflags(struct vmx_vcpu *x)
{
	if ((x->v.rflags ^ x->vmcs_rflags) & X86_EFLAGS_TF)
		x->v.todo |= TODO_DEBUG;
	x->vmcs_rflags = x->v.rflags;
	vmcs_write(VMCS_GUEST_RFLAGS, x->v.rflags);
}

void vmx_write_proc(struct vmx_vcpu *x)
{
	u32 windows = x->windows;

	vmcs_write(VMCS_PROC_CONTROLS, x->proc | (windows & 1) << PROC_INTR_WINDOW_BIT |
					       (windows >> 1 & 1) << PROC_NMI_WINDOW_BIT |
					       windows >> 2 << PROC_MTF_BIT);
}

/*
 * SDM "Interrupt-Window Exiting and Virtual-Interrupt Delivery", "NMI-Window Exiting", "Monitor
 * Trap Flag"
 */
static void write_windows(struct vmx_vcpu *x)
{
	u32 irq = x->v.want_irq_window, nmi = x->v.want_nmi_window, step = x->v.want_step != 0;
	u8 windows = (u8)(irq | nmi << 1 | step << 2);

	if (windows != x->windows) {
		x->windows = windows;
		vmx_write_proc(x);
	}
	if (windows)
		x->v.todo |= TODO_WINDOWS;
}

/*
 * SDM "VM-Entry Controls for Event Injection". #BP, #OF and INT1 come with the length of their
 * instruction and return behind it. There are no error codes in real mode (SDM "Checks on VM-Entry
 * Control Fields"), whatever the exception.
 */
static void inject(struct vmx_vcpu *x)
{
	struct event *e = &x->v.event;
	u32 type = e->type;
	u32 info;

	if (e->type == EVENT_EXCEPTION && e->insn_len)
		type = e->vector == 1 ? INTR_TYPE_PRIV_EXCEPTION : INTR_TYPE_SOFT_EXCEPTION;
	info = INTR_VALID | type << INTR_TYPE_SHIFT | e->vector;
	if (e->has_error && (vmcs_read(VMCS_GUEST_CR0) & X86_CR0_PE)) {
		info |= INTR_ERROR_VALID;
		vmcs_write(VMCS_ENTRY_ERROR_CODE, e->error);
	}
	if (type >= INTR_TYPE_SOFT_INT)
		vmcs_write(VMCS_ENTRY_INSN_LEN, e->insn_len);
	vmcs_write(VMCS_ENTRY_INTR_INFO, info);
	vcpu_trace(&x->v, TRACE_INJECT, (u32)e->type << 8 | e->vector, e->error, x->v.rip);
	*e = (struct event){ 0 };
}

/* The instruction was emulated: it does not matter any more that it stood behind STI or MOV SS. */
static inline void clear_shadow(void)
{
	u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);

	if (unlikely(state & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOVSS)))
		vmcs_write(VMCS_GUEST_INTERRUPTIBILITY,
			   state & ~(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOVSS));
}

/* False: not now, it waits for memory. */
static NOINLINE bool rare_work(struct vmx_vcpu *x)
{
	u8 todo = x->v.todo;

	if (todo & TODO_PDPTES && !vmx_load_pdptes(x))
		return false;
	x->v.todo = 0;
	write_windows(x);
	if (x->v.event.valid)
		inject(x);
	if (todo & TODO_FLUSH_GUEST)
		vmx_flush_guest(x);
	if (todo & TODO_DEBUG)
		vmx_fix_pending_debug(x);
	return true;
}

/*
 * VMLAUNCH or VMRESUME itself failed: the VMCS, not the guest's state, is at fault (SDM
 * "VM-Instruction Error Numbers").
 */
static NOINLINE void entry_refused(struct vmx_vcpu *x, u64 flags)
{
	bool has_number = flags & VMX_ENTER_ZF;

	x->v.exit =
		(struct vm_exit){ .kind = EXIT_ENTRY_FAILED,
				  .raw = VMX_RAW_REFUSED | flags,
				  .qualification = has_number ? vmcs_read(VMCS_INSN_ERROR) : 0 };
	(void)trace_error(-EIO);
}

/* FAULTS builds, without bus-lock exits: steps over marked instructions stand for them. */
static u64 fault_reason(const struct vmx_vcpu *x, u64 raw)
{
	if (raw != EXIT_REASON_MONITOR_TRAP_FLAG || !x->v.split.marked ||
	    fault_here(FAULT_MARKED_AC, 0, NULL) != FAULT_AC_BUS_LOCK)
		return raw;
	return x->v.exits[EXIT_BUS_LOCKED] < x->v.exits[EXIT_STEP] ? (u64)EXIT_REASON_BUS_LOCK
								   : raw | EXIT_REASON_BUS_LOCKED;
}

/* Fill in v->exit; the exit was a real one, or a failed entry that looks like one. */
static inline void translate(struct vmx_vcpu *x, u64 raw)
{
	struct vm_exit *e = &x->v.exit;
	const struct vmx_exit_reason *r = &vmx_exit_reasons[raw];

	e->raw = raw;
	e->done = false;
	if (unlikely(raw >= EXIT_REASONS))
		return vmx_unusual_exit(x, (u32)raw);
	x->launched = true;
	e->kind = r->kind;
	if (r->detail)
		return r->detail(x);
	e->insn_len = (u8)vmcs_read(VMCS_EXIT_INSN_LEN);
}

void vmx_translate_exit(struct vmx_vcpu *x, u32 raw)
{
	translate(x, raw);
}

/* ops->run */
void vmx_run(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);
	u64 refused;

	vmcs_write(VMCS_GUEST_RIP, v->rip);
	if (unlikely(v->rflags != x->vmcs_rflags))
		write_rflags(x);
	if (v->exit.done)
		clear_shadow();
	if (unlikely(x->v.rare) && !rare_work(x)) {
		v->exit.kind = EXIT_IRQ; /* nothing happened */
		return;
	}
	exit_cost_entry(v);
	refused = vmx_enter(v->gpr, &x->host_rsp, x->launched);
	exit_cost_exit(v);
	if (unlikely(refused))
		return entry_refused(x, refused);
	vmcs_read_to(&v->rip, VMCS_GUEST_RIP);
	v->rflags = x->vmcs_rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	translate(x, FAULTS ? fault_reason(x, vmcs_read(VMCS_EXIT_REASON))
			    : vmcs_read(VMCS_EXIT_REASON));
}
