/* SPDX-License-Identifier: MIT */
/*
 * What a VM's split locks cost it: its policy, its counters, its virtual MSR_TEST_CTRL, and the one
 * instruction that is let through. The register itself is arch/x86/split_lock.h's.
 * docs/SPLIT_LOCK.md is for users.
 */
#pragma once

#include "arch/x86/timer.h"

/* In the order of the words of the configuration and the monitor. */
enum split_policy {
	SPLIT_SILENT,	 /* counted */
	SPLIT_WARN,	 /* and one line for each VM */
	SPLIT_FATAL,	 /* the VM stops */
	SPLIT_OFF,	 /* the VM is not told of the feature; its split locks are only counted */
	SPLIT_RATELIMIT, /* at most so many per second, all its vCPUs together; the rest waits */
	SPLIT_POLICIES
};

#define SPLIT_RATE_MAX 1000000

/* What bus locks of a vCPU do: ops->bus_locks. */
enum bus_locks {
	BUS_LOCKS_FREE, /* nothing */
	BUS_LOCKS_EXIT, /* exit, before (EXIT_BUS_LOCK) or after they happen (EXIT_BUS_LOCKED) */
	BUS_LOCKS_ONE,	/* ... all but the next one, where exits come before */
};

/* Of a VM. Counters are atomic: any CPU may read them at any time. */
struct vm_split {
	u8 policy;    /* enum split_policy; atomic */
	u32 rate;     /* per second, with SPLIT_RATELIMIT; atomic */
	bool offered; /* at its start: CPUID, IA32_CORE_CAPABILITIES and MSR_TEST_CTRL say it is
			 there */
	bool told;    /* atomic */
	u64 next;     /* atomic: when the next one is in the rate; host TSC */
	u64 seen, bus_locks, injected, passed, delayed, fatal;
};

/* Of a vCPU; its runner's. */
struct vcpu_split {
	u64 test_ctrl;	    /* its virtual MSR_TEST_CTRL */
	u64 rip;	    /* of the instruction that is let through */
	bool marked;	    /* a FAULTS build has taken CR0.AM away for it */
	bool bus_exits;	    /* bus locks exit: ops->bus_locks */
	bool waits;	    /* for `until`: what is over the rate */
	u64 until;	    /* host TSC */
	struct timer timer; /* of the wait */
};

struct vcpu;
struct vm;

/* The VM is about to be started; its vCPUs are at rest. */
void split_vm_start(struct vm *vm);
/* From any CPU. rate: 1.. with SPLIT_RATELIMIT. */
void split_set_policy(struct vm *vm, enum split_policy policy, u32 rate);
const char *split_policy_name(enum split_policy policy);

/* Its policy, or the machine's state, has changed: its vCPUs take notice. From any CPU. */
void split_renew(struct vm *vm);

/* On the runner, all of them. */

/* The vCPU has got this CPU. */
void split_load(struct vcpu *v);
/* EXIT_BUS_LOCK; REQ_BUS_LOCKED was taken. */
void split_bus_lock(struct vcpu *v);
void split_bus_locked(struct vcpu *v);

/* #AC that is not the guest's own alignment check? Then it is dealt with. */
bool split_fault(struct vcpu *v);
/* An exit with STEP_SPLIT: the pass ends, unless the same instruction comes next. */
void split_after_exit(struct vcpu *v);
/* The vCPU gives up this CPU. */
void split_put(struct vcpu *v);
/* REQ_DELAY was taken: the wait may be over. */
void split_delay_over(struct vcpu *v);
/* 0, or -ENXIO: the guest was not told that it is there, or -EINVAL: a bit that is not. */
int split_read_msr(const struct vcpu *v, u64 *value);
int split_write_msr(struct vcpu *v, u64 value);
