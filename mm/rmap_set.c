/* SPDX-License-Identifier: MIT */
/* Sets of keys: mm/rmap_set.h has the picture. */
#include "mm/rmap_set.h"
#include "lib/error.h"
#include "lib/list.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "mm/rmap.h"

/* What a word is, in its low bits: RMAP_KEY, or a pointer of one of these kinds. */
#define CHAIN	  BIT(1)
#define HASH	  BIT(2)
#define LINK_MASK (~0x3full)

#define CHAIN_MAX  8   /* nodes; beyond, a chain becomes a hash */
#define FIRST_DIR  128 /* chains in the page of the hash itself */
#define DIR_CHAINS 512
#define DIRS	   ((PAGE_SIZE / 8) - 2 - FIRST_DIR)
#define BUCKETS	   (FIRST_DIR + DIRS * DIR_CHAINS)
#define LOAD	   5 /* keys for each bucket, on the average; beyond, one more */

struct rmap_hash {
	u64 count, buckets;
	u64 first[FIRST_DIR];
	u64 *dirs[DIRS];
};
_Static_assert(sizeof(struct rmap_hash) == PAGE_SIZE, "a hash begins with one page");

/* --- nodes: 63 from a page, whose first says which of the others are free --- */

struct node_page {
	struct list link; /* in node_pages, if any is free */
	u64 free;
};
#define ALL_NODES (~0ull - 1)

static struct spinlock node_lock = SPINLOCK_INIT(RANK_FRAMES);
static struct list node_pages = LIST_INIT(node_pages);
static u64 pages_in_use; /* of nodes, hashes and directories; atomic */

static void *page_alloc(void)
{
	void *page = frame_alloc_zero(FRAME_META, VM_NONE);

	if (page)
		__atomic_fetch_add(&pages_in_use, 1, __ATOMIC_RELAXED);
	return page;
}

static void page_free(void *page)
{
	__atomic_fetch_sub(&pages_in_use, 1, __ATOMIC_RELAXED);
	frame_free(hpa_pfn(ptr_hpa(page)), FRAME_META, VM_NONE);
}

static struct rmap_node *node_alloc(void)
{
	struct node_page *p = NULL;
	struct rmap_node *n;

	for (;;) {
		spin_lock(&node_lock);
		if (p) {
			p->free = ALL_NODES;
			list_add(&node_pages, &p->link);
		}
		if (!list_empty(&node_pages))
			break;
		spin_unlock(&node_lock);
		p = page_alloc();
		if (!p)
			return NULL;
	}
	p = list_entry(node_pages.next, struct node_page, link);
	n = (struct rmap_node *)p + __builtin_ctzll(p->free);
	p->free &= p->free - 1;
	if (!p->free)
		list_del(&p->link);
	spin_unlock(&node_lock);
	return n;
}

static void node_free(struct rmap_node *n)
{
	struct node_page *p = (struct node_page *)ALIGN_DOWN((uintptr_t)n, PAGE_SIZE);
	bool unused;

	spin_lock(&node_lock);
	if (!p->free)
		list_add(&node_pages, &p->link);
	p->free |= BIT(n - (struct rmap_node *)p);
	unused = p->free == ALL_NODES;
	if (unused)
		list_del(&p->link);
	spin_unlock(&node_lock);
	if (unused)
		page_free(p);
}

u64 rmap_set_memory(void)
{
	return READ_ONCE(pages_in_use) * PAGE_SIZE;
}

/* --- the reserve --- */

static struct rmap_node *node_of(u64 link)
{
	return (struct rmap_node *)(uintptr_t)(link & LINK_MASK);
}

static void put_node(struct rmap_reserve *r, struct rmap_node *n)
{
	n->link = (u64)(uintptr_t)r->nodes;
	r->nodes = n;
	r->nr_nodes++;
}

static struct rmap_node *take_node(struct rmap_reserve *r)
{
	struct rmap_node *n = r->nodes;

	r->nodes = node_of(n->link);
	r->nr_nodes--;
	return n;
}

void rmap_reserve_put_page(struct rmap_reserve *r, u64 *page)
{
	page[0] = (u64)(uintptr_t)r->pages;
	r->pages = page;
	r->nr_pages++;
}

u64 *rmap_reserve_page(struct rmap_reserve *r)
{
	u64 *page = r->pages;

	if (!page) {
		r->want_pages = 1;
		return NULL;
	}
	r->pages = (u64 *)(uintptr_t)page[0];
	r->nr_pages--;
	page[0] = 0;
	return page;
}

int rmap_reserve_fill(struct rmap_reserve *r)
{
	while (r->nr_pages < r->want_pages) {
		u64 *page = page_alloc();

		if (!page)
			return -ENOMEM;
		rmap_reserve_put_page(r, page);
	}
	while (r->nr_nodes < r->want_nodes) {
		struct rmap_node *n = node_alloc();

		if (!n)
			return -ENOMEM;
		put_node(r, n);
	}
	return 0;
}

