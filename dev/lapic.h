/* SPDX-License-Identifier: MIT */
/*
 * The local APIC of each vCPU, in software: xAPIC by MMIO, x2APIC by MSRs.
 *
 *	senders (any CPU)            the vCPU's runner
 *	ICR, IOAPIC - deliver -> posted, TMR - pending -> IRR - ack -> ISR - EOI -> IOAPIC
 *	             (atomic bits, then REQ_EVENT)
 *
 * Only `posted`, TMR and `errors` are written by other CPUs, atomically; everything else
 * belongs to the runner, and others read single words of it (id, LDR, DFR, SVR, PPR). There is no
 * lock.
 *
 * With APIC virtualization (vcpu.apicv), which is on in x2APIC mode while SVR enables the APIC, the
 * CPU does ack, EOI, TPR, PPR and the self-IPI on `regs` while the guest runs. The rest of it is as
 * without; what is known of the words of IRR and ISR is counted anew. With posted interrupts
 * (vcpu.posts) the CPU also collects edges into IRR, when it is notified. Not what is
 * level-triggered: its EOI must exit, and the runner has to tell the CPU first which vectors do.
 */
#pragma once

#include "arch/x86/msr.h"
#include "dev/lapic_regs.h"
#include "virt/vm.h"

/*
 * Input clock of the timer: what the VM's CPUID policy promises (cpuid_policy.apic_khz), or this
 * for a VM without a policy.
 */
#define LAPIC_DEFAULT_KHZ 1000000
/* A shorter period is stretched to this: a guest can't keep a CPU busy with timer interrupts alone.
 */
#define LAPIC_MIN_PERIOD_NS 20000

/*
 * Interrupts that came from elsewhere and are not in IRR yet, a bit per vector; and whether there
 * may be any. Atomic. SDM "Posted-Interrupt Descriptor", but for what only an IOMMU reads.
 */
struct lapic_posted {
	u32 bits[8], any, unused[7];
} ALIGNED(64);

struct lapic {
	u32 regs[APIC_REGS * 4]; /* one register per 16 bytes: the layout of the xAPIC page and of
				    VMX's virtual-APIC page */
	struct lapic_posted posted[2]; /* edges; level-triggered ones */
	struct vcpu *v;
	u64 base;		  /* MSR IA32_APIC_BASE */
	u32 irr_words, isr_words; /* which words of IRR and ISR are non-zero */
	u32 errors;		  /* atomic; errors since the last write of ESR */
	bool extint; /* atomic; the IOAPIC said that the PIC has an interrupt for this vCPU */

	struct {
		bool running;	    /* counts towards deadline; one-shot: not expired yet */
		u8 mode;	    /* enum apic_timer_mode, 3: reserved, never fires */
		u8 shift;	    /* log2 of the divisor */
		u64 deadline;	    /* host TSC */
		u64 period;	    /* in host TSC, for the periodic mode */
		u64 min_period;	    /* LAPIC_MIN_PERIOD_NS in host TSC */
		u64 guest_deadline; /* MSR IA32_TSC_DEADLINE */
		u64 tsc_per_tick, tick_per_tsc; /* see ratio_make */
	} timer;
};

/* What travels on the APIC bus. */
struct apic_msg {
	u32 dest;
	bool dest8; /* an 8-bit destination (xAPIC, IOAPIC): 0xff is everybody */
	bool logical;
	bool level;   /* level-triggered: the EOI is broadcast */
	u8 mode;      /* enum apic_mode */
	u8 shorthand; /* enum apic_shorthand */
	u8 vector;
};

/* A LAPIC for v, in power-on state, in a frame of its own; -ENOMEM. The VM is not running. */
int lapic_create(struct vcpu *v);
void lapic_destroy(struct vcpu *v);
/* In the record of its VM (virt/state.h). */
struct state;
void lapic_state(struct vcpu *v, struct state *s);
/*
 * Power-on state; v is not running. Its CPU's timer is cancelled by the caller's stopping it (see
 * vcpu.timer).
 */
void lapic_reset(struct vcpu *v);
/* The MMIO and MSR regions, once per VM: 0, or io_register's error. */
int lapic_register(struct vm *vm);

/*
 * Deliver a message; src is the sending vCPU, NULL for a device. Any CPU, no lock that ranks after
 * RANK_DEVICE held. Returns how many vCPUs took it. Everything is the guest's doing: whatever makes
 * no sense is dropped.
 */
u32 lapic_deliver(struct vm *vm, struct vcpu *src, const struct apic_msg *msg);

/* struct irqchip_ops, see virt/vm.h. */
int lapic_pending(struct vcpu *v);
void lapic_ack(struct vcpu *v, u8 vector);
void lapic_timer_expired(struct vcpu *v);
void lapic_init(struct vcpu *v);
void lapic_eoi_exit(struct vcpu *v, u8 vector);
void lapic_written(struct vcpu *v, u32 offset);
u8 lapic_get_tpr(struct vcpu *v);
void lapic_set_tpr(struct vcpu *v, u8 tpr);

/* Between lapic*.c. */
static inline struct lapic *lapic_of(struct vcpu *v)
{
	return v->lapic;
}

static inline u32 *lapic_reg(struct lapic *l, u32 offset)
{
	return &l->regs[offset / 4];
}

static inline u32 lapic_peek(struct lapic *l, u32 offset)
{
	return READ_ONCE(l->regs[offset / 4]);
}

/* Globally enabled, in any mode. */
static inline bool lapic_on(const struct lapic *l)
{
	return READ_ONCE(l->base) & APIC_BASE_ENABLE;
}

static inline bool lapic_x2(const struct lapic *l)
{
	return READ_ONCE(l->base) & APIC_BASE_X2APIC;
}

/* Can this APIC take a fixed interrupt? NMI, INIT and SIPI also reach one that is disabled by SVR.
 */
static inline bool lapic_enabled(struct lapic *l)
{
	return lapic_on(l) && lapic_peek(l, APIC_SVR) & APIC_SVR_ENABLE;
}

void lapic_accept(struct lapic *l, u8 vector, bool level); /* any CPU */
/* An edge, on the runner. */
void lapic_accept_own(struct lapic *l, u8 vector);
/* What others sent goes into IRR. On the runner. */
void lapic_collect(struct lapic *l);
void lapic_error(struct lapic *l, u32 bits); /* any CPU */
void lapic_local(struct lapic *l, u32 lvt);
/* Is the PIC's output this vCPU's affair? Any CPU. */
bool lapic_takes_extint(struct lapic *l);
void lapic_eoi(struct lapic *l);
void lapic_reset_regs(struct lapic *l);
void lapic_set_id(struct lapic *l);
/* Mode or SVR may have changed: APIC virtualization follows. On the runner, the vCPU loaded. */
void lapic_follow_mode(struct lapic *l);
/* Owned by the IOAPIC: a level-triggered vector was acknowledged. Any CPU. */
void lapic_eoi_broadcast(struct vm *vm, u8 vector);
void lapic_icr(struct lapic *l, u32 low, u32 dest, bool dest8);
void lapic_self_ipi(struct lapic *l, u8 vector);

/* False: it has what a guest can't write; s says so. */
bool lapic_check(struct lapic *l, struct state *s);

void lapic_timer_create(struct lapic *l);
/* What follows from the registers, running and deadline. */
void lapic_timer_restore(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_settle(struct lapic *l);
void lapic_timer_lvt(struct lapic *l); /* LVT_TIMER was written */
void lapic_timer_count(struct lapic *l, u32 count);
void lapic_timer_divide(struct lapic *l, u32 value);
u32 lapic_timer_current(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, u64 guest_tsc);
