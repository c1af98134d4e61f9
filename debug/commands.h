/* SPDX-License-Identifier: MIT */
/* The monitor's commands. Internal to debug/. */
#pragma once

#include "debug/monitor.h"
#include "virt/vm.h"

#define COMMAND_WORDS 8

struct command {
	const char *name;
	/*
	 * The words after the name, one for each blank; drives completion: NAME is a VM, CMD a
	 * command, lower-case words (with | between alternatives, in [] if they may be missing)
	 * stand for themselves.
	 */
	const char *args;
	const char *help; /* one line */
	const char *example;
	/* argv[0] is the command's name. False: these are not the arguments; the usage is shown. */
	bool (*run)(u32 argc, char **argv);
};

extern const struct command commands[];
extern const u32 nr_commands;
extern const struct monitor_actions *monitor_actions;

const struct command *command_find(const char *name);
/*
 * Candidate number i for word number `word` (0: the command) of a line that begins with `first`;
 * NULL: there are no more.
 */
const char *command_candidate(const char *first, u32 word, u32 i, char *buf, size_t size);

/*
 * There is more to print than the line should be given at once (COMMAND_PIECE bytes): when it has
 * room, step goes on, until it returns false. go_on is false if nobody wants the rest: it cleans up
 * and prints nothing. VMs get the CPU meanwhile, and other tasks run.
 */
#define COMMAND_PIECE 8192
void command_continue(bool (*step)(bool go_on));

/* The VM of that name; or NULL, after a line that says so. */
struct vm *command_vm(const char *command, const char *name);
/* What is said of a VM in more than one place: its state, bytes of memory, exits so far. */
const char *command_vm_state(const struct vm *vm);
const char *command_vcpu_state(const struct vcpu *v);
u64 command_vm_memory(const struct vm *vm);
u64 command_vm_exits(const struct vm *vm);
/*
 * The vCPU that NAME/INDEX means, or NAME and index (NULL: 0); or NULL, after a line that says so.
 */
struct vcpu *command_vcpu(const char *command, char *name, const char *index);
/* One row for each stage-2 entry on the way to gpa, which is below max_gfn; the VM not corrupt. */
void command_stage2(struct vm *vm, u64 gpa);
/*
 * VM number i of the list, or NULL. VMs do not go away while a command runs: they are destroyed by
 * the boot CPU's tasks only.
 */
struct vm *command_nth_vm(u32 i);
/*
 * Print ` key="text"`, with text made fit for the quotes. Every line of output (but help and log)
 * is a row of key=value or key="text" with one blank between them, so that it can be cut, or turned
 * into JSON, without knowing the command.
 */
void command_text(const char *key, const char *text);
/* Print a set of CPUs, as in 0-1,3. */
void command_cpus(const struct cpumask *mask);
/* The letter of its level (E, W, I, D) in a line of the log; 0: it has none. */
char command_log_level(const char *line, size_t len);
/* A hexadecimal number, with or without 0x. */
bool command_hex(const char *text, u64 *value);
/* A decimal number below `limit`. */
bool command_number(const char *text, u32 limit, u32 *value);

bool cmd_help(u32 argc, char **argv);
bool cmd_version(u32 argc, char **argv);
bool cmd_log(u32 argc, char **argv);
bool cmd_crash(u32 argc, char **argv);
bool cmd_reboot(u32 argc, char **argv);
bool cmd_poweroff(u32 argc, char **argv);
bool cmd_audit(u32 argc, char **argv);
bool cmd_rmap(u32 argc, char **argv);
bool cmd_ept(u32 argc, char **argv);
bool cmd_populate(u32 argc, char **argv);
bool cmd_slot(u32 argc, char **argv);
bool cmd_mem(u32 argc, char **argv);
bool cmd_vms(u32 argc, char **argv);
bool cmd_vm(u32 argc, char **argv);
bool cmd_clone(u32 argc, char **argv);
bool cmd_snapshot(u32 argc, char **argv);
bool cmd_console(u32 argc, char **argv);
bool cmd_exits(u32 argc, char **argv);
bool cmd_cpus(u32 argc, char **argv);
bool cmd_cpu(u32 argc, char **argv);
bool cmd_virt(u32 argc, char **argv);
bool cmd_sched(u32 argc, char **argv);
bool cmd_ipi(u32 argc, char **argv);
bool cmd_regs(u32 argc, char **argv);
bool cmd_x(u32 argc, char **argv);
bool cmd_walk(u32 argc, char **argv);
bool cmd_vmcs(u32 argc, char **argv);
bool cmd_msr(u32 argc, char **argv);
bool cmd_irq(u32 argc, char **argv);
bool cmd_top(u32 argc, char **argv);
bool cmd_trace(u32 argc, char **argv);
bool cmd_split_lock(u32 argc, char **argv);
bool cmd_screen(u32 argc, char **argv);
bool cmd_gdb(u32 argc, char **argv);

/* Its slots, and the memory-fault exits of its vCPUs (`vm NAME info`). */
void print_vm_memory(const struct vm *vm);

/* Boot, once the CPUs are known: the tasks of cmd_ipi. */
void commands_ipi_init(void);

/* tests/faults/poke.c: a command, and its tasks, that only FAULTS builds have. */
void cmd_poke(u32 argc, char **argv);
void poke_init(void);
