/* SPDX-License-Identifier: MIT */
/* regs, x, walk, vmcs, vmcb, msr: what a vCPU, its memory and a CPU hold. */
#include "arch/x86/msr.h"
#include "debug/commands.h"
#include "debug/fields.h"
#include "debug/inspect.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "virt/corruption.h"
#include "virt/guestmem.h"
#include "virt/ops.h"

struct vcpu *command_vcpu(const char *command, char *name, const char *index)
{
	char *slash = strchr(name, '/');
	struct vm *vm;
	u32 i = 0;

	if (slash) {
		*slash = '\0';
		index = slash + 1;
	}
	vm = command_vm(command, name);
	if (!vm)
		return NULL;
	if (index && !command_number(index, vm->nr_vcpus, &i)) {
		monitor_printf("%s %s: no vCPU %s: it has %u\n", command, name, index,
			       vm->nr_vcpus);
		return NULL;
	}
	return vm->vcpus[i];
}

/* False: it could not be looked at, and that was said. */
static bool look(const char *command, struct vcpu *v, void (*f)(struct vcpu *v, void *arg),
		 void *arg)
{
	int err = inspect_vcpu(v, f, arg);

	if (err)
		monitor_printf("%s %s: vCPU %u can't be read: %s\n", command, v->vm->name, v->index,
			       err == -ENODEV ? "no CPU runs it" : error_name(err));
	return !err;
}

static void print_vcpu_key(const struct vcpu *v)
{
	monitor_printf("vm=%s vcpu=%u", v->vm->name, v->index);
}

/* ---- regs ---- */

struct regs {
	u64 gpr[GPRS], rip, rflags, reg[VREGS];
	struct segment seg[SEGS];
};

static void read_regs(struct vcpu *v, void *arg)
{
	struct regs *r = arg;

	for (enum gpr i = RAX; i < GPRS; i++)
		r->gpr[i] = vcpu_gpr(v, i);
	r->rip = v->rip;
	r->rflags = v->rflags;
	for (enum vreg i = 0; i < VREGS; i++)
		r->reg[i] = virt_ops->get_reg(v, i);
	for (enum vseg i = 0; i < SEGS; i++)
		virt_ops->get_seg(v, i, &r->seg[i]);
}

static void print_rows(const struct vcpu *v, const char *const *names, const u64 *values, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		if (i % 4 == 0)
			print_vcpu_key(v);
		monitor_printf(" %s=0x%016lx%s", names[i], values[i],
			       i % 4 == 3 || i == n - 1 ? "\n" : "");
	}
}

bool cmd_regs(u32 argc, char **argv)
{
	static const char *const gprs[GPRS] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
						"rsi", "rdi", "r8",  "r9",  "r10", "r11",
						"r12", "r13", "r14", "r15" };
	static const char *const regs[VREGS] = { "rsp",		 "cr0",
						 "cr2",		 "cr3",
						 "cr4",		 "dr6",
						 "dr7",		 "efer",
						 "pat",		 "star",
						 "lstar",	 "cstar",
						 "sfmask",	 "kernel_gs_base",
						 "sysenter_cs",	 "sysenter_esp",
						 "sysenter_eip", "tsc_offset" };
	static const char *const segs[SEGS] = { "es", "cs",   "ss", "ds",   "fs",
						"gs", "ldtr", "tr", "gdtr", "idtr" };
	struct regs r;
	struct vcpu *v;

	if (argc < 2 || argc > 3)
		return false;
	v = command_vcpu(argv[0], argv[1], argc == 3 ? argv[2] : NULL);
	if (!v || !look(argv[0], v, read_regs, &r))
		return true;
	print_vcpu_key(v);
	monitor_printf(" rip=0x%016lx rflags=0x%08lx intr_shadow=%lu nmi_blocked=%lu\n", r.rip,
		       r.rflags, r.reg[VR_INTR_SHADOW], r.reg[VR_NMI_BLOCKED]);
	print_rows(v, gprs, r.gpr, GPRS);
	print_rows(v, regs + VR_CR0, r.reg + VR_CR0, VR_TSC_OFFSET - VR_CR0 + 1);
	for (enum vseg i = 0; i < SEGS; i++) {
		print_vcpu_key(v);
		monitor_printf(" seg=%s selector=0x%04x base=0x%016lx limit=0x%08x attr=0x%04x "
			       "usable=%u\n",
			       segs[i], r.seg[i].selector, r.seg[i].base, r.seg[i].limit,
			       r.seg[i].attr, !r.seg[i].unusable);
	}
	return true;
}

/* ---- x, walk ---- */

