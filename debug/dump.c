/* SPDX-License-Identifier: MIT */
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "debug/dump.h"
#include "virt/dump.h"
#include "virt/ops.h"
#include "virt/vm.h"

struct state {
	u64 cr0, cr3, cr4, efer, rip, rflags;
	bool long_mode, virtual_8086;
	struct segment seg[SEGS];
};

static const char *const seg_names[SEGS] = { "ES", "CS",   "SS", "DS",	 "FS",
					     "GS", "LDTR", "TR", "GDTR", "IDTR" };

static void read_state(struct vcpu *v, struct state *s)
{
	s->cr0 = virt_ops->get_reg(v, VR_CR0);
	s->cr3 = virt_ops->get_reg(v, VR_CR3);
	s->cr4 = virt_ops->get_reg(v, VR_CR4);
	s->efer = virt_ops->get_reg(v, VR_EFER);
	s->rip = v->rip;
	s->rflags = v->rflags;
	s->long_mode = s->efer & EFER_LMA;
	s->virtual_8086 = s->rflags & X86_EFLAGS_VM;
	for (enum vseg seg = SEG_ES; seg < SEGS; seg++)
		virt_ops->get_seg(v, seg, &s->seg[seg]);
}

static bool canonical(u64 address)
{
	return (u64)((s64)(address << 16) >> 16) == address;
}

/* SDM "Checks on Guest Control Registers, Debug Registers, and MSRs" */
static void check_control_registers(struct vcpu *v, const struct state *s)
{
	bool pg = s->cr0 & X86_CR0_PG, lme = s->efer & EFER_LME;
	u64 pat = virt_ops->get_reg(v, VR_PAT);

	wrong(s->cr0 >> 32, "CR0 has bits above 31");
	wrong(pg && !(s->cr0 & X86_CR0_PE), "CR0.PG without PE");
	wrong((s->cr0 & X86_CR0_NW) && !(s->cr0 & X86_CR0_CD), "CR0.NW without CD");
	wrong(s->long_mode && !(pg && (s->cr4 & X86_CR4_PAE)),
	      "long mode without CR0.PG or CR4.PAE");
	wrong(!s->long_mode && (s->cr4 & X86_CR4_PCIDE), "CR4.PCIDE outside long mode");
	wrong(pg && s->long_mode != lme, "CR0.PG with EFER.LMA unlike LME");
	wrong(s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE), "EFER has reserved bits");
	wrong(s->cr3 >> 52, "CR3 has reserved bits");
	wrong(virt_ops->get_reg(v, VR_DR7) >> 32, "DR7 has bits above 31");
	wrong(!canonical(virt_ops->get_reg(v, VR_SYSENTER_ESP)), "SYSENTER_ESP is not canonical");
	wrong(!canonical(virt_ops->get_reg(v, VR_SYSENTER_EIP)), "SYSENTER_EIP is not canonical");
	for (u32 i = 0; i < 8; i++) {
		u8 type = (u8)(pat >> 8 * i);

		wrong(type > 7 || type == 2 || type == 3, "PAT has a type that does not exist");
	}
}

/* SDM "Checks on Guest RIP, RFLAGS, and SSP" */
static void check_flow(const struct state *s)
{
	bool code64 = s->long_mode && (s->seg[SEG_CS].attr & SEG_ATTR_L);

	wrong(code64 ? !canonical(s->rip) : s->rip >> 32, "RIP is out of range for its mode");
	wrong(!(s->rflags & X86_EFLAGS_FIXED) || (s->rflags & 0xffffffffffc08028ull),
	      "RFLAGS has reserved bits wrong");
	wrong(s->virtual_8086 && (s->long_mode || !(s->cr0 & X86_CR0_PE)),
	      "RFLAGS.VM in long or real mode");
}

static void wrong_seg(bool is, enum vseg seg, const char *what)
{
	if (is)
		log_err("  invalid: %s %s", seg_names[seg], what);
}

