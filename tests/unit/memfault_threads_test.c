/* SPDX-License-Identifier: MIT */
/* Threads as vCPUs that miss memory, while others resolve it, and while slots change. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define THREADS 4
#define PARTS	16

static struct vm *const vm = &fake_vm;
static struct vcpu vcpus[THREADS];
static bool stop;

static int fetch(const struct backing_source *source, struct backing_fetch *f)
{
	(void)source;
	if (f->state[0]++ < 2)
		return -EAGAIN;
	for (u64 i = 0; i < f->size; i += PAGE_SIZE)
		memset((u8 *)f->to + i, (int)((f->offset + i) >> PAGE_SHIFT) & 0xff, PAGE_SIZE);
	return 0;
}
static const struct backing_source source = { .name = "s", .piece = EXTENT_SIZE, .fetch = fetch };

static void open_vm(void)
{
	fake_vm_open(128 * MIB);
	memset(vcpus, 0, sizeof(vcpus));
	stop = false;
	vm->nr_vcpus = THREADS;
	for (u32 i = 0; i < THREADS; i++) {
		vcpus[i].vm = vm;
		vcpus[i].index = i;
		vm->vcpus[i] = &vcpus[i];
	}
	assert_int_equal(vm_add_memory(vm, GPA(0), PARTS * EXTENT_SIZE, SLOT_EXIT_ON_MISSING), 0);
	vm->state = VM_RUNNING;
}

/* As the run loop does it. */
static int access(struct vcpu *v, u64 gpa, u8 *value)
{
	int err;

	while ((err = guest_read(vm, GPA(gpa), value, 1)) == -EAGAIN) {
		while (v->activity & VCPU_WAITS_MEMORY) {
			if (__atomic_exchange_n(&v->requests, 0, __ATOMIC_SEQ_CST) & REQ_MEMORY)
				memory_wait_end(v);
			else if (!memory_wait_step(v))
				spin_poll_hook();
		}
	}
	return err;
}

static void *reader(void *arg)
{
	struct vcpu *v = arg;
	u64 seed = host_seed() + v->index;

	fake_current = v;
	v->rip = 0x1000 + v->index;
	for (u32 i = 0; i < 800; i++) {
		u64 page = host_random(&seed) % (PARTS * 512);
		u8 value = 0;

		v->rip++;
		HOST_CHECK(!access(v, page * PAGE_SIZE + 5, &value));
		HOST_CHECK(value == (page & 0xff));
	}
	return NULL;
}

/*
 * Every piece is fetched once, whoever wants it. Nothing on the way takes a lock that faults on
 * other ranges take: the VMs' list and the frames' are held meanwhile.
 */
static void one_fetch_without_locks(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (u32 round = 0; round < 5; round++) {
		open_vm();
		vm_slot(vm, GPA(0))->backing->source = &source;
		spin_lock(&vm_list_lock);
		for (u32 i = 0; i < THREADS; i++)
			pthread_create(&threads[i], NULL, reader, &vcpus[i]);
		for (u32 i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		spin_unlock(&vm_list_lock);
		assert_int_equal(host_failures, 0);
		assert_int_equal(vm_slot(vm, GPA(0))->backing->fetched, PARTS);
		assert_int_equal(vm_slot(vm, GPA(0))->backing->users, 1);
		vm->state = VM_STOPPED;
		vm_free_memory(vm);
	}
}

/* Linked with --wrap=spin_lock: which locks this thread took since it set `recorded` to 0. */
#define RECORD 4
static __thread const struct spinlock *record[RECORD];
static __thread u32 recorded = RECORD + 1;
static const struct spinlock *records[THREADS][RECORD];
static pthread_barrier_t warm;

void __real_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l);
void __wrap_spin_lock(struct spinlock *l)
{
	u32 i = 0;

	__real_spin_lock(l);
	while (i < recorded && i < RECORD && record[i] != l)
		i++;
	if (i == recorded && i < RECORD)
		record[recorded++] = l;
	HOST_CHECK(recorded > RECORD || i < RECORD); /* that many are none of its own */
}

static int fetch_page(const struct backing_source *of, struct backing_fetch *f)
{
	(void)of;
	memset(f->to, 1, f->size);
	return 0;
}
static const struct backing_source by_pages = { .name = "p",
						.piece = PAGE_SIZE,
						.fetch = fetch_page };

/* As the exit does it, from the page that is missing to its leaf. */
static void fault(struct vcpu *v, u64 gpa)
{
	const struct memory_fault missing = { .gpa = GPA(gpa),
					      .access = ACCESS_W,
					      .kind = MEMORY_MISSING };
	struct guest_frame f;

	v->rip++;
	HOST_CHECK(guest_frame(vm, GPA(gpa), ACCESS_W, &f) == MEMORY_MISSING);
	memory_fault(v, &missing);
	while (v->activity & VCPU_WAITS_MEMORY)
		HOST_CHECK(memory_wait_step(v));
	HOST_CHECK(guest_frame(vm, GPA(gpa), ACCESS_W, &f) == MEMORY_OK);
	HOST_CHECK(!stage2_map_leaf(&vm->stage2, gpa_gfn(GPA(gpa)), f.pfn, f.prot, 1));
}

