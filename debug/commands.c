/* SPDX-License-Identifier: MIT */
/* The table of commands, and what works on the table itself. */
#include "debug/commands.h"
#include "lib/string.h"
#include "virt/enable.h"

const struct command commands[] = {
	{ "help", "[CMD]", "list the commands, or explain one", "help vm", cmd_help },
	{ "vms", "", "one line for each VM", "vms", cmd_vms },
	{ "vm", "NAME start|stop|reset|info|destroy|create|powerbutton|sleepbutton",
	  "control a VM, or show all about it; destroy and create: of the configuration",
	  "vm linux info", cmd_vm },
	{ "clone", "NAME NEW", "a second VM that is as this one is now, and runs on",
	  "clone linux b", cmd_clone },
	{ "snapshot", "NAME", "keep what the VM is now", "snapshot linux", cmd_snapshot },
	{ "restore", "NAME", "make the VM what it was at its snapshot", "restore linux",
	  cmd_snapshot },
	{ "console", "NAME", "go to a VM's console; Ctrl-] comes back", "console linux",
	  cmd_console },
	{ "exits", "NAME [-r]", "VM exits by kind, what they cost; -r: count from here",
	  "exits linux", cmd_exits },
	{ "regs", "NAME [VCPU]", "a vCPU's registers, at its last exit", "regs linux 1", cmd_regs },
	{ "x", "NAME ADDR [COUNT]", "guest memory; ADDR: virtual, or p:PHYSICAL; NAME/1: of vCPU 1",
	  "x linux p:1000 32", cmd_x },
	{ "walk", "NAME GVA", "a guest's page tables and stage 2, on the way to an address",
	  "walk linux/1 ffffffff81000000", cmd_walk },
	{ "irq", "NAME", "LAPICs and IOAPIC of a VM", "irq linux", cmd_irq },
	{ "vmcs", "NAME [VCPU]", "all fields, by name (Intel)", "vmcs linux 1", cmd_vmcs },
	{ "vmcb", "NAME [VCPU]", "all fields, by name (AMD)", "vmcb linux 1", cmd_vmcs },
	{ "msr", "CPU N", "read an MSR on a CPU (N hexadecimal)", "msr 1 c0000080", cmd_msr },
	{ "sched", "", "queues, run times and wake-up latency of CPUs and vCPUs", "sched",
	  cmd_sched },
	{ "cpus", "[-v]", "one line for each CPU; -v: its capabilities too", "cpus -v", cmd_cpus },
	{ "cpu", "N diff|offline|online [ROUNDS]",
	  "how a CPU differs; take it offline, or back online", "cpu 1 offline", cmd_cpu },
	{ "virt", "[on|off]", "virtualization on all CPUs: its state, on, off", "virt off",
	  cmd_virt },
	{ "ipi", "[ROUNDS]", "all CPUs call each other at once, then one alone", "ipi 1000",
	  cmd_ipi },
	{ "split-lock", "[NAME|on|off] [silent|warn|fatal|off|ratelimit:N]",
	  "split-lock detection: its state, on or off; a VM's policy", "split-lock linux fatal",
	  cmd_split_lock },
	{ "audit", "[NAME]", "compare tables, reverse map and owners, of all VMs or of one",
	  "audit linux", cmd_audit },
	{ "rmap", "PFN", "who maps a host frame (hexadecimal number)", "rmap 0x12345", cmd_rmap },
	{ "ept", "NAME GPA", "the entries on the way to a guest physical address",
	  "ept linux 0xfee00000", cmd_ept },
	{ "gdb", "[NAME]", "the gdb line; with a VM: what the next gdb is to see", "gdb linux",
	  cmd_gdb },
	{ "populate", "NAME GPA [SIZE] [zero|ro|rw|poison|giveup]",
	  "memory that is missing: supply it (4K, zero), or end who waits for it",
	  "populate linux 0x1000000 2M", cmd_populate },
	{ "slot", "NAME add|remove|move|flags|dirty ID [GPA]",
	  "change a VM's memory: add OBJECT GPA [read-only], move ID GPA, flags ID none|FLAG,...",
	  "slot linux flags 1 log-dirty", cmd_slot },
	{ "mem", "", "memory by owner", "mem", cmd_mem },
	{ "screen", "[log|status]", "choose the screen's page (F1, F2), or print the status page",
	  "screen status", cmd_screen },
	{ "top", "", "CPUs, VMs, exits per second, until a key is pressed", "top", cmd_top },
	{ "trace", "[on|off|dump|cost] [exit|inject|fault|flush|ipi|sched|split|memory|vm|N]",
	  "what the CPUs did last: classes on, off; dump: for tools/trace", "trace dump 100",
	  cmd_trace },
	{ "log", "[-d|-p]", "the log; -d: debug lines too; -p: of the boot before", "log",
	  cmd_log },
	{ "crash", "assert|panic|trap|frame|hang",
	  "crash Corbel itself, to see what a report looks like", "crash assert", cmd_crash },
	{ "reboot", "", "reset the machine", "reboot", cmd_reboot },
	{ "poweroff", "", "switch the machine off", "poweroff", cmd_poweroff },
	{ "version", "", "which Corbel this is", "version", cmd_version },
};
const u32 nr_commands = ARRAY_SIZE(commands);

