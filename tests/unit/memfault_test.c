/* SPDX-License-Identifier: MIT */
/* Backing objects, slots that change, and memory-fault exits, against what their headers promise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

static struct vm *const vm = &fake_vm;
static struct vcpu *const v = &fake_vcpu.v;

static u64 free_frames(void)
{
	struct frame_stats stats;

	frames_stats(&stats);
	return stats.frames[FRAME_FREE];
}

/* --- backing objects --- */

static u8 state_at(const struct backing *b, u64 offset)
{
	u8 level;

	return backing_state(*backing_word(b, offset, &level));
}

static void free_object(struct backing *b)
{
	while (backing_free_step(b))
		;
}

/* With every amount of memory from too little to enough: all or nothing, and all comes back. */
static void objects_unwind(void **state)
{
	struct backing *b;
	bool good = false;

	(void)state;
	for (u64 extents = 2; !good && extents < 40; extents++) {
		u64 before;

		fake_vm_open(extents * EXTENT_SIZE);
		before = free_frames();
		good = !backing_create(20 * MIB + 0x3000, 9, true, &b);
		if (good) {
			assert_int_equal(
				frame_owner(hpa_pfn(ptr_hpa(backing_memory(b->words[0])))).vm, 9);
			free_object(b);
		}
		assert_int_equal(free_frames(), before);
	}
	assert_true(good);
	assert_int_equal(backing_create(0, 9, true, &b), -EINVAL);
	assert_int_equal(backing_create(0x1001, 9, true, &b), -EINVAL);
	assert_int_equal(backing_create(BIT(50), 9, true, &b), -ENOSPC);
}

/* Random fills of an object against an array of bytes with a state for each page. */
static void fills_by_model(void **state)
{
	enum { PAGES = 5 * 512 - 7 };
	static u8 want[PAGES], from[4 * MIB];
	u64 seed = host_seed();
	struct backing *b;

	(void)state;
	fake_vm_open(64 * MIB);
	memset(from, 0x5a, sizeof(from));
	assert_int_equal(backing_create(PAGES * PAGE_SIZE, 9, false, &b), 0);
	memset(host_arena + 32 * MIB, 0xaa, 16 * MIB);
	memset(want, BACKING_MISSING, sizeof(want));
	for (u32 round = 0; round < 400; round++) {
		u64 at = host_random(&seed) % PAGES, n = 1 + host_random(&seed) % 600;
		u32 how = host_random(&seed) % 4;
		bool any = false;
		int err;

		if (round % 3 == 0)
			at &= ~511ull, n = 512;
		n = MIN(n, PAGES - at);
		err = backing_fill(b, at * PAGE_SIZE, n * PAGE_SIZE, how, from);
		for (u64 i = at; i < at + n; i++) {
			static const u8 becomes[] = { [FILL_ZERO] = BACKING_ZERO,
						      [FILL_COPY] = BACKING_PRESENT,
						      [FILL_READONLY] = BACKING_READONLY,
						      [FILL_POISON] = BACKING_POISON };

			if (want[i] == BACKING_MISSING) {
				want[i] = becomes[how];
				any = true;
			}
		}
		assert_int_equal(err, any ? 0 : -EEXIST);
		for (u64 i = 0; i < PAGES; i++)
			assert_int_equal(state_at(b, i * PAGE_SIZE), want[i]);
	}
	for (u64 i = 0; i < PAGES; i++) {
		u8 level;
		u64 *word = backing_word(b, i * PAGE_SIZE, &level), now;
		const u8 *p;

		now = backing_touch(word, level, false);
		p = backing_memory(now) + (level == 2 ? i % 512 * PAGE_SIZE : 0);
		if (want[i] == BACKING_POISON || want[i] == BACKING_MISSING)
			assert_int_equal(backing_state(now), want[i]);
		else
			assert_int_equal(p[i % PAGE_SIZE], want[i] == BACKING_PRESENT ? 0x5a : 0);
	}
	backing_reset(b, true);
	for (u64 i = 0; i < PAGES; i++)
		assert_int_equal(state_at(b, i * PAGE_SIZE), BACKING_ZERO);
	free_object(b);
}

/* --- sources --- */

static u32 source_fails, source_calls;

