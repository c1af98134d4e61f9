/* SPDX-License-Identifier: MIT */
/*
 * What VMX can do here, and what Corbel makes of it (SDM app. A "VMX Capability Reporting
 * Facility").
 *
 * A control MSR says in its low half which controls must be 1 and in its high half which may be 1.
 * The record holds the low half inverted ("may be 0"), so that for both halves a set bit is an
 * ability, and a CPU with all abilities of the reference can run the reference's control words.
 */
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/exits.h"
#include "virt/msr_policy.h"
#include "vmx/ept.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

/*
 * What the record holds, X(field, rule of comparison, bits that count, text).
 *
 * FEATURE_CONTROL differs before and after Corbel locks it: recorded only, the verdict is the field
 * before. A VMCS that was prepared for one REGION (revision, size) is not loaded by a CPU with
 * another. Of MISC the features only: counts and the SMM revision don't concern a guest of Corbel.
 */
#define VMX_CAPS(X)                                                                            \
	X(CAP_VMX, CAP_SUPERSET, ~0ull, "CPUID.1:ECX.VMX")                                     \
	X(CAP_VMX_ALLOWED, CAP_SUPERSET, ~0ull, "VMX not locked off by firmware")              \
	X(CAP_VMX_FEATURE_CONTROL, CAP_INFO, ~0ull, "IA32_FEATURE_CONTROL")                    \
	X(CAP_VMX_REGION, CAP_EQUAL, VMX_BASIC_REVISION | VMX_BASIC_SIZE | VMX_BASIC_MEMTYPE,  \
	  "IA32_VMX_BASIC (revision, size, memory type)")                                      \
	X(CAP_VMX_BASIC, CAP_SUPERSET, MASK(58, 54), "IA32_VMX_BASIC (features)")              \
	X(CAP_VMX_PIN, CAP_SUPERSET, ~0ull, "pin-based controls (may be 1 : may be 0)")        \
	X(CAP_VMX_PROC, CAP_SUPERSET, ~0ull, "processor-based controls (may be 1 : may be 0)") \
	X(CAP_VMX_PROC2, CAP_SUPERSET, ~0ull, "secondary controls (may be 1 : may be 0)")      \
	X(CAP_VMX_PROC3, CAP_SUPERSET, ~0ull, "tertiary controls (may be 1)")                  \
	X(CAP_VMX_EXIT, CAP_SUPERSET, ~0ull, "exit controls (may be 1 : may be 0)")            \
	X(CAP_VMX_EXIT2, CAP_SUPERSET, ~0ull, "secondary exit controls (may be 1)")            \
	X(CAP_VMX_ENTRY, CAP_SUPERSET, ~0ull, "entry controls (may be 1 : may be 0)")          \
	X(CAP_VMX_MISC, CAP_SUPERSET, MASK(30, 28) | MASK(15, 14) | MASK(8, 5),                \
	  "IA32_VMX_MISC (features)")                                                          \
	X(CAP_VMX_TIMER_RATE, CAP_EQUAL, MASK(4, 0), "IA32_VMX_MISC (preemption timer rate)")  \
	X(CAP_VMX_CR0_MUST_CLEAR, CAP_SUPERSET, ~0ull, "CR0 bits that may be 0")               \
	X(CAP_VMX_CR0_MAY, CAP_SUPERSET, ~0ull, "CR0 bits that may be 1")                      \
	X(CAP_VMX_CR4_MUST_CLEAR, CAP_SUPERSET, ~0ull, "CR4 bits that may be 0")               \
	X(CAP_VMX_CR4_MAY, CAP_SUPERSET, ~0ull, "CR4 bits that may be 1")                      \
	X(CAP_VMX_VMCS_ENUM, CAP_AT_LEAST, MASK(9, 1), "IA32_VMX_VMCS_ENUM")                   \
	X(CAP_VMX_EPT_VPID, CAP_SUPERSET, ~0ull, "IA32_VMX_EPT_VPID_CAP")                      \
	X(CAP_VMX_VMFUNC, CAP_SUPERSET, ~0ull, "IA32_VMX_VMFUNC")