const struct command *command_find(const char *name)
{
	for (u32 i = 0; i < nr_commands; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

struct vm *command_nth_vm(u32 i)
{
	struct vm *vm = NULL;

	spin_lock(&vm_list_lock);
	list_for_each(node, &vm_list) {
		if (!i--) {
			vm = list_entry(node, struct vm, node);
			break;
		}
	}
	spin_unlock(&vm_list_lock);
	return vm;
}

struct vm *command_vm(const char *command, const char *name)
{
	struct vm *vm = vm_find(name);

	if (!vm)
		monitor_printf("%s %s: no such VM (see vms)%s%s\n", command, name,
			       virt_obstacle()[0] ? "; no VM can run: " : "", virt_obstacle());
	return vm;
}

void command_text(const char *key, const char *text)
{
	monitor_printf(" %s=\"", key);
	for (; *text; text++)
		monitor_printf("%c", *text == '"' ? '\'' : *text);
	monitor_printf("\"");
}

void command_cpus(const struct cpumask *mask)
{
	const char *separator = "";

	for (u32 from = bitmap_next(mask->bits, MAX_CPUS, 0), to; from < MAX_CPUS;
	     from = bitmap_next(mask->bits, MAX_CPUS, to + 1)) {
		for (to = from; to + 1 < MAX_CPUS && bitmap_test(mask->bits, to + 1); to++)
			;
		monitor_printf(to > from ? "%s%u-%u" : "%s%u", separator, from, to);
		separator = ",";
	}
}

bool command_number(const char *text, u32 limit, u32 *value)
{
	*value = 0;
	do {
		if (*text < '0' || *text > '9' || *value >= limit)
			return false;
		*value = *value * 10 + (u32)(*text - '0');
	} while (*++text);
	return *value < limit;
}

bool command_hex(const char *text, u64 *value)
{
	u32 digits = 0;

	if (text[0] == '0' && text[1] == 'x')
		text += 2;
	for (*value = 0; *text; text++, digits++) {
		char c = *text;
		u32 digit = c >= '0' && c <= '9'   ? (u32)(c - '0')
			    : c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10)
			    : c >= 'A' && c <= 'F' ? (u32)(c - 'A' + 10)
						   : 16;

		if (digit > 15 || digits == 16)
			return false;
		*value = *value << 4 | digit;
	}
	return digits;
}

/* Word number `word` of a command's args; its length, 0 if there is none. */
static size_t args_word(const char *args, u32 word, const char **start)
{
	const char *end;

	for (; *args && word; args++)
		word -= *args == ' ';
	end = strchr(args, ' ');
	*start = args;
	return end ? (size_t)(end - args) : strlen(args);
}

/* Alternative number i of "[a|b]", copied. */
static const char *alternative(const char *spec, size_t len, u32 i, char *buf, size_t size)
{
	size_t n = 0;

	for (size_t at = 0; at < len; at++) {
		if (spec[at] == '|' && !i--)
			break;
		if (spec[at] != '|' && spec[at] != '[' && spec[at] != ']' && !i && n + 1 < size)
			buf[n++] = spec[at];
	}
	buf[n] = '\0';
	return n && (buf[0] < 'A' || buf[0] > 'Z') ? buf : NULL;
}

const char *command_candidate(const char *first, u32 word, u32 i, char *buf, size_t size)
{
	const struct command *c = command_find(first);
	struct vm *vm;
	const char *spec;
	size_t len;

	if (!word)
		return i < nr_commands ? commands[i].name : NULL;
	len = c ? args_word(c->args, word - 1, &spec) : 0;
	if (!len)
		return NULL;
	if (len == 4 && !memcmp(spec, "NAME", 4)) {
		vm = command_nth_vm(i);
		return vm ? vm->name : NULL;
	}
	if (len == 5 && !memcmp(spec, "[CMD]", 5))
		return i < nr_commands ? commands[i].name : NULL;
	return alternative(spec, len, i, buf, size);
}
