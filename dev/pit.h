/* SPDX-License-Identifier: MIT */
/*
 * The interval timer of a PC: an 8254 at ports 0x40..0x43, and port 0x61 (the gate of counter 2,
 * its output, and the refresh clock that toggles all the time).
 *
 *	counter 0 -> IRQ 0: PIT_GSI; its gate is always open
 *	counter 1    is there, and wired to nothing
 *	counter 2    is read at port 0x61; there is no speaker
 *
 * A counter is a time at which it began to count and a function of the time since then; only
 * counter 0 has a timer, which is vCPU 0's (vcpu.device_timer): the vCPU that programs it asks vCPU
 * 0 to arm it. Interrupts that nobody took in time are one. A new count takes effect at once also
 * in modes 2 and 3, where the data sheet has the old period end first.
 *
 * Any CPU may call; there is a lock (RANK_DEVICE).
 */
#pragma once

#include "lib/spinlock.h"
#include "virt/vm.h"

#define PIT_HZ	     1193182
#define PIT_COUNTERS 3
#define PIT_GSI	     2 /* where PCs have IRQ 0 at the IOAPIC; the MADT says so */
/* Interrupts are at least so far apart: a guest can't keep a CPU busy with them alone. */
#define PIT_MIN_PERIOD_NS 20000

struct pit_counter {
	u8 mode;   /* 0..5 */
	u8 access; /* 1: low byte, 2: high byte, 3: both, low first */
	bool bcd;
	bool loaded;   /* a count was written since the control word */
	bool counting; /* since `start`; else `ticks` is how far it came */
	bool gate;
	bool write_high, read_high; /* which byte is next, with access 3 */
	bool status_latched;
	u8 low;	    /* the first byte of a count */
	u8 status;  /* latched */
	u8 latched; /* how many bytes of `latch` are still to be read */
	u16 latch;
	u32 count; /* 1..65536 */
	u64 start; /* host TSC */
	u64 ticks;
};

struct pit {
	struct vm *vm;
	struct spinlock lock;
	bool line;  /* of IRQ 0 */
	u8 control; /* bits 3:0 of port 0x61 */
	struct pit_counter counter[PIT_COUNTERS];
	u64 next;			/* when counter 0's output rises next, host TSC; 0: never */
	u64 tick_per_tsc, tsc_per_tick; /* see ratio_make */
	u64 min_period;			/* PIT_MIN_PERIOD_NS in host TSC */
};

/* Power-on state: nothing counts. Registers the ports. 0, or io_register's error. */
int pit_create(struct pit *pit, struct vm *vm);
/* The VM is not running. */
void pit_reset(struct pit *pit);
/* After the counters and next were set from elsewhere (virt/state.h). The VM is not running. */
void pit_restore(struct pit *pit);
/* REQ_TIMER was taken: counter 0 is due, or was programmed. On the runner of vCPU 0. */
void pit_timer(struct pit *pit);
