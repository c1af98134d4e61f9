/* SPDX-License-Identifier: MIT */
/* Machine checks of a guest: what its bank says, and when it can't take one. */
#include "tests/unit/dev_fake.h"

#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "virt/cpuid.h"
#include "virt/memfault.h"

#define MCG_STATUS (MSR_MCG_CAP + 1)
#define MC2_CTL	   (MSR_MC0_CTL + 8)
#define MC2_STATUS (MC2_CTL + 1)
#define MC2_ADDR   (MC2_CTL + 2)

static struct cpuid_policy policy;
static struct vm *vm;
static struct vcpu *v;

static const struct memory_fault fault = { .gpa = { 0x12345678 },
					   .access = ACCESS_W,
					   .kind = MEMORY_POISONED };

static u64 msr(u32 index)
{
	u64 value;

	assert_int_equal(msr_get(v, index, &value), 0);
	return value;
}

/* A VM of that vendor that can take machine checks. */
static void open_vm(bool amd)
{
	memset(&policy, 0, sizeof(policy));
	policy.ext[0].ebx = amd ? 0x68747541 : 0;
	fake_devices.mce = true;
	vm = fake_vm_with(2, &policy);
	assert_non_null(vm);
	v = vm->vcpus[1];
	fake_cr4 = X86_CR4_MCE;
	assert_int_equal(msr_set(v, MC2_CTL, ~0ull), 0);
}

static void close_vm(void)
{
	fake_vm_free(vm);
	fake_devices.mce = false;
	assert_int_equal(fake_frames, 0);
}

static bool refused(void)
{
	bool raised = vm->machine_check(v, &fault);

	return !raised && !msr(MC2_STATUS);
}

static void test_intel(void **state)
{
	u64 value;

	(void)state;
	open_vm(false);
	assert_int_equal(policy.basic[1].edx, BIT(7) | BIT(14));
	assert_int_equal(policy.ext[7].ebx, 0);
	assert_int_equal(msr(MSR_MCG_CAP), 10 | BIT(24) | BIT(27));
	assert_int_equal(msr(MSR_FEATURE_CONTROL), BIT(0) | BIT(20)); /* as Linux asks for it */
	assert_int_not_equal(msr_set(v, MSR_FEATURE_CONTROL, 0), 0);
	assert_int_not_equal(msr_set(v, MSR_MCG_EXT_CTL, 2), 0);
	/* The other banks have nothing to say. */
	assert_int_equal(msr_set(v, MSR_MC0_CTL + 36, ~0ull), 0);
	assert_int_equal(msr(MSR_MC0_CTL + 36), 0);
	assert_int_not_equal(msr_set(v, MSR_MC0_CTL + 37, 1), 0);
	assert_int_not_equal(msr_get(v, MSR_MC0_CTL + 40, &value), 0);
	/* Local machine checks have to be asked for. */
	assert_true(vm->machine_check(v, &fault));
	assert_int_equal(msr(MCG_STATUS), 7);
	assert_int_equal(msr(MC2_STATUS), 0xbd80000000000134);
	assert_int_equal(msr(MC2_ADDR), 0x12345678);
	assert_int_equal(v->event.vector, 18);
	/* One vCPU's are not the other's. */
	assert_int_equal(msr_get(vm->vcpus[0], MC2_STATUS, &value), 0);
	assert_int_equal(value, 0);
	/* A bank that was not read yet keeps that there was another. */
	v->event.valid = false;
	assert_int_equal(msr_set(v, MCG_STATUS, 0), 0);
	assert_int_equal(msr_set(v, MSR_MCG_EXT_CTL, 1), 0);
	assert_true(vm->machine_check(v, &fault));
	assert_int_equal(msr(MCG_STATUS), 15);
	assert_int_equal(msr(MC2_STATUS), 0xfd80000000000134);
	v->event.valid = false;
	platform_reset(vm);
	assert_int_equal(msr(MC2_STATUS) | msr(MCG_STATUS) | msr(MC2_CTL), 0);
	close_vm();
}

static void test_amd(void **state)
{
	u64 value;

	(void)state;
	open_vm(true);
	assert_int_equal(policy.basic[1].edx, BIT(7) | BIT(14));
	assert_int_equal(policy.ext[1].edx, BIT(7) | BIT(14));
	assert_int_equal(policy.ext[7].ebx, 3);
	assert_int_equal(msr(MSR_MCG_CAP), 10);
	assert_int_not_equal(msr_get(v, MSR_FEATURE_CONTROL, &value), 0);
	assert_int_not_equal(msr_get(v, MSR_MCG_EXT_CTL, &value), 0);
	assert_true(vm->machine_check(v, &fault));
	assert_int_equal(msr(MC2_STATUS), 0xbc00080000000134);
	close_vm();
}

static void test_refusals(void **state)
{
	(void)state;
	open_vm(false);
	fake_cr4 = 0;
	assert_true(refused());
	fake_cr4 = X86_CR4_MCE;
	assert_int_equal(msr_set(v, MC2_CTL, 0), 0);
	assert_true(refused());
	assert_int_equal(msr_set(v, MC2_CTL, 1), 0);
	assert_int_equal(msr_set(v, MCG_STATUS, BIT(2)), 0); /* still at the last one */
	assert_true(refused());
	assert_int_equal(msr_set(v, MCG_STATUS, 0), 0);
	v->event.valid = true; /* in the middle of a delivery */
	assert_true(refused());
	v->event.valid = false;
	assert_true(vm->machine_check(v, &fault));
	assert_int_not_equal(msr_set(v, MC2_STATUS, 1), 0);
	assert_int_not_equal(msr_set(v, MC2_ADDR, 1), 0);
	assert_int_not_equal(msr_set(v, MSR_MCG_CAP, 1), 0);
	assert_int_not_equal(msr_set(v, MCG_STATUS, BIT(4)), 0);
	close_vm();
}

static void test_off(void **state)
{
	u64 value;

	(void)state;
	memset(&policy, 0, sizeof(policy));
	vm = fake_vm_with(2, &policy);
	assert_null(vm->machine_check);
	assert_int_equal(policy.basic[1].edx, 0);
	assert_int_not_equal(msr_get(vm->vcpus[0], MSR_MCG_CAP, &value), 0);
	close_vm();
	/* No memory for it. */
	fake_devices.mce = true;
	for (u32 left = 0; !(fake_frames_left = left, vm = fake_vm_with(2, &policy)); left++)
		assert_int_equal(fake_frames, 0);
	fake_frames_left = ~0u;
	close_vm();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_intel),
		cmocka_unit_test(test_amd),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
