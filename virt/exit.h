/* SPDX-License-Identifier: MIT */
/*
 * VM exits in neutral form. The vendor folders translate their exit reasons to these kinds;
 * virt/exits.c has one handler for each, the unexpected ones included.
 */
#pragma once

#include "lib/addr.h"

enum exit_kind {
	EXIT_IRQ, /* a host interrupt is pending, or was pending when entering */
	/* a host NMI or machine check arrived; the vendor code has had it handled */
	EXIT_NMI,
	EXIT_IRQ_WINDOW, /* the guest can now take an interrupt */
	EXIT_NMI_WINDOW, /* the guest can now take an NMI */
	EXIT_CPUID,
	EXIT_HYPERCALL,
	EXIT_IO,
	EXIT_MSR_READ,
	EXIT_MSR_WRITE,
	EXIT_HLT,
	EXIT_STAGE2_FAULT,
	EXIT_EXCEPTION, /* an intercepted exception of the guest */
	EXIT_CR_ACCESS,
	EXIT_XSETBV,
	EXIT_PAUSE,
	EXIT_MONITOR,
	EXIT_MWAIT,
	EXIT_INVD, /* INVD and WBINVD */
	EXIT_RDPMC,
	EXIT_VIRT_INSN,	  /* a VMX or SVM instruction: not offered, #UD */
	EXIT_APIC_EOI,	  /* APIC virtualization: a level-triggered vector was ended */
	EXIT_APIC_WRITE,  /* ... and a register was written that needs more than that */
	EXIT_TASK_SWITCH, /* of a task gate: the event that leads there is put back */
	EXIT_TRIPLE_FAULT,
	EXIT_TIMER,	   /* the time slice is over (VMX preemption timer) */
	EXIT_BUS_LOCK,	   /* the next instruction would lock the bus: BUS_LOCKS_EXIT */
	EXIT_BUS_LOCKED,   /* the last one did, and REQ_BUS_LOCKED is set */
	EXIT_STEP,	   /* v->want_step: the instruction is done, or its event delivered */
	EXIT_DR_ACCESS,	   /* MOV to or from a debug register; ops->debug_exits */
	EXIT_ENTRY_FAILED, /* the CPU refused the guest's state; the guest did not run */
	/* a reason that is known, but that Corbel never enabled; or an unknown one */
	EXIT_UNEXPECTED,
	EXIT_KINDS
};

enum access { ACCESS_R = 1, ACCESS_W = 2, ACCESS_X = 4 };

struct vm_exit {
	u8 kind; /* enum exit_kind */
	/* of the instruction that exited; 0: the CPU doesn't tell, vcpu_skip() decodes it */
	u8 insn_len;
	bool done; /* it was completed: the shadow of STI or MOV SS ends at the next entry */
	u8 irq;	   /* the exit has acknowledged this vector, for irq_taken(); 0: none */
	u64 raw;   /* the vendor's exit reason, of EXIT_ENTRY_FAILED and EXIT_UNEXPECTED */
	union {
		struct {
			u16 port;
			u8 size; /* 1, 2 or 4 */
			bool in;
			bool string, rep;
		} io;
		struct {
			gpa_t gpa;
			u8 access;	/* enum access, one bit */
			bool gva_valid; /* gva is the linear address (VMX) */
			bool walk;	/* the guest's own page-table walk made the access */
			bool mapped;	/* a leaf is there, without the right to it */
			u64 gva;
		} fault;
		struct {
			u8 vector;
			bool has_error;
			u32 error;
			bool stepped; /* #DB, with v->want_step: the instruction is done, too */
			u64 dr6; /* #DB: the bits to set in DR6, in DR6's own polarity except RTM */
		} exception;
		struct {
			u8 cr; /* 0, 3, 4 or 8 */
			/* CR_UNDECODED: look at the instruction */
			enum { CR_UNDECODED, CR_WRITE, CR_READ, CR_CLTS, CR_LMSW } op;
			u8 gpr;
			u16 lmsw; /* CR_LMSW: the source operand */
		} cr;
		struct {
			u16 selector; /* of the new TSS */
			enum { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE } source;
		} task;
		/*
		 * EXIT_ENTRY_FAILED, EXIT_UNEXPECTED: the vendor's further word; EXIT_APIC_EOI: the
		 * vector; EXIT_APIC_WRITE: the register's offset
		 */
		u64 qualification;
	};
};

const char *exit_kind_name(enum exit_kind kind);
