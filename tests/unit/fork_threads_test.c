/* SPDX-License-Identifier: MIT */
/*
 * Threads as vCPUs of two VMs that share what one of them had: what a VM writes it reads, by its
 * tables and through Corbel, on any of its vCPUs, and the other one never does.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/error.h"
#include "mm/audit.h"
#include "mm/phys.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "virt/guestmem.h"

#define VMS	2
#define THREADS 2 /* of each */
#define PARTS	3
#define PAGES	(PARTS * 512)
#define STEPS	6000

static struct vm second;
static struct vm *const vms[VMS] = { &fake_vm, &second };
static struct vcpu vcpus[VMS][THREADS];
/*
 * Each thread has a word of each page, which counts its writes; and what it has written is said
 * here afterwards, to the others of its VM.
 */
static u64 said[VMS][THREADS][PAGES];

static u64 first_value(u64 page, u32 thread)
{
	return page << 32 | thread << 16;
}

/* As the exit handler does it, where a fault comes again until the access is made. */
static void fault(struct vcpu *v, u64 gpa, u8 access)
{
	struct guest_frame f;
	int err = -EEXIST;

	HOST_CHECK(guest_frame(v->vm, GPA(gpa), access, &f) == MEMORY_OK);
	for (u8 level = f.level; err == -EEXIST && level; level--)
		err = f.inherited ? guest_map_inherited(v->vm, GPA(gpa), f.pfn, f.prot, level)
				  : stage2_map_leaf(&v->vm->stage2, GFN(gpa >> PAGE_SHIFT), f.pfn,
						    f.prot, level);
	HOST_CHECK(!err || err == -EEXIST);
}

static u64 *guest(struct vcpu *v, u64 gpa, u8 access)
{
	gfn_t gfn = GFN(gpa >> PAGE_SHIFT);
	struct stage2_leaf leaf;
	u32 faults = 0;

	while (!stage2_lookup(&v->vm->stage2, gfn, &leaf) || !(leaf.prot & access)) {
		fault(v, gpa, access);
		sched_yield(); /* to who copies the page just now */
		if (++faults == 100000) {
			HOST_CHECK(!"faults without end");
			exit(1);
		}
	}
	return (u64 *)((u8 *)pfn_ptr(stage2_leaf_pfn(&leaf, gfn)) + gpa % PAGE_SIZE);
}

/* By a device: it waits for the copy as for memory that is missing. */
static void device(struct vcpu *v, u64 gpa, const u16 *value)
{
	int err;

	while ((err = guest_write(v->vm, GPA(gpa), value, sizeof(*value))) == -EAGAIN)
		while (v->activity & VCPU_WAITS_MEMORY)
			(void)memory_wait_step(v);
	HOST_CHECK(!err);
}

static void *run(void *arg)
{
	struct vcpu *v = arg;
	u32 vm = v->vm == &second, me = v->index;
	u64 seed = host_seed() + vm * THREADS + me;

	fake_current = v;
	for (u32 i = 0; i < STEPS; i++) {
		u64 page = host_random(&seed) % PAGES, gpa = page * PAGE_SIZE;
		u32 who = (u32)(host_random(&seed) % THREADS), what = host_random(&seed) % 8;
		u64 at_least = __atomic_load_n(&said[vm][who][page], __ATOMIC_SEQ_CST), now;

		v->rip++;
		if (what < 2) {
			now = __atomic_load_n(&said[vm][me][page], __ATOMIC_SEQ_CST) + 1;
			gpa += me * sizeof(u64);
			if (what)
				__atomic_store_n((u16 *)guest(v, gpa, ACCESS_W), (u16)now,
						 __ATOMIC_SEQ_CST);
			else
				device(v, gpa, &(u16){ (u16)now });
			__atomic_store_n(&said[vm][me][page], now, __ATOMIC_SEQ_CST);
			continue;
		}
		now = __atomic_load_n(guest(v, gpa + who * sizeof(u64), ACCESS_R),
				      __ATOMIC_SEQ_CST);
		HOST_CHECK(now - first_value(page, who) >= at_least &&
			   now - first_value(page, who) <= at_least + STEPS);
		if (who == me)
			HOST_CHECK(now - first_value(page, who) == at_least);
	}
	return NULL;
}

static void open_vm(struct vm *vm, struct vcpu *v)
{
	vm->nr_vcpus = THREADS;
	for (u32 i = 0; i < THREADS; i++) {
		v[i] = (struct vcpu){ .vm = vm, .index = i };
		vm->vcpus[i] = &v[i];
	}
}

static void two_vms(void **state)
{
	pthread_t threads[VMS][THREADS];
	struct audit a = { 0 };

	(void)state;
	for (u32 round = 0; round < 10; round++) {
		fake_vm_open(128 * MIB);
		assert_int_equal(vm_add_memory(&fake_vm, GPA(0), PARTS * EXTENT_SIZE, 0), 0);
		for (u64 page = 0; page < PAGES; page++)
			for (u32 i = 0; i < THREADS; i++)
				*guest(&fake_vcpu.v, page * PAGE_SIZE + i * sizeof(u64), ACCESS_W) =
					first_value(page, i);
		fake_vm_add(&second, vm_new_id());
		assert_int_equal(vm_fork_memory(&fake_vm, &second), 0);
		memset(said, 0, sizeof(said));
		for (u32 vm = 0; vm < VMS; vm++) {
			open_vm(vms[vm], vcpus[vm]);
			vms[vm]->state = VM_RUNNING;
			for (u32 i = 0; i < THREADS; i++)
				pthread_create(&threads[vm][i], NULL, run, &vcpus[vm][i]);
		}
		for (u32 vm = 0; vm < VMS; vm++) {
			for (u32 i = 0; i < THREADS; i++)
				pthread_join(threads[vm][i], NULL);
			vms[vm]->state = VM_STOPPED;
		}
		assert_int_equal(host_failures, 0);
		assert_int_equal(fake_bugs, 0);
		audit_run(&a);
		assert_int_equal(a.findings, 0);
		vm_free_memory(&second);
		stage2_destroy(&second.stage2);
		vm_free_memory(&fake_vm);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(two_vms) };

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
