/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a guest's #AC: policies, the virtual MSR_TEST_CTRL, the pass as a vCPU sees it.
 * The numbers at the tests are those of the events in docs/SPLIT_LOCK.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/split_lock.h"
#include "lib/error.h"
#include "lib/log.h"
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"

#define DETECT BIT(29)
#define AC     BIT(18)
#define AM     BIT(18)
#define RIP    0x1000u

/* ---- Under it ---- */

u32 tsc_khz = 1000; /* a microsecond is a tick */
static u64 tsc;
static enum split_lock_state machine;
static bool takes_part, in_pass, pass_lasts, offered;
static u32 begun, ended, injected, stops, requests, lines;
static u8 cpl, last_vector;
static const struct timer *armed;

u64 rdtsc(void)
{
	return tsc;
}

enum split_lock_state split_lock_state(void)
{
	return machine;
}

bool split_lock_takes_part(void)
{
	return takes_part;
}

void split_lock_offered(void)
{
	offered = true;
}

bool split_lock_pass_begin(void)
{
	begun++;
	return in_pass = machine == SPLIT_LOCK_ON;
}

bool split_lock_pass_end(void)
{
	bool was = in_pass && pass_lasts;

	ended++;
	in_pass = false;
	return was;
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	t->fire = fire;
}

void timer_arm(struct timer *t, u64 deadline)
{
	t->deadline = deadline;
	armed = t;
}

u8 vcpu_cpl(struct vcpu *v)
{
	(void)v;
	return cpl;
}

void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	v->event = (struct event){
		.valid = true, .type = EVENT_EXCEPTION, .vector = vector, .has_error = has_error
	};
	assert_int_equal(error, 0);
	last_vector = vector;
	injected++;
}

void vcpu_request(struct vcpu *v, u32 what)
{
	(void)v;
	requests |= what;
}

void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	(void)vm, (void)fmt;
	assert_int_equal(why, STOP_SPLIT_LOCK);
	stops++;
}

static void sink(enum log_level level, const char *line, size_t len)
{
	(void)level, (void)line, (void)len;
	lines++;
}

/* ---- A VM that starts, and its #AC ---- */

static struct vcpu *start(enum split_policy policy, u32 rate)
{
	fake_vm_open(64 * MIB);
	machine = SPLIT_LOCK_ON;
	takes_part = pass_lasts = true;
	in_pass = offered = false;
	begun = ended = injected = stops = requests = lines = 0;
	cpl = 0;
	tsc = 5000000;
	armed = NULL;
	fake_bus_locks_exit = false;
	fake_bus_locks = BUS_LOCKS_FREE;
	memset(fake_traced, 0, sizeof(fake_traced));
	this_cpu(trace_ring).classes = BIT(TRACE_CLASS_SPLIT);
	log_sink = sink;
	log_sink_level = LOG_DEBUG;
	split_set_policy(&fake_vm, policy, rate);
	split_vm_start(&fake_vm);
	requests = 0;
	fake_vcpu.v.rip = RIP;
	return &fake_vcpu.v;
}

static bool fault(struct vcpu *v)
{
	v->exit = (struct vm_exit){ .kind = EXIT_EXCEPTION };
	v->exit.exception.vector = 17;
	return split_fault(v);
}

static void exit_with(struct vcpu *v, enum exit_kind kind)
{
	v->exit = (struct vm_exit){ .kind = (u8)kind };
	if (v->want_step & STEP_SPLIT)
		split_after_exit(v);
}

/* The trace has an event for each. */
static void all_traced(void)
{
	const struct vm_split *s = &fake_vm.split;

	assert_int_equal(fake_traced[TRACE_SPLIT_LOCK], s->seen);
	assert_int_equal(fake_traced[TRACE_SPLIT_INJECTED], s->injected);
	assert_int_equal(fake_traced[TRACE_SPLIT_PASSED], s->passed);
	assert_int_equal(fake_traced[TRACE_SPLIT_DELAYED], s->delayed);
	assert_int_equal(fake_traced[TRACE_SPLIT_FATAL], s->fatal);
	assert_int_equal(fake_traced[TRACE_BUS_LOCK], s->bus_locks);
}

