/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's heart: which vector is next. SDM vol. 3, "Task and Processor Priorities",
 * "Interrupt Acceptance".
 */
#include "dev/lapic.h"

#include <asm-generic/errno.h>
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "arch/x86/msr.h"

_Static_assert(sizeof(struct lapic) <= PAGE_SIZE, "a LAPIC is one frame");

#define VECTOR_CLASS 0xf0

bool lapic_on(struct lapic *l)
{
	return READ_ONCE(l->base) & APIC_BASE_ENABLE;
}

bool lapic_x2(struct lapic *l)
{
	return READ_ONCE(l->base) & APIC_BASE_X2APIC;
}

/* The register of IRR, ISR or TMR that has a vector's bit. */
static u32 *vector_word(struct lapic *l, u32 set, u8 vector)
{
	return lapic_reg(l, set + vector / 32 * 16);
}

static u32 vector_bit(u8 vector)
{
	return 1u << vector % 32;
}

/* Index of the highest bit; x is not 0. */
static u32 top_bit(u32 x)
{
	return 31 - (u32)__builtin_clz(x);
}

static int highest_isr(struct lapic *l)
{
	if (!l->isr_words)
		return -1;
	u32 word = top_bit(l->isr_words);
	return (int)(word * 32 + top_bit(*lapic_reg(l, APIC_ISR + word * 16)));
}

/* Other CPUs set bits meanwhile: one that is missed here comes with a REQ_EVENT of its own. */
static int highest_irr(struct lapic *l)
{
#pragma GCC unroll 8
	for (int word = 7; word >= 0; word--) {
		u32 bits = lapic_peek(l, APIC_IRR + (u32)word * 16);
		if (bits)
			return word * 32 + (int)top_bit(bits);
	}
	return -1;
}

static void update_ppr(struct lapic *l)
{
	int isr = highest_isr(l);
	u32 tpr = *lapic_reg(l, APIC_TPR);
	u32 class = isr < 0 ? 0 : (u32)isr & VECTOR_CLASS;
	u32 ppr = (tpr & VECTOR_CLASS) >= class ? tpr : class;
	WRITE_ONCE(*lapic_reg(l, APIC_PPR), ppr);
}

int lapic_pending(struct vcpu *v)
{
	struct lapic *l = lapic_of(v);
	int vector = highest_irr(l);
	if (vector < 0 || ((u32)vector & VECTOR_CLASS) <= (*lapic_reg(l, APIC_PPR) & VECTOR_CLASS))
		return -1;
	return vector;
}

/* The priority fell: something that waited may go now. */
static void priority_fell(struct lapic *l)
{
	update_ppr(l);
	if (lapic_pending(l->v) >= 0)
		vcpu_request(l->v, REQ_EVENT);
}

void lapic_ack(struct vcpu *v, u8 vector)
{
	struct lapic *l = lapic_of(v);
	__atomic_fetch_and(vector_word(l, APIC_IRR, vector), ~vector_bit(vector), __ATOMIC_SEQ_CST);
	*vector_word(l, APIC_ISR, vector) |= vector_bit(vector);
	l->isr_words |= 1u << vector / 32;
	WRITE_ONCE(*lapic_reg(l, APIC_PPR),
		   vector & VECTOR_CLASS); /* it was deliverable: above TPR and ISR */
}

void lapic_eoi(struct lapic *l)
{
	int vector = highest_isr(l);
	if (vector < 0)
		return;
	u32 *isr = vector_word(l, APIC_ISR, (u8)vector);
	*isr &= ~vector_bit((u8)vector);
	if (!*isr)
		l->isr_words &= ~(1u << vector / 32);
	if (READ_ONCE(*vector_word(l, APIC_TMR, (u8)vector)) & vector_bit((u8)vector) &&
	    !(*lapic_reg(l, APIC_SVR) & APIC_SVR_NO_BROADCAST))
		lapic_eoi_broadcast(l->v->vm, (u8)vector);
	priority_fell(l);
}

u8 lapic_get_tpr(struct vcpu *v)
{
	return (u8)*lapic_reg(lapic_of(v), APIC_TPR);
}

void lapic_set_tpr(struct vcpu *v, u8 tpr)
{
	struct lapic *l = lapic_of(v);
	WRITE_ONCE(*lapic_reg(l, APIC_TPR), tpr);
	priority_fell(l);
}

