/* SPDX-License-Identifier: MIT */
/*
 * The contract between the vendor-neutral core and a backend (vmx/, svm/). One table, chosen once
 * at boot by what the CPUs enumerate, not by the vendor string. Everything here is called with
 * interrupts off unless it says otherwise; "this CPU" is the one that executes the call.
 */
#pragma once

#include "mm/pt_format.h"
#include "virt/caps.h"
#include "virt/vcpu.h"

/*
 * What enabling found and did on one CPU; steps are undone in reverse, and only those that
 * happened.
 */
struct virt_cpu_state {
	u32 steps; /* bit mask, the vendor's own step numbers */
	bool enabled;
	int error;	     /* of the last enabling, 0 if it went well */
	char why[96];	     /* one line for the user if it failed */
	u64 saved[4];	     /* what was found before: the vendor's */
	const char *lasting; /* what stays changed until a reset; NULL: nothing */
	/*
	 * two frames, cleared at first: the VMXON region or host save area, and one for the
	 * backend's own use
	 */
	void *region;
};

struct virt_ops {
	const char *name; /* "vmx" or "svm" */
	const struct cap_table *caps;
	size_t vcpu_size; /* of the vendor's structure; at most one page */
	/*
	 * With PAE paging the CPU loads and checks the PDPTEs when CR3 and some bits of CR0 and CR4
	 * change, and so must virt/. (Else it reads them when it walks.)
	 */
	bool loads_pdptes;

	/*
	 * Does this CPU enumerate the extension at all? Reads CPUID only. (Whether it can be used
	 * is setup's verdict.)
	 */
	bool (*present)(void);
	/*
	 * Append the vendor's fields to the record of this CPU. Never faults: missing MSRs read as
	 * 0.
	 */
	void (*caps_read)(struct virt_caps *caps);
	/*
	 * Decide on control words from the reference record alone. 0, or -EOPNOTSUPP after calling
	 * missing() once for each thing that is missing or locked off, in the user's words ("EPT",
	 * "VMX is locked off by the firmware").
	 */
	int (*setup)(const struct virt_caps *reference, void (*missing)(const char *what));
	/*
	 * Of stage-2 entries, and their largest leaf (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), as setup found
	 * them: for stage2_init().
	 */
	const struct pt_format *(*pt_format)(u8 *max_leaf);
	/*
	 * Can it stop a vCPU after one instruction (v->want_step)? As setup found. Then run returns
	 * with EXIT_STEP after one, or at the first one of the handler that an event or exception
	 * was delivered to; or with the instruction's own exit, before it; or with #DB if that was
	 * due as well (exception.stepped). The guest does not see it.
	 */
	bool (*can_step)(void);
	/*
	 * Turn the extension on or off on this CPU; all or nothing. state->region is this CPU's.
	 * cpu_disable clears state->enabled, unless the CPU refuses.
	 */
	int (*cpu_enable)(struct virt_cpu_state *state);
	void (*cpu_disable)(struct virt_cpu_state *state);

	/*
	 * Per-vCPU state. May allocate; -ENOMEM. Hardware of the calling CPU must be enabled for
	 * vcpu_create.
	 */
	int (*vcpu_create)(struct vcpu *v);
	void (*vcpu_destroy)(struct vcpu *v); /* not loaded anywhere */
	/*
	 * Architectural reset state (SDM "Processor State After Reset") of RIP, RFLAGS, and all
	 * that get_reg and get_seg read; TSC_AUX stays. v is not loaded, or loaded on this CPU.
	 */
	void (*vcpu_reset)(struct vcpu *v);

	/*
	 * Make v's state active on this CPU (VMPTRLD, the guest's syscall MSRs, ...), and take it
	 * off again (VMCLEAR). Between them, and only there, run, get/set are allowed, on this CPU.
	 */
	void (*vcpu_load)(struct vcpu *v);
	void (*vcpu_put)(struct vcpu *v);
	/*
	 * Enter once. Takes v->gpr, rip, rflags, event, exit.done, want_*; returns with
	 * v->exit, gpr, rip, rflags filled in; v->event.valid is false, unless a delivery was
	 * interrupted: then that event is put back. Host NMIs that arrived have been handled; host
	 * interrupts are still pending, but for one that exit.irq names.
	 */
	void (*run)(struct vcpu *v);

	u64 (*get_reg)(struct vcpu *v, enum vreg reg);
	/*
	 * The value must be acceptable to hardware: virt/ checks reserved bits and canonical form
	 * first.
	 */
	void (*set_reg)(struct vcpu *v, enum vreg reg, u64 value);
	void (*get_seg)(struct vcpu *v, enum vseg seg, struct segment *out);
	void (*set_seg)(struct vcpu *v, enum vseg seg, const struct segment *in);

	/*
	 * Shall #BP exit (RIP is at the INT3), and MOV to and from debug registers? v is loaded
	 * here; forgotten by vcpu_reset.
	 */
	void (*debug_exits)(struct vcpu *v, bool breakpoints, bool debug_registers);

	/*
	 * All that a page walk needs in one call, for backends where these are plain loads: on SVM
	 * without NRIPS each exit by an instruction fetches that instruction. May be NULL: then
	 * virt/ asks get_reg and get_seg.
	 */
	void (*get_mmu)(struct vcpu *v, struct guest_mmu *out);

	/*
	 * Shall a loop of PAUSEs exit (EXIT_PAUSE)? Does nothing where the CPU has no counter for
	 * such loops. v is loaded; forgotten by vcpu_reset.
	 */
	void (*pause_exits)(struct vcpu *v, bool on);

	/*
	 * What shall bus locks of v do (enum bus_locks)? False: they can't exit on this CPU, and
	 * never do. v is loaded, and keeps it in a vcpu_reset (v->split.bus_exits); NULL: only ask.
	 */
	bool (*bus_locks)(struct vcpu *v, enum bus_locks what);

	/*
	 * APIC virtualization; NULL: the vendor has none. From now on the CPU itself delivers
	 * interrupts from this register page (4 KiB aligned; SDM "Virtual-APIC Page"), and the
	 * guest's use of TPR, EOI and self-IPI by x2APIC MSRs or CR8 does not exit; in_service: the
	 * highest vector in ISR, or 0. page NULL: no more. v->apicv tells whether it is on
	 * afterwards: not where the CPU lacks it. v->posts: it also takes interrupts from `posted`
	 * (64-byte aligned; SDM "Posted-Interrupt Descriptor") at ipi_notify(). v is loaded here.
	 */
	void (*apicv)(struct vcpu *v, const void *page, const void *posted, u8 in_service);
	/*
	 * With v->apicv: IRR or TMR of the page may have changed; requested: the highest vector in
	 * IRR, or 0. EOIs of vectors that are level-triggered by TMR exit.
	 */
	void (*apicv_requested)(struct vcpu *v, u8 requested);

	/* Forget this CPU's cached stage-2 translations of the VM. */
	void (*flush)(struct vcpu *v);
	/* Call f for each field of v's VMCS or VMCB. v is loaded here. */
	void (*fields)(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value),
		       void *arg);
	const char *fields_name; /* "vmcs" or "vmcb" */
	/*
	 * Log the vendor's view of the vCPU for an internal error: exit reason, qualification,
	 * control fields.
	 */
	void (*dump)(struct vcpu *v);
};

/*
 * The backend of this machine, NULL if there is none. Set once by boot/main.c before any VM exists.
 */
extern const struct virt_ops *virt_ops;