/* Four slices, each a quarter; every page begins with its number. */
static int fetch(const struct backing_source *source, struct backing_fetch *f)
{
	u64 n = f->size / 4;

	(void)source;
	__atomic_fetch_add(&source_calls, 1, __ATOMIC_RELAXED);
	memset((u8 *)f->to + f->state[0] * n, 0, n);
	if (++f->state[0] < 4)
		return -EAGAIN;
	for (u64 i = 0; i < f->size; i += PAGE_SIZE)
		*(u64 *)((u8 *)f->to + i) = f->offset + i;
	return __atomic_load_n(&source_fails, __ATOMIC_RELAXED) ? -EIO : 0;
}

static const struct backing_source large = { .name = "large",
					     .piece = EXTENT_SIZE,
					     .fetch = fetch };
static const struct backing_source small = { .name = "small", .piece = PAGE_SIZE, .fetch = fetch };

static void fetching(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		const struct backing_source *source = i ? &small : &large;
		struct backing_fetch f = { 0 }, g = { 0 };
		struct backing *b;

		fake_vm_open(64 * MIB);
		assert_int_equal(backing_create(7 * MIB, 9, false, &b), 0);
		b->source = source;
		assert_int_equal(backing_fetch(b, 0x201234, &f), -EAGAIN);
		assert_int_equal(f.offset, i ? 0x201000 : 0x200000);
		assert_int_equal(f.size, source->piece);
		assert_int_equal(b->users, 1);
		assert_int_equal(backing_fetch(b, 0x201000, &g), -EBUSY);
		assert_int_equal(backing_fill(b, 0x201000, 0x1000, FILL_ZERO, NULL), -EBUSY);
		backing_fetch_drop(b, &f); /* given up: anybody's again */
		assert_int_equal(state_at(b, 0x201000), BACKING_MISSING);
		assert_int_equal(b->users, 0);
		f = (struct backing_fetch){ 0 };
		for (u32 n = 0; n < 3; n++)
			assert_int_equal(backing_fetch(b, 0x201000, &f), -EAGAIN);
		assert_int_equal(backing_fetch(b, 0x201000, &f), 0);
		assert_int_equal(backing_fetch(b, 0x201000, &g), -EEXIST);
		assert_int_equal(state_at(b, 0x201000), BACKING_PRESENT);
		assert_int_equal(state_at(b, 0x202000), i ? BACKING_MISSING : BACKING_PRESENT);
		/* A piece that comes as a whole is not taken apart. */
		assert_int_equal(backing_fill(b, 0x401000, 0x1000, FILL_ZERO, NULL),
				 i ? 0 : -EOPNOTSUPP);
		/* Damaged: it is missing, and can be tried again. The last piece is shorter. */
		source_fails = 1;
		f = (struct backing_fetch){ 0 };
		for (u32 n = 0; n < 3; n++)
			assert_int_equal(backing_fetch(b, 0x600000, &f), -EAGAIN);
		assert_int_equal(f.size, i ? PAGE_SIZE : MIB);
		assert_int_equal(backing_fetch(b, 0x600000, &f), -EIO);
		source_fails = 0;
		assert_int_equal(state_at(b, 0x600000), BACKING_MISSING);
		assert_int_equal(b->users, 0);
		free_object(b);
	}
}

/* --- slots that change --- */

#define BASE (16 * MIB)

