/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/ipi.h"
#include "arch/x86/topology.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "tests/unit/host.h"
#include "tests/unit/split_lock_fake.h"

struct cpu cpus[MAX_CPUS];
u32 nr_cpus;
struct cpumask cpus_online;
u32 tsc_khz = KHZ;
DEFINE_PERCPU(u32, cpu_id);
DEFINE_PERCPU(u64, percpu_offset);
bool (*trap_ac_hook)(struct trap_frame *f);

struct fake_core core[CORES_MAX];
struct fake_cpu cpu[CPUS_MAX];
u64 tsc;
static void (*kick_handler)(void);
static int (*ipi_handler)(void *arg);
bool topology_known;
u32 moved_cpu;
struct cpumask deaf;
u32 unfit_accesses;
char last_line[256];
u32 lines, backtraces;
bool threads_run, kicks_at_once;

u32 core_of(u32 id)
{
	return id / 2;
}

static u32 my_core(void)
{
	return core_of(this_cpu(cpu_id));
}

int rdmsr_safe(u32 msr, u64 *value)
{
	u32 c = my_core();

	*value = 0;
	if (msr == MSR_CORE_CAPABILITIES) {
		*value = core[c].has ? CORE_CAP_SPLIT_LOCK : 0;
		return core[c].gp_on_read ? -EIO : 0;
	}
	HOST_CHECK(msr == MSR_TEST_CTRL);
	if (!core[c].has)
		__atomic_add_fetch(&unfit_accesses, 1, __ATOMIC_RELAXED);
	if (!core[c].has || core[c].gp_on_read)
		return -EIO;
	*value = __atomic_load_n(&core[c].reg, __ATOMIC_RELAXED);
	return 0;
}

/* One at a time for each core, and never what is there already. */
int wrmsr_safe(u32 msr, u64 value)
{
	u32 c = my_core();
	u64 old;

	HOST_CHECK(msr == MSR_TEST_CTRL &&
		   !__atomic_exchange_n(&core[c].busy, true, __ATOMIC_RELAXED));
	if (!core[c].has)
		__atomic_add_fetch(&unfit_accesses, 1, __ATOMIC_RELAXED);
	if (!core[c].has || core[c].gp_on_write) {
		__atomic_store_n(&core[c].busy, false, __ATOMIC_RELAXED);
		return -EIO;
	}
	old = __atomic_load_n(&core[c].reg, __ATOMIC_RELAXED);
	HOST_CHECK(core[c].stuck || value != old);
	HOST_CHECK(!((value ^ old) & ~(u64)(DETECT | NO_LOCK)));
	value = (value & ~core[c].stuck) | (old & core[c].stuck);
	__atomic_store_n(&core[c].reg, value, __ATOMIC_RELAXED);
	__atomic_add_fetch(&core[c].writes, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&core[c].busy, false, __ATOMIC_RELAXED);
	return 0;
}

u64 rdtsc(void)
{
	return __atomic_load_n(&tsc, __ATOMIC_RELAXED);
}

void irq_disable(void)
{
	cpu[this_cpu(cpu_id)].no_interrupts = true;
}

void irq_enable(void)
{
	cpu[this_cpu(cpu_id)].no_interrupts = false;
}

u64 read_flags(void)
{
	return cpu[this_cpu(cpu_id)].no_interrupts ? 0 : X86_EFLAGS_IF;
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	*t = (struct timer){ .fire = fire };
}

void timer_arm(struct timer *t, u64 deadline)
{
	t->armed = true;
	cpu[this_cpu(cpu_id)].timer = t;
	cpu[this_cpu(cpu_id)].deadline = deadline;
}

void timer_cancel(struct timer *t)
{
	t->armed = false;
	cpu[this_cpu(cpu_id)].timer = NULL;
}

u32 topo_core(u32 id)
{
	if (!topology_known)
		return CPU_ID_NONE;
	return id == moved_cpu ? id : core_of(id) * 2;
}

void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg))
{
	if (kind == IPI_SPLIT_LOCK)
		ipi_handler = handler;
}

void trap_set_irq(u8 vector, void (*handler)(void))
{
	assert_int_equal(vector, VECTOR_KICK);
	kick_handler = handler;
}

void ipi_kick(u32 id)
{
	u32 me = this_cpu(cpu_id);

	if (!kicks_at_once || id == me) {
		__atomic_store_n(&cpu[id].kicked, true, __ATOMIC_RELEASE);
		return;
	}
	be(id);
	kick_handler();
	be(me);
}

void be(u32 id)
{
	this_cpu(cpu_id) = id;
}

