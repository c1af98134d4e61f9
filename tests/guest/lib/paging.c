/* SPDX-License-Identifier: MIT */
#include "tests/guest/lib/private.h"

#define POOL_START 0x400000ul /* behind the image, in a VM of at least 16 MiB */
#define POOL_END   0xe00000ul

static u64 pool = POOL_START;

void *window(u32 n, u64 entry)
{
	void *at = (void *)(WINDOW + n * PAGE_SIZE);

	*(volatile u64 *)&window_pte[n] = entry;
	invlpg(at);
	return at;
}

void *pages(u32 n)
{
	void *p = (void *)pool;

	if (pool + n * PAGE_SIZE > POOL_END)
		error("%u pages: the tests' memory is used up", n);
	pool += n * PAGE_SIZE;
	return memset(p, 0, n * PAGE_SIZE);
}

void paging_defaults(void)
{
	pool = POOL_START;
	memset(window_pte, 0, sizeof(window_pte));
	write_cr3((u64)boot_tables);
}
