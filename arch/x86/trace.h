/* SPDX-License-Identifier: MIT */
/*
 * Trace: what each CPU did last. A ring per CPU, always on, which overwrites its oldest event. It
 * stands above lib because an event needs the CPU's own ring and its TSC.
 *
 * Writers: the CPU itself with interrupts off, not from NMI context. No lock, no atomic operation;
 * an event costs at most 30 instructions. Readers: any CPU, any time: trace_read().
 *
 * A new event: a row in TRACE_EVENTS, and trace() or vcpu_trace() (virt/vcpu.h) where it happens.
 * The dump carries the rows along, so tools/trace knows a new one by itself.
 */
#pragma once

#include "arch/x86/cpu.h"

/* What `trace on|off` switches; bits of the per-CPU mask. */
#define TRACE_CLASSES(X)                                                         \
	X(EXIT, "exit")	    /* VM exits, each with the entry before it */        \
	X(INJECT, "inject") /* events that Corbel puts into an entry */          \
	X(FAULT, "fault")   /* stage-2 faults that were mapped */                \
	X(FLUSH, "flush")   /* stage-2 translations forgotten */                 \
	X(IPI, "ipi")	    /* calls, kicks */                                   \
	X(SCHED, "sched")   /* vCPUs that get a CPU, leave it, wake, move */     \
	X(SPLIT, "split")   /* split and bus locks */                            \
	X(MEMORY, "memory") /* guest memory that is not there: VMs stop by it */ \
	X(VM, "vm")	    /* VMs that start and stop */

enum trace_class {
#define X(class, name) TRACE_CLASS_##class,
	TRACE_CLASSES(X)
#undef X
		TRACE_CLASS_COUNT
};

/* Exits are numbered by their kind (virt/exit.h), below these. */
#define TRACE_EXIT_KINDS 64

/* Number, class, name, and what its words mean; "-": nothing. `arg` has 32 bits, a and b 64. */
#define TRACE_EVENTS(X)                                                  \
	X(INJECT, INJECT, "inject", "vector_type", "error", "rip")       \
	X(MAP, FAULT, "map", "level", "gfn", "pfn")                      \
	X(FLUSH, FLUSH, "flush", "-", "-", "-")                          \
	X(CALL, IPI, "call", "kind", "to_cpu", "-")                      \
	X(CALLED, IPI, "called", "kind", "from_cpu", "result")           \
	X(KICK, IPI, "kick", "to_cpu", "-", "-")                         \
	X(RUN, SCHED, "run", "waiting", "rip", "-")                      \
	X(REST, SCHED, "rest", "result", "rip", "-")                     \
	X(WAKE, SCHED, "wake", "cpu", "-", "-")                          \
	X(GIVE, SCHED, "give", "to_cpu", "-", "-")                       \
	X(IDLE, SCHED, "idle", "-", "since", "-")                        \
	X(SPLIT_LOCK, SPLIT, "split-lock", "policy", "rip", "-")         \
	X(SPLIT_INJECTED, SPLIT, "split-injected", "policy", "rip", "-") \
	X(SPLIT_PASSED, SPLIT, "split-passed", "policy", "rip", "-")     \
	X(SPLIT_DELAYED, SPLIT, "split-delayed", "policy", "rip", "-")   \
	X(SPLIT_FATAL, SPLIT, "split-fatal", "policy", "rip", "-")       \
	X(BUS_LOCK, SPLIT, "bus-lock", "policy", "rip", "-")             \
	X(MEMORY_FAULT, MEMORY, "memory-fault", "access", "gpa", "rip")  \
	X(VM_START, VM, "vm-start", "-", "-", "-")                       \
	X(VM_STOP, VM, "vm-stop", "reason", "-", "-")                    \
	X(COST, VM, "cost", "-", "-", "-") /* of `trace cost` */

