/* SPDX-License-Identifier: MIT */
/* The capability record: what is in it, how it is read, and how two CPUs are compared. */
#include "virt/caps.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/timer.h"
#include "lib/error.h"

#define FIELD(index, text, how, bits) [index] = { .name = text, .rule = how, .mask = bits }
#define ALL			      (~0ull)

/*
 * Masked out are bits that mirror a register of the moment (OSXSAVE, OSPKE, the APIC's enable bit)
 * and topology (HTT, CmpLegacy): they differ between good CPUs.
 */
static const struct cap_field common_fields[CAP_VENDOR] = {
	FIELD(CAP_VENDOR_ID, "vendor", CAP_EQUAL, ALL),
	FIELD(CAP_VENDOR_ID_2, "vendor, last part", CAP_EQUAL, ALL),
	FIELD(CAP_SIGNATURE, "family and model", CAP_EQUAL, ~0xfull), /* steppings may be mixed */
	FIELD(CAP_MAX_BASIC, "highest basic leaf", CAP_AT_LEAST, ALL),
	FIELD(CAP_MAX_EXT, "highest extended leaf", CAP_AT_LEAST, ALL),
	FIELD(CAP_1_EBX, "CLFLUSH size", CAP_EQUAL, 0xff00),
	FIELD(CAP_1_ECX, "CPUID.1:ECX", CAP_SUPERSET, ~BIT(27)),
	FIELD(CAP_1_EDX, "CPUID.1:EDX", CAP_SUPERSET, ~(BIT(9) | BIT(28))),
	FIELD(CAP_6_EAX, "CPUID.6:EAX", CAP_INFO, ALL),
	FIELD(CAP_7_EBX, "CPUID.7.0:EBX", CAP_SUPERSET, ALL),
	FIELD(CAP_7_ECX, "CPUID.7.0:ECX", CAP_SUPERSET, ~BIT(4)),
	FIELD(CAP_7_EDX, "CPUID.7.0:EDX", CAP_SUPERSET, ALL),
	FIELD(CAP_7_1_EAX, "CPUID.7.1:EAX", CAP_SUPERSET, ALL),
	FIELD(CAP_D_0_EAX, "CPUID.D.0:EAX", CAP_SUPERSET, ALL),
	FIELD(CAP_D_0_EBX_MAX, "largest XSAVE area", CAP_AT_LEAST, ALL),
	FIELD(CAP_D_1_EAX, "CPUID.D.1:EAX", CAP_SUPERSET, ALL),
	FIELD(CAP_XSAVE_2, "XSAVE layout of AVX", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_5, "XSAVE layout of opmasks", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_6, "XSAVE layout of ZMM_Hi256", CAP_EQUAL, ALL),
	FIELD(CAP_XSAVE_7, "XSAVE layout of Hi16_ZMM", CAP_EQUAL, ALL),
	FIELD(CAP_80000001_ECX, "CPUID.80000001:ECX", CAP_SUPERSET, ~BIT(1)),
	FIELD(CAP_80000001_EDX, "CPUID.80000001:EDX", CAP_SUPERSET, ~BIT(9)),
	FIELD(CAP_80000007_EDX, "CPUID.80000007:EDX", CAP_SUPERSET, ALL),
	FIELD(CAP_80000008_EBX, "CPUID.80000008:EBX", CAP_SUPERSET, ALL),
	FIELD(CAP_80000021_EAX, "CPUID.80000021:EAX", CAP_SUPERSET, ALL),
	/* Equal, not "at least": a guest sees the width as reserved bits of its page tables. */
	FIELD(CAP_PHYS_BITS, "physical address bits", CAP_EQUAL, ALL),
	FIELD(CAP_LINEAR_BITS, "linear address bits", CAP_EQUAL, ALL),
	FIELD(CAP_XCR0, "XCR0", CAP_SUPERSET, ALL),
	FIELD(CAP_EFER, "EFER", CAP_SUPERSET, ALL),
	FIELD(CAP_ARCH_CAPABILITIES, "ARCH_CAPABILITIES", CAP_EQUAL, ALL),
	FIELD(CAP_TSC_KHZ, "TSC kHz", CAP_EQUAL, ALL),
	FIELD(CAP_BRAND_0, "name, part 1", CAP_INFO, ALL),
	FIELD(CAP_BRAND_1, "name, part 2", CAP_INFO, ALL),
	FIELD(CAP_BRAND_2, "name, part 3", CAP_INFO, ALL),
	FIELD(CAP_BRAND_3, "name, part 4", CAP_INFO, ALL),
	FIELD(CAP_BRAND_4, "name, part 5", CAP_INFO, ALL),
	FIELD(CAP_BRAND_5, "name, part 6", CAP_INFO, ALL),
	FIELD(CAP_4_0_AB, "CPUID.4.0:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_4_0_CD, "CPUID.4.0:ECX,EDX", CAP_INFO, ALL),
	FIELD(CAP_4_1_AB, "CPUID.4.1:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_4_1_CD, "CPUID.4.1:ECX,EDX", CAP_INFO, ALL),
	FIELD(CAP_4_2_AB, "CPUID.4.2:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_4_2_CD, "CPUID.4.2:ECX,EDX", CAP_INFO, ALL),
	FIELD(CAP_4_3_AB, "CPUID.4.3:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_4_3_CD, "CPUID.4.3:ECX,EDX", CAP_INFO, ALL),
	FIELD(CAP_80000005_AB, "CPUID.80000005:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_80000005_CD, "CPUID.80000005:ECX,EDX", CAP_INFO, ALL),
	FIELD(CAP_80000006_AB, "CPUID.80000006:EAX,EBX", CAP_INFO, ALL),
	FIELD(CAP_80000006_CD, "CPUID.80000006:ECX,EDX", CAP_INFO, ALL),
};

const struct cap_field *cap_field(const struct cap_table *vendor, u32 i)
{
	if (i < CAP_VENDOR)
		return &common_fields[i];
	if (vendor && i - CAP_VENDOR < vendor->count)
		return &vendor->fields[i - CAP_VENDOR];
	return NULL;
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

/* A leaf that the CPU has; zeros for one beyond its highest (Intel would give its highest there).
 */
static struct cpuid_regs leaf(const struct virt_caps *caps, u32 leaf, u32 subleaf)
{
	u64 max = caps->value[leaf >= 0x80000000 ? CAP_MAX_EXT : CAP_MAX_BASIC];

	return leaf <= max ? cpuid(leaf, subleaf) : (struct cpuid_regs){ 0 };
}

static u64 pair(u32 low, u32 high)
{
	return low | (u64)high << 32;
}

static void read_basic(struct virt_caps *caps)
{
	struct cpuid_regs r = cpuid(0, 0);
	u64 *value = caps->value;

	value[CAP_VENDOR_ID] = pair(r.ebx, r.edx);
	value[CAP_VENDOR_ID_2] = r.ecx;
	value[CAP_MAX_BASIC] = r.eax;
	r = leaf(caps, 1, 0);
	value[CAP_SIGNATURE] = r.eax;
	value[CAP_1_EBX] = r.ebx & 0xff00;
	value[CAP_1_ECX] = r.ecx;
	value[CAP_1_EDX] = r.edx;
	value[CAP_6_EAX] = leaf(caps, 6, 0).eax;
	r = leaf(caps, 7, 0);
	value[CAP_7_EBX] = r.ebx;
	value[CAP_7_ECX] = r.ecx;
	value[CAP_7_EDX] = r.edx;
	value[CAP_7_1_EAX] = r.eax >= 1 ? leaf(caps, 7, 1).eax : 0;
}

static void read_xsave(struct virt_caps *caps)
{
	static const struct {
		u8 component, field;
	} layouts[] = {
		{ 2, CAP_XSAVE_2 }, { 5, CAP_XSAVE_5 }, { 6, CAP_XSAVE_6 }, { 7, CAP_XSAVE_7 }
	};
	struct cpuid_regs r;

	if (!(caps->value[CAP_1_ECX] & BIT(26)))
		return;
	r = leaf(caps, 0xd, 0);
	caps->value[CAP_D_0_EAX] = r.eax;
	caps->value[CAP_D_0_EBX_MAX] = r.ecx;
	caps->value[CAP_XCR0] = pair(r.eax, r.edx);
	caps->value[CAP_D_1_EAX] = leaf(caps, 0xd, 1).eax;
	for (u32 i = 0; i < ARRAY_SIZE(layouts); i++) {
		if (!(caps->value[CAP_XCR0] & BIT(layouts[i].component)))
			continue;
		r = leaf(caps, 0xd, layouts[i].component);
		caps->value[layouts[i].field] = pair(r.eax, r.ebx) | (r.ecx & 2 ? BIT(63) : 0);
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

static void read_extended(struct virt_caps *caps)
{
	u64 *value = caps->value;
	struct cpuid_regs r;

	r = cpuid(0x80000000, 0);
	value[CAP_MAX_EXT] = r.eax >= 0x80000000 ? r.eax : 0;
	r = leaf(caps, 0x80000001, 0);
	value[CAP_80000001_ECX] = r.ecx;
	value[CAP_80000001_EDX] = r.edx;
	value[CAP_EFER] = efer_bits(caps);
	value[CAP_80000007_EDX] = leaf(caps, 0x80000007, 0).edx;
	r = leaf(caps, 0x80000008, 0);
	value[CAP_80000008_EBX] = r.ebx;
	value[CAP_PHYS_BITS] = r.eax & 0xff ? r.eax & 0xff : 36; /* SDM: without the leaf */
	value[CAP_LINEAR_BITS] = r.eax >> 8 & 0xff ? r.eax >> 8 & 0xff : 32;
	value[CAP_80000021_EAX] = leaf(caps, 0x80000021, 0).eax;
}

static void read_shown(struct virt_caps *caps)
{
	u64 *value = caps->value;
	struct cpuid_regs r;

	for (u32 i = 0; i < CAP_BRAND_WORDS / 2; i++) {
		r = leaf(caps, 0x80000002 + i, 0);
		value[CAP_BRAND_0 + 2 * i] = pair(r.eax, r.ebx);
		value[CAP_BRAND_1 + 2 * i] = pair(r.ecx, r.edx);
	}
	for (u32 i = 0; i < CAP_CACHE_LEAVES; i++) {
		r = leaf(caps, 4, i);
		if (!(r.eax & 0x1f))
			break;
		value[CAP_4_0_AB + 2 * i] = pair(r.eax, r.ebx);
		value[CAP_4_0_CD + 2 * i] = pair(r.ecx, r.edx);
	}
	r = leaf(caps, 0x80000005, 0);
	value[CAP_80000005_AB] = pair(r.eax, r.ebx);
	value[CAP_80000005_CD] = pair(r.ecx, r.edx);
	r = leaf(caps, 0x80000006, 0);
	value[CAP_80000006_AB] = pair(r.eax, r.ebx);
	value[CAP_80000006_CD] = pair(r.ecx, r.edx);
}

void caps_read_common(struct virt_caps *caps)
{
	for (u32 i = 0; i < CAP_VENDOR; i++)
		caps->value[i] = 0;
	read_basic(caps);
	read_extended(caps);
	read_xsave(caps);
	read_shown(caps);
	if (caps->value[CAP_7_EDX] & BIT(29) &&
	    rdmsr_safe(MSR_ARCH_CAPABILITIES, &caps->value[CAP_ARCH_CAPABILITIES]))
		caps->value[CAP_ARCH_CAPABILITIES] = 0; /* enumerated, but not there */
	caps->value[CAP_TSC_KHZ] = tsc_khz;
	caps->count = CAP_VENDOR;
}
