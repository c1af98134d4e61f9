/* SPDX-License-Identifier: MIT */
/* A vCPU at a kernel's entry: real mode, flat 32-bit protected mode, or 64-bit mode. */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/string.h"
#include "virt/loader.h"
#include "virt/ops.h"

#define SEL_CODE 0x10
#define SEL_DATA 0x18

/* Segments are as after reset, with a base and limit of 64 KiB each; only CS moves. */
static void start_real(struct vcpu *v, u64 at)
{
	struct segment cs;

	virt_ops->get_seg(v, SEG_CS, &cs);
	cs.selector = at < 0x10000 ? 0 : (u16)(at >> 4);
	cs.base = (u64)cs.selector << 4;
	virt_ops->set_seg(v, SEG_CS, &cs);
	v->rip = at - cs.base;
}

static void set_flat_segments(struct vcpu *v, bool is_long)
{
	static const u8 data[] = { SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS };
	struct segment s = { .limit = ~0u };

	s.selector = SEL_CODE;
	s.attr = 0xb | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_G; /* execute, read, accessed */
	s.attr |= is_long ? SEG_ATTR_L : SEG_ATTR_DB;
	virt_ops->set_seg(v, SEG_CS, &s);
	s.selector = SEL_DATA;
	/* read, write, accessed */
	s.attr = 0x3 | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_DB | SEG_ATTR_G;
	for (u32 i = 0; i < ARRAY_SIZE(data); i++)
		virt_ops->set_seg(v, data[i], &s);
}

static void set_system_segments(struct vcpu *v, u64 gdt)
{
	/* A busy TSS: VM entry demands one (SDM "Checks on Guest Segment Registers"). */
	struct segment tr = { .limit = 0x67, .attr = 0xb | SEG_ATTR_P };
	struct segment ldtr = { .attr = 0x2 | SEG_ATTR_P, .unusable = true };
	struct segment gdtr = { .base = gdt, .limit = gdt ? 4 * 8 - 1 : 0 };
	struct segment idtr = { .limit = 0xffff };

	virt_ops->set_seg(v, SEG_TR, &tr);
	virt_ops->set_seg(v, SEG_LDTR, &ldtr);
	virt_ops->set_seg(v, SEG_GDTR, &gdtr);
	virt_ops->set_seg(v, SEG_IDTR, &idtr);
}

void boot_start(struct vcpu *v, const struct boot_entry *entry)
{
	bool is_long = entry->mode == BOOT_LONG;

	memset(v->gpr, 0, sizeof(v->gpr)); /* reset leaves the CPU's signature in RDX */
	v->gpr[RAX] = entry->rax;
	v->gpr[RBX] = entry->rbx;
	v->gpr[RSI] = entry->rsi;
	v->rflags = X86_EFLAGS_FIXED;
	if (entry->mode == BOOT_REAL) {
		start_real(v, entry->rip);
		return;
	}
	v->rip = entry->rip;
	if (is_long) {
		virt_ops->set_reg(v, VR_CR3, entry->cr3);
		virt_ops->set_reg(v, VR_CR4, X86_CR4_PAE);
		virt_ops->set_reg(v, VR_EFER, EFER_LME | EFER_LMA);
	}
	virt_ops->set_reg(v, VR_CR0,
			  X86_CR0_PE | X86_CR0_ET |
				  (is_long ? X86_CR0_MP | X86_CR0_NE | X86_CR0_PG : 0));
	set_flat_segments(v, is_long);
	set_system_segments(v, entry->gdt);
}
