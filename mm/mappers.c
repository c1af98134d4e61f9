/* SPDX-License-Identifier: MIT */
#include "mm/mappers.h"
#include "lib/error.h"
#include "mm/rmap.h"

#define BATCH 16

struct batch {
	u64 keys[BATCH];
	u32 count;
};

static bool take_key(void *arg, u64 key, pfn_t first)
{
	struct batch *b = arg;

	(void)first;
	if (!(key & RMAP_OLD))
		b->keys[b->count++] = key;
	return b->count < BATCH;
}

/* Outside of the lock: what stands there now is removed, also if it has become something else. */
static int unmap_batch(const struct batch *b, pay_fn pay)
{
	struct flush_debt debts[BATCH];
	u32 owed = 0;
	int err = 0;

	for (u32 i = 0; i < b->count && !err; i++) {
		struct stage2 *s = stage2_find(rmap_vm(b->keys[i]), rmap_root(b->keys[i]));

		if (!s)
			continue;
		err = stage2_unmap(s, rmap_gfn(b->keys[i]), s2_level_frames(rmap_level(b->keys[i])),
				   &debts[owed]);
		owed += debts[owed].generation != 0;
	}
	if (owed)
		pay(debts, owed);
	return err;
}

int frame_unmap(pfn_t pfn, pay_fn pay)
{
	u64 rounds = rmap_count(pfn) / BATCH + 8;
	struct batch b;
	int err = 0;

	do {
		b.count = 0;
		rmap_for_each(pfn, take_key, &b);
		if (b.count)
			err = unmap_batch(&b, pay);
	} while (b.count && !err && --rounds);
	if (!err && rmap_count(pfn))
		err = -EBUSY;
	return err;
}

static bool protect_key(void *arg, u64 key, pfn_t first)
{
	struct stage2 *s = stage2_find(rmap_vm(key), rmap_root(key));

	(void)arg;
	/* One that is gone counts too: CPUs may still know it. */
	if (s) {
		(void)stage2_change_leaf(s, rmap_gfn(key), rmap_level(key), first, S2_R | S2_X, 0,
					 false);
		__atomic_fetch_add(&s->weakened, 1, __ATOMIC_SEQ_CST);
	}
	return true;
}

void frame_write_protect(pfn_t pfn, pay_fn pay)
{
	struct stage2 *s;

	rmap_for_each(pfn, protect_key, NULL);
	for (u32 i = 0; (s = stage2_nth(i)); i++) {
		u64 weakened = __atomic_load_n(&s->weakened, __ATOMIC_SEQ_CST);
		struct flush_debt debt;

		if (__atomic_load_n(&s->flushed, __ATOMIC_SEQ_CST) == weakened)
			continue;
		stage2_owe(s, &debt);
		pay(&debt, 1);
		__atomic_store_n(&s->flushed, weakened, __ATOMIC_SEQ_CST);
	}
}

struct age {
	u64 used;
	bool no_a;
};

static bool age_key(void *arg, u64 key, pfn_t first)
{
	struct stage2 *s = stage2_find(rmap_vm(key), rmap_root(key));
	struct age *age = arg;
	u64 leaf;

	if (!s || key & RMAP_OLD)
		return true;
	leaf = stage2_change_leaf(s, rmap_gfn(key), rmap_level(key), first, S2_RWX, 0, true);
	age->no_a |= !s->fmt->accessed;
	age->used += (s->fmt->accessed ? leaf & s->fmt->accessed : leaf) != 0;
	return true;
}

u64 frame_age(pfn_t pfn, pay_fn pay)
{
	struct age age = { 0 };

	rmap_for_each(pfn, age_key, &age);
	if (age.no_a)
		(void)frame_unmap(pfn, pay); /* what stays, because it can't go, counts again */
	return age.used;
}
