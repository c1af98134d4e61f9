/* SPDX-License-Identifier: MIT */
/*
 * Who gets a message. SDM vol. 3, "Determining IPI Destination", "Logical x2APIC ID", "Interrupt
 * Command Register (ICR)".
 */
#include "dev/lapic.h"

static bool broadcast(const struct apic_msg *msg)
{
	return msg->dest == (msg->dest8 ? 0xffu : ~0u);
}

static bool logical_match(struct lapic *l, u32 dest)
{
	u32 ldr = lapic_peek(l, APIC_LDR);
	if (lapic_x2(l))
		return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
	ldr >>= 24;
	if (dest > 0xff)
		return false;
	if (lapic_peek(l, APIC_DFR) >> 28 == APIC_DFR_FLAT)
		return dest & ldr;
	/* Cluster model: 4 bits of cluster, 15 meaning all of them, and 4 members. */
	return (dest >> 4 == ldr >> 4 || dest >> 4 == 0xf) && (dest & ldr & 0xf);
}

static bool matches(struct lapic *l, const struct apic_msg *msg)
{
	if (broadcast(msg))
		return true;
	return msg->logical ? logical_match(l, msg->dest) : msg->dest == l->v->index;
}

static u32 deliver_to(struct lapic *l, const struct apic_msg *msg)
{
	if (!lapic_on(l))
		return 0;
	switch (msg->mode) {
	case APIC_FIXED:
	case APIC_LOWEST:
		if (!lapic_enabled(l))
			return 0;
		lapic_accept(l, msg->vector, msg->level);
		return 1;
	case APIC_NMI:
		vcpu_request(l->v, REQ_NMI);
		return 1;
	case APIC_INIT:
		vcpu_send_init(l->v);
		return 1;
	case APIC_SIPI:
		vcpu_send_sipi(l->v, msg->vector);
		return 1;
	case APIC_EXTINT:
		WRITE_ONCE(l->extint, true);
		vcpu_request(l->v, REQ_EVENT);
		return 1;
	default: /* no SMM, no remote read */
		return 0;
	}
}

static bool addressed(struct lapic *l, const struct vcpu *src, const struct apic_msg *msg)
{
	switch (msg->shorthand) {
	case APIC_TO_SELF:
		return l->v == src;
	case APIC_TO_ALL:
		return true;
	case APIC_TO_OTHERS:
		return l->v != src;
	default:
		return matches(l, msg);
	}
}

/*
 * "Lowest Priority Delivery Mode": the lowest processor priority wins. Equals share by vector, so
 * that one source stays on one CPU and different sources spread.
 */
static u32 deliver_lowest(struct vm *vm, struct vcpu *src, const struct apic_msg *msg)
{
	struct lapic *best = NULL;
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct lapic *l = lapic_of(vm->vcpus[(msg->vector + i) % vm->nr_vcpus]);
		if (!addressed(l, src, msg) || !lapic_enabled(l))
			continue;
		if (!best || lapic_peek(l, APIC_PPR) < lapic_peek(best, APIC_PPR))
			best = l;
	}
	return best ? deliver_to(best, msg) : 0;
}

u32 lapic_deliver(struct vm *vm, struct vcpu *src, const struct apic_msg *msg)
{
	if (msg->shorthand == APIC_TO_SELF)
		return deliver_to(lapic_of(src), msg);
	if (msg->mode == APIC_LOWEST)
		return deliver_lowest(vm, src, msg);
	if (msg->shorthand == APIC_TO_DEST && !msg->logical &&
	    !broadcast(msg)) /* vCPU number is APIC id */
		return msg->dest < vm->nr_vcpus ? deliver_to(lapic_of(vm->vcpus[msg->dest]), msg)
						: 0;

	u32 taken = 0;
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct lapic *l = lapic_of(vm->vcpus[i]);
		if (addressed(l, src, msg))
			taken += deliver_to(l, msg);
	}
	return taken;
}

/* On the runner. Kernels use it a lot. */
void lapic_self_ipi(struct lapic *l, u8 vector)
{
	if (unlikely(vector < 16))
		lapic_error(l, APIC_ESR_SEND_ILLEGAL);
	else if (lapic_enabled(l))
		lapic_accept_own(l, vector);
}

/* ICR was written. On the runner. */
void lapic_icr(struct lapic *l, u32 low, u32 dest, bool dest8)
{
	u8 mode = (low & APIC_MODE) >> APIC_MODE_SHIFT, vector = low & APIC_VECTOR;
	u8 shorthand = (low >> APIC_ICR_SHORTHAND_SHIFT) & 3;
	if (mode == APIC_FIXED && shorthand == APIC_TO_SELF) {
		lapic_self_ipi(l, vector);
		return;
	}
	if (mode == APIC_EXTINT)
		return; /* reserved here */
	if (mode <= APIC_LOWEST && vector < 16) {
		lapic_error(l, APIC_ESR_SEND_ILLEGAL);
		return;
	}
	if (mode == APIC_INIT && low & APIC_TRIGGER && !(low & APIC_ICR_ASSERT))
		return; /* INIT level de-assert only synchronises arbitration ids, which nobody has
			 */
	const struct apic_msg msg = {
		.dest = dest,
		.dest8 = dest8,
		.logical = low & APIC_LOGICAL,
		.level = false, /* "Trigger Mode": ignored for all but INIT level de-assert */
		.mode = mode,
		.shorthand = shorthand,
		.vector = vector,
	};
	lapic_deliver(l->v->vm, l->v, &msg);
}
