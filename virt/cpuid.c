/* SPDX-License-Identifier: MIT */
/*
 * Building a VM's CPUID from the reference record, and answering it.
 *
 * Topology is one thread per core and nr_vcpus cores in one package; a vCPU's index is its APIC id.
 * Leaves 1, 4, 0xB and 80000008 all say that.
 */
#include "virt/cpuid.h"
#include <asm/kvm_para.h>
#include "arch/x86/msr.h"
#include "arch/x86/topology.h"
#include "lib/string.h"
#include "virt/ops.h"
#include "virt/vm.h"

#define VENDOR_INTEL 0x49656e69756e6547ull /* "GenuineI" */
#define VENDOR_AMD   0x69746e6568747541ull /* "Authenti" */

#define F1C_TSC_DEADLINE BIT(24)
#define F1C_X2APIC	 BIT(21)
#define F1C_XSAVE	 BIT(26)
#define F1C_OSXSAVE	 BIT(27)
#define F1C_HYPERVISOR	 BIT(31)
#define F1D_APIC	 BIT(9)
#define F1D_HTT		 BIT(28)
#define F6A_ARAT	 BIT(2)
#define FD1A_XSAVEC	 BIT(1)
#define F81C_CMP_LEGACY	 BIT(1)
#define F81D_GIB_PAGES	 BIT(26)
#define F81D_AMD_MIRROR	 0x0183f3ffu /* bits that repeat CPUID.1:EDX (APM "Fn8000_0001_EDX") */

#define XSAVE_LEGACY 576 /* FXSAVE area and XSAVE header */

/* Where the policy keeps the answer. */
static const struct cpuid_regs *answer(const struct cpuid_policy *p, u32 leaf, u32 sub)
{
	static const struct cpuid_regs nothing;

	if (leaf - CPUID_EXT_BASE < CPUID_EXT)
		return &p->ext[leaf - CPUID_EXT_BASE];
	if (leaf - CPUID_HV_BASE < CPUID_HV)
		return &p->hv[leaf - CPUID_HV_BASE];
	switch (leaf) {
	case 4:
		return sub < ARRAY_SIZE(p->cache) ? &p->cache[sub] : &nothing;
	case 7:
		return sub < ARRAY_SIZE(p->leaf7) ? &p->leaf7[sub] : &nothing;
	case 0xb:
		return sub < ARRAY_SIZE(p->topology) ? &p->topology[sub] : &nothing;
	case 0xd:
		return sub < ARRAY_SIZE(p->xsave) ? &p->xsave[sub] : &nothing;
	default:
		return leaf < CPUID_BASIC ? &p->basic[leaf] : &nothing;
	}
}

/* Likewise, for the register that this word of the record is of: one that the policy has. */
static u32 *place(struct cpuid_policy *p, u32 word, bool high)
{
	const struct cap_source *from = cap_source(word);
	const struct cpuid_regs *r = answer(p, from->leaf, from->subleaf);

	return cpuid_reg((struct cpuid_regs *)r, high ? from->high : from->low);
}

/* What is told as the record has it, in whole or by the allow-list. */
static void copy_words(struct cpuid_policy *p, const struct virt_caps *caps)
{
	for (u32 word = CAP_BRAND_0; word < CAP_VENDOR; word++) {
		*place(p, word, false) = (u32)caps->value[word];
		*place(p, word, true) = (u32)(caps->value[word] >> 32);
	}
	for (u32 i = 0; i < cpuid_allow_count; i++) {
		const struct cpuid_allow *a = &cpuid_allow[i];

		if ((a->xcr0 & p->xcr0) == a->xcr0)
			*place(p, a->word, false) |= (u32)caps->value[a->word] & a->mask;
	}
}

static u32 low(u64 x)
{
	return (u32)x;
}

static u32 high(u64 x)
{
	return (u32)(x >> 32);
}

