/* SPDX-License-Identifier: MIT */
/* XSAVE images and XCR0 values that somebody else made: which ones a CPU would take. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "virt/fpu.c"

static u8 area[PAGE_SIZE << FPU_ORDER] ALIGNED(64);

static void test_image(void **unused)
{
	(void)unused;
	fpu_reset(area);
	assert_int_equal(fpu_size(), 512);
	area[XSAVE_HEADER + 8] = 1; /* no header without XSAVE */
	assert_true(fpu_valid(area));
	components = 7;
	assert_false(fpu_valid(area));
	fpu_reset(area);
	for (u32 bit = 0; bit < 64 * 8; bit++) {
		u8 *byte = &area[XSAVE_HEADER + bit / 8];

		*byte ^= (u8)(1 << bit % 8);
		assert_int_equal(fpu_valid(area), bit < 3);
		*byte ^= (u8)(1 << bit % 8);
	}
	for (u32 bit = 0; bit < 32; bit++) {
		fpu_reset(area);
		area[MXCSR + bit / 8] ^= (u8)(1 << bit % 8);
		assert_int_equal(fpu_valid(area), bit < 16);
	}
	components = 0;
}

static void test_xcr0(void **unused)
{
	(void)unused;
	assert_true(fpu_xcr0_valid(1, 0)); /* what it is where there is no XSAVE */
	assert_false(fpu_xcr0_valid(0, 7));
	assert_true(fpu_xcr0_valid(3, 7));
	assert_false(fpu_xcr0_valid(5, 7));
	assert_true(fpu_xcr0_valid(7, 7));
	assert_false(fpu_xcr0_valid(7, 3));
	assert_false(fpu_xcr0_valid(0x27, 0xe7));
	assert_false(fpu_xcr0_valid(0xe3, 0xe7));
	assert_true(fpu_xcr0_valid(0xe7, 0xe7));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_image),
					    cmocka_unit_test(test_xcr0) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
