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

static int map_leaf(struct vm *vm, u64 gpa, const struct guest_frame *f, u8 level)
{
	return f->inherited ? guest_map_inherited(vm, GPA(gpa), f->pfn, f->prot, level)
			    : stage2_map_leaf(&vm->stage2, GFN(gpa >> PAGE_SHIFT), f->pfn, f->prot,
					      level);
}

/* As the exit handler maps it. */
static void map(struct vm *vm, u64 gpa, u8 access)
{
	struct guest_frame f;
	int err;

	assert_int_equal(guest_frame(vm, GPA(gpa), access, &f), MEMORY_OK);
	err = map_leaf(vm, gpa, &f, f.level);
	if (err == -EEXIST && f.level > 1)
		err = map_leaf(vm, gpa, &f, 1);
	assert_int_equal(err, 0);
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

/* As a device's, after the vCPU waited: copied, and then made again. */
static void corbel_write(struct vm *vm, u64 gpa, u8 byte)
{
	int err = guest_write(vm, GPA(gpa), &byte, 1);

	if (err == -EAGAIN) {
		assert_int_equal(vm_own_page(vm, GPA(gpa)), 0);
		err = guest_write(vm, GPA(gpa), &byte, 1);
	}
	assert_int_equal(err, 0);
}

static void write(u32 i, u64 page, bool guest)
{
	u8 byte = (u8)host_random(&seed);
	bool end = host_random(&seed) % 2;
	u64 gpa = gpa_of(page) + (end ? PAGE_SIZE - 1 : 0);

	if (guest)
		*guest_access(vms[i], gpa, ACCESS_W) = byte;
	else
		corbel_write(vms[i], gpa, byte);
	(end ? last : model)[i][page] = byte;
}

static void report(void *arg, const struct audit_finding *f)
{
	(void)arg;
	print_error("%s at gfn %lx: seen %lx, expected %lx\n", audit_kind_name(f->kind), f->gfn.v,
		    f->seen, f->expected);
}

static void audit_clean(void)
{
	struct audit a = { .report = report };

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
	fake_vm_add(vms[to], vm_new_id());
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
	assert_true(stage2_lookup(&vms[0]->stage2, GFN(0), &a)); /* still, but */
	assert_int_equal(a.prot & S2_W, 0);
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
	assert_int_equal(frame_owner(frame).vm, vms[0]->id);
	assert_true(frames_shared(vms[0]->id) && vms[0]->stage2.owner != vms[0]->id);
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
	struct stage2_leaf leaf;
	struct guest_frame f;

	(void)state;
	open_first(128 * MIB);
	write(0, 3, true);
	fork_vm(0, 1);
	assert_int_equal(guest_frame(vms[1], GPA(gpa_of(3)), ACCESS_R, &f), MEMORY_OK);
	assert_true(f.inherited && f.level == 2);
	write(1, 4, false); /* in the same 2 MiB */
	assert_int_equal(guest_map_inherited(vms[1], GPA(gpa_of(3)), f.pfn, f.prot, 2), 0);
	assert_false(stage2_lookup(&vms[1]->stage2, GFN(gpa_of(3) >> PAGE_SHIFT), &leaf));
	check(1, 3);
	check(1, 4);
	end(1);
	vm_free_memory(vms[0]);
}

static u32 foreign;

static void count_foreign(void *arg, const struct audit_finding *f)
{
	(void)arg;
	foreign += f->kind == AUDIT_LEAF_OWNER && f->stage2 == &vms[1]->stage2;
}

/* The audit finds a right to write that would reach another VM, and none where the way forbids it.
 */
static void writable_by_damage(void **state)
{
	struct audit a = { .report = count_foreign };
	struct stage2_leaf leaf;

	(void)state;
	foreign = 0;
	open_first(128 * MIB);
	write(0, 3, true); /* its leaf has the right, and keeps it: the table above has it not */
	fork_vm(0, 1);
	check(1, 3);
	audit_clean();
	assert_true(stage2_lookup(&vms[1]->stage2, GFN(3), &leaf));
	assert_true(stage2_change_leaf(&vms[1]->stage2, GFN(0), leaf.level, leaf.pfn, S2_RWX, S2_W,
				       false));
	audit_run(&a);
	assert_int_equal(foreign, 1);
	assert_int_equal(a.findings, 1);
	vms[1] = NULL; /* that VM is corrupt: what it has is lost */
	vm_free_memory(vms[0]);
}

/* How many objects a page of the VM may be looked for in. */
static u32 line_of(const struct vm *vm)
{
	u32 n = 0;

	for (const struct backing *b = vm->slots->slot[0].backing; b; b = b->parent)
		n++;
	return n;
}

/* Clones that go leave nothing behind: neither memory, nor generations to look through. */
static void many_generations(void **state)
{
	struct frame_stats first = { 0 }, now;

	(void)state;
	seed = host_seed();
	open_first(256 * MIB);
	vms[1] = vms[2] = NULL;
	for (u32 n = 0; n < 300; n++) {
		for (u32 i = 0; i < 8; i++)
			write(0, host_random(&seed) % 20 * 100, i % 2);
		fork_vm(0, 1);
		write(1, n % 20 * 100, true);
		check(0, n % 20 * 100);
		check(1, n * 7 % 20 * 100);
		end(1);
		assert_in_range(line_of(vms[0]), 1, 3);
		frames_now(&now);
		if (n == 100)
			first = now;
		if (n > 100)
			assert_in_range(now.frames[FRAME_GUEST], 1,
					first.frames[FRAME_GUEST] + 2 * 20);
	}
	/* The clone of a clone of ..., whose ancestors have gone. */
	for (u32 n = 0; n < 100; n++) {
		u32 from = n ? 1 + n % 2 : 0, to = n ? 2 - n % 2 : 2;

		fork_vm(from, to);
		write(to, n % 20 * 100, n % 2);
		check(to, 300);
		if (from)
			end(from);
		assert_in_range(line_of(vms[to]), 1, 4);
	}
	for (u64 page = 0; page < PAGES; page++)
		check(2 - 99 % 2, page);
	end(2 - 99 % 2);
	audit_clean();
	assert_int_equal(fake_bugs, 0);
	end(0);
}

/* What is never written (a snapshot) may have any number of clones: they are all siblings. */
static void snapshot(void **state)
{
	static struct vm clones[100];
	struct frame_stats before, after;
	u8 byte;

	(void)state;
	open_first(256 * MIB);
	write(0, 700, true);
	fork_vm(0, 1);
	frames_now(&before);
	for (u32 i = 0; i < ARRAY_SIZE(clones); i++) {
		fake_vm_add(&clones[i], vm_new_id());
		assert_int_equal(vm_fork_memory(vms[1], &clones[i]), 0);
		assert_int_equal(line_of(&clones[i]), 2);
		assert_int_equal(guest_read(&clones[i], GPA(gpa_of(700)), &byte, 1), 0);
		assert_int_equal(byte, model[0][700]);
	}
	for (u32 i = 0; i < ARRAY_SIZE(clones); i++) {
		vm_free_memory(&clones[i]);
		stage2_destroy(&clones[i].stage2);
	}
	assert_int_equal(line_of(vms[1]), 2);
	frames_now(&after);
	assert_int_equal(after.frames[FRAME_GUEST], before.frames[FRAME_GUEST]);
	assert_int_equal(after.frames[FRAME_HEAP], before.frames[FRAME_HEAP]);
	end(1);
	end(0);
}

/* Generations that live are bounded, and who is refused has lost nothing. */
static void too_many(void **state)
{
	static struct vm clones[BACKING_LINE_MAX + 2];
	u32 n = 0;
	int err = 0;

	(void)state;
	open_first(256 * MIB);
	for (; !err; n++) {
		write(0, n, true);
		assert_in_range(n, 0, ARRAY_SIZE(clones) - 1);
		fake_vm_add(&clones[n], vm_new_id());
		err = vm_fork_memory(vms[0], &clones[n]);
	}
	assert_int_equal(err, -ENOSPC);
	assert_in_range(n, BACKING_LINE_MAX, BACKING_LINE_MAX + 2);
	write(0, 3, true);
	check(0, 3);
	audit_clean();
	while (n--) {
		vm_free_memory(&clones[n]);
		stage2_destroy(&clones[n].stage2);
	}
	fork_vm(0, 1);
	check(1, 3);
	end(1);
	end(0);
}

static void no_memory_left(void **state)
{
	struct guest_frame f;
	struct frame_stats stats;
	u64 page = 0;

	(void)state;
	open_first(24 * MIB);
	fork_vm(0, 1);
	do
		frames_stats(&stats);
	while (stats.frames[FRAME_FREE] && page < PAGES &&
	       !vm_own_page(vms[0], GPA(gpa_of(page++))));
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

static u64 logged(u32 vm, u64 page)
{
	u64 bits[PAGES / 64 + 1], count;

	assert_int_equal(vm_slot_dirty(vms[vm], 1, 0, PAGES - 768, bits, &count), 0);
	return count && bits[page / 64] >> page % 64 & 1 ? count : 0;
}

/* The log of writes is there for both, and then each has its own; nothing is lost without memory.
 */
static void logs(void **state)
{
	struct frame_stats before, after;
	bool good = false;
	u64 taken = 0;

	(void)state;
	open_first(64 * MIB);
	end(0);
	frames_now(&before);
	for (u32 spare = 0; !good && spare < 40; spare++) {
		pfn_t kept[64];
		u32 n = 0;

		open_first(64 * MIB);
		assert_int_equal(vm_slot_flags(vms[0], 1, SLOT_LOG_DIRTY), 0);
		corbel_write(vms[0], gpa_of(5), 1);
		vms[1] = &more[1];
		fake_vm_add(vms[1], 21);
		while (n < spare && pfn_valid(kept[n] = frame_alloc(FRAME_HEAP, 3)))
			n++;
		for (taken = 0; pfn_valid(frame_alloc(FRAME_HEAP, 4)); taken++)
			;
		while (n)
			frame_free(kept[--n], FRAME_HEAP, 3);
		good = !vm_fork_memory(vms[0], vms[1]);
		assert_int_equal(logged(0, 5), 1);
		assert_int_equal(logged(0, 5), 0);
		if (good) {
			assert_int_equal(logged(1, 5), 1);
			assert_int_equal(logged(1, 5), 0);
		}
		end(1);
		end(0);
		frames_now(&after);
		assert_int_equal(after.frames[FRAME_HEAP], before.frames[FRAME_HEAP] + taken);
	}
	assert_true(good);
	assert_int_equal(fake_bugs | host_warnings, 0);
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
		cmocka_unit_test(sharing),
		cmocka_unit_test(by_model),
		cmocka_unit_test(late_mapper),
		cmocka_unit_test(no_memory_left),
		cmocka_unit_test(fork_unwinds),
		cmocka_unit_test(logs),
		cmocka_unit_test(refused),
		cmocka_unit_test(snapshot),
		cmocka_unit_test(many_generations),
		cmocka_unit_test(too_many),
		cmocka_unit_test(writable_by_damage),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
