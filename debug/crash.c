/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/insn.h"
#include "arch/x86/serial.h"
#include "arch/x86/trace.h"
#include "debug/backtrace.h"
#include "debug/commands.h"
#include "debug/crash.h"
#include "debug/postmortem.h"
#include "debug/watchdog.h"
#include "lib/log.h"
#include "virt/sched.h"

#define REBOOT_SECONDS 5   /* for who looks at the screen */
#define EVENTS	       32  /* of each CPU */
#define VMS_MAX	       32u /* in a report */
#define VCPUS_MAX      16u

void (*crash_output_hook)(void);

bool crash_reboots;

DEFINE_PERCPU(u32, nmi_count);
static u32 crashing = CPU_ID_NONE; /* the CPU that crashes */

static u32 turn = CPU_ID_NONE; /* whose report it is; atomic */

static struct trap_frame crash_frame; /* of the CPU that crashes */
static u32 parts_begun;		      /* of the report */

/*
 * True: the report begins. False: something fails during this CPU's report; it says so, and goes on
 * with what comes next. Nobody else gets on: the machine stops.
 */
static bool crash_begin(void)
{
	u32 expected = CPU_ID_NONE, me = this_cpu(cpu_id);

	irq_disable();
	if (__atomic_compare_exchange_n(&crashing, &expected, me, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST)) {
		log_crashed = true;
		trace_set_classes(0);
		watchdog_stop();
		if (crash_output_hook)
			crash_output_hook();
		else
			log_sink = NULL; /* too early for any output but the ring */
		apic_nmi_others();
		for (u64 i = 0; i < 2000000; i++) /* let them arrive: no clock is trusted here */
			cpu_pause();
		return true;
	}
	if (expected == me)
		return false;
	expected = me;
	if (__atomic_compare_exchange_n(&turn, &expected, CPU_ID_NONE, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		log_err("CPU %u: a second fault ends its part of the report", me);
	halt_forever();
}

static void print_event(void *now, const struct trace_event *e)
{
	u32 type = e->who & 0xff;
	const char *name = "?";

	if (type < EXIT_KINDS)
		name = exit_kind_name(type);
	else if (type > TRACE_FIRST && type < TRACE_TYPES)
		name = trace_format(type)->name;
	log_warn("  %lu us before: %s vm %lu/%lu %#lx %#lx %#lx",
		 tsc_to_ns(*(u64 *)now - e->tsc) / 1000, name, e->who >> 16 & 0xffff,
		 e->who >> 8 & 0xff, e->who >> TRACE_ARG_SHIFT, e->a, e->b);
}

/*
 * What this CPU did last (arch/x86/trace.h has the words' meaning). Not on the screen, whose rows
 * are for the rest: debug/console.c.
 */
static void dump_trace(void)
{
	u64 now = rdtsc();

	trace_read(this_cpu(cpu_id), EVENTS, print_event, &now);
}

/*
 * The other CPUs, one after the other: each prints itself, from its NMI handler. One that does not
 * within two seconds hangs in a way that not even NMIs get through.
 */
static void dump_others(void)
{
	for_each_cpu(cpu, &cpus_online) {
		u64 end = rdtsc() + 2000ull * tsc_khz;

		if (cpu == this_cpu(cpu_id))
			continue;
		__atomic_store_n(&turn, cpu, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) == cpu && rdtsc() < end)
			cpu_pause();
		if (__atomic_exchange_n(&turn, CPU_ID_NONE, __ATOMIC_SEQ_CST) == cpu)
			log_err("CPU %u does not answer", cpu);
	}
}

/*
 * The CPUs have stopped, nobody changes the lists any more. What is read of a vCPU is what it was
 * at its last exit.
 */
static void dump_vms(void)
{
	u32 left = VMS_MAX;

	list_for_each(n, &vm_list) {
		const struct vm *vm = list_entry(n, struct vm, node);

		if (!left--)
			break;
		log_err("vm %s: %s %s", vm->name, command_vm_state(vm), vm->stop_text);
		for (u32 i = 0; i < MIN(vm->nr_vcpus, VCPUS_MAX); i++) {
			const struct vcpu *v = vm->vcpus[i];

			log_err("  vCPU %u: on CPU %u, %s, rip %016lx, last exit %s", i, v->cpu,
				command_vcpu_state(v), v->rip, exit_kind_name(v->exit.kind));
		}
	}
}

static const char *const exception_names[32] = {
	"#DE divide error",
	"#DB debug",
	"NMI",
	"#BP breakpoint",
	"#OF overflow",
	"#BR bound range",
	"#UD invalid opcode",
	"#NM no FPU",
	"#DF double fault",
	"coprocessor overrun",
	"#TS invalid TSS",
	"#NP segment not present",
	"#SS stack",
	"#GP general protection",
	"#PF page fault",
	"reserved",
	"#MF x87",
	"#AC alignment check",
	"#MC machine check",
	"#XM SIMD",
	"#VE virtualization",
	"#CP control protection",
};

static void dump_frame(const struct trap_frame *f)
{
	char where[80];

	symbol_format(f->rip, where, sizeof(where));
	log_err("rip %016lx %s  cs %lx rflags %lx error %lx", f->rip, where, f->cs, f->rflags,
		f->error);
	log_err("rsp %016lx rbp %016lx cr2 %016lx cr3 %016lx", f->rsp, f->rbp, read_cr2(),
		read_cr3());
	log_err("rax %016lx rbx %016lx rcx %016lx rdx %016lx", f->rax, f->rbx, f->rcx, f->rdx);
	log_err("rsi %016lx rdi %016lx r8  %016lx r9  %016lx", f->rsi, f->rdi, f->r8, f->r9);
	log_err("r10 %016lx r11 %016lx r12 %016lx r13 %016lx", f->r10, f->r11, f->r12, f->r13);
	log_err("r14 %016lx r15 %016lx cr0 %016lx cr4 %016lx", f->r14, f->r15, read_cr0(),
		read_cr4());
}

static void dump_registers(void)
{
	dump_frame(&crash_frame);
}

static void dump_stack(void)
{
	backtrace_from(crash_frame.rip, crash_frame.rbp);
}

/* A gdb on the line on which the report was. */
static void crash_end(void)
{
	if (crash_reboots) {
		log_err("corbel: reset in %u seconds: on_panic = reboot", REBOOT_SECONDS);
		clock_delay_us(REBOOT_SECONDS * 1000000u);
		machine_reset();
	}
	log_err("halted: press the reset button");
	if (!crash_output_hook || !serial_port(SERIAL_CONSOLE))
		halt_forever();
	log_err("gdb: on this line, with corbel.elf: target remote");
	postmortem_init(crashing, serial_write);
	for (;;) {
		int c = serial_crash_read();

		if (c >= 0)
			postmortem_input((u8)c);
	}
}

/* Each part is tried once. The VMs come last, because lists may be what is broken. */
static void NORETURN report(void)
{
	static void (*const parts[])(void) = { dump_registers, dump_stack, dump_trace,
					       dump_others,    dump_vms,   crash_end };

	while (parts_begun < ARRAY_SIZE(parts))
		parts[parts_begun++]();
	halt_forever();
}

/* What fails in the report is on the same stack, above the part that it ends. */
static void NORETURN crash(const char *what, const struct trap_frame *f)
{
	char where[80];

	if (crash_begin()) {
		crash_frame = *f;
		postmortem_frames[this_cpu(cpu_id)] = &crash_frame;
		log_err("corbel: PANIC: %s (CPU %u)", what, this_cpu(cpu_id));
	} else {
		symbol_format(f->rip, where, sizeof(where));
		log_err("a second fault during the crash report: %s at %s", what, where);
	}
	report();
}

/*
 * An exception may come where GS base is a guest's, between #VMEXIT and VMLOAD: whose stack this is
 * tells the CPU. (Interrupts and NMIs don't: GIF is 0 there.)
 */
static void own_percpu(const struct trap_frame *f)
{
	for (u32 i = 0; i < nr_cpus; i++) {
		u64 top = (u64)(uintptr_t)cpus[i].stack_top;

		if ((u64)(uintptr_t)f - (top - STACK_SIZE) < STACK_SIZE)
			cpu_set_percpu(i);
	}
}

void crash_trap(struct trap_frame *f)
{
	own_percpu(f);
	crash(f->vector < 32 && exception_names[f->vector] ? exception_names[f->vector]
							   : "exception",
	      f);
}

/* What a debugger finds the callers by. */
void crash_message(const char *message)
{
	struct trap_frame f = { .cs = HOST_CS, .rflags = read_flags() };

	asm volatile("mov %%rbx, %0; mov %%rbp, %1; mov %%rsp, %2; mov %%r12, %3; mov %%r13, %4;"
		     "mov %%r14, %5; mov %%r15, %6; lea (%%rip), %7"
		     : "=m"(f.rbx), "=m"(f.rbp), "=m"(f.rsp), "=m"(f.r12), "=m"(f.r13), "=m"(f.r14),
		       "=m"(f.r15), "=r"(f.rip));
	crash(message, &f);
}

void crash_nmi(struct trap_frame *f)
{
	u32 who = __atomic_load_n(&crashing, __ATOMIC_SEQ_CST);
	const struct vcpu *v;
	char where[80];

	if (who == CPU_ID_NONE) {
		if (watchdog_hangs())
			crash("it hangs here, with interrupts off", f);
		nmi_count++;
		return;
	}
	WRITE_ONCE(postmortem_frames[this_cpu(cpu_id)], f);
	while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != this_cpu(cpu_id))
		cpu_pause();
	symbol_format(f->rip, where, sizeof(where));
	v = sched_current(this_cpu(cpu_id));
	if (v)
		log_err("CPU %u was at %s, for %s/%u", this_cpu(cpu_id), where, v->vm->name,
			v->index);
	else
		log_err("CPU %u was at %s, with no vCPU", this_cpu(cpu_id), where);
	backtrace_from(f->rip, f->rbp);
	dump_trace();
	__atomic_store_n(&turn, CPU_ID_NONE, __ATOMIC_SEQ_CST);
	halt_forever();
}
