/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"

#define CR4_CET BIT(23) /* not in the headers of Debian 12 */

struct cpu cpus[MAX_CPUS];
u32 nr_cpus;
struct cpumask cpus_online;
void *(*arch_map)(u64 hpa, u64 size, bool cached);
DEFINE_PERCPU(u32, cpu_id);
DEFINE_PERCPU(u64, percpu_offset);
DEFINE_PERCPU(u32, irq_depth);

void cpu_set_percpu(u32 id)
{
	wrmsr(MSR_GS_BASE, cpus[id].percpu_offset);
	this_cpu(cpu_id) = id;
	this_cpu(percpu_offset) = cpus[id].percpu_offset;
}

void cpu_init_control(void)
{
	struct cpuid_regs c1 = cpuid(1, 0);
	struct cpuid_regs c7 = cpuid(0, 0).eax >= 7 ? cpuid(7, 0) : (struct cpuid_regs){ 0 };
	u64 cr4 = read_cr4() & ~(u64)(X86_CR4_PCIDE | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PCE |
				      X86_CR4_VMXE | CR4_CET);

	write_cr0((read_cr0() & ~(X86_CR0_CD | X86_CR0_NW | X86_CR0_TS | X86_CR0_EM | X86_CR0_AM)) |
		  X86_CR0_WP | X86_CR0_NE | X86_CR0_MP);
	cr4 |= X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	if (c1.ecx & BIT(26))
		cr4 |= X86_CR4_OSXSAVE;
	if (c7.ebx & BIT(7))
		cr4 |= X86_CR4_SMEP;
	if (c7.ebx & BIT(20))
		cr4 |= X86_CR4_SMAP;
	if (c7.ecx & BIT(2))
		cr4 |= X86_CR4_UMIP;
	write_cr4(cr4);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE | EFER_SCE);
	wrmsr(MSR_PAT, HOST_PAT);
}

const char *cpu_unfit(void)
{
	u32 features = cpuid(1, 0).ecx;

	if (!apic_x2 && (rdmsr(MSR_APIC_BASE) & APIC_BASE_X2APIC))
		return "refuses itself: the firmware left it in x2APIC mode, the others use xAPIC";
	if (apic_x2 && !(features & BIT(21)))
		return "refuses itself: it has no x2APIC mode, and the others use it";
	if (clock_has_deadline && !(features & BIT(24)))
		return "refuses itself: its timer has no TSC-deadline mode, and the others use it";
	return NULL;
}
