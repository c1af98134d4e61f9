/* SPDX-License-Identifier: MIT */
/*
 * What a CPU can do, as a flat record of 64-bit fields, and the table that says how two CPUs'
 * records are compared. Comparing is a pure function: host-tested with made-up machines.
 *
 * A record is filled wholly on one CPU, with interrupts off, and carries that CPU's number.
 */
#pragma once

#include "arch/x86/insn.h"

enum cap_rule {
	CAP_EQUAL,    /* must be the same */
	CAP_SUPERSET, /* every bit of the reference must be there */
	CAP_AT_LEAST, /* a number that must not be smaller */
	CAP_INFO,     /* recorded, not compared */
};

struct cap_field {
	const char *name;
	u8 rule;  /* enum cap_rule */
	u64 mask; /* bits that count: topology and APIC ids are masked out here */
};

#define CAPS_MAX 128
struct virt_caps {
	u32 cpu; /* who read it */
	u32 count;
	u64 value[CAPS_MAX];
};

/*
 * Fields that every CPU has, in the order of caps_common_fields; the vendor's follow from
 * CAP_VENDOR.
 */
enum cap_common {
	CAP_VENDOR_ID,	 /* first 8 bytes of CPUID.0's name, as a number */
	CAP_VENDOR_ID_2, /* its last 4 bytes */
	CAP_SIGNATURE,	 /* CPUID.1:EAX */
	CAP_MAX_BASIC,
	CAP_MAX_EXT,
	CAP_1_EBX, /* the size that CLFLUSH flushes, bits 15:8 */
	CAP_1_ECX,
	CAP_1_EDX,
	CAP_6_EAX,
	CAP_7_EBX,
	CAP_7_ECX,
	CAP_7_EDX,
	CAP_7_1_EAX,
	CAP_D_0_EAX,
	CAP_D_0_EBX_MAX,
	CAP_D_1_EAX,
	/*
	 * XSAVE component 2 (AVX): size, offset << 32; bit 63: 64-byte aligned in the compact
	 * format
	 */
	CAP_XSAVE_2,
	CAP_XSAVE_5,
	CAP_XSAVE_6,
	CAP_XSAVE_7, /* the three of AVX-512 */
	CAP_80000001_ECX,
	CAP_80000001_EDX,
	CAP_80000007_EDX,
	CAP_80000008_EBX,
	CAP_80000021_EAX,
	CAP_PHYS_BITS,
	CAP_LINEAR_BITS,
	CAP_XCR0, /* XCR0 bits that can be set */
	CAP_EFER, /* EFER bits that can be set, from the enumeration */
	CAP_ARCH_CAPABILITIES,
	CAP_TSC_KHZ,
	/* For showing only, to the user and to guests: 2 registers each, the first one low. */
	CAP_BRAND_0,
	CAP_BRAND_1,
	CAP_BRAND_2,
	CAP_BRAND_3,
	CAP_BRAND_4,
	CAP_BRAND_5,
	CAP_4_0_AB,
	CAP_4_0_CD, /* CPUID.4: caches (Intel) */
	CAP_4_1_AB,
	CAP_4_1_CD,
	CAP_4_2_AB,
	CAP_4_2_CD,
	CAP_4_3_AB,
	CAP_4_3_CD,
	CAP_80000005_AB,
	CAP_80000005_CD, /* caches and TLBs (AMD) */
	CAP_80000006_AB,
	CAP_80000006_CD,
	CAP_VENDOR /* first vendor field */
};
#define CAP_CACHE_LEAVES 4

struct cap_table {
	const struct cap_field *fields; /* the vendor's, index 0 is CAP_VENDOR */
	u32 count;
};

/* Where a field comes from: a register, or two, of a CPUID leaf. */
enum cpuid_reg { CPUID_NONE, EAX, EBX, ECX, EDX };
struct cap_source {
	u32 leaf, subleaf;
	u8 low, high; /* enum cpuid_reg; CPUID_NONE: computed by caps_read_common(), or not there */
};
const struct cap_source *cap_source(enum cap_common i);

static inline u32 *cpuid_reg(struct cpuid_regs *r, enum cpuid_reg reg)
{
	return reg == EAX ? &r->eax : reg == EBX ? &r->ebx : reg == ECX ? &r->ecx : &r->edx;
}

/* The XSAVE components whose layouts are CAP_XSAVE_2 and on. */
static const u8 cap_xsave_component[] = { 2, 5, 6, 7 };

/*
 * Description of field i of a record, common or vendor's (vendor may be NULL); NULL if there is
 * none.
 */
const struct cap_field *cap_field(const struct cap_table *vendor, u32 i);

/*
 * Compare seen with the reference; report (may be NULL) is called for each difference. Returns the
 * number of differences. A field that only one record has counts as 0 in the other. Pure: no
 * hardware, any context.
 */
u32 caps_compare(const struct cap_table *vendor, const struct virt_caps *reference,
		 const struct virt_caps *seen, void (*report)(void *arg, u32 field), void *arg);

/*
 * Cut `common` to what both have: the bits of SUPERSET fields, the smaller number of AT_LEAST ones.
 * EQUAL fields stay: who differs there shares nothing. Pure.
 */
void caps_intersect(const struct cap_table *vendor, struct virt_caps *common,
		    const struct virt_caps *other);

/*
 * Fill the common part on this CPU, and set count to CAP_VENDOR; caps->cpu is the caller's.
 * Interrupts off.
 */
void caps_read_common(struct virt_caps *caps);
