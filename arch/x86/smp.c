/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "arch/x86/smp.h"
#include "arch/x86/topology.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"

/* The part of the trampoline page that is data; offsets are known to boot/trampoline.asm. */
struct trampoline_data {
	u32 cr3, cr4;
	u64 efer;
	u64 entry;
};
extern const u8 trampoline_start[], trampoline_end[], trampoline_data[];
extern const u8 trampoline_fix_gdt[], trampoline_fix_32[], trampoline_fix_64[];
/* trampoline.asm jumps here with the CPU's own stack and RDI = index into cpus[]. */
void ap_start(u32 id) NORETURN;

static const struct smp_boot *boot;

static void set_state(u32 id, enum cpu_state state)
{
	__atomic_store_n(&cpus[id].state, state, __ATOMIC_SEQ_CST);
}

static enum cpu_state get_state(u32 id)
{
	return __atomic_load_n(&cpus[id].state, __ATOMIC_SEQ_CST);
}

void smp_boot_cpu_online(void)
{
	ipi_join();
	set_state(0, CPU_ONLINE);
}

static void give_up(u32 id, const char *why)
{
	set_state(id, CPU_DEAD);
	cpus[id].why = why;
	log_err("CPU %u (APIC id %u): %s: left out", id, cpus[id].apic_id, why);
}

/* The exchange decides the race with a CPU that gets on just now. */
static bool give_up_in(u32 id, enum cpu_state state, const char *why)
{
	u8 expected = (u8)state;

	if (!__atomic_compare_exchange_n(&cpus[id].state, &expected, CPU_DEAD, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return false;
	give_up(id, why);
	return true;
}

void ap_start(u32 id)
{
	u8 expected = CPU_ABSENT;
	u64 off = 0;

	if (fault_of(id, FAULT_START, NULL) ||
	    !__atomic_compare_exchange_n(&cpus[id].state, &expected, CPU_STARTED, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		halt_forever();
	if (fault_of(id, FAULT_FINISH, NULL))
		halt_forever();
	cpu_set_percpu(id);
	if (cpu_unfit()) {
		(void)give_up_in(id, CPU_STARTED, cpu_unfit());
		halt_forever();
	}
	cpu_init_control();
	desc_load(boot->ist(id));
	apic_init_cpu();
	timer_init_cpu();
	if (fault_of(id, FAULT_TSC, &off) && wrmsr_safe(MSR_TSC, rdtsc() + off))
		halt_forever();
	topo_read(id);
	ipi_join();
	expected = CPU_STARTED;
	if (!__atomic_compare_exchange_n(&cpus[id].state, &expected, CPU_ONLINE, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		ipi_leave();
		halt_forever();
	}
	boot->ap_main();
	__builtin_unreachable();
}

/* Where something of the trampoline's lies in its page. */
static void *in_page(const u8 *symbol)
{
	return (u8 *)boot->trampoline_ptr + (symbol - trampoline_start);
}

void smp_prepare(const struct smp_boot *b)
{
	struct trampoline_data *data;

	boot = b;
	if (!b->trampoline)
		return;
	data = in_page(trampoline_data);
	memcpy(boot->trampoline_ptr, trampoline_start, (size_t)(trampoline_end - trampoline_start));
	*(u32 *)in_page(trampoline_fix_gdt) += (u32)boot->trampoline;
	*(u32 *)in_page(trampoline_fix_32) += (u32)boot->trampoline;
	*(u32 *)in_page(trampoline_fix_64) += (u32)boot->trampoline;
	data->cr3 = (u32)boot->cr3;
	data->cr4 = (u32)(X86_CR4_PAE | (read_cr4() & X86_CR4_LA57));
	data->efer = EFER_LME | EFER_NXE | EFER_SCE;
	data->entry = (u64)ap_start;
}

/* Why a CPU can't even be tried. */
static const char *obstacle(u32 id)
{
	if (!boot->trampoline)
		return "no page below 640 KiB to start it from";
	if (!apic_x2 && cpus[id].apic_id > 254)
		return "its APIC id needs x2APIC mode, which this machine doesn't have";
	if (!cpus[id].stack_top)
		return "no memory for it";
	return NULL;
}

int smp_init(u32 id)
{
	const char *why = obstacle(id);

	if (why) {
		give_up(id, why);
		return trace_error(-ENODEV);
	}
	cpus[id].why = NULL;
	set_state(id, CPU_ABSENT);
	apic_ipi(cpus[id].apic_id, APIC_ICR_INIT | APIC_ICR_ASSERT);
	return 0;
}

void smp_sipi(u32 id)
{
	u8 vector = (u8)(boot->trampoline >> 12);

	if (get_state(id) == CPU_ABSENT)
		apic_ipi(cpus[id].apic_id, APIC_ICR_STARTUP | APIC_ICR_ASSERT | vector);
}

int smp_check(u32 id, bool late)
{
	enum cpu_state state = get_state(id);

	if (state == CPU_ONLINE)
		return 0;
	if (state == CPU_DEAD)
		return -EIO; /* has been reported */
	if (!late || (!give_up_in(id, CPU_ABSENT, "no answer to SIPI") &&
		      !give_up_in(id, CPU_STARTED, "started, but did not finish")))
		return -EAGAIN;
	return trace_error(-ETIMEDOUT);
}

static void init(u32 id)
{
	(void)smp_init(id); /* it has reported */
}

/* Returns the ticks that this CPU spent. */
static u64 for_all(void (*send)(u32 id))
{
	u64 began = rdtsc();

	for (u32 i = 1; i < nr_cpus; i++)
		send(i);
	return rdtsc() - began;
}

u32 smp_start(void)
{
	u64 deadline, sent, last;

	sent = for_all(init);
	clock_delay_us(SMP_INIT_US);
	sent += for_all(smp_sipi);
	clock_delay_us(SMP_SIPI_US);
	sent += for_all(smp_sipi);
	last = rdtsc();
	deadline = last + (u64)SMP_START_MS * tsc_khz;
	for (u32 i = 1; i < nr_cpus; i++)
		while (smp_check(i, rdtsc() > deadline) == -EAGAIN)
			cpu_pause();
	log_debug("CPUs: %lu ticks to send INIT and SIPIs, %lu from the last to the last answer",
		  sent, rdtsc() - last);
	return bitmap_weight(cpus_online.bits, MAX_CPUS);
}

void smp_park(void)
{
	irq_disable();
	ipi_leave();
	set_state(this_cpu(cpu_id), CPU_OFFLINE);
	halt_forever();
}
