/* SPDX-License-Identifier: MIT */
#include "virt/split_policy.h"
#include <asm/processor-flags.h>
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/split_lock.h"
#include "lib/error.h"
#include "lib/log.h"
#include "virt/cpuid.h"
#include "virt/exits.h"
#include "virt/ops.h"

#define VECTOR_AC	     17
#define CPUID_7_EDX_CORE_CAP BIT(30)

/* With an event of the trace. Of what has happened already its rip is what comes next. */
static void count(const struct vcpu *v, u64 *counter, enum trace_type type)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
	vcpu_trace(v, type, READ_ONCE(v->vm->split.policy), v->rip, 0);
}

const char *split_policy_name(enum split_policy policy)
{
	static const char *const names[SPLIT_POLICIES] = { "silent", "warn", "fatal", "off",
							   "ratelimit" };

	return policy < SPLIT_POLICIES ? names[policy] : "?";
}

void split_set_policy(struct vm *vm, enum split_policy policy, u32 rate)
{
	WRITE_ONCE(vm->split.rate, rate);
	WRITE_ONCE(vm->split.policy, (u8)policy);
	split_renew(vm);
}

void split_renew(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_request(vm->vcpus[i], REQ_RESCHED);
}

/*
 * Bus locks exit where no split lock is #AC; and beside it if there is a rate to keep: locks on
 * uncached memory, and those of a core whose detection is suspended.
 */
static bool bus_locks_matter(const struct vm *vm)
{
	enum split_policy policy = READ_ONCE(vm->split.policy);

	switch (split_lock_state()) {
	case SPLIT_LOCK_UNSUPPORTED:
		return policy != SPLIT_OFF;
	case SPLIT_LOCK_ON:
		return policy == SPLIT_RATELIMIT;
	default:
		return false;
	}
}

void split_load(struct vcpu *v)
{
	bool want = bus_locks_matter(v->vm);

	if (want != v->split.bus_exits)
		v->split.bus_exits =
			virt_ops->bus_locks(v, want ? BUS_LOCKS_EXIT : BUS_LOCKS_FREE) && want;
}

static void wake(struct timer *t)
{
	vcpu_request((struct vcpu *)((char *)t - offsetof(struct vcpu, split.timer)), REQ_DELAY);
}

/* CPUID, the MSRs and the machine agree when the guest looks for the first time. */
void split_vm_start(struct vm *vm)
{
	struct vm_split *s = &vm->split;

	if (s->policy != SPLIT_SILENT && s->policy != SPLIT_OFF &&
	    split_lock_state() == SPLIT_LOCK_UNSUPPORTED && !virt_ops->bus_locks(NULL, 0))
		log_warn("vm %s: split_lock = %s: nothing here detects split locks or bus locks",
			 vm->name, split_policy_name(s->policy));
	s->offered = split_lock_state() == SPLIT_LOCK_ON && s->policy != SPLIT_OFF;
	s->told = false;
	vm->cpuid->leaf7[0].edx &= ~(u32)CPUID_7_EDX_CORE_CAP;
	if (s->offered) {
		vm->cpuid->leaf7[0].edx |= CPUID_7_EDX_CORE_CAP;
		split_lock_offered();
	}
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		bool exits = vm->vcpus[i]->split.bus_exits; /* the backend's, which keeps it */

		vm->vcpus[i]->split = (struct vcpu_split){ .bus_exits = exits };
		timer_init(&vm->vcpus[i]->split.timer, wake);
	}
}

int split_read_msr(const struct vcpu *v, u64 *value)
{
	*value = v->split.test_ctrl;
	return v->vm->split.offered ? 0 : -ENXIO;
}

int split_write_msr(struct vcpu *v, u64 value)
{
	if (!v->vm->split.offered)
		return -ENXIO;
	if (value & ~(u64)TEST_CTRL_SPLIT_LOCK)
		return -EINVAL;
	v->split.test_ctrl = value;
	return 0;
}

/* SDM "Interrupt 17: Alignment Check Exception": the guest's own comes only then. */
static bool legacy(struct vcpu *v)
{
	return (v->rflags & X86_EFLAGS_AC) && vcpu_cpl(v) == 3 &&
	       (virt_ops->get_reg(v, VR_CR0) & X86_CR0_AM);
}

static void tell(struct vcpu *v, enum split_policy policy)
{
	struct vm_split *s = &v->vm->split;

	if (__atomic_exchange_n(&s->told, true, __ATOMIC_RELAXED))
		return;
	if (policy == SPLIT_WARN)
		log_warn("vm %s: splits locks: vCPU %u at rip %#lx", v->vm->name, v->index, v->rip);
	else if (s->offered)
		log_debug("vm %s: splits locks and left detection off: vCPU %u at rip %#lx",
			  v->vm->name, v->index, v->rip);
}

/*
 * All vCPUs of a VM share its rate, and no other VM has to do with it: `next` is when the next
 * split lock may be. True: this one may be now. False: it waits for its turn, which is its own.
 */
