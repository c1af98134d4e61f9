/* SPDX-License-Identifier: MIT */
/* ipi: calls between CPUs, from all CPUs at once, then timed from one alone. */
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/timer.h"
#include "debug/commands.h"
#include "virt/sched.h"

#define ROUNDS_DEFAULT 1000
#define ROUNDS_MAX     100000
#define AT_A_TIME      10 /* rounds; in between the CPU runs its vCPUs */
#define LIMIT_MS       10000
#define GRACE_MS       5000 /* longer than a call that nobody answers */

struct hammer {
	struct task task;
	u32 done, failed;
	u64 sum, least, most; /* TSC ticks of a call */
	bool running;	      /* atomic */
};
static struct hammer hammers[MAX_CPUS];
static u32 rounds;
static u64 deadline;

static void limit_time(void)
{
	deadline = rdtsc() + (u64)LIMIT_MS * tsc_khz;
}

static void hammer_start(struct hammer *h)
{
	h->done = h->failed = 0;
	h->sum = h->most = 0;
	h->least = ~0ull;
}

/* Call all CPUs, up to `count` times. False: it is done. */
static bool hammer_some(struct hammer *h, u32 count)
{
	u64 before, ticks;

	for (; count; count--) {
		before = rdtsc();
		if (h->done == rounds || before > deadline)
			return false;
		h->failed += ipi_call(IPI_PING, &cpus_online, NULL, NULL) != 0;
		h->done++;
		ticks = rdtsc() - before;
		h->sum += ticks;
		h->least = MIN(h->least, ticks);
		h->most = MAX(h->most, ticks);
	}
	return true;
}

static void hammer_run(struct task *t)
{
	struct hammer *h = container_of(t, struct hammer, task);

	if (hammer_some(h, AT_A_TIME))
		task_wake(t);
	else
		__atomic_store_n(&h->running, false, __ATOMIC_RELEASE);
}

void commands_ipi_init(void)
{
	for (u32 cpu = 0; cpu < nr_cpus; cpu++)
		task_add(&hammers[cpu].task, cpu, hammer_run);
}

/* This CPU takes part from here: its own tasks wait for the command that it runs. */
static void hammer_all(struct hammer *own)
{
	for_each_cpu(cpu, &cpus_online) {
		struct hammer *h = &hammers[cpu];

		if (__atomic_load_n(&h->running, __ATOMIC_ACQUIRE))
			continue; /* since an earlier command: stuck, or it was offline */
		hammer_start(h);
		h->running = h != own;
		if (h != own)
			task_wake(&h->task);
	}
	hammer_some(own, rounds);
	for_each_cpu(cpu, &cpus_online)
		while (__atomic_load_n(&hammers[cpu].running, __ATOMIC_ACQUIRE) &&
		       rdtsc() < deadline + (u64)GRACE_MS * tsc_khz)
			cpu_pause();
}

static void print_hammer(const char *key, u32 cpu)
{
	const struct hammer *h = &hammers[cpu];

	monitor_printf("%s=%u rounds=%u failures=%u ticks_avg=%lu ticks_min=%lu ticks_max=%lu\n",
		       key, cpu, h->done, h->failed, h->sum / MAX(h->done, 1), h->least, h->most);
}

static void print_all(void)
{
	u32 unfinished = 0, failed = 0;

	for_each_cpu(cpu, &cpus_online) {
		print_hammer("cpu", cpu);
		unfinished += hammers[cpu].done < rounds;
		failed += hammers[cpu].failed;
	}
	monitor_printf("rounds=%u failures=%u unfinished=%u\n", rounds, failed, unfinished);
}

bool cmd_ipi(u32 argc, char **argv)
{
	u32 me = this_cpu(cpu_id), wanted = ROUNDS_DEFAULT;

	if (argc > 2 || (argc == 2 && !command_number(argv[1], ROUNDS_MAX + 1, &wanted)))
		return false;
	rounds = wanted;
	limit_time();
	hammer_all(&hammers[me]);
	print_all();
	hammer_start(&hammers[me]);
	limit_time();
	hammer_some(&hammers[me], rounds);
	print_hammer("alone", me);
	return true;
}
