/* SPDX-License-Identifier: MIT */
/* Slots, guest physical memory, and page walks against a model written straight from the manual's
 * pictures. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

static struct vm *const vm = &fake_vm;
static struct vcpu *const v = &fake_vcpu.v;

/* --- slots --- */

static void slot_arguments(void **state)
{
	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0, 0), -EINVAL);
	assert_int_equal(vm_add_memory(vm, GPA(1), 0x1000, 0), -EINVAL);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0x1001, 0), -EINVAL);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0x1000, 0x20), -EINVAL);
	assert_int_equal(vm_add_memory(vm, GPA(BIT(40)), 0x1000, 0), -ERANGE);
	assert_int_equal(vm_add_memory(vm, GPA(BIT(40) - 0x1000), 0x2000, 0), -ERANGE);
	assert_int_equal(vm_add_memory(vm, GPA(BIT(40) - 0x1000), 0x1000, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(0x3000), 0x2000, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(0x4000), 0x2000, 0), -EEXIST);
	assert_int_equal(vm_add_memory(vm, GPA(0x2000), 0x2000, 0), -EEXIST);
	assert_int_equal(vm_add_memory(vm, GPA(0x1000), 0x9000, 0), -EEXIST);
	assert_int_equal(vm_add_memory(vm, GPA(0x2000), 0x1000, 0), 0);
	assert_int_equal(vm->slots->nr, 3);
	assert_ptr_equal(vm_slot(vm, GPA(0x2fff)), &vm->slots->slot[0]);
	assert_ptr_equal(vm_slot(vm, GPA(0x4fff)), &vm->slots->slot[1]);
	assert_null(vm_slot(vm, GPA(0x5000)));
	assert_null(vm_slot(vm, GPA(0x1fff)));
	assert_null(vm_slot(vm, GPA(~0ull)));
	vm_free_memory(vm);
	assert_null(vm_slot(vm, GPA(0x2fff)));
}

/* With every amount of memory from too little to enough: all or nothing, and all comes back. */
static void slots_unwind(void **state)
{
	bool good = false;

	(void)state;
	for (u64 extents = 2; !good && extents < 40; extents++) {
		u64 before;
		int err;

		fake_vm_open(extents * EXTENT_SIZE);
		before = frames_of_vm(vm->id);
		err = vm_add_memory(vm, GPA(MIB), 24 * MIB, 0);
		good = !err;
		assert_true(good || err == -ENOMEM);
		assert_int_equal(vm->slots->nr, good);
		if (!good)
			assert_int_equal(frames_of_vm(vm->id), before);
		vm_free_memory(vm);
		assert_int_equal(frames_of_vm(vm->id), before);
	}
	assert_true(good);
}

static void too_many_slots(void **state)
{
	(void)state;
	fake_vm_open(2 * GIB);
	for (u32 i = 0; i < VM_MAX_SLOTS; i++) /* highest first: each is inserted at the front */
		assert_int_equal(vm_add_memory(vm, GPA((600 - i) * 0x2000ull), 0x1000, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0x1000, 0), -ENOSPC);
	for (u32 i = 0; i < VM_MAX_SLOTS; i++)
		assert_non_null(vm_slot(vm, GPA((600 - i) * 0x2000ull)));
	vm_free_memory(vm);
	assert_int_equal(vm_add_memory(vm, GPA(0), 600 * GIB, 0), -ENOSPC);
}

static struct guest_frame frame_at(u64 gpa)
{
	struct guest_frame f;

	assert_int_equal(guest_frame(vm, GPA(gpa), ACCESS_R, &f), MEMORY_OK);
	return f;
}

static void frames_behind(void **state)
{
	struct guest_frame f, g;

	(void)state;
	fake_vm_open(5 * GIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0x90000, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(0x90000), 0x10000, SLOT_READONLY | SLOT_NOEXEC), 0);
	assert_int_equal(vm_add_memory(vm, GPA(MIB), 2 * GIB + 3 * MIB, 0), 0);
	f = frame_at(0x1fff);
	assert_int_equal(f.level, 1);
	assert_int_equal(f.prot, S2_RWX);
	g = frame_at(0x90000);
	assert_int_equal(g.prot, S2_R);
	assert_int_equal(g.level, 1);
	assert_int_not_equal(f.pfn.v / EXTENT_FRAMES, g.pfn.v / EXTENT_FRAMES);
	assert_int_equal(guest_frame(vm, GPA(0x90000), ACCESS_W, &f), MEMORY_READONLY);
	assert_int_equal(guest_frame(vm, GPA(0x90000), ACCESS_X, &f), MEMORY_NOEXEC);
	assert_int_equal(guest_frame(vm, GPA(0xa0000), ACCESS_R, &f), MEMORY_NO_MEMORY);
	assert_int_equal(frame_at(MIB).level, 1);
	f = frame_at(2 * MIB);
	assert_int_equal(f.level, 2);
	assert_int_equal(f.pfn.v % EXTENT_FRAMES, 0);
	/* The one aligned GiB that the slot covers wholly is contiguous and aligned. */
	f = frame_at(GIB);
	assert_int_equal(f.pfn.v % (GIB / PAGE_SIZE), 0);
	g = frame_at(2 * GIB - 0x1000);
	assert_int_equal(g.pfn.v, f.pfn.v + GIB / PAGE_SIZE - 1);
	assert_int_equal(frame_owner(g.pfn).kind, FRAME_GUEST);
	assert_int_equal(frame_owner(g.pfn).vm, vm->id);
	/* One leaf of 1 GiB, when the last of it is clean. */
	for (u64 gpa = 2 * GIB - 4 * MIB; gpa > GIB; gpa -= 2 * MIB)
		assert_int_equal(frame_at(gpa).level, gpa == GIB + 2 * MIB ? 3 : 2);
	assert_int_equal(guest_frame(vm, GPA(3 * GIB - 1), ACCESS_R, &f), MEMORY_NO_MEMORY);
	vm_free_memory(vm);
	assert_int_equal(frame_owner(g.pfn).kind, FRAME_FREE);
}

