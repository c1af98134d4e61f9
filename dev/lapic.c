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
#include "virt/ops.h"
#include "virt/state.h"

_Static_assert(sizeof(struct lapic) <= PAGE_SIZE, "a LAPIC is one frame");
_Static_assert(offsetof(struct lapic_posted, any) == 32, "ON is bit 256");

#define VECTOR_CLASS 0xf0

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
	return (u32)__builtin_clz(x) ^ 31;
}

/* The highest vector of IRR or ISR; words: which of its words are not 0. -1: none. */
static int highest(struct lapic *l, u32 set, u32 words)
{
	u32 word;

	if (!words)
		return -1;
	word = top_bit(words);
	return (int)(word * 32 + top_bit(*lapic_reg(l, set + word * 16)));
}

/* Senders set bits, then `any`: what is not seen here comes with a REQ_EVENT of its own. */
static NOINLINE void collect(struct lapic *l, struct lapic_posted *p)
{
	__atomic_store_n(&p->any, 0, __ATOMIC_SEQ_CST);
	for (u32 word = 0; word < ARRAY_SIZE(p->bits); word++) {
		u32 bits = READ_ONCE(p->bits[word]);

		if (!bits)
			continue;
		bits = __atomic_exchange_n(&p->bits[word], 0, __ATOMIC_SEQ_CST);
		*lapic_reg(l, APIC_IRR + word * 16) |= bits;
		l->irr_words |= 1u << word;
	}
}

static bool any_posted(const struct lapic *l)
{
	return READ_ONCE(l->posted[0].any) | READ_ONCE(l->posted[1].any);
}

void lapic_collect(struct lapic *l)
{
	for (u32 level = 0; level < 2; level++)
		if (READ_ONCE(l->posted[level].any))
			collect(l, &l->posted[level]);
}

static u32 nonzero_words(struct lapic *l, u32 set)
{
	u32 words = 0;

	for (u32 word = 0; word < 8; word++)
		if (*lapic_reg(l, set + word * 16))
			words |= 1u << word;
	return words;
}

/* The CPU takes requests out of IRR and, for self-IPIs, puts them there. */
static void sync_apicv(struct lapic *l)
{
	int vector;

	l->irr_words = nonzero_words(l, APIC_IRR);
	vector = highest(l, APIC_IRR, l->irr_words);
	virt_ops->apicv_requested(l->v, vector < 0 ? 0 : (u8)vector);
}

void lapic_follow_mode(struct lapic *l)
{
	struct vcpu *v = l->v;
	bool want = v->vm->apicv && lapic_x2(l) && lapic_enabled(l);

	if (want == v->apicv || !virt_ops->apicv)
		return;
	l->isr_words = nonzero_words(l, APIC_ISR);
	l->irr_words = nonzero_words(l, APIC_IRR);
	virt_ops->apicv(v, want ? l->regs : NULL, &l->posted[0],
			(u8)MAX(highest(l, APIC_ISR, l->isr_words), 0));
	vcpu_request(v, REQ_EVENT);
}

static void update_ppr(struct lapic *l)
{
	int isr = highest(l, APIC_ISR, l->isr_words);
	u32 tpr = *lapic_reg(l, APIC_TPR);
	u32 class = isr < 0 ? 0 : (u32)isr & VECTOR_CLASS;
	u32 ppr = (tpr & VECTOR_CLASS) >= class ? tpr : class;
	WRITE_ONCE(*lapic_reg(l, APIC_PPR), ppr);
}

/* Returns it, so that its caller need not keep it. */
static NOINLINE struct lapic *refresh(struct lapic *l)
{
	lapic_collect(l);
	if (l->v->apicv)
		sync_apicv(l);
	return l;
}

int lapic_pending(struct vcpu *v)
{
	struct lapic *l = lapic_of(v);
	int vector;

	if (any_posted(l) || v->apicv)
		l = refresh(l);
	vector = highest(l, APIC_IRR, l->irr_words);
	if (vector < 0 || ((u32)vector & VECTOR_CLASS) <= (*lapic_reg(l, APIC_PPR) & VECTOR_CLASS))
		return -1;
	return vector;
}

/* The priority fell: something that waited may go now. */
static void priority_fell(struct lapic *l)
{
	update_ppr(l);
	if ((l->irr_words || any_posted(l)) && lapic_pending(l->v) >= 0)
		vcpu_request_own(l->v, REQ_EVENT);
}

/* A level-triggered interrupt was acknowledged. */
static NOINLINE void level_done(struct lapic *l, u8 vector)
{
	if (!(*lapic_reg(l, APIC_SVR) & APIC_SVR_NO_BROADCAST))
		lapic_eoi_broadcast(l->v->vm, vector);
}

void lapic_eoi_exit(struct vcpu *v, u8 vector)
{
	level_done(lapic_of(v), vector);
}

