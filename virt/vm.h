/* SPDX-License-Identifier: MIT */
/* A virtual machine: memory slots, bus, vCPUs, and its life. */
#pragma once

#include "lib/addr.h"
#include "lib/bitmap.h"
#include "lib/list.h"
#include "lib/spinlock.h"
#include "mm/stage2.h"
#include "virt/bus.h"
#include "virt/vcpu.h"

#define VM_MAX_VCPUS 64
#define VM_NAME_MAX  32

enum vm_state {
	VM_CREATED, /* memory and vCPUs exist, nothing is loaded */
	VM_RUNNING,
	VM_STOPPED, /* with a reason */
};

enum stop_reason {
	STOP_NONE,
	STOP_POWEROFF, /* by the guest */
	/* by the guest: ACPI reset register, reset vector, or a deliberate triple fault */
	STOP_RESET,
	STOP_OPERATOR, /* by the monitor */
	STOP_TRIPLE_FAULT,
	STOP_MEMORY_FAULT, /* an access to guest memory that is not there */
	STOP_ENTRY_FAILED,
	STOP_INTERNAL,	 /* something that Corbel can't do */
	STOP_BUGGED,	 /* VM_BUG_ON */
	STOP_NO_CPU,	 /* the CPUs that it may use went offline */
	STOP_SPLIT_LOCK, /* and its policy is fatal */
	STOP_EXIT,	 /* by the guest: status 0 at the debug-exit port */
	STOP_FAILURE,	 /* by the guest: another status there */
	STOP_REASONS
};

struct state;

/* An interrupt whose vector a controller outside of the LAPIC says once it is acknowledged. */
#define IRQ_EXTINT 256

struct irqchip_ops {
	/*
	 * All devices to power-on state; before memory is cleared for a start: what a device of
	 * another VM has begun to write into it is complete. No vCPU runs, no vCPU's timer is
	 * armed.
	 */
	void (*reset)(struct vm *vm);
	/*
	 * The highest vector that the guest's priorities allow, IRQ_EXTINT, or -1. On the runner.
	 */
	int (*pending)(struct vcpu *v);
	/*
	 * What `pending` said is being delivered: IRR -> ISR, or INTA. Returns the vector. On the
	 * runner.
	 */
	u8 (*ack)(struct vcpu *v, int pending);
	/* REQ_TIMER was taken: the timer is due, or the guest's TSC was moved. On the runner. */
	void (*timer)(struct vcpu *v);
	/* The guest's INIT reached this vCPU. On the runner. */
	void (*init)(struct vcpu *v);
	/* A wire into the interrupt controller changed. Any CPU. */
	void (*line)(struct vm *vm, u32 gsi, bool level);
	/* With v->apicv: the guest ended a level-triggered interrupt. On the runner. */
	void (*eoi)(struct vcpu *v, u8 vector);
	/* With v->apicv: the CPU put what the guest wrote into a register, and did no more. */
	void (*written)(struct vcpu *v, u32 offset);
	/*
	 * All devices and LAPICs in the record of a VM, whose vCPUs are at rest (virt/state.h).
	 * What they are now gets into effect when it is read.
	 */
	void (*state)(struct vm *vm, struct state *s);
	/* CR8 is bits 7:4 of the task priority register. On the runner. */
	u8 (*get_tpr)(struct vcpu *v);
	void (*set_tpr)(struct vcpu *v, u8 tpr);
};

