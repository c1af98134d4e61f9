/* SPDX-License-Identifier: MIT */
/*
 * What the files of the VMX backend share. Nothing outside vmx/ includes this: the way in is
 * vmx_ops, in vmx/ops.h.
 */
#pragma once

#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "virt/ops.h"
#include "virt/vm.h"
#include "vmx/vmcs.h"
#include "vmx/ops.h"

/*
 * The control words and choices that vmx_setup made from the reference record. Read-only
 * afterwards.
 */
struct vmx_controls {
	/* entry: without "IA-32e mode guest", which follows the guest. */
	u32 pin, proc, proc2, exit, entry;
	u64 cr0_must, cr4_must; /* what a guest's real CR0 and CR4 need; PE and PG are free */
	u32 revision;		/* of VMCS regions */
	u8 max_leaf;		/* largest EPT leaf level: 1, 2 or 3 */
	bool vpid, pause_loop, mtf, bus_lock;
	bool ept_ad;	  /* EPT has A and D bits */
	u8 invvpid_type;  /* INVVPID_SINGLE where there is one, else INVVPID_ALL */
	hpa_t msr_bitmap; /* all VMs' */
	bool apicv, posted;
	hpa_t apicv_bitmap; /* of vCPUs whose APIC is virtualized */
};
extern struct vmx_controls vmx_controls;

/* The controls that APIC virtualization turns on, and off. */
#define APICV_PROC     PROC_TPR_SHADOW
#define APICV_PROC_OFF (PROC_CR8_LOAD | PROC_CR8_STORE)
#define APICV_PROC2    (PROC2_X2APIC | PROC2_APIC_REGS | PROC2_VIRTUAL_INTR)

/* What to do before the next entry, in v.todo. */
enum {
	TODO_PDPTES = 1,      /* PAE paging: load the four entries anew from guest memory */
	TODO_FLUSH_GUEST = 2, /* forget the guest's own translations: CR0, CR3 or CR4 changed */
	TODO_DEBUG = 4,	      /* pending debug exceptions must agree with TF and the shadow */
	TODO_WINDOWS = 8,     /* one is open, and may have to be closed */
};

#define SWITCHED_MSRS 6

/*
 * A vCPU under VMX. The VMCS is active (VMPTRLD .. VMCLEAR) exactly between load and put, so that
 * it is never active on two CPUs; each load therefore begins with a VMLAUNCH.
 */
struct vmx_vcpu {
	struct vcpu v; /* first: entry.asm relies on v.gpr at offset 0 */
	hpa_t vmcs;
	u64 host_rsp;	    /* copy of VMCS_HOST_RSP */
	u64 vmcs_rflags;    /* copy of the RFLAGS in the VMCS */
	u32 entry_controls; /* copy of VMCS_ENTRY_CONTROLS */
	/* set in VMCS_PROC_CONTROLS: bit 0 interrupt, bit 1 NMI window, bit 2 monitor trap */
	u8 windows;
	bool launched;	 /* VMRESUME, no longer VMLAUNCH */
	u32 proc;	 /* VMCS_PROC_CONTROLS without windows: vmx_write_proc() */
	u32 proc2;	 /* VMCS_PROC_CONTROLS2; without VPID if there was none left */
	const u32 *apic; /* with v.apicv: the virtual-APIC page */
	u64 eoi_exit[4]; /* ... and a copy of VMCS_EOI_EXIT0.. */
	u16 vpid;	 /* 0: none */
	u32 host_epoch;	 /* the enabling (see cpu.c) that its host state belongs to; 0: none */
	u64 eptp;
	u64 cr2, dr6;			    /* while not loaded; DR0-3 are in v.dr */
	u64 msr[SWITCHED_MSRS];		    /* while not loaded; switched.c says which */
	struct desc_ptr host_gdt, host_idt; /* of this CPU: a VM exit sets the limits to 0xffff */
};
_Static_assert(offsetof(struct vmx_vcpu, v.gpr) == 0, "entry.asm");
_Static_assert(RAX == 0 && RCX == 1 && RDX == 2 && RBX == 3, "entry.asm");
_Static_assert(RBP == 5 && RSI == 6 && RDI == 7 && R15 == 15, "entry.asm");
_Static_assert(sizeof(struct vmx_vcpu) <= PAGE_SIZE, "ops.h promises at most a page");

static inline struct vmx_vcpu *to_vmx(struct vcpu *v)
{
	return (struct vmx_vcpu *)v;
}

/* The vCPU whose VMCS is current on this CPU, or NULL. */
DECLARE_PERCPU(typeof(struct vmx_vcpu *), vmx_current);
/* Number of this CPU's last cpu_enable, unique in the machine; 0: off. */
DECLARE_PERCPU(u32, vmx_epoch);

