/* SPDX-License-Identifier: MIT */
/* What handlers do to a vCPU: registers, skipping, exceptions; and its run loop. */
#include "arch/x86/cpu.h"
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "arch/x86/split_lock.h"
#include "lib/log.h"
#include "virt/debug.h"
#include "virt/decode.h"
#include "virt/exits.h"
#include "virt/fpu.h"
#include "virt/guestmem.h"
#include "virt/ops.h"
#include "virt/sched.h"
#include "virt/slots.h"

u64 vcpu_gpr(struct vcpu *v, enum gpr n)
{
	return n == RSP ? virt_ops->get_reg(v, VR_RSP) : v->gpr[n];
}

void vcpu_set_gpr(struct vcpu *v, enum gpr n, u64 value)
{
	if (n == RSP)
		virt_ops->set_reg(v, VR_RSP, value);
	else
		v->gpr[n] = value;
}

enum insn_mode vcpu_mode(struct vcpu *v)
{
	struct segment cs;

	virt_ops->get_seg(v, SEG_CS, &cs);
	if ((cs.attr & SEG_ATTR_L) && (virt_ops->get_reg(v, VR_EFER) & BIT(10)))
		return INSN_64;
	return cs.attr & SEG_ATTR_DB ? INSN_32 : INSN_16;
}

u32 vcpu_fetched_length(struct vcpu *v)
{
	struct walk_fault fault;
	u8 bytes[INSN_MAX_LEN];
	int n = guest_fetch(v, bytes, &fault), len;

	/* Unmapped since the CPU fetched it: executed again, it faults by itself. */
	if (n <= 0)
		return 0;
	len = insn_length(bytes, (size_t)n, vcpu_mode(v));
	if (len > 0)
		return (u32)len;
	/* The CPU has just executed it, so only a guest that changes its code meanwhile comes here.
	 */
	vm_stop(v->vm, STOP_INTERNAL, "cannot read the instruction at %#lx that exited (%s)",
		v->rip, exit_kind_name(v->exit.kind));
	return 0;
}

/*
 * RIP is 32 bits wide outside 64-bit code; only where its low half wraps does that make a
 * difference.
 */
static NOINLINE void skip_wrapped(struct vcpu *v, u64 next)
{
	v->rip = vcpu_mode(v) == INSN_64 ? next : (u32)next;
}

NOINLINE void vcpu_step_trap(struct vcpu *v)
{
	if (v->debug.owns_dr)
		v->debug.dr6 |= DR6_BS;
	else
		virt_ops->set_reg(v, VR_DR6, virt_ops->get_reg(v, VR_DR6) | DR6_BS);
	vcpu_exception(v, 1, false, 0);
}

static inline void skip(struct vcpu *v, u64 len)
{
	u64 next = v->rip + len;

	v->rip = next;
	if (unlikely(!((u32)next & ~15u))) /* it may have wrapped: no instruction has 16 bytes */
		skip_wrapped(v, next);
	v->exit.done = true;
	if (unlikely(v->rflags & X86_EFLAGS_TF))
		vcpu_step_trap(v);
}

void vcpu_skip_len(struct vcpu *v, u32 len)
{
	skip(v, len);
}

static NOINLINE void skip_fetched(struct vcpu *v)
{
	u32 len = vcpu_fetched_length(v);

	if (len)
		skip(v, len);
}

void vcpu_skip(struct vcpu *v)
{
	u64 len = v->exit.insn_len;

	if (unlikely(!len))
		skip_fetched(v);
	else
		skip(v, len);
}

/* SDM vol. 3 "Interrupt 8: Double Fault Exception": which pairs make a #DF. */
static bool contributory(u8 vector)
{
	return vector == 0 || (vector >= 10 && vector <= 13);
}

void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	u8 first = v->event.vector;

	if (v->event.valid && v->event.type == EVENT_EXCEPTION) {
		if (first == 8) {
			vm_stop(v->vm, STOP_TRIPLE_FAULT,
				"triple fault at %#lx (vector %u in a double fault)", v->rip,
				vector);
			return;
		}
		if ((contributory(first) && contributory(vector)) ||
		    (first == 14 && (vector == 14 || contributory(vector)))) {
			vector = 8;
			has_error = true;
			error = 0;
		}
	}
	v->event = (struct event){ .valid = true,
				   .type = EVENT_EXCEPTION,
				   .vector = vector,
				   .has_error = has_error,
				   .error = error };
}

