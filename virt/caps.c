/* SPDX-License-Identifier: MIT */
/* The capability record: what is in it, how it is read, and how two CPUs are compared. */
#include "virt/caps.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/timer.h"

struct common_field {
	struct cap_field field;
	struct cap_source source;
};

#define ALL				   ~0ull
#define FIELD(index, text, how, bits, ...) [index] = { { text, how, bits }, { __VA_ARGS__ } }
/* For showing only. */
#define SHOWN(index, text, leaf, subleaf)                                        \
	FIELD((index), text ":EAX,EBX", CAP_INFO, ALL, leaf, subleaf, EAX, EBX), \
		FIELD((index) + 1, text ":ECX,EDX", CAP_INFO, ALL, leaf, subleaf, ECX, EDX)

/*
 * Masked out are bits that mirror a register of the moment (OSXSAVE, OSPKE, the APIC's enable bit)
 * and topology (HTT, CmpLegacy): they differ between good CPUs.
 */
static const struct common_field common_fields[CAP_VENDOR] = {
	FIELD(CAP_VENDOR_ID, "vendor", CAP_EQUAL, ALL, 0, 0, EBX, EDX),
	FIELD(CAP_VENDOR_ID_2, "vendor, last part", CAP_EQUAL, ALL, 0, 0, ECX),
	/* Steppings may be mixed. */
	FIELD(CAP_SIGNATURE, "family and model", CAP_EQUAL, ~0xfull, 1, 0, EAX),
	FIELD(CAP_MAX_BASIC, "highest basic leaf", CAP_AT_LEAST, ALL, 0, 0, EAX),
	FIELD(CAP_MAX_EXT, "highest extended leaf", CAP_AT_LEAST, ALL, 0x80000000, 0, EAX),
	FIELD(CAP_1_EBX, "CLFLUSH size", CAP_EQUAL, 0xff00, 1, 0, EBX),
	FIELD(CAP_1_ECX, "CPUID.1:ECX", CAP_SUPERSET, ~BIT(27), 1, 0, ECX),
	FIELD(CAP_1_EDX, "CPUID.1:EDX", CAP_SUPERSET, ~(BIT(9) | BIT(28)), 1, 0, EDX),
	FIELD(CAP_6_EAX, "CPUID.6:EAX", CAP_INFO, ALL, 6, 0, EAX),
	FIELD(CAP_7_EBX, "CPUID.7.0:EBX", CAP_SUPERSET, ALL, 7, 0, EBX),
	FIELD(CAP_7_ECX, "CPUID.7.0:ECX", CAP_SUPERSET, ~BIT(4), 7, 0, ECX),
	FIELD(CAP_7_EDX, "CPUID.7.0:EDX", CAP_SUPERSET, ALL, 7, 0, EDX),
	FIELD(CAP_7_1_EAX, "CPUID.7.1:EAX", CAP_SUPERSET, ALL, 7, 1, EAX),
	FIELD(CAP_D_0_EAX, "CPUID.D.0:EAX", CAP_SUPERSET, ALL, 0xd, 0, EAX),
	FIELD(CAP_D_0_EBX_MAX, "largest XSAVE area", CAP_AT_LEAST, ALL, 0xd, 0, ECX),
	FIELD(CAP_D_1_EAX, "CPUID.D.1:EAX", CAP_SUPERSET, ALL, 0xd, 1, EAX),
	FIELD(CAP_XSAVE_2, "XSAVE layout of AVX", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_5, "XSAVE layout of opmasks", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_6, "XSAVE layout of ZMM_Hi256", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_7, "XSAVE layout of Hi16_ZMM", CAP_EQUAL, ALL),
	FIELD(CAP_80000001_ECX, "CPUID.80000001:ECX", CAP_SUPERSET, ~BIT(1), 0x80000001, 0, ECX),
	FIELD(CAP_80000001_EDX, "CPUID.80000001:EDX", CAP_SUPERSET, ~BIT(9), 0x80000001, 0, EDX),
	FIELD(CAP_80000007_EDX, "CPUID.80000007:EDX", CAP_SUPERSET, ALL, 0x80000007, 0, EDX),
	FIELD(CAP_80000008_EBX, "CPUID.80000008:EBX", CAP_SUPERSET, ALL, 0x80000008, 0, EBX),
	FIELD(CAP_80000021_EAX, "CPUID.80000021:EAX", CAP_SUPERSET, ALL, 0x80000021, 0, EAX),
	/* Equal, not "at least": a guest sees the width as reserved bits of its page tables. */
	FIELD(CAP_PHYS_BITS, "physical address bits", CAP_EQUAL, ALL),
	FIELD(CAP_LINEAR_BITS, "linear address bits", CAP_EQUAL, ALL),
	FIELD(CAP_XCR0, "XCR0", CAP_SUPERSET, ALL, 0xd, 0, EAX, EDX),
	FIELD(CAP_EFER, "EFER", CAP_SUPERSET, ALL),
	FIELD(CAP_ARCH_CAPABILITIES, "ARCH_CAPABILITIES", CAP_EQUAL, ALL),
	FIELD(CAP_TSC_KHZ, "TSC kHz", CAP_EQUAL, ALL),
	SHOWN(CAP_BRAND_0, "CPUID.80000002", 0x80000002, 0),
	SHOWN(CAP_BRAND_2, "CPUID.80000003", 0x80000003, 0),
	SHOWN(CAP_BRAND_4, "CPUID.80000004", 0x80000004, 0),
	SHOWN(CAP_4_0_AB, "CPUID.4.0", 4, 0),
	SHOWN(CAP_4_1_AB, "CPUID.4.1", 4, 1),
	SHOWN(CAP_4_2_AB, "CPUID.4.2", 4, 2),
	SHOWN(CAP_4_3_AB, "CPUID.4.3", 4, 3),
	SHOWN(CAP_80000005_AB, "CPUID.80000005", 0x80000005, 0),
	SHOWN(CAP_80000006_AB, "CPUID.80000006", 0x80000006, 0),
};

