/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches: far JMP and CALL to a TSS, task gates, and IRET with NT set, outside of
 * 64-bit mode (SDM vol. 3 "Task Management"). VMX and SVM exit for each, after checks of their own
 * of the new TSS and before anything has changed. (QEMU has no such exit: its CPU does it alone.)
 *
 * All is done twice. First nothing changes: if memory is missing anywhere on the way, the vCPU
 * waits for it as it is, and the switch begins anew. Then nothing is missing.
 */
#include <asm/processor-flags.h>
#include "arch/x86/debugreg.h"
#include "lib/string.h"
#include "virt/debug.h"
#include "virt/exits.h"
#include "virt/guestwalk.h"

#define VECTOR_TS 10
#define VECTOR_NP 11
#define VECTOR_SS 12
#define FLAGS_ALL 0x3f7fd5u
#define TSS_BUSY  2 /* in the type of a TSS */
#define TSS_32	  8
#define TYPE_LDT  2 /* ... of an LDT */

/*
 * SDM "32-Bit Task-State Segment", by words: a switch saves those from EIP to GS, in the order of
 * enum gpr and enum vseg, and loads all from CR3 on. In a TSS of 16 bits (SDM "16-Bit Task-State
 * Segment") all from EIP to DS is one word earlier, and only the LDT follows.
 */
enum { T_CR3 = 7, T_EIP, T_EFLAGS, T_GPRS, T_SEGS = 18, T_FS = 22, T_LDT = 24, T_TRAP, T_WORDS };
enum { T16_LDT = 21, T16_WORDS };

struct switching {
	struct vcpu *v;
	bool real;   /* it happens */
	bool denied; /* memory can't be used: the vCPU waits, or its VM stops */
	u32 ext; /* bit 0 of error codes: it began with an event that was none of the program's */
	/* What memory is seen by: of the old task, then of the new one. */
	struct guest_mmu mmu;
	struct segment seg[SEG_LDTR + 1];
};

static bool fault(const struct switching *s, u8 vector, u16 selector)
{
	if (s->real)
		vcpu_exception(s->v, vector, true, (selector & ~3u) | s->ext);
	return false;
}

static bool copy(struct switching *s, u64 linear, void *buf, size_t len, bool write)
{
	struct walk_fault f;

	if (!guest_copy_mmu(s->v, &s->mmu, (u32)linear, buf, len,
			    !write    ? COPY_READ
			    : s->real ? COPY_WRITE
				      : COPY_CHECK,
			    &f))
		return true;
	if (s->real || f.stage2)
		vcpu_walk_fault(s->v, &f);
	s->denied |= f.stage2;
	return false;
}

/* SDM "Segment Descriptors". *at: where it lies. */
static bool read_descriptor(struct switching *s, u16 selector, struct segment *out, u64 *at)
{
	struct segment table;
	u64 d;

	virt_ops->get_seg(s->v, SEG_GDTR, &table);
	if (selector & 4)
		table = s->seg[SEG_LDTR];
	*at = table.base + (selector & ~7u);
	if (table.unusable || (selector | 7u) > table.limit)
		return fault(s, VECTOR_TS, selector);
	if (!copy(s, *at, &d, sizeof(d), false))
		return false;
	*out = (struct segment){ .base = (d >> 16 & 0xffffff) | (d >> 56) << 24,
				 .limit = (u32)((d & 0xffff) | (d >> 32 & 0xf0000)),
				 .selector = selector,
				 .attr = d >> 40 & 0xf0ff };
	if (out->attr & SEG_ATTR_G)
		out->limit = out->limit << 12 | 0xfff;
	return true;
}

/* Set or clear a bit of a descriptor's type. */
static bool mark(struct switching *s, u64 at, const struct segment *d, u8 bit, bool on)
{
	u8 low = (u8)((d->attr & ~bit) | (on ? bit : 0));

	return copy(s, at + 5, &low, 1, true);
}

/* SDM "Task Switching", the checks of segment registers. *out is unusable where they fail. */
static bool load_segment(struct switching *s, enum vseg seg, u16 selector, u8 cpl,
			 struct segment *out)
{
	u8 type, dpl, rpl = selector & 3;
	struct segment d;
	bool good;
	u64 at;