static void bad_slots(void **state)
{
	struct backing *b;
	u16 id, other;

	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(backing_create(4 * MIB, 9, true, &b), 0);
	assert_int_equal(vm_slot_add(vm, GPA(BASE), 4 * MIB, b, 0, SLOT_SHARED, &id), 0);
	assert_int_equal(vm_slot_add(vm, GPA(0x1000), 0x1800, b, 0x1000, 0, &other), -EINVAL);
	assert_int_equal(vm_slot_add(vm, GPA(0x800), 0x1000, b, 0x800, 0, &other), -EINVAL);
	assert_int_equal(vm_slot_add(vm, GPA(0), 0, b, 0, 0, &other), -EINVAL);
	assert_int_equal(vm_slot_add(vm, GPA(0), MIB, b, 0, 0x40, &other), -EINVAL);
	assert_int_equal(vm_slot_add(vm, GPA(0), MIB, b, 0x1000, 0, &other), -EDOM);
	assert_int_equal(vm_slot_add(vm, GPA(0), 6 * MIB, b, 0, 0, &other), -EFBIG);
	assert_int_equal(vm_slot_add(vm, GPA(0), 2 * MIB, b, 4 * MIB, 0, &other), -EFBIG);
	assert_int_equal(vm_slot_add(vm, GPA(0), MIB, b, ALIGN_DOWN(~0ull, 2 * MIB), 0, &other),
			 -EFBIG);
	assert_int_equal(vm_slot_add(vm, GPA(BIT(40)), MIB, b, 0, 0, &other), -ERANGE);
	assert_int_equal(vm_slot_add(vm, GPA(BASE + 2 * MIB), MIB, b, 0, 0, &other), -EEXIST);
	assert_int_equal(vm_slot_add(vm, GPA(BASE - 2 * MIB), 4 * MIB, b, 0, 0, &other), -EEXIST);
	assert_int_equal(vm_slot_remove(vm, id + 1), -ENOENT);
	assert_int_equal(vm_slot_move(vm, id + 1, GPA(0)), -ENOENT);
	assert_int_equal(vm_slot_flags(vm, id + 1, 0), -ENOENT);
	assert_int_equal(vm_slot_flags(vm, id, 0x80), -EINVAL);
	assert_int_equal(vm_slot_move(vm, id, GPA(0x1000)), -EDOM);
	assert_int_equal(vm->slots->nr, 1);
	assert_int_equal(b->users, 1);
	vm->bus.region[IO_MMIO][0] = (struct io_region){ .base = 0xfec00000, .size = 0x1000 };
	vm->bus.count[IO_MMIO] = 1;
	assert_int_equal(vm_slot_move(vm, id, GPA(0xfec00000)), -EADDRINUSE);
	assert_int_equal(vm_slot_remove(vm, id), 0);
	assert_int_equal(b->users, 0);
	for (u64 i = 0; i < VM_MAX_SLOTS; i++)
		assert_int_equal(vm_slot_add(vm, GPA(i * 2 * MIB), PAGE_SIZE, b, 0, 0, &other), 0);
	assert_int_equal(vm_slot_add(vm, GPA(GIB), MIB, b, 0, 0, &other), -ENOSPC);
	assert_int_equal(vm->slots->nr, VM_MAX_SLOTS);
	vm_free_memory(vm);
	assert_int_equal(b->users, 0);
	free_object(b);
}

static void map_at(u64 gpa)
{
	struct guest_frame f;
	int err;

	assert_int_equal(guest_frame(vm, GPA(gpa), ACCESS_R, &f), MEMORY_OK);
	err = stage2_map(&vm->stage2, gpa_gfn(GPA(gpa)), f.pfn, 1, f.prot, S2_WB, 1);
	assert_int_equal(err, 0);
}

static bool mapped(u64 gpa)
{
	struct stage2_leaf leaf;

	return stage2_lookup(&vm->stage2, gpa_gfn(GPA(gpa)), &leaf);
}

/* What resolving refuses; and a page that was mapped read-only faults again once it is not. */
static void bad_resolving(void **state)
{
	struct guest_frame f;
	struct backing *b;
	u32 n;

	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 4 * MIB, SLOT_EXIT_ON_MISSING), 0);
	assert_int_equal(backing_create(2 * MIB, 9, false, &b), 0);
	assert_int_equal(vm_slot_add(vm, GPA(BASE), 2 * MIB, b, 0, SLOT_SHARED, NULL), 0);
	assert_int_equal(vm_resolve(vm, GPA(0x800), PAGE_SIZE, FILL_ZERO, NULL, &n), -EINVAL);
	assert_int_equal(vm_resolve(vm, GPA(0), 0, FILL_ZERO, NULL, &n), -EINVAL);
	assert_int_equal(vm_resolve(vm, GPA(MASK(63, 12)), PAGE_SIZE, FILL_ZERO, NULL, &n),
			 -EINVAL);
	assert_int_equal(vm_resolve(vm, GPA(2 * MIB), 4 * MIB, FILL_ZERO, NULL, &n), -EFAULT);
	assert_int_equal(vm_give_up(vm, GPA(0), 4 * MIB, &n), -ESRCH);
	assert_int_equal(vm_give_up(vm, GPA(0), 0x800, &n), -EINVAL);
	/* none of these has changed anything */
	assert_int_equal(vm_resolve(vm, GPA(0), 4 * MIB, FILL_READONLY, NULL, &n), 0);
	assert_int_equal(vm_resolve(vm, GPA(0), 4 * MIB, FILL_ZERO, NULL, &n), -EEXIST);
	map_at(0x3000);
	assert_int_equal(vm_resolve(vm, GPA(0), 4 * MIB, FILL_WRITABLE, NULL, &n), 0);
	assert_false(mapped(0x3000));
	assert_int_equal(vm_resolve(vm, GPA(0), 4 * MIB, FILL_WRITABLE, NULL, &n), -EEXIST);
	assert_int_equal(vm_resolve(vm, GPA(BASE), 2 * MIB, FILL_READONLY, NULL, &n), 0);
	assert_int_equal(vm_resolve(vm, GPA(BASE), 2 * MIB, FILL_WRITABLE, NULL, &n), -EOPNOTSUPP);
	/* a reset: its own is missing again, what others see stays */
	vm_clear_memory(vm);
	assert_int_equal(guest_frame(vm, GPA(0x3000), ACCESS_R, &f), MEMORY_MISSING);
	assert_int_equal(guest_frame(vm, GPA(BASE), ACCESS_R, &f), MEMORY_OK);
	vm_free_memory(vm);
	free_object(b);
}