/* Of a corrupt VM nobody gets a frame, also if the damage is found half way. */
static void corrupt_keeps_memory(void **state)
{
	u64 frames_before, left;
	u32 steps = 0;

	(void)state;
	for (u32 found_after = 0; found_after < 2; found_after++) {
		fake_vm_open(5 * GIB);
		frames_before = frames_of_vm(vm->id);
		assert_int_equal(vm_add_memory(vm, GPA(0), 3 * GIB, 0), 0);
		assert_int_equal(vm_add_memory(vm, GPA(4 * GIB), 2 * MIB, 0), 0);
		for (u32 i = 0; i < found_after; i++)
			assert_true(vm_free_memory_step(vm));
		vm->stage2.corruptions = 1;
		left = frames_quarantine(vm->id);
		assert_int_not_equal(left, 0);
		for (steps = 0; vm_free_memory_step(vm); steps++)
			;
		assert_in_range(steps, 1, 10);
		assert_int_equal(vm->slots->nr, 0);
		assert_in_range(frames_of_vm(vm->id), left, frames_before + left);
	}
}

/* --- guest physical memory --- */

static void copying(void **state)
{
	static u8 out[5 * MIB], in[5 * MIB];
	u64 seed = host_seed();

	(void)state;
	fake_vm_open(64 * MIB);
	memset(host_arena + 32 * MIB, 0xaa, 32 * MIB); /* what others left behind */
	for (u64 i = 0; i < sizeof(out); i++)
		out[i] = (u8)host_random(&seed);
	assert_int_equal(vm_add_memory(vm, GPA(MIB), 3 * MIB, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(4 * MIB), 3 * MIB, SLOT_NOEXEC), 0);
	assert_int_equal(vm_add_memory(vm, GPA(7 * MIB), MIB, SLOT_READONLY | SLOT_NOEXEC), 0);
	/* Cleared, whoever had it before. */
	assert_int_equal(guest_read(vm, GPA(MIB), in, sizeof(in)), 0);
	for (u64 i = 0; i < sizeof(in); i++)
		assert_int_equal(in[i], 0);
	assert_int_equal(guest_write(vm, GPA(MIB + 5), out, sizeof(out)), 0);
	assert_int_equal(guest_read(vm, GPA(MIB + 5), in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(guest_fill(vm, GPA(4 * MIB - 3), 0x11, 6), 0);
	assert_int_equal(guest_read(vm, GPA(4 * MIB - 4), in, 8), 0);
	assert_int_equal(in[0], out[3 * MIB - 4 - 5]);
	for (int i = 1; i < 7; i++)
		assert_int_equal(in[i], 0x11);
	assert_int_equal(in[7], out[3 * MIB + 3 - 5]);
	/* A bad end: nothing is written. */
	assert_int_equal(guest_write(vm, GPA(7 * MIB - 2), "abcd", 4), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(7 * MIB - 2), in, 2), 0);
	assert_int_equal(in[0] | in[1], 0);
	assert_int_equal(guest_fill(vm, GPA(7 * MIB), 1, 1), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(8 * MIB - 1), in, 2), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(MIB - 1), in, 2), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(~0ull), in, 2), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(2 * MIB), in, ~0ull), -EFAULT);
	assert_int_equal(guest_read(vm, GPA(0), in, 0), 0);
	/* And clear again, with nothing mapped. */
	assert_int_equal(stage2_map(&vm->stage2, GFN(512), PFN(512), 512, S2_RWX, S2_WB, 2), 0);
	vm_clear_memory(vm);
	assert_false(stage2_lookup(&vm->stage2, GFN(600), &(struct stage2_leaf){ 0 }));
	assert_int_equal(guest_read(vm, GPA(MIB), in, sizeof(in)), 0);
	for (u64 i = 0; i < sizeof(in); i++)
		assert_int_equal(in[i], 0);
	assert_int_equal(fake_bugs, 0);
}

#define TOUCHERS 4
static pthread_barrier_t barrier;

/* Each thread adds to its own bytes of each extent as soon as it can; a late clearing would lose
 * some. */
