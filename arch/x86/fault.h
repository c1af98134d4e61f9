/* SPDX-License-Identifier: MIT */
/*
 * Fault injection (make FAULTS=1): what one CPU reads, fails or ignores, as `faults =` says
 * (docs/TESTING.md). The hooks stand where a machine can misbehave. In other builds they are
 * nothing; what they do is in tests/faults/inject.c, which only FAULTS builds link.
 */
#pragma once

#include "lib/types.h"

#ifndef FAULTS
#define FAULTS 0
#endif

enum fault_point {
	FAULT_RDMSR, /* index: the MSR */
	FAULT_WRMSR, /* index: the MSR */
	FAULT_CPUID, /* index: leaf << 2 | register; subleaf 0 */
	FAULT_VMXON, /* these four: enum vmx_result */
	FAULT_VMXOFF,
	FAULT_INVEPT,
	FAULT_INVVPID,
	FAULT_START,	  /* before it says that it has started */
	FAULT_FINISH,	  /* before it says that it is online */
	FAULT_CALL,	  /* before it runs what another CPU calls; index: enum ipi_kind */
	FAULT_TSC,	  /* by how much its TSC is off at its start */
	FAULT_APIC_ID,	  /* as the MADT lists it */
	FAULT_STACK,	  /* memory for its stacks */
	FAULT_REGION,	  /* memory for its VMXON region or host save area */
	FAULT_TRAMPOLINE, /* the page where all start; CPU 0's */
	FAULT_TEST_CTRL,  /* MSR_TEST_CTRL, for CPUs that have none */
	FAULT_OWN_SPLIT,  /* Corbel splits a lock, when it loads a vCPU */
	/* a guest's legacy #AC counts as a split lock, if R11 says so: 1; as a bus lock: 2 */
	FAULT_MARKED_AC,
};

/*
 * What the hooks return for RDMSR and WRMSR; the other points only know "fails" (not 0).
 * FAULT_VALUE: *value is what was read, also if there is no such MSR.
 */
enum { FAULT_GP = 1, FAULT_IGNORED, FAULT_VALUE };

enum { FAULT_AC_SPLIT = 1, FAULT_AC_BUS_LOCK };
/* "split", in R11 of the guest: see FAULT_MARKED_AC */
#define FAULT_AC_MARK 0x74696c7073ull

/* When a fault is in force: always, or while the CPU turns virtualization on, or off. */
enum fault_phase { FAULT_ANY_TIME, FAULT_ENABLING, FAULT_DISABLING };

struct cpuid_regs;

/* inject.c. 0: nothing happens here. May change *value (NULL: there is none), may take its time. */
u32 fault_inject(u32 cpu, enum fault_point point, u64 index, u64 *value);
u32 fault_inject_here(enum fault_point point, u64 index, u64 *value);
void fault_inject_cpuid(u32 leaf, u32 subleaf, struct cpuid_regs *regs);
void fault_parse(const char *words, void (*report)(const char *word, const char *why));
void fault_set_phase(enum fault_phase phase);
void fault_note_registers(void);
void fault_log(void);
extern bool fault_flush_loses; /* poke.c */

/* On this CPU. Any context. */
static inline u32 fault_here(enum fault_point point, u64 index, u64 *value)
{
	return FAULTS ? fault_inject_here(point, index, value) : 0;
}

/* Of CPU `cpu`, whoever runs this: also before its per-CPU area is there. */
static inline u32 fault_of(u32 cpu, enum fault_point point, u64 *value)
{
	return FAULTS ? fault_inject(cpu, point, 0, value) : 0;
}

static inline void fault_cpuid(u32 leaf, u32 subleaf, struct cpuid_regs *regs)
{
	if (FAULTS)
		fault_inject_cpuid(leaf, subleaf, regs);
}

/* What this CPU is about to do. */
static inline void fault_phase(enum fault_phase phase)
{
	if (FAULTS)
		fault_set_phase(phase);
}

/* How many of the vCPUs are told of a flush that is owed. */
static inline u32 fault_flush_told(u32 vcpus)
{
	return FAULTS && fault_flush_loses ? 0 : vcpus;
}

/*
 * The setting. report is called for each word that is no fault, and has no effect. Boot CPU, before
 * there are others.
 */
static inline void fault_configure(const char *words,
				   void (*report)(const char *word, const char *why))
{
	if (FAULTS)
		fault_parse(words, report);
	else if (words[0])
		report(words, "needs a Corbel that was made with make FAULTS=1");
}

/* All CPUs are online: note what is in the registers that enabling changes. */
static inline void fault_ready(void)
{
	if (FAULTS)
		fault_note_registers();
}

/* At power-off: log how often each fault fired, and which registers are not as they were. */
static inline void fault_report(void)
{
	if (FAULTS)
		fault_log();
}
