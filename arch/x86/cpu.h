/* SPDX-License-Identifier: MIT */
/*
 * The machine's CPUs. CPU numbers are Corbel's own, 0.. in MADT order with the boot CPU as 0;
 * nothing assumes that CPU 0 is like the others.
 *
 * Per-CPU variables: DEFINE_PERCPU(type, name) in a .c file; this_cpu(name) is the running CPU's
 * copy as an lvalue (stable only while interrupts are off or on a CPU's own task loop: nothing
 * migrates in Corbel).
 */
#pragma once

#include "lib/bitmap.h"
#include "lib/types.h"

enum cpu_state {
	CPU_ABSENT,  /* in the MADT, not started yet */
	CPU_STARTED, /* answered the SIPI: it runs the trampoline's C code */
	CPU_ONLINE,  /* takes IPIs */
	CPU_OFFLINE, /* parked */
	CPU_DEAD,    /* did not answer, or got stuck: see why */
};

struct cpu {
	u32 id;
	u32 apic_id;
	u8 state;	   /* enum cpu_state; atomic */
	const char *why;   /* of CPU_DEAD, CPU_OFFLINE */
	u64 percpu_offset; /* address of its copy - address of the template */
	void *stack_top;
};
/* boot/trampoline.asm walks the array. */
_Static_assert(sizeof(struct cpu) == 40 && offsetof(struct cpu, apic_id) == 4 &&
		       offsetof(struct cpu, stack_top) == 32,
	       "struct cpu and boot/trampoline.asm disagree");

#define CPU_ID_NONE (~0u)
extern struct cpu cpus[MAX_CPUS];
extern u32 nr_cpus;		   /* entries of cpus[] in use */
extern struct cpumask cpus_online; /* atomic bits */

/*
 * The linker puts the template of all per-CPU variables into .percpu; a CPU's GS base is its copy's
 * distance from it, so that %gs:variable is its own. gcc's __seg_gs makes these plain C accesses
 * (not of arrays, which lose the qualifier: put them into a struct).
 */
#ifdef CORBEL_HOST /* tests have threads as CPUs */
#define DECLARE_PERCPU(type, name) extern __thread typeof(type) name
#define DEFINE_PERCPU(type, name)  __thread typeof(type) name
#else
#define DECLARE_PERCPU(type, name) extern __seg_gs typeof(type) name
#define DEFINE_PERCPU(type, name)  __attribute__((section(".percpu"))) __seg_gs typeof(type) name
#endif
#define this_cpu(name) (name)
/* Pointer to the running CPU's copy, usable from any CPU; type is the variable's. */
#define this_cpu_ptr(type, name) ((type *)((u64)(uintptr_t) & (name) + this_cpu(percpu_offset)))

DECLARE_PERCPU(u32, cpu_id);	    /* the running CPU's number */
DECLARE_PERCPU(u64, percpu_offset); /* its cpus[].percpu_offset */
DECLARE_PERCPU(u32, irq_depth);	    /* not 0: in interrupt context, that of polled calls included */

/*
 * Map physical memory for the hypervisor: cached (tables of the firmware) or not (device
 * registers). NULL if there is no memory for it. Set by boot: arch/x86 stands below the page
 * tables.
 */
extern void *(*arch_map)(u64 hpa, u64 size, bool cached);

/* This CPU becomes CPU `id`: GS base on its copy of the per-CPU variables. */
void cpu_set_percpu(u32 id);

/*
 * Control registers as Corbel wants them on this CPU: WP, SMEP, SMAP, UMIP, OSXSAVE, NXE, PAT; what
 * the CPU has of them, found by this CPU.
 */
void cpu_init_control(void);

/* What the machine was set up to use and this CPU lacks, one line; NULL: nothing. */
const char *cpu_unfit(void);
