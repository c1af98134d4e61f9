/* SPDX-License-Identifier: MIT */
/*
 * The mappers of one frame: a set of keys behind one 64-bit word. Private to the reverse map; the
 * key's layout is mm/rmap.h's.
 *
 *	0		nobody
 *	key		one mapper, in place
 *	chain ---------> [ 7 keys | next ] -> [ 7 keys | next ] ...	only the first may have room
 *	hash ----------> [ count | buckets | 128 chains | directory ] -> [ 512 chains ] ...
 *
 * A chain of more than 8 full nodes becomes a hash, which grows and shrinks by one bucket at a time
 * (linear hashing): no operation touches more than a few nodes, however many mappers there are.
 *
 * The same key may be there twice if its flags differ: one mapping that waits for its flush, and
 * the next one of the same frame at the same place.
 *
 * The word and all behind it are the caller's, under its lock. Nothing is allocated here: what an
 * operation may need is taken from a reserve, which is filled without a lock, and what it frees
 * goes there.
 */
#pragma once

#include "lib/types.h"

#define RMAP_NODE_KEYS 7

/* 64 bytes, aligned: links have their low bits free for the number of keys, or a word's kind. */
struct rmap_node {
	u64 keys[RMAP_NODE_KEYS];
	u64 link; /* pointer to the next node | number of keys, 1..7 */
};
_Static_assert(sizeof(struct rmap_node) == 64, "two mappers cost 64 bytes");

struct rmap_reserve {
	struct rmap_node *nodes; /* linked by `link` */
	u64 *pages;		 /* linked by their first words */
	u32 nr_nodes, nr_pages;
	u32 want_nodes, want_pages; /* what an operation that returned -EAGAIN asks for */
};

/* Get what it wants: 0 or -ENOMEM. No lock of rank RANK_EXTENT or later held. */
int rmap_reserve_fill(struct rmap_reserve *r);
/* Give back all that is left in it. No lock of rank RANK_EXTENT or later held. */
void rmap_reserve_empty(struct rmap_reserve *r);
/* A page out of the reserve, as it is; NULL, and *r asks for one. */
u64 *rmap_reserve_page(struct rmap_reserve *r);
void rmap_reserve_put_page(struct rmap_reserve *r, u64 *page);

/* 0; -EAGAIN: the reserve is too small, nothing changed. */
int rmap_set_add(u64 *word, u64 key, struct rmap_reserve *r);
/* Where the key stands, flags included in the comparison; NULL: nowhere. */
u64 *rmap_set_find(u64 *word, u64 key);
/* False if it is not there. */
bool rmap_set_remove(u64 *word, u64 key, struct rmap_reserve *r);
/* How often the key is there. */
u32 rmap_set_times(const u64 *word, u64 key);
u64 rmap_set_count(const u64 *word);
/* Until visit returns false; it must not change the set. False if it was stopped. */
bool rmap_set_for_each(const u64 *word, bool (*visit)(void *arg, u64 key), void *arg);

/* Bytes of nodes and pages that sets have from the allocator: for the figures. */
u64 rmap_set_memory(void);
