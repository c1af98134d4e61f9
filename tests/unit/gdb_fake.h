/* SPDX-License-Identifier: MIT */
/*
 * A machine for the gdb servers: the VM of fake_vm.h, "vm", running, with two vCPUs, and "other",
 * which does not run; a line that remembers what was sent; a scheduler in which a vCPU rests as
 * soon as it is asked to. The guest is 32-bit code without paging, with 16 MiB of memory.
 */
#pragma once

#include "debug/gdb.h"
#include "debug/gdb_memory.h"
#include "tests/unit/fake_vm.h"
#include "virt/debug.h"

#define GDB_FAKE_SENT 65536

extern struct vm gdb_other;
extern struct fake_vcpu gdb_second;
extern char gdb_sent[GDB_FAKE_SENT + 1]; /* raw */
extern size_t gdb_sent_len;
extern u64 gdb_dr[4];	   /* of the CPU */
extern bool gdb_lazy;	   /* vCPUs come to rest only with gdb_rest() */
extern bool gdb_virt_off;  /* virtualization is off */
extern u32 gdb_exceptions; /* queued for the guest */
extern bool gdb_crashed;   /* bytes go to debug/postmortem.h: four CPUs, of which CPU 2 crashed */
extern u32 gdb_resets;	   /* of the machine */

void gdb_fake_open(void);
void gdb_rest(void);
/* Bytes as they are. */
void gdb_type(const void *bytes, size_t n);
/* A packet with its checksum, n bytes of payload, escaped. Then gdb_poll(). */
void gdb_say(const void *payload, size_t n);
/*
 * Say a packet, forget what was sent before, and return the payload of the last packet that was
 * sent, without escapes and runs; its checksum was right. "(none)" if there is none.
 */
const char *gdb_ask(const char *payload);
/* The last packet that was sent, as gdb_ask() returns it. */
const char *gdb_last(void);
