/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/trap.h"
#include "lib/assert.h"
#include "lib/error.h"

bool apic_x2;
static volatile u32 *mmio;
static bool ready;

int apic_init(void)
{
	struct cpuid_regs c1 = cpuid(1, 0);
	u64 base = rdmsr(MSR_APIC_BASE);

	if (!(c1.edx & BIT(9)))
		return trace_error(-ENODEV);
	apic_x2 = (base & APIC_BASE_X2APIC) || (c1.ecx & BIT(21));
	if (!apic_x2) {
		mmio = arch_map(base & MASK(51, 12), 4096, false);
		if (!mmio)
			return trace_error(-ENOMEM);
	}
	apic_init_cpu();
	ready = true;
	return 0;
}

static void apic_error(void)
{
	apic_write(APIC_ESR, 0);
	WARN_ON(apic_read(APIC_ESR) != 0);
}

void apic_init_cpu(void)
{
	u64 base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;

	wrmsr(MSR_APIC_BASE, base); /* x2APIC can only be entered from xAPIC */
	if (apic_x2)
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
	trap_set_irq(VECTOR_APIC_ERROR, apic_error);
	apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_write(APIC_LVT_LINT0, APIC_LVT_MASKED);
	apic_write(APIC_LVT_LINT1, APIC_ICR_NMI);
	apic_write(APIC_LVT_ERROR, VECTOR_APIC_ERROR);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_SVR, BIT(8) | VECTOR_SPURIOUS);
}

u32 apic_read(u32 reg)
{
	return apic_x2 ? (u32)rdmsr(MSR_X2APIC_BASE + reg / 16) : mmio[reg / 4];
}

void apic_write(u32 reg, u32 value)
{
	if (apic_x2)
		wrmsr(MSR_X2APIC_BASE + reg / 16, value);
	else if (mmio)
		mmio[reg / 4] = value;
}

u32 apic_id(void)
{
	return apic_x2 ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_ipi(u32 apic_id, u32 icr_low)
{
	u64 flags;

	if (apic_x2) {
		/* x2APIC writes are not serializing */
		asm volatile("mfence; lfence" : : : "memory");
		wrmsr(MSR_X2APIC_BASE + APIC_ICR / 16, (u64)apic_id << 32 | icr_low);
		return;
	}
	if (WARN_ON(apic_id > 254))
		return;
	flags = irq_save(); /* the two halves belong together */
	while (apic_read(APIC_ICR) & APIC_ICR_PENDING)
		cpu_pause();
	apic_write(APIC_ICR_HIGH, apic_id << 24);
	apic_write(APIC_ICR, icr_low);
	irq_restore(flags);
}

void apic_nmi_others(void)
{
	if (!ready)
		return;
	/* One by one: the shorthand also reaches CPUs that Corbel left out, and those have no IDT.
	 */
	for_each_cpu(cpu, &cpus_online)
		if (cpu != this_cpu(cpu_id))
			apic_ipi(cpus[cpu].apic_id, APIC_ICR_ASSERT | APIC_ICR_NMI);
}
