/* SPDX-License-Identifier: MIT */
/* vCPUs: how they come up, and how one has another work for it. Time. */
#include "tests/guest/lib/apic.h"
#include "tests/guest/lib/private.h"

#define SIPI_VECTOR	8 /* start.asm */
#define CPUID_TIMING	0x40000010
#define FWCFG_SELECT	0x510
#define FWCFG_DATA	0x511
#define FWCFG_NB_CPUS	5
#define CR0_DEFAULT	0x80010033ul
#define CR4_DEFAULT	0x620ul
#define CALL_TIMEOUT_MS 10000

u8 cpu_areas[MAX_CPUS * CPU_AREA] ALIGNED(CPU_AREA);
u64 gdt[32] ALIGNED(16) = {
	[SEL_CODE64 / 8] = 0x00af9b000000ffff, [SEL_DATA / 8] = 0x00cf93000000ffff,
	[SEL_CODE32 / 8] = 0x00cf9b000000ffff, [SEL_CODE16 / 8] = 0x00009b000000ffff,
	[SEL_DATA16 / 8] = 0x000093000000ffff, [SEL_UCODE32 / 8] = 0x00cffb000000ffff,
	[SEL_UDATA / 8] = 0x00cff3000000ffff,  [SEL_UCODE64 / 8] = 0x00affb000000ffff,
};
u32 tsc_khz;
static u32 cpus;

struct cpu *cpu_of(u32 index)
{
	return (struct cpu *)(cpu_areas + index * CPU_AREA);
}

u32 cpu_count(void)
{
	return cpus;
}

void need_cpus(u32 n)
{
	if (cpus < n)
		skip("needs %u vCPUs, there are %u", n, cpus);
}

void delay_us(u64 us)
{
	u64 end = rdtsc() + us * tsc_khz / 1000;

	while ((s64)(rdtsc() - end) < 0)
		cpu_pause();
}

static void load_tables(struct cpu *c)
{
	u64 tss = (u64)&c->tss;
	u64 *d = &gdt[(SEL_TSS + 16 * c->index) / 8];
	struct desc_ptr p = { sizeof(gdt) - 1, (u64)gdt };

	d[0] = 0x0000890000000000 | (sizeof(c->tss) - 1) | (tss & 0xffffff) << 16 |
	       (tss >> 24 & 0xff) << 56;
	d[1] = tss >> 32;
	c->tss.ist[0] = (u64)c + CPU_AREA / 4;	   /* NMI */
	c->tss.ist[1] = (u64)c + CPU_AREA / 4 * 2; /* #DF */
	c->tss.rsp[0] = (u64)c + CPU_AREA / 4 * 3;
	c->tss.iomap = sizeof(c->tss);
	asm volatile("lgdt %0" : : "m"(p));
	asm volatile("ltr %w0" : : "r"(SEL_TSS + 16 * c->index));
	traps_init();
}

void cpu_defaults(void)
{
	struct cpu *c = this_cpu();

	write_cr3((u64)boot_tables);
	write_cr0(CR0_DEFAULT);
	write_cr4(CR4_DEFAULT);
	write_dr7(0x400);
	asm volatile("lgdt %0" : : "m"((struct desc_ptr){ sizeof(gdt) - 1, (u64)gdt }));
	c->fault = NO_FAULT;
	memset(c->irqs, 0, sizeof(c->irqs));
	c->irq_total = 0;
	traps_defaults();
	apic_defaults();
	if (c->index == 0)
		paging_defaults();
}

/* What an application processor does all its life: wait for calls. */
static void NORETURN serve(void)
{
	struct cpu *c = this_cpu();

	for (;;) {
		irq_disable();
		if (!__atomic_load_n(&c->call, __ATOMIC_ACQUIRE)) {
			asm volatile("sti; hlt; cli" : : : "memory");
			continue;
		}
		if (!context_save(&c->abort))
			c->call(c->arg);
		irq_disable();
		__atomic_store_n(&c->call, NULL, __ATOMIC_RELEASE);
	}
}

void cpu_start(u32 index, void (*fn)(void *), void *arg)
{
	struct cpu *c = cpu_of(index);

	if (__atomic_load_n(&c->call, __ATOMIC_ACQUIRE))
		error("vCPU %u is still busy", index);
	c->arg = arg;
	__atomic_store_n(&c->call, fn, __ATOMIC_SEQ_CST);
	apic_icr(index, VECTOR_CALL | APIC_ICR_ASSERT);
}

void cpu_wait(u32 index)
{
	if (!WAIT_FOR(!__atomic_load_n(&cpu_of(index)->call, __ATOMIC_ACQUIRE), CALL_TIMEOUT_MS))
		error("vCPU %u did not finish within %u ms", index, CALL_TIMEOUT_MS);
}

void cpu_call(u32 index, void (*fn)(void *), void *arg)
{
	cpu_start(index, fn, arg);
	cpu_wait(index);
}

void cpu_call_all(void (*fn)(void *), void *arg)
{
	for (u32 i = 1; i < cpus; i++)
		cpu_start(i, fn, arg);
	fn(arg);
	for (u32 i = 1; i < cpus; i++)
		cpu_wait(i);
}

static bool bring_up(u32 index)
{
	struct cpu *c = cpu_of(index);

	__atomic_store_n(&c->online, false, __ATOMIC_SEQ_CST);
	c->call = NULL;
	c->x2apic = false;
	apic_icr(index, APIC_INIT << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
	delay_us(100);
	apic_icr(index, APIC_SIPI << APIC_MODE_SHIFT | APIC_ICR_ASSERT | SIPI_VECTOR);
	return WAIT_FOR(__atomic_load_n(&c->online, __ATOMIC_SEQ_CST), CALL_TIMEOUT_MS);
}

void cpu_restart(u32 index)
{
	if (!bring_up(index))
		error("vCPU %u did not come up", index);
}

static u32 configured_cpus(void)
{
	u32 n;

	outw(FWCFG_SELECT, FWCFG_NB_CPUS);
	n = inb(FWCFG_DATA);
	return MIN(n, (u32)MAX_CPUS);
}

void guest_main(u32 index, const struct multiboot_info *info);
void guest_main(u32 index, const struct multiboot_info *info)
{
	struct cpu *c = this_cpu();

	c->index = index;
	load_tables(c);
	c->x2apic = rdmsr(MSR_APIC_BASE) & APIC_BASE_X2APIC;
	apic_defaults();
	if (index) {
		__atomic_store_n(&c->online, true, __ATOMIC_SEQ_CST);
		serve();
	}
	tsc_khz = cpuid(CPUID_TIMING, 0).eax;
	c->online = true;
	cpus = 1;
	for (u32 n = configured_cpus(); cpus < n && bring_up(cpus); cpus++)
		;
	tests_run(info);
}
