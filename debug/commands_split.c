/* SPDX-License-Identifier: MIT */
/* split-lock. */
#include "arch/x86/cpu.h"
#include "arch/x86/split_lock.h"
#include "arch/x86/topology.h"
#include "debug/backtrace.h"
#include "debug/commands.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/ops.h"

static const char *state_name(enum split_lock_state state)
{
	static const char *const names[] = {
		[SPLIT_LOCK_UNSUPPORTED] = "unsupported",
		[SPLIT_LOCK_OFF] = "off",
		[SPLIT_LOCK_OFF_SELF] = "off-by-corbel",
		[SPLIT_LOCK_ON] = "on",
	};

	return state < ARRAY_SIZE(names) ? names[state] : "?";
}

static void print_state(void)
{
	enum split_lock_state state = split_lock_state();
	char where[80];
	u64 rip;
	u32 id;

	monitor_printf("split_lock=%s bus_locks=%s", state_name(state),
		       virt_ops && virt_ops->bus_locks(NULL, BUS_LOCKS_FREE) ? "exit" : "free");
	if (state == SPLIT_LOCK_UNSUPPORTED)
		command_text("why", split_lock_why());
	if (state == SPLIT_LOCK_OFF_SELF) {
		split_lock_place(&id, &rip);
		symbol_format(rip, where, sizeof(where));
		monitor_printf(" cpu=%u rip=0x%lx", id, rip);
		command_text("at", where);
	}
	monitor_printf("\n");
}

static void print_core(u32 id)
{
	struct split_lock_core c;
	struct cpumask siblings;
	int err = split_lock_read_cpu(id, &c);

	monitor_printf("core=%u cpus=", topo_core(id));
	topo_siblings(id, &siblings);
	command_cpus(&siblings);
	if (err) {
		monitor_printf(" error=\"%s\"\n", error_name(err));
		return;
	}
	monitor_printf(" follows=%s current=%u threads=%u passes=%u value=0x%lx hardware=0x%lx "
		       "found=0x%lx writes=%lu opened=%lu joined=%lu expired=%lu cancelled=%lu "
		       "uncovered_us=%lu spurious=%lu\n",
		       state_name(c.following), c.current, c.threads, c.passes, c.value, c.hardware,
		       c.found, c.writes, c.opened, c.joined, c.expired, c.cancelled,
		       tsc_to_ns(c.uncovered) / 1000, c.spurious);
}

/* One of its CPUs speaks for a core. */
static void print_cores(void)
{
	for_each_cpu(id, &cpus_online) {
		bool first = true;

		for (u32 i = 0; i < id; i++)
			first &= topo_core(i) != topo_core(id) || !bitmap_test(cpus_online.bits, i);
		if (first)
			print_core(id);
	}
}

static void print_vm(const struct vm *vm)
{
	const struct vm_split *s = &vm->split;
	enum split_policy policy = READ_ONCE(s->policy);

	monitor_printf("vm=%s policy=%s", vm->name, split_policy_name(policy));
	if (policy == SPLIT_RATELIMIT)
		monitor_printf(" rate=%u", READ_ONCE(s->rate));
	monitor_printf(" offered=%u seen=%lu bus_locks=%lu injected=%lu passed=%lu ", s->offered,
		       READ_ONCE(s->seen), READ_ONCE(s->bus_locks), READ_ONCE(s->injected),
		       READ_ONCE(s->passed));
	monitor_printf("delayed=%lu fatal=%lu\n", READ_ONCE(s->delayed), READ_ONCE(s->fatal));
}

static void turn(bool on)
{
	int err = split_lock_switch(on);
	struct vm *vm;

	if (err == -EALREADY)
		monitor_printf("split-lock %s: it is already\n", on ? "on" : "off");
	else if (err == -EOPNOTSUPP)
		monitor_printf("split-lock %s: not supported: %s\n", on ? "on" : "off",
			       split_lock_why());
	else if (err)
		monitor_printf("split-lock %s: not on all CPUs yet: see the log\n",
			       on ? "on" : "off");
	else
		print_state();
	for (u32 i = 0; (vm = command_nth_vm(i)); i++)
		split_renew(vm);
}

/* False: no such policy. */
static bool set_policy(struct vm *vm, const char *text)
{
	static const char ratelimit[] = "ratelimit:";
	u32 rate = 0;

	for (enum split_policy p = 0; p < SPLIT_RATELIMIT; p++) {
		if (!strcmp(text, split_policy_name(p))) {
			split_set_policy(vm, p, 0);
			return true;
		}
	}
	if (strncmp(text, ratelimit, sizeof(ratelimit) - 1) ||
	    !command_number(text + sizeof(ratelimit) - 1, SPLIT_RATE_MAX + 1, &rate) || !rate)
		return false;
	split_set_policy(vm, SPLIT_RATELIMIT, rate);
	return true;
}

bool cmd_split_lock(u32 argc, char **argv)
{
	struct vm *vm;

	if (argc == 2 && (!strcmp(argv[1], "on") || !strcmp(argv[1], "off"))) {
		turn(!strcmp(argv[1], "on"));
		return true;
	}
	if (argc == 3) {
		vm = command_vm(argv[0], argv[1]);
		if (!vm)
			return true;
		if (!set_policy(vm, argv[2]))
			return false;
		print_vm(vm);
		return true;
	}
	if (argc != 1)
		return false;
	print_state();
	if (split_lock_state() != SPLIT_LOCK_UNSUPPORTED)
		print_cores();
	for (u32 i = 0; (vm = command_nth_vm(i)); i++)
		print_vm(vm);
	return true;
}
