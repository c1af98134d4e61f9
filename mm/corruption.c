/* SPDX-License-Identifier: MIT */
#include "mm/corruption.h"
#include "lib/assert.h"
#include "lib/bitmap.h"
#include "lib/printf.h"
#include "mm/stage2.h"

u64 corruptions;
static u64 corrupt_vms[BITMAP_WORDS(1 << 16)];

bool vm_was_corrupt(u16 vm)
{
	return bitmap_test(corrupt_vms, vm);
}

void stage2_corrupted(struct stage2 *s, u64 gfn, const char *cond, const char *file, int line,
		      bool *seen)
{
	char what[128];

	__atomic_fetch_add(&corruptions, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->corruptions, 1, __ATOMIC_SEQ_CST);
	bitmap_test_and_set_atomic(corrupt_vms, s->vm);
	if (gfn == NO_GFN)
		fmt_snprintf(what, sizeof(what), "%s", cond);
	else
		fmt_snprintf(what, sizeof(what), "%s, gfn %#lx", cond, gfn);
	if (!__atomic_test_and_set(seen, __ATOMIC_RELAXED))
		warn_at(what, file, line);
	if (s->env->corrupted)
		s->env->corrupted(s, what, file, line);
}