/* 13: always the guest's, unchanged; also if it is aware, also if the access splits a lock */
static void legacy_goes_through(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	cpl = 3;
	v->rflags = AC;
	fake_vcpu.reg[VR_CR0] = AM;
	assert_false(fault(v));
	v->split.test_ctrl = DETECT;
	assert_false(fault(v));
	v->split.test_ctrl = 0;
	machine = SPLIT_LOCK_OFF;
	assert_false(fault(v));
	assert_int_equal(fake_vm.split.seen, 0);
	/* each of the three conditions counts */
	machine = SPLIT_LOCK_ON;
	cpl = 2;
	assert_true(fault(v));
	cpl = 3;
	v->rflags = 0;
	assert_true(fault(v));
	v->rflags = AC;
	fake_vcpu.reg[VR_CR0] = 0;
	assert_true(fault(v));
	assert_int_equal(stops, 3);
}

static void machine_without(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	takes_part = false;
	assert_false(fault(v)); /* as before there was any of this */
	assert_int_equal(begun + stops, 0);
}

/* 14 */
static void aware_guest_handles_its_own(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	assert_int_equal(split_write_msr(v, DETECT), 0);
	assert_true(fault(v));
	assert_int_equal(injected, 1);
	assert_int_equal(last_vector, 17);
	assert_true(v->event.has_error);
	assert_int_equal(begun + stops, 0);
	assert_int_equal(fake_vm.split.injected, 1);
	assert_int_equal(fake_vm.split.seen, 1);
	all_traced();
}

/* 15: silent, and 26 */
static void silent_lets_it_pass(void **state)
{
	struct vcpu *v = start(SPLIT_SILENT, 0);

	(void)state;
	for (u32 i = 0; i < 3; i++) {
		v->rip = RIP;
		assert_true(fault(v));
		split_after_exit(v); /* the #AC's own exit */
		assert_true(v->want_step && in_pass);
		v->rip = RIP + 4;
		exit_with(v, EXIT_STEP);
		assert_false(v->want_step || in_pass);
	}
	assert_int_equal(fake_vm.split.seen, 3);
	assert_int_equal(fake_vm.split.passed, 3);
	assert_int_equal(lines, 1); /* it was offered the feature, and left it off */
	assert_int_equal(injected + stops, 0);
}

static void warn_is_one_line(void **state)
{
	struct vcpu *v = start(SPLIT_WARN, 0);

	(void)state;
	for (u32 i = 0; i < 3; i++) {
		v->rip = RIP;
		assert_true(fault(v));
		exit_with(v, EXIT_STEP);
	}
	assert_int_equal(lines, 1);
	assert_int_equal(fake_vm.split.passed, 3);
}

static void fatal_stops_the_vm(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	assert_true(fault(v));
	assert_int_equal(stops, 1);
	assert_int_equal(begun, 0);
	assert_int_equal(fake_vm.split.fatal, 1);
	all_traced();
}

/* 8: punish nobody */
static void spurious_is_retried(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	machine = SPLIT_LOCK_OFF;
	v->split.test_ctrl = DETECT;
	assert_true(fault(v));
	machine = SPLIT_LOCK_UNSUPPORTED; /* withdrawn */
	assert_true(fault(v));
	assert_int_equal(stops + injected, 0);
	assert_int_equal(fake_vm.split.seen, 0);
	assert_false(v->want_step);
}

/* 16: the event stays queued and is delivered, whatever the policy and the guest say */
static void during_event_delivery(void **state)
{
	struct vcpu *v = start(SPLIT_FATAL, 0);

	(void)state;
	v->split.test_ctrl = DETECT;
	v->event = (struct event){ .valid = true, .vector = 0x40 };
	assert_true(fault(v));
	assert_int_equal(injected + stops, 0);
	assert_true(v->event.valid && v->event.vector == 0x40);
	assert_true(v->want_step);
}