#define PTE_P	 BIT(0)
#define PTE_W	 BIT(1)
#define PTE_U	 BIT(2)
#define PTE_A	 BIT(5)
#define PTE_D	 BIT(6)
#define PTE_PS	 BIT(7)
#define PTE_G	 BIT(8)
#define PTE_NX	 BIT(63)
#define PTE_ADDR MASK(51, 12)

/*
 * The guest's tables, as a person wants to see them: without rights and reserved bits, which the
 * CPU checks (virt/guestwalk.c does too).
 */
struct guest_walk {
	struct vm *vm;
	u64 cr0, cr3, cr4, efer;
	bool verbose;
};

static void read_mmu(struct vcpu *v, void *arg)
{
	struct guest_walk *w = arg;

	w->vm = v->vm;
	w->cr0 = virt_ops->get_reg(v, VR_CR0);
	w->cr3 = virt_ops->get_reg(v, VR_CR3);
	w->cr4 = virt_ops->get_reg(v, VR_CR4);
	w->efer = virt_ops->get_reg(v, VR_EFER);
}

static u32 levels_of(const struct guest_walk *w)
{
	if (!(w->cr0 & X86_CR0_PG))
		return 0;
	if (w->efer & EFER_LMA)
		return w->cr4 & X86_CR4_LA57 ? 5 : 4;
	return w->cr4 & X86_CR4_PAE ? 3 : 2;
}

static void print_entry(const struct guest_walk *w, u32 level, u64 at, u64 entry, bool leaf)
{
	monitor_printf("vm=%s guest_level=%u at=0x%lx entry=0x%lx", w->vm->name, level, at, entry);
	if (entry & PTE_P)
		monitor_printf(" kind=%s prot=r%c%c user=%u accessed=%u dirty=%u global=%u",
			       leaf ? "leaf" : "table", entry & PTE_W ? 'w' : '-',
			       entry & PTE_NX ? '-' : 'x', !!(entry & PTE_U), !!(entry & PTE_A),
			       !!(entry & PTE_D), !!(entry & PTE_G));
	else
		monitor_printf(" kind=%s", entry ? "not-present" : "empty");
	monitor_printf("\n");
	if (at >> PAGE_SHIFT < w->vm->stage2.max_gfn && !vm_is_corrupt(w->vm))
		command_stage2(w->vm, at);
}

static bool entry_is_leaf(const struct guest_walk *w, u32 levels, u32 level, u64 entry)
{
	if (level == 1)
		return true;
	return entry & PTE_PS && (levels == 2 ? w->cr4 & X86_CR4_PSE : level < levels && level < 4);
}

static u64 leaf_address(u32 levels, u32 shift, u64 entry)
{
	if (levels == 2 && shift == 22) /* PSE-36 */
		return (entry & MASK(31, 22)) | (entry & MASK(20, 13)) << (32 - 13);
	return entry & PTE_ADDR & ~(BIT(shift) - 1);
}

/* NULL and *gpa; or why there is none. */
static const char *walk(const struct guest_walk *w, u64 linear, u64 *gpa)
{
	u32 levels = levels_of(w), bits = levels == 2 ? 10 : 9, size = levels == 2 ? 4 : 8;
	u64 table = w->cr3 & (levels == 3 ? MASK(31, 5) : PTE_ADDR), entry = 0;

	if (levels < 4)
		linear = (u32)linear;
	else if ((u64)((s64)(linear << (levels == 5 ? 7 : 16)) >> (levels == 5 ? 7 : 16)) != linear)
		return "the address is not canonical";
	*gpa = linear;
	for (u32 level = levels; level; level--) {
		u32 shift = PAGE_SHIFT + bits * (level - 1);
		u64 at = table + (linear >> shift & (BIT(bits) - 1)) * size;
		enum memory_fault_kind kind = guest_peek(w->vm, GPA(at), &entry, size);
		bool leaf;

		if (kind)
			return kind == MEMORY_NO_MEMORY ? "a table is where no memory is"
							: "the contents of a table are missing";
		leaf = entry_is_leaf(w, levels, level, entry);
		if (w->verbose)
			print_entry(w, level, at, entry, leaf);
		if (!(entry & PTE_P))
			return "not present in the guest's tables";
		if (leaf) {
			*gpa = leaf_address(levels, shift, entry) | (linear & (BIT(shift) - 1));
			break;
		}
		table = entry & PTE_ADDR;
	}
	return NULL;
}