/* x87 and SSE, AVX, and AVX-512 as a whole: SDM "XCR0" allows no other combinations. */
static u64 guest_xcr0(const struct virt_caps *caps)
{
	u64 host = caps->value[CAP_XCR0], xcr0 = 0;

	if (!(caps->value[CAP_1_ECX] & F1C_XSAVE) || (host & MASK(1, 0)) != MASK(1, 0))
		return 0;
	xcr0 = MASK(1, 0);
	if (host & BIT(2))
		xcr0 |= BIT(2);
	if (host & BIT(2) && (host & MASK(7, 5)) == MASK(7, 5))
		xcr0 |= MASK(7, 5);
	return xcr0;
}

/*
 * A LAPIC rate that leaf 0x15 tells exactly: the TSC's own, or half of it where the rate in Hz
 * wouldn't fit its 32 bits. (Linux multiplies the rate in kHz by the ratio in 32 bits, which only
 * small ratios survive.)
 */
static u32 default_apic_khz(u32 tsc_khz)
{
	if (!tsc_khz)
		return 1000000;
	return tsc_khz <= ~0u / 1000 ? tsc_khz : tsc_khz / 2;
}

static void set_feature_leaves(struct cpuid_policy *p, const struct cpuid_params *params)
{
	const struct virt_caps *caps = params->caps;
	u32 n = params->nr_vcpus;
	struct cpuid_regs *r = &p->basic[1];

	r->eax = low(caps->value[CAP_SIGNATURE]);
	r->ebx = (low(caps->value[CAP_1_EBX]) & 0xff00) | BIT(id_bits(n)) << 16;
	/* The LAPIC, x2APIC mode included, is Corbel's own: there whatever the CPU has. */
	r->ecx |= F1C_X2APIC | F1C_HYPERVISOR | (params->tsc_deadline ? F1C_TSC_DEADLINE : 0);
	r->edx |= F1D_APIC | (n > 1 ? F1D_HTT : 0);

	p->basic[6].eax = F6A_ARAT; /* the emulated timer ticks in every state */

	p->leaf7[0].eax = 1;
}

static void set_topology(struct cpuid_policy *p, u32 n)
{
	u32 ids = 1u << id_bits(n);

	/* Type 1: SMT, one thread; type 2: cores. EAX: APIC id bits below the next level. */
	p->topology[0] = (struct cpuid_regs){ .eax = 0, .ebx = 1, .ecx = 1 << 8 };
	p->topology[1] = (struct cpuid_regs){ .eax = id_bits(n), .ebx = n, .ecx = 2 << 8 | 1 };
	for (u32 i = 0; i < CAP_CACHE_LEAVES; i++) {
		struct cpuid_regs *r = &p->cache[i];

		if (!(r->eax & 0x1f) || (i && !r[-1].eax)) {
			*r = (struct cpuid_regs){ 0 };
			continue;
		}
		r->eax &= 0x3fff; /* level 3 and above is shared by all, the rest private */
		r->eax |= (ids - 1) << 26 | ((r->eax >> 5 & 7) >= 3 ? (ids - 1) << 14 : 0);
	}
}

/* Leaf 0xD; the sizes of subleaves 0 and 1 that depend on XCR0 come in at cpuid_execute. */
static void set_xsave(struct cpuid_policy *p, const struct virt_caps *caps)
{
	u32 size = XSAVE_LEGACY;

	if (!p->xcr0)
		return;
	for (u32 i = 0; i < ARRAY_SIZE(cap_xsave_component); i++) {
		u32 component = cap_xsave_component[i];
		u64 layout = caps->value[CAP_XSAVE_2 + i];
		struct cpuid_regs *r = &p->xsave[component];

		if (!(p->xcr0 & BIT(component)))
			continue;
		*r = (struct cpuid_regs){ low(layout), high(layout) & ~BIT(31),
					  layout >> 63 ? 2 : 0, 0 };
		size = MAX(size, r->eax + r->ebx);
	}
	p->xsave[0] = (struct cpuid_regs){ .eax = low(p->xcr0), .ecx = size, .edx = high(p->xcr0) };
}