enum trace_type {
	TRACE_FIRST = TRACE_EXIT_KINDS - 1,
#define X(type, class, name, arg, a, b) TRACE_##type,
	TRACE_EVENTS(X)
#undef X
		TRACE_TYPES
};

/*
 * As it stands in the ring and in a dump. `tsc` is written first: see trace_read(). `who`: bits 7:0
 * the type, 15:8 the vCPU's index, 31:16 the VM's id or 0, 63:32 `arg`. Of an exit `arg` is the low
 * half of the TSC at the entry before it, a is RIP, and b what the exit says first (port, gpa,
 * ...).
 */
struct trace_event {
	u64 tsc, who, a, b;
};
#define TRACE_WHO(vm, vcpu) ((u64)(vm) << 16 | (u64)(vcpu) << 8)
#define TRACE_ARG_SHIFT	    32

#define TRACE_ORDER	  4 /* pages: 64 KiB */
#define TRACE_BYTES	  (1ul << 16)
#define TRACE_EVENTS_KEPT (TRACE_BYTES / sizeof(struct trace_event))

struct trace_ring {
	/* The slot that is written next; the ring is aligned to its size, so that `low` wraps. */
	union {
		struct trace_event *at;
		u16 low;
	} next;
	u32 classes;   /* atomic; bits: what is recorded. 0 until there is a ring */
	u16 exit_step; /* atomic; size of an event, or 0: exits are off, and the next event goes
			  there */
};
DECLARE_PERCPU(struct trace_ring, trace_ring);

/* Boot CPU, before `id` has anything to record: TRACE_BYTES of memory, aligned to that. */
void trace_give_memory(u32 id, void *memory);

static inline bool trace_on(enum trace_class class)
{
	return likely(this_cpu(trace_ring).classes & BIT(class));
}

/*
 * An event without a look at the filter, in two halves. Interrupts off. Exits do this always, and
 * their filter is that step is 0: that saves the hottest path a branch.
 */
static inline struct trace_event *trace_begin(void)
{
	struct trace_event *e = this_cpu(trace_ring).next.at;

	WRITE_ONCE(e->tsc, __builtin_ia32_rdtsc());
	return e;
}

static inline void trace_end(struct trace_event *e, u64 who, u64 a, u64 b, u16 step)
{
	__atomic_store_n(&e->who, who, __ATOMIC_RELEASE);
	__atomic_store_n(&e->a, a, __ATOMIC_RELEASE);
	__atomic_store_n(&e->b, b, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	this_cpu(trace_ring).next.low += step;
}

/* An event, whose class is on. Interrupts on or off. */
void trace_event(u64 who, u64 a, u64 b);

/* An event, if its class is on. Interrupts on or off. */
static inline void trace(enum trace_type type, u64 who, u32 arg, u64 a, u64 b)
{
	static const u8 class_of[] = {
#define X(type, class, name, arg, a, b) TRACE_CLASS_##class,
		TRACE_EVENTS(X)
#undef X
	};

	if (trace_on(class_of[type - TRACE_EXIT_KINDS]))
		trace_event(type | who | (u64)arg << TRACE_ARG_SHIFT, a, b);
}

/* ---- Readers ---- */

/*
 * Call f for each of the last `count` events of CPU `id`, the newest first, while it goes on. It
 * ends early where that CPU has overwritten what comes next; an event that is being written is left
 * out: none is ever a mixture. Returns how many it called f for.
 */
u32 trace_read(u32 id, u32 count, void (*f)(void *arg, const struct trace_event *e), void *arg);

/* Classes of all CPUs, bits; those that come later too. */
u32 trace_classes(void);
void trace_set_classes(u32 classes);
const char *trace_class_name(enum trace_class class);
/* Name and words of a type from TRACE_FIRST + 1 on; class as enum trace_class. */
struct trace_format {
	const char *name, *arg, *a, *b;
	u8 class;
};
const struct trace_format *trace_format(enum trace_type type);