/* caps.c */
extern const struct cap_table vmx_caps;
bool vmx_present(void);
/* One MSR without exits. */
void vmx_msr_pass(u64 *bitmap, u32 msr, bool read, bool write);
void vmx_caps_read(struct virt_caps *caps);
int vmx_setup(const struct virt_caps *reference, void (*missing)(const char *what));
const struct pt_format *vmx_pt_format(u8 *max_leaf);
bool vmx_can_step(void);

/* cpu.c */
int vmx_cpu_enable(struct virt_cpu_state *state);
void vmx_cpu_disable(struct virt_cpu_state *state);

/* vcpu.c */
int vmx_vcpu_create(struct vcpu *v);
void vmx_vcpu_destroy(struct vcpu *v);
void vmx_vcpu_reset(struct vcpu *v);
void vmx_vcpu_load(struct vcpu *v);
void vmx_vcpu_put(struct vcpu *v);
void vmx_pause_exits(struct vcpu *v, bool on);
bool vmx_bus_locks(struct vcpu *v, enum bus_locks what);

/* regs.c */
u64 vmx_get_reg(struct vcpu *v, enum vreg reg);
void vmx_set_reg(struct vcpu *v, enum vreg reg, u64 value);
void vmx_get_seg(struct vcpu *v, enum vseg seg, struct segment *out);
void vmx_set_seg(struct vcpu *v, enum vseg seg, const struct segment *in);
bool vmx_load_pdptes(struct vmx_vcpu *x);
void vmx_fix_pending_debug(struct vmx_vcpu *x);

/* switched.c: state that VM entry and exit leave alone */
/* Has a vCPU its own copy of this MSR? Only such an MSR may be passed through. */
bool vmx_msr_switched(u32 msr);
void vmx_switched_load(struct vmx_vcpu *x);
void vmx_switched_save(struct vmx_vcpu *x);
void vmx_reset_switched(struct vmx_vcpu *x);
/* As get_reg and set_reg for such a register; false if it is none. */
bool vmx_switched_get(struct vmx_vcpu *x, enum vreg reg, u64 *value);
bool vmx_switched_set(struct vmx_vcpu *x, enum vreg reg, u64 value);

/* run.c, exit.c, entry.asm */
void vmx_run(struct vcpu *v);
struct vmx_exit_reason {
	u8 kind; /* enum exit_kind */
	/*
	 * Reads what the reason defines; NULL: an instruction that has a length and nothing else.
	 */
	void (*detail)(struct vmx_vcpu *x);
};
extern const struct vmx_exit_reason vmx_exit_reasons[];
#define EXIT_REASON_BUS_LOCKED BIT(26) /* with any other reason */
void vmx_unusual_exit(struct vmx_vcpu *x, u32 raw);
void vmx_translate_exit(struct vmx_vcpu *x, u32 raw);
const char *vmx_exit_reason_name(u32 reason);
/*
 * vm_exit.raw of an entry that VMLAUNCH or VMRESUME refused: this bit, and the flags that
 * vmx_enter() returned.
 */
#define VMX_RAW_REFUSED BIT(32)
#define VMX_ENTER_CF	BIT(0)
#define VMX_ENTER_ZF	BIT(1)
u64 vmx_enter(u64 gpr[GPRS], u64 *host_rsp, bool resume);
void vmx_exit(void); /* a label, not a function */

/*
 * #AC and #DB: a guest can make their delivery raise them again without end, and no interrupt gets
 * in between. #MC is the host's. Page faults: mask and match are 0, which leaves them to the guest.
 */
#define VMX_EXCEPTIONS (BIT(1) | BIT(17) | BIT(18))
void vmx_debug_exits(struct vcpu *v, bool breakpoints, bool debug_registers);
void vmx_write_proc(struct vmx_vcpu *x);
/* apicv.c */
/* Pass through what the CPU virtualizes. */
void vmx_apicv_bitmap(u64 *bitmap);
void vmx_apicv(struct vcpu *v, const void *page, const void *posted, u8 in_service);
void vmx_apicv_requested(struct vcpu *v, u8 requested);

/* tlb.c */
u16 vmx_vpid_alloc(void);
void vmx_vpid_free(u16 vpid);
/* Everything that this CPU caches, after VMXON. False: an instruction failed. */
bool vmx_flush_all(void);
void vmx_flush_stage2(struct vcpu *v);
void vmx_flush_guest(struct vmx_vcpu *x);

/* dump.c */
void vmx_list_fields(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value), void *arg);
void vmx_dump(struct vcpu *v);
