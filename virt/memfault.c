/* SPDX-License-Identifier: MIT */
#include "virt/memfault.h"
#include "arch/x86/cpu.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "lib/log.h"
#include "virt/sched.h"
#include "virt/slots.h"

const char *memory_fault_name(enum memory_fault_kind kind)
{
	static const char *const names[] = {
		[MEMORY_OK] = "none",		[MEMORY_READONLY] = "read-only",
		[MEMORY_NOEXEC] = "no-exec",	[MEMORY_POISONED] = "poisoned",
		[MEMORY_NO_MEMORY] = "no-slot", [MEMORY_INHERITED] = "inherited",
		[MEMORY_MISSING] = "missing",	[MEMORY_EXHAUSTED] = "no memory left",
	};

	_Static_assert(MEMORY_MISSING, "no promise without a report");
	return names[kind];
}

static const char *access_name(u8 access)
{
	return access == ACCESS_X ? "executes" : access == ACCESS_W ? "writes" : "reads";
}

static void stop(struct vcpu *v, const char *why)
{
	const struct memory_fault *f = &v->wait.fault;

	vm_stop(v->vm, STOP_MEMORY_FAULT, "vCPU %u%s %s gpa %#lx (rip %#lx): %s", v->index,
		f->walk ? "'s page walk" : "", access_name(f->access), f->gpa.v, f->rip, why);
}

static bool same(const struct memory_fault *a, const struct memory_fault *b)
{
	return a->gpa.v >> PAGE_SHIFT == b->gpa.v >> PAGE_SHIFT && a->rip == b->rip &&
	       a->kind == b->kind && a->access == b->access;
}

/* The report as a whole. */
static void note(struct vcpu *v, const struct memory_fault *f, const struct memslot *s)
{
	struct memory_fault *to = &v->wait.fault, new = *f;

	new.rip = v->rip;
	new.sequence = to->sequence + 1;
	new.again = same(&new, to) ? to->again + 1 : 0;
	new.slot = s ? s->id : MEMORY_NO_SLOT;
	new.generation = s ? s->generation : 0;
	new.size = s && s->backing->source ? s->backing->source->piece : PAGE_SIZE;
	*to = new;
}

/* Nobody but the operator can help. */
static void tell(const struct vcpu *v)
{
	const struct memory_fault *f = &v->wait.fault;

	log_warn("vm %s: vCPU %u%s waits: %s gpa %#lx (rip %#lx): %s", v->vm->name, v->index,
		 f->walk ? "'s page walk" : "", access_name(f->access), f->gpa.v, f->rip,
		 memory_fault_name(f->kind));
}

static void wait_for(struct vcpu *v, const struct memslot *s)
{
	struct memory_wait *w = &v->wait;
	u64 offset = s->offset + (w->fault.gpa.v - s->gpa.v);
	u8 level, state;
	bool still;

	WRITE_ONCE(w->size, w->fault.size);
	WRITE_ONCE(w->offset, ALIGN_DOWN(offset, w->size));
	v->activity |= VCPU_WAITS_MEMORY;
	__atomic_store_n(&w->backing, s->backing, __ATOMIC_SEQ_CST);
	state = backing_state(
		__atomic_load_n(backing_word(s->backing, offset, &level), __ATOMIC_SEQ_CST));
	if (w->fault.kind == MEMORY_READONLY)
		still = state == BACKING_READONLY;
	else if (w->fault.kind == MEMORY_INHERITED)
		return; /* it will copy it */
	else
		still = state == BACKING_MISSING || state == BACKING_FETCHING;
	if (!still)
		vcpu_request(v, REQ_MEMORY);
	else if (!s->backing->source || w->fault.kind != MEMORY_MISSING)
		tell(v);
}

void memory_fault(struct vcpu *v, const struct memory_fault *f)
{
	const struct memslot *s = vm_slot(v->vm, f->gpa);

	if (v->activity & VCPU_WAITS_MEMORY)
		return; /* for what it met first */
	note(v, f, s);
	vcpu_trace(v, TRACE_MEMORY_FAULT, f->access, f->gpa.v, v->rip);
	if (f->kind == MEMORY_POISONED && v->vm->machine_check && v->vm->machine_check(v, f))
		return;
	if (v->wait.fault.again > MEMORY_FAULT_AGAIN)
		stop(v, "again and again, although it was resolved");
	else if (s && (f->kind == MEMORY_MISSING || f->kind == MEMORY_INHERITED ||
		       (f->kind == MEMORY_READONLY && !(s->flags & SLOT_READONLY))))
		wait_for(v, s);
	else
		stop(v, memory_fault_name(f->kind));
}

