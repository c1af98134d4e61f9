/* SPDX-License-Identifier: MIT */
#include "dev/platform.h"

#include <asm/processor-flags.h>
#include <asm-generic/errno-base.h>
#include "arch/x86/msr.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/cpuid.h"
#include "virt/memfault.h"
#include "virt/ops.h"
#include "virt/vm.h"

#define VECTOR_MC 18

#define F1D_MCE		    BIT(7)
#define F1D_MCA		    BIT(14)
#define F87B_OVERFLOW_RECOV BIT(0) /* AMD: an overflow loses nothing that matters */
#define F87B_SUCCOR	    BIT(1) /* AMD: software may recover from uncorrectable errors */

#define FEATURE_LOCKED BIT(0)
#define FEATURE_LMCE   BIT(20)

/*
 * All is told in bank 2, and there are as many as kernels look at by number because they know the
 * CPU's model. (Linux believes nothing that bank 0 of AMD's family 6 says, and takes what bank 1 of
 * a Skylake says for an erratum.)
 */
#define BANK  2
#define BANKS 10
/* SDM "IA32_MCG_CAP MSR": recovery by software, and errors told to one CPU. */
#define MCG_CAP	     (BANKS | (intel(v) ? BIT(24) | BIT(27) : 0))
#define MCG_RIPV     BIT(0)
#define MCG_EIPV     BIT(1)
#define MCG_MCIP     BIT(2)
#define MCG_LMCE     BIT(3)
#define MCG_EXT_LMCE BIT(0)

/* SDM "IA32_MCi_STATUS MSRS"; APM "MCi_STATUS" where it differs. */
#define MCI_VAL	       BIT(63)
#define MCI_OVER       BIT(62)
#define MCI_UC	       BIT(61)
#define MCI_EN	       BIT(60)
#define MCI_MISCV      BIT(59)
#define MCI_ADDRV      BIT(58)
#define MCI_INTEL_S    BIT(56)
#define MCI_INTEL_AR   BIT(55)
#define MCI_AMD_POISON BIT(43)
#define MCI_DATA_READ  0x134 /* SDM "Architecturally Defined SRAR Errors" */
#define MCI_FETCH      0x150
#define MISC_PHYS_PAGE (2 << 6 | PAGE_SHIFT) /* ADDR is physical, and valid from that bit on */

enum { MCG_CAP_AT, MCG_STATUS_AT };
enum { MC_CTL, MC_STATUS, MC_ADDR, MC_MISC, MC_MSRS };

struct mce {
	struct {
		u64 status, ext_ctl;
		u64 bank[MC_MSRS];
	} cpu[VM_MAX_VCPUS];
};
_Static_assert(sizeof(struct mce) <= PAGE_SIZE, "one frame");

static bool intel(const struct vcpu *v)
{
	return !v->vm->cpuid->ext[0].ebx; /* only AMD repeats its name there */
}

static int mcg_read(struct vcpu *v, void *dev, u64 msr, u32 size, u64 *value)
{
	const struct mce *m = dev;

	(void)size;
	*value = msr == MCG_STATUS_AT ? m->cpu[v->index].status : MCG_CAP;
	return 0;
}

static int mcg_write(struct vcpu *v, void *dev, u64 msr, u32 size, u64 value)
{
	struct mce *m = dev;

	(void)size;
	if (msr != MCG_STATUS_AT || value & ~(MCG_RIPV | MCG_EIPV | MCG_MCIP | MCG_LMCE))
		return -EINVAL;
	m->cpu[v->index].status = value;
	return 0;
}

static int bank_read(struct vcpu *v, void *dev, u64 msr, u32 size, u64 *value)
{
	const struct mce *m = dev;

	(void)size;
	*value = msr / MC_MSRS == BANK ? m->cpu[v->index].bank[msr % MC_MSRS] : 0;
	return 0;
}

