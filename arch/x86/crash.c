/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/backtrace.h"
#include "arch/x86/cpu.h"
#include "arch/x86/crash.h"
#include "arch/x86/insn.h"
#include "lib/log.h"

void (*crash_output_hook)(void);

DEFINE_PERCPU(u32, nmi_count);
static u32 crashing = CPU_ID_NONE; /* the CPU that crashes */

static void NORETURN halt_forever(void)
{
	for (;;)
		asm volatile("cli; hlt");
}

/*
 * The first CPU to come here reports; others stop; the same CPU again (a fault in the report)
 * halts.
 */
static void crash_begin(void)
{
	u32 expected = CPU_ID_NONE;

	irq_disable();
	if (!__atomic_compare_exchange_n(&crashing, &expected, this_cpu(cpu_id), false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		if (expected == this_cpu(cpu_id))
			log_err("a second fault during the crash report");
		halt_forever();
	}
	log_crashed = true;
	if (crash_output_hook)
		crash_output_hook();
	else
		log_sink = NULL; /* too early for any output but the ring */
	apic_nmi_others();
	for (u64 i = 0; i < 2000000; i++) /* let them arrive: no clock is trusted here */
		cpu_pause();
}

static void NORETURN crash_end(void)
{
	log_err("halted: press the reset button");
	halt_forever();
}

void crash_trap(struct trap_frame *f, const char *name)
{
	crash_begin();
	log_err("corbel: PANIC: %s on CPU %u", name, this_cpu(cpu_id));
	trap_dump(f);
	backtrace_from(f->rip, f->rbp);
	crash_end();
}

void crash_message(const char *message)
{
	crash_begin();
	log_err("corbel: PANIC: %s (CPU %u)", message, this_cpu(cpu_id));
	backtrace_here();
	crash_end();
}

void crash_nmi(struct trap_frame *f)
{
	u32 who = __atomic_load_n(&crashing, __ATOMIC_SEQ_CST);
	char where[80];

	if (who == CPU_ID_NONE) {
		nmi_count++;
		return;
	}
	symbol_format(f->rip, where, sizeof(where));
	log_err("CPU %u was at %s", this_cpu(cpu_id), where);
	halt_forever();
}
