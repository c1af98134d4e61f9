/* SPDX-License-Identifier: MIT */
/*
 * The CPUID that a guest sees: an allow-list with a reason beside each entry (virt/cpuid_allow.c),
 * cut out of the reference capability record, so that every vCPU sees the same on every CPU.
 * Whatever isn't listed reads as 0.
 *
 * A policy is made once per VM and does not change while the VM runs: any CPU may look into it.
 * (Split-lock detection is offered anew at each start: virt/split_policy.c.)
 */
#pragma once

#include "arch/x86/insn.h"
#include "virt/caps.h"

struct vcpu;

#define CPUID_BASIC	 0x17 /* leaves 0..0x16 */
#define CPUID_EXT_BASE	 0x80000000u
#define CPUID_EXT	 0x22 /* leaves 0x80000000..0x80000021 */
#define CPUID_HV_BASE	 0x40000000u
#define CPUID_HV	 0x11 /* leaves 0x40000000..0x40000010 */
#define CPUID_XSAVE_SUBS 8    /* subleaves 0..7 of leaf 0xD */

struct cpuid_policy {
	struct cpuid_regs basic[CPUID_BASIC];
	struct cpuid_regs ext[CPUID_EXT];
	struct cpuid_regs hv[CPUID_HV];
	struct cpuid_regs cache[CAP_CACHE_LEAVES]; /* leaf 4 */
	struct cpuid_regs leaf7[2];
	struct cpuid_regs topology[2];		   /* leaf 0xB, without the APIC id */
	struct cpuid_regs xsave[CPUID_XSAVE_SUBS]; /* leaf 0xD, without the sizes of the moment */

	/* What follows from the above, for those who check registers and walk page tables. */
	u64 xcr0; /* bits that the guest may set; 0: no XSAVE */
	u64 cr4;  /* likewise */
	u64 efer; /* likewise, LMA included */
	u32 tsc_khz;
	/*
	 * what the LAPIC timer must count with (divided by 1); leaf 0x15 and 0x40000010 promise it
	 */
	u32 apic_khz;
	u8 phys_bits;
	bool has_gib_pages; /* in the guest's own tables */
};

struct cpuid_params {
	const struct virt_caps *caps; /* the reference */
	u32 nr_vcpus;
	u32 tsc_khz;	      /* that the guest's TSC counts with; 0: not known, not promised */
	u32 apic_khz;	      /* 0: chosen so that leaf 0x15 can tell it exactly */
	bool kvmclock_stable; /* proven that kvmclock is monotonic across vCPUs */
	bool tsc_deadline;    /* the LAPIC has that mode */
};

/* Fill the policy. Pure: any context. */
void cpuid_policy_init(struct cpuid_policy *policy, const struct cpuid_params *params);

#define CPUID_SUBLEAVES (BIT(4) | BIT(7) | BIT(0xb) | BIT(0xd))
#define CPUID_DYNAMIC	(BIT(1) | BIT(0xb) | BIT(0xd)) /* not the same for each vCPU at any time */

/* Is basic[leaf] of the policy the whole answer? Else ask cpuid_execute(). */
static inline bool cpuid_is_fixed(u64 leaf)
{
	return leaf < CPUID_BASIC && !((CPUID_SUBLEAVES | CPUID_DYNAMIC) >> leaf & 1);
}

/*
 * What this vCPU sees right now: APIC ids, OSXSAVE, XSAVE sizes by XCR0; zeros for a leaf outside
 * of the three ranges. (Intel CPUs would repeat their highest basic leaf there; nobody can rely on
 * that, AMD gives zeros.) On the runner.
 */
void cpuid_execute(struct vcpu *v, u32 leaf, u32 subleaf, struct cpuid_regs *out);

/*
 * One allowed set of bits: word is where it comes from, and stands for the same register of the
 * same leaf in the guest.
 */
struct cpuid_allow {
	u8 word; /* enum cap_common */
	u32 mask;
	u64 xcr0; /* only if the guest may set all these XCR0 bits */
	const char *why;
};
extern const struct cpuid_allow cpuid_allow[];
extern const u32 cpuid_allow_count;
