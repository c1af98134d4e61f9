/* SPDX-License-Identifier: MIT */
#include <asm/processor-flags.h>
#include "debug/gdb_regs.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "virt/cpuid.h"
#include "virt/exits.h"
#include "virt/ops.h"

#define RFLAGS_DEFINED                                                                     \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF |   \
	 X86_EFLAGS_TF | X86_EFLAGS_IF | X86_EFLAGS_DF | X86_EFLAGS_OF | X86_EFLAGS_IOPL | \
	 X86_EFLAGS_NT | X86_EFLAGS_RF | X86_EFLAGS_AC | X86_EFLAGS_VIF | X86_EFLAGS_VIP | \
	 X86_EFLAGS_ID)

/* The FXSAVE image (SDM vol. 1 "FXSAVE Area"), which an XSAVE area begins with. */
#define FX_STATUS     2
#define FX_TAGS	      4
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST	      32
#define FX_XMM	      160
#define XSTATE_BV     512
#define DEFAULT_MASK  0xffbf

/* Registers that follow each other, of one type. */
struct group {
	const char *feature; /* NULL: goes on with the last */
	const char *type;
	const char *names; /* a blank behind each */
	u8 count, size;	   /* how many; bytes of one */
	/* The one with this index; value has size bytes. -EINVAL: see gdb_reg_write(). */
	void (*read)(struct vcpu *v, u32 i, u8 *value);
	int (*write)(struct vcpu *v, u32 i, const u8 *value); /* NULL: it can't be changed */
};

/* ---- x87 and SSE ---- */

/*
 * SDM vol. 1 "x87 FPU Tag Word": two bits for each physical register, from the one bit that the
 * image has and what is in it.
 */
static u32 tags(const u8 *fx)
{
	u32 top = fx[FX_STATUS + 1] >> 3 & 7, word = 0;

	for (u32 r = 0; r < 8; r++) {
		const u8 *st = fx + FX_ST + ((r - top) & 7) * 16ul;
		u32 exponent = (st[8] | st[9] << 8) & 0x7fff, tag = 0;
		u64 mantissa;

		memcpy(&mantissa, st, sizeof(mantissa));
		if (!(fx[FX_TAGS] >> r & 1))
			tag = 3;
		else if (!exponent && !mantissa)
			tag = 1;
		else if (exponent == 0x7fff || !(mantissa >> 63))
			tag = 2;
		word |= tag << 2 * r;
	}
	return word;
}

/* fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop */
static void read_x87(struct vcpu *v, u32 i, u8 *value)
{
	static const u8 fields[][2] = { { 0, 2 }, { FX_STATUS, 2 }, { FX_TAGS, 1 }, { 12, 2 },
					{ 8, 4 }, { 20, 2 },	    { 16, 4 },	    { 6, 2 } };
	const u8 *fx = v->fpu;
	u32 word = 0;

	memcpy(&word, fx + fields[i][0], fields[i][1]);
	if (fields[i][0] == FX_TAGS)
		word = tags(fx);
	memcpy(value, &word, sizeof(word));
}

static void read_st(struct vcpu *v, u32 i, u8 *value)
{
	memcpy(value, (u8 *)v->fpu + FX_ST + 16ul * i, 10);
}

static void read_xmm(struct vcpu *v, u32 i, u8 *value)
{
	memcpy(value, (u8 *)v->fpu + FX_XMM + 16ul * i, 16);
}

static void read_mxcsr(struct vcpu *v, u32 i, u8 *value)
{
	(void)i;
	memcpy(value, (u8 *)v->fpu + FX_MXCSR, 4);
}

static int write_fx(struct vcpu *v, size_t at, const u8 *value, size_t len)
{
	u8 *fx = v->fpu;

	memcpy(fx + at, value, len);
	fx[XSTATE_BV] |= 3; /* neither is in its initial state any more */
	return 0;
}

static int write_st(struct vcpu *v, u32 i, const u8 *value)
{
	return write_fx(v, FX_ST + 16ul * i, value, 10);
}

static int write_xmm(struct vcpu *v, u32 i, const u8 *value)
{
	return write_fx(v, FX_XMM + 16ul * i, value, 16);
}

/* XRSTOR faults on a bit that the CPU does not have. */
static int write_mxcsr(struct vcpu *v, u32 i, const u8 *value)
{
	u32 mask, mxcsr;

	(void)i;
	memcpy(&mask, (u8 *)v->fpu + FX_MXCSR_MASK, sizeof(mask));
	memcpy(&mxcsr, value, sizeof(mxcsr));
	return mxcsr & ~(mask ? mask : DEFAULT_MASK) ? -EINVAL : write_fx(v, FX_MXCSR, value, 4);
}

/* ---- The others, of up to 64 bits ---- */

static const u8 gprs[] = { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP,
			   R8,	R9,  R10, R11, R12, R13, R14, R15 };