/* 20, 21, 28, 34: what comes before the instruction, and what ends the pass without it */
static void exits_during_a_pass(void **state)
{
	struct vcpu *v = start(SPLIT_SILENT, 0);

	(void)state;
	assert_true(fault(v));
	exit_with(v, EXIT_IRQ);
	exit_with(v, EXIT_STAGE2_FAULT);
	exit_with(v, EXIT_NMI_WINDOW);
	exit_with(v, EXIT_NMI); /* or a machine check: the host's, and first */
	assert_true(v->want_step && in_pass);
	assert_true(fault(v)); /* it expired before the vCPU ran: once more */
	split_after_exit(v);
	assert_true(v->want_step);
	assert_int_equal(begun, 2);

	split_put(v); /* another vCPU's turn, or the VM is dead */
	assert_false(v->want_step || in_pass);
	assert_int_equal(fake_vm.split.passed, 0);
	split_put(v);
	assert_int_equal(ended, 1);

	assert_true(fault(v));
	v->exit.exception.vector = 14; /* the guest's own fault at that instruction */
	split_after_exit(v);
	assert_false(v->want_step || in_pass);

	assert_true(fault(v));
	v->rip = RIP + 7; /* 27: Corbel has executed it on a device */
	exit_with(v, EXIT_STAGE2_FAULT);
	assert_false(v->want_step || in_pass);

	v->rip = RIP;
	assert_true(fault(v));
	pass_lasts = false; /* it was cancelled meanwhile: not counted as passed */
	exit_with(v, EXIT_STEP);
	assert_int_equal(fake_vm.split.passed, 2);
}

