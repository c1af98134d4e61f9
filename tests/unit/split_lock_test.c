/* SPDX-License-Identifier: MIT */
/*
 * The owner of MSR_TEST_CTRL on simulated cores: each event for itself, in the orders that matter.
 * The numbers at the tests are those of the events in docs/SPLIT_LOCK.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/spinlock.h"
#include "tests/unit/host.h"
#include "tests/unit/split_lock_fake.h"

static void every_core_gets_the_bit(void **state)
{
	(void)state;
	boot(4, UC_LOCK);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_ON);
	for (u32 c = 0; c < 4; c++) {
		struct split_lock_core s = look(2 * c + 1);

		assert_int_equal(core[c].reg, UC_LOCK | DETECT);
		assert_int_equal(core[c].writes, 3); /* tried, put back, set */
		assert_int_equal(s.threads, 2);
		assert_true(s.current && sound(&s));
	}
}

/* 1 */
static void a_machine_without(void **state)
{
	(void)state;
	power_on(2, 0);
	core[0].has = core[1].has = false;
	split_lock_init(true);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_string_equal(split_lock_why(), "the CPUs don't have it");
	assert_int_equal(unfit_accesses, 0);
	assert_int_equal(split_lock_switch(true), -EOPNOTSUPP);
	assert_false(split_lock_pass_begin());
	assert_false(split_lock_pass_end());
	go_offline(3);
	go_online(3);
	assert_int_equal(unfit_accesses, 0);
	assert_null(trap_ac_hook);
}

/* 1: what the core that has it held is there again */
static void only_some_cores_have_it(void **state)
{
	(void)state;
	power_on(2, UC_LOCK);
	core[1].has = false;
	split_lock_init(true);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_string_equal(split_lock_why(), "not every core has it");
	assert_int_equal(core[0].reg, UC_LOCK);
	assert_int_equal(unfit_accesses, 0);
	be(0);
	assert_false(split_lock_pass_begin());
}

static void unknown_topology_is_never_written(void **state)
{
	(void)state;
	power_on(2, 0);
	topology_known = false;
	split_lock_init(true);
	assert_string_equal(split_lock_why(), "topology unknown");
	assert_int_equal(core[0].writes + core[1].writes, 0);
}

/* A CPU that comes back elsewhere: all registers as they were found, and that is final. */
static void topology_that_changes(void **state)
{
	(void)state;
	boot(2, UC_LOCK);
	go_offline(3);
	moved_cpu = 3;
	go_online(3);
	all_take_interrupts();
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_int_equal(core[0].reg, UC_LOCK);
	assert_int_equal(core[1].reg, UC_LOCK);
	assert_int_equal(split_lock_switch(true), -EOPNOTSUPP);
}

/* 2 */
static void gp_on_probe(void **state)
{
	(void)state;
	power_on(1, 0);
	core[0].gp_on_write = true;
	split_lock_init(true);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	power_on(1, 0);
	core[0].gp_on_read = true;
	split_lock_init(true);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	power_on(1, 0);
	core[0].stuck = DETECT; /* accepted, and forgotten */
	split_lock_init(true);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_int_equal(core[0].reg, 0);
}

static void gp_on_a_later_write(void **state)
{
	(void)state;
	boot(2, 0);
	core[1].gp_on_write = true;
	be(2);
	assert_true(split_lock_pass_begin());
	all_take_interrupts();
	all_take_interrupts();
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_int_equal(core[0].reg, 0);
	assert_false(cpu[0].kicked || cpu[2].kicked); /* it ends */
}

/* 3 */
static void what_the_firmware_left(void **state)
{
	static const u64 left[] = { DETECT, NO_LOCK, DETECT | NO_LOCK | UC_LOCK };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(left); i++) {
		boot(1, left[i]);
		assert_int_equal(core[0].reg, (left[i] & UC_LOCK) | DETECT);
		assert_int_equal(split_lock_switch(false), 0);
		assert_int_equal(core[0].reg, left[i] & UC_LOCK);
		go_offline(1);
		go_offline(0);
		assert_int_equal(core[0].reg, left[i]);
	}
	assert_non_null(strstr(last_line, "LOCK#"));
	power_on(1, DETECT);
	split_lock_init(false);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_OFF);
	assert_int_equal(core[0].reg, 0);
}

