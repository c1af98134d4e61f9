/* SPDX-License-Identifier: MIT */
/* Which MSRs there are, which values they take; all others are #GP. */
#include <asm/kvm_para.h>
#include "tests/guest/lib/apic.h"

/* What a guest may read outside of the x2APIC's range (virt/msr.c, dev/lapic_io.c, dev/kvmclock.c).
 */
static const u32 listed[] = {
	MSR_TSC,     MSR_APIC_BASE,	 MSR_SYSENTER_CS,  MSR_SYSENTER_ESP,   MSR_SYSENTER_EIP,
	MSR_PAT,     MSR_MISC_ENABLE,	 MSR_TSC_DEADLINE, MSR_EFER,	       MSR_STAR,
	MSR_LSTAR,   MSR_CSTAR,		 MSR_SFMASK,	   MSR_FS_BASE,	       MSR_GS_BASE,
	MSR_TSC_AUX, MSR_KERNEL_GS_BASE, MSR_UCODE_REV,	   MSR_K8_INT_PENDING,
};

static bool is_listed(u32 msr)
{
	for (u32 i = 0; i < ARRAY_SIZE(listed); i++)
		if (listed[i] == msr)
			return true;
	return false;
}

/* How many of a range answer otherwise than the list says. */
static u32 sweep(u32 from, u32 count)
{
	u32 wrong = 0;
	u64 value;

	for (u32 msr = from; msr < from + count; msr++) {
		u32 fault = try_rdmsr(msr, &value);

		if (fault == (is_listed(msr) ? NO_FAULT : GP))
			continue;
		if (wrong++ < 5)
			note("MSR %#x: fault %#x value %#lx", msr, fault, value);
	}
	return wrong;
}

TEST(allow_list, "every MSR of the list can be read")
{
	for (u32 i = 0; i < ARRAY_SIZE(listed); i++) {
		if (listed[i] == MSR_TSC_AUX && !has(0x80000001, 'd', 27))
			continue;
		rdmsr_or_fail(listed[i]);
	}
}

TEST(unknown_low, "all other MSRs from 0 to 0x1fff are #GP: none is passed through")
{
	EXPECT(sweep(0, 0x2000), 0);
}

TEST(unknown_high, "and those from 0xc0000000, and 0xc0010000")
{
	EXPECT(sweep(0xc0000000, 0x300), 0);
	EXPECT(sweep(0xc0000f00, 0x200), 0);
	EXPECT(sweep(0xc0001f00, 0x100), 0);
	EXPECT(sweep(0xc0010000, 0x200), 0);
	EXPECT(sweep(0x4b564d02, 0x10), 0);
	EXPECT(sweep(0xfffffff0, 0xf), 0);
}

TEST(unknown_writes, "writing an MSR of the host is #GP")
{
	static const u32 hosts[] = { 0x33,	 0x3a,	     0x10a,	 0x17a,
				     0x1d9,	 0x2ff,	     0x38f,	 0x480,
				     0xda0,	 0xc0000108, 0xc0010015, 0x79,
				     0xc0010114, 0xc0010117, 0x40000000, 0x2000 };

	for (u32 i = 0; i < ARRAY_SIZE(hosts); i++) {
		EXPECT(try_wrmsr(hosts[i], 0), GP);
		EXPECT(try_wrmsr(hosts[i], ~0ull), GP);
	}
}

TEST(x2apic_msrs, "0x800 to 0xbff are #GP while the LAPIC is in xAPIC mode")
{
	EXPECT(sweep(0x800, 0x400), 0);
}

TEST(efer_bits, "EFER: what CPUID shows can be set, SVME and reserved bits are #GP")
{
	u64 efer = rdmsr_or_fail(MSR_EFER);

	EXPECT(efer & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA);
	EXPECT(efer & EFER_SVME, 0);
	EXPECT(try_wrmsr(MSR_EFER, efer | EFER_SVME), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer | BIT(1)), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer | BIT(9)), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer | BIT(63)), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer | EFER_SCE), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_EFER), efer | EFER_SCE);
	EXPECT(try_wrmsr(MSR_EFER, efer), NO_FAULT);
}

TEST(efer_long_mode, "EFER.LME cannot change while paging is on, LMA never by a write")
{
	u64 efer = rdmsr_or_fail(MSR_EFER);

	EXPECT(try_wrmsr(MSR_EFER, efer & ~EFER_LME), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer & ~(EFER_LME | EFER_LMA)), GP);
	EXPECT(try_wrmsr(MSR_EFER, efer & ~EFER_LMA), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_EFER), efer);
}

TEST(pat, "PAT: each byte must be a memory type")
{
	u64 pat = rdmsr_or_fail(MSR_PAT);

	EXPECT(pat, PAT_RESET);
	EXPECT(try_wrmsr(MSR_PAT, 0x0007010500070406), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_PAT), 0x0007010500070406);
	for (u32 i = 0; i < 8; i++) {
		EXPECT(try_wrmsr(MSR_PAT, 2ull << i * 8), GP);
		EXPECT(try_wrmsr(MSR_PAT, 3ull << i * 8), GP);
		EXPECT(try_wrmsr(MSR_PAT, 8ull << i * 8), GP);
	}
	EXPECT(rdmsr_or_fail(MSR_PAT), 0x0007010500070406);
	EXPECT(try_wrmsr(MSR_PAT, pat), NO_FAULT);
}

TEST(misc_enable, "MISC_ENABLE has fast strings and nothing to switch")
{
	EXPECT(rdmsr_or_fail(MSR_MISC_ENABLE), 1);
	EXPECT(try_wrmsr(MSR_MISC_ENABLE, 1), NO_FAULT);
	EXPECT(try_wrmsr(MSR_MISC_ENABLE, BIT(22)), GP);
}

