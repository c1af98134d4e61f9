/* SPDX-License-Identifier: MIT */
/*
 * Exceptions and interrupts that the host takes.
 *
 * Interrupt handlers run with interrupts off on the interrupted stack. They may take locks only
 * where everybody else takes them with interrupts off.
 */
#pragma once

#include "lib/types.h"

struct trap_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

/* Vectors of the host. External devices from VECTOR_DEVICE up; the rest is fixed. */
enum {
	VECTOR_DEVICE = 0x30,
	VECTOR_TIMER = 0xf0,
	VECTOR_IPI_CALL = 0xf1,
	VECTOR_KICK = 0xf2,   /* nothing to do but to leave guest mode or HLT */
	VECTOR_NOTIFY = 0xf3, /* VMX: posted interrupts; in the host as VECTOR_KICK */
	VECTOR_APIC_ERROR = 0xfe,
	VECTOR_SPURIOUS = 0xff,
};

/*
 * Handlers by vector; set at boot, before the source is unmasked. EOI is sent by the common code,
 * before the call.
 */
void trap_set_irq(u8 vector, void (*handler)(void));

/* #AC in the hypervisor goes here first; true: handled, resume (arch/x86/split_lock.c). */
extern bool (*trap_ac_hook)(struct trap_frame *f);
/* NMIs, and exceptions that nobody expects, which don't return. Set before the first IDT is. */
extern void (*trap_nmi_hook)(struct trap_frame *f);
extern void (*trap_crash_hook)(struct trap_frame *f);

/*
 * A VMX exit consumed an NMI or a machine check: run the host's handler for it as if it had come by
 * the IDT.
 */
void nmi_from_exit(void);
void machine_check_from_exit(void);

/* An exit has acknowledged this vector at the APIC: its EOI, and its handler. */
void irq_taken(u8 vector);

/*
 * Copy what stands at an address that may be anything. Returns how many bytes are missing, from
 * the first that could not be read.
 */
size_t peek(void *dst, u64 address, size_t n);

/* Entered from traps.asm. */
void trap_handler(struct trap_frame *f);