void lapic_ack(struct vcpu *v, u8 vector)
{
	struct lapic *l = lapic_of(v);
	u32 *irr = vector_word(l, APIC_IRR, vector);

	*irr &= ~vector_bit(vector);
	if (!*irr)
		l->irr_words &= ~(1u << vector / 32);
	*vector_word(l, APIC_ISR, vector) |= vector_bit(vector);
	l->isr_words |= 1u << vector / 32;
	WRITE_ONCE(*lapic_reg(l, APIC_PPR),
		   vector & VECTOR_CLASS); /* it was deliverable: above TPR and ISR */
}

void lapic_eoi(struct lapic *l)
{
	u32 word, *isr, bit;

	if (!l->isr_words)
		return;
	word = top_bit(l->isr_words);
	isr = lapic_reg(l, APIC_ISR + word * 16);
	bit = 1u << top_bit(*isr);
	*isr &= ~bit;
	if (!*isr)
		l->isr_words &= ~(1u << word);
	if (unlikely(lapic_peek(l, APIC_TMR + word * 16) & bit))
		level_done(l, (u8)(word * 32 + top_bit(bit)));
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
static inline void set_tmr(struct lapic *l, u8 vector, bool level)
{
	u32 *tmr = vector_word(l, APIC_TMR, vector);
	bool was = READ_ONCE(*tmr) & vector_bit(vector);

	if (likely(was == level))
		return;
	if (level)
		__atomic_fetch_or(tmr, vector_bit(vector), __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(tmr, ~vector_bit(vector), __ATOMIC_SEQ_CST);
}

void lapic_accept(struct lapic *l, u8 vector, bool level)
{
	struct lapic_posted *p = &l->posted[level];

	if (unlikely(vector < 16)) {
		lapic_error(l, APIC_ESR_RECV_ILLEGAL);
		return;
	}
	set_tmr(l, vector, level);
	u32 old = __atomic_fetch_or(&p->bits[vector / 32], vector_bit(vector), __ATOMIC_SEQ_CST);
	if (old & vector_bit(vector))
		return; /* coalesced: whoever set the bit asks, or asked */
	__atomic_store_n(&p->any, 1, __ATOMIC_SEQ_CST);
	if (level)
		vcpu_request(l->v, REQ_EVENT);
	else
		vcpu_post(l->v);
}

void lapic_accept_own(struct lapic *l, u8 vector)
{
	if (unlikely(vector < 16)) {
		lapic_error(l, APIC_ESR_RECV_ILLEGAL);
		return;
	}
	set_tmr(l, vector, false);
	*vector_word(l, APIC_IRR, vector) |= vector_bit(vector);
	l->irr_words |= 1u << vector / 32;
	vcpu_request_own(l->v, REQ_EVENT);
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
		lapic_accept_own(l, lvt & APIC_VECTOR);
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
	for (u32 word = 0; word < 16; word++)
		__atomic_store_n(&l->posted[word / 8].bits[word % 8], 0, __ATOMIC_SEQ_CST);
	l->irr_words = l->isr_words = l->errors = 0;
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
 * a reset, but mode and id stay. A bit that another CPU posts meanwhile came before or after.
 */
void lapic_init(struct vcpu *v)
{
	lapic_reset_regs(lapic_of(v));
	lapic_follow_mode(lapic_of(v));
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

static const struct state_field fields[] = {
	STATE_FIELD(struct lapic, regs, STATE_ANY),
	STATE_FIELD(struct lapic, base, STATE_ANY),
	STATE_FIELD(struct lapic, posted, STATE_ANY),
	STATE_FIELD(struct lapic, errors, STATE_ANY),
	STATE_FIELD(struct lapic, extint, STATE_MAX, 1),
	STATE_FIELD(struct lapic, timer.running, STATE_MAX, 1),
	STATE_FIELD(struct lapic, timer.deadline, STATE_TIME),
	STATE_FIELD(struct lapic, timer.guest_deadline, STATE_ANY),
};

/* What follows from the rest is computed anew. The host's timer follows by REQ_TIMER. */
void lapic_state(struct vcpu *v, struct state *s)
{
	struct lapic *l = lapic_of(v);
	u64 flags;

	if (!STATE_PART(s, "LAPIC", v->index, l, fields) || !s->loading || !lapic_check(l, s))
		return;
	lapic_set_id(l);
	l->irr_words = nonzero_words(l, APIC_IRR);
	l->isr_words = nonzero_words(l, APIC_ISR);
	update_ppr(l);
	lapic_timer_restore(l);
	flags = irq_save();
	virt_ops->vcpu_load(v);
	lapic_follow_mode(l);
	virt_ops->vcpu_put(v);
	irq_restore(flags);
}

void lapic_destroy(struct vcpu *v)
{
	if (!v->lapic)
		return;
	frame_free(hpa_pfn(ptr_hpa(v->lapic)), FRAME_HEAP, v->vm->id);
	v->lapic = NULL;
}
