/* SPDX-License-Identifier: MIT */
/* Memory of a VM that was forked: shared until written, by guests and by Corbel, and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "mm/audit.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define VMS   6
#define PAGES (4 * 512 + 100)
#define HIGH  (4 * GIB) /* a second slot, of 3 MiB */
#define FIRST 512	/* pages of the first one; the rest is in the second */

static struct vm more[VMS];
static struct vm *vms[VMS];
static u8 model[VMS][PAGES]; /* the first byte of each page, and the last */
static u8 last[VMS][PAGES];
static u64 seed;

static void frames_now(struct frame_stats *out)
{
	frames_stats(out);
}

static u64 gpa_of(u64 page)
{
	u64 low = PAGES - 768;

	return page < low ? page * PAGE_SIZE : HIGH + (page - low) * PAGE_SIZE;
}

/* As the exit handler maps it. */
static void map(struct vm *vm, u64 gpa, u8 access)
{
	struct guest_frame f;
	u64 mask;
	int err;

	assert_int_equal(guest_frame(vm, GPA(gpa), access, &f), MEMORY_OK);
	mask = s2_level_frames(f.level) - 1;
	err = stage2_map(&vm->stage2, GFN(gpa >> PAGE_SHIFT & ~mask), PFN(f.pfn.v & ~mask),
			 mask + 1, f.prot, S2_WB, f.level);
	if (err == -EEXIST && f.level > 1)
		err = stage2_map(&vm->stage2, GFN(gpa >> PAGE_SHIFT), f.pfn, 1, f.prot, S2_WB, 1);
	assert_int_equal(err, 0);
	assert_true(guest_frame_stays(vm, GPA(gpa), &f));
}

/* What a guest that runs would reach, with a fault if it may not. */
static u8 *guest_access(struct vm *vm, u64 gpa, u8 access)
{
	struct stage2_leaf leaf;
	u8 right = access == ACCESS_W ? S2_W : S2_R;
	gfn_t gfn = GFN(gpa >> PAGE_SHIFT);

	if (!stage2_lookup(&vm->stage2, gfn, &leaf) || !(leaf.prot & right)) {
		map(vm, gpa, access);
		assert_true(stage2_lookup(&vm->stage2, gfn, &leaf));
	}
	assert_true(leaf.prot & right);
	return (u8 *)pfn_ptr(stage2_leaf_pfn(&leaf, gfn)) + gpa % PAGE_SIZE;
}

static void check(u32 i, u64 page)
{
	u8 byte;

	assert_int_equal(guest_read(vms[i], GPA(gpa_of(page)), &byte, 1), 0);
	assert_int_equal(byte, model[i][page]);
	assert_int_equal(*guest_access(vms[i], gpa_of(page), ACCESS_R), model[i][page]);
	assert_int_equal(*guest_access(vms[i], gpa_of(page) + PAGE_SIZE - 1, ACCESS_R),
			 last[i][page]);
}

static void write(u32 i, u64 page, bool guest)
{
	u8 byte = (u8)host_random(&seed);
	bool end = host_random(&seed) % 2;
	u64 gpa = gpa_of(page) + (end ? PAGE_SIZE - 1 : 0);

	if (guest)
		*guest_access(vms[i], gpa, ACCESS_W) = byte;
	else
		assert_int_equal(guest_write(vms[i], GPA(gpa), &byte, 1), 0);
	(end ? last : model)[i][page] = byte;
}

static void audit_clean(void)
{
	struct audit a = { 0 };

	audit_run(&a);
	assert_int_equal(a.findings, 0);
}

static void open_first(u64 memory)
{
	fake_vm_open(memory);
	vms[0] = &fake_vm;
	memset(model, 0, sizeof(model));
	memset(last, 0, sizeof(last));
	assert_int_equal(vm_add_memory(vms[0], GPA(0), (PAGES - 768) * PAGE_SIZE, 0), 0);
	assert_int_equal(vm_add_memory(vms[0], GPA(HIGH), 768 * PAGE_SIZE, 0), 0);
}

