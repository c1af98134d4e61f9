/* SPDX-License-Identifier: MIT */
/* vms, vm, console, exits. */
#include "debug/commands.h"
#include "debug/console.h"
#include "dev/platform.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "virt/exit_cost.h"
#include "virt/slots.h"

const char *command_vm_state(const struct vm *vm)
{
	static const char *const names[] = {
		[VM_CREATED] = "created",
		[VM_RUNNING] = "running",
		[VM_STOPPED] = "stopped",
	};

	return vm->dead ? "dead" : vm->snapshot ? "snapshot" : names[vm->state];
}

u64 command_vm_memory(const struct vm *vm)
{
	u64 size = 0;

	for (u32 i = 0; i < vm_slots(vm)->nr; i++)
		size += vm_slots(vm)->slot[i].size;
	return size;
}

static u64 vcpu_exits(const struct vcpu *v)
{
	u64 sum = 0;

	for (u32 kind = 0; kind < EXIT_KINDS; kind++)
		sum += READ_ONCE(v->exits[kind]);
	return sum;
}

u64 command_vm_exits(const struct vm *vm)
{
	u64 sum = 0;

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		sum += vcpu_exits(vm->vcpus[i]);
	return sum;
}

static void print_vm(const struct vm *vm)
{
	monitor_printf("vm=%s id=%u state=%s reason=\"%s\" vcpus=%u cpus=", vm->name, vm->id,
		       command_vm_state(vm), stop_reason_name(vm->stop_reason), vm->nr_vcpus);
	command_cpus(&vm->cpus);
	monitor_printf(" memory_kib=%lu starts=%lu resets=%lu exits=%lu\n",
		       command_vm_memory(vm) >> 10, vm->starts, vm->resets, command_vm_exits(vm));
}

bool cmd_vms(u32 argc, char **argv)
{
	struct vm *vm;

	(void)argv;
	for (u32 i = 0; argc == 1 && (vm = command_nth_vm(i)); i++)
		print_vm(vm);
	return argc == 1;
}

static void print_text(const struct vm *vm, const char *key, const char *text)
{
	monitor_printf("vm=%s", vm->name);
	command_text(key, text);
	monitor_printf("\n");
}

static void print_console(struct vm *vm)
{
	struct console_stats stats;

	if (!console_vm_stats(vm, &stats))
		return;
	monitor_printf(
		"vm=%s console_written=%lu console_unseen=%lu input_queued=%u input_lost=%lu\n",
		vm->name, stats.written, stats.unseen, stats.queued, stats.lost);
	print_text(vm, "last_line", stats.last_line);
}

const char *command_vcpu_state(const struct vcpu *v)
{
	static const char *const names[] = {
		[VCPU_STOPPED] = "stopped", [VCPU_RUNNABLE] = "runnable",
		[VCPU_RUNNING] = "running", [VCPU_HALTED] = "halted",
		[VCPU_PAUSED] = "paused",   [VCPU_CLAIMED] = "paused",
	};

	if (v->state == VCPU_HALTED && v->activity == VCPU_WAIT_SIPI)
		return "wait-for-sipi";
	if (READ_ONCE(v->wait.backing))
		return "waits-for-memory";
	return v->state < ARRAY_SIZE(names) ? names[v->state] : "?";
}

/* What is read of a vCPU that runs elsewhere is what it was at some exit. */
static void print_vcpu(const struct vcpu *v)
{
	monitor_printf("vm=%s vcpu=%u cpu=%u%s state=%s rip=0x%016lx exits=%lu last_exit=%s\n",
		       v->vm->name, v->index, v->cpu, v->pin ? " pinned=yes" : "",
		       command_vcpu_state(v), v->rip, vcpu_exits(v), exit_kind_name(v->exit.kind));
}

