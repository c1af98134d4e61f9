/* SPDX-License-Identifier: MIT */
/*
 * ops->dump: what VMX says about a vCPU, and in words what is wrong with its state. A CPU that
 * refuses a guest's state does not say why; the checks here are the manual's (SDM "Checks on the
 * Guest State Area"), those that a mistake in virt/ or a new boot protocol is likely to break.
 */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/assert.h"
#include "lib/log.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

static bool canonical(u64 address)
{
	return (u64)((s64)(address << 16) >> 16) == address;
}

/*
 * SDM "VM-Instruction Error Numbers": those that an entry, or the VMWRITE of the host's RSP before
 * it, can have.
 */
static const char *instruction_error(u64 number)
{
	static const char *const texts[] = {
		[4] = "VMLAUNCH of a VMCS that is not clear",
		[5] = "VMRESUME of a VMCS that was not launched",
		[6] = "VMRESUME after VMXOFF",
		[7] = "invalid control fields",
		[8] = "invalid host state",
		[12] = "VMREAD or VMWRITE of a field that does not exist",
		[13] = "VMWRITE of a read-only field",
		[26] = "entry with events blocked by MOV SS",
	};

	return number < ARRAY_SIZE(texts) && texts[number] ? texts[number] : "?";
}

struct state {
	u64 cr0, cr4, efer, rip, rflags, interruptibility, pending;
	bool long_mode, pae, virtual_8086;
	struct segment seg[SEGS];
};

static void read_state(struct vmx_vcpu *x, struct state *s)
{
	s->cr0 = vmcs_read(VMCS_GUEST_CR0);
	s->cr4 = vmcs_read(VMCS_GUEST_CR4);
	s->efer = vmcs_read(VMCS_GUEST_EFER);
	s->rip = vmcs_read(VMCS_GUEST_RIP);
	s->rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	s->interruptibility = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
	s->pending = vmcs_read(VMCS_GUEST_PENDING_DEBUG);
	s->long_mode = vmcs_read(VMCS_ENTRY_CONTROLS) & ENTRY_CTL_IA32E;
	s->pae = !s->long_mode && (s->cr0 & X86_CR0_PG) && (s->cr4 & X86_CR4_PAE);
	s->virtual_8086 = s->rflags & X86_EFLAGS_VM;
	for (enum vseg seg = SEG_ES; seg < SEGS; seg++)
		vmx_get_seg(&x->v, seg, &s->seg[seg]);
}

/* Say it if it is wrong; what the guest's state must not be. */
static void wrong(bool is, const char *what)
{
	if (is)
		log_err("  invalid: %s", what);
}

/* SDM "Checks on Guest Control Registers, Debug Registers, and MSRs" */
static void check_control_registers(const struct state *s)
{
	bool pg = s->cr0 & X86_CR0_PG, lma = s->efer & EFER_LMA, lme = s->efer & EFER_LME;

	wrong(vmx_controls.cr0_must & ~s->cr0, "CR0 lacks a bit that VMX wants");
	wrong(s->cr0 >> 32, "CR0 has bits above 31");
	wrong(pg && !(s->cr0 & X86_CR0_PE), "CR0.PG without PE");
	wrong(vmx_controls.cr4_must & ~s->cr4, "CR4 lacks a bit that VMX wants");
	wrong(s->cr4 & ~rdmsr(MSR_VMX_CR4_FIXED1), "CR4 has a bit that this CPU does not have");
	wrong(s->long_mode && !(pg && (s->cr4 & X86_CR4_PAE)),
	      "long mode without CR0.PG or CR4.PAE");
	wrong(!s->long_mode && (s->cr4 & X86_CR4_PCIDE), "CR4.PCIDE outside long mode");
	wrong(lma != s->long_mode, "EFER.LMA differs from the entry control");
	wrong(pg && lma != lme, "CR0.PG with EFER.LMA unlike LME");
	wrong(s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE), "EFER has reserved bits");
	wrong(vmcs_read(VMCS_GUEST_CR3) >> 52, "CR3 has reserved bits");
	wrong(vmcs_read(VMCS_GUEST_DR7) >> 32, "DR7 has bits above 31");
	wrong(!canonical(vmcs_read(VMCS_GUEST_SYSENTER_ESP)), "SYSENTER_ESP is not canonical");
	wrong(!canonical(vmcs_read(VMCS_GUEST_SYSENTER_EIP)), "SYSENTER_EIP is not canonical");
	for (u32 i = 0; i < 8; i++) {
		u8 type = (u8)(vmcs_read(VMCS_GUEST_PAT) >> 8 * i);

		wrong(type > 7 || type == 2 || type == 3, "PAT has a type that does not exist");
	}
	for (u32 i = 0; s->pae && i < 4; i++) {
		u64 pdpte = vmcs_read(VMCS_GUEST_PDPTE0 + 2 * i);

		wrong((pdpte & 1) && (pdpte & (MASK(2, 1) | MASK(8, 5) | MASK(63, 52))),
		      "a present PDPTE has reserved bits");
	}
}

