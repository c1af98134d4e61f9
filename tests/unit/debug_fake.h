/* SPDX-License-Identifier: MIT */
/*
 * A made-up machine under the console and the monitor: 4 CPUs (CPU 2 differs, CPU 3 is dead), two
 * VMs ("linux", running, and "lab", created), a UART that takes so many bytes, a serial line and a
 * screen that remember what was written.
 */
#pragma once

#include "arch/x86/split_lock.h"
#include "arch/x86/timer.h"
#include "arch/x86/topology.h"
#include "debug/monitor.h"
#include "debug/screen.h"
#include "dev/power.h"
#include "dev/uart16550.h"
#include "virt/ops.h"
#include "virt/vm.h"

#define FAKE_WRITTEN (1u << 20)

struct fake_output {
	char text[FAKE_WRITTEN + 1];
	size_t len;
	/* What one would see: the line with the cursor. */
	char line[512];
	u32 line_len, column, lines;
	u8 sequence; /* 0: none, 1: ESC, 2: CSI */
};

extern struct fake_output fake_serial, fake_screen;
extern struct vm fake_linux, fake_lab;
extern struct uart fake_uart;
extern struct split_lock_core fake_core; /* what each core's owner says */
extern enum split_lock_state fake_split_lock;
extern u32 fake_renewed;	      /* VMs, after a change of that */
extern struct topology fake_topology; /* CPUs 0 and 1 are one core, CPU 2 another */
extern u8 fake_typed[4096];	      /* what the guest got */
extern size_t fake_typed_len, fake_uart_room;
extern u32 fake_task_wakes;
extern u32 fake_serial_room; /* bytes that the line takes without waiting; ~0: it never waits */
extern u32 fake_cpu_stuck;   /* this CPU's tasks don't run */
extern u32 fake_ipi_calls;   /* of all CPUs; half of CPU 2's time out */
extern u32 fake_frames_left; /* frame allocations that still work */
extern s32 fake_frames_out;  /* allocated and not freed */
extern char fake_called[256];
extern u64 fake_now;		   /* the TSC, of 100 kHz */
extern struct timer *fake_timer;   /* the one armed last */
extern enum screen_page fake_page; /* that is shown */
extern void (*fake_key)(enum screen_page page);
extern int fake_error; /* what the next action returns */

/* What a test may set virt_ops to; registers of a vCPU that is loaded here. */
extern const struct virt_ops fake_ops;
extern u64 fake_regs[VREGS];
extern u32 fake_loads;
#define FAKE_GUEST_MEMORY 0x10000
#define FAKE_MISSING	  0x50000000ul /* from here on */
extern u8 fake_guest_memory[FAKE_GUEST_MEMORY];

/* With the console and the monitor. */
void fake_open(const struct monitor_actions *actions);
/* Forget what was written; the cursor's line stays. */
void fake_clear(void);
/* The tasks that were woken, on all CPUs. Those of other CPUs run when CPU 0 reads the TSC, too. */
void fake_run_tasks(void);
/* Was that written to the serial line since fake_clear()? */
bool fake_said(const char *text);
/* The guest writes. */
void fake_guest(const char *text);
/* Somebody types. */
void fake_type(const char *text);
