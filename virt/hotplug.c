/* SPDX-License-Identifier: MIT */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/smp.h"
#include "arch/x86/split_lock.h"
#include "arch/x86/topology.h"
#include "arch/x86/tsc.h"
#include "lib/error.h"
#include "lib/log.h"
#include "virt/enable.h"
#include "virt/hotplug.h"
#include "virt/sched.h"

#define POLL_US	 1000
#define LEAVE_MS 5000

enum step { NOTHING, LEAVING, INIT_SENT, SIPI_SENT, STARTING };

/* The one operation that is under way. */
static struct {
	enum step step;
	u32 cpu;
	enum hotplug_goal goal, last_goal;
	u32 rounds; /* left to do, this one included */
	u64 began, deadline;
	struct timer timer;
} op;
static struct task op_task;
static struct task leave_tasks[MAX_CPUS];

static u64 after_ms(u64 ms)
{
	return rdtsc() + ms * tsc_khz;
}

static void timer_fired(struct timer *t)
{
	(void)t;
	task_wake(&op_task);
}

/* vCPUs of this CPU get another one. Returns whether one has to run here until it stops. */
static bool move_vcpus(void)
{
	bool waits = false;

	sched_close();
	spin_lock(&vm_list_lock);
	list_for_each(n, &vm_list) {
		struct vm *vm = list_entry(n, struct vm, node);

		for (u32 i = 0; i < vm->nr_vcpus; i++) {
			struct vcpu *v = vm->vcpus[i];

			if (v->cpu != this_cpu(cpu_id) || !sched_move(v))
				continue;
			if (READ_ONCE(vm->state) != VM_RUNNING)
				continue;
			waits = true;
			vm_stop(vm, STOP_NO_CPU,
				"vCPU %u may run on CPU %u only, which goes offline", i, v->cpu);
		}
	}
	spin_unlock(&vm_list_lock);
	return waits;
}

/* The CPU itself. */
static void leave(struct task *t)
{
	if (move_vcpus()) {
		task_wake(t); /* after them */
		return;
	}
	irq_disable();
	virt_disable_here();
	split_lock_leave();
	smp_park();
}

static void step_on(enum step next, u32 us)
{
	u64 flags = irq_save();

	op.step = next;
	timer_arm(&op.timer, rdtsc() + (u64)us * tsc_khz / 1000);
	irq_restore(flags);
}

static void start_round(void)
{
	op.deadline = after_ms(LEAVE_MS);
	if (op.goal == HOTPLUG_OFFLINE) {
		virt_cpu_retire(op.cpu);
		task_wake(&leave_tasks[op.cpu]);
		step_on(LEAVING, POLL_US);
	} else if (smp_init(op.cpu)) {
		op.step = NOTHING;
	} else {
		step_on(INIT_SENT, SMP_INIT_US);
	}
}

/* Rounds that are not the last say nothing. */
static void done(void)
{
	if (op.goal == op.last_goal && !--op.rounds) {
		op.step = NOTHING;
		log_info("CPU %u: %s (%lu us)", op.cpu,
			 op.goal == HOTPLUG_OFFLINE ? "offline" : "online",
			 tsc_to_ns(rdtsc() - op.began) / 1000);
		return;
	}
	op.goal = op.goal == HOTPLUG_OFFLINE ? HOTPLUG_ONLINE : HOTPLUG_OFFLINE;
	start_round();
}

static void give_up(const char *why)
{
	op.step = NOTHING;
	log_err("CPU %u: %s", op.cpu, why);
}

static void check_arrival(void)
{
	int err = smp_check(op.cpu, rdtsc() > op.deadline);

	if (err == -EAGAIN)
		step_on(op.step, POLL_US);
	else if (err)
		give_up("stays offline");
	if (err)
		return;
	topo_evaluate();
	if (split_lock_join_cpu(op.cpu) || tsc_sync(op.cpu) || virt_cpu_join(op.cpu))
		give_up("online, but no vCPU will run there");
	else
		done();
}

static void run(struct task *t)
{
	(void)t;
	switch (op.step) {
	case NOTHING:
		break;
	case LEAVING:
		if (__atomic_load_n(&cpus[op.cpu].state, __ATOMIC_SEQ_CST) == CPU_OFFLINE)
			done();
		else if (rdtsc() > op.deadline)
			give_up("not offline after 5 s: it is still busy, and will be later");
		else
			step_on(op.step, POLL_US);
		break;
	case INIT_SENT:
		smp_sipi(op.cpu);
		step_on(SIPI_SENT, SMP_SIPI_US);
		break;
	case SIPI_SENT:
		smp_sipi(op.cpu);
		op.deadline = after_ms(SMP_START_MS);
		step_on(STARTING, SMP_SIPI_US);
		break;
	case STARTING:
		check_arrival();
		break;
	}
}

void hotplug_init(u32 cpu)
{
	timer_init(&op.timer, timer_fired);
	task_add(&op_task, cpu, run);
	for (u32 i = 1; i < nr_cpus; i++)
		task_add(&leave_tasks[i], i, leave);
}

const char *hotplug_begin(u32 cpu, enum hotplug_goal goal, u32 rounds)
{
	bool online = bitmap_test(cpus_online.bits, cpu);

	if (op.step != NOTHING)
		return "another CPU is under way";
	if (!cpu)
		return "it is the boot CPU: INIT would send it back to the firmware";
	if (cpu == op_task.cpu)
		return "the monitor runs on it";
	if (online != (goal == HOTPLUG_OFFLINE))
		return online ? "it is online" : "it is not online";
	op.cpu = cpu;
	op.goal = op.last_goal = goal;
	op.rounds = rounds;
	op.began = rdtsc();
	start_round();
	return NULL;
}