static void *toucher(void *arg)
{
	u64 me = (u64)(uintptr_t)arg;

	for (u64 i = 0; i < 16; i++) {
		u64 gpa = i * EXTENT_SIZE + 0x1000 + me * 8, value = 0;

		pthread_barrier_wait(&barrier);
		HOST_CHECK(!guest_read(vm, GPA(gpa), &value, 8));
		HOST_CHECK(value == 0);
		value = me + 1;
		HOST_CHECK(!guest_write(vm, GPA(gpa), &value, 8));
	}
	return NULL;
}

static void threads_touch(void **state)
{
	pthread_t threads[TOUCHERS];

	(void)state;
	host_hooks_open();
	pthread_barrier_init(&barrier, NULL, TOUCHERS);
	for (int round = 0; round < 5; round++) {
		fake_vm_open(64 * MIB);
		memset(host_arena + 16 * MIB, 0xaa, 48 * MIB);
		assert_int_equal(vm_add_memory(vm, GPA(0), 32 * MIB, 0), 0);
		for (u64 i = 0; i < TOUCHERS; i++)
			pthread_create(&threads[i], NULL, toucher, (void *)(uintptr_t)i);
		for (u64 i = 0; i < TOUCHERS; i++)
			pthread_join(threads[i], NULL);
		for (u64 i = 0; i < 16 * TOUCHERS; i++) {
			u64 value, me = i % TOUCHERS;

			assert_int_equal(
				guest_read(vm, GPA(i / TOUCHERS * EXTENT_SIZE + 0x1000 + me * 8),
					   &value, 8),
				0);
			assert_int_equal(value, me + 1);
		}
		assert_int_equal(host_failures, 0);
	}
}

static u8 *memory_of(const struct memslot *s, u32 part)
{
	return backing_memory(s->backing->words[part]);
}

/* What is cleared before a guest runs, and what is left for the first touch. */
static void cleared_ahead(void **state)
{
	const struct memslot *s;
	u64 value = 1;

	(void)state;
	fake_vm_open(320 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 264 * MIB, 0), 0);
	s = vm_slot(vm, GPA(0));
	memset(memory_of(s, 2), 0xaa, EXTENT_SIZE);
	memset(memory_of(s, 127), 0xaa, EXTENT_SIZE);
	assert_int_equal(guest_write(vm, GPA(5 * MIB), "loaded", 6), 0);
	vm_clear_ahead(vm);
	for (u32 i = 0; i < 132; i++)
		assert_int_equal(!!s->bias[i], i < 128);
	assert_int_equal(*(u64 *)memory_of(s, 127), 0);
	assert_memory_equal(memory_of(s, 2) + MIB, "loaded\0", 8);
	assert_int_equal(guest_read(vm, GPA(260 * MIB), &value, sizeof(value)), 0);
	assert_int_equal(value, 0);
	assert_int_equal(host_failures, 0);
}

/* --- the model of a walk --- */

struct mode {
	u64 cr0, cr3, cr4, efer, rflags;
	bool code64;
	u8 cpl; /* of the CPU */
};

enum verdict { WALK_OK, WALK_PF, WALK_STAGE2, WALK_NONCANONICAL };
struct result {
	enum verdict verdict;
	u64 gpa;
	u32 error;
};

#define NO_MEMORY (~0ull)

/* The entries of the last walk: what a CPU that gets through sets in them, A and D. */
static struct {
	u64 at, before, bits;
} marked[5];
static u32 nr_marked;

static void note_entry(u64 at, u64 entry, bool dirty)
{
	marked[nr_marked].at = at;
	marked[nr_marked].before = entry;
	marked[nr_marked++].bits = dirty ? 0x60 : 0x20;
}

static bool mem(u64 gpa, u64 *value, u32 size)
{
	*value = 0;
	return gpa + size <= 16 * MIB && !guest_read(vm, GPA(gpa), value, size);
}

static struct result ok_if(const struct mode *m, u64 gpa, bool user, bool write, bool nx, u8 access,
			   u8 cpl, u32 error)
{
	bool fault;

	if (cpl == 3)
		fault = !user || (access == ACCESS_W && !write) || (access == ACCESS_X && nx);
	else if (access == ACCESS_X)
		fault = nx || (user && m->cr4 & X86_CR4_SMEP);
	else
		fault = (access == ACCESS_W && !write && m->cr0 & X86_CR0_WP) ||
			(user && m->cr4 & X86_CR4_SMAP &&
			 !(m->rflags & X86_EFLAGS_AC && m->cpl != 3));
	return fault ? (struct result){ WALK_PF, 0, error | 1 }
		     : (struct result){ WALK_OK, gpa, 0 };
}

static struct result model_32(const struct mode *m, u32 linear, u8 access, u8 cpl, u32 error)
{
	u64 pde_at = (m->cr3 & 0xfffff000) + (linear >> 22) * 4, pde, pte_at, pte;

