/* SPDX-License-Identifier: MIT */
/*
 * The interrupt controllers of a PC: two 8259As, the second behind input 2 of the first, at ports
 * 0x20/0x21 and 0xa0/0xa1, with the edge/level registers of PCI chipsets (ELCR) at 0x4d0/0x4d1.
 *
 *	line (any CPU) -> lines --+--> output --> pic_output: LINT0 of the vCPUs, IOAPIC pin 0
 *	OCW1, EOI (vCPUs) --------+       ^
 *	INTA: pic_ack (the vCPU that takes the interrupt): the vector
 *
 * As in the data sheet a request is there as long as its line is: an edge that is over before INTA
 * is none, and INTA without a request gives IRQ 7. Whether an input is by edge or by level only
 * ELCR says (LTIM of ICW1 has no effect, as on these chipsets).
 *
 * Any CPU may call. `lines` is atomic, so that a line whose input is masked costs nothing more; the
 * rest is under the lock (RANK_IRQCHIP), and pic_output is called under it.
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define PIC_CHIPS  2
#define PIC_INPUTS 16

struct pic_chip {
	u8 imr, isr, elcr;
	u8 base;     /* vector of input 0 */
	u8 lowest;   /* the input of the lowest priority; the next one has the highest */
	u8 icw;	     /* number of the initialization word that comes next; 0: none */
	bool single; /* ICW1: there will be no ICW3 */
	bool icw4;   /* ICW1: there will be an ICW4 */
	bool auto_eoi, rotate_auto, special_mask, special_nested;
	bool read_isr; /* what a read of the first port gives: ISR, not IRR */
	bool poll;     /* the next read is an INTA */
};

struct pic {
	struct vm *vm;
	struct spinlock lock;
	u32 lines;   /* atomic; 15:0 the lines, 31:16 those whose edge was acknowledged */
	u32 open;    /* atomic; the inputs that are not masked */
	bool output; /* atomic; the first chip's INT */
	struct pic_chip chip[PIC_CHIPS];
};

/* Power-on state; registers the ports. 0, or io_register's error. */
int pic_create(struct pic *pic, struct vm *vm);
/*
 * As a PC's firmware leaves them: everything masked, vectors 0x08 and 0x70. The VM is not running.
 * Lines keep their level: they belong to the devices.
 */
void pic_reset(struct pic *pic);
/* input: 0..15; 2 is the second chip's and ignored. Any CPU. */
void pic_set_line(struct pic *pic, u32 input, bool level);
/* INTA: the vector of the highest request, which is in service now. On the runner of a vCPU. */
u8 pic_ack(struct pic *pic);

/* Owned by dev/platform.c: the first chip's INT has changed, or rises anew. */
void pic_output(struct vm *vm, bool level);