bool cmd_walk(u32 argc, char **argv)
{
	struct guest_walk w = { .verbose = true };
	struct vcpu *v;
	const char *why;
	u64 linear, gpa;

	if (argc != 3 || !command_hex(argv[2], &linear))
		return false;
	v = command_vcpu(argv[0], argv[1], NULL);
	if (!v || !look(argv[0], v, read_mmu, &w))
		return true;
	monitor_printf("vm=%s vcpu=%u gva=0x%lx cr3=0x%lx levels=%u\n", w.vm->name, v->index,
		       linear, w.cr3, levels_of(&w));
	why = walk(&w, linear, &gpa);
	if (why) {
		monitor_printf("walk %s: %s\n", w.vm->name, why);
		return true;
	}
	monitor_printf("vm=%s gva=0x%lx gpa=0x%lx\n", w.vm->name, linear, gpa);
	if (gpa >> PAGE_SHIFT < w.vm->stage2.max_gfn && !vm_is_corrupt(w.vm))
		command_stage2(w.vm, gpa);
	return true;
}

#define X_DEFAULT 64
#define X_MAX	  2048
#define X_ROW	  16

static void print_bytes(u64 address, const u8 *bytes, u32 n)
{
	char text[X_ROW + 1] = "";

	monitor_printf("addr=0x%lx hex=\"", address);
	for (u32 i = 0; i < n; i++) {
		monitor_printf("%s%02x", i ? " " : "", bytes[i]);
		text[i] = bytes[i] >= ' ' && bytes[i] < 0x7f ? (char)bytes[i] : '.';
	}
	monitor_printf("\"");
	command_text("text", text);
	monitor_printf("\n");
}

bool cmd_x(u32 argc, char **argv)
{
	bool physical = argc > 2 && !strncmp(argv[2], "p:", 2);
	struct guest_walk w = { .verbose = false };
	enum memory_fault_kind kind;
	u32 count = X_DEFAULT;
	u8 bytes[X_ROW];
	struct vcpu *v;
	const char *why;
	u64 at, gpa;

	if (argc < 3 || argc > 4 || !command_hex(argv[2] + (physical ? 2 : 0), &at) ||
	    (argc == 4 && !command_number(argv[3], X_MAX + 1, &count)))
		return false;
	v = command_vcpu(argv[0], argv[1], NULL);
	if (!v || (!physical && !look(argv[0], v, read_mmu, &w)))
		return true;
	for (u32 n; count; count -= n, at += n) {
		n = MIN(count, X_ROW - (u32)(at % X_ROW));
		gpa = at;
		why = physical ? NULL : walk(&w, at, &gpa);
		kind = why ? MEMORY_OK : guest_peek(v->vm, GPA(gpa), bytes, n);
		if (kind)
			why = kind == MEMORY_NO_MEMORY ? "no memory there"
						       : "its contents are missing";
		if (why) {
			monitor_printf("x %s: 0x%lx: %s\n", v->vm->name, at, why);
			break;
		}
		print_bytes(at, bytes, n);
	}
	return true;
}

/* ---- vmcs, vmcb ---- */

#define FIELDS_MAX 128

struct fields {
	u32 n;
	struct {
		const char *name;
		u64 value;
	} field[FIELDS_MAX];
};

static void note_field(void *arg, const char *name, u64 value)
{
	struct fields *f = arg;

	if (f->n < FIELDS_MAX) {
		f->field[f->n].name = name;
		f->field[f->n++].value = value;
	}
}

static void read_fields(struct vcpu *v, void *arg)
{
	virt_ops->fields(v, note_field, arg);
}

bool cmd_vmcs(u32 argc, char **argv)
{
	static struct fields f;
	struct vcpu *v;

	if (argc < 2 || argc > 3)
		return false;
	if (!virt_ops || strcmp(virt_ops->fields_name, argv[0])) {
		monitor_printf("%s: this machine has %s\n", argv[0],
			       virt_ops ? virt_ops->fields_name : "neither");
		return true;
	}
	v = command_vcpu(argv[0], argv[1], argc == 3 ? argv[2] : NULL);
	f.n = 0;
	if (!v || !look(argv[0], v, read_fields, &f))
		return true;
	for (u32 i = 0; i < f.n; i++) {
		monitor_printf("vm=%s vcpu=%u field=%s value=0x%lx", v->vm->name, v->index,
			       f.field[i].name, f.field[i].value);
		fields_explain(f.field[i].name, f.field[i].value);
		monitor_printf("\n");
	}
	return true;
}

/* ---- msr ---- */

bool cmd_msr(u32 argc, char **argv)
{
	u64 msr, value;
	u32 cpu;
	int err;

	if (argc != 3 || !command_number(argv[1], MAX_CPUS, &cpu) || !command_hex(argv[2], &msr) ||
	    msr >> 32)
		return false;
	err = inspect_msr(cpu, (u32)msr, &value);
	if (err)
		monitor_printf("msr %u 0x%lx: %s\n", cpu, msr,
			       err == -EIO	? "#GP: this CPU has no such MSR"
			       : err == -ENODEV ? "this CPU is not online"
						: error_name(err));
	else
		monitor_printf("cpu=%u msr=0x%lx value=0x%lx\n", cpu, msr, value);
	return true;
}
