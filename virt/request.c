/* SPDX-License-Identifier: MIT */
/* Requests to vCPUs, from any CPU: none is lost (docs/ARCHITECTURE.md, section 6). */
#include "arch/x86/ipi.h"
#include "virt/sched.h"

/* Sets the bits, and wakes v if it sleeps. True: it is in guest mode, and must be told. */
static bool ask(struct vcpu *v, u32 requests)
{
	u8 halted = VCPU_HALTED;

	__atomic_fetch_or(&v->requests, requests, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST))
		return true;
	if (__atomic_compare_exchange_n(&v->state, &halted, VCPU_STOPPED, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		sched_enqueue(v);
	else if (requests & REQ_STOP)
		sched_resume(v);
	return false;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	if (ask(v, requests))
		ipi_kick(v->cpu);
}

/*
 * The request stands all the same. Should v leave before the IPI arrives, it is the host that takes
 * that, and v looks before it enters again or sleeps. A debugger's step takes no interrupt.
 */
void vcpu_post(struct vcpu *v)
{
	if (!ask(v, REQ_EVENT))
		return;
	if (!READ_ONCE(v->posts) || READ_ONCE(v->want_step) & STEP_DEBUG) {
		ipi_kick(v->cpu);
		return;
	}
	__atomic_fetch_add(&v->notified, 1, __ATOMIC_RELAXED);
	ipi_notify(v->cpu);
}
