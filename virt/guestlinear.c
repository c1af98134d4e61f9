/* SPDX-License-Identifier: MIT */
/* Guest memory by linear address: copies, and the bytes of the instruction at RIP. */
#include "virt/guestmem.h"
#include "lib/error.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "virt/guestwalk.h"
#include "virt/slotmem.h"

/* One page's piece. */
static int copy_piece(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 *buf, size_t n,
		      enum copy what, u8 access, struct walk_fault *fault)
{
	u8 moves = access == ACCESS_W ? ACCESS_W : ACCESS_R;
	u8 quiet = access == ACCESS_X ? WALK_QUIET : 0; /* what the guest executes is marked */
	struct guest_denied why;
	gpa_t gpa;

	if (guest_walk_mmu(v, m, linear, access | quiet, m->cpl, &gpa, fault))
		return -EFAULT;
	if (what == COPY_CHECK ? guest_ready(v->vm, gpa, n, moves, &why)
			       : guest_copy(v->vm, gpa, buf, n, moves, &why))
		return 0;
	*fault = (struct walk_fault){
		.stage2 = true, .gpa = why.gpa, .kind = why.kind, .access = access, .gva = linear
	};
	return -EFAULT;
}

int guest_copy_mmu(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 *buf, size_t len,
		   enum copy what, struct walk_fault *fault)
{
	u8 access = what == COPY_READ ? ACCESS_R : ACCESS_W;

	for (size_t done = 0, n; done < len; done += n) {
		n = MIN(len - done, PAGE_SIZE - (linear + done) % PAGE_SIZE);
		if (copy_piece(v, m, linear + done, buf + done, n, what, access, fault))
			return -EFAULT;
	}
	return 0;
}

int guest_read_linear(struct vcpu *v, u64 linear, void *dst, size_t len, struct walk_fault *fault)
{
	struct guest_mmu m;

	guest_mmu_read(v, &m);
	return guest_copy_mmu(v, &m, linear, dst, len, COPY_READ, fault);
}

int guest_write_linear(struct vcpu *v, u64 linear, const void *src, size_t len,
		       struct walk_fault *fault)
{
	struct guest_mmu m;
	u8 *buf = (u8 *)src; /* only read from: COPY_WRITE */

	guest_mmu_read(v, &m);
	if (linear % PAGE_SIZE + len > PAGE_SIZE &&
	    guest_copy_mmu(v, &m, linear, buf, len, COPY_CHECK, fault))
		return -EFAULT;
	return guest_copy_mmu(v, &m, linear, buf, len, COPY_WRITE, fault);
}

int guest_fetch(struct vcpu *v, u8 bytes[15], struct walk_fault *fault)
{
	struct walk_fault second; /* of no interest: the CPU did without that page */
	struct guest_mmu m;
	struct segment cs;
	u64 linear = v->rip;
	size_t n;

	guest_mmu_read(v, &m);
	if (!(m.efer & EFER_LMA) || !(m.cs_attr & SEG_ATTR_L)) {
		virt_ops->get_seg(v, SEG_CS, &cs);
		linear = (u32)(cs.base + (u32)v->rip);
	}
	n = MIN(15, PAGE_SIZE - linear % PAGE_SIZE);
	if (copy_piece(v, &m, linear, bytes, n, COPY_READ, ACCESS_X, fault))
		return -EFAULT;
	if (n < 15 &&
	    !copy_piece(v, &m, linear + n, bytes + n, 15 - n, COPY_READ, ACCESS_X, &second))
		n = 15;
	return (int)n;
}

/*
 * The fast way, for the instruction that has just exited. First with all that it reads in one slot,
 * which begins at gpa 0, and in extents that are cleared already: true for a kernel that runs.
 */

/* Host address - gpa; 0: not in the slot, or not cleared. gpa_bias: the slot's, in a register. */
static inline u64 fast_bias(const struct memslot *s, const u64 *gpa_bias, u64 gpa)
{
	if (unlikely(gpa >= s->size))
		return 0;
	return __atomic_load_n(&gpa_bias[gpa >> EXTENT_SHIFT], __ATOMIC_ACQUIRE);
}

/* Of the entry of a table, shift says what a table covers per entry. */
static inline u64 entry_gpa(u64 table, u64 rip, u32 shift)
{
	return (table & PTE_ADDR) | (rip >> (shift - 3) & 0xff8);
}

