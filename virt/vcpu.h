/* SPDX-License-Identifier: MIT */
/*
 * A virtual CPU, vendor-neutral. The vendor's structure has a struct vcpu as its first member.
 *
 * A vCPU is run by one CPU at a time, with that CPU's interrupts off (the guest itself is
 * interrupted by exits). Fields are its runner's, except those marked atomic.
 */
#pragma once

#include "lib/addr.h"
#include "lib/list.h"
#include "arch/x86/timer.h"
#include "arch/x86/trace.h"
#include "virt/exit.h"
#include "virt/memfault.h"
#include "virt/share.h"
#include "virt/split_policy.h"

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPRS };

/* Registers that the vendor keeps; ops->get_reg and set_reg. */
enum vreg {
	VR_RSP,
	VR_CR0, /* as the guest sees it */
	VR_CR2,
	VR_CR3,
	VR_CR4, /* as the guest sees it */
	VR_DR6,
	VR_DR7,
	VR_EFER, /* as the guest sees it */
	VR_PAT,
	VR_STAR,
	VR_LSTAR,
	VR_CSTAR,
	VR_SFMASK,
	VR_KERNEL_GS_BASE,
	VR_SYSENTER_CS,
	VR_SYSENTER_ESP,
	VR_SYSENTER_EIP,
	VR_TSC_OFFSET,
	VR_INTR_SHADOW, /* 1: the next instruction is in the shadow of STI or MOV SS */
	VR_NMI_BLOCKED, /* 1: until the guest's next IRET */
	VREGS
};

enum vseg {
	SEG_ES,
	SEG_CS,
	SEG_SS,
	SEG_DS,
	SEG_FS,
	SEG_GS,
	SEG_LDTR,
	SEG_TR,
	SEG_GDTR,
	SEG_IDTR,
	SEGS
};

struct segment {
	u64 base;
	u32 limit;
	u16 selector;
	/*
	 * type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15: the VMCS layout; bits 11:8 zero
	 */
	u16 attr;
	bool unusable; /* a null selector was loaded */
};
#define SEG_ATTR_TYPE	   0x000f
#define SEG_ATTR_S	   BIT(4)
#define SEG_ATTR_DPL_SHIFT 5
#define SEG_ATTR_P	   BIT(7)
#define SEG_ATTR_L	   BIT(13)
#define SEG_ATTR_DB	   BIT(14)
#define SEG_ATTR_G	   BIT(15)

/*
 * What decides how a linear address is translated, and for whom; all as the guest sees it.
 * ops->get_mmu.
 */
struct guest_mmu {
	u64 cr0, cr3, cr4, efer;
	u16 cs_attr; /* as segment.attr: L is what counts */
	u8 cpl;	     /* 3 in virtual-8086 mode, 0 in real mode */
};

/*
 * An event to be injected at the next entry. An interrupted delivery puts its event back here. All
 * zeros if there is none.
 */
struct event {
	bool valid;
	u8 type; /* the encoding that VMX and SVM share, see below */
	u8 vector;
	bool has_error;
	u32 error;
	u8 insn_len; /* of the instruction, for EVENT_SOFT_INT and #BP/#OF: VMX wants it */
};
enum { EVENT_EXT_INT = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFT_INT = 4 };

/* Bits of vcpu.requests: looked at before each entry. */
enum vcpu_request {
	REQ_EVENT = 1,	   /* an interrupt may be deliverable: ask the interrupt controller again */
	REQ_STOP = 2,	   /* leave the run loop: the VM stops, pauses, or is dead */
	REQ_RESCHED = 4,   /* leave the run loop: others want the CPU */
	REQ_TIMER = 8,	   /* the virtual timer has expired */
	REQ_NMI = 16,	   /* an NMI for the guest */
	REQ_FLUSH = 32,	   /* forget cached stage-2 translations */
	REQ_INIT = 64,	   /* an INIT for the guest */
	REQ_SIPI = 128,	   /* a start-up IPI, with sipi_vector */
	REQ_DELAY = 256,   /* the wait of VCPU_DELAYED may be over */
	REQ_DEBUG = 512,   /* leave the run loop if debug.hold is set */
	REQ_MEMORY = 1024, /* what it waits for is there, or will never be */
	REQ_DEVICES = 2048,    /* a device met missing memory: vm->retry_devices */
	REQ_SLOTS = 4096,      /* the slots have changed */
	REQ_BUS_LOCKED = 8192, /* its last instruction locked the bus; set by its runner */
};

