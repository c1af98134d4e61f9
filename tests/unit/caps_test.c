/* SPDX-License-Identifier: MIT */
/* Comparing the records of made-up machines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "arch/x86/msr.h"
#include "lib/error.h"
#include "virt/caps.h"

u32 tsc_khz = 2500000;

/* In place of the exception table: this host gives no MSRs. */
int rdmsr_safe(u32 msr, u64 *value)
{
	(void)msr;
	*value = 0;
	return -EIO;
}

static const struct cap_field vendor_fields[] = {
	{ "controls", CAP_SUPERSET, ~0ull },
	{ "revision", CAP_EQUAL, 0x7fffffff },
	{ "entries", CAP_AT_LEAST, ~0ull },
};
static const struct cap_table vendor = { vendor_fields, 3 };

static struct virt_caps reference, other;
static u32 seen[CAPS_MAX], nr_seen;

static void note(void *arg, u32 field)
{
	assert_ptr_equal(arg, seen);
	seen[nr_seen++] = field;
}

static u32 compare(void)
{
	nr_seen = 0;
	return caps_compare(&vendor, &reference, &other, note, seen);
}

static int machine(void **state)
{
	(void)state;
	memset(&reference, 0, sizeof(reference));
	for (u32 i = 0; i < CAP_VENDOR + 3; i++)
		reference.value[i] = 0x1234567800u + i * 0x111;
	reference.count = CAP_VENDOR + 3;
	other = reference;
	other.cpu = 1;
	return 0;
}

/* Each field: changed, smaller, larger, a bit less, a bit more; the rule decides. */
static void every_field(void **state)
{
	for (u32 i = 0; i < reference.count; i++) {
		const struct cap_field *f = cap_field(&vendor, i);
		u64 bit = f->mask & -f->mask, top = 63 - (u32)__builtin_clzll(f->mask);

		assert_non_null(f);
		assert_non_null(f->name);
		machine(state);
		assert_int_equal(compare(), 0);
		reference.value[i] &= ~bit; /* more than the reference */
		other.value[i] = reference.value[i] | bit;
		assert_int_equal(compare(), f->rule == CAP_EQUAL);
		machine(state);
		reference.value[i] |= bit; /* less */
		other.value[i] = reference.value[i] & ~bit;
		assert_int_equal(compare(), f->rule != CAP_INFO);
		if (nr_seen)
			assert_int_equal(seen[0], i);
		machine(state);
		other.value[i] ^= ~f->mask; /* only what doesn't count */
		assert_int_equal(compare(), 0);
		machine(state);
		other.value[i] = reference.value[i] ^ BIT(top);
		assert_true(compare() <= 1);
	}
}

static void another_length(void **state)
{
	(void)state;
	/* No vendor part at all: a CPU without the extension. */
	other.count = CAP_VENDOR;
	assert_int_equal(compare(), 3);
	assert_int_equal(seen[0], CAP_VENDOR);
	assert_int_equal(caps_compare(NULL, &reference, &other, NULL, NULL), 0);
	assert_null(cap_field(NULL, CAP_VENDOR));
	assert_null(cap_field(&vendor, CAP_VENDOR + 3));
	reference.count = other.count = ~0u; /* damaged: not beyond the record */
	compare();
}

/* What is left is what both have, and both then satisfy it. */
static void intersection(void **state)
{
	struct virt_caps common = reference;

	(void)state;
	for (u32 i = 0; i < CAP_VENDOR + 3; i++) {
		const struct cap_field *f = cap_field(&vendor, i);

		if (f->rule == CAP_SUPERSET)
			other.value[i] = reference.value[i] = 0xf0f0 & f->mask;
		if (f->rule == CAP_SUPERSET && (i & 1))
			other.value[i] = 0xff00 & f->mask;
		if (f->rule == CAP_AT_LEAST) {
			reference.value[i] = 40 & f->mask;
			other.value[i] = 36 & f->mask;
		}
	}
	assert_true(compare() > 0);
	common = reference;
	caps_intersect(&vendor, &common, &other);
	assert_int_equal(caps_compare(&vendor, &common, &other, NULL, NULL), 0);
	assert_int_equal(caps_compare(&vendor, &common, &reference, NULL, NULL), 0);
	/* Who differs in an EQUAL field shares nothing: it stays different. */
	for (u32 i = 0; i < CAP_VENDOR; i++) {
		if (cap_field(&vendor, i)->rule != CAP_EQUAL)
			continue;
		other.value[i] = reference.value[i] ^
				 (cap_field(&vendor, i)->mask & -cap_field(&vendor, i)->mask);
		caps_intersect(&vendor, &common, &other);
		assert_int_equal(caps_compare(&vendor, &common, &other, NULL, NULL), 1);
		break;
	}
}

static void this_host(void **state)
{
	static struct virt_caps again;

	(void)state;
	memset(&reference, 0xff, sizeof(reference));
	caps_read_common(&reference);
	caps_read_common(&again);
	assert_int_equal(reference.count, CAP_VENDOR);
	assert_int_equal(caps_compare(NULL, &reference, &again, NULL, NULL), 0);
	assert_true(reference.value[CAP_EFER] & EFER_LMA); /* it runs this test */
	assert_true(reference.value[CAP_1_EDX] & BIT(26));
	assert_true(reference.value[CAP_PHYS_BITS] >= 36 && reference.value[CAP_PHYS_BITS] <= 52);
	assert_int_equal(reference.value[CAP_TSC_KHZ], 2500000);
	assert_int_equal(reference.value[CAP_ARCH_CAPABILITIES], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_field, machine),
		cmocka_unit_test_setup(another_length, machine),
		cmocka_unit_test_setup(intersection, machine),
		cmocka_unit_test_setup(this_host, machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