/* Move, flags, remove: contents follow the object, nothing stays mapped, generations count. */
static void changing_slots(void **state)
{
	struct backing *b;
	u32 generation;
	u64 value = 0x1234, before;
	u16 id, second;

	(void)state;
	fake_vm_open(64 * MIB);
	before = free_frames();
	assert_int_equal(backing_create(4 * MIB, VM_NONE, true, &b), 0);
	assert_int_equal(vm_slot_add(vm, GPA(BASE), 4 * MIB, b, 0, SLOT_SHARED, &id), 0);
	assert_int_equal(
		vm_slot_add(vm, GPA(4 * BASE), 2 * MIB, b, 2 * MIB, SLOT_READONLY, &second), 0);
	generation = vm_slot(vm, GPA(BASE))->generation;
	assert_int_equal(guest_write(vm, GPA(BASE + 2 * MIB), &value, 8), 0);
	value = 0;
	assert_int_equal(guest_read(vm, GPA(4 * BASE), &value, 8), 0);
	assert_int_equal(value, 0x1234); /* the same memory */
	assert_int_equal(guest_write(vm, GPA(4 * BASE), &value, 8), -EFAULT);
	map_at(BASE + 2 * MIB);
	map_at(4 * BASE);
	assert_int_equal(vm_slot_move(vm, id, GPA(2 * BASE)), 0);
	assert_false(mapped(BASE + 2 * MIB));
	assert_true(mapped(4 * BASE));
	assert_null(vm_slot(vm, GPA(BASE)));
	assert_int_not_equal(vm_slot(vm, GPA(2 * BASE))->generation, generation);
	assert_int_equal(vm_slot(vm, GPA(2 * BASE))->id, id);
	assert_int_equal(guest_read(vm, GPA(2 * BASE + 2 * MIB), &value, 8), 0);
	assert_int_equal(value, 0x1234);
	assert_int_equal(vm_slot_move(vm, id, GPA(2 * BASE + 2 * MIB)), 0); /* over itself */
	assert_int_equal(vm_slot_flags(vm, id, SLOT_READONLY | SLOT_SHARED), 0);
	assert_int_equal(guest_write(vm, GPA(2 * BASE + 2 * MIB), &value, 8), -EFAULT);
	assert_int_equal(vm_slot_remove(vm, second), 0);
	assert_false(mapped(4 * BASE));
	assert_int_equal(vm_slot_remove(vm, id), 0);
	assert_int_equal(v->requests & REQ_SLOTS, REQ_SLOTS);
	vm_free_memory(vm);
	free_object(b);
	assert_int_equal(vm->stage2.unpaid, 0);
	/* tables are kept by the VM */
	assert_in_range(before - free_frames(), 0, 64 + 64);
}

/* --- memory-fault exits --- */

static void serve(void)
{
	u32 requests = __atomic_exchange_n(&v->requests, 0, __ATOMIC_SEQ_CST);

	if (requests & REQ_MEMORY)
		memory_wait_end(v);
}

static void open_missing(void)
{
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(0), 8 * MIB, SLOT_EXIT_ON_MISSING), 0);
	vm->state = VM_RUNNING;
	fake_current = v;
	v->rip = 0x1000;
}

static struct backing *object(void)
{
	return vm_slot(vm, GPA(0))->backing;
}

