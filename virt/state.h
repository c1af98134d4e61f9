/* SPDX-License-Identifier: MIT */
/*
 * What a VM is at one moment, as a record without pointers: what its guest saw of the CPU, where
 * it has memory, vCPUs, devices. Not the memory's contents: a clone shares them, an image file has
 * them behind the record.
 *
 *	struct state_header
 *	struct state_part, the values of its fields; the next part; ...
 *
 * Writing and reading are the same walk: a part is a structure of Corbel's and a table of its
 * fields. What is read from a file is believed by nobody: each value is checked against its field's
 * rule, and what only shows beside other values by who walks. What rules don't cover can make the
 * entry to the guest fail, or the guest: its VM's affair.
 *
 * Time stands still for who is kept: moments are stored as distances from now.
 */
#pragma once

#include "lib/types.h"

struct vcpu;
struct vm;

#define STATE_MAGIC   "CRBLVMST"
#define STATE_OBJECTS 2
#define STATE_VERSION 2 /* of everything here, the tables of fields included */

struct state_header {
	char magic[8];
	u32 version, size; /* size: bytes, with this */
	/* While it is in memory: where, so that who finds it in a dump knows where 0 is; else 0. */
	u64 address;
	u32 order; /* of its frames */
	u32 disk;  /* it has one that it may write, the contents of which are not here */
	/*
	 * Of its own memory, a slot each: while this is in memory, the physical address of the
	 * backing object (mm/backing.h); in a file, where in it the contents are (lib/pieces.h).
	 */
	u64 memory[STATE_OBJECTS];
	u64 end;       /* of the machine's physical memory: a dump has to reach there */
	char name[32]; /* of the VM; ends with 0 */
	u64 check;     /* xxh64(what follows, seed = xxh64(the header up to here, seed = 0)) */
};

struct state_part {
	char name[16];
	u32 index, fields; /* of several; how many */
};

/* The part "memory": a slot each, in the order of their addresses. */
struct state_memory {
	u64 gpa, size, flags; /* SLOT_READONLY, SLOT_NOEXEC, SLOT_SHARED */
};

/* What a field's value may be. */
enum state_rule {
	STATE_BITS,    /* no other bits than these */
	STATE_MAX,     /* at most this */
	STATE_ADDRESS, /* a canonical address */
	STATE_SAME,    /* what it is already, in who reads it */
	STATE_TIME,    /* any host TSC; 0 stays 0 */
	STATE_OFFSET,  /* any; from the host's TSC to the guest's */
};

/* A member, or several of one size: the rule holds for each. */
struct state_field {
	const char *name;
	u16 offset, size, each; /* in the structure */
	u8 rule;		/* enum state_rule */
	u64 limit;
};
/* From one member to another; one, of any size if any value is good. Then the rule and its limit.
 */
#define STATE_RUN(type, m, last, ...)                                                         \
	{                                                                                     \
		.name = #m, .offset = offsetof(type, m), .each = (u16)sizeof(((type *)0)->m), \
		.size = offsetof(type, last) + sizeof(((type *)0)->last) - offsetof(type, m), \
		.rule = __VA_ARGS__                                                           \
	}
#define STATE_FIELD(type, m, ...) STATE_RUN(type, m, m, __VA_ARGS__)
#define STATE_ANY		  STATE_BITS, ~0ull

/* A walk. */
struct state {
	u8 *at, *end; /* of what is left */
	bool loading;
	bool own;		/* it was written by this Corbel, and has not left its memory */
	bool disk;		/* as in the header */
	u64 now;		/* host TSC */
	struct state_part part; /* at this one */
	char why[96];		/* what is wrong; empty: nothing, so far */
};

/*
 * Write the fields of *base, or check and read them. Nothing once something is wrong: true while
 * nothing is.
 */
bool state_fields(struct state *s, const char *name, u32 index, void *base,
		  const struct state_field *fields, u32 nr);
#define STATE_PART(s, name, index, base, table) \
	state_fields(s, name, index, base, table, ARRAY_SIZE(table))
/* Bytes of any value. */
bool state_bytes(struct state *s, const char *name, u32 index, void *bytes, u32 size);
/* This is wrong with the part at hand: returns false. */
bool state_refuse(struct state *s, const char *what, u64 value);
/* All of a vCPU but its devices, which is at rest. */
void vcpu_state(struct state *s, struct vcpu *v);

/*
 * The record of a VM, whose vCPUs are at rest and whose devices touch nothing; with the memory of
 * `memory`, which shares it (or is the same VM). It is good for vm_load_state(); to leave the
 * machine it needs state_set_memory(). In frames: state_free() gives them back. NULL, and *why
 * (why_len bytes) has one line. From a task.
 */
struct state_header *vm_save(struct vm *vm, const struct vm *memory, char *why, size_t why_len);
void state_free(struct state_header *record);
/* The objects of that VM's slots are what the record is about; and its checksum. */
void state_set_memory(struct state_header *record, const struct vm *vm);
/* NULL, or what is wrong with a file that begins with STATE_MAGIC: header and checksum. */
const char *state_check(const void *file, u64 length);
/*
 * vm->load's: a VM in power-on state becomes what a record says that passed state_check(). 0;
 * -EINVAL: *why says what is wrong, and the VM must not run before it is in power-on state again.
 */
int vm_load_state(struct vm *vm, const struct state_header *record, char *why, size_t why_len);