/* Software may only clear what was noted. */
static int bank_write(struct vcpu *v, void *dev, u64 msr, u32 size, u64 value)
{
	struct mce *m = dev;

	(void)size;
	if (msr % MC_MSRS != MC_CTL && value)
		return -EINVAL;
	if (msr / MC_MSRS == BANK)
		m->cpu[v->index].bank[msr % MC_MSRS] = value;
	return 0;
}

static int feature_read(struct vcpu *v, void *dev, u64 msr, u32 size, u64 *value)
{
	(void)v, (void)dev, (void)msr, (void)size;
	*value = FEATURE_LOCKED | FEATURE_LMCE;
	return 0;
}

static int ext_read(struct vcpu *v, void *dev, u64 msr, u32 size, u64 *value)
{
	const struct mce *m = dev;

	(void)msr, (void)size;
	*value = m->cpu[v->index].ext_ctl;
	return 0;
}

static int ext_write(struct vcpu *v, void *dev, u64 msr, u32 size, u64 value)
{
	struct mce *m = dev;

	(void)msr, (void)size;
	if (value & ~MCG_EXT_LMCE)
		return -EINVAL;
	m->cpu[v->index].ext_ctl = value;
	return 0;
}

/* A CPU shuts down that can't take it, or that is still at the last one (SDM, likewise APM). */
static bool machine_check(struct vcpu *v, const struct memory_fault *f)
{
	struct mce *m = platform_of(v->vm)->mce;
	u64 *bank = m->cpu[v->index].bank;

	if (!(virt_ops->get_reg(v, VR_CR4) & X86_CR4_MCE) || !bank[MC_CTL] ||
	    m->cpu[v->index].status & MCG_MCIP || v->event.valid)
		return false;
	bank[MC_STATUS] = (bank[MC_STATUS] & MCI_VAL ? MCI_OVER : 0) | MCI_VAL | MCI_UC | MCI_EN |
			  MCI_MISCV | MCI_ADDRV |
			  (intel(v) ? MCI_INTEL_S | MCI_INTEL_AR : MCI_AMD_POISON) |
			  (f->access == ACCESS_X ? MCI_FETCH : MCI_DATA_READ);
	bank[MC_ADDR] = f->gpa.v;
	bank[MC_MISC] = MISC_PHYS_PAGE;
	/* The instruction was not executed, and can be. */
	m->cpu[v->index].status = MCG_RIPV | MCG_EIPV | MCG_MCIP |
				  (m->cpu[v->index].ext_ctl & MCG_EXT_LMCE ? MCG_LMCE : 0);
	vcpu_exception(v, VECTOR_MC, false, 0);
	return true;
}

void mce_reset(struct mce *m)
{
	memset(m, 0, sizeof(*m));
}

int mce_create(struct vm *vm, struct mce **out)
{
	const struct vcpu *v = vm->vcpus[0];
	struct mce *m = frame_alloc_zero(FRAME_HEAP, vm->id);
	const struct io_region region[] = {
		{ "machine check", MSR_MCG_CAP, 2, mcg_read, mcg_write, m },
		{ "machine check bank", MSR_MC0_CTL, (u64)BANKS * MC_MSRS, bank_read, bank_write,
		  m },
		{ "local machine checks", MSR_MCG_EXT_CTL, 1, ext_read, ext_write, m },
		{ "feature control", MSR_FEATURE_CONTROL, 1, feature_read, NULL, m },
	};
	int err = 0;

	if (!m)
		return -ENOMEM;
	*out = m;
	for (u32 i = 0; !err && i < (intel(v) ? 4 : 2); i++)
		err = io_register(vm, IO_MSR, &region[i]);
	vm->cpuid->basic[1].edx |= F1D_MCE | F1D_MCA;
	if (!intel(v)) {
		vm->cpuid->ext[1].edx |= F1D_MCE | F1D_MCA;
		vm->cpuid->ext[7].ebx |= F87B_OVERFLOW_RECOV | F87B_SUCCOR;
	}
	vm->machine_check = machine_check;
	return err;
}

void mce_destroy(struct vm *vm, struct mce *m)
{
	vm->machine_check = NULL;
	frame_free(hpa_pfn(ptr_hpa(m)), FRAME_HEAP, vm->id);
}
