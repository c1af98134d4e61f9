/* SPDX-License-Identifier: MIT */
/* All stage-2 spaces that there are: how they begin, and are found. */
#include "lib/error.h"
#include "mm/stage2_entry.h"

#define MAX_GFN (1ull << 36)

/* In the order of creation. Taken under the locks of keys. */
static struct spinlock spaces_lock = SPINLOCK_INIT(RANK_FRAMES);
static struct list spaces = LIST_INIT(spaces);

struct stage2 *stage2_find(u16 vm, u8 root)
{
	struct stage2 *found = NULL;

	spin_lock(&spaces_lock);
	list_for_each(node, &spaces) {
		struct stage2 *s = list_entry(node, struct stage2, node);

		if (s->vm == vm && s->root_id == root)
			found = s;
	}
	spin_unlock(&spaces_lock);
	return found;
}

struct stage2 *stage2_nth(u32 i)
{
	struct stage2 *found = NULL;

	spin_lock(&spaces_lock);
	list_for_each(node, &spaces) {
		if (!i--)
			found = list_entry(node, struct stage2, node);
	}
	spin_unlock(&spaces_lock);
	return found;
}

int stage2_init(struct stage2 *s, const struct pt_format *fmt, const struct stage2_env *env,
		u8 max_leaf, u64 max_gfn, u16 vm)
{
	int err;

	if (max_leaf < 1 || max_leaf > 3 || max_gfn < 1 || max_gfn > MAX_GFN ||
	    fmt->levels > MAX_LEVELS)
		return trace_error(-EINVAL);
	*s = (struct stage2){
		.fmt = fmt,
		.env = env,
		.max_gfn = max_gfn,
		.max_leaf = max_leaf,
		.vm = vm,
		.owner = vm,
		.garbage_lock = SPINLOCK_INIT(RANK_STAGE2),
		.split_lock = SPINLOCK_INIT(RANK_STAGE2),
	};
	list_init(&s->node);
	table_pool_init(&s->pool);
	err = table_new(s, fmt->levels, 0, &s->root);
	if (err)
		return err;
	spin_lock(&spaces_lock);
	list_add_tail(&spaces, &s->node);
	spin_unlock(&spaces_lock);
	return 0;
}

void stage2_forget(struct stage2 *s)
{
	spin_lock(&spaces_lock);
	list_del(&s->node);
	spin_unlock(&spaces_lock);
}
