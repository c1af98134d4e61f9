/* SPDX-License-Identifier: MIT */
/* What guests see of made-up machines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "tests/unit/host.h"
#include "virt/cpuid.h"
#include "virt/ops.h"
#include "virt/vm.h"

static struct virt_caps caps;
static struct cpuid_policy policy;
static struct vm vm;
static struct vcpu vcpu;
static u64 cr4;

static u64 get_reg(struct vcpu *v, enum vreg reg)
{
	(void)v;
	assert_int_equal(reg, VR_CR4);
	return cr4;
}

static const struct virt_ops ops = { .get_reg = get_reg };
const struct virt_ops *virt_ops = &ops;

/* The record is made by hand here, not read. */
u32 tsc_khz;

int rdmsr_safe(u32 msr, u64 *value)
{
	(void)msr;
	*value = 0;
	return -EIO;
}

static void vendor(const char name[12])
{
	u32 b, d, c;

	memcpy(&b, name, 4);
	memcpy(&d, name + 4, 4);
	memcpy(&c, name + 8, 4);
	caps.value[CAP_VENDOR_ID] = b | (u64)d << 32;
	caps.value[CAP_VENDOR_ID_2] = c;
}

/* A CPU that has everything, also what nobody has invented yet. */
static void everything(const char name[12])
{
	memset(&caps, 0, sizeof(caps));
	caps.count = CAP_VENDOR;
	vendor(name);
	caps.value[CAP_SIGNATURE] = 0x50654;
	caps.value[CAP_1_EBX] = 0x800;
	for (u32 i = CAP_1_ECX; i <= CAP_7_1_EAX; i++)
		caps.value[i] = 0xffffffff;
	caps.value[CAP_D_1_EAX] = 0xffffffff;
	for (u32 i = CAP_80000001_ECX; i <= CAP_80000021_EAX; i++)
		caps.value[i] = 0xffffffff;
	caps.value[CAP_XCR0] = 0xe7ff; /* MPX, PKRU, AMX and others too */
	caps.value[CAP_XSAVE_2] = 256 | 576ull << 32;
	caps.value[CAP_XSAVE_5] = 64 | 1088ull << 32;
	caps.value[CAP_XSAVE_6] = 512 | 1152ull << 32 | BIT(63);
	caps.value[CAP_XSAVE_7] = 1024 | 1664ull << 32 | BIT(63);
	caps.value[CAP_PHYS_BITS] = 46;
	caps.value[CAP_LINEAR_BITS] = 57;
	for (u32 i = 0; i < CAP_CACHE_LEAVES; i++)
		caps.value[CAP_4_0_AB + 2 * i] =
			(0xfc000000u | 0x3fc000 | (i < 3 ? (i < 2 ? 1 : 2) : 3) << 5 | 1) |
			0x3fULL << 32;
}

static void make(u32 nr_vcpus, u32 khz)
{
	struct cpuid_params params = { .caps = &caps, .nr_vcpus = nr_vcpus, .tsc_khz = khz };

	cpuid_policy_init(&policy, &params);
	memset(&vcpu, 0, sizeof(vcpu));
	vm.cpuid = &policy;
	vcpu.vm = &vm;
	vcpu.xcr0 = 1;
	cr4 = 0;
}

static struct cpuid_regs get(u32 leaf, u32 sub)
{
	struct cpuid_regs r;

	memset(&r, 0x5a, sizeof(r));
	cpuid_execute(&vcpu, leaf, sub, &r);
	return r;
}