/* What a CPU says of itself: leaf 7 whether the register exists, or Ice Lake's signature. */
static bool enumerated(void)
{
	const struct cpuid_regs leaf_0 = { .eax = 7 }, leaf_1 = { 0 };
	const struct cpuid_regs leaf_7 = { .edx = core[my_core()].has ? BIT(30) : 0 };

	return split_lock_enumerated(&leaf_0, &leaf_1, &leaf_7);
}

int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS])
{
	u32 me = this_cpu(cpu_id);
	int err = 0;

	for_each_cpu(id, mask) {
		int r = -ETIMEDOUT;

		if (threads_run) {
			ipi_kick(id);
			continue;
		}
		be(id);
		if (!bitmap_test(deaf.bits, id))
			r = kind == IPI_SPLIT_LOCK_JOIN ? split_lock_join(enumerated())
							: ipi_handler(arg);
		if (results)
			results[id] = r;
		err = err ? err : r;
	}
	be(me);
	return err;
}

static void sink(enum log_level level, const char *line, size_t len)
{
	(void)level;
	memcpy(last_line, line, MIN(len, sizeof(last_line) - 1));
	last_line[MIN(len, sizeof(last_line) - 1)] = '\0';
	lines++;
}

static void count_backtrace(void)
{
	__atomic_add_fetch(&backtraces, 1, __ATOMIC_RELAXED);
}

/* What the CPU does about interrupts and its timer. */
void take_interrupts(void)
{
	u32 me = this_cpu(cpu_id);
	struct timer *t = cpu[me].timer;

	if (__atomic_exchange_n(&cpu[me].kicked, false, __ATOMIC_ACQUIRE))
		kick_handler();
	if (t && rdtsc() >= cpu[me].deadline) {
		cpu[me].timer = NULL;
		t->armed = false;
		t->fire(t);
	}
}

void all_take_interrupts(void)
{
	u32 me = this_cpu(cpu_id);

	for (u32 id = 0; id < nr_cpus; id++) {
		be(id);
		if (cpu[id].is_online)
			take_interrupts();
	}
	be(me);
}

void go_online(u32 id)
{
	be(id);
	cpu[id].is_online = true;
	bitmap_test_and_set_atomic(cpus_online.bits, id);
	assert_int_equal(split_lock_join_cpu(id), 0);
	be(id);
}

void go_offline(u32 id)
{
	be(id);
	split_lock_leave();
	cpu[id].is_online = false;
	bitmap_test_and_clear_atomic(cpus_online.bits, id);
}

/* A machine of n cores, whose firmware left `found` in the registers; then boot. */
void power_on(u32 cores, u64 found)
{
	memset(core, 0, sizeof(core));
	memset(cpu, 0, sizeof(cpu));
	cpus_online = deaf = (struct cpumask){ 0 };
	nr_cpus = cores * 2;
	topology_known = true;
	moved_cpu = CPU_ID_NONE;
	unfit_accesses = lines = backtraces = 0;
	last_line[0] = '\0';
	host_failures = 0;
	for (u32 c = 0; c < cores; c++) {
		core[c].reg = found;
		core[c].has = true;
	}
	for (u32 id = 0; id < nr_cpus; id++) {
		cpus[id].id = id;
		cpu[id].is_online = true;
		bitmap_set(cpus_online.bits, id);
	}
	trap_ac_hook = NULL;
	log_sink = sink;
	backtrace_hook = count_backtrace;
	be(0);
}

void boot(u32 cores, u64 found)
{
	power_on(cores, found);
	split_lock_init(true);
}

struct split_lock_core look(u32 id)
{
	struct split_lock_core s = { 0 };
	u32 me = this_cpu(cpu_id);

	be(id);
	assert_true(split_lock_read_core(&s));
	be(me);
	return s;
}

/* What must hold of every core whenever nobody is at work on it. */
bool sound(const struct split_lock_core *s)
{
	u64 others = ~(u64)(DETECT | NO_LOCK);
	bool detects = s->hardware & DETECT;

	HOST_CHECK(s->hardware == s->value);
	HOST_CHECK(!((s->hardware ^ s->found) & others));
	HOST_CHECK(s->following == SPLIT_LOCK_UNSUPPORTED || !(s->hardware & NO_LOCK));
	HOST_CHECK(s->following == SPLIT_LOCK_UNSUPPORTED ||
		   detects == (s->following == SPLIT_LOCK_ON && !s->passes));
	HOST_CHECK(s->passes <= s->threads && s->threads <= 2);
	HOST_CHECK(s->following == SPLIT_LOCK_ON || !s->passes);
	return !host_failures;
}

bool faults(void)
{
	return __atomic_load_n(&core[my_core()].reg, __ATOMIC_RELAXED) & DETECT;
}

struct trap_frame at(u64 rip)
{
	return (struct trap_frame){ .vector = 17, .rip = rip };
}