	if (!mem(pde_at, &pde, 4))
		return (struct result){ WALK_STAGE2, pde_at, 0 };
	if (!(pde & 1))
		return (struct result){ WALK_PF, 0, error };
	note_entry(pde_at, pde, access == ACCESS_W && m->cr4 & X86_CR4_PSE && pde & 0x80);
	if (m->cr4 & X86_CR4_PSE && pde & 0x80) {
		u64 phys = 1ull << fake_policy.phys_bits;
		u64 gpa = (pde & 0xffc00000) | (pde >> 13 & 0xff) << 32 | (linear & 0x3fffff);

		if (pde & 0x200000 || gpa >= phys)
			return (struct result){ WALK_PF, 0, error | 9 };
		return ok_if(m, gpa, pde & 4, pde & 2, false, access, cpl, error);
	}
	pte_at = (pde & 0xfffff000) + (linear >> 12 & 0x3ff) * 4;
	if (!mem(pte_at, &pte, 4))
		return (struct result){ WALK_STAGE2, pte_at, 0 };
	if (!(pte & 1))
		return (struct result){ WALK_PF, 0, error };
	note_entry(pte_at, pte, access == ACCESS_W);
	return ok_if(m, (pte & 0xfffff000) | (linear & 0xfff), pde & pte & 4, pde & pte & 2, false,
		     access, cpl, error);
}

/* PAE from its second level on, and long mode: tables of 8-byte entries; top is the level to start
 * with. */
static struct result model_wide(const struct mode *m, u64 table, u32 top, u64 linear, u8 access,
				u8 cpl, u32 error, bool pae)
{
	bool user = true, write = true, nx = false;

	for (u32 level = top; level; level--) {
		u64 unit = 1ull << (12 + 9 * (level - 1)), entry;
		u64 at = table + linear / unit % 512 * 8;
		u64 address, rsvd = 0;
		bool large;

		if (!mem(at, &entry, 8))
			return (struct result){ WALK_STAGE2, at, 0 };
		if (!(entry & 1))
			return (struct result){ WALK_PF, 0, error };
		address = entry & 0x000ffffffffff000;
		rsvd |= address >> fake_policy.phys_bits;
		if (pae)
			rsvd |= entry >> 52 & 0x7ff;
		if (!(m->efer & EFER_NXE))
			rsvd |= entry >> 63;
		large = level > 1 && entry & 0x80;
		if (large && (level > 3 || (level == 3 && !fake_policy.has_gib_pages)))
			rsvd = 1;
		if (large)
			rsvd |= address & (unit - 1) & ~0x1000ull; /* bit 12 is PAT */
		if (rsvd)
			return (struct result){ WALK_PF, 0, error | 9 };
		user = user && entry & 4;
		write = write && entry & 2;
		nx = nx || entry >> 63;
		note_entry(at, entry, access == ACCESS_W && (large || level == 1));
		if (large || level == 1)
			return ok_if(m, (address & ~(unit - 1)) | linear % unit, user, write, nx,
				     access, cpl, error);
		table = address;
	}
	return (struct result){ WALK_OK, 0, 0 };
}

static struct result model(const struct mode *m, u64 linear, u8 access, u8 cpl)
{
	bool paging = m->cr0 & X86_CR0_PG, pae = m->cr4 & X86_CR4_PAE, lma = m->efer & EFER_LMA;
	bool la57 = m->cr4 & X86_CR4_LA57;
	u32 error = (access == ACCESS_W ? 2 : 0) | (cpl == 3 ? 4 : 0);
	u64 pdpte, at;

	nr_marked = 0;
	if (access == ACCESS_X && (m->cr4 & X86_CR4_SMEP || (pae && m->efer & EFER_NXE)))
		error |= 16;
	if (!paging)
		return (struct result){ WALK_OK, (u32)linear, 0 };
	if (lma) {
		u64 top = linear >> (la57 ? 56 : 47);

		if (top && top != (la57 ? 0xff : 0x1ffff))
			return (struct result){ WALK_NONCANONICAL, 0, 0 };
		return model_wide(m, m->cr3 & 0x000ffffffffff000, la57 ? 5 : 4, linear, access, cpl,
				  error, false);
	}
	linear = (u32)linear;
	if (!pae)
		return model_32(m, (u32)linear, access, cpl, error);
	at = (m->cr3 & 0xffffffe0) + (linear >> 30) * 8;
	if (!mem(at, &pdpte, 8))
		return (struct result){ WALK_STAGE2, at, 0 };
	if (!(pdpte & 1))
		return (struct result){ WALK_PF, 0, error };
	/* bit 5 is reserved, but QEMU's SVM sets it */
	if (pdpte & 0x1c6 || pdpte >> fake_policy.phys_bits)
		return (struct result){ WALK_PF, 0, error | 9 };
	return model_wide(m, pdpte & 0x000ffffffffff000, 2, linear, access, cpl, error, true);
}

static void enter_mode(const struct mode *m)
{
	fake_vcpu.reg[VR_CR0] = m->cr0;
	fake_vcpu.reg[VR_CR3] = m->cr3;
	fake_vcpu.reg[VR_CR4] = m->cr4;
	fake_vcpu.reg[VR_EFER] = m->efer;
	v->rflags = m->rflags;
	fake_vcpu.seg[SEG_CS].attr = m->code64 ? SEG_ATTR_L : SEG_ATTR_DB;
	fake_vcpu.seg[SEG_SS].attr = (u16)(m->cpl << SEG_ATTR_DPL_SHIFT);
}