/* Where a leaf leads to; shift: of its page size. */
static inline u64 leaf_gpa(u64 entry, u64 rip, u32 shift)
{
	return (entry & MASK(51, shift)) | (rip & (BIT(shift) - 1));
}

/* One level down. False if it ends here: nothing present, or no memory. */
static inline bool fast_step(const struct memslot *s, const u64 *gpa_bias, u64 rip, u32 shift,
			     u64 *entry)
{
	u64 gpa = entry_gpa(*entry, rip, shift), bias = fast_bias(s, gpa_bias, gpa);

	if (unlikely(!bias))
		return false;
	*entry = READ_ONCE(*(const u64 *)(uintptr_t)(bias + gpa));
	return likely(*entry & PTE_P);
}

static inline void compare(struct vcpu *v, u64 bias, u64 gpa, const struct insn_pattern *insn)
{
	u32 bytes;

	__builtin_memcpy(&bytes, (const void *)(uintptr_t)(bias + gpa), sizeof(bytes));
	if (likely((bytes & insn->mask) == insn->bytes))
		v->exit.insn_len = insn->len;
}

/* As fast_bias(), in whatever slot; *s is tried first. */
static u64 any_bias(struct vcpu *v, const struct memslot **s, u64 gpa)
{
	if (!slot_has(*s, gpa)) {
		const struct memslot *other = vm_slot(v->vm, GPA(gpa));

		if (!other || !(other->prot & S2_R))
			return 0;
		*s = other;
	}
	return __atomic_load_n(&(*s)->gpa_bias[gpa >> EXTENT_SHIFT], __ATOMIC_ACQUIRE);
}

/* The leaf lies elsewhere than the tables, or is of 4 KiB. */
static NOINLINE void compare_leaf(struct vcpu *v, u64 gpa, const struct insn_pattern *insn)
{
	const struct memslot *s = v->slot_hint;
	u64 bias = any_bias(v, &s, gpa);

	if (bias)
		compare(v, bias, gpa, insn);
}

/* The tables are in more than one slot, or a leaf is of 1 GiB: step by step. */
static NOINLINE void compare_scattered(struct vcpu *v, u64 cr3, const struct insn_pattern *insn)
{
	const struct memslot *s = v->slot_hint;
	u64 entry = cr3, gpa, bias;

	for (u32 shift = 39;; shift -= 9) {
		gpa = entry_gpa(entry, v->rip, shift);
		bias = any_bias(v, &s, gpa);
		if (!bias)
			return;
		if (shift == 39) /* where the next one begins, too */
			v->slot_hint = s;
		entry = READ_ONCE(*(const u64 *)(uintptr_t)(bias + gpa));
		if (!(entry & PTE_P))
			return;
		if (shift == 12 || (entry & PTE_PS && shift < 39))
			return compare_leaf(v, leaf_gpa(entry, v->rip, shift), insn);
	}
}

/* entry: of the page directory. */
static NOINLINE void compare_small(struct vcpu *v, u64 entry, const struct insn_pattern *insn)
{
	const struct memslot *s = v->slot_hint;

	if (fast_step(s, s->gpa_bias, v->rip, 12, &entry))
		compare_leaf(v, leaf_gpa(entry, v->rip, 12), insn);
	else
		compare_scattered(v, virt_ops->get_reg(v, VR_CR3), insn);
}

void guest_confirm_insn(struct vcpu *v, u64 cr3, const struct insn_pattern *insn)
{
	const struct memslot *s = v->slot_hint;
	const u64 *biases = s->gpa_bias;
	u64 rip = v->rip, entry = cr3, gpa, bias;

	if (unlikely((rip & (PAGE_SIZE - 1)) > PAGE_SIZE - sizeof(u32)))
		return;
	if (unlikely(s->gpa.v) || !fast_step(s, biases, rip, 39, &entry) ||
	    !fast_step(s, biases, rip, 30, &entry) || entry & PTE_PS ||
	    !fast_step(s, biases, rip, 21, &entry))
		return compare_scattered(v, cr3, insn);
	if (!(entry & PTE_PS))
		return compare_small(v, entry, insn);
	gpa = leaf_gpa(entry, rip, 21);
	bias = fast_bias(s, biases, gpa);
	if (unlikely(!bias))
		return compare_leaf(v, gpa, insn);
	compare(v, bias, gpa, insn);
}
