/* SPDX-License-Identifier: MIT */
/*
 * ops->dump: what VMX says about a vCPU, and in words what is wrong with its VMCS. A CPU that
 * refuses a guest's state does not say why.
 */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/assert.h"
#include "virt/dump.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

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

/*
 * SDM "Checks on the Guest State Area": those of VMX alone. debug/dump.c has those that are the
 * architecture's.
 */
static void check_state(void)
{
	u64 cr0 = vmcs_read(VMCS_GUEST_CR0), cr4 = vmcs_read(VMCS_GUEST_CR4);
	bool ia32e = vmcs_read(VMCS_ENTRY_CONTROLS) & ENTRY_CTL_IA32E;
	bool lma = vmcs_read(VMCS_GUEST_EFER) & EFER_LMA;

	wrong(vmx_controls.cr0_must & ~cr0, "CR0 lacks a bit that VMX wants");
	wrong(vmx_controls.cr4_must & ~cr4, "CR4 lacks a bit that VMX wants");
	wrong(cr4 & ~rdmsr(MSR_VMX_CR4_FIXED1), "CR4 has a bit that this CPU does not have");
	wrong(lma != ia32e, "EFER.LMA differs from the entry control");
	for (u32 i = 0; !ia32e && (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && i < 4; i++) {
		u64 pdpte = vmcs_read(VMCS_GUEST_PDPTE0 + 2 * i);

		wrong((pdpte & 1) && (pdpte & (MASK(2, 1) | MASK(8, 5) | MASK(63, 52))),
		      "a present PDPTE has reserved bits");
	}
	wrong(vmcs_read(VMCS_GUEST_ACTIVITY) != ACTIVITY_ACTIVE,
	      "the activity state is not active");
	wrong(vmcs_read(VMCS_LINK_POINTER) != ~0ull, "the link pointer is set");
}

/* SDM "Checks on Guest Non-Register State": events against what blocks them */
static void check_events(void)
{
	u64 blocked = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
	u64 rflags = vmcs_read(VMCS_GUEST_RFLAGS);
	bool sti = blocked & INTERRUPTIBILITY_STI, movss = blocked & INTERRUPTIBILITY_MOVSS;
	bool iflag = rflags & X86_EFLAGS_IF, tf = rflags & X86_EFLAGS_TF;
	bool step = vmcs_read(VMCS_GUEST_PENDING_DEBUG) & PENDING_DEBUG_BS;
	u32 event = (u32)vmcs_read(VMCS_ENTRY_INTR_INFO), type = INTR_TYPE(event);
	bool injects = event & INTR_VALID;

	wrong(injects && type == INTR_TYPE_EXT && (!iflag || sti || movss),
	      "an interrupt is injected while it is blocked");
	wrong(injects && type == INTR_TYPE_NMI &&
		      (blocked & (INTERRUPTIBILITY_NMI | INTERRUPTIBILITY_MOVSS)),
	      "an NMI is injected while it is blocked");
	wrong(injects && type >= INTR_TYPE_SOFT_INT &&
		      (!vmcs_read(VMCS_ENTRY_INSN_LEN) || vmcs_read(VMCS_ENTRY_INSN_LEN) > 15),
	      "a soft event is injected without its instruction's length");
	wrong(sti && movss, "in the shadow of STI and of MOV SS");
	wrong(sti && !iflag, "in the shadow of STI with IF clear");
	wrong((sti || movss) && tf != step, "in a shadow, TF and the pending single step differ");
}

static void dump_controls(struct vmx_vcpu *x)
{
	log_err("  controls: pin %lx proc %lx proc2 %lx exit %lx entry %lx exceptions %lx",
		vmcs_read(VMCS_PIN_CONTROLS), vmcs_read(VMCS_PROC_CONTROLS),
		vmcs_read(VMCS_PROC_CONTROLS2), vmcs_read(VMCS_EXIT_CONTROLS),
		vmcs_read(VMCS_ENTRY_CONTROLS), vmcs_read(VMCS_EXCEPTION_BITMAP));
	log_err("  vpid %u eptp %lx launched %u todo %x vmcs %lx", x->vpid, x->eptp, x->launched,
		x->v.todo, x->vmcs.v);
	log_err("  exit: interruption %lx/%lx idt-vectoring %lx/%lx instruction length %lu",
		vmcs_read(VMCS_EXIT_INTR_INFO), vmcs_read(VMCS_EXIT_INTR_ERROR),
		vmcs_read(VMCS_IDT_VECTORING_INFO), vmcs_read(VMCS_IDT_VECTORING_ERROR),
		vmcs_read(VMCS_EXIT_INSN_LEN));
	log_err("  exit: qualification %lx gpa %lx linear %lx", vmcs_read(VMCS_EXIT_QUALIFICATION),
		vmcs_read(VMCS_GUEST_PHYS_ADDR), vmcs_read(VMCS_GUEST_LINEAR_ADDR));
	log_err("  entry: event %lx/%lx length %lu interruptibility %lx pending debug %lx",
		vmcs_read(VMCS_ENTRY_INTR_INFO), vmcs_read(VMCS_ENTRY_ERROR_CODE),
		vmcs_read(VMCS_ENTRY_INSN_LEN), vmcs_read(VMCS_GUEST_INTERRUPTIBILITY),
		vmcs_read(VMCS_GUEST_PENDING_DEBUG));
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

	dump_reason(&v->exit);
	if (this_cpu(vmx_current) != x) {
		log_err("  not loaded here: nothing more to read");
		return;
	}
	dump_controls(x);
	if (v->exit.kind != EXIT_ENTRY_FAILED)
		return;
	check_state();
	check_events();
}

/*
 * Those that every CPU has on which a VM can run: reading any other is an error that ends the VM.
 * N: a field that is so many steps behind one that has a name.
 */
/* clang-format off */
#define VMCS_SEGMENT(N, seg, n)                                                          \
	N(GUEST_##seg##_SEL, GUEST_ES_SEL, n) N(GUEST_##seg##_AR, GUEST_ES_AR, n)        \
	N(GUEST_##seg##_LIMIT, GUEST_ES_LIMIT, n) N(GUEST_##seg##_BASE, GUEST_ES_BASE, n)
#define VMCS_FIELDS(X, N)                                                                \
	X(PIN_CONTROLS) X(PROC_CONTROLS) X(PROC_CONTROLS2) X(EXIT_CONTROLS)              \
	X(ENTRY_CONTROLS) X(EXCEPTION_BITMAP) X(MSR_BITMAP) X(TSC_OFFSET) X(EPT_POINTER) \
	X(CR0_MASK) X(CR4_MASK) X(CR0_SHADOW) X(CR4_SHADOW) X(ENTRY_INTR_INFO)           \
	X(ENTRY_ERROR_CODE) X(ENTRY_INSN_LEN) X(LINK_POINTER) X(INSN_ERROR)              \
	X(EXIT_REASON) X(EXIT_QUALIFICATION) X(EXIT_INTR_INFO) X(EXIT_INTR_ERROR)        \
	X(EXIT_INSN_LEN) X(IDT_VECTORING_INFO) X(IDT_VECTORING_ERROR) X(GUEST_PHYS_ADDR) \
	X(GUEST_LINEAR_ADDR) X(GUEST_RIP) X(GUEST_RSP) X(GUEST_RFLAGS) X(GUEST_CR0)      \
	X(GUEST_CR3) X(GUEST_CR4) X(GUEST_DR7) X(GUEST_DEBUGCTL) X(GUEST_PAT)            \
	X(GUEST_EFER) X(GUEST_PDPTE0) N(GUEST_PDPTE1, GUEST_PDPTE0, 1)                   \
	N(GUEST_PDPTE2, GUEST_PDPTE0, 2) N(GUEST_PDPTE3, GUEST_PDPTE0, 3)                \
	X(GUEST_INTERRUPTIBILITY) X(GUEST_ACTIVITY) X(GUEST_PENDING_DEBUG)               \
	X(GUEST_SYSENTER_CS) X(GUEST_SYSENTER_ESP) X(GUEST_SYSENTER_EIP)                 \
	VMCS_SEGMENT(N, ES, 0) VMCS_SEGMENT(N, CS, 1) VMCS_SEGMENT(N, SS, 2)             \
	VMCS_SEGMENT(N, DS, 3) VMCS_SEGMENT(N, FS, 4) VMCS_SEGMENT(N, GS, 5)             \
	VMCS_SEGMENT(N, LDTR, 6) VMCS_SEGMENT(N, TR, 7) X(GUEST_GDTR_BASE)               \
	N(GUEST_GDTR_LIMIT, GUEST_ES_LIMIT, 8) N(GUEST_IDTR_BASE, GUEST_ES_BASE, 9)      \
	X(GUEST_IDTR_LIMIT) X(HOST_CR0) X(HOST_CR3) X(HOST_CR4) X(HOST_RSP) X(HOST_RIP)  \
	X(HOST_GS_BASE) X(HOST_TR_BASE) X(HOST_GDTR_BASE) X(HOST_IDTR_BASE) X(HOST_EFER) \
	X(HOST_PAT) X(HOST_CS_SEL) X(HOST_SS_SEL) X(HOST_TR_SEL)
/* clang-format on */

/* ops->fields */
void vmx_list_fields(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value), void *arg)
{
	static const struct {
		const char *name;
		u16 field;
	} fields[] = {
#define X(field)	  { #field, VMCS_##field },
#define N(name, field, n) { #name, VMCS_##field + 2 * (n) },
		VMCS_FIELDS(X, N)
#undef N
#undef X
	};

	(void)v;
	for (u32 i = 0; i < ARRAY_SIZE(fields); i++)
		f(arg, fields[i].name, vmcs_read(fields[i].field));
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
