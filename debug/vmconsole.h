/* SPDX-License-Identifier: MIT */
/*
 * What a VM's console keeps while nobody looks: the last output, and input that the guest has not
 * taken yet. Internal to the console. Both rings have one writer and one reader and no lock, so
 * that a VM never waits for the terminal of others.
 */
#pragma once

#include "dev/uart16550.h"
#include "lib/list.h"

#define VMCONSOLE_ORDER	 4
#define VMCONSOLE_OUTPUT (PAGE_SIZE << VMCONSOLE_ORDER) /* bytes kept */
#define VMCONSOLE_INPUT	 1024
#define VMCONSOLE_REPLAY 4096 /* bytes shown at most when somebody begins to look */

struct vm_console {
	struct list node; /* boot CPU's tasks */
	struct vm *vm;
	struct uart *uart;
	/*
	 * The counts are of all bytes ever: byte i is at i % VMCONSOLE_OUTPUT. The UART calls under
	 * its lock, so it is one writer. Readers stay VMCONSOLE_OUTPUT - VMCONSOLE_REPLAY bytes
	 * away from what is being overwritten.
	 */
	u8 *output;
	u64 written; /* atomic */
	u64 seen;    /* under the console's lock */
	/* Written by the boot CPU's tasks, read by anyone. Free-running. */
	u32 input_in, input_out;
	u64 input_lost;
	u8 input[VMCONSOLE_INPUT];
};

/* 0 or -ENOMEM. The memory belongs to the VM. */
int vmconsole_create(struct vm *vm, struct uart *uart, struct vm_console **out);
void vmconsole_destroy(struct vm_console *vc);

/* The guest has written that. The UART's lock held. */
void vmconsole_keep(struct vm_console *vc, const u8 *bytes, size_t n);
/*
 * Where a replay up to `end` begins, at most VMCONSOLE_REPLAY back: at what was not seen, or if all
 * was, at the line that is being written. *skipped: how many unseen bytes lie before. Console's
 * lock held.
 */
u64 vmconsole_replay_from(const struct vm_console *vc, u64 end, u64 *skipped);
/* The last line with anything on it, without control sequences, terminated. */
void vmconsole_last_line(const struct vm_console *vc, char *line, size_t size);

/* Queue a byte for the guest; false: no room, it is counted as lost. Boot CPU's tasks. */
bool vmconsole_type(struct vm_console *vc, u8 c);
/* Give the guest's UART what it takes. Boot CPU's tasks, no lock held. */
void vmconsole_pump(struct vm_console *vc);

static inline u64 vmconsole_written(const struct vm_console *vc)
{
	return __atomic_load_n(&vc->written, __ATOMIC_SEQ_CST);
}

static inline u32 vmconsole_queued(const struct vm_console *vc)
{
	return READ_ONCE(vc->input_in) - READ_ONCE(vc->input_out);
}