/*
 * Leaf 0x15 is what Intel guests calibrate TSC and LAPIC timer by (AMD guests ignore it). Offered
 * where it is exact, and where Linux's 32-bit arithmetic survives it.
 */
static void set_frequencies(struct cpuid_policy *p)
{
	u32 ratio = p->tsc_khz / p->apic_khz;

	if (!ratio || p->apic_khz > ~0u / 1000 || p->tsc_khz - ratio * p->apic_khz > ratio)
		return;
	p->basic[0x15] = (struct cpuid_regs){ .eax = 1, .ebx = ratio, .ecx = p->apic_khz * 1000 };
	p->basic[0x16] = (struct cpuid_regs){ .eax = p->tsc_khz / 1000, .ebx = p->tsc_khz / 1000 };
}

static void set_basic(struct cpuid_policy *p, const struct cpuid_params *params)
{
	const struct virt_caps *caps = params->caps;
	bool intel = caps->value[CAP_VENDOR_ID] == VENDOR_INTEL;

	p->basic[0] = (struct cpuid_regs){ .eax = 0xd,
					   .ebx = low(caps->value[CAP_VENDOR_ID]),
					   .ecx = low(caps->value[CAP_VENDOR_ID_2]),
					   .edx = high(caps->value[CAP_VENDOR_ID]) };
	set_feature_leaves(p, params);
	set_topology(p, params->nr_vcpus);
	set_xsave(p, caps);
	if (!intel)
		return;
	p->basic[2].eax = 0xff01; /* "see leaf 4" */
	set_frequencies(p);
	if (p->basic[0x15].eax)
		p->basic[0].eax = 0x16;
}

static void set_extended(struct cpuid_policy *p, const struct cpuid_params *params)
{
	const struct virt_caps *caps = params->caps;
	bool amd = caps->value[CAP_VENDOR_ID] == VENDOR_AMD;
	u32 n = params->nr_vcpus;
	struct cpuid_regs *r = p->ext;

	/* The name of the vendor again: AMD only. */
	r[0].eax = CPUID_EXT_BASE + (amd && caps->value[CAP_80000021_EAX] ? 0x21 : 8);
	if (amd) {
		r[0].ebx = p->basic[0].ebx;
		r[0].ecx = p->basic[0].ecx;
		r[0].edx = p->basic[0].edx;
		r[1].eax = p->basic[1].eax;
		r[1].ecx |= n > 1 ? F81C_CMP_LEGACY : 0; /* they are cores, not threads */
		r[1].edx |= p->basic[1].edx & F81D_AMD_MIRROR;
	}
	r[8].eax = p->phys_bits | 48 << 8; /* LA57 is hidden */
	if (amd)
		r[8].ecx = (n - 1) | id_bits(n) << 12;
}

static void set_hypervisor(struct cpuid_policy *p, const struct cpuid_params *params)
{
	struct cpuid_regs *r = p->hv;

	r[0].eax = CPUID_HV_BASE + CPUID_HV - 1;
	memcpy(&r[0].ebx, KVM_SIGNATURE, 4);
	memcpy(&r[0].ecx, KVM_SIGNATURE + 4, 4);
	memcpy(&r[0].edx, KVM_SIGNATURE + 8, 4);
	/* kvmclock by its newer MSRs; and no delays by writes to port 0x80, which would be exits.
	 */
	r[1].eax = BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_NOP_IO_DELAY);
	if (params->kvmclock_stable)
		r[1].eax |= BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT);
	/* Frequencies in kHz, a convention of several hypervisors. */
	r[0x10].eax = p->tsc_khz;
	r[0x10].ebx = p->apic_khz;
}

