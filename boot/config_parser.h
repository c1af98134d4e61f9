/* SPDX-License-Identifier: MIT */
/*
 * What boot/config.c, which knows sections and lines, and boot/config_keys.c, which knows keys and
 * their values, tell each other. A new key is a row of corbel_keys or vm_keys, and the field that
 * it sets. Private to the two.
 */
#pragma once

#include "boot/config.h"
#include "boot/config_text.h"

struct key;
struct section;

struct parser {
	struct config *config;
	const struct config_sink *sink;
	u32 line;		       /* 0: not lines but words, as in LoadOptions */
	u32 reported;		       /* errors of this call */
	const struct section *section; /* NULL outside of one */
	bool skip; /* the section's head was bad and has been reported: be silent about its keys */
	struct config_vm *vm;	      /* of the section; NULL in others */
	struct config_memory *memory; /* of the section; NULL in others */
	u64 seen;		      /* bit n: keys[n] was there in this section */
	const struct key *key;	      /* whose value is being read */
	u32 corbel_line;	      /* of [corbel]; 0: not seen */
	struct text attach;	      /* checked once all VMs are known; empty: not given */
	u32 attach_line;
};

struct key {
	const char *name; /* NULL: end of the table */
	/* Read the value, p->key at hand, into the field. False: reported, nothing was set. */
	bool (*set)(struct parser *p, struct text value, void *field);
	u32 field;	     /* its offset in struct config or config_vm */
	const char *expects; /* "it is not <this>"; where the value is a word: the words */
	u64 min, max;	     /* of a number or a size; max also: characters of a text */
	u32 line;	     /* offset of a u32 that gets the key's line; 0: nobody asks for it */
	bool may_be_empty;
	bool many; /* may be there more than once */
};

extern const struct key corbel_keys[], vm_keys[], memory_keys[];
#define VM_KEY_KERNEL 0 /* index in vm_keys of the one that must be there */

/*
 * Report an error of p->line or another one, count it, and take it out on the VM whose section this
 * is. False, so that a setter can return it.
 */
bool complain(struct parser *p, u32 line, const char *key, const char *fmt, ...) PRINTF(4, 5);