static void print_virtio(struct vm *vm)
{
	for (u32 slot = 0; slot < VIRTIO_SLOTS; slot++) {
		const struct virtio *d = platform_virtio(vm, slot);

		if (d)
			monitor_printf("vm=%s device=%s requests=%lu bytes=%lu dropped=%lu "
				       "errors=%lu broken=%lu status=%#x\n",
				       vm->name, d->kind->name, READ_ONCE(d->requests),
				       READ_ONCE(d->bytes), READ_ONCE(d->dropped),
				       READ_ONCE(d->errors), READ_ONCE(d->broken), d->status);
	}
}

static void info(struct vm *vm)
{
	print_vm(vm);
	if (vm->stop_text[0])
		print_text(vm, "why", vm->stop_text);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		print_vcpu(vm->vcpus[i]);
	print_vm_memory(vm);
	print_console(vm);
	print_virtio(vm);
}

static int stop(struct vm *vm)
{
	if (vm->state != VM_RUNNING)
		return -ESRCH; /* what one gets who signals a process that has ended */
	vm_stop(vm, STOP_OPERATOR, "stopped from the monitor");
	return 0;
}

static int press(struct vm *vm, enum power_button button)
{
	if (vm->state != VM_RUNNING)
		return -ESRCH;
	power_press(&platform_of(vm)->power, button);
	return 0;
}

/* What start, stop or reset failed with, in the user's words. */
static const char *why_not(const struct vm *vm, int err)
{
	switch (err) {
	case -ESRCH:
		return "it is not running";
	case -EBUSY:
		return "it is running";
	case -EPERM:
		return "it is dead: a bug in Corbel, see the log";
	case -EROFS:
		return "a snapshot: restore it, or clone it";
	case -ENODEV:
		return "no CPU can run it: see the log";
	default: /* loading failed, and has said so */
		return vm->stop_text[0] ? vm->stop_text : error_name(err);
	}
}

static void report(const char *name, const char *what, const char *why)
{
	if (why)
		monitor_printf("vm %s %s: %s\n", name, what, why);
	else
		monitor_printf("vm=%s %s=ok\n", name, what);
}

bool cmd_vm(u32 argc, char **argv)
{
	struct vm *vm;
	int err;

	if (argc != 3)
		return false;
	if (!strcmp(argv[2], "create")) {
		report(argv[1], argv[2], monitor_actions->vm_create(argv[1]));
		return true;
	}
	vm = command_vm(argv[0], argv[1]);
	if (!vm)
		return true;
	if (!strcmp(argv[2], "info")) {
		info(vm);
		return true;
	}
	if (!strcmp(argv[2], "destroy")) {
		report(argv[1], argv[2], monitor_actions->vm_destroy(vm));
		return true;
	}
	if (!strcmp(argv[2], "start"))
		err = vm_start(vm);
	else if (!strcmp(argv[2], "stop"))
		err = stop(vm);
	else if (!strcmp(argv[2], "reset"))
		err = monitor_actions->vm_reset(vm);
	else if (!strcmp(argv[2], "powerbutton"))
		err = press(vm, POWER_BUTTON);
	else if (!strcmp(argv[2], "sleepbutton"))
		err = press(vm, SLEEP_BUTTON);
	else
		return false;
	report(argv[1], argv[2], err ? why_not(vm, err) : NULL);
	return true;
}

bool cmd_clone(u32 argc, char **argv)
{
	struct vm *vm;

	if (argc != 3)
		return false;
	vm = command_vm(argv[0], argv[1]);
	if (vm)
		report(argv[1], argv[0], monitor_actions->vm_clone(vm, argv[2]));
	return true;
}

/* snapshot and restore */
bool cmd_snapshot(u32 argc, char **argv)
{
	struct vm *vm;

	if (argc != 2)
		return false;
	vm = command_vm(argv[0], argv[1]);
	if (vm)
		report(argv[1], argv[0],
		       argv[0][0] == 's' ? monitor_actions->vm_snapshot(vm)
					 : monitor_actions->vm_restore(vm));
	return true;
}