const struct cap_field *cap_field(const struct cap_table *vendor, u32 i)
{
	if (i < CAP_VENDOR)
		return &common_fields[i].field;
	if (vendor && i - CAP_VENDOR < vendor->count)
		return &vendor->fields[i - CAP_VENDOR];
	return NULL;
}

const struct cap_source *cap_source(enum cap_common i)
{
	return &common_fields[i].source;
}

static bool field_ok(const struct cap_field *f, u64 reference, u64 seen)
{
	u64 want = reference & f->mask, have = seen & f->mask;

	switch (f->rule) {
	case CAP_EQUAL:
		return have == want;
	case CAP_SUPERSET:
		return !(want & ~have);
	case CAP_AT_LEAST:
		return have >= want;
	default:
		return true;
	}
}

u32 caps_compare(const struct cap_table *vendor, const struct virt_caps *reference,
		 const struct virt_caps *seen, void (*report)(void *arg, u32 field), void *arg)
{
	u32 count = MIN(MAX(reference->count, seen->count), (u32)CAPS_MAX), differences = 0;

	for (u32 i = 0; i < count; i++) {
		const struct cap_field *f = cap_field(vendor, i);
		u64 want = i < reference->count ? reference->value[i] : 0;
		u64 have = i < seen->count ? seen->value[i] : 0;

		if (!f || field_ok(f, want, have))
			continue;
		differences++;
		if (report)
			report(arg, i);
	}
	return differences;
}

void caps_intersect(const struct cap_table *vendor, struct virt_caps *common,
		    const struct virt_caps *other)
{
	for (u32 i = 0; i < MIN(common->count, other->count); i++) {
		const struct cap_field *f = cap_field(vendor, i);

		if (!f)
			continue;
		if (f->rule == CAP_SUPERSET)
			common->value[i] &= other->value[i] | ~f->mask;
		else if (f->rule == CAP_AT_LEAST &&
			 (other->value[i] & f->mask) < (common->value[i] & f->mask))
			common->value[i] = other->value[i];
	}
}

/*
 * Leaves that the CPU has; zeros for one beyond its highest (Intel would give its highest there).
 */
static void read_leaves(struct virt_caps *caps)
{
	const u32 max[2] = { cpuid(0, 0).eax, cpuid(0x80000000, 0).eax };

	for (u32 i = 0; i < CAP_VENDOR; i++) {
		const struct cap_source *f = cap_source(i);
		struct cpuid_regs r;

		caps->value[i] = 0;
		if (!f->low || f->leaf > max[f->leaf >> 31])
			continue;
		r = cpuid(f->leaf, f->subleaf);
		caps->value[i] = *cpuid_reg(&r, f->low);
		if (f->high)
			caps->value[i] |= (u64)*cpuid_reg(&r, f->high) << 32;
	}
}

/* Layout of the components of XSAVE that XCR0 can have. */
static void read_xsave(struct virt_caps *caps)
{
	struct cpuid_regs r;

	if (!(caps->value[CAP_1_ECX] & BIT(26)))
		caps->value[CAP_D_0_EAX] = caps->value[CAP_D_0_EBX_MAX] = caps->value[CAP_D_1_EAX] =
			caps->value[CAP_XCR0] = 0;
	for (u32 i = 0; i < ARRAY_SIZE(cap_xsave_component); i++) {
		if (!(caps->value[CAP_XCR0] & BIT(cap_xsave_component[i])))
			continue;
		r = cpuid(0xd, cap_xsave_component[i]);
		caps->value[CAP_XSAVE_2 + i] = r.eax | (u64)r.ebx << 32 | (r.ecx & 2 ? BIT(63) : 0);
	}
}

/* APM "EFER": each bit has its feature bit in leaf 80000001. */
static u64 efer_bits(const struct virt_caps *caps)
{
	u64 ecx = caps->value[CAP_80000001_ECX], edx = caps->value[CAP_80000001_EDX], efer = 0;

	efer |= edx & BIT(11) ? EFER_SCE : 0;
	efer |= edx & BIT(29) ? EFER_LME | EFER_LMA : 0;
	efer |= edx & BIT(20) ? EFER_NXE : 0;
	efer |= ecx & BIT(2) ? EFER_SVME : 0;
	efer |= edx & BIT(25) ? EFER_FFXSR : 0;
	return efer;
}

void caps_read_common(struct virt_caps *caps)
{
	u64 *value = caps->value;
	u32 widths;

	read_leaves(caps);
	read_xsave(caps);
	value[CAP_1_EBX] &= 0xff00; /* the rest is this CPU's place */
	if (!cpuid(7, 0).eax)
		value[CAP_7_1_EAX] = 0;
	value[CAP_EFER] = efer_bits(caps);
	widths = value[CAP_MAX_EXT] >= 0x80000008 ? cpuid(0x80000008, 0).eax : 0;
	value[CAP_PHYS_BITS] = widths & 0xff ? widths & 0xff : 36; /* SDM: without the leaf */
	value[CAP_LINEAR_BITS] = widths >> 8 & 0xff ? widths >> 8 & 0xff : 32;
	if (value[CAP_7_EDX] & BIT(29) &&
	    rdmsr_safe(MSR_ARCH_CAPABILITIES, &value[CAP_ARCH_CAPABILITIES]))
		value[CAP_ARCH_CAPABILITIES] = 0; /* enumerated, but not there */
	value[CAP_TSC_KHZ] = tsc_khz;
	caps->count = CAP_VENDOR;
}
