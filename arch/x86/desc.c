/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/insn.h"

#define GDT_ENTRIES 5

struct PACKED idt_gate {
	u16 offset0, selector;
	u8 ist, attr;
	u16 offset1;
	u32 offset2, reserved;
};

struct gdt {
	u64 entry[GDT_ENTRIES];
};
DEFINE_PERCPU(struct gdt, gdt) = { { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0 } };
DEFINE_PERCPU(struct tss, tss) = { .iomap_base = sizeof(struct tss) };

/*
 * One IDT serves all CPUs: the IST indices are the same everywhere, the stacks are in each CPU's
 * TSS.
 */
static struct idt_gate idt[256];
extern const u64 trap_stubs[256]; /* traps.asm */

static void idt_build(void)
{
	for (u32 v = 0; v < 256; v++) {
		u64 stub = trap_stubs[v];

		idt[v] = (struct idt_gate){ .offset0 = (u16)stub,
					    .selector = HOST_CS,
					    .attr = 0x8e, /* present, DPL 0, interrupt gate */
					    .offset1 = (u16)(stub >> 16),
					    .offset2 = (u32)(stub >> 32) };
	}
	idt[2].ist = IST_NMI;
	idt[8].ist = IST_DF;
	idt[18].ist = IST_MC;
}

void desc_load(const u64 ist[IST_COUNT + 1])
{
	u64 base = (u64)this_cpu_ptr(struct tss, tss);
	struct desc_ptr gdtr = { sizeof(u64) * GDT_ENTRIES - 1,
				 (u64)this_cpu_ptr(struct gdt, gdt) };
	struct desc_ptr idtr = { sizeof(idt) - 1, (u64)idt };

	if (!idt[0].attr)
		idt_build();
	for (u32 i = 1; i <= IST_COUNT; i++)
		this_cpu(tss).ist[i - 1] = ist[i];
	this_cpu(gdt).entry[HOST_TSS / 8] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 |
					    0x89ull << 40 | (base >> 24 & 0xff) << 56;
	this_cpu(gdt).entry[HOST_TSS / 8 + 1] = base >> 32;
	asm volatile("lgdt %0\n\t"
		     "pushq %1\n\t"
		     "leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t"
		     "lretq\n"
		     "1:\tmov %2, %%ss\n\t"
		     "mov %3, %%ds\n\t"
		     "mov %3, %%es\n\t" /* FS and GS stay: their bases are MSRs */
		     "lidt %4\n\t"
		     "ltr %w5"
		     :
		     : "m"(gdtr), "i"(HOST_CS), "r"(HOST_SS), "r"(0), "m"(idtr), "r"(HOST_TSS)
		     : "rax", "memory");
}