struct slot_map;
struct state_header;
struct vm {
	u16 id; /* 1.. */
	char name[VM_NAME_MAX];
	struct list node;    /* in vm_list */
	u8 state;	     /* enum vm_state; changes under lock, read by anyone */
	u8 stop_reason;	     /* enum stop_reason, of the last stop */
	bool dead;	     /* bugged: never runs again. Atomic, set from any context */
	bool failed;	     /* it ended badly at least once */
	char stop_text[160]; /* one line that says why */
	struct spinlock lock;
	struct stage2 stage2;
	const struct slot_map *slots; /* virt/slots.h; atomic */
	u16 last_slot;		      /* number of the last one that was added */
	u32 slot_changes;
	struct list own_memory; /* backing objects of its own, also of slots that are gone */
	u64 unmapped;		/* when it is being destroyed: where the last slot ends now */
	struct io_bus bus;
	const struct irqchip_ops *irqchip;
	bool apicv;  /* its vCPUs may use APIC virtualization; not changed while it runs */
	bool posted; /* ... and posted interrupts */
	struct vcpu *vcpus[VM_MAX_VCPUS];
	u32 nr_vcpus;
	u32 running_vcpus;	    /* atomic */
	struct cpumask cpus;	    /* where its vCPUs may run */
	u32 weight;		    /* of each vCPU: virt/share.h */
	struct cpuid_policy *cpuid; /* virt/cpuid.h */
	void *platform;		    /* dev/platform.c's devices */
	struct vm_split split;
	struct vm_debug *debug; /* virt/debug.h; NULL until a debugger attaches */
	/*
	 * Fill memory, devices and vCPU 0 for a start from power-on: set by who created the VM.
	 * Called by vm_start(), not running, interrupts on. On failure *why (why_len bytes) gets
	 * one line.
	 */
	int (*load)(struct vm *vm, char *why, size_t why_len);
	const void *config; /* what `load` works from */
	/*
	 * What devices could not do because memory was missing they may try again. On the runner of
	 * a vCPU, interrupts off. May be NULL.
	 */
	void (*retry_devices)(struct vm *vm);
	/*
	 * A vCPU met poisoned memory: it gets a machine check; false: it can't take one. NULL: no
	 * vCPU of this VM can. On the runner.
	 */
	bool (*machine_check)(struct vcpu *v, const struct memory_fault *f);
	/* It is kept as it is here, and never runs (virt/state.h); else NULL. */
	struct state_header *snapshot;
	u64 tsc_base; /* host TSC that the guests see as 0 */
	u64 starts, resets;
	u64 ends_seen; /* boot's: the start whose end was handled */
};

extern struct list vm_list;
extern struct spinlock vm_list_lock;

/*
 * Create a VM with its vCPUs and no memory. vcpus: 1..VM_MAX_VCPUS, weight: 1..SHARE_WEIGHT_MAX.
 * pin: for each vCPU 1 + the CPU of `cpus` that it stays on, or 0.
 * Returns 0 and *out, or an error; nothing is left behind then.
 */
int vm_create(const char *name, u32 vcpus, const struct cpumask *cpus, const u16 *pin, u32 weight,
	      struct vm **out);
/* A number for a VM, or an owner of memory, that nothing belongs to. 0: there is none. */
u16 vm_new_id(void);
/* It can't be found by its name any more: it is about to be destroyed. Not running. */
void vm_unlist(struct vm *vm);
/*
 * A part of giving everything back, that takes no longer than some 10 us; false: nothing is left.
 * The VM is not running, and not on the list. On a task of the CPU that the monitor runs on.
 */
bool vm_destroy_step(struct vm *vm);
struct vm *vm_find(const char *name);

/*
 * Flush on every CPU where the VM ran (its vCPUs may be at rest), then stage2_debt_paid(). A vCPU
 * that does not know of it is damage: the VM ends, and the debt stays. Interrupts on or off, no
 * lock held.
 */
void vm_pay_flush(struct vm *vm, struct flush_debt *debt);

/*
 * Load it and start its vCPU 0 (the others wait for SIPI). From a CPU's task, interrupts on. -EBUSY
 * if it runs, -EPERM if it is dead, or what loading failed with: then it is stopped with that
 * reason.
 */
int vm_start(struct vm *vm);
/*
 * Stop from any context, with a reason and one line for the user (printf style); the first caller's
 * reason stays. The vCPUs leave guest mode soon after; the last one to leave runs vm_stopped_hook.
 */
void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...) PRINTF(3, 4);
/* Set by boot: called on a CPU's loop, interrupts off, once a VM has come to rest. */
extern void (*vm_stopped_hook)(struct vm *vm);
const char *stop_reason_name(enum stop_reason why);
/* Was that what the guest or the operator wanted? All else counts as a failure. */
static inline bool stop_reason_good(enum stop_reason why)
{
	return why == STOP_POWEROFF || why == STOP_EXIT || why == STOP_RESET ||
	       why == STOP_OPERATOR;
}

/* An interrupt line of the VM's controller; no-op while there is none. Any CPU. */
static inline void vm_irq_line(struct vm *vm, u32 gsi, bool level)
{
	if (vm->irqchip)
		vm->irqchip->line(vm, gsi, level);
}

/*
 * Something that only a bug in Corbel, never a guest, can cause, and that harms one VM: the VM is
 * dead, the machine goes on. Evaluates to the condition.
 */
#define VM_BUG_ON(vm, cond)                                         \
	({                                                          \
		bool bug_ = (cond);                                 \
		if (unlikely(bug_))                                 \
			vm_bugged((vm), #cond, __FILE__, __LINE__); \
		bug_;                                               \
	})
void vm_bugged(struct vm *vm, const char *cond, const char *file, int line);