static bool in_rate(struct vcpu *v, u32 rate)
{
	struct vcpu_split *s = &v->split;
	u64 now = rdtsc(), next = __atomic_load_n(&v->vm->split.next, __ATOMIC_RELAXED), turn;

	if (s->waits && now >= s->until) {
		s->waits = false;
		return true;
	}
	if (!s->waits) {
		do
			turn = MAX(next, now);
		while (!__atomic_compare_exchange_n(&v->vm->split.next, &next,
						    turn + (u64)tsc_khz * 1000 / MAX(rate, 1),
						    false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
		if (turn == now)
			return true;
		s->waits = true;
		s->until = turn;
		count(v, &v->vm->split.delayed, TRACE_SPLIT_DELAYED);
	}
	/* Interrupts are taken meanwhile, as in HLT. */
	v->activity = VCPU_DELAYED;
	timer_arm(&s->timer, s->until);
	return false;
}

void split_delay_over(struct vcpu *v)
{
	if (v->activity != VCPU_DELAYED)
		return;
	if (rdtsc() >= v->split.until)
		v->activity = VCPU_ACTIVE;
	else
		timer_arm(&v->split.timer, v->split.until);
}

/* FAULTS builds, where no CPU detects split locks: this legacy #AC stands for one. */
static bool marked(const struct vcpu *v, u32 as)
{
	return FAULTS && v->gpr[R11] == FAULT_AC_MARK && fault_here(FAULT_MARKED_AC, 0, NULL) == as;
}

/* For one that does not come from MSR_TEST_CTRL, the instruction is let through by CR0.AM. */
static void unmark(struct vcpu *v, bool am)
{
	u64 cr0 = virt_ops->get_reg(v, VR_CR0);

	v->split.marked = !am;
	virt_ops->set_reg(v, VR_CR0, am ? cr0 | X86_CR0_AM : cr0 & ~(u64)X86_CR0_AM);
}

static void step_over(struct vcpu *v)
{
	v->want_step |= STEP_SPLIT;
	v->split.rip = v->rip;
}

static void let_bus_lock(struct vcpu *v)
{
	if (v->split.bus_exits)
		virt_ops->bus_locks(v, BUS_LOCKS_ONE);
}

static void let_through(struct vcpu *v)
{
	bool mark = FAULTS && marked(v, FAULT_AC_SPLIT);

	if (!split_lock_pass_begin() && !mark)
		return; /* detection is off by now */
	if (mark)
		unmark(v, false);
	step_over(v);
	let_bus_lock(v);
}

/* One that the guest does not handle itself. True: it may be, now. */
static bool allowed(struct vcpu *v)
{
	enum split_policy policy = READ_ONCE(v->vm->split.policy);

	tell(v, policy);
	if (policy == SPLIT_FATAL) {
		count(v, &v->vm->split.fatal, TRACE_SPLIT_FATAL);
		vm_stop(v->vm, STOP_SPLIT_LOCK, "vCPU %u splits a lock at rip %#lx", v->index,
			v->rip);
		return false;
	}
	return policy != SPLIT_RATELIMIT || in_rate(v, READ_ONCE(v->vm->split.rate));
}

bool split_fault(struct vcpu *v)
{
	if (marked(v, FAULT_AC_BUS_LOCK)) {
		unmark(v, false);
		step_over(v);
		return true;
	}
	if (!split_lock_takes_part() || (legacy(v) && !marked(v, FAULT_AC_SPLIT)))
		return false;
	if (split_lock_state() != SPLIT_LOCK_ON) { /* it came before that was known here */
		let_through(v);
		return true;
	}
	if (!v->split.waits)
		count(v, &v->vm->split.seen, TRACE_SPLIT_LOCK);
	if (v->event.valid) {
		/*
		 * While an event was delivered, which is queued again; as #AC it would take the
		 * event's place.
		 */
		let_through(v);
	} else if (v->split.test_ctrl & TEST_CTRL_SPLIT_LOCK) {
		count(v, &v->vm->split.injected, TRACE_SPLIT_INJECTED);
		vcpu_exception(v, VECTOR_AC, true, 0);
	} else if (allowed(v)) {
		let_through(v);
	}
	return true;
}

/*
 * That of a pass was looked at when it was #AC. Let through is the instruction that stands there
 * now, at this exit: who has to wait comes here again.
 */
void split_bus_lock(struct vcpu *v)
{
	if (v->want_step & STEP_SPLIT) {
		let_bus_lock(v);
	} else if (!bus_locks_matter(v->vm)) {
		split_load(v);
	} else {
		if (!v->split.waits)
			count(v, &v->vm->split.bus_locks, TRACE_BUS_LOCK);
		if (v->event.valid || allowed(v)) {
			count(v, &v->vm->split.passed, TRACE_SPLIT_PASSED);
			let_bus_lock(v);
		}
	}
}

/* It has happened; over the rate, what follows it waits. */
void split_bus_locked(struct vcpu *v)
{
	split_load(v);
	if (!v->split.bus_exits)
		return;
	count(v, &v->vm->split.bus_locks, TRACE_BUS_LOCK);
	if (v->activity || allowed(v) || v->split.waits) /* in HLT it waits anyway */
		count(v, &v->vm->split.passed, TRACE_SPLIT_PASSED);
	v->split.waits = false;
}

static void end_pass(struct vcpu *v, bool done)
{
	v->want_step &= (u8)~STEP_SPLIT;
	if (FAULTS && v->split.marked)
		unmark(v, true);
	else
		__atomic_fetch_and(&v->requests, ~(u32)REQ_BUS_LOCKED, __ATOMIC_RELAXED);
	if (split_lock_pass_end() && done)
		count(v, &v->vm->split.passed, TRACE_SPLIT_PASSED);
}

/*
 * What exits before the instruction is executed brings the same one back: an interrupt of the host,
 * a page that stage 2 has to map. All else ends the pass: the step is done, the guest is somewhere
 * else, or it gets an exception of its own.
 */
void split_after_exit(struct vcpu *v)
{
	bool own = v->exit.kind == EXIT_EXCEPTION && v->exit.exception.vector != VECTOR_AC;

	if (v->exit.kind == EXIT_STEP || v->rip != v->split.rip || own)
		end_pass(v, true);
}

void split_put(struct vcpu *v)
{
	if (v->want_step & STEP_SPLIT)
		end_pass(v, false);
}