void rmap_reserve_empty(struct rmap_reserve *r)
{
	while (r->nodes)
		node_free(take_node(r));
	while (r->pages)
		page_free(rmap_reserve_page(r));
}

static bool reserve_has(struct rmap_reserve *r, u32 nodes, u32 pages)
{
	r->want_nodes = nodes;
	r->want_pages = pages;
	return r->nr_nodes >= nodes && r->nr_pages >= pages;
}

/* --- chains: *start points to the first node, or is 0 --- */

static u32 node_keys(const struct rmap_node *n)
{
	return n->link & 7;
}

static bool chain_full(u64 start)
{
	return !start || node_keys(node_of(start)) == RMAP_NODE_KEYS;
}

/* Takes a node from the reserve if the chain is full. */
static void chain_add(u64 *start, u64 key, struct rmap_reserve *r)
{
	struct rmap_node *n;

	if (chain_full(*start)) {
		n = take_node(r);
		n->link = *start;
		*start = (u64)(uintptr_t)n;
	}
	n = node_of(*start);
	n->keys[node_keys(n)] = key;
	n->link++;
}

static u64 *chain_find(u64 start, u64 key)
{
	for (struct rmap_node *n = node_of(start); n; n = node_of(n->link)) {
		for (u32 i = 0; i < node_keys(n); i++) {
			if (n->keys[i] == key)
				return &n->keys[i];
		}
	}
	return NULL;
}

/* The last key of the first node fills the gap. */
static void chain_remove(u64 *start, u64 *at, struct rmap_reserve *r)
{
	struct rmap_node *first = node_of(*start);

	first->link--;
	*at = first->keys[node_keys(first)];
	if (node_keys(first))
		return;
	*start = first->link & LINK_MASK;
	put_node(r, first);
}

static u32 chain_nodes(u64 start)
{
	u32 count = 0;

	for (struct rmap_node *n = node_of(start); n; n = node_of(n->link))
		count++;
	return count;
}

static bool chain_for_each(u64 start, bool (*visit)(void *arg, u64 key), void *arg)
{
	for (const struct rmap_node *n = node_of(start); n; n = node_of(n->link)) {
		for (u32 i = 0; i < node_keys(n); i++) {
			if (!visit(arg, n->keys[i]))
				return false;
		}
	}
	return true;
}

/* --- the hash --- */

static struct rmap_hash *hash_of(u64 word)
{
	return (struct rmap_hash *)(uintptr_t)(word & LINK_MASK);
}

static u64 *bucket(struct rmap_hash *h, u64 i)
{
	if (i < FIRST_DIR)
		return &h->first[i];
	i -= FIRST_DIR;
	return &h->dirs[i / DIR_CHAINS][i % DIR_CHAINS];
}

/* The bucket from which bucket i was split: i without its highest bit. */
static u64 split_from(u64 i)
{
	return i & ~(1ull << (63 - __builtin_clzll(i)));
}

static u64 *bucket_of(struct rmap_hash *h, u64 key)
{
	u64 x = (key & ~RMAP_FLAGS) * 0x9e3779b97f4a7c15ull;
	u64 top = 1ull << (63 - __builtin_clzll(h->buckets));
	u64 i = (x >> 32) & (2 * top - 1);

	return bucket(h, i < h->buckets ? i : i & (top - 1));
}

/*
 * One bucket more: the keys of the one that it splits from are dealt out anew. Their nodes, and one
 * of the reserve, suffice for both chains.
 */
static void hash_grow(struct rmap_hash *h, struct rmap_reserve *r)
{
	u64 i = h->buckets, *from = bucket(h, split_from(i)), start = *from;

	if (i >= FIRST_DIR && !h->dirs[(i - FIRST_DIR) / DIR_CHAINS]) {
		u64 *page = rmap_reserve_page(r);

		memset(page, 0, PAGE_SIZE);
		h->dirs[(i - FIRST_DIR) / DIR_CHAINS] = page;
	}
	h->buckets++;
	*from = 0;
	while (start) {
		struct rmap_node n = *node_of(start);

		put_node(r, node_of(start));
		for (u32 k = 0; k < node_keys(&n); k++)
			chain_add(bucket_of(h, n.keys[k]), n.keys[k], r);
		start = n.link & LINK_MASK;
	}
}

/* One bucket less: node by node into the chain that it was split from. */
static void hash_shrink(struct rmap_hash *h, struct rmap_reserve *r)
{
	u64 last = --h->buckets, *from = bucket(h, last), *to = bucket(h, split_from(last));

	while (*from) {
		struct rmap_node *n = node_of(*from), copy = *n;

		*from = n->link & LINK_MASK;
		put_node(r, n);
		for (u32 k = 0; k < node_keys(&copy); k++)
			chain_add(to, copy.keys[k], r);
	}
	if (last >= FIRST_DIR && (last - FIRST_DIR) % DIR_CHAINS == 0) {
		rmap_reserve_put_page(r, h->dirs[(last - FIRST_DIR) / DIR_CHAINS]);
		h->dirs[(last - FIRST_DIR) / DIR_CHAINS] = NULL;
	}
}

