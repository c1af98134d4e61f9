/* SPDX-License-Identifier: MIT */
/*
 * Which CPUs are threads of one core. Each CPU reads its own enumeration; grouping is a pure
 * function over the records of all, host-tested with made-up machines. Whatever contradicts itself
 * makes the topology of the whole machine unknown, with the reason: a CPU in doubt may be the
 * sibling of any other. So does a CPU with neither leaf 0x1f nor 0xb (AMD's before Zen 2) that is
 * not alone in its package. Source: SDM vol. 3 "Programming Considerations for Hardware
 * Multi-Threading Capable Processors".
 */
#pragma once

#include "arch/x86/insn.h"
#include "lib/bitmap.h"

#define TOPO_LEVELS 8

/* What one CPU says about itself, as read. */
struct topo_record {
	bool read;   /* false: only apic_id counts, as the MADT has it */
	u32 apic_id; /* of its APIC, not of CPUID */
	u32 leaf;    /* 0x1f or 0xb; 0: it has neither */
	u32 levels;  /* valid ones */
	struct cpuid_regs level[TOPO_LEVELS];
	struct cpuid_regs leaf_b; /* sub-leaf 0, beside leaf 0x1f too */
	struct cpuid_regs leaf_1;
};

struct topology {
	char why[120]; /* the cores are unknown; "": they are known */
	bool packages_known;
	u32 smt_shift, package_shift; /* of APIC ids: the bits below are the thread, the CPU */
	u32 packages, cores;	      /* of the CPUs that were read */
	u32 threads_min, threads_max; /* of a core */
	struct {
		u16 core;    /* the lowest CPU of the core, read or not */
		u16 threads; /* that a core like this one can have */
	} cpu[MAX_CPUS];
};

/* Bits that n different ids need. */
static inline u32 id_bits(u32 n)
{
	return n < 2 ? 0 : 32 - (u32)__builtin_clz(n - 1);
}

/* Pure. Records 0..n-1 are those of CPUs 0..n-1. */
void topo_group(const struct topo_record *records, u32 n, struct topology *t);

/*
 * On the CPU itself, interrupts off, its APIC in its final mode: fill in its record, from scratch.
 * Not while topo_evaluate() runs.
 */
void topo_read(u32 cpu);
/*
 * Group all CPUs that were read so far, and log the result if it says something new. On the boot
 * CPU: after bring-up, and again whenever a CPU has come online that was not there before.
 */
void topo_evaluate(void);

/* The last result. Stable but for topo_evaluate(). */
const struct topology *topo_current(void);
/*
 * A number for the core of a CPU: equal for its threads, and below MAX_CPUS. CPU_ID_NONE: unknown;
 * then nothing may be concluded about any two CPUs.
 */
u32 topo_core(u32 cpu);
/* The CPUs of its core, itself included, online or not. False: unknown. */
bool topo_siblings(u32 cpu, struct cpumask *mask);
