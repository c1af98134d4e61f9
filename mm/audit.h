/* SPDX-License-Identifier: MIT */
/*
 * The audit: do stage-2 tables, their descriptors and the reverse map agree, and with the owners of
 * frames?
 *
 *   forward   every entry is one that the engine writes; every leaf maps guest memory and has its
 *             key; every table is a frame of this VM and serves as what its descriptor says
 *   backward  every key has its leaf, and there are as many as there are leaves
 *
 * It runs beside the VM: leaf and key are compared under the lock under which they change, so what
 * is found is no race. What changes without that lock (a table's count, a key whose table is being
 * unlinked) is looked at again before it is reported.
 *
 * Any CPU, interrupts on. Meanwhile no flush debt of these VMs is paid, because that frees tables.
 */
#pragma once

#include "mm/stage2.h"

enum audit_kind {
	AUDIT_ENTRY,	   /* neither empty, nor a leaf, nor a table, nor frozen as it should be */
	AUDIT_LEAF_NO_KEY, /* seen: the entry */
	AUDIT_LEAF_OWNER,  /* the leaf maps what is no guest memory; seen: kind of owner */
	AUDIT_TABLE_OWNER, /* a table that is no table of this VM; seen: kind of owner */
	AUDIT_TABLE_ROLE,  /* its descriptor says that it serves as something else, or is damaged */
	AUDIT_TABLE_LIVE,  /* seen: present entries; expected: what its descriptor says */
	AUDIT_LEAF_COUNT,  /* seen: leaves of that level; expected: what the VM counts */
	AUDIT_KEY_NO_LEAF, /* seen: the key; expected: the entry where the walk ends */
	AUDIT_KEY_NO_VM,   /* seen: the key; there is no such VM */
	AUDIT_KEY_TWICE,   /* seen: the key */
	AUDIT_KEY_COUNT,   /* seen: keys of an extent; expected: what it counts */
	AUDIT_KEY_DEBT,	   /* seen: a key that waits for a flush that nobody owes */
	AUDIT_KINDS
};

struct audit_finding {
	enum audit_kind kind;
	struct stage2 *stage2; /* NULL: not known */
	u8 level;
	gfn_t gfn;
	pfn_t pfn;
	u64 seen, expected;
};

struct audit {
	struct stage2 *only; /* NULL: all */
	/* Every finding, no lock held. */
	void (*report)(void *arg, const struct audit_finding *f);
	void *arg;
	/* What was looked at, and how many findings there were. */
	u64 tables, leaves, keys, findings;
};

/* Fills in the figures. Every VM that a finding names is corrupt from then on. */
void audit_run(struct audit *a);
const char *audit_kind_name(enum audit_kind kind);