/* Who wants a step. STEP_NMI is the backend's: to open NMIs behind the instruction. */
enum { STEP_NMI = 1, STEP_SPLIT = 2, STEP_DEBUG = 4 };

/* What the guest has the vCPU do; SDM "Guest Non-Register State", activity state. */
enum vcpu_activity {
	VCPU_ACTIVE,
	VCPU_IN_HLT,
	VCPU_WAIT_SIPI,
	VCPU_DELAYED, /* Corbel's own: it waits for its next split lock (virt/split_policy.c) */
	/* beside one of these: it waits for memory first (virt/memfault.h) */
	VCPU_WAITS_MEMORY = 0x80,
};

/* What the scheduler does with it; halted: with nothing to do; paused: held by a debugger. */
enum vcpu_state {
	VCPU_STOPPED,
	VCPU_RUNNABLE,
	VCPU_RUNNING,
	VCPU_HALTED,
	VCPU_PAUSED,
	VCPU_CLAIMED, /* paused, and the debugger is at work on it */
};

#define CPU_NONE (~0u)

/* Of EXIT_COST builds (virt/exit_cost.h); TSC ticks without idle time. */
struct exit_cost {
	u64 entered, exited;   /* when: the last time */
	u64 guest;	       /* in guest mode */
	u64 ticks[EXIT_KINDS]; /* from exits to entries */
};

/* Why a vCPU holds by itself: a step is done, or + enum debug_break, a breakpoint was met. */
enum debug_stop { DEBUG_NONE, DEBUG_STEP, DEBUG_BREAK };

/* virt/debug.c's; all 0 while no debugger is attached. */
struct vcpu_debug {
	bool hold;    /* atomic: come to rest, and stay there */
	bool owns_dr; /* the debug registers are the debugger's: dr, dr6 and dr7 are the guest's */
	u8 stop;      /* enum debug_stop */
	u64 address;  /* stop: where */
	u64 dr6, dr7;
	u64 irq_flags;
};

struct io_region;
struct memslot;
struct vm;
struct vcpu {
	u64 gpr[GPRS];	 /* RSP is not here but in VR_RSP: use vcpu_gpr() */
	u64 rip, rflags; /* read at each exit, written back at each entry */
	struct vm *vm;
	u64 flushed; /* stage2.generation at its last REQ_FLUSH */
	union {
		struct {
			u32 requests; /* atomic; enum vcpu_request */
			u32 activity; /* enum vcpu_activity */
		};
		u64 not_ready; /* either of them: it can't be entered yet */
	};
	union {
		struct {
			bool want_irq_window, want_nmi_window;
			u8 want_step; /* STEP_*: execute one instruction, then EXIT_STEP */
			u8 todo;      /* the backend's own, for the next entry */
			struct event event;
		};
		u64 rare; /* any of these, event.valid among them: 0 for most entries */
	};
	u8 in_guest; /* atomic; 1 between the last look at requests and the exit */
	bool apicv;  /* the CPU delivers interrupts by itself: ops->apicv */
	bool posts;  /* ... and takes them from the posted-interrupt descriptor, when notified */
	struct vm_exit exit;
	union {
		struct {
			u32 who;     /* TRACE_WHO of it */
			u32 entered; /* low half of the TSC at the last entry */
		};
		u64 word;
	} trace;
	struct exit_cost cost;
	u64 exits[EXIT_KINDS];	      /* counters; written by the runner, read by anyone */
	u64 exits_before[EXIT_KINDS]; /* the monitor's: what they were at exits -r */

	u32 index;	    /* 0.. within the VM; also its APIC id */
	u32 cpu;	    /* whose queue it is on when it is runnable; virt/sched.c's */
	u16 pin;	    /* 1 + the only CPU that it may run on; 0: those of its VM */
	u32 loaded_cpu;	    /* where vendor state is active, CPU_NONE if nowhere */
	u8 state;	    /* atomic; enum vcpu_state */
	struct share share; /* virt/sched.c's: its place in the queue, under that one's lock */
	u64 woken;	    /* TSC when it was put there because it woke, else 0 */
	u64 ran;	    /* TSC ticks on CPUs; its runner's, read by anyone */
	u8 sipi_vector;	    /* atomic; of the last start-up IPI */
	bool nmi_pending;
	u64 notified; /* atomic; how often vcpu_post() spared it an exit */
	/* it ran at least once since reset (for "first instruction" figures) */
	bool launched_before;

