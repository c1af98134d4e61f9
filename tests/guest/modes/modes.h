/* SPDX-License-Identifier: MIT */
/*
 * modes.asm: steps that are executed in 32-bit protected mode, from C in 64-bit mode. They begin
 * without paging, at CPL 0, with flat segments; each ends with a value, or with a fault.
 */
#pragma once

#include "tests/guest/lib/apic.h"

enum op {
	OP_END,
	OP_READ, /* 32 bits at a */
	OP_WRITE,
	OP_OUTS, /* as READ and WRITE of a byte, by Corbel's walk of the tables */
	OP_INS,
	OP_SET_CR0, /* to a */
	OP_SET_CR3,
	OP_SET_CR4,
	OP_GET_CR0,
	OP_GET_CR3,
	OP_GET_CR4,
	OP_SET_EFER,
	OP_GET_EFER,
	OP_INVLPG,
	OP_CALL,   /* the routine a, with EAX = b */
	OP_CODE16, /* the same in 16-bit protected mode, ... */
	OP_REAL,   /* ... in real mode, ... */
	OP_UNREAL, /* ... and there with the limits of protected mode in DS and ES */
	OP_V86,	   /* until a fault: #UD is the good end */
	OP_JMP_TSS,
	OP_CALL_TSS,
	OP_INT, /* 0x60 */
	OP_ICR, /* write b to the LAPIC's register at a, with interrupts on behind it */
	OP_GP,	/* #GP(0xfff8) */
};

struct step {
	u32 op, a, b;
	u32 value; /* of EAX; of the OPs by TSS: TR, or ~0 if the task did not come back as it was
		    */
	u32 fault; /* NO_FAULT, or FAULT(vector, error) */
	u32 cr2;
};
_Static_assert(sizeof(struct step) == 24, "modes.asm");
/* op, and a and b where it has them */
#define STEP(...) STEP_(__VA_ARGS__, 0, 0, 0)
#define STEP_(op_, a_, b_, ...)                   \
	{                                         \
		.op = (op_), .a = (a_), .b = (b_) \
	}

#define RUN(steps) run(steps, ARRAY_SIZE(steps))
/* Appends OP_END: the array's last step must be free for it. */
void run(struct step *steps, u32 n);
void modes_run(struct step *steps);
/* In compatibility mode: the routine at a selector, until its far return; EAX in and out. */
u32 compat_call(u32 selector, u32 routine, u32 eax);

/* 32-bit gates; [0x60] and others are the tests'. */
struct PACKED gate32 {
	u16 low, selector;
	u8 zero, type;
	u16 high;
};
extern struct gate32 idt32[256];
struct tss32 {
	u32 link, esp0, ss0, unused[4], cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
};
_Static_assert(sizeof(struct tss32) == 0x68, "SDM \"32-Bit Task-State Segment\"");
/* Of the steps, and of a second task. */
extern struct tss_a {
	struct tss32 t;
	u8 ports[0x2001]; /* the I/O bitmap, and the byte behind it */
} tss32;
extern struct tss32 tss_b;
/* A descriptor of a TSS or LDT in the GDT: type is the descriptor's sixth byte. */
void make_tss(u32 sel, const void *tss, u32 limit, u64 type);
/* Page tables for 32-bit paging: 16 MiB one to one, and an empty table for 1 GiB. */
u32 *tables32(u32 **window);
/* The same for PAE paging, with the directory of that GiB. */
u64 *tables_pae(u64 **window, u64 **pd_of_window);
/* TSS A for OP_V86: all ports but those of one byte of the I/O bitmap. */
void v86_tss(u32 closed_byte);
#define SEL_TSS_A 0x60 /* modes.asm */
#define SEL_TSS_B 0x68
#define SEL_LDT	  0x70

#define CR0_FLAT 0x33u
#define PG	 0x80000000u
/* Routines of modes.asm, by their address. */
#define ROUTINE(f)                   \
	({                           \
		extern const u8 f[]; \
		(u32)(u64) f;        \
	})
