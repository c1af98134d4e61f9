/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts: senders on threads of their own, against a vCPU whose CPU is a thread, too: it
 * enters and leaves guest mode, sleeps, and collects what was posted when it is notified, as the
 * SDM says ("Posted-Interrupt Processing"). No interrupt may get lost, and the EOI of each that is
 * level-triggered must exit. Under ThreadSanitizer, with the real LAPIC and the real requests.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "arch/x86/ipi.h"
#include "dev/lapic.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "tests/unit/host.h"
#include "virt/ops.h"
#include "virt/state.h"

#define SENDERS	 4
#define ROUNDS	 20000
#define PATIENCE 60 /* seconds, for a machine with much else to do */

static const u8 vector_of[SENDERS] = { 0x31, 0x33, 0x93, 0x74 };
#define LEVEL 3 /* who of them */

static struct vm vm;
static struct vcpu vcpu;
static struct lapic *lapic;
/* The CPU: what its own APIC has for it, and what VMX keeps of the guest's interrupts. */
static bool kicked, notified;
static bool halts, changes; /* what the vCPU does */
static u8 rvi;
static u32 eoi_exit[8];
static u64 seed, exits_by_kick;
static bool served[SENDERS];
static u32 running; /* senders */

/* Of virt/sched.h, which has another sched_yield(), too. */
void sched_enqueue(struct vcpu *v);
void sched_resume(struct vcpu *v);

void ipi_kick(u32 cpu)
{
	(void)cpu;
	__atomic_store_n(&kicked, true, __ATOMIC_SEQ_CST);
}

void ipi_notify(u32 cpu)
{
	(void)cpu;
	__atomic_store_n(&notified, true, __ATOMIC_SEQ_CST);
}

void sched_enqueue(struct vcpu *v)
{
	__atomic_store_n(&v->state, VCPU_RUNNABLE, __ATOMIC_SEQ_CST);
}

void sched_resume(struct vcpu *v)
{
	(void)v;
	HOST_CHECK(!"nobody asks for a stop");
}

void lapic_timer_create(struct lapic *l)
{
	(void)l;
}

void lapic_timer_reset(struct lapic *l)
{
	(void)l;
}

void lapic_eoi_broadcast(struct vm *v, u8 vector)
{
	(void)v, (void)vector;
}

/* Nothing is saved or loaded here. */
bool state_fields(struct state *s, const char *name, u32 index, void *base,
		  const struct state_field *fields, u32 nr)
{
	(void)s, (void)name, (void)index, (void)base, (void)fields, (void)nr;
	return false;
}

bool lapic_check(struct lapic *l, struct state *s)
{
	(void)l, (void)s;
	return false;
}

void lapic_timer_restore(struct lapic *l)
{
	(void)l;
}

u64 read_flags(void)
{
	return 0;
}

void irq_disable(void)
{
}

void irq_enable(void)
{
}

void *frame_alloc_zero(enum frame_kind kind, u16 id)
{
	(void)kind, (void)id;
	return memset(aligned_alloc(PAGE_SIZE, PAGE_SIZE), 0, PAGE_SIZE);
}

int frame_free(pfn_t f, enum frame_kind kind, u16 id)
{
	(void)kind, (void)id;
	free(pfn_ptr(f));
	return 0;
}

static void apicv(struct vcpu *v, const void *page, const void *posted, u8 in_service)
{
	assert_ptr_equal(page, lapic->regs);
	assert_ptr_equal(posted, &lapic->posted[0]);
	assert_int_equal((uintptr_t)posted % 64, 0);
	assert_int_equal(in_service, 0);
	v->apicv = true;
	WRITE_ONCE(v->posts, true);
}

static void apicv_requested(struct vcpu *v, u8 requested)
{
	(void)v;
	rvi = requested;
	for (u32 i = 0; i < 8; i++)
		eoi_exit[i] = lapic_peek(lapic, APIC_TMR + i * 16);
}

static const struct virt_ops ops = { .apicv = apicv, .apicv_requested = apicv_requested };
const struct virt_ops *virt_ops = &ops;

static u8 highest_requested(void)
{
	for (u32 vector = 255; vector; vector--)
		if (*lapic_reg(lapic, APIC_IRR + vector / 32 * 16) >> vector % 32 & 1)
			return (u8)vector;
	return 0;
}

/* SDM "Posted-Interrupt Processing" */
static void process_posted(void)
{
	struct lapic_posted *p = &lapic->posted[0];

	__atomic_fetch_and(&p->any, ~1u, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < 8; i++)
		*lapic_reg(lapic, APIC_IRR + i * 16) |=
			__atomic_exchange_n(&p->bits[i], 0, __ATOMIC_SEQ_CST);
	rvi = MAX(rvi, highest_requested());
}

/* SDM "Virtual-Interrupt Delivery", and a handler that ends at once. */
static void deliver(void)
{
	while (rvi) {
		u32 n = 0, *irr = lapic_reg(lapic, APIC_IRR + rvi / 32 * 16);
		bool exits = eoi_exit[rvi / 32] >> rvi % 32 & 1;

		while (n < SENDERS && vector_of[n] != rvi)
			n++;
		HOST_CHECK(n < SENDERS && *irr >> rvi % 32 & 1);
		HOST_CHECK(exits == (n == LEVEL));
		*irr &= ~(1u << rvi % 32);
		rvi = highest_requested();
		__atomic_store_n(&served[n], true, __ATOMIC_SEQ_CST);
	}
}

