/* SPDX-License-Identifier: MIT */
#include "lib/assert.h"
#include "lib/bitmap.h"
#include "lib/grace.h"
#include "lib/spinlock.h"

static struct reader {
	u64 sections; /* begun and ended: odd in one; the CPU's own, read by anyone */
	u32 depth;
} ALIGNED(64) readers[MAX_CPUS];
u32 (*grace_cpu_hook)(void);

static struct reader *here(void)
{
	return &readers[grace_cpu_hook ? grace_cpu_hook() : 0];
}

/*
 * A full barrier stands between the count and what the section reads, and another one between the
 * unlinking and grace_wait's look at the count. So it sees the section, or the section does not see
 * what was unlinked.
 */
void grace_enter(void)
{
	struct reader *r = here();

	if (!r->depth++)
		__atomic_fetch_add(&r->sections, 1, __ATOMIC_SEQ_CST);
}

void grace_leave(void)
{
	struct reader *r = here();

	if (!--r->depth)
		__atomic_store_n(&r->sections, r->sections + 1, __ATOMIC_RELEASE);
}

void grace_wait(void)
{
	MMU_WARN_ON(here()->depth);
	__atomic_fetch_add(&here()->sections, 0, __ATOMIC_SEQ_CST);
	for (u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		u64 seen = __atomic_load_n(&readers[cpu].sections, __ATOMIC_SEQ_CST);

		while (seen & 1 &&
		       __atomic_load_n(&readers[cpu].sections, __ATOMIC_SEQ_CST) == seen) {
			if (spin_poll_hook)
				spin_poll_hook();
			__builtin_ia32_pause();
		}
	}
}