static void report(void **state)
{
	struct memory_fault fault = { .gpa = GPA(0x201238),
				      .access = ACCESS_W,
				      .kind = MEMORY_MISSING,
				      .gva = 0xffff800000001238,
				      .gva_valid = true,
				      .walk = true };
	struct guest_frame f;
	u64 before;

	(void)state;
	open_missing();
	before = free_frames();
	assert_int_equal(guest_frame(vm, fault.gpa, ACCESS_W, &f), MEMORY_MISSING);
	v->event = (struct event){ .valid = true, .vector = 14 };
	memory_fault(v, &fault);
	assert_int_equal(free_frames(), before); /* nothing is allocated */
	assert_int_equal(v->activity, VCPU_WAITS_MEMORY);
	assert_int_equal(v->wait.fault.gpa.v, 0x201238);
	assert_int_equal(v->wait.fault.size, PAGE_SIZE);
	assert_int_equal(v->wait.fault.access, ACCESS_W);
	assert_int_equal(v->wait.fault.kind, MEMORY_MISSING);
	assert_int_equal(v->wait.fault.gva, 0xffff800000001238);
	assert_true(v->wait.fault.gva_valid && v->wait.fault.walk);
	assert_int_equal(v->wait.fault.slot, vm_slot(vm, GPA(0))->id);
	assert_int_equal(v->wait.fault.generation, vm_slot(vm, GPA(0))->generation);
	assert_int_equal(v->wait.fault.sequence, 1);
	assert_int_equal(v->rip, 0x1000);
	assert_true(v->event.valid);
	assert_false(memory_wait_step(v)); /* nothing that it could do by itself */
	/* Exactly who waits for the range. */
	assert_int_equal(memory_resolved(object(), 0x200000, 0x1000), 0);
	assert_int_equal(memory_resolved(object(), 0x202000, 0x1000), 0);
	assert_int_equal(v->requests & REQ_MEMORY, 0);
	assert_int_equal(backing_fill(object(), 0x201000, 0x1000, FILL_ZERO, NULL), 0);
	assert_int_equal(memory_resolved(object(), 0x200000, 0x2000), 1);
	serve();
	assert_int_equal(v->activity, VCPU_ACTIVE);
	assert_int_equal(guest_frame(vm, fault.gpa, ACCESS_W, &f), MEMORY_OK);
	assert_int_equal(f.level, 1);
	assert_int_equal(guest_frame(vm, GPA(0x202000), ACCESS_W, &f), MEMORY_MISSING);
	/* It was resolved before it could be seen waiting. */
	fault.gpa = GPA(0x201000);
	memory_fault(v, &fault);
	assert_int_equal(v->requests & REQ_MEMORY, REQ_MEMORY);
	serve();
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

/* Whatever Corbel does for the guest meets the same exit, and fails with nothing changed. */
static void own_accesses(void **state)
{
	u64 value = 7, sequence = 0;

	(void)state;
	open_missing();
	for (u32 i = 0; i < 3; i++) {
		u64 gpa = 0x400ff8 + i * 0x2000ull;
		int err = i == 0   ? guest_read(vm, GPA(gpa), &value, 8)
			  : i == 1 ? guest_write(vm, GPA(gpa), &value, 8)
				   : guest_fill(vm, GPA(gpa), 1, 8);

		assert_int_equal(err, -EAGAIN);
		assert_int_equal(v->activity, VCPU_WAITS_MEMORY);
		assert_int_equal(v->wait.fault.gpa.v, gpa);
		assert_int_equal(v->wait.fault.access, i ? ACCESS_W : ACCESS_R);
		assert_int_equal(v->wait.fault.sequence, ++sequence);
		memory_wait_end(v);
	}
	/* The first byte of a range that can't be used; what comes before it is not written. */
	assert_int_equal(backing_fill(object(), 0x600000, 0x1000, FILL_ZERO, NULL), 0);
	value = ~0ull;
	assert_int_equal(guest_write(vm, GPA(0x600ffc), &value, 8), -EAGAIN);
	assert_int_equal(v->wait.fault.gpa.v, 0x601000);
	memory_wait_end(v);
	assert_int_equal(guest_read(vm, GPA(0x600ff8), &value, 8), 0);
	assert_int_equal(value, 0);
	/* Somebody else's vCPU runs here: it does not wait, one of the VM's is asked to. */
	fake_current = NULL;
	v->requests = 0;
	assert_int_equal(guest_read(vm, GPA(0x400000), &value, 8), -EAGAIN);
	assert_int_equal(v->activity, VCPU_ACTIVE);
	assert_int_equal(v->requests, REQ_DEVICES);
	/* Who loads a VM supplies what it writes, page by page; nothing is read before. */
	vm->state = VM_STOPPED;
	assert_int_equal(guest_read(vm, GPA(0x400000), &value, 8), -EAGAIN);
	value = 0x77;
	assert_int_equal(guest_write(vm, GPA(0x400ffc), &value, 8), 0);
	assert_int_equal(state_at(object(), 0x400000), BACKING_PRESENT);
	assert_int_equal(state_at(object(), 0x401000), BACKING_PRESENT);
	assert_int_equal(state_at(object(), 0x402000), BACKING_MISSING);
	vm_free_memory(vm);
}

static void fault_at(u64 gpa, u8 access, u8 kind)
{
	const struct memory_fault fault = { .gpa = GPA(gpa), .access = access, .kind = kind };

	memory_fault(v, &fault);
}

static void kinds_that_stop(void **state)
{
	struct guest_frame f;
	u64 value = 0;

	(void)state;
	open_missing();
	assert_int_equal(backing_fill(object(), 0x1000, 0x1000, FILL_POISON, NULL), 0);
	assert_int_equal(guest_frame(vm, GPA(0x1ff8), ACCESS_R, &f), MEMORY_POISONED);
	fault_at(0x1ff8, ACCESS_R, MEMORY_POISONED);
	assert_int_equal(vm->stop_reason, STOP_MEMORY_FAULT);
	assert_string_equal(fake_stop_text, "vCPU 0 reads gpa 0x1ff8 (rip 0x1000): poisoned");
	assert_int_equal(v->activity, VCPU_ACTIVE);
	fake_stop_text[0] = 0;
	assert_int_equal(guest_read(vm, GPA(0x1000), &value, 8), -EAGAIN);
	assert_string_equal(fake_stop_text, "vCPU 0 reads gpa 0x1000 (rip 0x1000): poisoned");
	/* A page that is read-only waits: somebody may still make it writable. */
	assert_int_equal(backing_fill(object(), 0x2000, 0x1000, FILL_READONLY, NULL), 0);
	assert_int_equal(guest_frame(vm, GPA(0x2000), ACCESS_W, &f), MEMORY_READONLY);
	assert_int_equal(guest_frame(vm, GPA(0x2000), ACCESS_R, &f), MEMORY_OK);
	assert_int_equal(f.prot, S2_R | S2_X);
	assert_int_equal(guest_write(vm, GPA(0x2000), &value, 8), -EAGAIN);
	assert_int_equal(v->activity, VCPU_WAITS_MEMORY);
	memory_wait_end(v);
	/* A slot that is read-only is the caller's business. */
	assert_int_equal(vm_slot_flags(vm, vm_slot(vm, GPA(0))->id,
				       SLOT_EXIT_ON_MISSING | SLOT_READONLY | SLOT_NOEXEC),
			 0);
	assert_int_equal(guest_write(vm, GPA(0x2000), &value, 8), -EFAULT);
	fault_at(0x2000, ACCESS_W, MEMORY_READONLY);
	assert_string_equal(fake_stop_text, "vCPU 0 writes gpa 0x2000 (rip 0x1000): read-only");
	fault_at(0x2000, ACCESS_X, MEMORY_NOEXEC);
	assert_string_equal(fake_stop_text, "vCPU 0 executes gpa 0x2000 (rip 0x1000): no-exec");
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

/* "Resolved", and the same again: bounded. Given up: at once, and only who waits for the range. */
static void no_progress(void **state)
{
	(void)state;
	open_missing();
	for (u32 i = 0; i <= MEMORY_FAULT_AGAIN; i++) {
		fault_at(0x1000, ACCESS_R, MEMORY_MISSING);
		assert_int_equal(v->activity, VCPU_WAITS_MEMORY);
		assert_int_equal(memory_resolved(object(), 0x1000, 0x1000), 1);
		serve();
	}
	assert_string_equal(fake_stop_text, "");
	fault_at(0x1000, ACCESS_R, MEMORY_MISSING);
	assert_string_equal(fake_stop_text,
			    "vCPU 0 reads gpa 0x1000 (rip 0x1000): again and again, "
			    "although it was resolved");
	v->rip = 0x1003; /* another instruction */
	fault_at(0x1000, ACCESS_R, MEMORY_MISSING);
	assert_int_equal(v->wait.fault.again, 0);
	fake_stop_text[0] = 0;
	assert_int_equal(memory_give_up(object(), 0x2000, 0x1000), 0);
	assert_string_equal(fake_stop_text, "");
	assert_int_equal(memory_give_up(object(), 0, 0x2000), 1);
	assert_string_equal(fake_stop_text,
			    "vCPU 0 reads gpa 0x1000 (rip 0x1003): given up by the operator");
	memory_wait_end(v);
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

/* Removed, moved or changed under a vCPU that waits for a page of it. */
static void slot_goes_under_waiter(void **state)
{
	struct guest_frame f;

	(void)state;
	for (u32 i = 0; i < 3; i++) {
		u16 id;

		open_missing();
		id = vm_slot(vm, GPA(0))->id;
		if (i == 2)
			object()->source = &large;
		fault_at(0x1000, ACCESS_R, MEMORY_MISSING);
		if (i == 2)
			assert_true(memory_wait_step(v)); /* it is fetching */
		if (i == 1)
			assert_int_equal(vm_slot_flags(vm, id, 0), 0);
		else
			assert_int_equal(vm_slot_remove(vm, id), 0);
		assert_int_equal(v->requests & REQ_MEMORY, REQ_MEMORY);
		serve();
		assert_int_equal(v->activity, VCPU_ACTIVE);
		assert_int_equal(guest_frame(vm, GPA(0x1000), ACCESS_R, &f),
				 i == 1 ? MEMORY_OK : MEMORY_NO_MEMORY);
		vm->state = VM_STOPPED;
		vm_free_memory(vm);
		assert_true(list_empty(&vm->own_memory));
	}
}

static void fetched_by_vcpu(void **state)
{
	u64 value;
	u32 slices = 0;

	(void)state;
	open_missing();
	object()->source = &large;
	source_calls = 0;
	assert_int_equal(guest_read(vm, GPA(0x203000), &value, 8), -EAGAIN);
	assert_int_equal(v->wait.fault.size, EXTENT_SIZE);
	while (v->activity && memory_wait_step(v))
		slices++;
	assert_int_equal(slices, 4);
	assert_int_equal(source_calls, 4);
	assert_int_equal(v->activity, VCPU_ACTIVE);
	assert_int_equal(guest_read(vm, GPA(0x203000), &value, 8), 0);
	assert_int_equal(value, 0x203000);
	assert_int_equal(object()->fetched, 1);
	/* A damaged piece: its VM stops, with the source's name. */
	source_fails = 1;
	assert_int_equal(guest_read(vm, GPA(0x403000), &value, 8), -EAGAIN);
	while (v->activity && memory_wait_step(v))
		;
	source_fails = 0;
	assert_string_equal(fake_stop_text, "vCPU 0 reads gpa 0x403000 (rip 0x1000): large");
	/* Stopped in the middle: the piece is anybody's again. */
	assert_int_equal(guest_read(vm, GPA(0x403000), &value, 8), -EAGAIN);
	assert_true(memory_wait_step(v));
	memory_wait_end(v);
	assert_int_equal(state_at(object(), 0x403000), BACKING_MISSING);
	/* A loader waits for what it needs. */
	vm->state = VM_STOPPED;
	value = 5;
	assert_int_equal(guest_write(vm, GPA(0x403008), &value, 8), 0);
	assert_int_equal(guest_read(vm, GPA(0x404000), &value, 8), 0);
	assert_int_equal(value, 0x404000);
	vm_free_memory(vm);
}

/* --- the log of writes --- */

static u8 frame_at_level(u64 gpa)
{
	struct guest_frame f;

	assert_int_equal(guest_frame(vm, GPA(gpa), ACCESS_W, &f), MEMORY_OK);
	return f.level;
}

/* As exit_stage2_fault() does it. */
static void guest_touches(u64 gpa, u8 access)
{
	struct stage2_leaf leaf;
	struct flush_debt debt;
	struct guest_frame f;
	int err;

	if (stage2_lookup(&vm->stage2, gpa_gfn(GPA(gpa)), &leaf) &&
	    leaf.prot & (access == ACCESS_W ? S2_W : S2_R))
		return; /* no exit */
	assert_int_equal(guest_frame(vm, GPA(gpa), access, &f), MEMORY_OK);
	assert_int_equal(f.level, 1);
	assert_int_equal(f.logged, access == ACCESS_W);
	err = stage2_map(&vm->stage2, gpa_gfn(GPA(gpa)), f.pfn, 1, f.prot, S2_WB, f.level);
	if (err) {
		assert_int_equal(err, -EEXIST);
		assert_int_equal(stage2_protect(&vm->stage2, gpa_gfn(GPA(gpa)), 1, f.prot, &debt),
				 0);
		assert_int_equal(debt.generation, 0);
	}
	if (f.logged)
		guest_logged(vm, GPA(gpa));
}

static void dirty_by_model(void **state)
{
	enum { PAGES = 1024 + 100 };
	static bool want[PAGES];
	u64 seed = host_seed(), bits[BITMAP_WORDS(PAGES)], dirty, exits;
	u16 id;

	(void)state;
	fake_vm_open(64 * MIB);
	assert_int_equal(vm_add_memory(vm, GPA(BASE), PAGES * PAGE_SIZE, 0), 0);
	id = vm_slot(vm, GPA(BASE))->id;
	assert_int_equal(vm_slot_dirty(vm, id, 0, PAGES, bits, &dirty), -EOPNOTSUPP);
	assert_int_equal(vm_slot_dirty(vm, id + 1, 0, PAGES, bits, &dirty), -ENOENT);
	map_at(BASE);
	assert_int_equal(vm_slot_flags(vm, id, SLOT_LOG_DIRTY), 0);
	assert_false(mapped(BASE));
	assert_int_equal(vm_slot_dirty(vm, id, 1, 5, bits, &dirty), -EINVAL);
	assert_int_equal(vm_slot_dirty(vm, id, 64, PAGES - 63, bits, &dirty), -EINVAL);
	memset(want, 0, sizeof(want));
	for (u32 round = 0; round < 300; round++) {
		u64 first = host_random(&seed) % (PAGES / 64) * 64;
		u64 n = 1 + host_random(&seed) % (PAGES - first), count = 0;

		for (u32 i = 0; i < round % 40; i++) {
			u64 page = host_random(&seed) % PAGES, at = BASE + page * PAGE_SIZE;
			u32 how = host_random(&seed) % 3;

			if (how == 0)
				guest_touches(at, ACCESS_R);
			else if (how == 1)
				guest_touches(at, ACCESS_W);
			else
				assert_int_equal(guest_write(vm, GPA(at + 0xfff), "ab",
							     page == PAGES - 1 ? 1 : 2),
						 0);
			want[page] |= how > 0;
			if (how == 2 && page < PAGES - 1)
				want[page + 1] = true;
		}
		assert_int_equal(vm_slot_dirty(vm, id, first, n, bits, &dirty), 0);
		for (u64 i = 0; i < n; i++) {
			assert_int_equal(bitmap_test(bits, (u32)i), want[first + i]);
			count += want[first + i];
			want[first + i] = false;
		}
		assert_int_equal(dirty, count);
	}
	/* Nothing written: nothing is flushed. */
	assert_int_equal(vm_slot_dirty(vm, id, 0, PAGES, bits, &dirty), 0);
	exits = vm->stage2.generation;
	assert_int_equal(vm_slot_dirty(vm, id, 0, PAGES, bits, &dirty), 0);
	assert_int_equal(dirty, 0);
	assert_int_equal(vm->stage2.generation, exits);
	assert_int_equal(vm_slot_flags(vm, id, 0), 0);
	assert_int_equal(frame_at_level(BASE + 2 * MIB - BASE % (2 * MIB)), 2);
	vm_free_memory(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_unwind),
		cmocka_unit_test(fills_by_model),
		cmocka_unit_test(fetching),
		cmocka_unit_test(bad_slots),
		cmocka_unit_test(changing_slots),
		cmocka_unit_test(bad_resolving),
		cmocka_unit_test(report),
		cmocka_unit_test(own_accesses),
		cmocka_unit_test(kinds_that_stop),
		cmocka_unit_test(no_progress),
		cmocka_unit_test(slot_goes_under_waiter),
		cmocka_unit_test(fetched_by_vcpu),
		cmocka_unit_test(dirty_by_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