static void guest_mode(void)
{
	bool takes = READ_ONCE(vcpu.posts);

	for (u64 left = host_random(&seed) % 64; left; left--) {
		deliver();
		if (__atomic_exchange_n(&kicked, false, __ATOMIC_SEQ_CST)) {
			exits_by_kick++;
			return;
		}
		if (__atomic_exchange_n(&notified, false, __ATOMIC_SEQ_CST)) {
			if (!takes)
				return;
			process_posted();
		}
		if (left % 8 == 0)
			sched_yield();
	}
}

/* As the run loop and the scheduler: until somebody wakes it. False: nobody does. */
static bool sleeps(void)
{
	u8 halted = VCPU_HALTED;

	__atomic_store_n(&vcpu.state, VCPU_HALTED, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vcpu.requests, __ATOMIC_SEQ_CST) &&
	    __atomic_compare_exchange_n(&vcpu.state, &halted, VCPU_STOPPED, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		sched_enqueue(&vcpu);
	for (time_t end = time(NULL) + PATIENCE;
	     __atomic_load_n(&vcpu.state, __ATOMIC_SEQ_CST) != VCPU_RUNNABLE &&
	     __atomic_load_n(&running, __ATOMIC_SEQ_CST);) {
		if (time(NULL) > end)
			return false;
		sched_yield();
	}
	__atomic_store_n(&vcpu.state, VCPU_RUNNING, __ATOMIC_SEQ_CST);
	return true;
}

/* Once through the run loop. */
static bool step(void)
{
	__atomic_store_n(&vcpu.in_guest, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&vcpu.requests, __ATOMIC_SEQ_CST))
		guest_mode();
	WRITE_ONCE(vcpu.in_guest, 0);
	if (host_random(&seed) % 2) { /* the host takes its interrupts */
		__atomic_store_n(&notified, false, __ATOMIC_SEQ_CST);
		__atomic_store_n(&kicked, false, __ATOMIC_SEQ_CST);
	}
	if (changes && host_random(&seed) % 16 == 0) /* to a CPU without, or with */
		WRITE_ONCE(vcpu.posts, !vcpu.posts);
	if (!halts || host_random(&seed) % 4)
		return !(__atomic_exchange_n(&vcpu.requests, 0, __ATOMIC_SEQ_CST) & REQ_EVENT) ||
		       lapic_pending(&vcpu) >= -1;
	vcpu_request_own(&vcpu, REQ_EVENT); /* HLT */
	__atomic_exchange_n(&vcpu.requests, 0, __ATOMIC_SEQ_CST);
	return lapic_pending(&vcpu) >= 0 || sleeps();
}

static bool send_all(u32 n)
{
	for (u32 round = 0; round < ROUNDS; round++) {
		time_t end = time(NULL) + PATIENCE;

		lapic_accept(lapic, vector_of[n], n == LEVEL);
		while (!__atomic_exchange_n(&served[n], false, __ATOMIC_SEQ_CST)) {
			if (time(NULL) > end)
				return false;
			sched_yield();
		}
	}
	return true;
}

static void *sender(void *arg)
{
	bool all_came = send_all((u32)(uintptr_t)arg);

	HOST_CHECK(all_came);
	__atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void run(u32 senders)
{
	pthread_t thread[SENDERS];
	bool awake = true;

	memset(&vcpu, 0, sizeof(vcpu));
	vcpu.vm = &vm;
	exits_by_kick = 0;
	seed = host_seed();
	vm.apicv = true;
	assert_int_equal(lapic_create(&vcpu), 0);
	lapic = lapic_of(&vcpu);
	lapic->base |= APIC_BASE_X2APIC;
	*lapic_reg(lapic, APIC_SVR) |= APIC_SVR_ENABLE;
	lapic_follow_mode(lapic);
	assert_true(vcpu.apicv);
	vcpu.state = VCPU_RUNNING;
	running = senders;
	for (u32 n = 0; n < senders; n++)
		assert_int_equal(pthread_create(&thread[n], NULL, sender, (void *)(uintptr_t)n), 0);
	while (awake && __atomic_load_n(&running, __ATOMIC_SEQ_CST))
		awake = step();
	assert_true(awake);
	for (u32 n = 0; n < senders; n++)
		pthread_join(thread[n], NULL);
	assert_int_equal(host_failures, 0);
	lapic_destroy(&vcpu);
}

/* Nothing but notifications: what they do not bring, nobody else does. */
static void only_posted(void **state)
{
	(void)state;
	halts = changes = false;
	run(LEVEL);
	assert_int_equal(exits_by_kick, 0);
	assert_true(vcpu.notified > ROUNDS / 100);
}

static void none_is_lost(void **state)
{
	(void)state;
	halts = false;
	changes = true;
	run(SENDERS);
	assert_true(vcpu.notified > ROUNDS / 100);
	assert_true(exits_by_kick > ROUNDS / 100);
}

static void nobody_sleeps_on(void **state)
{
	(void)state;
	halts = changes = true;
	run(SENDERS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_posted),
		cmocka_unit_test(none_is_lost),
		cmocka_unit_test(nobody_sleeps_on),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
