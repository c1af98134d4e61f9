/* SPDX-License-Identifier: MIT */
/*
 * Handlers of VM exits, by kind; one for each. They run on the runner with interrupts off, after
 * the exit was counted. A handler either completes the instruction (vcpu_skip), queues an event
 * (vcpu_exception), or stops the VM (vm_stop); with none of these the guest just goes on where it
 * was.
 */
#pragma once

#include <asm/processor-flags.h>
#include "virt/decode.h"
#include "virt/guestmem.h"

extern void (*const exit_handlers[EXIT_KINDS])(struct vcpu *v);
/*
 * ON: guests execute in leaves of 4 KiB only, because some CPUs stop with a machine check when the
 * size of a translation that they fetch by changes (iTLB multihit). AUTO: ops->setup makes it ON.
 */
enum x_split { X_SPLIT_AUTO, X_SPLIT_ON, X_SPLIT_OFF };
extern enum x_split x_split;
/* Set by boot: log what the vCPU is like, after an exit that should not be. On the runner. */
extern void (*vcpu_dump_hook)(struct vcpu *v);

/* The instruction set that the code segment selects. */
enum insn_mode vcpu_mode(struct vcpu *v);
/* 3 in virtual-8086 mode, 0 in real mode (virt/mmio.c). */
u8 vcpu_cpl(struct vcpu *v);

/*
 * Length of the instruction at RIP, from its bytes. 0: it can't be fetched or decoded, and the
 * guest goes on where it is, or stops.
 */
u32 vcpu_fetched_length(struct vcpu *v);

/* What v waited for is there: mapped at once, so that the guest does not fault for it again. */
void exit_memory_came(struct vcpu *v);

/* Let the host's interrupts in, and leave the run loop if they want something of this CPU. */
void vcpu_take_irqs(struct vcpu *v);

/*
 * An instruction that touched memory without a leaf where a device (or nothing) is: execute it
 * (virt/mmio.c).
 */
void mmio_execute(struct vcpu *v);
/* INS and OUTS (virt/mmio.c). */
void string_io_execute(struct vcpu *v);
/*
 * The memory operand of SMSW or LMSW at RIP: stores or loads *word. False: an event is queued, or
 * the VM stops (virt/mmio.c).
 */
bool msw_operand(struct vcpu *v, u16 *word);
/* MOV to and from CR, CLTS, LMSW, SMSW; reserved bits are #GP (virt/cr.c). */
void cr_access(struct vcpu *v);
/* A hardware task switch, which has not begun (virt/task_switch.c). */
void task_switch(struct vcpu *v);
/*
 * A walk of the guest's tables failed: #PF with CR2, #GP; or the VM stops, because its tables are
 * nowhere (virt/mmio.c).
 */
void vcpu_walk_fault(struct vcpu *v, const struct walk_fault *fault);
#define CR0_DEFINED                                                                    \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | \
	 X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
/* CR and EFER writes as the guest means them: 0, or -EINVAL: #GP. */
int guest_set_cr0(struct vcpu *v, u64 value);
int guest_set_cr3(struct vcpu *v, u64 value);
/* Would guest_set_cr3() say -EINVAL, bit 63 aside? */
bool guest_cr3_bad(struct vcpu *v, u64 value);
int guest_set_cr4(struct vcpu *v, u64 value);
int guest_set_efer(struct vcpu *v, u64 value);