static void models_that_do_not_say_so(void **state)
{
	const struct cpuid_regs intel = { 0x1b, 0x756e6547, 0x6c65746e, 0x49656e69 };
	const struct cpuid_regs amd = { 0x10, 0x68747541, 0x444d4163, 0x69746e65 };
	const struct cpuid_regs icelake = { .eax = 0x606a6 }, haswell = { .eax = 0x306c3 };
	const struct cpuid_regs none = { 0 }, says = { .edx = BIT(30) }, old = { .eax = 5 };

	(void)state;
	power_on(1, 0);
	core[0].has = false;
	assert_true(split_lock_enumerated(&intel, &icelake, &none));
	assert_false(split_lock_enumerated(&amd, &icelake, &none));
	assert_false(split_lock_enumerated(&intel, &haswell, &none));
	assert_false(split_lock_enumerated(&intel, &haswell, &says)); /* bit 5 is clear */
	core[0].has = true;
	assert_true(split_lock_enumerated(&amd, &haswell, &says)); /* whatever the vendor */
	assert_false(split_lock_enumerated(&old, &haswell, &says));
	core[0].gp_on_read = true; /* 0xcf is enumerated, but not there */
	assert_false(split_lock_enumerated(&amd, &haswell, &says));
	assert_int_equal(unfit_accesses, 0);
}

/* 6, 7: there and back, and a pass ends with it */
static void on_and_off(void **state)
{
	(void)state;
	boot(2, 0);
	assert_int_equal(split_lock_switch(true), -EALREADY);
	be(0);
	assert_true(split_lock_pass_begin());
	be(3);
	assert_int_equal(split_lock_switch(false), 0);
	assert_int_equal(split_lock_switch(false), -EALREADY);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_OFF);
	assert_int_equal(core[0].reg | core[1].reg, 0);
	assert_int_equal(look(0).cancelled, 1);
	assert_int_equal(split_lock_switch(true), 0);
	assert_true(core[0].reg & core[1].reg & DETECT);
	be(0);
	assert_false(split_lock_pass_end()); /* of a pass that was cancelled: no write */
	assert_int_equal(core[0].reg, DETECT);
	assert_int_equal(core[0].writes, 5); /* 3 at boot, off for the pass, on by the operator */
}

/* 6, 8: who does not hear of it follows when it next looks */
static void a_cpu_that_is_late(void **state)
{
	(void)state;
	boot(2, 0);
	bitmap_set(deaf.bits, 2);
	bitmap_set(deaf.bits, 3);
	assert_int_equal(split_lock_switch(false), -ETIMEDOUT);
	assert_int_equal(core[0].reg, 0);
	assert_int_equal(core[1].reg, DETECT);
	assert_false(look(2).current);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_OFF);
	be(3);
	split_lock_vcpu_load();
	split_lock_vcpu_put();
	assert_int_equal(core[1].reg, 0);
	assert_true(look(2).current);
}

/* 5, 8, rule 8: #AC that came before the CPU heard that it is off */
static void spurious_fault_is_only_retried(void **state)
{
	(void)state;
	boot(1, 0);
	split_lock_switch(false);
	be(0);
	assert_false(split_lock_pass_begin());
	assert_int_equal(look(0).spurious, 1);
	assert_int_equal(look(0).opened, 0);
	assert_int_equal(core[0].reg, 0);
}

/* 9, rule 5 */
static void online_takes_the_present_state(void **state)
{
	(void)state;
	boot(2, 0);
	go_offline(2);
	go_offline(3);
	assert_int_equal(core[1].reg, 0);
	be(0);
	assert_int_equal(split_lock_switch(false), 0);
	go_online(3);
	assert_int_equal(core[1].reg, 0); /* not enabled again */
	be(0);
	assert_int_equal(split_lock_switch(true), 0);
	assert_int_equal(core[1].reg, DETECT);
	go_online(2);
	assert_int_equal(core[1].writes, 5); /* 3 at boot, off, on; no second probe */
	assert_int_equal(look(3).threads, 2);
}

