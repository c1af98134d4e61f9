/* SPDX-License-Identifier: MIT */
/* cpus, cpu, virt. */
#include "arch/x86/cpu.h"
#include "arch/x86/topology.h"
#include "arch/x86/tsc.h"
#include "debug/commands.h"
#include "lib/error.h"
#include "lib/string.h"
#include "virt/enable.h"
#include "virt/hotplug.h"
#include "virt/sched.h"

static const char *state_name(u8 state)
{
	static const char *const names[] = {
		[CPU_ABSENT] = "absent",   [CPU_STARTED] = "started", [CPU_ONLINE] = "online",
		[CPU_OFFLINE] = "offline", [CPU_DEAD] = "dead",
	};

	return state < ARRAY_SIZE(names) ? names[state] : "?";
}

/* The word for the `virt` field: what keeps vCPUs from this CPU, or that nothing does. */
static const char *virt_name(const struct virt_cpu *vc)
{
	if (vc->excluded)
		return "excluded";
	if (vc->state.enabled)
		return "on";
	return vc->state.error ? "failed" : "off";
}

static void print_cpu(u32 id)
{
	const struct cpu *c = &cpus[id];
	const struct virt_cpu *vc = virt_cpu(id);

	monitor_printf("cpu=%u apic=%u state=%s virt=%s differences=%u vcpus=%u", id, c->apic_id,
		       state_name(c->state), virt_name(vc), vc->differences, sched_load(id));
	if (vc->state.error)
		command_text("error", error_name(vc->state.error));
	if (vc->state.why[0])
		command_text("virt_why", vc->state.why);
	if (vc->state.lasting)
		command_text("lasting", vc->state.lasting);
	if (c->why && c->state != CPU_ONLINE)
		command_text("why", c->why);
	monitor_printf("\n");
}

/* Core numbers count within the package, or in the machine where packages are unknown. */
static void print_topology(u32 id)
{
	const struct topology *t = topo_current();
	u32 package_shift = t->packages_known ? t->package_shift : 32;
	u64 apic = cpus[id].apic_id;
	struct cpumask siblings;

	monitor_printf("cpu=%u apic_hex=0x%lx", id, apic);
	if (!topo_siblings(id, &siblings)) {
		command_text("topology_unknown", t->why[0] ? t->why : "this CPU never came up");
	} else {
		if (t->packages_known)
			monitor_printf(" package=%lu", apic >> package_shift);
		monitor_printf(" core=%lu thread=%lu siblings=",
			       (apic & (BIT(package_shift) - 1)) >> t->smt_shift,
			       apic & (BIT(t->smt_shift) - 1));
		command_cpus(&siblings);
	}
	monitor_printf("\n");
}

static void print_caps(u32 id)
{
	const struct virt_cpu *vc = virt_cpu(id);
	const struct tsc_skew *s = tsc_skew(id);

	if (s->known)
		monitor_printf("cpu=%u tsc_skew_min=%ld tsc_skew_max=%ld tsc_agrees=%u\n", id,
			       s->min, s->max, s->agrees);
	for (u32 i = 0;
	     vc->read && i < (virt_ops ? vc->caps.count : MIN(vc->caps.count, CAP_VENDOR)); i++)
		monitor_printf("cpu=%u cap=%s value=0x%lx\n", id,
			       cap_field(virt_ops ? virt_ops->caps : NULL, i)->name,
			       vc->caps.value[i]);
}

bool cmd_cpus(u32 argc, char **argv)
{
	bool verbose = argc == 2 && !strcmp(argv[1], "-v");

	if (argc != 1 && !verbose)
		return false;
	for (u32 id = 0; id < nr_cpus; id++) {
		print_cpu(id);
		if (verbose) {
			print_topology(id);
			print_caps(id);
		}
	}
	return true;
}

static void print_difference(void *arg, const char *field, const char *rule, u64 expected, u64 seen)
{
	monitor_printf("cpu=%u field=\"%s\" rule=%s expected=0x%lx seen=0x%lx\n", *(const u32 *)arg,
		       field, rule, expected, seen);
}

static void print_diff(u32 id)
{
	u32 n;

	if (!virt_reference() || !virt_cpu(id)->read) {
		monitor_printf("cpu %u: its capabilities were not read\n", id);
		return;
	}
	n = virt_diff(id, print_difference, &id);
	monitor_printf("cpu=%u reference=%u differences=%u\n", id, virt_reference()->cpu, n);
}

bool cmd_cpu(u32 argc, char **argv)
{
	u32 id, rounds = 1;
	bool offline, online;
	const char *why;

	if (argc < 3 || argc > 4)
		return false;
	if (!command_number(argv[1], nr_cpus, &id)) {
		monitor_printf("cpu %s: no such CPU (see cpus)\n", argv[1]);
		return true;
	}
	offline = !strcmp(argv[2], "offline");
	online = !strcmp(argv[2], "online");
	if (argc == 3 && !strcmp(argv[2], "diff")) {
		print_diff(id);
		return true;
	}
	if ((!offline && !online) ||
	    (argc == 4 && (!command_number(argv[3], 1000001, &rounds) || !rounds)))
		return false;
	why = hotplug_begin(id, offline ? HOTPLUG_OFFLINE : HOTPLUG_ONLINE, rounds);
	if (why)
		monitor_printf("cpu %u %s: %s\n", id, argv[2], why);
	return true;
}

/* The first user turns it on, the last one off; the operator is the one user while no VM runs. */
static void virt_switch(bool on)
{
	bool running = false;
	int err = 0;

	list_for_each(n, &vm_list)
		running |= list_entry(n, struct vm, node)->state == VM_RUNNING;
	if (on && !virt_enabled())
		err = virt_enable_get();
	else if (!on && running)
		err = -EBUSY;
	else if (!on && virt_enabled())
		virt_enable_put();
	if (err == -EBUSY)
		monitor_printf("virt off: a VM runs (see vms)\n");
	else if (err)
		monitor_printf("virt on: %s\n",
			       virt_obstacle()[0] ? virt_obstacle() : error_name(err));
	else
		monitor_printf("virt=%s\n", virt_enabled() ? "on" : "off");
}

bool cmd_virt(u32 argc, char **argv)
{
	const struct virt_caps *reference = virt_reference();
	u32 on = 0, excluded = 0;

	if (argc == 2 && (!strcmp(argv[1], "on") || !strcmp(argv[1], "off"))) {
		virt_switch(!strcmp(argv[1], "on"));
		return true;
	}
	if (argc != 1)
		return false;
	for (u32 id = 0; id < nr_cpus; id++) {
		on += virt_cpu(id)->state.enabled;
		excluded += virt_cpu(id)->excluded;
	}
	monitor_printf("virt=%s backend=%s cpus=%u on=%u excluded=%u",
		       virt_enabled() ? "on" : "off", virt_ops ? virt_ops->name : "none", nr_cpus,
		       on, excluded);
	if (reference)
		monitor_printf(" reference=%u", reference->cpu);
	if (virt_obstacle()[0])
		command_text("obstacle", virt_obstacle());
	monitor_printf("\n");
	return true;
}