	const struct io_region *io_last[3]; /* bus.c: region of the last access, by enum io_space */
	/* guestwalk.c: slot of the last table that was read; any slot at first */
	const struct memslot *slot_hint;
	struct memory_wait wait;

	struct vcpu_split split;
	void *lapic;		   /* dev/lapic.c's state */
	struct timer timer;	   /* the LAPIC timer's host side */
	struct timer device_timer; /* vCPU 0's: that of the PIT */
	u64 kvmclock_msr;

	void *fpu; /* XSAVE area, page aligned */
	u64 xcr0;  /* the guest's */
	u64 dr[4]; /* DR0..DR3 while not loaded, or while debug.owns_dr */

	struct vcpu_debug debug;
};

u64 vcpu_gpr(struct vcpu *v, enum gpr n);
void vcpu_set_gpr(struct vcpu *v, enum gpr n, u64 value);

/* trace() about a vCPU. */
static inline void vcpu_trace(const struct vcpu *v, enum trace_type type, u32 arg, u64 a, u64 b)
{
	trace(type, v->trace.who, arg, a, b);
}

/*
 * Ask for something before the next entry, from any CPU: sets the bit, wakes a halted vCPU, kicks
 * one that is in guest mode.
 */
void vcpu_request(struct vcpu *v, u32 requests);
/*
 * vcpu_request() of REQ_EVENT for what is in the posted-interrupt descriptor: a vCPU in guest mode
 * that takes it from there is notified, and stays in guest mode.
 */
void vcpu_post(struct vcpu *v);
/* vcpu_request() on the runner: it looks by itself, before it enters the guest or sleeps. */
static inline void vcpu_request_own(struct vcpu *v, u32 requests)
{
	__atomic_fetch_or(&v->requests, requests, __ATOMIC_RELAXED);
}

/*
 * INIT and start-up IPIs, from any CPU. A SIPI only counts if it finds the vCPU waiting for one,
 * and one that came before the INIT is forgotten.
 */
void vcpu_send_init(struct vcpu *v);
void vcpu_send_sipi(struct vcpu *v, u8 vector);

/*
 * Power-on state; vCPU 0 is active, the others wait for SIPI. Loaded by virt_ops->vcpu_load, not
 * running. The TSC offset follows vm->tsc_base.
 */
void vcpu_power_on(struct vcpu *v);
/* REQ_INIT and REQ_SIPI were taken. On the runner. */
void vcpu_take_init(struct vcpu *v);
void vcpu_take_sipi(struct vcpu *v);
/* DR0..DR3 as the vCPU has them into this CPU. On the runner. */
void vcpu_load_dr(const struct vcpu *v);

/*
 * The guest's instruction is done: RIP moves past it, the shadow ends, a trap by TF is queued. On
 * the runner.
 */
void vcpu_skip(struct vcpu *v);

/*
 * Queue an exception for the next entry (with the double-fault rules, SDM "Interrupt 8"). On the
 * runner.
 */
void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error);
static inline void vcpu_gp(struct vcpu *v)
{
	vcpu_exception(v, 13, true, 0);
}
static inline void vcpu_ud(struct vcpu *v)
{
	vcpu_exception(v, 6, false, 0);
}

/* Queue the trap of a guest that single-steps (TF). vcpu_skip does it by itself. On the runner. */
void vcpu_step_trap(struct vcpu *v);

/* As vcpu_skip, for one whose length is known. */
void vcpu_skip_len(struct vcpu *v, u32 len);

enum run_result { VCPU_RUN_YIELDED, VCPU_RUN_HALTED, VCPU_RUN_STOPPED, VCPU_RUN_HELD };
/*
 * Run loop: run v on this CPU until it halts, stops, is held, or must give up the CPU. Interrupts
 * off on entry and return.
 */
enum run_result vcpu_run(struct vcpu *v);