/* Whoever is not let through, or only looks, leaves no mark. */
static void compare_marks(const struct mode *m, bool sets)
{
	u32 size = m->cr4 & X86_CR4_PAE ? 8 : 4;

	for (u32 i = 0; i < nr_marked; i++) {
		u64 want = marked[i].before, entry;

		for (u32 k = 0; sets && k < nr_marked; k++) /* one may serve two levels */
			want |= marked[k].at == marked[i].at ? marked[k].bits : 0;
		assert_true(mem(marked[i].at, &entry, size));
		assert_int_equal(entry, want);
	}
}

static void compare(const struct mode *m, u64 linear, u8 access, u8 cpl)
{
	struct result want = model(m, linear, access, cpl);
	struct walk_fault fault = { 0 };
	gpa_t gpa = GPA(0);
	int err = guest_walk(v, linear, access | WALK_QUIET, cpl, &gpa, &fault);

	assert_int_equal(err, want.verdict == WALK_OK ? 0 : -EFAULT);
	compare_marks(m, false);
	assert_int_equal(guest_walk(v, linear, access, cpl, &gpa, &fault), err);
	compare_marks(m, !err);

	assert_int_equal(err, want.verdict == WALK_OK ? 0 : -EFAULT);
	if (!err) {
		assert_int_equal(gpa.v, want.gpa);
		return;
	}
	assert_int_equal(fault.noncanonical, want.verdict == WALK_NONCANONICAL);
	assert_int_equal(fault.stage2, want.verdict == WALK_STAGE2);
	if (fault.stage2)
		assert_int_equal(fault.gpa.v, want.gpa);
	else if (!fault.noncanonical)
		assert_int_equal(fault.error, want.error);
	assert_int_equal(fault.gva, m->efer & EFER_LMA ? linear : (u32)linear);
}

static struct mode random_mode(u64 *seed)
{
	struct mode m = { .cr0 = X86_CR0_PE, .cr4 = 0 };
	u64 r = host_random(seed);

	m.cr0 |= r & 0x1f ? X86_CR0_PG : 0;
	m.cr0 |= r & 0x20 ? X86_CR0_WP : 0;
	m.cr4 |= r & 0x40 ? X86_CR4_SMEP : 0;
	m.cr4 |= r & 0x80 ? X86_CR4_SMAP : 0;
	m.cr4 |= r & 0x100 ? X86_CR4_PSE : 0;
	m.rflags = r & 0x200 ? X86_EFLAGS_AC : 0;
	m.efer = r & 0x400 ? EFER_NXE : 0;
	m.cpl = r & 0x800 ? 3 : r >> 12 & 3;
	switch (r >> 16 & 7) {
	case 0:
		break; /* 32-bit */
	case 1:
	case 2:
		m.cr4 |= X86_CR4_PAE;
		break;
	case 3:
		m.cr4 |= X86_CR4_LA57;
		FALLTHROUGH;
	default:
		m.cr4 |= X86_CR4_PAE;
		m.efer |= m.cr0 & X86_CR0_PG ? EFER_LMA | EFER_LME : 0;
		m.code64 = r & 0x80000;
	}
	return m;
}

/* An entry that is mostly good: points to `to`, most rights, now and then one odd bit anywhere. */
static u64 random_entry(u64 *seed, u64 to, u32 level)
{
	u64 r = host_random(seed), e = to | 1;

	e |= r & 7 ? 2 : 0;
	e |= r & 0x38 ? 4 : 0;
	e |= r & 0xc0 ? 0 : BIT(63);
	e |= level > 1 && !(r & 0x700) ? 0x80 : 0;
	e |= r >> 17 & 0x60;
	if (!(r & 0x7800))
		e ^= BIT(host_random(seed) % 64);
	if (!(r & 0x78000))
		e = (e & 0xfff0000000000fff) | (to & ~(BIT(12 + 9 * (level - 1)) - 1));
	return e;
}

#define TABLES 0x100000ull

static void store(u64 gpa, u64 value, u32 size)
{
	assert_int_equal(guest_write(vm, GPA(gpa), &value, size), 0);
}

/* A path of tables for one address, in the shape that the mode asks for. */
static void build_path(struct mode *m, u64 linear, u64 *seed)
{
	bool wide = m->cr4 & X86_CR4_PAE;
	u32 levels = m->efer & EFER_LMA ? (m->cr4 & X86_CR4_LA57 ? 5 : 4) : wide ? 3 : 2;

	m->cr3 = TABLES;
	for (u32 level = levels; level; level--) {
		u64 table = TABLES + (levels - level) * 0x1000;
		u64 to = level > 1 ? table + 0x1000 : 0x800000 + host_random(seed) % 64 * 0x1000;
		u64 entry = random_entry(seed, to, level);
		u32 shift = wide ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);

		if (levels == 3 && level == 3) {
			entry &= host_random(seed) & 7 ? ~0x1e6ull & ~BIT(63) : ~0ull;
			store(table + ((u32)linear >> 30) * 8, entry, 8);
		} else if (wide) {
			store(table + (linear >> shift) % 512 * 8, entry, 8);
		} else {
			store(table + ((u32)linear >> shift) % 1024 * 4, entry, 4);
		}
	}
}