#define CAP(cap, rule, mask, text) cap,
enum vmx_cap { CAP_VMX_BEFORE = CAP_VENDOR - 1, VMX_CAPS(CAP) CAP_VMX_END };
#undef CAP
#define FIELD(cap, rule, mask, text) { text, rule, mask },
static const struct cap_field vmx_fields[] = { VMX_CAPS(FIELD) };
#undef FIELD
_Static_assert((int)CAP_VMX_END <= CAPS_MAX, "the record is large enough");

const struct cap_table vmx_caps = { vmx_fields, ARRAY_SIZE(vmx_fields) };
struct vmx_controls vmx_controls;

#define CPUID_1_ECX_VMX		  BIT(5)
#define CPUID_7_EBX_INVPCID	  BIT(10)
#define CPUID_80000001_EDX_RDTSCP BIT(27)

/* ops->present */
bool vmx_present(void)
{
	return cpuid(1, 0).ecx & CPUID_1_ECX_VMX;
}

static u64 read_or_0(u32 msr)
{
	u64 value;

	return rdmsr_safe(msr, &value) ? 0 : value;
}

/* A control MSR as abilities: the low half inverted. 0 (no ability at all) if there is none. */
static u64 read_controls(u32 msr)
{
	u64 value;

	return rdmsr_safe(msr, &value) ? 0 : value ^ MASK(31, 0);
}

static void read_control_caps(u64 *value)
{
	/* The TRUE MSRs stand in the same order as the plain ones. */
	u32 first = value[CAP_VMX_BASIC] & VMX_BASIC_TRUE_CTLS ? MSR_VMX_TRUE_PINBASED
							       : MSR_VMX_PINBASED_CTLS;

	value[CAP_VMX_PIN] = read_controls(first);
	value[CAP_VMX_PROC] = read_controls(first + 1);
	value[CAP_VMX_EXIT] = read_controls(first + 2);
	value[CAP_VMX_ENTRY] = read_controls(first + 3);
	/*
	 * The others exist if a control of the former may be 1; an emulator may answer 0 for what
	 * does not exist.
	 */
	if (value[CAP_VMX_PROC] >> 32 & PROC_SECONDARY)
		value[CAP_VMX_PROC2] = read_controls(MSR_VMX_PROCBASED_CTLS2);
	if (value[CAP_VMX_PROC] >> 32 & PROC_TERTIARY)
		value[CAP_VMX_PROC3] = read_or_0(MSR_VMX_PROCBASED_CTLS3);
	if (value[CAP_VMX_EXIT] >> 32 & EXIT_CTL_SECONDARY)
		value[CAP_VMX_EXIT2] = read_or_0(MSR_VMX_EXIT_CTLS2);
	if (value[CAP_VMX_PROC2] >> 32 & (PROC2_EPT | PROC2_VPID))
		value[CAP_VMX_EPT_VPID] = read_or_0(MSR_VMX_EPT_VPID_CAP);
	if (value[CAP_VMX_PROC2] >> 32 & PROC2_VMFUNC)
		value[CAP_VMX_VMFUNC] = read_or_0(MSR_VMX_VMFUNC);
}

/* ops->caps_read. Interrupts off; everything is this CPU's own. */
void vmx_caps_read(struct virt_caps *caps)
{
	u64 *value = caps->value;
	u64 lock;

	memset(value + CAP_VENDOR, 0, (CAP_VMX_END - CAP_VENDOR) * sizeof(u64));
	caps->count = CAP_VMX_END;
	if (!vmx_present())
		return;
	value[CAP_VMX] = 1;
	lock = value[CAP_VMX_FEATURE_CONTROL] = read_or_0(MSR_FEATURE_CONTROL);
	value[CAP_VMX_ALLOWED] = !(lock & FEATURE_CONTROL_LOCK) || (lock & FEATURE_CONTROL_VMX);
	value[CAP_VMX_REGION] = value[CAP_VMX_BASIC] = read_or_0(MSR_VMX_BASIC);
	read_control_caps(value);
	value[CAP_VMX_MISC] = value[CAP_VMX_TIMER_RATE] = read_or_0(MSR_VMX_MISC);
	value[CAP_VMX_CR0_MUST_CLEAR] = ~read_or_0(MSR_VMX_CR0_FIXED0);
	value[CAP_VMX_CR0_MAY] = read_or_0(MSR_VMX_CR0_FIXED1);
	value[CAP_VMX_CR4_MUST_CLEAR] = ~read_or_0(MSR_VMX_CR4_FIXED0);
	value[CAP_VMX_CR4_MAY] = read_or_0(MSR_VMX_CR4_FIXED1);
	value[CAP_VMX_VMCS_ENUM] = read_or_0(MSR_VMX_VMCS_ENUM);
}

