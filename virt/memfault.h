/* SPDX-License-Identifier: MIT */
/*
 * Memory-fault exits: a vCPU, or Corbel for it, touches guest memory that can't be used as it is.
 * The exit says exactly what is wanted. The guest's state is unchanged, RIP at the instruction, an
 * event whose delivery was interrupted is delivered anew.
 *
 * What is missing can be had: the vCPU waits until somebody resolves the range (memory_resolved),
 * or, if the object has a source, fetches it itself, in its own time; others that need the same
 * wait for that. All else stops the VM, with the same report.
 *
 *	waiter: says what it waits for; full barrier; looks at the word again
 *	resolver: changes the word; full barrier; looks who waits
 *
 * so that neither needs a lock, and faults on different ranges share nothing.
 */
#pragma once

#include "lib/addr.h"
#include "mm/backing.h"

struct memslot;
struct vcpu;
struct vm;

/* The full report. */
struct memory_fault {
	gpa_t gpa;
	u64 size; /* of what is wanted, from gpa rounded down to it: 4 KiB, or the source's piece */
	u64 gva;  /* linear address, if gva_valid */
	u64 sequence;	/* counts this vCPU's memory-fault exits */
	u32 generation; /* of the slot */
	u16 slot;	/* MEMORY_NO_SLOT: none */
	u8 access;	/* enum access, one bit */
	u8 kind;	/* enum memory_fault_kind */
	bool gva_valid;
	bool walk; /* the guest's own page-table walk made the access */
	u64 rip;
	u32 again; /* how often the same one came again although it was resolved */
};
#define MEMORY_NO_SLOT 0xffff

/*
 * One capability, one switch: the slot flag that promises an exit for what is missing is made of
 * the report, and the report's kind of the flag. Neither compiles without the other.
 */
#define MEMORY_FAULT_EXITS (sizeof(struct memory_fault) ? BIT(4) : 0)
enum memory_fault_kind {
	MEMORY_OK,
	MEMORY_READONLY, /* its slot, or its page, is */
	MEMORY_NOEXEC,
	MEMORY_POISONED,
	MEMORY_NO_MEMORY, /* no slot */
	MEMORY_INHERITED, /* to be copied before it is written: vm_own_page() */
	MEMORY_EXHAUSTED, /* the host has no frame for it */
	MEMORY_MISSING = MEMORY_FAULT_EXITS
};
const char *memory_fault_name(enum memory_fault_kind kind);

/* Beyond that many times the same fault although it was resolved, the VM stops. */
#define MEMORY_FAULT_AGAIN 64

/* What a vCPU waits for. Its runner's, except `backing`, which is read by resolvers. */
struct memory_wait {
	struct backing *backing; /* atomic; NULL: it does not wait */
	u64 offset, size;	 /* in it; written before */
	struct backing_fetch fetch;
	struct memory_fault fault; /* the last one, also when it is over */
};

/*
 * An access of v failed: with the report in *f, of which gpa, access, kind, walk and gva are filled
 * in. v waits from the next look at v->activity on, or its VM stops. On the runner.
 */
void memory_fault(struct vcpu *v, const struct memory_fault *f);
/*
 * As memory_fault(), by the vCPU that runs on this CPU, for an access of Corbel's. -EFAULT: nothing
 * to wait for, the caller deals with it. -EAGAIN: the access can be made again later; if that vCPU
 * is the VM's, it waits until then, and its instruction is to be executed anew.
 */
int memory_access_failed(struct vm *vm, gpa_t gpa, u8 access, u8 kind);
/* Is there anything that it can do for what it waits for? */
bool memory_wait_works(const struct vcpu *v);
/* A slice of work for what v waits for. False: it can only wait. On the runner. */
bool memory_wait_step(struct vcpu *v);
/* It waits no longer: its instruction is executed anew, or will never be. On the runner. */
void memory_wait_end(struct vcpu *v);
/*
 * [offset, offset + size) of the object is not as it was: wakes who waits for some of it. Returns
 * how many vCPUs that were. Any CPU, no lock held.
 */
u32 memory_resolved(struct backing *b, u64 offset, u64 size);
/* The VMs with a vCPU that waits for some of the range stop with a memory fault; how many waited.
 */
u32 memory_give_up(struct backing *b, u64 offset, u64 size);