/* Does the fast way, where its caller may use it, find these bytes? Mask 0: does it find any? */
static bool confirms(u32 bytes, u32 mask)
{
	const struct insn_pattern insn = { bytes & mask, mask, 9 };
	u64 efer = virt_ops->get_reg(v, VR_EFER), cr4 = virt_ops->get_reg(v, VR_CR4);
	struct segment cs;

	virt_ops->get_seg(v, SEG_CS, &cs);
	if (!(efer & EFER_LMA) || !(cs.attr & SEG_ATTR_L) || cr4 & X86_CR4_LA57)
		return false;
	v->exit.insn_len = 0;
	guest_confirm_insn(v, virt_ops->get_reg(v, VR_CR3), &insn);
	assert_true(v->exit.insn_len == 0 || v->exit.insn_len == insn.len);
	return v->exit.insn_len;
}
/* What the fast way says must be what a walk without rights says. */
static void compare_fetch(const struct mode *m, u64 linear, u64 *seed)
{
	struct walk_fault fault;
	u8 bytes[15];
	u32 first;
	int n;

	v->rip = linear;
	n = guest_fetch(v, bytes, &fault);
	if (!confirms(0, 0))
		return;
	assert_true(m->code64 && m->efer & EFER_LMA && linear % 4096 <= 4092);
	memcpy(&first, bytes, sizeof(first));
	if (n >= 4)
		assert_true(confirms(first, ~0u) && confirms(first, 0xffff) &&
			    !confirms(first ^ 1u << host_random(seed) % 32, ~0u));
	else /* refused by rights, reserved bits or canonical form, which the fast way leaves to the
		CPU */
		assert_true(n == -EFAULT && !fault.stage2 &&
			    (fault.noncanonical || fault.error & 1));
}

static void random_walks(void **state)
{
	static const u8 accesses[] = { ACCESS_R, ACCESS_W, ACCESS_X };
	u64 seed = host_seed();
	u32 verdicts[4] = { 0 };

	(void)state;
	for (int round = 0; round < 200000; round++) {
		struct mode m = random_mode(&seed);
		u64 linear = host_random(&seed);

		fake_use_get_mmu(round & 1);
		fake_policy.phys_bits = 36 + round % 5;
		fake_policy.has_gib_pages = round & 32;
		if (host_random(&seed) % 16) /* canonical in both widths */
			linear = (u64)((s64)(linear << 16) >> 16);
		build_path(&m, linear, &seed);
		enter_mode(&m);
		for (int i = 0; i < 3; i++) {
			verdicts[model(&m, linear, accesses[i], m.cpl).verdict]++;
			compare(&m, linear, accesses[i], m.cpl);
			compare(&m, linear, accesses[i], 0); /* implicit supervisor access */
		}
		compare_fetch(&m, linear, &seed);
	}
	for (int i = 0; i < 4; i++)
		assert_true(verdicts[i] > 1000); /* the test tests something */
}

static int open_walks(void **state)
{
	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 0x90000, 0), 0);
	assert_int_equal(vm_add_memory(vm, GPA(MIB), 15 * MIB, 0), 0);
	for (u64 gpa = 0x800000; gpa < 0x840000; gpa += 8)
		store(gpa, gpa * 0x9e3779b97f4a7c15ull, 8);
	fake_use_get_mmu(true);
	return 0;
}

