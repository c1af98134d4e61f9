/* SPDX-License-Identifier: MIT */
/*
 * The only code that touches MSR_TEST_CTRL. On a CPU without the feature even writing 0 does damage
 * (on some, a sibling falls out of VMX operation), so nothing is read or written there before the
 * CPU has enumerated it.
 */
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "arch/x86/split_lock.h"
#include "arch/x86/timer.h"
#include "arch/x86/topology.h"
#include "arch/x86/trap.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/spinlock.h"

#define OURS		(TEST_CTRL_SPLIT_LOCK | TEST_CTRL_NO_LOCK)
#define TRYLOCK_TRIES	10000000
#define SPURIOUS_IN_ROW 1000

enum verdict { NOT_PROBED, ABSENT, PRESENT };

struct core {
	struct spinlock lock; /* for all but what is atomic */
	u8 verdict;	      /* enum verdict */
	u32 threads;	      /* that have joined */
	u64 followed;	      /* atomic: the machine's word that the register follows */
	u64 found, value;
	/* The pass: who is in it, by an epoch that ends with it. */
	u32 passes;
	u64 epoch, began, deadline;
	bool exposed;
	u64 loads_seen;
	u64 vcpus, loads; /* atomic: loaded now; ever */
	u64 writes, opened, joined, expired, cancelled, uncovered, spurious;
};

/* What belongs to a CPU; its own, interrupts off. */
struct thread {
	struct core *core; /* NULL: it takes no part */
	u64 epoch;	   /* of the pass that it is in; 0: none */
	struct timer timer;
	u64 spurious_rip;
	u32 spurious; /* in a row, at that RIP */
};

static struct core cores[MAX_CPUS]; /* by topo_core() */
static struct thread threads[MAX_CPUS];
static u32 cores_of[MAX_CPUS]; /* 1 + topo_core() when the CPU first joined; 0: it never has */

/* Generation << 2 | enum split_lock_state; atomic. Unsupported until split_lock_init(). */
static u64 machine;
static const char *why = "not probed yet";
static bool offered; /* atomic */
/* The split lock of Corbel's own; atomic. Untold: where it was, nobody could log. */
static struct {
	u32 cpu;
	u64 rip;
	bool untold;
} own;

static enum split_lock_state state_of(u64 word)
{
	return word & 3;
}

static u64 machine_now(void)
{
	return __atomic_load_n(&machine, __ATOMIC_SEQ_CST);
}

enum split_lock_state split_lock_state(void)
{
	return state_of(machine_now());
}

const char *split_lock_why(void)
{
	return __atomic_load_n(&why, __ATOMIC_ACQUIRE);
}

void split_lock_place(u32 *cpu, u64 *rip)
{
	*cpu = __atomic_load_n(&own.cpu, __ATOMIC_RELAXED);
	*rip = __atomic_load_n(&own.rip, __ATOMIC_RELAXED);
}

void split_lock_offered(void)
{
	__atomic_store_n(&offered, true, __ATOMIC_RELAXED);
}

