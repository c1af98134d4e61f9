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
 * Any CPU, interrupts on. Who frees tables meanwhile waits for the walk of that VM.
 */
#pragma once

#include "mm/stage2.h"

enum audit_kind {
	AUDIT_ENTRY,	   /* not as the engine writes leaves, tables, or what is not present */
	AUDIT_LEAF_NO_KEY, /* seen: the entry */
	/* the leaf maps what is not the VM's memory; these two: owners as vm << 8 | kind */
	AUDIT_LEAF_OWNER,
	AUDIT_TABLE_OWNER, /* a table that is no table of this VM */
	AUDIT_TABLE_ROLE,  /* its descriptor says that it serves as something else, or is damaged */
	AUDIT_TABLE_LIVE,  /* seen: present entries; expected: what its descriptor says */
	AUDIT_LEAF_COUNT,  /* seen: leaves of that level; expected: what the VM counts */
	AUDIT_KEY_NO_LEAF, /* seen: the key; expected: the entry where the walk ends */
	AUDIT_KEY_NO_VM,   /* seen: the key; there is no such VM */
	AUDIT_KEY_TWICE,   /* seen: the key */
	AUDIT_KEY_COUNT,   /* seen: keys of an extent; expected: what it counts */
	AUDIT_KEY_DEBT,	   /* seen: a key that waits for a flush that nobody owes */
	AUDIT_KEY_FREED,   /* an extent is given back that has a key */
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
	bool keyless; /* there are leaves that need no key: it can't be done by counting */
};

/*
 * Fills in the figures. Every VM that a finding names is corrupt from then on. Those in quarantine
 * are not looked at.
 */
void audit_run(struct audit *a);
const char *audit_kind_name(enum audit_kind kind);
/*
 * Before the extent of that frame is given back: has it no mapper left? Otherwise whoever maps it
 * is corrupt, and the extent may not be used again.
 */
bool audit_unmapped(pfn_t pfn);