/* What Corbel needs to be able to turn on, or off, in the user's words. */
static const struct requirement {
	u8 cap;	  /* enum vmx_cap, a control word */
	bool off; /* the control must be able to be 0 */
	u32 bits;
	const char *what;
} requirements[] = {
	{ CAP_VMX_PIN, false, PIN_EXT_INTR | PIN_NMI, "exits on interrupts and NMIs" },
	{ CAP_VMX_PIN, false, PIN_VIRTUAL_NMI, "virtual NMIs" },
	{ CAP_VMX_PROC, false, PROC_HLT | PROC_IO | PROC_MWAIT | PROC_MONITOR | PROC_RDPMC,
	  "exits on HLT, I/O, MWAIT, MONITOR, RDPMC" },
	{ CAP_VMX_PROC, false, PROC_CR8_LOAD | PROC_CR8_STORE, "exits on CR8" },
	{ CAP_VMX_PROC, false, PROC_MSR_BITMAP, "MSR bitmaps" },
	{ CAP_VMX_PROC, false, PROC_TSC_OFFSET, "TSC offsetting" },
	{ CAP_VMX_PROC, false, PROC_SECONDARY, "secondary processor-based controls" },
	{ CAP_VMX_PROC, false, PROC_INTR_WINDOW | PROC_NMI_WINDOW, "interrupt and NMI windows" },
	{ CAP_VMX_PROC, true,
	  PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG | PROC_RDTSC | PROC_MOV_DR |
		  PROC_INTR_WINDOW | PROC_NMI_WINDOW,
	  "CR3, INVLPG, RDTSC, MOV DR without exits" },
	{ CAP_VMX_PROC2, false, PROC2_EPT, "EPT" },
	{ CAP_VMX_PROC2, false, PROC2_UNRESTRICTED_GUEST, "unrestricted guest" },
	{ CAP_VMX_PROC2, false, PROC2_WBINVD, "exits on WBINVD" },
	{ CAP_VMX_EXIT, false, EXIT_CTL_HOST_64, "64-bit host after exits" },
	{ CAP_VMX_EXIT, false,
	  EXIT_CTL_SAVE_EFER | EXIT_CTL_LOAD_EFER | EXIT_CTL_SAVE_PAT | EXIT_CTL_LOAD_PAT,
	  "EFER and PAT saved and loaded by exits" },
	{ CAP_VMX_EXIT, false, EXIT_CTL_SAVE_DEBUG, "debug controls saved by exits" },
	{ CAP_VMX_ENTRY, false, ENTRY_CTL_IA32E, "64-bit guests" },
	{ CAP_VMX_ENTRY, true, ENTRY_CTL_IA32E, "guests without long mode" },
	{ CAP_VMX_ENTRY, false, ENTRY_CTL_LOAD_EFER | ENTRY_CTL_LOAD_PAT,
	  "EFER and PAT loaded by entries" },
	{ CAP_VMX_ENTRY, false, ENTRY_CTL_LOAD_DEBUG, "debug controls loaded by entries" },
};

/* Calls missing() for each requirement that does not hold; returns how many. */
static u32 check_controls(const u64 *value, void (*missing)(const char *what))
{
	u32 count = 0;

	for (u32 i = 0; i < ARRAY_SIZE(requirements); i++) {
		const struct requirement *r = &requirements[i];
		u32 able = (u32)(r->off ? value[r->cap] : value[r->cap] >> 32);

		if ((able & r->bits) != r->bits) {
			missing(r->what);
			count++;
		}
	}
	return count;
}