/* From `before`, if it is still that: the next generation begins. */
static bool machine_change(u64 before, enum split_lock_state state)
{
	return __atomic_compare_exchange_n(&machine, &before, ((before >> 2) + 1) << 2 | state,
					   false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* ---- A core's register; its lock is held, interrupts are off ---- */

/* Bit 31 makes split locks non-atomic: never while Corbel runs. Other bits are not ours. */
static u64 wanted_value(const struct core *c, u64 word)
{
	u64 rest = c->value & ~(u64)OURS;

	if (!c->threads || state_of(word) == SPLIT_LOCK_UNSUPPORTED)
		return rest | (c->found & OURS);
	return rest | (state_of(word) == SPLIT_LOCK_ON && !c->passes ? TEST_CTRL_SPLIT_LOCK : 0);
}

static void withdraw(const char *reason);

/* The register follows the machine's word and the pass. */
static void settle(struct core *c)
{
	u64 word = machine_now(), value;

	if (c->passes && state_of(word) != SPLIT_LOCK_ON) {
		c->passes = 0;
		c->cancelled++;
	}
	value = wanted_value(c, word);
	if (value != c->value && c->verdict == PRESENT) {
		c->writes++;
		if (wrmsr_safe(MSR_TEST_CTRL, value)) {
			c->verdict = ABSENT;
			withdraw(
				"MSR_TEST_CTRL could be written when it was probed, and can't now");
		} else {
			c->value = value;
		}
	}
	__atomic_store_n(&c->followed, word, __ATOMIC_RELEASE);
}

static void pass_open(struct core *c)
{
	c->epoch++;
	c->began = rdtsc();
	c->deadline = c->began + (u64)SPLIT_LOCK_PASS_US * tsc_khz / 1000;
	c->loads_seen = __atomic_load_n(&c->loads, __ATOMIC_RELAXED);
	c->exposed = __atomic_load_n(&c->vcpus, __ATOMIC_RELAXED) > 1;
	c->opened++;
}

/* Who was in it is no longer: the next one has another epoch. */
static void pass_close(struct core *c)
{
	c->passes = 0;
	if (c->exposed || __atomic_load_n(&c->loads, __ATOMIC_RELAXED) != c->loads_seen)
		c->uncovered += rdtsc() - c->began;
	settle(c);
}

static bool pass_is_late(const struct core *c)
{
	return c->passes && rdtsc() >= c->deadline;
}

static bool in_pass(const struct core *c, const struct thread *t)
{
	return c->passes && t->epoch == c->epoch;
}

/* ---- The machine ---- */

static struct thread *this_thread(void)
{
	return &threads[this_cpu(cpu_id)];
}

bool split_lock_takes_part(void)
{
	return this_thread()->core;
}

static void kick_all(void)
{
	for_each_cpu(cpu, &cpus_online)
		ipi_kick(cpu);
}

/* This machine goes without, from now on. Any context that may write the log's ring. */
static void withdraw(const char *reason)
{
	u64 word = machine_now();

	while (!machine_change(word, SPLIT_LOCK_UNSUPPORTED))
		word = machine_now();
	__atomic_store_n(&why, reason, __ATOMIC_RELEASE);
	kick_all();
}

static u64 lock(struct core *c)
{
	u64 flags = irq_save();

	spin_lock(&c->lock);
	return flags;
}

static void unlock(struct core *c, u64 flags)
{
	spin_unlock(&c->lock);
	irq_restore(flags);
}

static void tell_offered(void)
{
	if (__atomic_load_n(&offered, __ATOMIC_RELAXED))
		log_warn("split locks: VMs that were offered detection will not see it any more");
}

/* Here: with a backtrace, because this is still the place. */
static void tell_own(bool here)
{
	u64 rip;
	u32 cpu;

	split_lock_place(&cpu, &rip);
	log_err("corbel: split lock in Corbel itself, on CPU %u at %016lx: a bug; "
		"split-lock detection is off until split-lock on",
		cpu, rip);
	if (here && backtrace_hook)
		backtrace_hook();
	tell_offered();
}

void split_lock_refresh(void)
{
	struct core *c = this_thread()->core;
	u64 flags;

	if (__atomic_load_n(&own.untold, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&own.untold, false, __ATOMIC_ACQ_REL))
		tell_own(false);
	if (!c || __atomic_load_n(&c->followed, __ATOMIC_ACQUIRE) == machine_now())
		return;
	flags = lock(c);
	settle(c);
	unlock(c, flags);
}

int split_lock_switch(bool on)
{
	u64 word = machine_now();
	int err;

	if (state_of(word) == SPLIT_LOCK_UNSUPPORTED)
		return trace_error(-EOPNOTSUPP);
	if (on == (state_of(word) == SPLIT_LOCK_ON))
		return -EALREADY;
	if (!machine_change(word, on ? SPLIT_LOCK_ON : SPLIT_LOCK_OFF))
		return split_lock_switch(on); /* Corbel itself was faster: look again */
	err = ipi_call(IPI_SPLIT_LOCK, &cpus_online, NULL, NULL);
	if (!on)
		tell_offered();
	return err == -ENODEV ? 0 : err;
}

/* ---- CPUs come and go ---- */

/*
 * SDM vol. 4, Linux's list: Ice Lake models that have bit 29 without saying so in
 * IA32_CORE_CAPABILITIES.
 */
static bool listed(const struct cpuid_regs *leaf_0, const struct cpuid_regs *leaf_1)
{
	static const u8 models[] = { 0x6a, 0x6c, 0x7d, 0x7e };
	u32 model = (leaf_1->eax >> 4 & 15) | (leaf_1->eax >> 12 & 0xf0);

	if (leaf_0->ebx != 0x756e6547 || leaf_0->edx != 0x49656e69 || leaf_0->ecx != 0x6c65746e ||
	    (leaf_1->eax >> 8 & 15) != 6)
		return false;
	for (u32 i = 0; i < ARRAY_SIZE(models); i++)
		if (models[i] == model)
			return true;
	return false;
}

bool split_lock_enumerated(const struct cpuid_regs *leaf_0, const struct cpuid_regs *leaf_1,
			   const struct cpuid_regs *leaf_7)
{
	u64 caps = 0;

	if (leaf_0->eax >= 7 && (leaf_7->edx & BIT(30)) &&
	    !rdmsr_safe(MSR_CORE_CAPABILITIES, &caps) && (caps & CORE_CAP_SPLIT_LOCK))
		return true;
	return listed(leaf_0, leaf_1);
}

/* Read, change, read back, restore. A #GP on the way: another hypervisor does not offer it. */
static bool probe(struct core *c)
{
	u64 changed, back;

	if (rdmsr_safe(MSR_TEST_CTRL, &c->found))
		return false;
	c->value = c->found;
	changed = c->found ^ TEST_CTRL_SPLIT_LOCK;
	if (wrmsr_safe(MSR_TEST_CTRL, changed))
		return false;
	if (rdmsr_safe(MSR_TEST_CTRL, &back) || wrmsr_safe(MSR_TEST_CTRL, c->found))
		return false;
	return back == changed;
}

static void timer_fired(struct timer *t)
{
	struct core *c = this_thread()->core;
	u64 flags;

	(void)t;
	if (!c)
		return;
	flags = lock(c);
	if (pass_is_late(c)) {
		c->expired++;
		pass_close(c);
	}
	unlock(c, flags);
}

/* Core c, locked, gets a thread. What is in the register after a reset or INIT is not known. */
static const char *take_part(struct core *c, struct thread *t, bool enumerated)
{
	u64 now;

	if (c->verdict == NOT_PROBED)
		c->verdict = enumerated && probe(c) ? PRESENT : ABSENT;
	if (c->verdict != PRESENT)
		return "not every core has it";
	if (!enumerated || rdmsr_safe(MSR_TEST_CTRL, &now))
		return "not every thread of a core has it";
	c->value = now;
	c->threads++;
	t->core = c;
	t->epoch = 0;
	settle(c);
	return NULL;
}

int split_lock_join(bool enumerated)
{
	u32 me = this_cpu(cpu_id), number = topo_core(me);
	struct thread *t = &threads[me];
	const char *problem;
	struct core *c;

	if (t->core)
		return 0;
	if (number == CPU_ID_NONE)
		problem = "topology unknown";
	else if (cores_of[me] && cores_of[me] != number + 1)
		problem = "topology unknown: a CPU came back in another core";
	else
		problem = NULL;
	timer_init(&t->timer, timer_fired);
	if (!problem) {
		c = &cores[number];
		cores_of[me] = number + 1;
		spin_lock(&c->lock);
		problem = take_part(c, t, enumerated);
		spin_unlock(&c->lock);
	}
	if (!problem)
		return 0;
	if (split_lock_state() != SPLIT_LOCK_UNSUPPORTED)
		withdraw(problem);
	return -EOPNOTSUPP;
}

void split_lock_leave(void)
{
	struct thread *t = this_thread();
	struct core *c = t->core;

	if (!c)
		return;
	(void)split_lock_pass_end();
	spin_lock(&c->lock);
	c->threads--;
	settle(c);
	t->core = NULL;
	spin_unlock(&c->lock);
}

static int join_here(void)
{
	struct cpuid_regs leaf_0 = cpuid(0, 0), leaf_1 = cpuid(1, 0), leaf_7 = cpuid(7, 0);

	return split_lock_join(split_lock_enumerated(&leaf_0, &leaf_1, &leaf_7));
}

/* The handler of the IPI: take part, read for another CPU, or just look. */
static int handle(void *arg)
{
	struct split_lock_core *out = arg;

	if (out)
		return split_lock_read_core(out) ? 0 : -ENODEV;
	split_lock_refresh();
	return 0;
}

static int handle_join(void *arg)
{
	(void)arg;
	return join_here();
}

int split_lock_join_cpu(u32 cpu)
{
	struct cpumask one = { 0 };
	int err;

	if (split_lock_state() == SPLIT_LOCK_UNSUPPORTED)
		return 0;
	bitmap_set(one.bits, cpu);
	err = ipi_call(IPI_SPLIT_LOCK_JOIN, &one, NULL, NULL);
	if (err)
		log_warn("split locks: detection is off for good: CPU %u: %s", cpu,
			 split_lock_why());
	return err == -EOPNOTSUPP ? 0 : err;
}

/* Why this machine can't; NULL: every core has it. */
static const char *missing(void)
{
	u32 with = 0, without = 0;

	for_each_cpu(cpu, &cpus_online) {
		if (topo_core(cpu) == CPU_ID_NONE)
			return "topology unknown";
		with += threads[cpu].core != NULL;
		without += threads[cpu].core == NULL;
	}
	if (!with)
		return "the CPUs don't have it";
	return without ? "not every core has it" : NULL;
}

static const char *const reasons_left[] = { "", ", which was on",
					    ", and LOCK# was suppressed: it is not any more",
					    ", which was on, and LOCK# was suppressed" };

void split_lock_init(bool on)
{
	const char *problem;
	u32 left = 0;

	for (u32 i = 0; i < MAX_CPUS; i++) {
		cores[i] = (struct core){ .lock = SPINLOCK_INIT(RANK_SPLIT_LOCK) };
		threads[i] = (struct thread){ 0 };
		cores_of[i] = 0;
	}
	machine = 0;
	offered = own.untold = false;
	ipi_set_handler(IPI_SPLIT_LOCK, handle);
	ipi_set_handler(IPI_SPLIT_LOCK_JOIN, handle_join);
	trap_set_irq(VECTOR_KICK, split_lock_refresh);
	ipi_call(IPI_SPLIT_LOCK_JOIN, &cpus_online, NULL, NULL);
	problem = missing();
	__atomic_store_n(&why, problem ? problem : "", __ATOMIC_RELEASE);
	if (problem) {
		log_info("split locks: not supported: %s", problem);
		return;
	}
	trap_ac_hook = split_lock_own_fault;
	for_each_cpu(cpu, &cpus_online)
		left |= (threads[cpu].core->found & TEST_CTRL_SPLIT_LOCK ? 1 : 0) |
			(threads[cpu].core->found & TEST_CTRL_NO_LOCK ? 2 : 0);
	__atomic_store_n(&machine, 1 << 2 | (on ? SPLIT_LOCK_ON : SPLIT_LOCK_OFF),
			 __ATOMIC_SEQ_CST);
	ipi_call(IPI_SPLIT_LOCK, &cpus_online, NULL, NULL);
	log_info("split locks: detection is %s%s", on ? "on" : "off", reasons_left[left]);
}

/* ---- vCPUs and passes ---- */

void split_lock_vcpu_load(void)
{
	struct core *c = this_thread()->core;

	if (!c)
		return;
	__atomic_fetch_add(&c->vcpus, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->loads, 1, __ATOMIC_RELAXED);
	split_lock_refresh();
	(void)fault_here(FAULT_OWN_SPLIT, 0, NULL);
}

void split_lock_vcpu_put(void)
{
	struct core *c = this_thread()->core;

	if (c)
		__atomic_fetch_sub(&c->vcpus, 1, __ATOMIC_RELAXED);
}

bool split_lock_pass_begin(void)
{
	struct thread *t = this_thread();
	struct core *c = t->core;
	u64 flags;
	bool open;

	if (!c)
		return false;
	flags = lock(c);
	if (pass_is_late(c)) {
		c->expired++;
		pass_close(c);
	}
	settle(c);
	open = c->passes || (c->value & TEST_CTRL_SPLIT_LOCK);
	if (!open) {
		c->spurious++;
	} else if (!in_pass(c, t)) {
		if (!c->passes)
			pass_open(c);
		else
			c->joined++;
		c->passes++;
		t->epoch = c->epoch;
		timer_arm(&t->timer, c->deadline);
		settle(c);
	}
	unlock(c, flags);
	return open;
}

bool split_lock_pass_end(void)
{
	struct thread *t = this_thread();
	struct core *c = t->core;
	bool lasted;
	u64 flags;

	if (!c || !t->epoch)
		return false;
	flags = lock(c);
	timer_cancel(&t->timer);
	lasted = in_pass(c, t);
	if (lasted && !--c->passes)
		pass_close(c);
	t->epoch = 0;
	unlock(c, flags);
	return lasted;
}

/* ---- Corbel's own ---- */

/* Only an NMI in the middle of what the lock is for could wait here for ever. */
static bool lock_or_give_up(struct core *c)
{
	for (u32 tries = 0; !spin_trylock(&c->lock); tries++) {
		if (tries == TRYLOCK_TRIES)
			return false;
		cpu_pause();
	}
	return true;
}

/* The log's locks are taken with interrupts off, by their holder only: the kick will tell. */
static bool may_log(void)
{
	u32 *held = spin_held_hook ? spin_held_hook() : NULL;

	return !held || !(*held >> RANK_LOG);
}

/* Once more at the same place, although it is off: not for ever. */
static bool spurious(struct thread *t, u64 rip)
{
	t->core->spurious++;
	t->spurious = t->spurious_rip == rip ? t->spurious + 1 : 0;
	t->spurious_rip = rip;
	return t->spurious < SPURIOUS_IN_ROW;
}

bool split_lock_own_fault(struct trap_frame *f)
{
	struct thread *t = this_thread();
	struct core *c = t->core;
	u64 flags = irq_save(), word = machine_now();
	bool first, resume = true, tell_here = may_log(); /* before our own lock counts */

	if (!c || !lock_or_give_up(c)) {
		irq_restore(flags);
		return false;
	}
	first = state_of(word) == SPLIT_LOCK_ON && machine_change(word, SPLIT_LOCK_OFF_SELF);
	if (first) {
		__atomic_store_n(&own.cpu, this_cpu(cpu_id), __ATOMIC_RELAXED);
		__atomic_store_n(&own.rip, f->rip, __ATOMIC_RELAXED);
		__atomic_store_n(&own.untold, !tell_here, __ATOMIC_RELEASE);
	} else if (split_lock_state() != SPLIT_LOCK_ON) {
		resume = spurious(t, f->rip);
	}
	settle(c);
	unlock(c, flags);
	if (first)
		kick_all();
	if (first && tell_here)
		tell_own(true);
	return resume;
}

/* ---- To be looked at ---- */

bool split_lock_read_core(struct split_lock_core *out)
{
	struct core *c = this_thread()->core;
	u64 flags, word;

	if (!c)
		return false;
	flags = lock(c);
	word = c->followed;
	*out = (struct split_lock_core){
		.present = c->verdict == PRESENT,
		.current = word == machine_now(),
		.following = (u8)state_of(word),
		.threads = c->threads,
		.passes = c->passes,
		.found = c->found,
		.value = c->value,
		.writes = c->writes,
		.opened = c->opened,
		.joined = c->joined,
		.expired = c->expired,
		.cancelled = c->cancelled,
		.uncovered = c->uncovered,
		.spurious = c->spurious,
	};
	if (rdmsr_safe(MSR_TEST_CTRL, &out->hardware))
		out->hardware = ~0ull;
	unlock(c, flags);
	return true;
}

int split_lock_read_cpu(u32 cpu, struct split_lock_core *out)
{
	struct cpumask one = { 0 };

	bitmap_set(one.bits, cpu);
	return ipi_call(IPI_SPLIT_LOCK, &one, out, NULL);
}
