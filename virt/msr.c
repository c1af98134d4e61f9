/* SPDX-License-Identifier: MIT */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "virt/cpuid.h"
#include "virt/exits.h"
#include "virt/msr_policy.h"
#include "virt/ops.h"
#include "virt/vm.h"

const struct msr_policy msr_policy[] = {
	{ MSR_TSC, MSR_TRAP, "read: as RDTSC, with the guest's offset; write: moves the offset" },
	{ MSR_TEST_CTRL, MSR_TRAP,
	  "a copy: the real one belongs to the core (virt/split_policy.h)" },
	{ MSR_CORE_CAPABILITIES, MSR_TRAP, "says what MSR_TEST_CTRL has: split-lock detection" },
	{ MSR_SYSENTER_CS, MSR_PASS, "guest state; the host doesn't use SYSENTER" },
	{ MSR_SYSENTER_ESP, MSR_PASS, "guest state; the host doesn't use SYSENTER" },
	{ MSR_SYSENTER_EIP, MSR_PASS, "guest state; the host doesn't use SYSENTER" },
	{ MSR_UCODE_REV, MSR_TRAP, "Intel guests note the microcode's revision; 0: not known" },
	{ MSR_MISC_ENABLE, MSR_TRAP,
	  "Intel guests read it before they have an IDT; fast strings are on" },
	{ MSR_PAT, MSR_TRAP, "guest state; each byte must be a memory type" },
	{ MSR_EFER, MSR_TRAP, "guest state, but SVME is the host's and reserved bits are #GP" },
	{ MSR_STAR, MSR_PASS, "guest state; the host doesn't use SYSCALL" },
	{ MSR_LSTAR, MSR_PASS, "guest state; the host doesn't use SYSCALL" },
	{ MSR_CSTAR, MSR_PASS, "guest state; the host doesn't use SYSCALL" },
	{ MSR_SFMASK, MSR_PASS, "guest state; the host doesn't use SYSCALL" },
	{ MSR_FS_BASE, MSR_PASS, "guest state, switched with the segment" },
	{ MSR_GS_BASE, MSR_PASS, "guest state, switched with the segment" },
	{ MSR_KERNEL_GS_BASE, MSR_PASS, "guest state; the host doesn't use SWAPGS" },
	{ MSR_TSC_AUX, MSR_PASS, "guest state; the host doesn't use RDTSCP's CPU number" },
	{ MSR_K8_INT_PENDING, MSR_TRAP, "AMD guests of an old family ask whether C1E is on; no" },
};
const u32 msr_policy_count = ARRAY_SIZE(msr_policy);

/* SDM vol. 3 "Programming the PAT": memory types 0, 1, 4, 5, 6, 7 in each byte. */
static bool pat_valid(u64 pat)
{
	for (u32 i = 0; i < 8; i++, pat >>= 8)
		if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
			return false;
	return true;
}

int guest_rdmsr(struct vcpu *v, u32 msr, u64 *value)
{
	const struct io_region *r = v->io_last[IO_MSR];

	if (likely(r && msr - r->base < r->size))
		return r->read(v, r->dev, msr - r->base, 8, value);
	switch (msr) {
	case MSR_TSC:
		*value = rdtsc() + virt_ops->get_reg(v, VR_TSC_OFFSET);
		return 0;
	case MSR_TEST_CTRL:
		return split_read_msr(v, value);
	case MSR_CORE_CAPABILITIES:
		*value = CORE_CAP_SPLIT_LOCK;
		return v->vm->split.offered ? 0 : -ENXIO;
	case MSR_MISC_ENABLE:
		*value = 1; /* fast strings */
		return 0;
	case MSR_UCODE_REV:
	case MSR_K8_INT_PENDING:
		*value = 0;
		return 0;
	case MSR_PAT:
		*value = virt_ops->get_reg(v, VR_PAT);
		return 0;
	case MSR_EFER:
		*value = virt_ops->get_reg(v, VR_EFER);
		return 0;
	default:
		return io_read_msr(v, msr, value);
	}
}

static NOINLINE int set_tsc(struct vcpu *v, u64 value)
{
	virt_ops->set_reg(v, VR_TSC_OFFSET, value - rdtsc());
	vcpu_request(v, REQ_TIMER); /* its deadline is one of the guest's TSC */
	return 0;
}

static NOINLINE int set_pat(struct vcpu *v, u64 value)
{
	if (!pat_valid(value))
		return -EINVAL;
	virt_ops->set_reg(v, VR_PAT, value);
	return 0;
}

int guest_wrmsr(struct vcpu *v, u32 msr, u64 value)
{
	const struct io_region *r = v->io_last[IO_MSR];

	/* Most are the LAPIC's. No device has one of those below. */
	if (likely(r && msr - r->base < r->size))
		return r->write(v, r->dev, msr - r->base, 8, value);
	switch (msr) {
	case MSR_TSC:
		return set_tsc(v, value);
	case MSR_UCODE_REV: /* CPUID, then a read, gives the revision: a 0 before that clears it */
	case MSR_K8_INT_PENDING:
		return value ? -EINVAL : 0;
	case MSR_TEST_CTRL:
		return split_write_msr(v, value);
	case MSR_MISC_ENABLE:
		return value & ~1ull ? -EINVAL : 0;
	case MSR_PAT:
		return set_pat(v, value);
	case MSR_EFER:
		return guest_set_efer(v, value);
	default:
		return io_write_msr(v, msr, value);
	}
}