/* A core all of whose threads come late: probed then, nobody there is in VMX operation. */
static void core_that_comes_late(void **state)
{
	(void)state;
	power_on(2, 0);
	for (u32 id = 2; id < 4; id++) {
		cpu[id].is_online = false;
		bitmap_clear(cpus_online.bits, id);
	}
	split_lock_init(true);
	assert_int_equal(core[1].writes, 0);
	go_online(2);
	assert_int_equal(core[1].reg, DETECT);
	go_online(3);
	assert_int_equal(core[1].writes, 3);
}

static void late_core_without(void **state)
{
	(void)state;
	power_on(2, UC_LOCK);
	for (u32 id = 2; id < 4; id++) {
		cpu[id].is_online = false;
		bitmap_clear(cpus_online.bits, id);
	}
	core[1].has = false;
	split_lock_init(true);
	assert_int_equal(core[0].reg, UC_LOCK | DETECT);
	go_online(2);
	all_take_interrupts();
	assert_int_equal(split_lock_state(), SPLIT_LOCK_UNSUPPORTED);
	assert_int_equal(core[0].reg, UC_LOCK);
	assert_int_equal(unfit_accesses, 0);
}

/* 10 */
static void offline_in_a_pass(void **state)
{
	(void)state;
	boot(1, UC_LOCK | NO_LOCK);
	be(0);
	assert_true(split_lock_pass_begin());
	assert_false(faults());
	go_offline(0);
	assert_int_equal(core[0].reg, UC_LOCK | DETECT); /* the sibling is covered again */
	go_offline(1);
	assert_int_equal(core[0].reg, UC_LOCK | NO_LOCK); /* as it was found */
	split_lock_leave();				  /* again: nothing */
	assert_int_equal(core[0].reg, UC_LOCK | NO_LOCK);
}

/* 10: with the sibling in it, the pass goes on */
static void offline_in_a_joined_pass(void **state)
{
	(void)state;
	boot(1, 0);
	be(0);
	assert_true(split_lock_pass_begin());
	be(1);
	assert_true(split_lock_pass_begin());
	go_offline(0);
	assert_int_equal(core[0].reg, 0);
	be(1);
	assert_true(split_lock_pass_end());
	assert_int_equal(core[0].reg, DETECT);
}

/* 11: whatever a reset or INIT left */
static void unknown_value_after_reset(void **state)
{
	static const u64 left[] = { 0, DETECT, NO_LOCK, NO_LOCK | DETECT };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(left); i++) {
		boot(1, UC_LOCK);
		go_offline(0);
		go_offline(1);
		core[0].reg = left[i] | UC_LOCK;
		go_online(1);
		assert_int_equal(core[0].reg, UC_LOCK | DETECT);
		core[0].reg = left[i] | UC_LOCK; /* the sibling's INIT */
		go_online(0);
		assert_int_equal(core[0].reg, UC_LOCK | DETECT);
		be(0);
		split_lock_switch(false);
		go_offline(0);
		core[0].reg = left[i] | UC_LOCK;
		go_online(0);
		assert_int_equal(core[0].reg, UC_LOCK);
	}
}

static u32 held_ranks;

static u32 *ranks_held(void)
{
	return &held_ranks;
}

