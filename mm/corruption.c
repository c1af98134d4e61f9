/* SPDX-License-Identifier: MIT */
#include "mm/corruption.h"
#include "lib/assert.h"
#include "mm/stage2.h"

u64 corruptions;

void stage2_corrupted(struct stage2 *s, const char *cond, const char *file, int line, bool *seen)
{
	__atomic_fetch_add(&corruptions, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->corruptions, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_test_and_set(seen, __ATOMIC_RELAXED))
		warn_at(cond, file, line);
	if (s->env->corrupted)
		s->env->corrupted(s, cond, file, line);
}
