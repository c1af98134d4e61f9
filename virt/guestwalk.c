/* SPDX-License-Identifier: MIT */
/*
 * The guest's page tables: linear addresses to gpas, as the CPU walks them (SDM vol. 3 "Paging";
 * APM vol. 2 "Page Translation and Protection").
 *
 * Each entry is read exactly once, in one piece: another vCPU may change it at any time. Nothing is
 * cached between calls. Accessed and dirty bits that have to be set are set in a second walk, which
 * is as good as the first: most need none.
 */
#include "virt/guestwalk.h"
#include "lib/error.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "virt/cpuid.h"
#include "virt/ops.h"
#include "virt/slotmem.h"

#define PTE_W  BIT(1)
#define PTE_U  BIT(2)
#define PTE_A  BIT(5)
#define PTE_D  BIT(6)
#define PTE_NX BIT(63)

#define MARK_TRIES 16

/* Page-fault error code (SDM "Page-Fault Exceptions"). */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_ID	BIT(4)

void guest_mmu_ask(struct vcpu *v, struct guest_mmu *m)
{
	struct segment cs, ss;

	m->cr0 = virt_ops->get_reg(v, VR_CR0);
	m->cr3 = virt_ops->get_reg(v, VR_CR3);
	m->cr4 = virt_ops->get_reg(v, VR_CR4);
	m->efer = virt_ops->get_reg(v, VR_EFER);
	virt_ops->get_seg(v, SEG_CS, &cs);
	virt_ops->get_seg(v, SEG_SS, &ss);
	m->cs_attr = cs.attr;
	if (!(m->cr0 & X86_CR0_PE))
		m->cpl = 0;
	else if (v->rflags & X86_EFLAGS_VM)
		m->cpl = 3;
	else
		m->cpl = ss.attr >> SEG_ATTR_DPL_SHIFT & 3;
}

/* Where a naturally aligned table entry lies in host memory; NULL: *kind says why not. */
static inline const void *entry_ptr(struct vcpu *v, u64 gpa, u8 *kind)
{
	const struct memslot *s = v->slot_hint;
	struct slot_memory m;
	u64 bias;

	if (unlikely(!slot_has(s, gpa))) {
		s = vm_slot(v->vm, GPA(gpa));
		*kind = MEMORY_NO_MEMORY;
		if (!s)
			return NULL;
		v->slot_hint = s;
	}
	bias = slot_bias(s, slot_part(s, gpa));
	if (likely(bias))
		return (const void *)(uintptr_t)(bias + gpa);
	slot_memory(s, gpa, ACCESS_R, &m);
	*kind = m.kind;
	return m.ptr;
}

/* One walk: how it is done, and what it has found so far. */
struct walk {
	struct vcpu *v;
	const struct guest_mmu *m;
	u64 linear;
	u8 access, cpl;
	u8 levels;  /* 0: no paging; 2: 32-bit; 3: PAE; 4 and 5 */
	u64 rights; /* W and U, if all entries have them */
	u64 nx;	    /* PTE_NX, if any entry has it */
	u64 lacks;  /* PTE_A and PTE_D that the CPU would have set */
	bool marks; /* set them */
	struct walk_fault *fault;
};

static u8 paging_levels(const struct guest_mmu *m)
{
	if (!(m->cr0 & X86_CR0_PG))
		return 0;
	if (m->efer & EFER_LMA)
		return m->cr4 & X86_CR4_LA57 ? 5 : 4;
	return m->cr4 & X86_CR4_PAE ? 3 : 2;
}

static bool is_canonical(u64 linear, u8 levels)
{
	u32 unused = levels == 5 ? 64 - 57 : 64 - 48;

	return (u64)((s64)(linear << unused) >> unused) == linear;
}

/* SDM "Page-Fault Exceptions": I/D only tells fetches apart where something can forbid them. */
static int page_fault(const struct walk *w, u64 error)
{
	bool tells_fetch = (w->levels > 2 && w->m->efer & EFER_NXE) || w->m->cr4 & X86_CR4_SMEP;

	if (w->access & ACCESS_W)
		error |= PF_W;
	if (w->cpl == 3)
		error |= PF_U;
	if (w->access & ACCESS_X && tells_fetch)
		error |= PF_ID;
	*w->fault = (struct walk_fault){ .gva = w->linear, .error = (u32)error };
	return -EFAULT;
}

