/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "arch/x86/smp.h"
#include "lib/assert.h"
#include "lib/log.h"
#include "lib/string.h"

/* until the first instruction of C; then the same again until it is online */
#define START_MS 500

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
	bitmap_test_and_set_atomic(cpus_online.bits, 0);
	set_state(0, CPU_ONLINE);
}

/* Late: given up already. For good. */
static void NORETURN stay_out(void)
{
	for (;;)
		asm volatile("cli; hlt");
}

void ap_start(u32 id)
{
	u8 expected = CPU_ABSENT;

	if (!__atomic_compare_exchange_n(&cpus[id].state, &expected, CPU_STARTED, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		stay_out();
	cpu_set_percpu(id);
	cpu_init_control();
	desc_load(boot->ist(id));
	apic_init_cpu();
	timer_init_cpu();
	bitmap_test_and_set_atomic(cpus_online.bits, id);
	expected = CPU_STARTED;
	if (!__atomic_compare_exchange_n(&cpus[id].state, &expected, CPU_ONLINE, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		bitmap_test_and_clear_atomic(cpus_online.bits, id);
		stay_out();
	}
	boot->ap_main();
	__builtin_unreachable();
}

/* Where something of the trampoline's lies in its page. */
static void *in_page(const u8 *symbol)
{
	return (u8 *)boot->trampoline_ptr + (symbol - trampoline_start);
}

static void prepare_trampoline(void)
{
	struct trampoline_data *data = in_page(trampoline_data);

	memcpy(boot->trampoline_ptr, trampoline_start, (size_t)(trampoline_end - trampoline_start));
	*(u32 *)in_page(trampoline_fix_gdt) += (u32)boot->trampoline;
	*(u32 *)in_page(trampoline_fix_32) += (u32)boot->trampoline;
	*(u32 *)in_page(trampoline_fix_64) += (u32)boot->trampoline;
	data->cr3 = (u32)boot->cr3;
	data->cr4 = (u32)(X86_CR4_PAE | (read_cr4() & X86_CR4_LA57));
	data->efer = EFER_LME | EFER_NXE | EFER_SCE;
	data->entry = (u64)ap_start;
}

static bool wait_state(u32 id, enum cpu_state least, u64 deadline)
{
	while (get_state(id) < least) {
		if (rdtsc() > deadline)
			return false;
		cpu_pause();
	}
	return true;
}

static void give_up(u32 id, const char *why)
{
	set_state(id, CPU_DEAD);
	cpus[id].why = why;
	log_err("CPU %u (APIC id %u): %s: left out", id, cpus[id].apic_id, why);
}

static void send_to_all(u32 icr)
{
	for (u32 i = 1; i < nr_cpus; i++)
		if (get_state(i) == CPU_ABSENT)
			apic_ipi(cpus[i].apic_id, icr);
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

u32 smp_start(const struct smp_boot *b)
{
	u8 vector = (u8)(b->trampoline >> 12);
	u64 deadline;

	boot = b;
	for (u32 i = 1; i < nr_cpus; i++)
		if (obstacle(i))
			give_up(i, obstacle(i));
	if (nr_cpus > 1 && b->trampoline) {
		prepare_trampoline();
		send_to_all(APIC_ICR_INIT | APIC_ICR_ASSERT);
		clock_delay_us(10000);
		send_to_all(APIC_ICR_STARTUP | APIC_ICR_ASSERT | vector);
		clock_delay_us(200);
		/* only those that are still absent */
		send_to_all(APIC_ICR_STARTUP | APIC_ICR_ASSERT | vector);
	}
	deadline = rdtsc() + (u64)START_MS * tsc_khz;
	for (u32 i = 1; i < nr_cpus; i++) {
		u8 expected = CPU_ABSENT;

		if (get_state(i) == CPU_DEAD || wait_state(i, CPU_STARTED, deadline))
			continue;
		/* The exchange decides the race with a CPU that answers just now. */
		if (__atomic_compare_exchange_n(&cpus[i].state, &expected, CPU_DEAD, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			give_up(i, "no answer to SIPI");
	}
	deadline = rdtsc() + (u64)START_MS * tsc_khz;
	for (u32 i = 1; i < nr_cpus; i++)
		if (get_state(i) != CPU_DEAD && !wait_state(i, CPU_ONLINE, deadline))
			give_up(i, "started, but did not finish");
	return bitmap_weight(cpus_online.bits, MAX_CPUS);
}