static void *faulter(void *arg)
{
	struct vcpu *v = arg;
	u64 from = v->index * EXTENT_SIZE;

	fake_current = v;
	fault(v, from); /* needs tables, from the frames that all share */
	pthread_barrier_wait(&warm);
	recorded = 0;
	for (u64 gpa = from + PAGE_SIZE; gpa < from + EXTENT_SIZE; gpa += PAGE_SIZE)
		fault(v, gpa);
	memcpy(records[v->index], record, recorded * sizeof(record[0]));
	HOST_CHECK(recorded);
	recorded = RECORD + 1;
	return NULL;
}

/* Faults in different 2 MiB: no lock is taken by two vCPUs, from the miss to the leaf. */
static void ranges_share_no_lock(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	open_vm();
	vm_slot(vm, GPA(0))->backing->source = &by_pages;
	memset(records, 0, sizeof(records));
	pthread_barrier_init(&warm, NULL, THREADS);
	for (u32 i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, faulter, &vcpus[i]);
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(host_failures, 0);
	for (u32 a = 0; a < THREADS * RECORD; a++)
		for (u32 b = a + 1; b < THREADS * RECORD; b++)
			if (records[a / RECORD][a % RECORD])
				assert_ptr_not_equal(records[a / RECORD][a % RECORD],
						     records[b / RECORD][b % RECORD]);
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

/* What waits, by hand: all that wait are woken, none is forgotten. */
static void *operator(void *arg)
{
	static u8 page[PAGE_SIZE];

	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		for (u32 i = 0; i < THREADS; i++) {
			u64 offset;
			u32 woken;

			if (!__atomic_load_n(&vcpus[i].wait.backing, __ATOMIC_SEQ_CST))
				continue;
			offset = ALIGN_DOWN(READ_ONCE(vcpus[i].wait.offset), PAGE_SIZE);
			memset(page, (int)(offset >> PAGE_SHIFT) & 0xff, sizeof(page));
			(void)vm_resolve(vm, GPA(offset), PAGE_SIZE, FILL_COPY, page, &woken);
		}
		spin_poll_hook();
	}
	return NULL;
}

static void resolved_by_hand(void **state)
{
	pthread_t threads[THREADS], op;

	(void)state;
	open_vm();
	pthread_create(&op, NULL, operator, NULL);
	for (u32 i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, reader, &vcpus[i]);
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	pthread_join(op, NULL);
	assert_int_equal(host_failures, 0);
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
}

/* A slot is at one of two places, or for a moment at neither; what is read there is its own. */
#define PLACE(n) (256 * MIB + (n)*16 * MIB)

/* A vCPU of the VM, which looks at its requests now and then; or somebody else's (NULL). */
static void *watcher(void *arg)
{
	struct vcpu *v = arg;
	u64 seed = host_seed() + (v ? v->index : THREADS), seen = 0;

	fake_current = v;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		u64 page = host_random(&seed) % 1024, place = PLACE(host_random(&seed) % 2);
		struct guest_frame f;
		u8 value = 0;
		int err = guest_read(vm, GPA(place + page * PAGE_SIZE), &value, 1);

		HOST_CHECK(!err || err == -EFAULT);
		HOST_CHECK(err || value == (page & 0xff));
		seen += !err;
		if (!v)
			continue;
		if (guest_frame(vm, GPA(place), ACCESS_R, &f) == MEMORY_OK)
			HOST_CHECK(frame_owner(f.pfn).kind == FRAME_GUEST);
		if (__atomic_exchange_n(&v->requests, 0, __ATOMIC_SEQ_CST) & REQ_SLOTS)
			v->slot_hint = vm_slots(vm)->slot;
	}
	HOST_CHECK(seen);
	return NULL;
}

static void slots_change_under_readers(void **state)
{
	pthread_t threads[THREADS], other;
	struct backing *b;
	u16 id;

	(void)state;
	open_vm();
	assert_int_equal(backing_create(4 * MIB, 9, true, &b), 0);
	assert_int_equal(vm_slot_add(vm, GPA(PLACE(0)), 4 * MIB, b, 0, SLOT_SHARED, &id), 0);
	for (u64 page = 0; page < 1024; page++)
		assert_int_equal(guest_fill(vm, GPA(PLACE(0) + page * PAGE_SIZE), (u8)page, 1), 0);
	pthread_create(&other, NULL, watcher, NULL);
	for (u32 i = 0; i < THREADS; i++) {
		vcpus[i].state = VCPU_RUNNING;
		pthread_create(&threads[i], NULL, watcher, &vcpus[i]);
	}
	for (u32 i = 0; i < 100; i++) {
		u16 more;

		HOST_CHECK(!vm_slot_move(vm, id, GPA(PLACE((i + 1) % 2))));
		HOST_CHECK(!vm_slot_flags(vm, id, i % 3 ? SLOT_READONLY : 0));
		HOST_CHECK(!vm_slot_add(vm, GPA(GIB), 2 * MIB, b, 2 * MIB, 0, &more));
		HOST_CHECK(!vm_slot_remove(vm, more));
	}
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(other, NULL);
	assert_int_equal(host_failures, 0);
	vm->state = VM_STOPPED;
	vm_free_memory(vm);
	while (backing_free_step(b))
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_fetch_without_locks),
		cmocka_unit_test(ranges_share_no_lock),
		cmocka_unit_test(resolved_by_hand),
		cmocka_unit_test(slots_change_under_readers),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