static int stage2_fault(const struct walk *w, u64 gpa, u8 kind, u8 access)
{
	*w->fault = (struct walk_fault){ .stage2 = true,
					 .gpa = GPA(gpa),
					 .kind = kind,
					 .access = access,
					 .walk = true,
					 .gva = w->linear };
	return -EFAULT;
}

/* A mask of bits hi..lo, empty if there are none. */
static u64 bits(u32 hi, u32 lo)
{
	return lo > hi ? 0 : MASK(hi, lo);
}

/* SDM "32-Bit Paging", PSE-36: bits 20:13 of a 4 MiB entry are address bits 39:32, as far as the
 * CPU has them. */
static u64 reserved_32bit(u8 level, u32 phys_bits)
{
	if (level == 1)
		return 0;
	return BIT(21) | (phys_bits < 40 ? bits(20, MAX(phys_bits, 32u) - 19) : 0);
}

/* SDM "PDPTE Registers" */
static u64 pdpte_reserved(const struct vcpu *v)
{
	return bits(63, v->vm->cpuid->phys_bits) | MASK(8, 5) | MASK(2, 1);
}

int guest_read_pdptes(struct vcpu *v, u64 cr3, u64 pdptes[4])
{
	int err = guest_read(v->vm, GPA(cr3 & MASK(31, 5)), pdptes, 4 * sizeof(*pdptes));

	if (err)
		return err == -EAGAIN ? err : -EINVAL;
	for (u32 i = 0; i < 4; i++)
		if (pdptes[i] & PTE_P && pdptes[i] & pdpte_reserved(v))
			return -EINVAL;
	return 0;
}

/* Bits that must be 0 in a present entry (SDM "Reserved-Bit Checking" of each paging mode). */
static u64 reserved_bits(const struct walk *w, u8 level, bool leaf)
{
	const struct cpuid_policy *cpuid = w->v->vm->cpuid;
	u64 mask = w->m->efer & EFER_NXE ? 0 : PTE_NX;

	if (w->levels == 2)
		return leaf ? reserved_32bit(level, cpuid->phys_bits) : 0;
	if (w->levels == 3 && level == 3) /* QEMU's SVM sets "accessed" here, too */
		return pdpte_reserved(w->v) & ~PTE_A;
	mask |= bits(w->levels == 3 ? 62 : 51, cpuid->phys_bits);
	if (level >= 4 || (level == 3 && !cpuid->has_gib_pages))
		mask |= PTE_PS;
	else if (leaf && level > 1)
		mask |= bits(12 + 9 * (level - 1) - 1, 13);
	return mask;
}

static bool is_leaf(const struct walk *w, u8 level, u64 entry)
{
	if (level == 1)
		return true;
	if (w->levels == 2)
		return entry & PTE_PS && w->m->cr4 & X86_CR4_PSE;
	return entry & PTE_PS && level < w->levels && level <= 3;
}

static int read_entry(struct walk *w, u64 gpa, u64 *entry)
{
	u8 kind = MEMORY_OK;
	const void *p = entry_ptr(w->v, gpa, &kind);

	if (!p)
		return stage2_fault(w, gpa, kind, ACCESS_R);
	*entry = w->levels == 2 ? READ_ONCE(*(const u32 *)p) : READ_ONCE(*(const u64 *)p);
	return 0;
}

/*
 * As the CPU does it: in one piece, and only if the entry is still what was read. -EAGAIN: it is
 * not; -EFAULT: it can't be written.
 */
