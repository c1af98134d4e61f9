/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "svm/npt.h"
#include "svm/svm.h"
#include "virt/msr_policy.h"

#define CPUID_EXT_SVM BIT(2)  /* 8000_0001:ECX */
#define CPUID_RDTSCP  BIT(27) /* 8000_0001:EDX */
#define CPUID_1G      BIT(26)

#define IOPM_ORDER  2 /* 12 KiB, in 16 */
#define MSRPM_ORDER 1

static const struct cap_field fields[] = {
	{ "SVM revision", CAP_AT_LEAST, ~0ull },
	{ "SVM ASIDs", CAP_AT_LEAST, ~0ull },
	{ "SVM features", CAP_SUPERSET, 0xffffffff },
	{ "VM_CR", CAP_EQUAL, VM_CR_SVMDIS },
};
_Static_assert(ARRAY_SIZE(fields) == CAP_SVM_END - CAP_VENDOR, "a capability without a rule");
const struct cap_table svm_cap_table = { fields, ARRAY_SIZE(fields) };

struct svm_setup svm_setup_;

bool svm_present(void)
{
	return cpuid(0x80000000, 0).eax >= 0x8000000a && (cpuid(0x80000001, 0).ecx & CPUID_EXT_SVM);
}

void svm_caps_read(struct virt_caps *caps)
{
	struct cpuid_regs r = cpuid(0x8000000a, 0);
	u64 vm_cr;

	(void)!rdmsr_safe(MSR_VM_CR, &vm_cr);
	caps->value[CAP_SVM_REVISION] = r.eax & 0xff;
	caps->value[CAP_SVM_ASIDS] = r.ebx;
	caps->value[CAP_SVM_FEATURES] = r.edx;
	caps->value[CAP_SVM_VM_CR] = vm_cr;
	caps->count = CAP_SVM_END;
}

/*
 * Two bits an MSR, read and write; three ranges of 8192 MSRs at 2 KiB each (APM vol. 2 "MSR
 * Intercepts").
 */
static void msrpm_pass(u8 *map, u32 msr)
{
	static const struct {
		u32 first, offset;
	} ranges[] = { { 0, 0 }, { 0xc0000000, 0x800 }, { 0xc0010000, 0x1000 } };

	for (u32 i = 0; i < ARRAY_SIZE(ranges); i++) {
		u32 n = msr - ranges[i].first;

		if (n < 0x2000)
			map[ranges[i].offset + n / 4] &= (u8) ~(3u << n % 4 * 2);
	}
}

/* One pair of maps serves all VMs: the policy is the same for all. */
static int make_maps(void)
{
	pfn_t io = hpa_pfn(svm_setup_.iopm), msr = hpa_pfn(svm_setup_.msrpm);

	if (!io.v) { /* setup may run again, on a smaller record */
		io = frame_alloc_order(IOPM_ORDER, FRAME_HW, VM_NONE);
		msr = frame_alloc_order(MSRPM_ORDER, FRAME_HW, VM_NONE);
	}
	if (!pfn_valid(io) || !pfn_valid(msr))
		return trace_error(-ENOMEM);
	memset(pfn_ptr(io), 0xff, PAGE_SIZE << IOPM_ORDER);
	memset(pfn_ptr(msr), 0xff, PAGE_SIZE << MSRPM_ORDER);
	for (u32 i = 0; i < msr_policy_count; i++)
		if (msr_policy[i].access == MSR_PASS &&
		    (msr_policy[i].msr != MSR_TSC_AUX || svm_setup_.rdtscp))
			msrpm_pass(pfn_ptr(msr), msr_policy[i].msr);
	svm_setup_.iopm = pfn_hpa(io);
	svm_setup_.msrpm = pfn_hpa(msr);
	return 0;
}

int svm_setup(const struct virt_caps *ref, void (*missing)(const char *what))
{
	u64 features = ref->value[CAP_SVM_FEATURES];
	bool bad = false;

	if (ref->value[CAP_SVM_VM_CR] & VM_CR_SVMDIS) {
		missing(ref->value[CAP_SVM_VM_CR] & VM_CR_LOCK
				? "SVM is disabled by the firmware (VM_CR.SVMDIS, locked)"
				: "SVM is disabled (VM_CR.SVMDIS)");
		bad = true;
	}
	if (!(features & SVM_FEATURE_NPT)) {
		missing("no nested paging (NPT)");
		bad = true;
	}
	if (ref->value[CAP_SVM_ASIDS] < 2) {
		missing("no ASIDs");
		bad = true;
	}
	if (bad)
		return trace_error(-EOPNOTSUPP);
	svm_setup_.asids = (u32)ref->value[CAP_SVM_ASIDS];
	svm_setup_.nrips = features & SVM_FEATURE_NRIPS;
	svm_setup_.pause_filter = features & SVM_FEATURE_PAUSE;
	svm_setup_.bus_lock = features & SVM_FEATURE_BUS_LOCK;
	svm_setup_.rdtscp = ref->value[CAP_80000001_EDX] & CPUID_RDTSCP;
	svm_setup_.max_leaf = ref->value[CAP_80000001_EDX] & CPUID_1G ? 3 : 2;
	return make_maps();
}

const struct pt_format *svm_pt_format(u8 *max_leaf)
{
	*max_leaf = svm_setup_.max_leaf;
	return &npt_format;
}