static bool needs_dir(const struct rmap_hash *h)
{
	u64 i = h->buckets;

	return i >= FIRST_DIR && i < BUCKETS && (i - FIRST_DIR) % DIR_CHAINS == 0;
}

static int hash_add(struct rmap_hash *h, u64 key, struct rmap_reserve *r)
{
	if (!reserve_has(r, 2, needs_dir(h)))
		return -EAGAIN;
	if (h->count++ >= h->buckets * LOAD && h->buckets < BUCKETS)
		hash_grow(h, r);
	chain_add(bucket_of(h, key), key, r);
	return 0;
}

static void hash_begin(u64 *word, struct rmap_reserve *r)
{
	struct rmap_hash *h = (struct rmap_hash *)rmap_reserve_page(r);

	memset(h, 0, sizeof(*h));
	h->buckets = 1;
	h->first[0] = *word & LINK_MASK;
	h->count = (u64)CHAIN_MAX * RMAP_NODE_KEYS;
	*word = (u64)(uintptr_t)h | HASH;
}

/* A hash of few keys becomes a chain again, and a chain of one key that key. */
static void simplify(u64 *word, struct rmap_reserve *r)
{
	struct rmap_hash *h = hash_of(*word);
	struct rmap_node *n;

	if (*word & HASH) {
		h->count--;
		if (h->buckets > 1 && h->count < 2 * h->buckets)
			hash_shrink(h, r);
		if (h->buckets > 1 || h->count > RMAP_NODE_KEYS)
			return;
		*word = h->first[0] | CHAIN;
		rmap_reserve_put_page(r, (u64 *)h);
	}
	n = node_of(*word);
	if (node_keys(n) == 1 && !node_of(n->link)) {
		*word = n->keys[0];
		put_node(r, n);
	}
}

/* --- the set --- */

static int chain_or_hash_add(u64 *word, u64 key, struct rmap_reserve *r)
{
	u64 start = *word & LINK_MASK;
	bool full = chain_full(start), becomes_hash = full && chain_nodes(start) == CHAIN_MAX;

	if (!reserve_has(r, becomes_hash ? 2 : full, becomes_hash))
		return -EAGAIN;
	if (becomes_hash) {
		hash_begin(word, r);
		return hash_add(hash_of(*word), key, r);
	}
	chain_add(&start, key, r);
	*word = start | CHAIN;
	return 0;
}

int rmap_set_add(u64 *word, u64 key, struct rmap_reserve *r)
{
	u64 start = 0;

	if (*word & HASH)
		return hash_add(hash_of(*word), key, r);
	if (*word & CHAIN)
		return chain_or_hash_add(word, key, r);
	if (!*word) {
		*word = key;
		return 0;
	}
	if (!reserve_has(r, 1, 0))
		return -EAGAIN;
	chain_add(&start, *word, r);
	chain_add(&start, key, r);
	*word = start | CHAIN;
	return 0;
}

u64 *rmap_set_find(u64 *word, u64 key)
{
	if (*word & HASH)
		return chain_find(*bucket_of(hash_of(*word), key), key);
	if (*word & CHAIN)
		return chain_find(*word & LINK_MASK, key);
	return *word == key ? word : NULL;
}

bool rmap_set_remove(u64 *word, u64 key, struct rmap_reserve *r)
{
	u64 *at = rmap_set_find(word, key), start = *word & LINK_MASK;

	if (!at)
		return false;
	if (*word & RMAP_KEY) {
		*word = 0;
		return true;
	}
	if (*word & HASH) {
		chain_remove(bucket_of(hash_of(*word), key), at, r);
	} else {
		chain_remove(&start, at, r);
		*word = start | CHAIN;
	}
	simplify(word, r);
	return true;
}

u32 rmap_set_times(const u64 *word, u64 key)
{
	u64 start = *word & LINK_MASK;
	u32 times = 0;

	if (*word & RMAP_KEY || !*word)
		return *word == key;
	if (*word & HASH)
		start = *bucket_of(hash_of(*word), key);
	for (const struct rmap_node *n = node_of(start); n; n = node_of(n->link)) {
		for (u32 i = 0; i < node_keys(n); i++)
			times += n->keys[i] == key;
	}
	return times;
}

static bool count_one(void *arg, u64 key)
{
	(void)key;
	(*(u64 *)arg)++;
	return true;
}

u64 rmap_set_count(const u64 *word)
{
	u64 count = 0;

	if (*word & HASH)
		return hash_of(*word)->count;
	rmap_set_for_each(word, count_one, &count);
	return count;
}

bool rmap_set_for_each(const u64 *word, bool (*visit)(void *arg, u64 key), void *arg)
{
	struct rmap_hash *h = hash_of(*word);

	if (*word & CHAIN)
		return chain_for_each(*word & LINK_MASK, visit, arg);
	if (*word & HASH) {
		for (u64 i = 0; i < h->buckets; i++) {
			if (!chain_for_each(*bucket(h, i), visit, arg))
				return false;
		}
		return true;
	}
	return !*word || visit(arg, *word);
}