/* 12 */
static void corbels_own(void **state)
{
	struct trap_frame f = at(0x1234);
	u64 rip;
	u32 id;

	(void)state;
	boot(2, 0);
	split_lock_offered();
	be(3);
	lines = 0;
	spin_held_hook = ranks_held;
	assert_true(trap_ac_hook(&f));
	assert_int_equal(core[1].reg, 0); /* here at once */
	assert_int_equal(core[0].reg, DETECT);
	assert_int_equal(backtraces, 1);
	assert_int_equal(lines, 2); /* where, and that VMs had been offered it */
	all_take_interrupts();
	assert_int_equal(core[0].reg, 0);
	assert_int_equal(lines, 2);
	assert_int_equal(split_lock_state(), SPLIT_LOCK_OFF_SELF);
	split_lock_place(&id, &rip);
	assert_int_equal(id, 3);
	assert_int_equal(rip, 0x1234);
	assert_int_equal(split_lock_switch(false), -EALREADY); /* it stays what it is */
	assert_int_equal(split_lock_state(), SPLIT_LOCK_OFF_SELF);
	go_offline(0);
	go_online(0);
	assert_int_equal(core[0].reg, 0);
	assert_int_equal(split_lock_switch(true), 0);
	assert_int_equal(core[0].reg, DETECT);
	be(0);
	f = at(0x5678);
	kicks_at_once = true;
	lines = 0;
	assert_true(trap_ac_hook(&f)); /* another time, told again, and here */
	kicks_at_once = false;
	assert_int_equal(backtraces, 2);
	assert_int_equal(lines, 2);
	assert_int_equal(core[1].reg, 0);
	spin_held_hook = NULL;
}

/* 12: in the log's own code it is told by the kick that follows */
static void corbels_own_under_the_logs_lock(void **state)
{
	struct trap_frame f = at(0x1234);

	(void)state;
	boot(1, 0);
	be(0);
	lines = 0;
	spin_held_hook = ranks_held;
	held_ranks = 1u << RANK_LOG;
	assert_true(trap_ac_hook(&f));
	assert_int_equal(lines, 0);
	held_ranks = 0;
	spin_held_hook = NULL;
	all_take_interrupts();
	assert_int_equal(lines, 1);
	assert_non_null(strstr(last_line, "0000000000001234"));
}

/* 12: two CPUs at once; and #AC that goes on although it is off is a crash in the end */
static void corbels_own_again_and_again(void **state)
{
	struct trap_frame f = at(0x1234);
	u32 n = 0;

	(void)state;
	boot(2, 0);
	be(0);
	assert_true(trap_ac_hook(&f));
	be(2);
	assert_true(trap_ac_hook(&f));
	assert_int_equal(core[1].reg, 0);
	assert_int_equal(backtraces, 1);
	while (trap_ac_hook(&f))
		assert_true(++n < 10000);
	assert_true(n > 100);
}

/* 18, 19, rule 7 */
static void siblings(void **state)
{
	struct split_lock_core s;

	(void)state;
	boot(1, 0);
	core[0].writes = 0;
	be(0);
	split_lock_vcpu_load();
	be(1);
	split_lock_vcpu_load();
	be(0);
	assert_true(split_lock_pass_begin());
	assert_true(split_lock_pass_begin()); /* the same once more is nothing */
	tsc += 10;
	be(1);
	assert_true(split_lock_pass_begin());
	be(0);
	assert_true(split_lock_pass_end());
	assert_false(faults()); /* the other one is not done */
	be(1);
	assert_true(split_lock_pass_end());
	assert_true(faults());
	s = look(0);
	assert_int_equal(core[0].writes, 2);
	assert_int_equal(s.opened, 1);
	assert_int_equal(s.joined, 1);
	assert_int_equal(s.uncovered, 10);
	/* alone on the core: nobody was uncovered */
	split_lock_vcpu_put();
	be(0);
	assert_true(split_lock_pass_begin());
	tsc += 10;
	assert_true(split_lock_pass_end());
	assert_int_equal(look(0).uncovered, 10);
	/* a sibling that came and went meanwhile was */
	assert_true(split_lock_pass_begin());
	be(1);
	split_lock_vcpu_load();
	split_lock_vcpu_put();
	tsc += 7;
	be(0);
	assert_true(split_lock_pass_end());
	assert_int_equal(look(0).uncovered, 17);
}