static void fork_vm(u32 from, u32 to)
{
	vms[to] = &more[to];
	fake_vm_add(vms[to], (u16)(20 + to));
	assert_int_equal(vm_fork_memory(vms[from], vms[to]), 0);
	memcpy(model[to], model[from], sizeof(model[0]));
	memcpy(last[to], last[from], sizeof(last[0]));
}

static void end(u32 i)
{
	vm_free_memory(vms[i]);
	if (i)
		stage2_destroy(&vms[i]->stage2);
	vms[i] = NULL;
}

/* Random forks, writes, resets and ends, against a byte for each page of each VM. */
static void by_model(void **state)
{
	struct frame_stats before, after;
	u32 forks = 0, resets = 0;

	(void)state;
	seed = host_seed();
	for (u32 round = 0; round < 6; round++) {
		open_first(512 * MIB);
		end(0);
		frames_now(&before);
		open_first(512 * MIB);
		for (u32 step = 0; step < 4000; step++) {
			u32 i = (u32)(host_random(&seed) % VMS), what = host_random(&seed) % 200;
			u64 page = host_random(&seed) % PAGES;

			if (!vms[i]) {
				u32 from = (u32)(host_random(&seed) % VMS);

				if (what < 20 && vms[from]) {
					fork_vm(from, i);
					forks++;
				}
			} else if (what < 1 && i) {
				end(i);
			} else if (what < 2) {
				vm_clear_memory(vms[i]);
				memset(model[i], 0, sizeof(model[i]));
				memset(last[i], 0, sizeof(last[i]));
				resets++;
			} else if (what < 100) {
				write(i, page, what % 2);
			} else {
				check(i, page);
			}
		}
		audit_clean();
		for (u32 i = 0; i < VMS; i++)
			for (u64 page = 0; vms[i] && page < PAGES; page++)
				check(i, page);
		for (u32 i = VMS; i-- > 0;)
			if (vms[i])
				end(i);
		frames_now(&after);
		assert_int_equal(after.frames[FRAME_GUEST], before.frames[FRAME_GUEST]);
		assert_int_equal(after.frames[FRAME_HEAP], before.frames[FRAME_HEAP]);
		assert_int_equal(after.frames[FRAME_QUARANTINE], 0);
		assert_int_equal(fake_bugs, 0);
	}
	assert_true(forks > 20 && resets > 20);
}

/* What both have is one frame, in large leaves; a write makes one page another. */
static void sharing(void **state)
{
	struct stage2_leaf a, b;
	struct frame_stats before, after;
	pfn_t frame;

	(void)state;
	open_first(128 * MIB);
	vms[1] = NULL;
	write(0, 0, true);
	write(0, 1, true);
	assert_true(stage2_lookup(&vms[0]->stage2, GFN(0), &a));
	assert_int_equal(a.level, 2);
	frame = a.pfn;
	frames_now(&before);
	fork_vm(0, 1);
	assert_false(stage2_lookup(&vms[0]->stage2, GFN(0), &a));
	check(0, 0);
	check(1, 0);
	frames_now(&after);
	assert_int_equal(after.frames[FRAME_GUEST], before.frames[FRAME_GUEST]);
	assert_true(stage2_lookup(&vms[0]->stage2, GFN(0), &a));
	assert_true(stage2_lookup(&vms[1]->stage2, GFN(0), &b));
	assert_int_equal(a.level, 2);
	assert_int_equal(b.level, 2);
	assert_int_equal(a.pfn.v, frame.v);
	assert_int_equal(b.pfn.v, frame.v);
	assert_int_equal(a.prot & S2_W, 0);
	assert_int_equal(rmap_count(frame), 2);
	/* Corbel writes for the guest: what that has mapped must go, too. */
	write(1, 0, false);
	check(1, 0);
	check(1, 1);
	check(0, 0);
	assert_true(stage2_lookup(&vms[1]->stage2, GFN(0), &b));
	assert_int_equal(b.level, 1);
	assert_int_not_equal(b.pfn.v, frame.v);
	frames_now(&after);
	assert_int_equal(after.frames[FRAME_GUEST], before.frames[FRAME_GUEST] + 1);
	assert_int_equal(frame_owner(b.pfn).vm, vms[1]->id);
	assert_int_equal(frame_owner(frame).vm, VM_NONE);
	audit_clean();
	/* The one that was forked goes first: the other one has all it had. */
	vm_free_memory(vms[0]);
	check(1, 0);
	check(1, 1);
	end(1);
	assert_true(frame_owner(frame).kind == FRAME_FREE);
}

