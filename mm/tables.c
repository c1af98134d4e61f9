/* SPDX-License-Identifier: MIT */
#include "mm/tables.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/corruption.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "mm/stage2.h"

/* Not present in either format; the address is one where no memory is (L1TF). */
#define POISON 0x001fffffdead0000ull

static u64 *words_of(hpa_t table)
{
	return hpa_ptr(table);
}

static void poison(hpa_t table)
{
	for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		words_of(table)[i] = POISON;
}

static bool poisoned(hpa_t table)
{
	u64 differs = 0;

	for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		differs |= words_of(table)[i] ^ POISON;
	return !differs;
}

struct s2_table *table_pool_desc(struct stage2 *s, const u64 *entries)
{
	uintptr_t at = (uintptr_t)entries;
	u64 index = at % TABLE_BLOCK / PAGE_SIZE;

	(void)s;
	return (struct s2_table *)(ALIGN_DOWN(at, TABLE_BLOCK) + index * PAGE_SIZE / 64);
}

u64 *table_pool_ptr(struct stage2 *s, hpa_t table)
{
	struct frame_owner owner = frame_owner_peek(hpa_pfn(table));

	return owner.kind == FRAME_STAGE2 && owner.vm == s->vm ? words_of(table) : NULL;
}

void table_pool_init(struct table_pool *pool)
{
	*pool = (struct table_pool){ .lock = SPINLOCK_INIT(RANK_STAGE2), .bound = 16, .low = 8 };
}

/*
 * Once more for tables that wait for their flush; and what a range touches beyond its size, at both
 * ends and on the way from the root.
 */
void table_pool_allow(struct table_pool *pool, u64 frames)
{
	__atomic_fetch_add(&pool->bound, 2 * ((frames >> 9) + (frames >> 18)) + 16,
			   __ATOMIC_RELAXED);
}

static void put_free(struct stage2 *s, hpa_t table)
{
	table_pool_desc(s, words_of(table))->next = s->pool.free;
	s->pool.free = table;
	s->pool.nr_free++;
}

static int grow(struct stage2 *s)
{
	pfn_t block = frame_alloc_order(TABLE_BLOCK_ORDER, FRAME_STAGE2, s->vm);

	if (!pfn_valid(block))
		return -ENOMEM;
	memset(pfn_ptr(block), 0, PAGE_SIZE);
	spin_lock(&s->pool.lock);
	table_pool_desc(s, pfn_ptr(block))->next = s->pool.blocks;
	s->pool.blocks = pfn_hpa(block);
	s->pool.tables += TABLE_BLOCK / PAGE_SIZE - 1;
	for (u64 i = TABLE_BLOCK / PAGE_SIZE; --i;)
		put_free(s, pfn_hpa(PFN(block.v + i)));
	spin_unlock(&s->pool.lock);
	return 0;
}

/* A free table, or 0; *few: the reserve should grow. */
static hpa_t take_free(struct stage2 *s, bool *few)
{
	struct table_pool *pool = &s->pool;
	hpa_t table;

	spin_lock(&pool->lock);
	table = pool->free;
	if (pool->tables - pool->nr_free >= READ_ONCE(pool->bound))
		table = HPA(0);
	if (table.v) {
		pool->free = table_pool_desc(s, words_of(table))->next;
		pool->nr_free--;
	}
	*few = pool->nr_free < pool->low && pool->tables < READ_ONCE(pool->bound);
	spin_unlock(&pool->lock);
	return table;
}

int table_pool_alloc(struct stage2 *s, hpa_t *table)
{
	bool few, used;

	*table = take_free(s, &few);
	/* That there is no memory for the reserve matters when it is needed. */
	if (few && !grow(s) && !table->v)
		*table = take_free(s, &few);
	if (!table->v)
		return trace_error(-ENOMEM);
	used = table_pool_desc(s, words_of(*table))->generation;
	DATA_CORRUPTION_ON(s, NO_GFN, used && !poisoned(*table));
	memset(words_of(*table), 0, PAGE_SIZE);
	return 0;
}

void table_pool_free(struct stage2 *s, hpa_t table)
{
	poison(table);
	spin_lock(&s->pool.lock);
	put_free(s, table);
	spin_unlock(&s->pool.lock);
}

void table_pool_destroy(struct stage2 *s)
{
	hpa_t block = s->pool.blocks;

	if (DATA_CORRUPTION_ON(s, NO_GFN, s->pool.nr_free != s->pool.tables))
		return;
	while (block.v) {
		hpa_t next = table_pool_desc(s, words_of(block))->next;

		frame_free_order(hpa_pfn(block), TABLE_BLOCK_ORDER, FRAME_STAGE2, s->vm);
		block = next;
	}
	table_pool_init(&s->pool);
}