/* 22 to 25 */
static void what_the_guest_is_told(void **state)
{
	struct vcpu *v = start(SPLIT_SILENT, 0);
	u64 value;

	(void)state;
	assert_true(offered && fake_vm.split.offered);
	assert_true(fake_policy.leaf7[0].edx & BIT(30));
	assert_int_equal(split_read_msr(v, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(split_write_msr(v, BIT(31)), -EINVAL);
	assert_int_equal(split_write_msr(v, DETECT | 1), -EINVAL);
	assert_int_equal(split_write_msr(v, DETECT), 0);
	assert_int_equal(split_read_msr(v, &value), 0);
	assert_int_equal(value, DETECT);
	machine = SPLIT_LOCK_OFF; /* what it was told stays until it starts again */
	assert_int_equal(split_write_msr(v, 0), 0);
	assert_true(fake_policy.leaf7[0].edx & BIT(30));
	offered = false;
	split_vm_start(&fake_vm);
	assert_false(offered || fake_vm.split.offered || fake_policy.leaf7[0].edx & BIT(30));
	assert_int_equal(split_read_msr(v, &value), -ENXIO);
	assert_int_equal(split_write_msr(v, 0), -ENXIO);
	machine = SPLIT_LOCK_ON;
	split_set_policy(&fake_vm, SPLIT_OFF, 0);
	split_vm_start(&fake_vm);
	assert_int_equal(split_read_msr(v, &value), -ENXIO);
	assert_true(fault(v)); /* and its split locks pass */
	assert_true(v->want_step);
}

/* One in 10 ms: the first passes, the next waits for its turn and has it, whatever comes between.
 */
static void rate_is_kept(void **state)
{
	struct vcpu *v = start(SPLIT_RATELIMIT, 100);
	u64 turn = tsc + 10000;

	(void)state;
	assert_true(fault(v));
	assert_true(v->want_step);
	exit_with(v, EXIT_STEP);
	assert_true(fault(v));
	assert_false(v->want_step);
	assert_int_equal(v->activity, VCPU_DELAYED);
	assert_int_equal(armed->deadline, turn);
	v->activity = VCPU_ACTIVE; /* an interrupt: it comes back to the same instruction */
	tsc += 4000;
	assert_true(fault(v));
	assert_int_equal(v->activity, VCPU_DELAYED);
	assert_int_equal(v->split.until, turn); /* it has not lost its place */
	split_delay_over(v);
	assert_int_equal(v->activity, VCPU_DELAYED); /* too early */
	tsc = turn;
	v->split.timer.fire(&v->split.timer);
	assert_int_equal(requests, REQ_DELAY);
	split_delay_over(v);
	assert_int_equal(v->activity, VCPU_ACTIVE);
	assert_true(fault(v));
	assert_true(v->want_step);
	assert_int_equal(fake_vm.split.seen, 2);
	assert_int_equal(fake_vm.split.delayed, 1);
	all_traced();
	split_delay_over(v); /* late: nothing */
	assert_int_equal(v->activity, VCPU_ACTIVE);
}

/* 32: two vCPUs of a VM share its rate; another VM has its own */
static void rates_are_apart(void **state)
{
	static struct vcpu second, other;
	static struct vm other_vm;
	struct vcpu *v = start(SPLIT_RATELIMIT, 1);

	(void)state;
	second = other = (struct vcpu){ .rip = RIP };
	second.vm = &fake_vm;
	other_vm.split = fake_vm.split;
	other.vm = &other_vm;
	assert_true(fault(v));
	for (u32 i = 0; i < 1000; i++) { /* each waits longer: none is passed over */
		u64 before = v->split.until;

		v->split.waits = false;
		v->activity = VCPU_ACTIVE;
		exit_with(v, EXIT_STEP);
		assert_true(fault(v));
		assert_true(v->split.until > before);
	}
	assert_true(fault(&second));
	assert_int_equal(second.split.until, v->split.until + 1000000);
	assert_true(fault(&other));
	assert_true(other.want_step);
}

/* A machine without detection, whose CPUs stop before a bus lock, as SVM's do, or behind it. */
static struct vcpu *start_bus_locks(enum split_policy policy, u32 rate)
{
	struct vcpu *v = start(policy, rate);

	machine = SPLIT_LOCK_UNSUPPORTED;
	takes_part = false;
	fake_bus_locks_exit = true;
	split_vm_start(&fake_vm);
	split_load(v);
	return v;
}

static void bus_lock(struct vcpu *v)
{
	v->activity = VCPU_ACTIVE;
	fake_bus_locks = BUS_LOCKS_EXIT;
	v->exit = (struct vm_exit){ .kind = EXIT_BUS_LOCK };
	split_bus_lock(v);
}

/* Where no split lock is #AC, and beside that for a rate; never if it is off. */
static void when_bus_locks_exit(void **state)
{
	struct vcpu *v = start_bus_locks(SPLIT_SILENT, 0);

	(void)state;
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	assert_false(fake_vm.split.offered);
	fake_vm.nr_vcpus = 1;
	split_set_policy(&fake_vm, SPLIT_OFF, 0);
	assert_int_equal(requests, REQ_RESCHED);
	split_load(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_FREE);
	machine = SPLIT_LOCK_ON;
	split_set_policy(&fake_vm, SPLIT_WARN, 0);
	split_load(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_FREE);
	split_set_policy(&fake_vm, SPLIT_RATELIMIT, 1);
	split_load(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	machine = SPLIT_LOCK_OFF; /* whoever turned it off: the next one finds out */
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_FREE);
	assert_int_equal(fake_vm.split.bus_locks, 0);
	v = start(SPLIT_WARN, 0); /* neither: said once */
	machine = SPLIT_LOCK_UNSUPPORTED;
	split_vm_start(&fake_vm);
	split_load(v);
	assert_int_equal(lines, 1);
	assert_false(v->split.bus_exits);
}

/* 30: one for each exit, and only there: who waits is not let through, and comes again */
static void bus_locks_before_they_happen(void **state)
{
	struct vcpu *v = start_bus_locks(SPLIT_RATELIMIT, 100);
	u64 turn = tsc + 10000;

	(void)state;
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_ONE);
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	assert_int_equal(v->activity, VCPU_DELAYED);
	tsc = turn - 1; /* an interrupt, whose handler does one as well */
	v->rip = RIP + 100;
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	v->rip = RIP;
	tsc = turn;
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_ONE);
	assert_int_equal(fake_vm.split.bus_locks, 2);
	assert_int_equal(fake_vm.split.passed, 2);
	assert_int_equal(fake_vm.split.delayed, 1);
	assert_false(v->want_step || begun);
	v->event.valid = true; /* while an event was delivered: it is delivered again */
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_ONE);
	v->event.valid = false;
	split_set_policy(&fake_vm, SPLIT_FATAL, 0);
	bus_lock(v);
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	assert_int_equal(stops, 1);
	all_traced();
}