	*out = (struct segment){ .selector = selector, .unusable = true };
	if (!(selector & ~3u))
		return (seg != SEG_CS && seg != SEG_SS) || fault(s, VECTOR_TS, 0);
	if (seg == SEG_LDTR && selector & 4)
		return fault(s, VECTOR_TS, selector);
	if (!read_descriptor(s, selector, &d, &at))
		return false;
	type = d.attr & SEG_ATTR_TYPE;
	dpl = d.attr >> SEG_ATTR_DPL_SHIFT & 3;
	good = !!(d.attr & SEG_ATTR_S) == (seg != SEG_LDTR);
	if (seg == SEG_LDTR)
		good = good && type == TYPE_LDT && d.attr & SEG_ATTR_P;
	else if (seg == SEG_CS)
		good = good && type & 8 && (type & 4 ? dpl <= cpl : dpl == cpl);
	else if (seg == SEG_SS)
		good = good && (type & 0xa) == 2 && dpl == cpl && rpl == cpl;
	else
		good = good && (type & 0xa) != 8 &&
		       ((type & 0xc) == 0xc || (dpl >= cpl && dpl >= rpl));
	if (!good)
		return fault(s, VECTOR_TS, selector);
	if (!(d.attr & SEG_ATTR_P))
		return fault(s, seg == SEG_SS ? VECTOR_SS : VECTOR_NP, selector);
	if (seg != SEG_LDTR && !mark(s, at, &d, 1, true)) /* accessed */
		return false;
	*out = d;
	return true;
}

static void set_seg(struct switching *s, enum vseg n)
{
	if (s->real)
		virt_ops->set_seg(s->v, n, &s->seg[n]);
}

/*
 * In the new task's context. CS and SS are loaded together, so that what is there when a fault is
 * delivered is always something that the CPU enters with.
 */