static NOINLINE int mark_entry(struct walk *w, u64 gpa, u64 entry, u64 marked)
{
	const struct memslot *s = vm_slot(w->v->vm, GPA(gpa));
	struct slot_memory m = { .kind = MEMORY_NO_MEMORY };
	u32 entry32 = (u32)entry;
	bool same;

	if (s)
		slot_memory(s, gpa, ACCESS_W, &m);
	if (!m.ptr)
		return stage2_fault(w, gpa, m.kind, ACCESS_W);
	if (w->levels == 2)
		same = __atomic_compare_exchange_n((u32 *)m.ptr, &entry32, (u32)marked, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	else
		same = __atomic_compare_exchange_n((u64 *)m.ptr, &entry, marked, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	if (!same)
		return -EAGAIN;
	slot_dirty(s, gpa, 1);
	return 0;
}

/* Physical address of a leaf's page. */
static u64 leaf_base(const struct walk *w, u64 entry, u32 shift)
{
	if (w->levels == 2 && shift == 22)
		return (entry & MASK(31, 22)) | (entry & MASK(20, 13)) << (32 - 13);
	return entry & PTE_ADDR & ~(BIT(shift) - 1);
}

/* SDM "Determination of Access Rights". EFLAGS.AC opens user pages to explicit accesses only: those
 * of the current CPL. */
static bool allowed(const struct walk *w)
{
	bool user_page = w->rights & PTE_U, writable = w->rights & PTE_W;
	bool data = w->access & (ACCESS_R | ACCESS_W);
	bool ac = w->v->rflags & X86_EFLAGS_AC && w->m->cpl < 3;

	if (w->access & ACCESS_X && w->nx)
		return false;
	if (w->cpl == 3)
		return user_page && (writable || !(w->access & ACCESS_W));
	if (w->access & ACCESS_W && !writable && w->m->cr0 & X86_CR0_WP)
		return false;
	if (!user_page)
		return true;
	if (w->access & ACCESS_X && w->m->cr4 & X86_CR4_SMEP)
		return false;
	return !data || ac || !(w->m->cr4 & X86_CR4_SMAP);
}

/* 0, -EFAULT with the fault, or -EAGAIN from mark_entry(). */
static int descend(struct walk *w, gpa_t *gpa)
{
	u32 step = w->levels == 2 ? 10 : 9, size = w->levels == 2 ? 4 : 8;
	u64 table = w->m->cr3 & (w->levels == 3 ? MASK(31, 5) : PTE_ADDR), entry;

	w->rights = PTE_W | PTE_U;
	w->nx = w->lacks = 0;
	for (u8 level = w->levels;; level--) {
		u32 shift = PAGE_SHIFT + step * (level - 1u);
		u64 at = table + (w->linear >> shift & (BIT(step) - 1)) * size, lacks = 0;
		bool leaf;
		int err;

		if (read_entry(w, at, &entry))
			return -EFAULT;
		if (!(entry & PTE_P))
			return page_fault(w, 0);
		leaf = is_leaf(w, level, entry);
		if (entry & reserved_bits(w, level, leaf))
			return page_fault(w, PF_P | PF_RSVD);
		if (w->levels != 3 || level != 3) { /* a PDPTE of PAE paging has none of these */
			w->rights &= entry;
			w->nx |= entry & PTE_NX;
			lacks = ~entry & (leaf && w->access & ACCESS_W ? PTE_A | PTE_D : PTE_A);
			w->lacks |= lacks;
		}
		if (leaf && !allowed(w))
			return page_fault(w, PF_P);
		if (w->marks && lacks) {
			err = mark_entry(w, at, entry, entry | lacks);
			if (err)
				return err;
		}
		if (leaf) {
			gpa->v = leaf_base(w, entry, shift) | (w->linear & (BIT(shift) - 1));
			return 0;
		}
		table = entry & PTE_ADDR;
	}
}

int guest_walk_mmu(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 access, u8 cpl,
		   gpa_t *gpa, struct walk_fault *fault)
{
	struct walk w = { .v = v,
			  .m = m,
			  .linear = linear,
			  .access = access,
			  .cpl = cpl,
			  .levels = paging_levels(m),
			  .fault = fault };
	int err;

	if (w.levels < 4) {
		w.linear = (u32)linear;
	} else if (!is_canonical(linear, w.levels)) {
		*fault = (struct walk_fault){ .noncanonical = true, .gva = linear };
		return -EFAULT;
	}
	if (!w.levels) {
		*gpa = GPA(w.linear);
		return 0;
	}
	/* First without marks. Who changes his tables without end gets an access without them. */
	for (u32 tries = 0; tries <= MARK_TRIES; tries++) {
		err = descend(&w, gpa);
		if (err != -EAGAIN && (err || w.marks || !w.lacks || access & WALK_QUIET))
			return err;
		w.marks = true;
	}
	return 0;
}

int guest_walk(struct vcpu *v, u64 linear, u8 access, u8 cpl, gpa_t *gpa, struct walk_fault *fault)
{
	struct guest_mmu m;

	guest_mmu_read(v, &m);
	return guest_walk_mmu(v, &m, linear, access, cpl, gpa, fault);
}