TEST(apic_base, "IA32_APIC_BASE: the page stays, modes change in order only")
{
	u64 base = rdmsr_or_fail(MSR_APIC_BASE);

	EXPECT(base, APIC_BASE_GPA | APIC_BASE_ENABLE | APIC_BASE_BSP);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base + PAGE_SIZE), GP);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base | BIT(9)), GP);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base | BIT(52)), GP);
	EXPECT(try_wrmsr(MSR_APIC_BASE, (base & ~APIC_BASE_ENABLE) | APIC_BASE_X2APIC), GP);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC), NO_FAULT);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base), GP); /* from x2APIC only to off */
	EXPECT(try_wrmsr(MSR_APIC_BASE, base & ~APIC_BASE_ENABLE), NO_FAULT);
	EXPECT(try_wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC), GP); /* from off not to x2APIC */
	EXPECT(try_wrmsr(MSR_APIC_BASE, base), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_APIC_BASE), base);
}

TEST(tsc_write, "a write moves the TSC")
{
	u64 before = rdtsc(), after;

	EXPECT(try_wrmsr(MSR_TSC, before + (1ull << 40)), NO_FAULT);
	after = rdtsc();
	EXPECT_TRUE(after - before >= 1ull << 40 && after - before < (1ull << 40) + (1ull << 36));
	EXPECT_TRUE(rdmsr_or_fail(MSR_TSC) >= after);
	EXPECT(try_wrmsr(MSR_TSC, before), NO_FAULT);
}

TEST(passed_through, "MSRs that are the guest's own keep what is written")
{
	static const u32 msrs[] = { MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
				    MSR_STAR,	     MSR_LSTAR,	       MSR_CSTAR,
				    MSR_FS_BASE,     MSR_GS_BASE,      MSR_KERNEL_GS_BASE };

	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		EXPECT(try_wrmsr(msrs[i], 0x1230 + i), NO_FAULT);
	cpuid(0, 0); /* an exit */
	outb(0x80, 0);
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		EXPECT(rdmsr_or_fail(msrs[i]), 0x1230 + i);
	EXPECT(try_wrmsr(MSR_SFMASK, 0x200), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_SFMASK), 0x200);
}

TEST(non_canonical, "a non-canonical address is #GP, and nothing happens to the host")
{
	static const u32 msrs[] = { MSR_SYSENTER_ESP,  MSR_SYSENTER_EIP, MSR_LSTAR,
				    MSR_CSTAR,	       MSR_FS_BASE,	 MSR_GS_BASE,
				    MSR_KERNEL_GS_BASE };

	if (!on_intel())
		skip("QEMU TCG takes non-canonical bases");
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++) {
		EXPECT(try_wrmsr(msrs[i], BIT(63)), GP);
		EXPECT(try_wrmsr(msrs[i], 0x0000800000000000), GP);
		EXPECT(try_wrmsr(msrs[i], 0xffff800000000000), NO_FAULT);
		EXPECT(try_wrmsr(msrs[i], 0), NO_FAULT);
	}
}

TEST(tsc_aux, "RDTSCP and RDPID tell what TSC_AUX has")
{
	u32 lo, hi, aux;

	NEED(0x80000001, 'd', 27, "RDTSCP");
	EXPECT(try_wrmsr(MSR_TSC_AUX, 0x1234567), NO_FAULT);
	outb(0x80, 0);
	asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
	EXPECT(aux, 0x1234567);
	EXPECT(rdmsr_or_fail(MSR_TSC_AUX), 0x1234567);
}

TEST(kvmclock_address, "kvmclock refuses a page's end, no memory, a bad alignment")
{
	u64 page = (u64)pages(1);

	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (page + PAGE_SIZE - 4) | 1), GP);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (page + 2) | 1), GP);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0xd0000000 | 1), GP);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, BIT(62) | 1), GP);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, page | 1), NO_FAULT);
	EXPECT(rdmsr_or_fail(MSR_KVM_SYSTEM_TIME_NEW), page | 1);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0), NO_FAULT);
	EXPECT(try_wrmsr(MSR_KVM_WALL_CLOCK_NEW, page + PAGE_SIZE - 8), GP);
	EXPECT(try_wrmsr(MSR_KVM_WALL_CLOCK_NEW, 0xd0000000), GP);
}

TEST(user_mode, "RDMSR and WRMSR at CPL 3 are #GP, whatever the MSR")
{
	struct user_regs efer = { .rcx = MSR_EFER }, fs = { .rcx = MSR_FS_BASE };

	EXPECT(USER_TRY(&efer, 0x0f, 0x32), GP);
	EXPECT(USER_TRY(&fs, 0x0f, 0x32), GP);
	EXPECT(USER_TRY(&fs, 0x0f, 0x30), GP);
}

TEST(length, "RDMSR with a prefix, and over the end of a page")
{
	u8 *p = (u8 *)pages(2) + PAGE_SIZE - 2;
	static const u8 code[] = { 0x48, 0x0f, 0x32, 0xff, 0xc7, 0xc3 }; /* rdmsr; inc edi; ret */
	u32 done = 0, lo;

	memcpy(p, code, sizeof(code));
	asm volatile("call *%2"
		     : "+D"(done), "=a"(lo)
		     : "r"(p), "c"(MSR_APIC_BASE)
		     : "rdx", "memory");
	EXPECT(done, 1);
	EXPECT(lo & ~0xffful, APIC_BASE_GPA);
}