/* Every combination of rights at both ends, all controls, all accesses: 4-level. */
static void all_rights(void **state)
{
	(void)state;
	for (u32 bits = 0; bits < BIT(13); bits++) {
		struct mode m = { .cr0 = X86_CR0_PE | X86_CR0_PG,
				  .cr4 = X86_CR4_PAE,
				  .efer = EFER_LMA | EFER_NXE,
				  .cr3 = TABLES };
		u64 upper = 1 | (bits & 3) << 1 | (bits & 4 ? BIT(63) : 0);
		u64 lower = 1 | (bits >> 3 & 3) << 1 | (bits & 32 ? BIT(63) : 0);

		m.cr0 |= bits & 64 ? X86_CR0_WP : 0;
		m.cr4 |= bits & 128 ? X86_CR4_SMEP : 0;
		m.cr4 |= bits & 256 ? X86_CR4_SMAP : 0;
		m.rflags = bits & 512 ? X86_EFLAGS_AC : 0;
		m.cpl = bits & 1024 ? 3 : 0;
		store(TABLES, (TABLES + 0x1000) | upper, 8);
		store(TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
		store(TABLES + 0x2000, (TABLES + 0x3000) | 7, 8);
		store(TABLES + 0x3000, 0x800000 | lower, 8);
		enter_mode(&m);
		compare(&m, 0x123, (u8)(1 << (bits >> 11) % 3), m.cpl);
		compare(&m, 0x123, ACCESS_X, m.cpl);
		compare(&m, 0x123, (u8)(1 << (bits >> 11) % 3), 0);
	}
}

/* 4-level tables with 4 KiB pages: linear 0x0.. -> 0x800000.., and nothing from 0x2000 on. */
static void simple_tables(struct mode *m)
{
	*m = (struct mode){ .cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP,
			    .cr4 = X86_CR4_PAE,
			    .efer = EFER_LMA,
			    .cr3 = TABLES,
			    .code64 = true };
	for (int i = 0; i < 3; i++) {
		guest_fill(vm, GPA(TABLES + 0x1000 * i), 0, 0x1000) ? abort() : (void)0;
		store(TABLES + 0x1000 * i, (TABLES + 0x1000 * (i + 1)) | 7, 8);
	}
	guest_fill(vm, GPA(TABLES + 0x3000), 0, 0x1000) ? abort() : (void)0;
	store(TABLES + 0x3000, 0x800000 | 7, 8);
	store(TABLES + 0x3008, 0x810000 | 7, 8);
}

static void linear_copies(void **state)
{
	struct walk_fault fault;
	struct mode m;
	u8 buf[16], was[16];

	(void)state;
	simple_tables(&m);
	enter_mode(&m);
	/* Two pages that are not neighbours in guest physical memory. */
	assert_int_equal(guest_write_linear(v, 0xffc, "abcdefgh", 8, &fault), 0);
	assert_int_equal(guest_read(vm, GPA(0x800ffc), buf, 4), 0);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(guest_read(vm, GPA(0x810000), buf, 4), 0);
	assert_memory_equal(buf, "efgh", 4);
	assert_int_equal(guest_read_linear(v, 0xffc, buf, 8, &fault), 0);
	assert_memory_equal(buf, "abcdefgh", 8);
	/* The second page is missing: CR2 is its start, and the first is unchanged. */
	assert_int_equal(guest_read(vm, GPA(0x810ff8), was, 8), 0);
	assert_int_equal(guest_write_linear(v, 0x1ffc, "ABCDEFGH", 8, &fault), -EFAULT);
	assert_false(fault.stage2 || fault.noncanonical);
	assert_int_equal(fault.error, 2);
	assert_int_equal(fault.gva, 0x2000);
	assert_int_equal(guest_read(vm, GPA(0x810ff8), buf, 8), 0);
	assert_memory_equal(buf, was, 8);
	assert_int_equal(guest_read_linear(v, 0x1ffc, buf, 8, &fault), -EFAULT);
	assert_int_equal(fault.gva, 0x2000);
	assert_int_equal(fault.error, 0);
	/* The second page has no memory behind it: a device. */
	store(TABLES + 0x3010, 0xfee00000 | 7, 8);
	assert_int_equal(guest_write_linear(v, 0x1ffc, "ABCDEFGH", 8, &fault), -EFAULT);
	assert_true(fault.stage2);
	assert_int_equal(fault.gpa.v, 0xfee00000);
	assert_int_equal(guest_read(vm, GPA(0x810ff8), buf, 8), 0);
	assert_memory_equal(buf, was, 8);
	assert_int_equal(guest_read_linear(v, 0x7ffffffffffc, buf, 8, &fault), -EFAULT);
	assert_int_equal(guest_read_linear(v, 0x800000000000, buf, 8, &fault), -EFAULT);
	assert_true(fault.noncanonical);
}

#define PTE (TABLES + 0x3000)

static int write_walk(struct walk_fault *fault)
{
	gpa_t gpa;

	return guest_walk(v, 0x123, ACCESS_W, 0, &gpa, fault);
}

/* Tables that can't be written: as they are they serve, but nothing can be set in them. */
static void marks_refused(void **state)
{
	struct walk_fault fault;
	struct mode m;
	u64 pte;

	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 16 * MIB, 0), 0);
	simple_tables(&m);
	for (u64 at = TABLES; at <= PTE; at += 0x1000)
		store(at, (at == PTE ? 0x800000 : at + 0x1000) | (at == PTE ? 0x67 : 0x27), 8);
	/* The last table once more, read-only, in a slot of its own. */
	assert_int_equal(vm_add_memory(vm, GPA(32 * MIB), 0x1000, 0), 0);
	store(32 * MIB, 0x800000 | 0x27, 8);
	store(TABLES + 0x2000, 32 * MIB | 0x27, 8);
	assert_int_equal(vm_slot_flags(vm, vm_slot(vm, GPA(32 * MIB))->id, SLOT_READONLY), 0);
	enter_mode(&m);
	assert_int_equal(write_walk(&fault), -EFAULT);
	assert_true(fault.stage2 && fault.walk && fault.kind == MEMORY_READONLY);
	assert_int_equal(fault.gpa.v, 32 * MIB);
	assert_true(fault.access == ACCESS_W && fault.gva == 0x123);
	assert_int_equal(guest_read(vm, GPA(32 * MIB), &pte, 8), 0);
	assert_int_equal(pte, 0x800000 | 0x27);
	store(TABLES + 0x2000, PTE | 0x27, 8);
	assert_int_equal(write_walk(&fault), 0);
}

