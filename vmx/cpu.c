/* SPDX-License-Identifier: MIT */
/*
 * VMX on and off on one CPU (SDM "Enabling and Entering VMX Operation"). Each step is recorded when
 * it has happened, so that the way back undoes exactly those.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "mm/phys.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

enum {
	STEP_CR4 = 2, /* CR4.VMXE was set by us */
	STEP_VMXON = 4,
};
enum { SAVED_FEATURE_CONTROL, SAVED_CR4 };

DEFINE_PERCPU(typeof(struct vmx_vcpu *), vmx_current);
DEFINE_PERCPU(u32, vmx_epoch);
static u32 last_epoch;

/*
 * SDM "Restrictions on VMX Operation": VMXON needs "VMX outside SMX" and the lock. An open lock is
 * ours to close.
 */
static int feature_control(struct virt_cpu_state *state)
{
	u64 value;

	if (rdmsr_safe(MSR_FEATURE_CONTROL, &value)) {
		fmt_snprintf(state->why, sizeof(state->why), "IA32_FEATURE_CONTROL can't be read");
		return trace_error(-EIO);
	}
	state->saved[SAVED_FEATURE_CONTROL] = value;
	if (!(value & FEATURE_CONTROL_LOCK)) {
		int error = wrmsr_safe(MSR_FEATURE_CONTROL,
				       value | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX);

		if (error) {
			fmt_snprintf(
				state->why, sizeof(state->why),
				"IA32_FEATURE_CONTROL is open (0x%lx) but refuses to be written",
				value);
			return trace_error(error);
		}
		state->lasting = "IA32_FEATURE_CONTROL was locked by Corbel";
		value = rdmsr(MSR_FEATURE_CONTROL);
	}
	if ((value & FEATURE_CONTROL_LOCK) && (value & FEATURE_CONTROL_VMX))
		return 0;
	fmt_snprintf(state->why, sizeof(state->why),
		     "VMX is locked off by the firmware (IA32_FEATURE_CONTROL is 0x%lx)", value);
	return trace_error(-EPERM);
}

/* SDM app. A "VMX-Fixed Bits in CR0", "... CR4": what must be 1, what may be 1. */
static int check_fixed(struct virt_cpu_state *state, const char *name, u64 value, u64 must, u64 may)
{
	if (!(must & ~value) && !(value & ~may))
		return 0;
	fmt_snprintf(state->why, sizeof(state->why),
		     "%s is 0x%lx, VMX wants 0x%lx set, 0x%lx clear", name, value, must & ~value,
		     value & ~may);
	return trace_error(-EINVAL);
}

static int set_vmxe(struct virt_cpu_state *state)
{
	u64 cr4 = read_cr4(), want = cr4 | X86_CR4_VMXE;
	int error;

	state->saved[SAVED_CR4] = cr4;
	error = check_fixed(state, "CR0", read_cr0(), rdmsr(MSR_VMX_CR0_FIXED0),
			    rdmsr(MSR_VMX_CR0_FIXED1));
	if (!error)
		error = check_fixed(state, "CR4", want, rdmsr(MSR_VMX_CR4_FIXED0),
				    rdmsr(MSR_VMX_CR4_FIXED1));
	if (error || cr4 == want)
		return error;
	write_cr4(want);
	state->steps |= STEP_CR4;
	return 0;
}

/*
 * A VMXON region begins with the revision id of the CPU that will use it, never with another CPU's:
 * on a mixed machine they differ, and VMXON fails.
 */
static int enter_vmx(struct virt_cpu_state *state)
{
	static const char *const failures[] = {
		[VMX_FAIL_INVALID] = "VMXON refused its region, or VMX is on already",
		[VMX_FAIL_VALID] = "VMXON failed: this CPU is in VMX operation already",
		[VMX_FAULT] = "VMXON faulted: locked off, or CR0, CR4 or A20M mode don't allow it",
	};
	enum vmx_result result;

	*(u32 *)state->region = (u32)(rdmsr(MSR_VMX_BASIC) & VMX_BASIC_REVISION);
	result = vmxon(ptr_hpa(state->region));
	if (result != VMX_OK) {
		fmt_snprintf(state->why, sizeof(state->why), "%s", failures[result]);
		return trace_error(-EIO);
	}
	state->steps |= STEP_VMXON;
	if (vmx_flush_all())
		return 0;
	fmt_snprintf(state->why, sizeof(state->why), "INVEPT or INVVPID of everything failed");
	return trace_error(-EIO);
}

/* ops->cpu_enable. vmx_setup has run. */
int vmx_cpu_enable(struct virt_cpu_state *state)
{
	int err = 0;

	if (!vmx_present()) {
		fmt_snprintf(state->why, sizeof(state->why), "this CPU has no VMX");
		err = trace_error(-EOPNOTSUPP);
	}
	if (!err)
		err = feature_control(state);
	if (!err)
		err = set_vmxe(state);
	if (!err)
		err = enter_vmx(state);
	if (err) {
		vmx_cpu_disable(state);
		return err;
	}
	this_cpu(vmx_current) = NULL;
	this_cpu(vmx_epoch) = __atomic_add_fetch(&last_epoch, 1, __ATOMIC_RELAXED);
	return 0;
}

/*
 * ops->cpu_disable. No vCPU is loaded here (a crash may break that: VMXOFF does not mind). Any
 * context.
 */
void vmx_cpu_disable(struct virt_cpu_state *state)
{
	this_cpu(vmx_epoch) = 0;
	this_cpu(vmx_current) = NULL;
	if (state->steps & STEP_VMXON) {
		enum vmx_result result = vmxoff();

		/*
		 * Only dual-monitor SMM makes it fail (SDM "VMXOFF"); CR4.VMXE can't be cleared
		 * then.
		 */
		if (result != VMX_OK) {
			log_err("CPU %u: VMXOFF failed (%u), VMX stays on", this_cpu(cpu_id),
				result);
			return;
		}
		state->steps &= ~STEP_VMXON;
	}
	if (state->steps & STEP_CR4) {
		write_cr4(read_cr4() & ~X86_CR4_VMXE);
		state->steps &= ~STEP_CR4;
	}
	state->enabled = false;
}
