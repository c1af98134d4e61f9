/* SPDX-License-Identifier: MIT */
/*
 * Framing of gdb's remote serial protocol: $payload#checksum, acknowledged by + and - until both
 * sides agree to do without. Pure: bytes go in, packets come out, and what is sent leaves by a
 * function.
 *
 * A bad checksum, an unknown byte between packets or a packet that is too long never does more than
 * lose that packet. "$" within a packet begins a new one: gdb escapes it in data.
 */
#pragma once

#include "lib/types.h"

#define GDB_PACKET 4096 /* bytes of payload, in either direction; PacketSize says so */

enum gdb_event {
	GDB_NOTHING,
	GDB_PACKET_IN, /* in[0 .. in_len) is one, terminated and without escapes */
	GDB_TOO_LONG,  /* one that is not kept came whole */
	GDB_INTERRUPT, /* Ctrl-C */
};

struct gdb_link {
	void (*write)(const char *bytes, size_t n);
	u8 acks;      /* are + and - in use? */
	bool sent;    /* there is a packet to repeat */
	u8 state;     /* of the receiver */
	bool escaped; /* the next byte of data was escaped */
	bool too_long;
	u8 sum, check; /* what we count, what the packet says */
	size_t in_len, out_len;
	u8 in[GDB_PACKET + 1];
	u8 out[GDB_PACKET]; /* the last packet: also to repeat it */
};

void gdb_link_init(struct gdb_link *l, void (*write)(const char *bytes, size_t n));
/*
 * No acknowledgements any more, but for the packet that was just sent. A + that comes later is the
 * first byte of a new gdb.
 */
void gdb_link_no_acks(struct gdb_link *l);
enum gdb_event gdb_link_byte(struct gdb_link *l, u8 c);

/*
 * Compose a packet: begin, then these, then send. What is more than GDB_PACKET bytes is left out:
 * callers know how much they may say.
 */
void gdb_begin(struct gdb_link *l);
void gdb_put(struct gdb_link *l, const void *bytes, size_t n);
void gdb_hex(struct gdb_link *l, const void *bytes, size_t n);	      /* two digits a byte */
PRINTF(2, 3) void gdb_putf(struct gdb_link *l, const char *fmt, ...); /* up to 160 characters */
/* Escaped where it has to be, and runs of equal bytes shortened. */
void gdb_send(struct gdb_link *l);
/* A packet that is only this text. */
void gdb_reply(struct gdb_link *l, const char *text);

/* ---- Reading the payload ---- */

/* -1: no hexadecimal digit. */
s32 gdb_digit(u8 c);
/*
 * A hexadecimal number at *s, which moves behind it. False: there is none, or it has more than 64
 * bits.
 */
bool gdb_get_number(const char **s, u64 *value);
/* ADDRESS,LENGTH */
bool gdb_get_range(const char **s, u64 *address, u64 *len);
/* Pairs of digits to bytes, up to max. Returns how many; stops at what is no pair. */
size_t gdb_get_hex(const char *s, void *bytes, size_t max);