/* 20 */
static void pass_that_expires(void **state)
{
	(void)state;
	boot(1, 0);
	be(0);
	assert_true(split_lock_pass_begin());
	tsc += SPLIT_LOCK_PASS_US;
	take_interrupts();
	assert_true(faults());
	assert_int_equal(look(0).expired, 1);
	assert_true(split_lock_pass_begin()); /* its instruction faults again */
	assert_true(split_lock_pass_end());
	assert_int_equal(core[0].writes, 7);
	/* whose end comes late is no part of the next one */
	assert_true(split_lock_pass_begin());
	tsc += SPLIT_LOCK_PASS_US;
	take_interrupts();
	be(1);
	assert_true(split_lock_pass_begin());
	be(0);
	assert_false(split_lock_pass_end());
	assert_false(faults());
	be(1);
	assert_true(split_lock_pass_end());
	assert_true(faults());
}

/* 20: a CPU that is stuck with interrupts off; its sibling ends what is late */
static void sibling_ends_a_late_pass(void **state)
{
	(void)state;
	boot(1, 0);
	be(0);
	assert_true(split_lock_pass_begin());
	tsc += SPLIT_LOCK_PASS_US;
	be(1);
	assert_true(split_lock_pass_begin());
	assert_int_equal(look(1).opened, 2);
	assert_int_equal(look(1).expired, 1);
	assert_true(split_lock_pass_end());
	be(0);
	assert_false(split_lock_pass_end());
	assert_true(faults());
}

/* A joiner's timer is its own: the pass ends in time whoever is left in it. */
static void joining_does_not_prolong(void **state)
{
	(void)state;
	boot(1, 0);
	be(0);
	assert_true(split_lock_pass_begin());
	tsc += SPLIT_LOCK_PASS_US - 1;
	be(1);
	assert_true(split_lock_pass_begin());
	be(0);
	assert_true(split_lock_pass_end());
	tsc += 1;
	be(1);
	take_interrupts();
	assert_true(faults());
}

/* 21: the vCPU gives its CPU up; that CPU ends the pass, and the next one is another CPU's */
static void vcpu_that_moves(void **state)
{
	(void)state;
	boot(2, 0);
	be(0);
	split_lock_vcpu_load();
	assert_true(split_lock_pass_begin());
	assert_true(split_lock_pass_end());
	split_lock_vcpu_put();
	be(2);
	split_lock_vcpu_load();
	assert_true(split_lock_pass_begin());
	assert_true(split_lock_pass_end());
	assert_int_equal(look(0).opened, 1);
	assert_int_equal(look(2).opened, 1);
	assert_int_equal(core[0].reg & core[1].reg, DETECT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_core_gets_the_bit),
		cmocka_unit_test(a_machine_without),
		cmocka_unit_test(only_some_cores_have_it),
		cmocka_unit_test(unknown_topology_is_never_written),
		cmocka_unit_test(topology_that_changes),
		cmocka_unit_test(gp_on_probe),
		cmocka_unit_test(gp_on_a_later_write),
		cmocka_unit_test(what_the_firmware_left),
		cmocka_unit_test(models_that_do_not_say_so),
		cmocka_unit_test(on_and_off),
		cmocka_unit_test(a_cpu_that_is_late),
		cmocka_unit_test(spurious_fault_is_only_retried),
		cmocka_unit_test(online_takes_the_present_state),
		cmocka_unit_test(core_that_comes_late),
		cmocka_unit_test(late_core_without),
		cmocka_unit_test(offline_in_a_pass),
		cmocka_unit_test(offline_in_a_joined_pass),
		cmocka_unit_test(unknown_value_after_reset),
		cmocka_unit_test(corbels_own),
		cmocka_unit_test(corbels_own_under_the_logs_lock),
		cmocka_unit_test(corbels_own_again_and_again),
		cmocka_unit_test(siblings),
		cmocka_unit_test(pass_that_expires),
		cmocka_unit_test(sibling_ends_a_late_pass),
		cmocka_unit_test(joining_does_not_prolong),
		cmocka_unit_test(vcpu_that_moves),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