static u32 check_others(const u64 *value, void (*missing)(const char *what))
{
	const u64 ept = value[CAP_VMX_EPT_VPID];
	const struct {
		bool there;
		const char *what;
	} checks[] = {
		{ value[CAP_VMX_BASIC] & VMX_BASIC_TRUE_CTLS, "VMX with TRUE control MSRs" },
		{ !(value[CAP_VMX_BASIC] & VMX_BASIC_32BIT), "VMX regions above 4 GiB" },
		{ ept & VMX_EPT_4_LEVELS, "EPT with 4 levels" },
		{ ept & VMX_EPT_WB, "EPT tables in write-back memory" },
		{ (ept & VMX_INVEPT) && (ept & VMX_INVEPT_SINGLE) && (ept & VMX_INVEPT_ALL),
		  "INVEPT" },
		/*
		 * What CPUID enumerates is offered to guests, and would be #UD there without its
		 * control.
		 */
		{ !(value[CAP_80000001_EDX] & CPUID_80000001_EDX_RDTSCP) ||
			  (value[CAP_VMX_PROC2] >> 32 & PROC2_RDTSCP),
		  "RDTSCP in guests" },
		{ !(value[CAP_7_EBX] & CPUID_7_EBX_INVPCID) ||
			  (value[CAP_VMX_PROC2] >> 32 & PROC2_INVPCID),
		  "INVPCID in guests" },
	};
	u32 count = 0;

	for (u32 i = 0; i < ARRAY_SIZE(checks); i++) {
		if (!checks[i].there) {
			missing(checks[i].what);
			count++;
		}
	}
	return count;
}

/* All bits that one control word is required to have on. */
static u32 required_on(enum vmx_cap cap)
{
	u32 bits = 0;

	for (u32 i = 0; i < ARRAY_SIZE(requirements); i++)
		if (requirements[i].cap == cap && !requirements[i].off)
			bits |= requirements[i].bits;
	return bits;
}

/* (wish | must) & may; see the top of the file for how the record holds must and may. */
static u32 control_word(const u64 *value, enum vmx_cap cap, u32 wish)
{
	u32 must = ~(u32)value[cap], may = (u32)(value[cap] >> 32);

	return (wish | required_on(cap) | must) & may;
}

static void choose(const u64 *value)
{
	struct vmx_controls *c = &vmx_controls;
	const u64 cap = value[CAP_VMX_EPT_VPID];
	u32 wish2 = 0;

	c->vpid = (cap & VMX_INVVPID) && (cap & VMX_INVVPID_ALL) &&
		  (value[CAP_VMX_PROC2] >> 32 & PROC2_VPID);
	if (c->vpid)
		wish2 |= PROC2_VPID;
	c->bus_lock = value[CAP_VMX_PROC2] >> 32 & PROC2_BUS_LOCK;
	c->pause_loop = value[CAP_VMX_PROC2] >> 32 & PROC2_PAUSE_LOOP;
	if (value[CAP_80000001_EDX] & CPUID_80000001_EDX_RDTSCP)
		wish2 |= PROC2_RDTSCP;
	if (value[CAP_7_EBX] & CPUID_7_EBX_INVPCID)
		wish2 |= PROC2_INVPCID;
	c->invvpid_type = cap & VMX_INVVPID_SINGLE ? INVVPID_SINGLE : INVVPID_ALL;
	c->pin = control_word(value, CAP_VMX_PIN, 0);
	/* Windows are opened by the run loop when they are wanted, long mode follows the guest. */
	c->proc = control_word(value, CAP_VMX_PROC, 0) & ~(u32)(PROC_INTR_WINDOW | PROC_NMI_WINDOW);
	c->mtf = value[CAP_VMX_PROC] >> 32 & PROC_MTF;
	c->proc2 = control_word(value, CAP_VMX_PROC2, wish2);
	c->exit = control_word(value, CAP_VMX_EXIT, 0);
	c->entry = control_word(value, CAP_VMX_ENTRY, 0) & ~(u32)ENTRY_CTL_IA32E;
	c->apicv = (value[CAP_VMX_PROC] >> 32 & APICV_PROC) == APICV_PROC &&
		   (value[CAP_VMX_PROC2] >> 32 & APICV_PROC2) == APICV_PROC2 &&
		   ((u32)value[CAP_VMX_PROC] & APICV_PROC_OFF) == APICV_PROC_OFF;
	c->posted = c->apicv && value[CAP_VMX_PIN] >> 32 & PIN_POSTED &&
		    value[CAP_VMX_EXIT] >> 32 & EXIT_CTL_ACK;
	c->revision = (u32)(value[CAP_VMX_REGION] & VMX_BASIC_REVISION);
	if (x_split == X_SPLIT_AUTO && !(value[CAP_ARCH_CAPABILITIES] & ARCH_CAP_PSCHANGE_MC_NO))
		x_split = X_SPLIT_ON;
	c->ept_ad = cap & VMX_EPT_AD;
	c->max_leaf = cap & VMX_EPT_1G ? 3 : cap & VMX_EPT_2M ? 2 : 1;
	c->cr0_must = ~value[CAP_VMX_CR0_MUST_CLEAR] & ~(u64)(X86_CR0_PE | X86_CR0_PG);
	c->cr4_must = ~value[CAP_VMX_CR4_MUST_CLEAR];
}