/* A reader that looked before the page was copied, and maps afterwards. */
static void late_mapper(void **state)
{
	struct guest_frame f;

	(void)state;
	open_first(128 * MIB);
	write(0, 3, true);
	fork_vm(0, 1);
	assert_int_equal(guest_frame(vms[0], GPA(gpa_of(3)), ACCESS_R, &f), MEMORY_OK);
	assert_true(f.inherited && f.sparse && f.level == 2);
	assert_true(guest_frame_stays(vms[0], GPA(gpa_of(3)), &f));
	write(0, 4, false); /* in the same 2 MiB */
	assert_false(guest_frame_stays(vms[0], GPA(gpa_of(3)), &f));
	end(1);
	vm_free_memory(vms[0]);
}

static void no_memory_left(void **state)
{
	struct guest_frame f;
	struct frame_stats stats;
	u64 page = 0;
	u8 byte = 1;

	(void)state;
	open_first(24 * MIB);
	fork_vm(0, 1);
	do
		frames_stats(&stats);
	while (stats.frames[FRAME_FREE] && page < PAGES &&
	       !guest_write(vms[0], GPA(gpa_of(page++)), &byte, 1));
	while (pfn_valid(frame_alloc(FRAME_HEAP, 3)))
		;
	assert_int_equal(guest_frame(vms[1], GPA(gpa_of(7)), ACCESS_W, &f), MEMORY_EXHAUSTED);
	assert_int_equal(guest_frame(vms[1], GPA(gpa_of(7)), ACCESS_R, &f), MEMORY_OK);
}

/* With every amount of memory: `to` can be thrown away, and the forked VM has all it had. */
static void fork_unwinds(void **state)
{
	bool good = false;

	(void)state;
	for (u32 spare = 0; !good && spare < 40; spare++) {
		pfn_t kept[64];
		u32 n = 0;

		open_first(64 * MIB);
		vms[1] = &more[1];
		fake_vm_add(vms[1], 21);
		write(0, 5, true);
		write(0, PAGES - 1, true);
		while (n < spare && pfn_valid(kept[n] = frame_alloc(FRAME_HEAP, 3)))
			n++;
		while (pfn_valid(frame_alloc(FRAME_HEAP, 4)))
			;
		while (n)
			frame_free(kept[--n], FRAME_HEAP, 3);
		good = !vm_fork_memory(vms[0], vms[1]);
		vm_free_memory(vms[1]);
		for (u32 i = 0; i < spare; i++) /* whatever is left is enough to read */
			model[1][0] = 0;
		assert_int_equal(fake_bugs, 0);
		{
			u8 byte;

			assert_int_equal(guest_read(vms[0], GPA(gpa_of(5)), &byte, 1), 0);
			assert_int_equal(byte, model[0][5]);
			assert_int_equal(guest_read(vms[0], GPA(gpa_of(PAGES - 1)), &byte, 1), 0);
			assert_int_equal(byte, model[0][PAGES - 1]);
		}
	}
	assert_true(good);
}

static void refused(void **state)
{
	(void)state;
	fake_vm_open(64 * MIB);
	vms[1] = &more[1];
	fake_vm_add(vms[1], 21);
	assert_int_equal(vm_add_memory(&fake_vm, GPA(0), 4 * MIB, SLOT_EXIT_ON_MISSING), 0);
	assert_int_equal(vm_fork_memory(&fake_vm, vms[1]), -EOPNOTSUPP);
	assert_int_equal(vms[1]->slots->nr, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sharing),	cmocka_unit_test(by_model),
		cmocka_unit_test(late_mapper),	cmocka_unit_test(no_memory_left),
		cmocka_unit_test(fork_unwinds), cmocka_unit_test(refused),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
