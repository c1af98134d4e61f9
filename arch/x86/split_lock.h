/* SPDX-License-Identifier: MIT */
/*
 * Split-lock detection: the owner of MSR_TEST_CTRL (SDM vol. 4). The register belongs to the core,
 * its threads share it; so it has one owner for each physical core, with a lock, and nobody else
 * writes it. docs/SPLIT_LOCK.md has the states.
 *
 * The machine's state (on, off, by whom) is one atomic word with a generation. Each core follows
 * it: at once on the CPU that changes it, on the others by an IPI, and by a CPU that missed that
 * when it next loads a vCPU. A pass suspends detection on one core until a vCPU has executed one
 * instruction. It belongs to the core: a sibling joins it, and the last one to leave ends it.
 *
 * What it stands on are MSRs (msr.h), IPIs (ipi.h) and the clock (insn.h, timer.h): host tests have
 * their own.
 */
#pragma once

#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"

#define SPLIT_LOCK_PASS_US 1000 /* a pass ends by then */

enum split_lock_state {
	SPLIT_LOCK_UNSUPPORTED, /* nothing is written; split_lock_why() says why */
	SPLIT_LOCK_OFF,		/* by the operator or the configuration */
	SPLIT_LOCK_OFF_SELF,	/* by Corbel, which took a split lock of its own */
	SPLIT_LOCK_ON,
};

/*
 * Does a CPU have the feature? CPUID leaves 0, 1 and 7, and IA32_CORE_CAPABILITIES where the last
 * says that it is there. Does not touch MSR_TEST_CTRL. On that CPU.
 */
bool split_lock_enumerated(const struct cpuid_regs *leaf_0, const struct cpuid_regs *leaf_1,
			   const struct cpuid_regs *leaf_7);

/*
 * Boot CPU, once, after topo_evaluate() and before virtualization is on anywhere: probe every core,
 * decide, and follow `on`. The IPI's and the kick's handlers are set here.
 */
void split_lock_init(bool on);

/*
 * This CPU takes part: at boot, and when it comes online, before virtualization is on here;
 * interrupts off. The first CPU of a core probes it; all others take its verdict. 0, or
 * -EOPNOTSUPP: the machine goes without, and has been told why.
 */
int split_lock_join(bool enumerated);
/* As above, for another CPU, by IPI: what ipi_call() returns. A machine without answers 0. */
int split_lock_join_cpu(u32 cpu);
/*
 * This CPU goes offline or stops for good: its pass ends, and the last thread of a core puts back
 * what the firmware left. Interrupts off. No-op if it has not joined.
 */
void split_lock_leave(void);

enum split_lock_state split_lock_state(void);
/* Does this CPU's core have an owner: can an #AC be a split lock here? Interrupts off. */
bool split_lock_takes_part(void);
/* Of SPLIT_LOCK_UNSUPPORTED. Stable text. */
const char *split_lock_why(void);
/* Of SPLIT_LOCK_OFF_SELF: where that was. */
void split_lock_place(u32 *cpu, u64 *rip);
/*
 * The operator: 0; -EOPNOTSUPP; -EALREADY: it is off (by whomever); or -ETIMEDOUT, with a line in
 * the log: a CPU did not answer, and will follow later. Task context.
 */
int split_lock_switch(bool on);
/* A VM was told that it has the feature: if it is turned off later, that is said. */
void split_lock_offered(void);

/* Take the machine's state for this CPU's core; cheap if it has it. Any context but NMI. */
void split_lock_refresh(void);

/* A vCPU is about to run on this CPU, or no longer does. Interrupts off. */
void split_lock_vcpu_load(void);
void split_lock_vcpu_put(void);

/*
 * A guest's #AC: let one instruction through. True: detection is suspended on this core, until
 * split_lock_pass_end() or, at the latest, SPLIT_LOCK_PASS_US later. False: it is off, so the
 * instruction can just be executed again. Interrupts off.
 */
bool split_lock_pass_begin(void);
/* True: it lasted until now. Without a pass of this CPU: nothing happens, and false. */
bool split_lock_pass_end(void);

/*
 * #AC in the hypervisor: trap_ac_hook. True: it was a split lock; detection is off everywhere from
 * now on, and the instruction is executed again. Any context: takes only its own core's lock.
 */
struct trap_frame;
bool split_lock_own_fault(struct trap_frame *f);

/* What a core's owner knows, and what the register really holds; a consistent copy. */
struct split_lock_core {
	bool present;
	bool current; /* it follows the machine's present state */
	u8 following; /* enum split_lock_state */
	u32 threads;  /* that take part */
	u32 passes;   /* threads that are in its pass; 0: none */
	u64 found;    /* what the firmware left */
	u64 value;    /* what was last read or written */
	u64 hardware; /* what is there */
	u64 writes;
	u64 opened, joined, expired, cancelled; /* passes */
	u64 uncovered; /* ticks of passes during which another vCPU ran on the core */
	u64 spurious;  /* #AC after detection was turned off */
};
/* Of the CPU that asks; false: it takes no part. */
bool split_lock_read_core(struct split_lock_core *out);
/* Of another one's, by IPI: what ipi_call() returns, or -ENODEV: it takes no part. */
int split_lock_read_cpu(u32 cpu, struct split_lock_core *out);