int memory_access_failed(struct vm *vm, gpa_t gpa, u8 access, u8 kind)
{
	const struct memory_fault fault = { .gpa = gpa, .access = access, .kind = kind };
	struct vcpu *v = (struct vcpu *)sched_current(this_cpu(cpu_id));
	const struct memslot *s;
	bool waits;

	grace_enter();
	s = vm_slot(vm, gpa);
	waits = s && kind != MEMORY_NO_MEMORY &&
		!(kind == MEMORY_READONLY && s->flags & SLOT_READONLY);
	grace_leave();
	if (!waits)
		return -EFAULT;
	if (v && v->vm == vm)
		memory_fault(v, &fault);
	else
		vcpu_request(vm->vcpus[0], REQ_DEVICES);
	return -EAGAIN;
}

void memory_wait_end(struct vcpu *v)
{
	struct memory_wait *w = &v->wait;
	struct backing *b = w->backing;

	if (!b)
		return;
	v->activity &= ~(u32)VCPU_WAITS_MEMORY;
	__atomic_store_n(&w->backing, NULL, __ATOMIC_SEQ_CST);
	if (w->fetch.to) {
		backing_fetch_drop(b, &w->fetch);
		memory_resolved(b, w->offset, w->size); /* another one fetches it */
	}
}

bool memory_wait_works(const struct vcpu *v)
{
	const struct backing *b = v->wait.backing;

	return b && (v->wait.fault.kind == MEMORY_INHERITED ||
		     (b->source && v->wait.fault.kind == MEMORY_MISSING));
}

bool memory_wait_step(struct vcpu *v)
{
	struct memory_wait *w = &v->wait;
	struct backing *b = w->backing;
	int err;

	if (!memory_wait_works(v))
		return false;
	if (w->fault.kind == MEMORY_INHERITED)
		err = vm_own_page(v->vm, w->fault.gpa);
	else
		err = backing_fetch(b, w->offset, &w->fetch);
	if (err == -EAGAIN)
		return true;
	if (err == -EBUSY)
		return false;
	if (err && err != -EEXIST)
		stop(v, err == -ENOMEM ? "no memory left for it" : b->source->name);
	memory_wait_end(v);
	memory_resolved(b, w->offset, w->size);
	vcpu_request(v, REQ_MEMORY); /* events and devices that waited */
	return true;
}

static u32 for_waiting(const struct vm *vm, const struct backing *b, u64 offset, u64 size,
		       void (*found)(struct vcpu *v))
{
	u32 count = 0;

	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i];
		u64 at;

		if (__atomic_load_n(&v->wait.backing, __ATOMIC_SEQ_CST) != b)
			continue;
		at = READ_ONCE(v->wait.offset);
		if (at >= offset + size || at + READ_ONCE(v->wait.size) <= offset)
			continue;
		found(v);
		count++;
	}
	return count;
}

static u32 for_all_waiting(struct backing *b, u64 offset, u64 size, void (*found)(struct vcpu *v))
{
	u32 count = 0;

	if (b->vm)
		return for_waiting(b->vm, b, offset, size, found);
	spin_lock(&vm_list_lock);
	list_for_each(n, &vm_list)
		count += for_waiting(list_entry(n, struct vm, node), b, offset, size, found);
	spin_unlock(&vm_list_lock);
	return count;
}

static void wake(struct vcpu *v)
{
	vcpu_request(v, REQ_MEMORY);
}

static void give_up(struct vcpu *v)
{
	stop(v, "given up by the operator");
}

u32 memory_resolved(struct backing *b, u64 offset, u64 size)
{
	return for_all_waiting(b, offset, size, wake);
}

u32 memory_give_up(struct backing *b, u64 offset, u64 size)
{
	return for_all_waiting(b, offset, size, give_up);
}