static u64 *pte_in_host(void)
{
	struct guest_frame f;

	assert_int_equal(guest_frame(vm, GPA(PTE), ACCESS_W, &f), MEMORY_OK);
	return pfn_ptr(f.pfn);
}

static u64 marks_seen;

/* A kernel that unmaps and maps a page; what it takes away stays away, as it was or marked. */
static void *remapper(void *arg)
{
	u64 *pte = pte_in_host(), seed = host_seed();

	while (!__atomic_load_n((bool *)arg, __ATOMIC_SEQ_CST)) {
		u64 was = __atomic_exchange_n(pte, 0, __ATOMIC_SEQ_CST);

		HOST_CHECK(was == (0x800000 | 7) || was == (0x800000 | 0x67));
		for (u32 i = 0; i < 50; i++)
			HOST_CHECK(!__atomic_load_n(pte, __ATOMIC_SEQ_CST));
		__atomic_store_n(pte, 0x800000 | 7, __ATOMIC_SEQ_CST);
		for (u64 i = host_random(&seed) % 256; i; i--)
			marks_seen += __atomic_load_n(pte, __ATOMIC_SEQ_CST) >> 6 & 1;
	}
	return NULL;
}

static void marks_race(void **state)
{
	struct walk_fault fault;
	u32 through = 0, fell = 0;
	bool over = false;
	pthread_t thread;
	struct mode m;

	(void)state;
	simple_tables(&m);
	enter_mode(&m);
	assert_int_equal(pthread_create(&thread, NULL, remapper, &over), 0);
	for (u32 i = 0; i < 200000 || !through || !fell; i++) {
		bool good = !write_walk(&fault);

		through += good;
		fell += !good && !fault.stage2 && fault.error == 2;
	}
	__atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	assert_true(marks_seen);
	assert_int_equal(host_failures, 0);
}

static void fetching(void **state)
{
	struct walk_fault fault;
	struct mode m;
	u8 bytes[15], want[15];
	u32 first;

	(void)state;
	simple_tables(&m);
	enter_mode(&m);
	v->rip = 0x10;
	assert_int_equal(guest_fetch(v, bytes, &fault), 15);
	assert_int_equal(guest_read(vm, GPA(0x800010), want, 15), 0);
	assert_memory_equal(bytes, want, 15);
	memcpy(&first, want, sizeof(first));
	assert_true(confirms(first, ~0u));
	/* Across pages; then with the next one missing; then all missing. */
	v->rip = 0xffd;
	assert_int_equal(guest_fetch(v, bytes, &fault), 15);
	assert_int_equal(guest_read(vm, GPA(0x810000), want, 12), 0);
	assert_memory_equal(bytes + 3, want, 12);
	assert_false(confirms(0, 0));
	v->rip = 0x1ff8;
	assert_int_equal(guest_fetch(v, bytes, &fault), 8);
	assert_true(confirms(0, 0));
	v->rip = 0x2000;
	assert_int_equal(guest_fetch(v, bytes, &fault), -EFAULT);
	assert_int_equal(fault.gva, 0x2000);
	assert_false(confirms(0, 0));
	/* Self-modified code and a changed table are seen at once. */
	v->rip = 0;
	store(0x800000, 0x1122334455667788, 8);
	assert_true(confirms(0x55667788, ~0u));
	store(TABLES + 0x3000, 0x810000 | 7, 8);
	store(0x810000, 0xa20f, 8);
	assert_true(confirms(0xa20f, ~0u));
	assert_true(confirms(0xa20f, 0xffff));
	assert_false(confirms(0xa30f, 0xffff));
	/* Real mode: CS counts. */
	m = (struct mode){ 0 };
	enter_mode(&m);
	fake_vcpu.seg[SEG_CS].base = 0x8000;
	store(0x8123, 0xcafe, 8);
	v->rip = 0x123;
	assert_int_equal(guest_fetch(v, bytes, &fault), 15);
	assert_int_equal(bytes[0], 0xfe);
	assert_false(confirms(0, 0));
	/* The reset vector of a VM without ROM. */
	fake_vcpu.seg[SEG_CS].base = 0xffff0000;
	v->rip = 0xfff0;
	assert_int_equal(guest_fetch(v, bytes, &fault), -EFAULT);
	assert_true(fault.stage2);
	assert_int_equal(fault.gpa.v, 0xfffffff0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slot_arguments),
		cmocka_unit_test(slots_unwind),
		cmocka_unit_test(too_many_slots),
		cmocka_unit_test(frames_behind),
		cmocka_unit_test(corrupt_keeps_memory),
		cmocka_unit_test(copying),
		cmocka_unit_test(threads_touch),
		cmocka_unit_test(cleared_ahead),
		cmocka_unit_test_setup(random_walks, open_walks),
		cmocka_unit_test_setup(all_rights, open_walks),
		cmocka_unit_test_setup(linear_copies, open_walks),
		cmocka_unit_test_setup(marks_race, open_walks),
		cmocka_unit_test(marks_refused),
		cmocka_unit_test_setup(fetching, open_walks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
