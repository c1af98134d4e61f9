/* SPDX-License-Identifier: MIT */
/* What the files of svm/ share. */
#pragma once

#include "svm/vmcb.h"
#include "virt/ops.h"

/* CPUID 8000_000A:EDX (APM vol. 3 "SVM Revision and Feature Identification"). */
#define SVM_FEATURE_NPT	     BIT(0)
#define SVM_FEATURE_NRIPS    BIT(3)
#define SVM_FEATURE_PAUSE    BIT(10) /* a counter of PAUSEs */
#define SVM_FEATURE_BUS_LOCK BIT(29) /* a counter of bus locks */

enum { CAP_SVM_REVISION = CAP_VENDOR, CAP_SVM_ASIDS, CAP_SVM_FEATURES, CAP_SVM_VM_CR, CAP_SVM_END };

struct svm_vcpu {
	struct vcpu v; /* first */
	struct vmcb *vmcb;
	hpa_t vmcb_hpa;
	hpa_t host_vmcb; /* of the CPU it is loaded on */
	u64 cr0;	 /* as the guest sees it: CD and NW included */
	u64 efer;	 /* as the guest sees it: no SVME */
	u64 tsc_aux;
	u64 asid_generation;
	u32 asid_cpu;
	bool nmi_blocked;
	u8 soft_len;	     /* ARMED_SOFT */
	bool soft_exits;     /* ops->debug_exits: breakpoints */
	struct {	     /* how v.want_step is done, until the exit: step.c */
		u8 how;	     /* enum svm_step */
		bool own_tf; /* the guest steps by itself */
		u64 dr6;
		u8 dr; /* STEP_TARGET: in this debug register */
		u64 target, saved_dr, dr7;
		u16 tr;
		gpa_t task_flags; /* of the task tr, should it be left; 0: it can't be */
	} step;
};

/* Of v.todo: what the next entry must look at, or the exit after it. */
enum {
	ARMED_IRQ_WINDOW = 1, /* V_IRQ waits for the guest to take an interrupt */
	ARMED_DR = 2,	      /* DR7 has breakpoints that only MOV DR7 arms (step.c) */
	ARMED_SOFT = 4,	      /* RIP is soft_len behind the INT n, INT3 or INTO that is injected */
	ARMED_FLUSH = 8,      /* tlb_control asks for one */
	ARMED_WANTED = 16,    /* v.want_step is being done: see step */
	ARMED_AFTER = ARMED_DR | ARMED_SOFT | ARMED_FLUSH | ARMED_WANTED,
};

/* #DB, #AC, #MC */
#define SVM_EXCEPTIONS ((u32)(BIT(1) | BIT(17) | BIT(18)))

/* STEP_EVENT: only an event is delivered, and an interrupt of our own waits behind it. */
enum svm_step { STEP_NONE, STEP_EVENT, STEP_TF, STEP_PUSHF, STEP_POPF, STEP_DR, STEP_TARGET };

static inline struct svm_vcpu *svm_of(struct vcpu *v)
{
	return (struct svm_vcpu *)v;
}

/* Decided by svm_setup() from the reference record. */
struct svm_setup {
	u32 asids; /* usable numbers are 1 .. asids - 1 */
	bool nrips, rdtscp, pause_filter, bus_lock;
	u8 max_leaf;
	hpa_t iopm, msrpm;
};
extern struct svm_setup svm_setup_;

extern const struct cap_table svm_cap_table;
void svm_caps_read(struct virt_caps *caps);
int svm_setup(const struct virt_caps *reference, void (*missing)(const char *what));
const struct pt_format *svm_pt_format(u8 *max_leaf);
bool svm_present(void);

int svm_cpu_enable(struct virt_cpu_state *state);
void svm_cpu_disable(struct virt_cpu_state *state);

int svm_vcpu_create(struct vcpu *v);
void svm_vcpu_destroy(struct vcpu *v);
void svm_vcpu_reset(struct vcpu *v);
void svm_vcpu_load(struct vcpu *v);
void svm_vcpu_put(struct vcpu *v);
void svm_pause_exits(struct vcpu *v, bool on);
bool svm_bus_locks(struct vcpu *v, enum bus_locks what);
void svm_run(struct vcpu *v);

u64 svm_get_reg(struct vcpu *v, enum vreg reg);
void svm_set_reg(struct vcpu *v, enum vreg reg, u64 value);
void svm_get_seg(struct vcpu *v, enum vseg seg, struct segment *out);
void svm_set_seg(struct vcpu *v, enum vseg seg, const struct segment *in);
void svm_get_mmu(struct vcpu *v, struct guest_mmu *out);

/* Give v an ASID of this CPU if it has none, or a new one, which forgets its translations. */
void svm_asid_check(struct svm_vcpu *s);
/* An entry with tlb_control has emptied this CPU's TLB. */
void svm_flushed(struct svm_vcpu *s);
void svm_flush(struct vcpu *v);

/* Of the instruction that exited, if the CPU tells; else 0. */
static inline u8 svm_told_length(const struct vmcb *c)
{
	return svm_setup_.nrips && c->next_rip ? (u8)(c->next_rip - c->rip) : 0;
}
/* What v->want_step needs of this entry, and what it means for the exit (step.c). */
void svm_step_begin(struct svm_vcpu *s);
void svm_step_end(struct svm_vcpu *s);
/* INT n, INT3 or INTO was intercepted as such. */
void svm_soft_interrupt(struct svm_vcpu *s);
void svm_debug_exits(struct vcpu *v, bool breakpoints, bool debug_registers);
void svm_arm_dr(struct svm_vcpu *s);
/* Fill v->exit from the VMCB, all but what run.c did already. */
void svm_translate_exit(struct svm_vcpu *s);
void svm_list_fields(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value), void *arg);
void svm_dump(struct vcpu *v);