/*
 * SDM "MSR-Bitmap Address": a set bit is an exit. Four bitmaps of 1 KiB: reads of MSRs 0..1fff and
 * c0000000..c0001fff, then writes of the same. All other MSRs always exit.
 */
#define BITMAP_HIGH   8192
#define BITMAP_WRITES 16384

void vmx_msr_pass(u64 *bitmap, u32 msr, bool read, bool write)
{
	u32 bit = (msr & 0x1fff) + (msr >= 0xc0000000 ? BITMAP_HIGH : 0);

	if (read)
		bitmap_clear(bitmap, bit);
	if (write)
		bitmap_clear(bitmap, BITMAP_WRITES + bit);
}

/*
 * A guest must not reach an MSR that is not its own: what nobody switches traps, whatever the
 * policy says. (TSC_AUX, on a CPU without RDTSCP.)
 */
static void fill_bitmap(u64 *bitmap)
{
	memset(bitmap, 0xff, PAGE_SIZE);
	for (u32 i = 0; i < msr_policy_count; i++)
		if (msr_policy[i].access == MSR_PASS && vmx_msr_switched(msr_policy[i].msr))
			vmx_msr_pass(bitmap, msr_policy[i].msr, true, true);
}

static u64 *make_bitmap(hpa_t *bitmap)
{
	u64 *p = bitmap->v ? hpa_ptr(*bitmap) : frame_alloc_zero(FRAME_HW, VM_NONE);

	if (p) {
		fill_bitmap(p);
		*bitmap = ptr_hpa(p);
	}
	return p;
}

/* The policy is the same for all VMs, so their bitmaps are. Setup may run again. */
static int make_bitmaps(void)
{
	u64 *apicv;

	if (!make_bitmap(&vmx_controls.msr_bitmap))
		return trace_error(-ENOMEM);
	apicv = make_bitmap(&vmx_controls.apicv_bitmap);
	if (!apicv)
		return trace_error(-ENOMEM);
	vmx_apicv_bitmap(apicv);
	return 0;
}

/* ops->setup: from the record alone, on any CPU. */
int vmx_setup(const struct virt_caps *reference, void (*missing)(const char *what))
{
	const u64 *value = reference->value;
	u32 count;

	if (!value[CAP_VMX_ALLOWED]) {
		missing("VMX is locked off by the firmware");
		return trace_error(-EOPNOTSUPP);
	}
	count = check_controls(value, missing) + check_others(value, missing);
	if (count)
		return trace_error(-EOPNOTSUPP);
	choose(value);
	return make_bitmaps();
}

/* ops->pt_format */
const struct pt_format *vmx_pt_format(u8 *max_leaf)
{
	*max_leaf = vmx_controls.max_leaf;
	return vmx_controls.ept_ad ? &ept_format : &ept_format_no_ad;
}

/* ops->can_step */
bool vmx_can_step(void)
{
	return vmx_controls.mtf;
}