/* Decide on what is injected at the next entry, or which window to wait for. */
static void deliver_events(struct vcpu *v)
{
	const struct irqchip_ops *chip = v->vm->irqchip;
	bool shadow;
	int pending = chip ? chip->pending(v) : -1;

	v->want_irq_window = v->want_nmi_window = false;
	/* A debugger steps the program, not into the timer's handler; out of HLT there is none. */
	if (unlikely(v->want_step & STEP_DEBUG) && v->activity == VCPU_ACTIVE) {
		if (v->apicv)
			virt_ops->apicv_requested(v, 0);
		return;
	}
	if (pending < 0 && !v->nmi_pending)
		return;
	shadow = !v->exit.done && virt_ops->get_reg(v, VR_INTR_SHADOW);
	if (v->nmi_pending) {
		if (!v->event.valid && !shadow && !virt_ops->get_reg(v, VR_NMI_BLOCKED)) {
			v->event = (struct event){ .valid = true, .type = EVENT_NMI, .vector = 2 };
			v->nmi_pending = false;
			v->activity = VCPU_ACTIVE;
		} else {
			v->want_nmi_window = true;
		}
	}
	if (pending < 0)
		return;
	if (v->apicv && pending != IRQ_EXTINT) { /* the CPU delivers; what sleeps it can't wake */
		if (v->rflags & X86_EFLAGS_IF)
			v->activity = VCPU_ACTIVE;
		return;
	}
	if (!v->event.valid && !shadow && (v->rflags & X86_EFLAGS_IF)) {
		v->event = (struct event){ .valid = true,
					   .type = EVENT_EXT_INT,
					   .vector = chip->ack(v, pending) };
		v->activity = VCPU_ACTIVE;
	} else {
		v->want_irq_window = v->activity == VCPU_ACTIVE || (v->rflags & X86_EFLAGS_IF);
	}
}

enum run_verdict { RUN_ENTER, RUN_YIELD, RUN_STOP, RUN_HOLD };

/* All that is not an interrupt's affair. False: a stop. */
static NOINLINE bool serve_rare(struct vcpu *v, u32 req)
{
	if (req & REQ_FLUSH) {
		WRITE_ONCE(v->flushed, READ_ONCE(v->vm->stage2.generation));
		virt_ops->flush(v);
		vcpu_trace(v, TRACE_FLUSH, 0, 0, 0);
	}
	if (req & REQ_SLOTS)
		v->slot_hint = vm_slots(v->vm)->slot;
	if (req & (REQ_STOP | REQ_MEMORY))
		memory_wait_end(v);
	if (req & REQ_STOP)
		return false;
	if (req & REQ_MEMORY)
		exit_memory_came(v);
	if (req & REQ_TIMER)
		v->vm->irqchip->timer(v);
	if (req & REQ_NMI)
		v->nmi_pending = true;
	if (req & REQ_INIT)
		vcpu_take_init(v);
	if (req & REQ_SIPI)
		vcpu_take_sipi(v);
	if (req & (REQ_DELAY | REQ_MEMORY))
		split_delay_over(v);
	if (req & REQ_BUS_LOCKED)
		split_bus_locked(v);
	if (req & (REQ_MEMORY | REQ_DEVICES) && v->vm->retry_devices)
		v->vm->retry_devices(v->vm);
	return true;
}

static enum run_verdict serve_requests(struct vcpu *v)
{
	u32 req;

	/* All but a stop waits for the end of it. */
	if (unlikely(__atomic_load_n(&v->debug.hold, __ATOMIC_SEQ_CST)) &&
	    !(READ_ONCE(v->requests) & REQ_STOP))
		return RUN_HOLD;
	req = __atomic_exchange_n(&v->requests, 0, __ATOMIC_SEQ_CST);
	if (unlikely(req & ~(u32)(REQ_EVENT | REQ_RESCHED)) && !serve_rare(v, req))
		return RUN_STOP;
	if (v->activity != VCPU_WAIT_SIPI && !(v->activity & VCPU_WAITS_MEMORY) &&
	    req & (REQ_EVENT | REQ_TIMER | REQ_NMI | REQ_SIPI | REQ_DELAY | REQ_MEMORY))
		deliver_events(v);
	return req & REQ_RESCHED ? RUN_YIELD : RUN_ENTER;
}