enum { KERNEL_GS, CR0, CR2, CR3, CR4, CR8, EFER };

static u64 get(const u8 *value)
{
	u64 word;

	memcpy(&word, value, sizeof(word));
	return word;
}

static void put(u8 *value, u64 word)
{
	memcpy(value, &word, sizeof(word));
}

static void read_gpr(struct vcpu *v, u32 i, u8 *value)
{
	put(value, vcpu_gpr(v, gprs[i]));
}

static int write_gpr(struct vcpu *v, u32 i, const u8 *value)
{
	vcpu_set_gpr(v, gprs[i], get(value));
	return 0;
}

static bool canonical(struct vcpu *v, u64 value)
{
	u32 unused = virt_ops->get_reg(v, VR_CR4) & X86_CR4_LA57 ? 64 - 57 : 64 - 48;

	return (u64)((s64)(value << unused) >> unused) == value;
}

static void read_rip(struct vcpu *v, u32 i, u8 *value)
{
	(void)i;
	put(value, v->rip);
}

static int write_rip(struct vcpu *v, u32 i, const u8 *value)
{
	u64 rip = get(value);

	(void)i;
	if (vcpu_mode(v) == INSN_64 ? !canonical(v, rip) : rip >> 32)
		return -EINVAL;
	v->rip = rip;
	if (v->activity == VCPU_IN_HLT) /* who sets it wants it executed */
		v->activity = VCPU_ACTIVE;
	return 0;
}

static void read_eflags(struct vcpu *v, u32 i, u8 *value)
{
	(void)i;
	memcpy(value, &v->rflags, 4);
}

static int write_eflags(struct vcpu *v, u32 i, const u8 *value)
{
	u32 flags = (u32)get(value);

	(void)i;
	if ((flags ^ v->rflags) & X86_EFLAGS_VM)
		return -EINVAL;
	v->rflags = (flags & (RFLAGS_DEFINED | X86_EFLAGS_VM)) | X86_EFLAGS_FIXED;
	return 0;
}