/* Register bits that go with the features shown. */
static void set_registers(struct cpuid_policy *p)
{
	const struct {
		u32 word, bit;
		u64 cr4, efer;
	} features[] = {
		{ p->basic[1].edx, 1, X86_CR4_VME | X86_CR4_PVI, 0 },
		{ p->basic[1].ecx, 17, X86_CR4_PCIDE, 0 },
		{ p->basic[1].ecx, 26, X86_CR4_OSXSAVE, 0 },
		{ p->leaf7[0].ebx, 0, X86_CR4_FSGSBASE, 0 },
		{ p->leaf7[0].ebx, 7, X86_CR4_SMEP, 0 },
		{ p->leaf7[0].ebx, 20, X86_CR4_SMAP, 0 },
		{ p->leaf7[0].ecx, 2, X86_CR4_UMIP, 0 },
		{ p->ext[1].edx, 11, 0, EFER_SCE },
		{ p->ext[1].edx, 20, 0, EFER_NXE },
		{ p->ext[1].edx, 29, 0, EFER_LME | EFER_LMA },
	};

	/* MCE is the host's affair, but a guest that sets it does no harm; PCE makes RDPMC no less
	 * of a #GP. */
	p->cr4 = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE |
		 X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_MCE | X86_CR4_PCE;
	for (u32 i = 0; i < ARRAY_SIZE(features); i++) {
		if (!(features[i].word & BIT(features[i].bit)))
			continue;
		p->cr4 |= features[i].cr4;
		p->efer |= features[i].efer;
	}
	p->has_gib_pages = p->ext[1].edx & F81D_GIB_PAGES;
}

void cpuid_policy_init(struct cpuid_policy *policy, const struct cpuid_params *params)
{
	struct cpuid_policy *p = policy;

	memset(p, 0, sizeof(*p));
	p->xcr0 = guest_xcr0(params->caps);
	p->tsc_khz = params->tsc_khz;
	p->apic_khz = params->apic_khz ? params->apic_khz : default_apic_khz(params->tsc_khz);
	p->phys_bits = (u8)MIN(params->caps->value[CAP_PHYS_BITS], 52ull);
	copy_words(p, params->caps);
	set_basic(p, params);
	set_extended(p, params);
	set_hypervisor(p, params);
	set_registers(p);
}

/* Size of the XSAVE area for these XCR0 bits (SDM "XSAVE-Managed Features: layout"). */
static u32 xsave_size(const struct cpuid_policy *p, u64 xcr0, bool compact)
{
	u32 size = XSAVE_LEGACY;

	for (u32 i = 2; i < CPUID_XSAVE_SUBS; i++) {
		const struct cpuid_regs *r = &p->xsave[i];

		if (!(xcr0 >> i & 1) || !r->eax)
			continue;
		if (compact)
			size = (r->ecx & 2 ? ALIGN_UP(size, 64u) : size) + r->eax;
		else
			size = MAX(size, r->eax + r->ebx);
	}
	return size;
}

static NOINLINE void execute_dynamic(struct vcpu *v, u32 leaf, u32 sub, struct cpuid_regs *out)
{
	const struct cpuid_policy *p = v->vm->cpuid;

	switch (leaf) {
	case 1:
		out->ebx |= v->index << 24;
		if (out->ecx & F1C_XSAVE && virt_ops->get_reg(v, VR_CR4) & X86_CR4_OSXSAVE)
			out->ecx |= F1C_OSXSAVE;
		break;
	case 0xb: /* SDM: ECX tells the subleaf, type 0: no such level */
		out->ecx |= sub & 0xff;
		out->edx = v->index;
		break;
	case 0xd:
		if (sub == 0 && p->xcr0)
			out->ebx = xsave_size(p, v->xcr0, false);
		else if (sub == 1 && out->eax & FD1A_XSAVEC)
			out->ebx = xsave_size(p, v->xcr0, true);
		break;
	}
}

void cpuid_execute(struct vcpu *v, u32 leaf, u32 subleaf, struct cpuid_regs *out)
{
	*out = *answer(v->vm->cpuid, leaf, subleaf);
	if (leaf < CPUID_BASIC && CPUID_DYNAMIC >> leaf & 1)
		execute_dynamic(v, leaf, subleaf, out);
}