void vcpu_load_dr(const struct vcpu *v)
{
	write_dr0(v->dr[0]);
	write_dr1(v->dr[1]);
	write_dr2(v->dr[2]);
	write_dr3(v->dr[3]);
}

static void load(struct vcpu *v)
{
	virt_ops->vcpu_load(v);
	v->loaded_cpu = this_cpu(cpu_id);
	split_lock_vcpu_load();
	split_load(v);
	fpu_load(v);
	vcpu_load_dr(v);
	virt_ops->pause_exits(v, sched_others_wait());
	if (unlikely(v->vm->debug))
		debug_vcpu_load(v);
	if (unlikely(!v->launched_before)) {
		v->launched_before = true;
		log_debug("vm %s vcpu %u: first entry at TSC %lu", v->vm->name, v->index, rdtsc());
	}
}

static void put(struct vcpu *v)
{
	split_put(v);
	split_lock_vcpu_put();
	if (likely(!v->debug.owns_dr)) {
		v->dr[0] = read_dr0();
		v->dr[1] = read_dr1();
		v->dr[2] = read_dr2();
		v->dr[3] = read_dr3();
	}
	if (unlikely(v->vm->debug))
		debug_vcpu_put(v);
	fpu_put(v);
	virt_ops->vcpu_put(v);
	v->loaded_cpu = CPU_NONE;
}

_Static_assert(EXIT_KINDS <= TRACE_EXIT_KINDS, "exits and other events share numbers");

/* One event for an exit and the entry before it, in as few instructions as can be. */
static inline void trace_exit(const struct vcpu *v, u64 kind)
{
	struct trace_event *e = trace_begin();

	trace_end(e, v->trace.word | kind, v->rip, v->exit.qualification,
		  this_cpu(trace_ring).exit_step);
}

/* What is rare after an exit. */
static NOINLINE void after_exit(struct vcpu *v)
{
	if (!(v->event.valid | v->want_step))
		return;
	if (v->want_step & STEP_SPLIT)
		split_after_exit(v);
	if (v->want_step & STEP_DEBUG)
		debug_after_exit(v);
	/*
	 * An event whose delivery exits each time (an IDT where no memory is, #AC upon #AC) never
	 * lets the guest reach an instruction, where the CPU would look at interrupts.
	 */
	vcpu_take_irqs(v);
}

enum run_result vcpu_run(struct vcpu *v)
{
	enum run_verdict verdict = RUN_ENTER;
	void (*run)(struct vcpu * v) = virt_ops->run;
	u64 kind;

	load(v);
	for (;;) {
		/*
		 * Published before requests are read: a sender sees in_guest and kicks, or we see
		 * its request.
		 */
		__atomic_store_n(&v->in_guest, 1, __ATOMIC_SEQ_CST);
		if (unlikely(v->not_ready)) {
			WRITE_ONCE(v->in_guest, 0);
			verdict = serve_requests(v);
			if (verdict != RUN_ENTER)
				break;
			if (unlikely(v->activity & VCPU_WAITS_MEMORY) && memory_wait_step(v)) {
				if (v->activity & VCPU_WAITS_MEMORY)
					vcpu_take_irqs(v);
				else
					exit_memory_came(v);
				continue;
			}
			if (v->activity)
				break;
			continue;
		}
		v->trace.entered = (u32)rdtsc();
		run(v);
		WRITE_ONCE(v->in_guest, 0);
		kind = v->exit.kind;
		trace_exit(v, kind);
		v->exits[kind]++;
		exit_handlers[kind](v);
		if (unlikely(v->rare))
			after_exit(v);
	}
	put(v);
	if (verdict == RUN_STOP)
		return VCPU_RUN_STOPPED;
	if (verdict == RUN_HOLD)
		return VCPU_RUN_HELD;
	/* Whoever fetches what it waits for comes back for the next slice. */
	if (v->activity && !(verdict == RUN_YIELD && memory_wait_works(v)))
		return VCPU_RUN_HALTED;
	return VCPU_RUN_YIELDED;
}