/* SDM "Checks on Guest RIP, RFLAGS, and SSP", "Checks on Guest Non-Register State" */
static void check_flow(const struct state *s)
{
	bool sti = s->interruptibility & INTERRUPTIBILITY_STI;
	bool movss = s->interruptibility & INTERRUPTIBILITY_MOVSS;
	bool iflag = s->rflags & X86_EFLAGS_IF, tf = s->rflags & X86_EFLAGS_TF;
	u32 event = (u32)vmcs_read(VMCS_ENTRY_INTR_INFO), type = INTR_TYPE(event);
	bool injects = event & INTR_VALID;
	bool code64 = s->long_mode && (s->seg[SEG_CS].attr & SEG_ATTR_L);

	wrong(code64 ? !canonical(s->rip) : s->rip >> 32, "RIP is out of range for its mode");
	wrong(!(s->rflags & X86_EFLAGS_FIXED) || (s->rflags & 0xffffffffffc08028ull),
	      "RFLAGS has reserved bits wrong");
	wrong(s->virtual_8086 && (s->long_mode || !(s->cr0 & X86_CR0_PE)),
	      "RFLAGS.VM in long or real mode");
	wrong(injects && type == INTR_TYPE_EXT && (!iflag || sti || movss),
	      "an interrupt is injected while it is blocked");
	wrong(injects && type == INTR_TYPE_NMI &&
		      (s->interruptibility & (INTERRUPTIBILITY_NMI | INTERRUPTIBILITY_MOVSS)),
	      "an NMI is injected while it is blocked");
	wrong(injects && type >= INTR_TYPE_SOFT_INT &&
		      (!vmcs_read(VMCS_ENTRY_INSN_LEN) || vmcs_read(VMCS_ENTRY_INSN_LEN) > 15),
	      "a soft event is injected without its instruction's length");
	wrong(sti && movss, "in the shadow of STI and of MOV SS");
	wrong(sti && !iflag, "in the shadow of STI with IF clear");
	wrong((sti || movss) && tf != !!(s->pending & PENDING_DEBUG_BS),
	      "in a shadow, TF and the pending single step differ");
	wrong(vmcs_read(VMCS_GUEST_ACTIVITY) != ACTIVITY_ACTIVE,
	      "the activity state is not active");
	wrong(vmcs_read(VMCS_LINK_POINTER) != ~0ull, "the link pointer is set");
}

