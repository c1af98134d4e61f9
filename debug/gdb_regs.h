/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's registers as gdb numbers them: the core ones in the order of its own x86-64 target, x87,
 * SSE, segment bases, control registers. The values are little-endian, as gdb wants them. All but
 * the description works between debug_begin() and debug_end().
 */
#pragma once

#include "debug/gdb_packet.h"
#include "virt/vcpu.h"

#define GDB_REGS    66
#define GDB_G_REGS  24 /* what packet g has: gdb asks for the others when it wants them */
#define GDB_RBP	    6
#define GDB_RSP	    7
#define GDB_RIP	    16
#define GDB_GS_BASE 58
#define GDB_REG_MAX 16 /* bytes */

/* n < GDB_REGS, in all of these. Bytes of a register. */
u32 gdb_reg_size(u32 n);
/* Returns how many bytes it has. */
u32 gdb_reg_read(struct vcpu *v, u32 n, u8 value[GDB_REG_MAX]);
/*
 * 0, or -EINVAL: not that many bytes, or a value that the guest could not have. Selectors can't be
 * changed, as no descriptor would be loaded, nor what x87 says of its state.
 */
int gdb_reg_write(struct vcpu *v, u32 n, const u8 value[GDB_REG_MAX], size_t len);

/* A document, of which a packet shows the bytes from `from` up to `to`. */
struct gdb_doc {
	struct gdb_link *link;
	u64 at, from, to;
};
void gdb_doc(struct gdb_doc *d, const char *text);
/* Answer with the part of a document that "OFFSET,LENGTH" asks for. */
void gdb_doc_reply(struct gdb_link *l, const char *range, void (*describe)(struct gdb_doc *d));
/* The target description: gdb manual, "Target Description Format", "i386 Features". */
void gdb_describe(struct gdb_doc *d);