/* The trigger mode is noted before the request is visible. */
static void set_tmr(struct lapic *l, u8 vector, bool level)
{
	u32 *tmr = vector_word(l, APIC_TMR, vector);
	if (!!(READ_ONCE(*tmr) & vector_bit(vector)) == level)
		return;
	if (level)
		__atomic_fetch_or(tmr, vector_bit(vector), __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(tmr, ~vector_bit(vector), __ATOMIC_SEQ_CST);
}

void lapic_accept(struct lapic *l, u8 vector, bool level)
{
	if (unlikely(vector < 16)) {
		lapic_error(l, APIC_ESR_RECV_ILLEGAL);
		return;
	}
	set_tmr(l, vector, level);
	u32 old = __atomic_fetch_or(vector_word(l, APIC_IRR, vector), vector_bit(vector),
				    __ATOMIC_SEQ_CST);
	if (old & vector_bit(vector))
		return; /* coalesced: whoever set the bit asks, or asked */
	vcpu_request(l->v, REQ_EVENT);
}

/*
 * An error interrupt whose own vector is illegal is one more error, not one more interrupt: no
 * recursion (HAZARDS row 36).
 */
void lapic_error(struct lapic *l, u32 bits)
{
	u32 old = __atomic_fetch_or(&l->errors, bits, __ATOMIC_SEQ_CST);
	u32 lvt = lapic_peek(l, APIC_LVT_ERROR);
	if ((old & bits) == bits || lvt & APIC_LVT_MASKED)
		return;
	if ((lvt & APIC_VECTOR) < 16)
		__atomic_fetch_or(&l->errors, APIC_ESR_RECV_ILLEGAL, __ATOMIC_SEQ_CST);
	else
		lapic_accept(l, lvt & APIC_VECTOR, false);
}

/* An interrupt from the local vector table; lvt is the entry. On the runner. */
void lapic_local(struct lapic *l, u32 lvt)
{
	if (lvt & APIC_LVT_MASKED)
		return;
	switch ((lvt & APIC_MODE) >> APIC_MODE_SHIFT) {
	case APIC_FIXED:
		lapic_accept(l, lvt & APIC_VECTOR, false);
		break;
	case APIC_NMI:
		vcpu_request(l->v, REQ_NMI);
		break;
	}
}

/* The PIC's output is wired to LINT0, which is the CPU's INTR where the LAPIC is disabled. */
bool lapic_takes_extint(struct lapic *l)
{
	u32 lint0 = lapic_peek(l, APIC_LVT_LINT0) & (APIC_LVT_MASKED | APIC_MODE);

	if (!lapic_on(l))
		return !l->v->index;
	return lint0 == APIC_EXTINT << APIC_MODE_SHIFT || READ_ONCE(l->extint);
}

/* By mode: in x2APIC mode the id is the whole register, and the LDR follows from it. */
void lapic_set_id(struct lapic *l)
{
	u32 id = l->v->index;
	bool x2 = lapic_x2(l);

	WRITE_ONCE(*lapic_reg(l, APIC_ID), x2 ? id : id << 24);
	if (x2)
		WRITE_ONCE(*lapic_reg(l, APIC_LDR), (id >> 4) << 16 | 1u << (id & 0xf));
}

/* SDM "Local APIC State After Power-Up or Reset" */
void lapic_reset_regs(struct lapic *l)
{
	memset(l->regs, 0, sizeof(l->regs));
	l->isr_words = l->errors = 0;
	l->extint = false;
	lapic_set_id(l);
	*lapic_reg(l, APIC_VERSION) = APIC_VERSION_VALUE;
	*lapic_reg(l, APIC_DFR) = ~0u;
	*lapic_reg(l, APIC_SVR) = 0xff;
	for (u32 lvt = APIC_LVT_TIMER; lvt <= APIC_LVT_ERROR; lvt += 16)
		*lapic_reg(l, lvt) = APIC_LVT_MASKED;
	lapic_timer_reset(l);
}

void lapic_reset(struct vcpu *v)
{
	struct lapic *l = lapic_of(v);
	l->base = APIC_BASE_GPA | APIC_BASE_ENABLE | (v->index ? 0 : APIC_BASE_BSP);
	lapic_reset_regs(l);
}

/*
 * SDM "Local APIC State After It Receives an INIT-Reset IPI", "x2APIC State Transitions": as after
 * a reset, but mode and id stay. A bit that another CPU sets in IRR meanwhile came before or after.
 */
void lapic_init(struct vcpu *v)
{
	lapic_reset_regs(lapic_of(v));
}

int lapic_create(struct vcpu *v)
{
	struct lapic *l = frame_alloc_zero(FRAME_HEAP, v->vm->id);
	if (!l)
		return -ENOMEM;
	l->v = v;
	v->lapic = l;
	lapic_timer_create(l);
	lapic_reset(v);
	return 0;
}

void lapic_destroy(struct vcpu *v)
{
	if (!v->lapic)
		return;
	frame_free(hpa_pfn(ptr_hpa(v->lapic)), FRAME_HEAP, v->vm->id);
	v->lapic = NULL;
}