static void wrong_seg(bool is, enum vseg seg, const char *what)
{
	static const char *const names[] = { "ES", "CS",   "SS", "DS",	 "FS",
					     "GS", "LDTR", "TR", "GDTR", "IDTR" };

	if (is)
		log_err("  invalid: %s %s", names[seg], what);
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
	wrong_seg(seg->attr & ~SEG_AR_MASK, i, "has reserved attributes");
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

static void dump_controls(struct vmx_vcpu *x)
{
	log_err("  controls: pin %lx proc %lx proc2 %lx exit %lx entry %lx exceptions %lx",
		vmcs_read(VMCS_PIN_CONTROLS), vmcs_read(VMCS_PROC_CONTROLS),
		vmcs_read(VMCS_PROC_CONTROLS2), vmcs_read(VMCS_EXIT_CONTROLS),
		vmcs_read(VMCS_ENTRY_CONTROLS), vmcs_read(VMCS_EXCEPTION_BITMAP));
	log_err("  vpid %u eptp %lx launched %u todo %x vmcs %lx", x->vpid, x->eptp, x->launched,
		x->todo, x->vmcs.v);
	log_err("  exit: interruption %lx/%lx idt-vectoring %lx/%lx instruction length %lu",
		vmcs_read(VMCS_EXIT_INTR_INFO), vmcs_read(VMCS_EXIT_INTR_ERROR),
		vmcs_read(VMCS_IDT_VECTORING_INFO), vmcs_read(VMCS_IDT_VECTORING_ERROR),
		vmcs_read(VMCS_EXIT_INSN_LEN));
	log_err("  exit: qualification %lx gpa %lx linear %lx", vmcs_read(VMCS_EXIT_QUALIFICATION),
		vmcs_read(VMCS_GUEST_PHYS_ADDR), vmcs_read(VMCS_GUEST_LINEAR_ADDR));
	log_err("  entry: event %lx/%lx length %lu", vmcs_read(VMCS_ENTRY_INTR_INFO),
		vmcs_read(VMCS_ENTRY_ERROR_CODE), vmcs_read(VMCS_ENTRY_INSN_LEN));
}

static void dump_reason(const struct vm_exit *e)
{
	if (e->raw & VMX_RAW_REFUSED) {
		log_err("VMX: the entry instruction failed:%s%s, error %lu: %s",
			e->raw & VMX_ENTER_CF ? " CF (no current VMCS)" : "",
			e->raw & VMX_ENTER_ZF ? " ZF" : "", e->qualification,
			instruction_error(e->qualification));
		return;
	}
	log_err("VMX: exit reason %lx, %s%s", e->raw, vmx_exit_reason_name((u32)e->raw),
		e->raw & VMX_EXIT_REASONS_FAILED_VMENTRY ? ": the entry failed" : "");
}

/* v is loaded on this CPU. */
void vmx_dump(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);
	struct state s;

	dump_reason(&v->exit);
	if (this_cpu(vmx_current) != x) {
		log_err("  not loaded here: nothing more to read");
		return;
	}
	read_state(x, &s);
	dump_controls(x);
	log_err("  cr0 %lx (shadow %lx) cr3 %lx cr4 %lx (shadow %lx) efer %lx", s.cr0,
		vmcs_read(VMCS_CR0_SHADOW), vmcs_read(VMCS_GUEST_CR3), s.cr4,
		vmcs_read(VMCS_CR4_SHADOW), s.efer);
	log_err("  rip %lx rflags %lx rsp %lx interruptibility %lx activity %lx pending debug %lx",
		s.rip, s.rflags, vmcs_read(VMCS_GUEST_RSP), s.interruptibility,
		vmcs_read(VMCS_GUEST_ACTIVITY), s.pending);
	if (v->exit.kind != EXIT_ENTRY_FAILED)
		return;
	check_control_registers(&s);
	check_flow(&s);
	check_segments(&s);
}

/*
 * The thunks of entry.asm: a field that does not exist, or no current VMCS. Any context in which a
 * vCPU is loaded.
 */
void vmx_access_failed(u64 field, bool write)
{
	struct vmx_vcpu *x = this_cpu(vmx_current);

	if (!x)
		panic("VMX: %s of field %lx without a vCPU", write ? "VMWRITE" : "VMREAD", field);
	if (!READ_ONCE(x->v.vm->dead))
		log_err("VMX: %s of field %lx failed", write ? "VMWRITE" : "VMREAD", field);
	VM_BUG_ON(x->v.vm, true);
}