static bool load_segments(struct switching *s, const u32 *t)
{
	static const u8 order[] = { SEG_LDTR, SEG_SS, SEG_CS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	bool v86 = t[T_EFLAGS] & X86_EFLAGS_VM, good = true;

	s->seg[SEG_LDTR] = (struct segment){ .unusable = true };
	set_seg(s, SEG_LDTR);
	for (u32 i = 0; good && i < ARRAY_SIZE(order); i++) {
		enum vseg n = order[i];
		u16 selector = (u16)t[T_SEGS + n];

		if (v86 && n != SEG_LDTR)
			s->seg[n] =
				(struct segment){ selector * 16ull, 0xffff, selector, 0xf3, false };
		else
			good = load_segment(s, n, selector, t[T_SEGS + SEG_CS] & 3, &s->seg[n]);
		if (n == SEG_CS && good)
			set_seg(s, SEG_SS);
		if (n != SEG_SS && (n != SEG_CS || good))
			set_seg(s, n);
	}
	return good;
}
_Static_assert(T_SEGS + SEG_LDTR == T_LDT, "the LDT's selector is behind GS, as in enum vseg");

/* At the new task's privilege, and in the size of its TSS. */
static bool push_error(struct switching *s, const u32 *t, u32 error, u32 size)
{
	const struct segment *ss = &s->seg[SEG_SS];
	u64 mask = ss->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff, sp = t[T_GPRS + RSP];

	sp = (sp & ~mask) | ((sp - size) & mask);
	s->mmu.cpl = t[T_EFLAGS] & X86_EFLAGS_VM ? 3 : t[T_SEGS + SEG_CS] & 3;
	if (!copy(s, ss->base + (sp & mask), &error, size, true))
		return false;
	if (s->real)
		vcpu_set_gpr(s->v, RSP, sp);
	return true;
}

static bool save_old(struct switching *s, const struct segment *tr, u64 next_rip, u64 flags)
{
	u32 saved[T_LDT - T_EIP] = { (u32)next_rip, (u32)flags };
	u16 words[T_FS - T_EIP];
	struct segment seg;

	for (u32 i = RAX; i <= RDI; i++)
		saved[T_GPRS - T_EIP + i] = (u32)vcpu_gpr(s->v, (enum gpr)i);
	for (u32 i = SEG_ES; i <= SEG_GS; i++) {
		virt_ops->get_seg(s->v, (enum vseg)i, &seg);
		saved[T_SEGS - T_EIP + i] = seg.selector;
	}
	if (tr->attr & TSS_32)
		return copy(s, tr->base + T_EIP * 4ul, saved, sizeof(saved), true);
	for (u32 i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = (u16)saved[i];
	return copy(s, tr->base + (T_EIP - 1) * 2ul, words, sizeof(words), true);
}

/* A task of 16 bits keeps CR3, and has no FS, GS and T bit. */
static bool read_new(struct switching *s, const struct segment *tss, u32 *t)
{
	u16 words[T16_WORDS];

	if (tss->attr & TSS_32)
		return copy(s, tss->base, t, T_WORDS * sizeof(*t), false);
	if (!copy(s, tss->base, words, sizeof(words), false))
		return false;
	memset(t, 0, T_WORDS * sizeof(*t));
	for (u32 i = T_EIP; i < T_FS; i++)
		t[i] = words[i - 1];
	t[T_LDT] = words[T16_LDT];
	t[T_CR3] = (u32)s->mmu.cr3;
	return true;
}

/* It is the new task's fault, with the registers that it has, what fails here. */
static bool load_new(struct switching *s, const u32 *t)
{
	struct vcpu *v = s->v;
	u64 cr0 = virt_ops->get_reg(v, VR_CR0);

	s->mmu.cr3 = t[T_CR3];
	if (!s->real) /* what a bad CR3 leads to is not looked at */
		return !(cr0 & X86_CR0_PG && guest_cr3_bad(v, t[T_CR3])) && load_segments(s, t);
	virt_ops->set_reg(v, VR_CR0, cr0 | X86_CR0_TS);
	virt_ops->set_reg(v, VR_DR7, virt_ops->get_reg(v, VR_DR7) & ~DR7_LOCAL);
	v->rip = t[T_EIP];
	v->rflags = (t[T_EFLAGS] & FLAGS_ALL) | X86_EFLAGS_FIXED;
	for (u32 i = RAX; i <= RDI; i++)
		vcpu_set_gpr(v, (enum gpr)i, t[T_GPRS + i]);
	v->exit.done = true;
	if (cr0 & X86_CR0_PG && guest_set_cr3(v, t[T_CR3]))
		return fault(s, VECTOR_TS, 0);
	return load_segments(s, t);
}

static void perform(struct switching *s, const struct event *event)
{
	struct vcpu *v = s->v;
	u16 selector = v->exit.task.selector;
	bool gate = v->exit.task.source == TASK_GATE, iret = v->exit.task.source == TASK_IRET;
	bool nested = gate || v->exit.task.source == TASK_CALL;
	u8 len = gate ? event->insn_len : v->exit.insn_len;
	u64 flags = v->rflags & ~(iret ? X86_EFLAGS_NT : 0ul), old_at, new_at;
	struct segment tr, old, tss;
	u32 t[T_WORDS];

	s->ext = gate && !len;
	virt_ops->get_seg(v, SEG_TR, &tr);
	if (!read_descriptor(s, tr.selector, &old, &old_at) ||
	    !read_descriptor(s, selector, &tss, &new_at))
		return;
	/* The CPU has looked at it: here it is something else only if it has changed since. */
	if ((tss.attr & 0x15) != 1 ||
	    tss.limit < (tss.attr & TSS_32 ? sizeof(t) : T16_WORDS * 2ul) - 1) {
		fault(s, VECTOR_TS, selector);
		return;
	}
	if (!read_new(s, &tss, t) || !save_old(s, &tr, v->rip + len, flags) ||
	    (!nested && !mark(s, old_at, &old, TSS_BUSY, false)) ||
	    (nested && !copy(s, tss.base, &tr.selector, sizeof(tr.selector), true)) ||
	    (!iret && !mark(s, new_at, &tss, TSS_BUSY, true)))
		return;
	t[T_EFLAGS] |= nested ? X86_EFLAGS_NT : 0;
	if (s->real) {
		v->event.valid = false; /* it is what brought the new task */
		if (iret || (gate && event->type == EVENT_NMI))
			virt_ops->set_reg(v, VR_NMI_BLOCKED, gate);
		virt_ops->set_seg(v, SEG_TR, &tss);
	}
	if (!load_new(s, t) || (gate && event->has_error &&
				!push_error(s, t, event->error, tss.attr & TSS_32 ? 4 : 2)))
		return;
	if (s->real && t[T_TRAP] & 1) {
		debug_guest_dr6(v, DR6_BT);
		vcpu_exception(v, 1, false, 0);
	}
}

void task_switch(struct vcpu *v)
{
	const struct event event = v->event;
	struct switching begin = { .v = v }, s = begin;

	if (!v->exit.insn_len && v->exit.task.source != TASK_GATE) {
		v->exit.insn_len = (u8)vcpu_fetched_length(v);
		if (!v->exit.insn_len)
			return;
	}
	guest_mmu_read(v, &begin.mmu);
	begin.mmu.cpl = 0; /* system structures are the supervisor's, whatever the CPL */
	virt_ops->get_seg(v, SEG_LDTR, &begin.seg[SEG_LDTR]);
	for (u32 pass = 0; pass < 2 && !s.denied; pass++) {
		s = begin;
		s.real = pass;
		perform(&s, &event);
	}
}