/* SDM "Checks on Guest Segment Registers" */
static void check_segment(const struct state *s, enum vseg i)
{
	const struct segment *seg = &s->seg[i];
	u16 type = seg->attr & SEG_ATTR_TYPE;
	bool g = seg->attr & SEG_ATTR_G;

	if (i <= SEG_GS && s->virtual_8086) {
		wrong_seg(seg->base != (u64)seg->selector << 4, i,
			  "base is not 16 times the selector in virtual-8086 mode");
		wrong_seg(seg->limit != 0xffff || seg->attr != 0xf3, i,
			  "is not plain in virtual-8086 mode");
		return;
	}
	wrong_seg(!canonical(seg->base), i, "base is not canonical");
	wrong_seg(i <= SEG_DS && !seg->unusable && seg->base >> 32, i, "base is above 4 GiB");
	if (seg->unusable || i >= SEG_GDTR) {
		wrong_seg(i == SEG_CS || i == SEG_TR, i, "is unusable");
		wrong_seg(i >= SEG_GDTR && seg->limit > 0xffff, i, "limit is above 0xffff");
		return;
	}
	wrong_seg(!(seg->attr & SEG_ATTR_P), i, "is not present");
	wrong_seg(seg->attr & ~0xf0ff, i, "has reserved attributes");
	wrong_seg(((seg->limit & 0xfff) != 0xfff && g) || (seg->limit >> 20 && !g), i,
		  "limit and granularity don't fit");
	wrong_seg(!(seg->attr & SEG_ATTR_S) != (i >= SEG_LDTR), i, "is of the wrong kind (S)");
	if (i == SEG_TR)
		wrong_seg(type != 11 && (type != 3 || s->long_mode), i,
			  "is not a busy TSS of this mode");
	else if (i == SEG_LDTR)
		wrong_seg(type != 2, i, "is no LDT");
	else if (i == SEG_CS)
		wrong_seg(!(type & 1) || (!(type & 8) && type != 3), i,
			  "is not an accessed code segment");
	else if (i == SEG_SS)
		wrong_seg(type != 3 && type != 7, i, "is not a writable data segment");
	else
		wrong_seg(!(type & 1) || ((type & 8) && !(type & 2)), i,
			  "is not an accessed, readable segment");
}

static void check_segments(const struct state *s)
{
	u16 cs = s->seg[SEG_CS].attr, ss = s->seg[SEG_SS].attr;
	u32 cs_dpl = cs >> SEG_ATTR_DPL_SHIFT & 3, ss_dpl = ss >> SEG_ATTR_DPL_SHIFT & 3;

	for (enum vseg i = SEG_ES; i < SEGS; i++)
		check_segment(s, i);
	wrong(s->long_mode && (cs & SEG_ATTR_L) && (cs & SEG_ATTR_DB), "CS has both L and D");
	wrong(!s->virtual_8086 && (cs & 8) && !(cs & 4) && cs_dpl != ss_dpl,
	      "CS and SS have different privilege levels");
	wrong(!(s->cr0 & X86_CR0_PE) && ss_dpl, "SS has a privilege level in real mode");
}

void dump_vcpu(struct vcpu *v)
{
	struct state s;

	read_state(v, &s);
	log_err("vm %s vcpu %u: rip %lx rflags %lx rsp %lx", v->vm->name, v->index, s.rip, s.rflags,
		virt_ops->get_reg(v, VR_RSP));
	log_err("  cr0 %lx cr2 %lx cr3 %lx cr4 %lx efer %lx", s.cr0, virt_ops->get_reg(v, VR_CR2),
		s.cr3, s.cr4, s.efer);
	for (enum vseg i = SEG_ES; i < SEGS; i++)
		log_err("  %s %x base %lx limit %x attributes %x%s", seg_names[i],
			s.seg[i].selector, s.seg[i].base, s.seg[i].limit, s.seg[i].attr,
			s.seg[i].unusable ? " unusable" : "");
	if (v->exit.kind != EXIT_ENTRY_FAILED)
		return;
	check_control_registers(v, &s);
	check_flow(&s);
	check_segments(&s);
}