/* 29: it has happened; what follows it waits, with no claim to its own */
static void bus_locks_after_they_happened(void **state)
{
	struct vcpu *v = start_bus_locks(SPLIT_RATELIMIT, 100);
	u64 turn = tsc + 10000;

	(void)state;
	split_bus_locked(v);
	assert_int_equal(v->activity, VCPU_ACTIVE);
	split_bus_locked(v);
	assert_int_equal(v->activity, VCPU_DELAYED);
	assert_int_equal(armed->deadline, turn);
	assert_false(v->split.waits);
	v->activity = VCPU_ACTIVE; /* an interrupt ended that wait: the debt stays */
	split_bus_locked(v);
	assert_int_equal(armed->deadline, turn + 10000);
	v->activity = VCPU_IN_HLT; /* it sleeps anyway, and nothing but the guest's wakes it */
	split_bus_locked(v);
	assert_int_equal(v->activity, VCPU_IN_HLT);
	assert_int_equal(fake_vm.split.bus_locks, 4);
	assert_int_equal(fake_vm.split.passed, 4);
	split_set_policy(&fake_vm, SPLIT_FATAL, 0);
	v->activity = VCPU_ACTIVE;
	split_bus_locked(v);
	assert_int_equal(stops, 1);
	assert_int_equal(fake_vm.split.passed, 4);
	all_traced();
}

/* Both at once: what was looked at as #AC counts once. */
static void bus_lock_of_a_pass(void **state)
{
	struct vcpu *v = start(SPLIT_RATELIMIT, 1000000);

	(void)state;
	fake_bus_locks_exit = true;
	split_load(v);
	assert_true(fault(v));
	assert_int_equal(fake_bus_locks, BUS_LOCKS_ONE);
	bus_lock(v); /* an event used that up */
	assert_int_equal(fake_bus_locks, BUS_LOCKS_ONE);
	v->requests = REQ_BUS_LOCKED | REQ_EVENT;
	v->rip = RIP + 4;
	exit_with(v, EXIT_BUS_LOCKED);
	assert_int_equal(v->requests, REQ_EVENT);
	assert_int_equal(fake_vm.split.seen, 1);
	assert_int_equal(fake_vm.split.passed, 1);
	assert_int_equal(fake_vm.split.bus_locks, 0);
}

/* The end of a pass leaves others their step, and their steps make no pass. */
static void others_step_too(void **state)
{
	struct vcpu *v = start(SPLIT_SILENT, 0);

	(void)state;
	v->want_step = STEP_NMI | STEP_DEBUG;
	split_put(v);
	assert_int_equal(ended, 0);
	assert_true(fault(v));
	assert_int_equal(v->want_step, STEP_NMI | STEP_DEBUG | STEP_SPLIT);
	exit_with(v, EXIT_STEP);
	assert_int_equal(v->want_step, STEP_NMI | STEP_DEBUG);
	v = start_bus_locks(SPLIT_FATAL, 0);
	v->want_step = STEP_DEBUG;
	bus_lock(v); /* of no pass: policy applies */
	assert_int_equal(fake_bus_locks, BUS_LOCKS_EXIT);
	assert_int_equal(stops, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(legacy_goes_through),
		cmocka_unit_test(machine_without),
		cmocka_unit_test(aware_guest_handles_its_own),
		cmocka_unit_test(silent_lets_it_pass),
		cmocka_unit_test(warn_is_one_line),
		cmocka_unit_test(fatal_stops_the_vm),
		cmocka_unit_test(spurious_is_retried),
		cmocka_unit_test(during_event_delivery),
		cmocka_unit_test(exits_during_a_pass),
		cmocka_unit_test(what_the_guest_is_told),
		cmocka_unit_test(rate_is_kept),
		cmocka_unit_test(rates_are_apart),
		cmocka_unit_test(when_bus_locks_exit),
		cmocka_unit_test(bus_locks_before_they_happen),
		cmocka_unit_test(bus_locks_after_they_happened),
		cmocka_unit_test(bus_lock_of_a_pass),
		cmocka_unit_test(others_step_too),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