static void read_selector(struct vcpu *v, u32 i, u8 *value)
{
	static const u8 segs[] = { SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	struct segment seg;

	virt_ops->get_seg(v, segs[i], &seg);
	put(value, seg.selector);
}

static void read_base(struct vcpu *v, u32 i, u8 *value)
{
	struct segment seg;

	virt_ops->get_seg(v, i ? SEG_GS : SEG_FS, &seg);
	put(value, seg.base);
}

static int write_base(struct vcpu *v, u32 i, const u8 *value)
{
	struct segment seg;

	if (!canonical(v, get(value)))
		return -EINVAL;
	virt_ops->get_seg(v, i ? SEG_GS : SEG_FS, &seg);
	seg.base = get(value);
	virt_ops->set_seg(v, i ? SEG_GS : SEG_FS, &seg);
	return 0;
}

static void read_control(struct vcpu *v, u32 i, u8 *value)
{
	static const u8 regs[] = { VR_KERNEL_GS_BASE, VR_CR0, VR_CR2, VR_CR3, VR_CR4, 0, VR_EFER };

	if (i == CR8)
		put(value, v->vm->irqchip ? v->vm->irqchip->get_tpr(v) >> 4 : 0);
	else
		put(value, virt_ops->get_reg(v, regs[i]));
}

static int write_control(struct vcpu *v, u32 i, const u8 *value)
{
	u64 word = get(value);
	bool valid = i == KERNEL_GS ? canonical(v, word)
		     : i == CR3	    ? !(word >> v->vm->cpuid->phys_bits)
				    : i == CR2 || (word < 16 && v->vm->irqchip); /* CR8 */

	if (i == CR0)
		return guest_set_cr0(v, word);
	if (i == CR4)
		return guest_set_cr4(v, word);
	if (i == EFER)
		return guest_set_efer(v, word);
	if (!valid)
		return -EINVAL;
	if (i == CR8)
		v->vm->irqchip->set_tpr(v, (u8)(word << 4));
	else
		virt_ops->set_reg(v,
				  i == CR2   ? VR_CR2
				  : i == CR3 ? VR_CR3
					     : VR_KERNEL_GS_BASE,
				  word);
	return 0;
}

/* ---- All of them ---- */

#define CORE "gnu.gdb.i386.core"
#define SSE  "gnu.gdb.i386.sse"
static const struct group groups[] = {
	{ CORE, "int64", "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 ", 16, 8,
	  read_gpr, write_gpr },
	{ NULL, "code_ptr", "rip ", 1, 8, read_rip, write_rip },
	{ NULL, "eflags", "eflags ", 1, 4, read_eflags, write_eflags },
	{ NULL, "int32", "cs ss ds es fs gs ", 6, 4, read_selector, NULL },
	{ NULL, "i387_ext", "st0 st1 st2 st3 st4 st5 st6 st7 ", 8, 10, read_st, write_st },
	{ NULL, "int", "fctrl fstat ftag fiseg fioff foseg fooff fop ", 8, 4, read_x87, NULL },
	{ SSE, "vec128",
	  "xmm0 xmm1 xmm2 xmm3 xmm4 xmm5 xmm6 xmm7 "
	  "xmm8 xmm9 xmm10 xmm11 xmm12 xmm13 xmm14 xmm15 ",
	  16, 16, read_xmm, write_xmm },
	{ NULL, "int", "mxcsr ", 1, 4, read_mxcsr, write_mxcsr },
	{ "gnu.gdb.i386.segments", "int", "fs_base gs_base ", 2, 8, read_base, write_base },
	{ "corbel.control", "int", "k_gs_base cr0 cr2 cr3 cr4 cr8 efer ", 7, 8, read_control,
	  write_control },
};

/* The group of a register, which exists, and its index there. */
static const struct group *group_of(u32 n, u32 *i)
{
	const struct group *g = groups;

	for (*i = n; *i >= g->count; g++)
		*i -= g->count;
	return g;
}

u32 gdb_reg_size(u32 n)
{
	u32 i;

	return group_of(n, &i)->size;
}

u32 gdb_reg_read(struct vcpu *v, u32 n, u8 value[GDB_REG_MAX])
{
	u32 i;
	const struct group *g = group_of(n, &i);

	g->read(v, i, value);
	return g->size;
}

int gdb_reg_write(struct vcpu *v, u32 n, const u8 value[GDB_REG_MAX], size_t len)
{
	u32 i;
	const struct group *g = group_of(n, &i);
	u8 now[GDB_REG_MAX];

	if (len != g->size)
		return -EINVAL;
	if (g->write)
		return g->write(v, i, value);
	g->read(v, i, now);
	return memcmp(now, value, g->size) ? -EINVAL : 0;
}

/* ---- The description ---- */

void gdb_doc(struct gdb_doc *d, const char *text)
{
	for (; *text; text++, d->at++)
		if (d->at >= d->from && d->at < d->to)
			gdb_put(d->link, text, 1);
}

void gdb_doc_reply(struct gdb_link *l, const char *range, void (*describe)(struct gdb_doc *d))
{
	struct gdb_doc d = { .link = l };
	u64 len;

	if (!gdb_get_range(&range, &d.from, &len)) {
		gdb_reply(l, "E22");
		return;
	}
	d.to = d.from + MIN(len, GDB_PACKET - 1);
	gdb_begin(l);
	gdb_put(l, "l", 1);
	describe(&d);
	if (d.at > d.to)
		l->out[0] = 'm';
	gdb_send(l);
}

static const char *const flag_names[] = { "CF", "",   "PF", "",	  "AF", "",
					  "ZF", "SF", "TF", "IF", "DF", "OF" };

static const char head[] =
	"<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
	"<architecture>i386:x86-64</architecture>";

/* Types that a feature whose first registers are of this type has of its own. */
static void describe_types(struct gdb_doc *d, const char *type)
{
	char text[64];

	if (!strcmp(type, "int64")) {
		gdb_doc(d, "<flags id=\"eflags\" size=\"4\">");
		for (u32 i = 0; i < ARRAY_SIZE(flag_names); i++) {
			fmt_snprintf(text, sizeof(text),
				     "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", flag_names[i],
				     i, i);
			gdb_doc(d, text);
		}
		gdb_doc(d, "</flags>");
	}
	if (!strcmp(type, "vec128"))
		gdb_doc(d, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
			   "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
			   "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
			   "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
			   "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
			   "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
			   "<field name=\"v2_double\" type=\"v2d\"/>"
			   "<field name=\"v16_int8\" type=\"v16i8\"/>"
			   "<field name=\"v4_int32\" type=\"v4i32\"/>"
			   "<field name=\"v2_int64\" type=\"v2i64\"/>"
			   "<field name=\"uint128\" type=\"uint128\"/></union>");
}

void gdb_describe(struct gdb_doc *d)
{
	char text[96];

	gdb_doc(d, head);
	for (const struct group *g = groups; g < groups + ARRAY_SIZE(groups); g++) {
		if (g->feature) {
			gdb_doc(d, g > groups ? "</feature><feature name=\"org."
					      : "<feature name=\"org.");
			gdb_doc(d, g->feature);
			gdb_doc(d, "\">");
			describe_types(d, g->type);
		}
		for (const char *name = g->names, *end; (end = strchr(name, ' ')); name = end + 1) {
			fmt_snprintf(text, sizeof(text),
				     "<reg name=\"%.*s\" bitsize=\"%u\" type=\"%s\"/>",
				     (int)(end - name), name, 8u * g->size, g->type);
			gdb_doc(d, text);
		}
	}
	gdb_doc(d, "</feature></target>");
}