static void hidden(void **state)
{
	(void)state;
	everything("GenuineIntel");
	make(1, 2000000);
	/* MONITOR, VMX, SMX, PDCM, TSC deadline, OSXSAVE. */
	assert_int_equal(get(1, 0).ecx & (BIT(3) | BIT(5) | BIT(6) | BIT(15) | BIT(24) | BIT(27)),
			 0);
	assert_int_equal(get(1, 0).edx & (BIT(7) | BIT(12) | BIT(14) | BIT(21) | BIT(28)), 0);
	/* TSC_ADJUST, SGX, HLE, RTM, MPX, PT. */
	assert_int_equal(get(7, 0).ebx & (BIT(1) | BIT(2) | BIT(4) | BIT(11) | BIT(14) | BIT(25)),
			 0);
	/* PKU, OSPKE, WAITPKG, CET, LA57. */
	assert_int_equal(get(7, 0).ecx & (BIT(3) | BIT(4) | BIT(5) | BIT(7) | BIT(16)), 0);
	/* CET, AMX, IBRS, STIBP, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD. */
	assert_int_equal(get(7, 0).edx & (BIT(20) | BIT(22) | BIT(24) | BIT(25) | MASK(31, 26)), 0);
	assert_int_equal(get(0xd, 1).eax & BIT(3), 0);
	assert_int_equal(get(0x80000001, 0).ecx & (BIT(2) | BIT(22)), 0);
	assert_int_equal(get(0x80000001, 0).edx & BIT(25), 0);
	assert_int_equal(get(0x80000008, 0).eax, 46 | 48 << 8);
	assert_int_equal(get(0xa, 0).eax | get(5, 0).eax | get(0x8000000a, 0).edx, 0);
	assert_int_equal(policy.xcr0, 0xe7);
	assert_int_equal(policy.cr4 & (X86_CR4_VMXE | X86_CR4_LA57 | X86_CR4_PKE | X86_CR4_CET), 0);
	assert_int_equal(policy.efer, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
	/* Shown whatever the CPU has: APIC, x2APIC, hypervisor, ARAT. */
	memset(caps.value, 0, sizeof(caps.value));
	make(1, 0);
	assert_int_equal(get(1, 0).ecx, BIT(21) | BIT(31));
	assert_int_equal(get(1, 0).edx, BIT(9));
	assert_int_equal(get(6, 0).eax, BIT(2));
	assert_int_equal(policy.xcr0, 0);
}

/* Nothing is shown that the reference lacks, whatever it has; and XCR0 decides over AVX and
 * AVX-512. */
static void never_more_than_the_cpu(void **state)
{
	u64 seed = host_seed();

	(void)state;
	for (int round = 0; round < 2000; round++) {
		everything(round & 1 ? "GenuineIntel" : "AuthenticAMD");
		for (u32 i = CAP_1_ECX; i <= CAP_80000021_EAX; i++)
			caps.value[i] &= host_random(&seed) |
					 (i >= CAP_XSAVE_2 && i <= CAP_XSAVE_7 ? ~0ull : 0);
		caps.value[CAP_XCR0] = host_random(&seed) & 0xe7ff;
		make(1 + round % 64, 1000000 + (u32)host_random(&seed) % 4000000);
		assert_int_equal(
			policy.basic[1].ecx & ~caps.value[CAP_1_ECX] & ~(BIT(21) | BIT(31)), 0);
		assert_int_equal(policy.basic[1].edx & ~caps.value[CAP_1_EDX] & ~(BIT(9) | BIT(28)),
				 0);
		assert_int_equal(policy.leaf7[0].ebx & ~caps.value[CAP_7_EBX], 0);
		assert_int_equal(policy.leaf7[0].ecx & ~caps.value[CAP_7_ECX], 0);
		assert_int_equal(policy.leaf7[0].edx & ~caps.value[CAP_7_EDX], 0);
		assert_int_equal(policy.xcr0 & ~caps.value[CAP_XCR0], 0);
		if (!(policy.xcr0 & 4))
			assert_int_equal((policy.basic[1].ecx & (BIT(12) | BIT(28) | BIT(29))) |
						 (policy.leaf7[0].ebx & BIT(5)),
					 0);
		if (!(policy.xcr0 & 0x80))
			assert_int_equal(policy.leaf7[0].ebx & BIT(16), 0);
		if (!policy.xcr0)
			assert_int_equal(policy.basic[1].ecx & BIT(26), 0);
		assert_true(!(policy.xcr0 & 0xe0) || ((policy.xcr0 & 0xe7) == 0xe7));
	}
}

static void topology(void **state)
{
	(void)state;
	for (u32 n = 1; n <= VM_MAX_VCPUS; n++) {
		u32 shift;

		everything("GenuineIntel");
		make(n, 0);
		shift = get(0xb, 1).eax;
		assert_true(1u << shift >= n && (n == 1 || 1u << (shift - 1) < n));
		for (u32 i = 0; i < n; i++) {
			vcpu.index = i;
			assert_int_equal(get(1, 0).ebx >> 24, i);
			assert_int_equal(get(0xb, 0).edx, i);
			assert_int_equal(get(0xb, 1).edx, i);
			assert_int_equal(get(0xb, 7).edx, i);
			assert_int_equal(i >> shift, 0); /* one package */
		}
		assert_int_equal(get(0xb, 0).eax, 0);
		assert_int_equal(get(0xb, 0).ebx, 1);
		assert_int_equal(get(0xb, 0).ecx, 0x100);
		assert_int_equal(get(0xb, 1).ebx, n);
		assert_int_equal(get(0xb, 1).ecx, 0x201);
		assert_int_equal(get(0xb, 2).ebx, 0);
		assert_int_equal(get(0xb, 2).ecx, 2);
		assert_int_equal(get(1, 0).ebx >> 16 & 0xff, 1u << shift);
		assert_int_equal(get(1, 0).ebx >> 8 & 0xff, 8);
		assert_int_equal(!!(get(1, 0).edx & BIT(28)), n > 1);
		/* Private first caches, a shared last one; the host's own sharing doesn't show. */
		assert_int_equal(get(4, 0).eax >> 26, (1u << shift) - 1);
		assert_int_equal(get(4, 0).eax >> 14 & 0xfff, 0);
		assert_int_equal(get(4, 3).eax >> 14 & 0xfff, (1u << shift) - 1);
		assert_int_equal(get(4, 4).eax, 0);
		everything("AuthenticAMD");
		make(n, 0);
		assert_int_equal(get(0x80000008, 0).ecx & 0xff, n - 1);
		assert_int_equal(get(0x80000008, 0).ecx >> 12, shift);
		assert_int_equal(!!(get(0x80000001, 0).ecx & BIT(1)), n > 1);
	}
}

static void xsave_leaves(void **state)
{
	(void)state;
	everything("GenuineIntel");
	make(1, 0);
	assert_int_equal(get(0xd, 0).eax, 0xe7);
	assert_int_equal(get(0xd, 0).ecx, 1664 + 1024);
	assert_int_equal(get(0xd, 0).ebx, 576);
	assert_int_equal(get(0xd, 1).ebx, 576);
	vcpu.xcr0 = 7;
	assert_int_equal(get(0xd, 0).ebx, 832);
	assert_int_equal(get(0xd, 1).ebx, 832);
	vcpu.xcr0 = 0xe7;
	assert_int_equal(get(0xd, 0).ebx, 2688);
	assert_int_equal(get(0xd, 1).ebx, 832 + 64 + 512 + 1024);
	vcpu.xcr0 = 0x47; /* compact: one hole less, aligned */
	assert_int_equal(get(0xd, 1).ebx, 832 + 512);
	assert_int_equal(get(0xd, 3).eax | get(0xd, 4).eax | get(0xd, 8).eax | get(0xd, 9).eax, 0);
	assert_int_equal(get(0xd, 6).ecx, 2);
	/* OSXSAVE follows CR4. */
	assert_false(get(1, 0).ecx & BIT(27));
	cr4 = X86_CR4_OSXSAVE;
	assert_true(get(1, 0).ecx & BIT(27));
}

static void frequencies(void **state)
{
	static const u32 rates[] = { 800000,  999999,  2400000, 2499998,
				     3699999, 4294967, 4294969, 5700001 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(rates); i++) {
		struct cpuid_regs r;
		u32 crystal_khz, linux_khz;

		everything("GenuineIntel");
		make(1, rates[i]);
		assert_int_equal(get(0, 0).eax, 0x16);
		r = get(0x15, 0);
		/* As Linux computes it, in 32 bits. */
		crystal_khz = r.ecx / 1000;
		linux_khz = crystal_khz * r.ebx / r.eax;
		assert_true(rates[i] - linux_khz <= 1);
		assert_int_equal(crystal_khz, policy.apic_khz);
		assert_int_equal(get(0x40000010, 0).eax, rates[i]);
		assert_int_equal(get(0x40000010, 0).ebx, policy.apic_khz);
		everything("AuthenticAMD");
		make(1, rates[i]);
		assert_int_equal(get(0, 0).eax, 0xd);
		assert_int_equal(get(0x15, 0).eax, 0);
	}
	/* A LAPIC rate that the leaf can't tell exactly: it isn't told. */
	everything("GenuineIntel");
	cpuid_policy_init(&policy, &(struct cpuid_params){ .caps = &caps,
							   .nr_vcpus = 1,
							   .tsc_khz = 2400000,
							   .apic_khz = 1000000 });
	assert_int_equal(policy.basic[0].eax, 0xd);
	make(1, 0);
	assert_int_equal(policy.basic[0].eax, 0xd);
	assert_true(policy.apic_khz);
}

static void ranges(void **state)
{
	struct cpuid_regs r;
	char name[12];

	(void)state;
	everything("GenuineIntel");
	make(1, 2000000);
	r = get(0, 0);
	memcpy(name, &r.ebx, 4);
	memcpy(name + 4, &r.edx, 4);
	memcpy(name + 8, &r.ecx, 4);
	assert_memory_equal(name, "GenuineIntel", 12);
	r = get(0x40000000, 0);
	assert_memory_equal(&r.ebx, "KVMKVMKVM\0\0\0", 12);
	assert_int_equal(r.eax, 0x40000010);
	assert_int_equal(get(0x40000001, 0).eax, BIT(1) | BIT(3));
	for (u64 leaf = 0; leaf < BIT(32); leaf += leaf % 256 == 40 ? 0x10000 - 40 : 1) {
		bool inside = leaf <= 0x16 || (leaf >= 0x40000000 && leaf <= 0x40000010) ||
			      (leaf >= 0x80000000 && leaf <= 0x80000021);

		r = get((u32)leaf, 0);
		if (!inside)
			assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
		get((u32)leaf, 0xffffffff);
	}
}

static void reasons(void **state)
{
	(void)state;
	for (u32 i = 0; i < cpuid_allow_count; i++) {
		assert_true(strlen(cpuid_allow[i].why) > 4);
		assert_int_not_equal(cpuid_allow[i].mask, 0);
		for (u32 j = 0; j < i; j++) /* each bit once */
			assert_false(cpuid_allow[i].word == cpuid_allow[j].word &&
				     cpuid_allow[i].mask & cpuid_allow[j].mask);
	}
	assert_true(sizeof(struct cpuid_policy) <= 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hidden),      cmocka_unit_test(never_more_than_the_cpu),
		cmocka_unit_test(topology),    cmocka_unit_test(xsave_leaves),
		cmocka_unit_test(frequencies), cmocka_unit_test(ranges),
		cmocka_unit_test(reasons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
