/* SPDX-License-Identifier: MIT */
/* Guest memory by linear address: copies, and the bytes of the instruction at RIP. */
#include "virt/guestmem.h"
#include "lib/error.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "virt/guestwalk.h"
#include "virt/slotmem.h"

/* What a piece of a linear range is for. */
enum copy { COPY_CHECK, COPY_READ, COPY_WRITE };

/* One page's piece; with COPY_CHECK nothing changes, but it fails where COPY_WRITE would. */
static int copy_piece(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 *buf, size_t n,
		      enum copy what, u8 access, struct walk_fault *fault)
{
	struct memslot *s;
	gpa_t gpa;
	int err;

	if (guest_walk_mmu(v, m, linear, access, m->cpl, &gpa, fault))
		return -EFAULT;
	switch (what) {
	case COPY_READ:
		err = guest_read(v->vm, gpa, buf, n);
		break;
	case COPY_WRITE:
		err = guest_write(v->vm, gpa, buf, n);
		break;
	default:
		s = vm_slot(v->vm, gpa);
		err = s && s->prot & S2_W ? 0 : -EFAULT;
	}
	if (err)
		*fault = (struct walk_fault){ .stage2 = true, .gpa = gpa, .gva = linear };
	return err;
}

static int copy_linear(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 *buf, size_t len,
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
	return copy_linear(v, &m, linear, dst, len, COPY_READ, fault);
}

int guest_write_linear(struct vcpu *v, u64 linear, const void *src, size_t len,
		       struct walk_fault *fault)
{
	struct guest_mmu m;
	u8 *buf = (u8 *)src; /* only read from: COPY_WRITE */

	guest_mmu_read(v, &m);
	if (linear % PAGE_SIZE + len > PAGE_SIZE &&
	    copy_linear(v, &m, linear, buf, len, COPY_CHECK, fault))
		return -EFAULT;
	return copy_linear(v, &m, linear, buf, len, COPY_WRITE, fault);
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
 * The fast fetch. All it looks at must lie in the slot where the last table was found, in extents
 * that are cleared already: true for a kernel that runs, and whatever fails here is done again by
 * guest_fetch(), which moves the hint. The slot's fields are copied, so that the compiler keeps
 * them in registers across the steps.
 */
struct fast_slot {
	u64 gpa, size;
	const u64 *bias; /* moved, so that gpa >> EXTENT_SHIFT is the index */
};

/* Host address - gpa, or 0: not in the slot, or not cleared. */
static inline u64 fast_bias(const struct fast_slot *s, u64 gpa)
{
	if (unlikely(gpa - s->gpa >= s->size))
		return 0;
	return __atomic_load_n(&s->bias[gpa >> EXTENT_SHIFT], __ATOMIC_ACQUIRE);
}

/* One level down. False if it ends here: nothing present, or no memory. */
static inline bool fast_step(const struct fast_slot *s, u64 rip, u32 shift, u64 *entry)
{
	u64 gpa = (*entry & PTE_ADDR) | (rip >> (shift - 3) & 0xff8), bias = fast_bias(s, gpa);

	if (unlikely(!bias))
		return false;
	*entry = READ_ONCE(*(const u64 *)(uintptr_t)(bias + gpa));
	return likely(*entry & PTE_P);
}

static inline bool fast_read(const struct fast_slot *s, u64 gpa, u32 *bytes)
{
	u64 bias = fast_bias(s, gpa);

	if (unlikely(!bias))
		return false;
	__builtin_memcpy(bytes, (const void *)(uintptr_t)(bias + gpa), sizeof(*bytes));
	return true;
}

/* Where a leaf leads to; shift: of its page size. */
static inline u64 fast_gpa(u64 entry, u64 rip, u32 shift)
{
	return (entry & MASK(51, shift)) | (rip & (BIT(shift) - 1));
}

bool guest_fetch_long(struct vcpu *v, u64 cr3, u32 *bytes)
{
	const struct memslot *slot = &v->vm->slots[v->slot_hint];
	struct fast_slot s = { slot->gpa.v, slot->size, NULL };
	u64 rip = v->rip, entry = cr3;

	if (unlikely((rip & (PAGE_SIZE - 1)) > PAGE_SIZE - sizeof(*bytes)))
		return false;
	s.bias = (const u64 *)((uintptr_t)slot->bias - (s.gpa >> EXTENT_SHIFT) * sizeof(u64));
	if (!fast_step(&s, rip, 39, &entry) || !fast_step(&s, rip, 30, &entry))
		return false;
	if (unlikely(entry & PTE_PS))
		return fast_read(&s, fast_gpa(entry, rip, 30), bytes);
	if (!fast_step(&s, rip, 21, &entry))
		return false;
	if (entry & PTE_PS)
		return fast_read(&s, fast_gpa(entry, rip, 21), bytes);
	return fast_step(&s, rip, 12, &entry) && fast_read(&s, fast_gpa(entry, rip, 12), bytes);
}

bool guest_fetch_fast(struct vcpu *v, u32 *bytes)
{
	struct guest_mmu m;

	guest_mmu_read(v, &m);
	if (!(m.efer & EFER_LMA) || !(m.cs_attr & SEG_ATTR_L) || m.cr4 & X86_CR4_LA57)
		return false;
	return guest_fetch_long(v, m.cr3, bytes);
}