bool cmd_console(u32 argc, char **argv)
{
	struct vm *vm;

	if (argc != 2)
		return false;
	vm = command_vm(argv[0], argv[1]);
	if (vm && console_attach(vm))
		monitor_printf("console %s: it has no console\n", vm->name);
	return true;
}

struct exit_count {
	u8 kind;
	u64 count;
	u64 traced, ticks, most; /* of those in the trace: what Corbel needed for them */
};

/*
 * What exits cost, by the trace, newest first: from an exit to the entry that the next one of the
 * same vCPU tells, if the vCPU kept its CPU in between.
 */
struct costs {
	struct exit_count *counts; /* by kind */
	u32 who, later, entered;   /* of the vCPU; of the next exit, 0: none */
};

static void add_cost(void *arg, const struct trace_event *e)
{
	struct costs *c = arg;
	u32 who = (u32)e->who & ~0xffu, ticks = c->entered - (u32)e->tsc;
	u8 type = (u8)e->who;

	if (type == TRACE_RUN || type == TRACE_REST)
		c->later = 0;
	if (type >= EXIT_KINDS)
		return;
	if (who == c->who && who == c->later) {
		c->counts[type].traced++;
		c->counts[type].ticks += ticks;
		c->counts[type].most = MAX(c->counts[type].most, ticks);
	}
	c->later = who;
	c->entered = (u32)(e->who >> TRACE_ARG_SHIFT);
}

/* Most frequent first. Returns how many kinds occurred. */
static u32 sorted_exits(const struct vcpu *v, struct exit_count *out)
{
	struct exit_count all[EXIT_KINDS] = { 0 };
	struct costs costs = { .counts = all, .who = v->trace.who };
	u32 n = 0;

	for (u32 cpu = 0; cpu < nr_cpus; cpu++) {
		costs.later = 0;
		trace_read(cpu, ~0u, add_cost, &costs);
	}
	for (u32 kind = 0; kind < EXIT_KINDS; kind++) {
		struct exit_count *c = &all[kind];
		u32 at = n;

		c->kind = (u8)kind;
		c->count = READ_ONCE(v->exits[kind]) - v->exits_before[kind];
		if (!c->count)
			continue;
		for (; at && out[at - 1].count < c->count; at--)
			out[at] = out[at - 1];
		out[at] = *c;
		n++;
	}
	return n;
}

/* Only in EXIT_COST builds. */
static void print_costs(const struct vcpu *v)
{
	for (u32 kind = 0; kind < EXIT_KINDS; kind++)
		if (v->cost.ticks[kind])
			monitor_printf("vm=%s vcpu=%u exit=%s ticks=%lu\n", v->vm->name, v->index,
				       exit_kind_name(kind), v->cost.ticks[kind]);
	monitor_printf("vm=%s vcpu=%u guest ticks=%lu\n", v->vm->name, v->index, v->cost.guest);
}

static void print_exits(const struct vcpu *v)
{
	struct exit_count counts[EXIT_KINDS];
	u32 n = sorted_exits(v, counts);

	for (u32 k = 0; k < n; k++) {
		const struct exit_count *c = &counts[k];

		monitor_printf("vm=%s vcpu=%u exit=%s count=%lu", v->vm->name, v->index,
			       exit_kind_name(c->kind), c->count);
		if (c->traced)
			monitor_printf(" traced=%lu ticks_avg=%lu ticks_max=%lu", c->traced,
				       c->ticks / c->traced, c->most);
		monitor_printf("\n");
	}
}

bool cmd_exits(u32 argc, char **argv)
{
	bool reset = argc == 3 && !strcmp(argv[2], "-r");
	struct vm *vm;

	if (argc != 2 && !reset)
		return false;
	vm = command_vm(argv[0], argv[1]);
	for (u32 i = 0; vm && i < vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i];

		print_exits(v);
		if (EXIT_COST)
			print_costs(v);
		for (u32 kind = 0; reset && kind < EXIT_KINDS; kind++)
			v->exits_before[kind] = READ_ONCE(v->exits[kind]);
	}
	return true;
}
