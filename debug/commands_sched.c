/* SPDX-License-Identifier: MIT */
/* sched. */
#include "arch/x86/cpu.h"
#include "arch/x86/timer.h"
#include "debug/commands.h"
#include "lib/log.h"
#include "virt/sched.h"

static u64 us(u64 ticks)
{
	return tsc_to_ns(ticks) / 1000;
}

/* One record a CPU, then how long wake-ups took: one for each duration that occurred. */
static void print_cpu(u32 cpu)
{
	const struct sched_stats *s = sched_stats(cpu);
	const struct vcpu *v = sched_current(cpu);

	monitor_printf("cpu=%u vcpus=%u waiting=%u current=", cpu, sched_load(cpu),
		       sched_waiting(cpu));
	if (v)
		monitor_printf("%s/%u", v->vm->name, v->index);
	else
		monitor_printf("none");
	monitor_printf(" runs=%lu slices=%lu given=%lu wakeups=%lu wakeup_avg_us=%lu "
		       "wakeup_max_us=%lu\n",
		       s->runs, s->slices, s->given, s->wakeups,
		       us(s->wakeup_ticks / MAX(s->wakeups, 1)), us(s->wakeup_max));
	for (u32 i = 0; i < SCHED_BUCKETS; i++)
		if (s->wakeup_us[i])
			monitor_printf("cpu=%u wakeup_below_us=%lu count=%lu\n", cpu, BIT(i),
				       s->wakeup_us[i]);
}

bool cmd_sched(u32 argc, char **argv)
{
	struct vm *vm;

	(void)argv;
	if (argc != 1)
		return false;
	for_each_cpu(cpu, &cpus_online)
		print_cpu(cpu);
	for (u32 n = 0; (vm = command_nth_vm(n)); n++)
		for (u32 i = 0; i < vm->nr_vcpus; i++)
			monitor_printf("vm=%s vcpu=%u cpu=%u weight=%u ran_us=%lu\n", vm->name, i,
				       vm->vcpus[i]->cpu, vm->vcpus[i]->share.weight,
				       us(sched_ran(vm->vcpus[i])));
	return true;
}
