/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "debug/gdb_packet.h"
#include "debug/postmortem.h"
#include "tests/unit/gdb_fake.h"
#include "tests/unit/host.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/slots.h"

#define HELLO "qSupported:multiprocess+;swbreak+;hwbreak+"

/* ---- The packets alone ---- */

static struct gdb_link link_;
static char wire[4 * GDB_PACKET];
static size_t wire_len;

static void to_wire(const char *bytes, size_t n)
{
	assert_true(n < sizeof(wire) - wire_len);
	memcpy(wire + wire_len, bytes, n);
	wire_len += n;
	wire[wire_len] = '\0';
}

static enum gdb_event feed(const char *s)
{
	enum gdb_event event = GDB_NOTHING;

	wire_len = 0;
	wire[0] = '\0';
	for (; *s; s++) {
		enum gdb_event e = gdb_link_byte(&link_, (u8)*s);

		event = e ? e : event;
	}
	return event;
}

static void test_framing(void **state)
{
	(void)state;
	gdb_link_init(&link_, to_wire);
	assert_int_equal(feed("$g#67"), GDB_PACKET_IN);
	assert_string_equal(wire, "+");
	assert_string_equal((char *)link_.in, "g");
	assert_int_equal(feed("$g#68"), GDB_NOTHING);
	assert_string_equal(wire, "-");
	assert_int_equal(feed("junk#67$m0,4#fd"), GDB_PACKET_IN);
	assert_string_equal((char *)link_.in, "m0,4");
	assert_int_equal(feed("$lost$g#67"), GDB_PACKET_IN);
	assert_int_equal(feed("$g#6x"), GDB_NOTHING); /* no checksum */
	assert_int_equal(feed("$#00"), GDB_PACKET_IN);
	assert_int_equal(link_.in_len, 0);
	/* escapes, and Ctrl-C between packets only */
	assert_int_equal(feed("$X}\x03}\x04\x03#5c"), GDB_PACKET_IN);
	assert_int_equal(link_.in_len, 4);
	assert_memory_equal(link_.in, "X#$\x03", 4);
	assert_int_equal(feed("\x03"), GDB_INTERRUPT);
}

static void test_acks(void **state)
{
	(void)state;
	gdb_link_init(&link_, to_wire);
	feed("-"); /* nothing to repeat */
	assert_string_equal(wire, "");
	gdb_begin(&link_);
	gdb_put(&link_, "OK", 2);
	gdb_send(&link_);
	assert_string_equal(wire, "$OK#9a");
	feed("+-");
	assert_string_equal(wire, "$OK#9a");
	gdb_link_no_acks(&link_);
	feed("+$g#67"); /* the + is for what was sent before */
	assert_string_equal(wire, "");
	feed("$g#68-");
	assert_string_equal(wire, "");
	feed("+$g#67"); /* a new gdb */
	assert_string_equal(wire, "+");
	gdb_link_no_acks(&link_);
	feed("$g#67");
	assert_string_equal(wire, "");
}

static void test_too_long(void **state)
{
	enum gdb_event e;
	u8 sum = 0;
	char end[4];

	(void)state;
	for (u32 len = GDB_PACKET - 1; len < GDB_PACKET + 2; len++) {
		gdb_link_init(&link_, to_wire);
		gdb_link_byte(&link_, '$');
		sum = 0;
		for (u32 i = 0; i < len; i++, sum += 'a')
			assert_int_equal(gdb_link_byte(&link_, 'a'), GDB_NOTHING);
		snprintf(end, sizeof(end), "#%02x", sum);
		e = feed(end);
		assert_int_equal(e, len > GDB_PACKET ? GDB_TOO_LONG : GDB_PACKET_IN);
		assert_string_equal(wire, "+");
	}
}

/* What is sent is what a receiver understands: here our own decoder, by way of the server's line.
 */
static void test_runs(void **state)
{
	u64 seed = host_seed();
	static char text[GDB_PACKET + 1];

	(void)state;
	for (u32 round = 0; round < 300; round++) {
		u32 n = 0, want = (u32)(host_random(&seed) % GDB_PACKET);

		while (n < want) {
			u32 run = (u32)(host_random(&seed) % (round % 2 ? 3 : 220)) + 1;
			char c = "0123abc$#*}+-\x7e"[host_random(&seed) % 14];

			for (; run && n < want; run--)
				text[n++] = c;
		}
		text[n] = '\0';
		gdb_link_init(&link_, to_wire);
		wire_len = 0;
		gdb_begin(&link_);
		gdb_put(&link_, text, n);
		gdb_send(&link_);
		memcpy(gdb_sent, wire, wire_len + 1);
		assert_string_equal(gdb_last(), text);
	}
	gdb_begin(&link_);
	gdb_put(&link_, "0000000000", 10);
	wire_len = 0;
	gdb_send(&link_);
	assert_true(wire_len < 10);
}

static void test_numbers(void **state)
{
	const char *s = "1f,";
	u64 value;
	u8 bytes[4];

	(void)state;
	assert_true(gdb_get_number(&s, &value));
	assert_int_equal(value, 0x1f);
	assert_int_equal(*s, ',');
	assert_false(gdb_get_number(&s, &value));
	s = "ffffffffffffffff";
	assert_true(gdb_get_number(&s, &value));
	assert_int_equal(value, ~0ull);
	s = "10000000000000000";
	assert_false(gdb_get_number(&s, &value));
	assert_int_equal(gdb_get_hex("0aFFx", bytes, 4), 2);
	assert_int_equal(bytes[0] << 8 | bytes[1], 0x0aff);
	assert_int_equal(gdb_get_hex("00112233", bytes, 2), 2);
	assert_int_equal(gdb_get_hex("0", bytes, 2), 0);
}

/* ---- The server ---- */

static int connected(void **state)
{
	(void)state;
	gdb_fake_open();
	gdb_ask(HELLO);
	gdb_ask("?");
	return 0;
}

static void test_hello(void **state)
{
	(void)state;
	gdb_fake_open();
	assert_non_null(strstr(gdb_ask(HELLO), "PacketSize=1000"));
	assert_non_null(strstr(gdb_ask(HELLO), "multiprocess+"));
	assert_string_equal(gdb_ask("vMustReplyEmpty"), "");
	assert_string_equal(gdb_ask("!"), "OK");
	assert_string_equal(gdb_ask("g"), "E22"); /* nothing is attached */
	assert_string_equal(gdb_ask("Hgp0.0"), "E22");
	/* the VM stops when it is asked why, and not before all of it is at rest */
	gdb_lazy = true;
	assert_string_equal(gdb_ask("?"), "(none)");
	gdb_rest();
	gdb_poll();
	assert_non_null(strstr(gdb_last(), "T05thread:p7.1;"));
	assert_true(fake_vcpu.v.debug.hold && gdb_second.v.debug.hold);
	assert_string_equal(gdb_ask("QStartNoAckMode"), "OK");
	gdb_type("+", 1);
	assert_string_equal(gdb_ask("qC"), "QCp7.1");
	assert_null(strchr(gdb_sent, '+'));
}

static void test_threads(void **state)
{
	(void)state;
	assert_string_equal(gdb_ask("qXfer:threads:read::0,fff"),
			    "l<threads><thread id=\"p7.1\" name=\"vm/0\">active</thread>"
			    "<thread id=\"p7.2\" name=\"vm/1\">active</thread></threads>");
	assert_string_equal(gdb_ask("qXfer:threads:read::0,9"), "m<threads>");
	assert_string_equal(gdb_ask("qXfer:threads:read::9,3"), "m<th");
	assert_string_equal(gdb_ask("qXfer:threads:read::1000,3"), "l");
	assert_string_equal(gdb_ask("qXfer:threads:read::x"), "E22");
	assert_string_equal(gdb_ask("qAttached:7"), "1");
	assert_string_equal(gdb_ask("Tp7.2"), "OK");
	assert_string_equal(gdb_ask("Tp7.3"), "E22");
	assert_string_equal(gdb_ask("Tp8.1"), "E22");
	assert_string_equal(gdb_ask("T"), "E22");
	assert_string_equal(gdb_ask("Tp7.2x"), "E22");
	assert_string_equal(gdb_ask("Hgp7.2"), "OK");
	assert_string_equal(gdb_ask("qC"), "QCp7.2");
	assert_string_equal(gdb_ask("Hgp7.0"), "OK"); /* any of it: still the same */
	assert_string_equal(gdb_ask("qC"), "QCp7.2");
	assert_string_equal(gdb_ask("Hcp7.1"), "OK");
	assert_string_equal(gdb_ask("H"), "");
}

static void test_description(void **state)
{
	static char whole[16384];
	const char *part;
	char ask[64];
	u32 regs = 0;

	(void)state;
	do {
		snprintf(ask, sizeof(ask), "qXfer:features:read:target.xml:%zx,123", strlen(whole));
		part = gdb_ask(ask);
		assert_true(strlen(part) > 1 && strlen(whole) + 0x123 < sizeof(whole));
		strcat(whole, part + 1);
	} while (*part == 'm');
	assert_int_equal(*part, 'l');
	assert_non_null(strstr(whole, "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\"/>"));
	assert_non_null(strstr(whole, "<reg name=\"st7\" bitsize=\"80\""));
	assert_non_null(strstr(whole, "<reg name=\"efer\" bitsize=\"64\""));
	assert_string_equal(whole + strlen(whole) - 19, "</feature></target>");
	for (part = whole; (part = strstr(part, "<reg ")); part++)
		regs++;
	snprintf(ask, sizeof(ask), "p%x", regs - 1);
	assert_int_equal(strlen(gdb_ask(ask)), 16);
	snprintf(ask, sizeof(ask), "p%x", regs);
	assert_string_equal(gdb_ask(ask), "E22");
}

static void test_registers(void **state)
{
	char all[2048];

	(void)state;
	fake_vcpu.v.gpr[RAX] = 0x1122334455667788;
	fake_vcpu.v.rip = 0x1234;
	fake_vcpu.seg[SEG_CS].selector = 8;
	strcpy(all, gdb_ask("g"));
	assert_int_equal(strlen(all), 2 * (17 * 8 + 7 * 4));
	assert_memory_equal(all, "8877665544332211", 16);
	assert_memory_equal(all + 2 * 16 * 8, "3412000000000000", 16);
	assert_string_equal(gdb_ask("p12"), "08000000"); /* cs */
	assert_string_equal(gdb_ask("P12=08000000"), "OK");
	assert_string_equal(gdb_ask("P12=10000000"), "E22");	     /* would load no descriptor */
	assert_string_equal(gdb_ask("P10=0000000001000000"), "E22"); /* 32-bit code */
	assert_string_equal(gdb_ask("P10=7856000000000000"), "OK");
	assert_int_equal(fake_vcpu.v.rip, 0x5678);
	assert_string_equal(gdb_ask("P7=0010000000000000"), "OK");
	assert_int_equal(fake_vcpu.reg[VR_RSP], 0x1000);
	assert_string_equal(gdb_ask("P11=ffffffff"), "E22"); /* VM */
	assert_string_equal(gdb_ask("P11=fffffdff"), "OK");
	assert_int_equal(fake_vcpu.v.rflags & 0xffc28028, 0); /* reserved bits and VM */
	assert_string_equal(gdb_ask("P0=12"), "E22");
	assert_string_equal(gdb_ask("P0"), "E22");
	assert_string_equal(gdb_ask("p"), "E22");
	assert_string_equal(gdb_ask("pffffffffff"), "E22");
	/* bases and control registers */
	assert_string_equal(gdb_ask("P39=0000000000000080"), "E22");
	assert_string_equal(gdb_ask("P39=0010000000000000"), "OK");
	assert_int_equal(fake_vcpu.seg[SEG_FS].base, 0x1000);
	assert_string_equal(gdb_ask("P3c=0000000001000000"), "E22");
	assert_string_equal(gdb_ask("P3c=1100000000000000"), "OK");
	assert_string_equal(gdb_ask("p3c"), "1100000000000000");
	assert_string_equal(gdb_ask("P3e=0000000000000010"), "E22"); /* wider than the CPU */
	assert_string_equal(gdb_ask("p40"), "0000000000000000");     /* cr8: no controller */
	assert_string_equal(gdb_ask("P40=0100000000000000"), "E22");
	/* RIP that is set is executed */
	fake_vcpu.v.activity = VCPU_IN_HLT;
	assert_string_equal(gdb_ask("P10=7856000000000000"), "OK");
	assert_int_equal(fake_vcpu.v.activity, VCPU_ACTIVE);
}

static void test_fpu(void **state)
{
	u8 *fx = fake_vcpu.v.fpu;

	(void)state;
	fx[3] = 0x38; /* TOP 7 */
	fx[4] = 0x81; /* physical 0 and 7 are in use: ST(1) and ST(0) */
	memcpy(fx + 32, "\1\2\3\4\5\6\7\x88\x11\x40", 10);
	assert_string_equal(gdb_ask("p18"), "01020304050607881140");
	assert_string_equal(gdb_ask("p22"), "fd3f0000"); /* ST(0) valid, ST(1) zero */
	assert_string_equal(gdb_ask("P22=ffff0000"), "E22");
	assert_string_equal(gdb_ask("P22=fd3f0000"), "OK");
	assert_string_equal(gdb_ask("P19=11111111111111111111"), "OK");
	assert_int_equal(fx[32 + 16], 0x11);
	assert_string_equal(gdb_ask("P28=000102030405060708090a0b0c0d0e0f"), "OK");
	assert_int_equal(fx[160 + 15], 15);
	assert_int_equal(fx[512], 3);
	assert_string_equal(gdb_ask("p28"), "000102030405060708090a0b0c0d0e0f");
	assert_string_equal(gdb_ask("P38=801f0000"), "OK");
	assert_string_equal(gdb_ask("P38=00000100"), "E22"); /* XRSTOR would fault */
	assert_string_equal(gdb_ask("p38"), "801f0000");
}

static void test_memory(void **state)
{
	u8 bytes[8];
	u32 woken;

	(void)state;
	assert_string_equal(gdb_ask("M1000,4:deadbeef"), "OK");
	assert_string_equal(gdb_ask("m1000,4"), "deadbeef");
	assert_string_equal(gdb_ask("m1000,0"), "");
	/* up to the end of memory, and beyond */
	assert_int_equal(strlen(gdb_ask("mfffffe,8")), 4);
	assert_string_equal(gdb_ask("m1000000,1"), "E14");
	assert_string_equal(gdb_ask("mfffffffffffffffe,4"), "E14");
	assert_string_equal(gdb_ask("Mfffffe,4:00112233"), "E14");
	assert_string_equal(gdb_ask("mfffffe,2"), "0011"); /* as far as it goes */
	assert_string_equal(gdb_ask("M1000,4:deadbe"), "E22");
	assert_string_equal(gdb_ask("M1000,4"), "E22");
	assert_string_equal(gdb_ask("m1000"), "E22");
	assert_string_equal(gdb_ask("mx,1"), "E22");
	assert_string_equal(gdb_ask("Mffff000000,ffffffffffffffff:00"), "E22");
	/* binary */
	gdb_sent_len = 0;
	gdb_say("X2000,5:#$}*\0", 13);
	assert_string_equal(gdb_last(), "OK");
	assert_int_equal(guest_read(&fake_vm, GPA(0x2000), bytes, 5), 0);
	assert_memory_equal(bytes, "#$}*\0", 5);
	assert_string_equal(gdb_ask("X2000,0:"), "OK");
	assert_string_equal(gdb_ask("X2000,2:a"), "E22");
	/* the most that is read at once */
	assert_int_equal(strlen(gdb_ask("m0,ffffffff")), GDB_PACKET);
	/* what is missing stays so, and nobody is woken for it */
	assert_int_equal(vm_add_memory(&fake_vm, GPA(32 * MIB), EXTENT_SIZE, SLOT_EXIT_ON_MISSING),
			 0);
	fake_vcpu.v.requests = 0;
	assert_string_equal(gdb_ask("m2000000,4"), "E14");
	assert_string_equal(gdb_ask("Z0,2000000,1"), "E14");
	assert_int_equal(fake_vcpu.v.requests, 0);
	assert_int_equal(vm_resolve(&fake_vm, GPA(32 * MIB), EXTENT_SIZE, FILL_ZERO, NULL, &woken),
			 0);
	assert_string_equal(gdb_ask("m2000000,4"), "00000000");
}

static u64 entry(u64 table, u32 index, u64 value)
{
	assert_int_equal(guest_write(&fake_vm, GPA(table + 8 * index), &value, 8), 0);
	return value;
}

static u8 at(u64 gpa)
{
	u8 byte;

	assert_int_equal(guest_read(&fake_vm, GPA(gpa), &byte, 1), 0);
	return byte;
}

/* 4 levels: 0x400000 is 0x5000 (the kernel's), 0x401000 is 0x6000 (a user's), the next is nowhere.
 */
static void test_paging(void **state)
{
	(void)state;
	entry(0x10000, 0, 0x11007);
	entry(0x11000, 0, 0x12007);
	entry(0x12000, 2, 0x13007);
	entry(0x13000, 0, 0x5001);
	entry(0x13000, 1, 0x6005);
	fake_vcpu.reg[VR_CR0] = 0x80000001;
	fake_vcpu.reg[VR_CR4] = 0x200020; /* PAE, SMAP */
	fake_vcpu.reg[VR_EFER] = 0x500;
	fake_vcpu.reg[VR_CR3] = 0x10000;
	/* read-only pages can be written; both kinds can be read with SMAP on */
	assert_string_equal(gdb_ask("M400ffe,4:01020304"), "OK");
	assert_int_equal(at(0x5fff), 2);
	assert_int_equal(at(0x6000), 3);
	assert_string_equal(gdb_ask("m400ffe,4"), "01020304");
	assert_string_equal(gdb_ask("m401ffe,4"), "0000"); /* as far as it goes */
	assert_string_equal(gdb_ask("m402000,1"), "E14");
	assert_string_equal(gdb_ask("M401ffe,4:01020304"), "E14");
	assert_int_equal(at(0x6ffe), 1);
	assert_string_equal(gdb_ask("m8000000000000000,1"), "E14");
	assert_string_equal(gdb_ask("Z0,400000,1"), "OK");
	assert_int_equal(at(0x5000), 0xcc);
	assert_string_equal(gdb_ask("Z0,402000,1"), "E14");
	/* the tables have no accessed bits */
	assert_int_equal(at(0x13000), 1);
}

static void exit_with(u8 vector, u64 dr6)
{
	fake_vcpu.v.exit = (struct vm_exit){ .kind = EXIT_EXCEPTION };
	fake_vcpu.v.exit.exception.vector = vector;
	fake_vcpu.v.exit.exception.dr6 = dr6;
}

static void test_soft(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	assert_string_equal(gdb_ask("M1000,4:90919293"), "OK");
	assert_string_equal(gdb_ask("Z0,1001,1"), "OK");
	assert_string_equal(gdb_ask("Z0,1001,1"), "OK"); /* again: no other one */
	assert_int_equal(at(0x1001), 0xcc);
	assert_string_equal(gdb_ask("m1000,4"), "90919293");
	/* what is written goes below it */
	assert_string_equal(gdb_ask("M1000,4:a0a1a2a3"), "OK");
	assert_int_equal(at(0x1001), 0xcc);
	assert_string_equal(gdb_ask("m1000,4"), "a0a1a2a3");
	assert_string_equal(gdb_ask("vCont;c"), "(none)");
	/* it is hit; one of the guest's own is the guest's */
	exit_with(3, 0);
	v->rip = 0x1003;
	assert_false(debug_exception(v));
	assert_int_equal(v->debug.hold, false);
	v->rip = 0x1001;
	assert_true(debug_exception(v));
	gdb_rest();
	gdb_poll();
	assert_non_null(strstr(gdb_last(), "T05thread:p7.1;swbreak:;"));
	assert_non_null(strstr(gdb_last(), "10:0110000000000000;"));
	assert_true(gdb_second.v.debug.hold);
	assert_string_equal(gdb_ask("z0,1001,1"), "OK");
	assert_int_equal(at(0x1001), 0xa1);
	assert_string_equal(gdb_ask("z0,1001,1"), "OK");
	assert_string_equal(gdb_ask("z0,5555,1"), "OK");
	/* the guest has overwritten it: that stays */
	assert_string_equal(gdb_ask("Z0,1002,1"), "OK");
	assert_int_equal(guest_write(&fake_vm, GPA(0x1002), "\x77", 1), 0);
	assert_string_equal(gdb_ask("z0,1002,1"), "OK");
	assert_int_equal(at(0x1002), 0x77);
	/* no memory, too many, malformed */
	assert_string_equal(gdb_ask("Z0,1000000,1"), "E14");
	for (u32 i = 0; i < DEBUG_SOFT; i++)
		assert_int_equal(gdb_break_set(v, BREAK_SOFT, 0x2000 + i, 1), 0);
	assert_string_equal(gdb_ask("Z0,3000,1"), "E28");
	assert_string_equal(gdb_ask("Z0"), "E22");
	assert_string_equal(gdb_ask("Z9,1000,1"), "");
	/* detach: all is as it was */
	assert_string_equal(gdb_ask("D;7"), "OK");
	for (u32 i = 0; i < DEBUG_SOFT; i++)
		assert_int_equal(at(0x2000 + i), 0);
	assert_false(v->debug.hold);
	assert_int_equal(v->state, VCPU_RUNNABLE);
}

static void test_hard(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	fake_vcpu.reg[VR_DR7] = 0x400 | 2 | 0x000d0000; /* the guest's: DR0, 4 bytes written */
	v->dr[0] = 0x7777;
	fake_vcpu.reg[VR_DR6] = 0xffff0ff0;
	assert_string_equal(gdb_ask("Z1,1000,1"), "OK");
	assert_string_equal(gdb_ask("Z1,1000,1"), "OK");
	assert_string_equal(gdb_ask("Z2,2002,2"), "OK");
	assert_string_equal(gdb_ask("Z3,2000,1"), "");
	assert_string_equal(gdb_ask("Z4,3000,9"), "E22");
	assert_string_equal(gdb_ask("Z4,3000,3"), "E22");
	assert_string_equal(gdb_ask("Z4,3001,2"), "E22");
	assert_string_equal(gdb_ask("Z4,3000,0"), "E22");
	debug_vcpu_load(v);
	assert_int_equal(gdb_dr[0], 0x7777); /* the guest's own, while there is room */
	assert_int_equal(gdb_dr[1], 0x1000);
	assert_int_equal(gdb_dr[2], 0x2002);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400 | 0x3e | 13 << 16 | 0 << 20 | 5 << 24);
	/* the guest's is hit */
	exit_with(1, 1);
	assert_true(debug_exception(v));
	assert_int_equal(gdb_exceptions, 1);
	assert_int_equal(v->debug.dr6, 0xffff0ff1);
	assert_int_equal(v->debug.stop, DEBUG_NONE);
	/* a condition that is met, but not enabled, is nobody's; INT1 sets none and is the guest's
	 */
	exit_with(1, 0);
	assert_true(debug_exception(v));
	assert_int_equal(gdb_exceptions, 2);
	/* after a step, a breakpoint at the next instruction has not been reached yet */
	exit_with(1, 2);
	v->exit.exception.stepped = true;
	assert_true(debug_exception(v));
	assert_int_equal(v->debug.stop, DEBUG_NONE);
	gdb_exceptions = 0;
	/* data */
	assert_string_equal(gdb_ask("vCont;c"), "(none)");
	exit_with(1, 4);
	assert_true(debug_exception(v));
	assert_int_equal(gdb_exceptions, 0);
	debug_vcpu_put(v);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400 | 2 | 0x000d0000);
	assert_int_equal(fake_vcpu.reg[VR_DR6] & 0xf, 1);
	gdb_rest();
	gdb_poll();
	assert_non_null(strstr(gdb_last(), ";watch:2002;"));
	assert_string_equal(gdb_ask("z2,2002,2"), "OK");
	assert_string_equal(gdb_ask("Z2,3000,8"), "OK");
	assert_string_equal(gdb_ask("Z4,3000,8"), "OK");
	/* no other register is left than the guest's: it misses that one */
	assert_string_equal(gdb_ask("Z1,4000,1"), "OK");
	debug_vcpu_load(v);
	assert_int_equal(gdb_dr[0], 0x4000);
	assert_int_equal(fake_vcpu.reg[VR_DR7] & 0xf0000, 0);
	debug_vcpu_put(v);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400 | 2 | 0x000d0000);
	assert_string_equal(gdb_ask("Z1,5000,1"), "E28");
}

/* MOV to and from debug registers while they are the debugger's. */
static void test_dr_access(void **state)
{
	static const u8 code[] = { 0x0f, 0x23, 0xf8, /* mov dr7, eax */
				   0x0f, 0x21, 0xfb, /* mov ebx, dr7 */
				   0x0f, 0x23, 0xd0, /* mov dr2, eax */
				   0x0f, 0x21, 0xd3, /* mov ebx, dr2 */
				   0x0f, 0x21, 0xe3, /* mov ebx, dr4 */
				   0x0f, 0x21, 0xf3 /* mov ebx, dr6 */ };
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	assert_int_equal(guest_write(&fake_vm, GPA(0x1000), code, sizeof(code)), 0);
	assert_string_equal(gdb_ask("Z1,5000,1"), "OK");
	fake_vcpu.reg[VR_DR7] = 0x400;
	fake_vcpu.reg[VR_DR6] = 0xffff0ff0;
	debug_vcpu_load(v);
	v->rip = 0x1000;
	v->gpr[RAX] = 0x20; /* G2 */
	debug_dr_access(v);
	assert_int_equal(v->debug.dr7, 0x420);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400 | 3 | 0x20);
	debug_dr_access(v);
	assert_int_equal(v->gpr[RBX], 0x420);
	v->gpr[RAX] = 0x8888;
	debug_dr_access(v);
	assert_int_equal(gdb_dr[2], 0x8888);
	debug_dr_access(v);
	assert_int_equal(v->gpr[RBX], 0x8888);
	debug_dr_access(v); /* DR4 is DR6 */
	assert_int_equal(v->gpr[RBX], 0xffff0ff0);
	assert_int_equal(v->rip, 0x100f);
	fake_vcpu.reg[VR_CR4] = 8; /* DE: there is no DR4 */
	v->rip = 0x100c;
	debug_dr_access(v);
	assert_int_equal(v->event.vector, 6);
	v->debug.dr7 |= BIT(13); /* GD */
	debug_dr_access(v);
	assert_int_equal(v->event.vector, 1);
	assert_int_equal(v->debug.dr6, 0xffff0ff0 | BIT(13));
	assert_false(v->debug.dr7 & BIT(13));
	/* a task switch of the CPU's own: what the guest has set for one task is gone, the rest
	 * stays */
	v->debug.dr7 = 0x400 | 0x10 | 0x80;
	debug_vcpu_put(v);
	debug_vcpu_load(v);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400 | 3 | 0x10 | 0x80);
	fake_vcpu.reg[VR_DR7] &= ~0x155ull;
	v->rip = 0x1003;
	debug_dr_access(v);
	assert_int_equal(v->gpr[RBX], 0x400 | 0x80);
	v->debug.dr7 = 0x400 | 0x10;
	debug_vcpu_put(v);
	assert_int_equal(fake_vcpu.reg[VR_DR7], 0x400);
	debug_vcpu_load(v);
	/* and a trap by its TSS is the guest's */
	v->exit.exception.vector = 1;
	v->exit.exception.dr6 = BIT(15);
	v->exit.exception.stepped = false;
	assert_true(debug_exception(v));
	assert_int_equal(v->event.vector, 1);
	assert_true(v->debug.dr6 & BIT(15));
	debug_vcpu_put(v);
}

static void test_running(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	assert_string_equal(gdb_ask("vCont?"), "vCont;c;C;s;S");
	/* one steps, the other stays */
	assert_string_equal(gdb_ask("vCont;s:p7.1"), "(none)");
	assert_true((v->want_step & STEP_DEBUG) && !v->debug.hold && gdb_second.v.debug.hold);
	assert_string_equal(gdb_ask("g"), "(none)"); /* not now */
	v->exit.kind = EXIT_IRQ;
	debug_after_exit(v);
	assert_true((v->want_step & STEP_DEBUG));
	v->exit.kind = EXIT_STEP;
	debug_after_exit(v);
	gdb_rest();
	gdb_poll();
	assert_memory_equal(gdb_last(), "T05thread:p7.1;6:", 17);
	assert_false((v->want_step & STEP_DEBUG));
	/* one steps, the other runs; an emulated instruction is a step, too */
	assert_string_equal(gdb_ask("vCont;s:p7.2;c:p7.-1"), "(none)");
	assert_true((gdb_second.v.want_step & STEP_DEBUG) && !gdb_second.v.debug.hold &&
		    !v->debug.hold);
	assert_false((v->want_step & STEP_DEBUG));
	gdb_second.v.exit.kind = EXIT_CPUID;
	gdb_second.v.exit.done = true;
	debug_after_exit(&gdb_second.v);
	gdb_rest();
	gdb_poll();
	assert_non_null(strstr(gdb_last(), "T05thread:p7.2;"));
	assert_true(v->debug.hold);
	/* Ctrl-C */
	assert_string_equal(gdb_ask("vCont;C05"), "(none)");
	assert_false(v->debug.hold || gdb_second.v.debug.hold);
	gdb_sent_len = 0;
	gdb_type("\x03", 1);
	assert_non_null(strstr(gdb_last(), "T02thread:p7.2;"));
	gdb_sent_len = 0;
	gdb_sent[0] = '\0';
	gdb_type("\x03", 1); /* it is stopped */
	assert_string_equal(gdb_sent, "");
	assert_string_equal(gdb_ask("c"), ""); /* gdb uses vCont */
	assert_string_equal(gdb_ask("vCont"), "E22");
	assert_string_equal(gdb_ask("vCont;c:p8.1"), "E22");
	assert_string_equal(gdb_ask("vCont;c:"), "E22");
	assert_string_equal(gdb_ask("vCont;"), "E22");
}

/* Two stop at once: data that was touched is not lost, a breakpoint is met again. */
static void test_two_stops(void **state)
{
	(void)state;
	assert_string_equal(gdb_ask("vCont;c"), "(none)");
	fake_vcpu.v.debug.stop = DEBUG_BREAK + BREAK_SOFT;
	gdb_second.v.debug.stop = DEBUG_BREAK + BREAK_WRITE;
	gdb_second.v.debug.address = 0x1234;
	gdb_sent_len = 0;
	gdb_poll();
	assert_non_null(strstr(gdb_last(), "p7.1;swbreak"));
	gdb_ask("vCont;c");
	assert_non_null(strstr(gdb_last(), "p7.2;watch:1234;"));
	fake_vcpu.v.debug.stop = DEBUG_BREAK + BREAK_SOFT;
	assert_string_equal(gdb_ask("vCont;s:p7.2"), "(none)");
	assert_int_equal(fake_vcpu.v.debug.stop, DEBUG_NONE);
}

static void test_ends(void **state)
{
	(void)state;
	gdb_ask("vCont;c");
	gdb_sent_len = 0;
	vm_stop(&fake_vm, STOP_POWEROFF, "x");
	gdb_poll();
	assert_string_equal(gdb_last(), "W00;process:7");
	assert_false(debug_attached(&fake_vm));
	assert_string_equal(gdb_ask("qXfer:threads:read::0,fff"), "l<threads></threads>");
	/* a crash; and what is left can be looked at */
	fake_vm.state = VM_RUNNING;
	assert_non_null(strstr(gdb_ask("vAttach;7"), "T05thread:p7.1;"));
	gdb_ask("vCont;c");
	gdb_sent_len = 0;
	vm_stop(&fake_vm, STOP_TRIPLE_FAULT, "x");
	gdb_poll();
	assert_string_equal(gdb_last(), "X06;process:7");
	assert_non_null(strstr(gdb_ask("vAttach;7"), "T05thread:p7.1;"));
	assert_int_equal(strlen(gdb_ask("m1000,1")), 2);
	gdb_virt_off = true;
	assert_string_equal(gdb_ask("g"), "E22");
	gdb_virt_off = false;
	assert_string_equal(gdb_ask("vCont;c"), "X06;process:7");
	/* a step stops, and what comes then ends; but who only steps is told, too */
	fake_vm.state = VM_RUNNING;
	gdb_ask("vAttach;7");
	assert_string_equal(gdb_ask("vCont;s:p7.2;c:p7.-1"), "(none)");
	vm_stop(&fake_vm, STOP_POWEROFF, "x");
	gdb_poll();
	assert_memory_equal(gdb_last(), "T1cthread:p7.2;6:", 17);
	assert_string_equal(gdb_ask("vCont;C1c:p7.2"), "W00;process:7");
	gdb_ask("vAttach;7");
	for (u32 i = 0; i < 8; i++)
		assert_memory_equal(gdb_ask("vCont;s:p7.1"), "T1cthread:p7.1;6:", 17);
	assert_string_equal(gdb_ask("vCont;s:p7.1"), "W00;process:7");
	/* it has begun anew: breakpoints are not in its memory */
	fake_vm.state = VM_RUNNING;
	gdb_ask("vAttach;7");
	assert_string_equal(gdb_ask("Z0,1000,1"), "OK");
	gdb_ask("vCont;c");
	fake_vm.starts++;
	assert_int_equal(guest_write(&fake_vm, GPA(0x1000), "\xcc", 1), 0);
	gdb_sent_len = 0;
	gdb_poll();
	assert_string_equal(gdb_last(), "W00;process:7");
	assert_int_equal(at(0x1000), 0xcc);
	/* one that did not run is held when it starts */
	assert_non_null(strstr(gdb_ask("vAttach;9"), "T05thread:p9.1;"));
	assert_true(gdb_other.vcpus[0]->debug.hold);
	assert_string_equal(gdb_ask("vAttach;5"), "E22");
	assert_string_equal(gdb_ask("vAttach;"), "E22");
	assert_string_equal(gdb_ask("vKill;9"), "OK");
	assert_string_equal(gdb_ask("vKill;"), "E22");
}

static void test_two_vms(void **state)
{
	(void)state;
	gdb_other.state = VM_RUNNING;
	gdb_other.starts = 1;
	assert_non_null(strstr(gdb_ask("vAttach;9"), "T05thread:p9.1;"));
	assert_non_null(strstr(gdb_ask("qXfer:threads:read::0,fff"), "\"p9.1\""));
	assert_string_equal(gdb_ask("vCont;c:p9.-1"), "(none)");
	assert_true(fake_vcpu.v.debug.hold && !gdb_other.vcpus[0]->debug.hold);
	gdb_type("\x03", 1);
	assert_string_equal(gdb_ask("D;9"), "OK");
	assert_false(debug_attached(&gdb_other));
	assert_true(debug_attached(&fake_vm));
	assert_string_equal(gdb_ask("D;x"), "E22");
	assert_string_equal(gdb_ask("D"), "OK");
	assert_false(debug_attached(&fake_vm));
}

/* The line was cut while the guest ran: another gdb finds it without the breakpoints of the first.
 */
static void test_again(void **state)
{
	(void)state;
	assert_string_equal(gdb_ask("Z0,1000,1"), "OK");
	assert_string_equal(gdb_ask("Z1,1000,1"), "OK");
	gdb_ask("vCont;c");
	gdb_ask(HELLO);
	assert_non_null(strstr(gdb_ask("?"), "T05thread:p7.1;"));
	assert_int_equal(at(0x1000), 0);
	assert_int_equal(fake_vm.debug->hard[0].len, 0);
}

static void test_monitor(void **state)
{
	static char line[2 * 400 + 8] = "qRcmd,";

	(void)state;
	assert_string_equal(gdb_ask("qRcmd,766d73"), "OK");
	assert_non_null(strstr(gdb_sent, "$O72616e3a20#"));
	assert_non_null(strstr(gdb_sent, "$O766d73#"));
	assert_string_equal(gdb_ask("qRcmd,"), "OK");
	assert_non_null(strstr(gdb_sent, "$O68656c70#"));
	assert_string_equal(gdb_ask("qRcmd,7"), "E22");
	assert_string_equal(gdb_ask("qRcmd,6c6f6e67"), "OK");
	assert_true(gdb_sent_len < 2 * 16384 + 4096); /* no more than the line can take at once */
	memset(line + 6, '6', 2 * 400);
	assert_string_equal(gdb_ask(line), "E22");
}

/* ---- After a crash ---- */

static void open_postmortem(void)
{
	static const struct trap_frame frames[2] = {
		{ .rax = 0x11, .rbp = 0x77, .r15 = 0xff, .rip = 0xffffffff80001234, .rsp = 0x88 },
		{ .rip = 0xffffffff80005678 },
	};

	gdb_crashed = true;
	postmortem_frames[2] = &frames[0];
	postmortem_frames[1] = &frames[1];
	assert_non_null(strstr(gdb_ask(HELLO), "qXfer:threads:read+"));
}

static void test_postmortem(void **state)
{
	const char *text;

	(void)state;
	open_postmortem();
	assert_string_equal(gdb_ask("?"), "T06thread:3;");
	assert_string_equal(gdb_ask("qC"), "QC3");
	assert_string_equal(
		gdb_ask("qXfer:threads:read::0,fff"),
		"l<threads><thread id=\"1\" name=\"CPU 0\">does not answer, no vCPU</thread>"
		"<thread id=\"2\" name=\"CPU 1\">for vm/1</thread>"
		"<thread id=\"3\" name=\"CPU 2\">crashed, no vCPU</thread></threads>");
	text = gdb_ask("g");
	assert_int_equal(strlen(text), 2 * (17 * 8 + 7 * 4));
	assert_memory_equal(text, "1100000000000000", 16);
	assert_memory_equal(text + 16ul * 6,
			    "7700000000000000"
			    "8800000000000000",
			    32);
	assert_memory_equal(text + 16ul * 15,
			    "ff00000000000000"
			    "34120080ffffffff",
			    32);
	assert_memory_equal(text + 16ul * 17 + 8ul * 3, "xxxxxxxx", 8); /* ds */
	assert_string_equal(gdb_ask("p10"), "34120080ffffffff");
	assert_string_equal(gdb_ask("p3a"), "9a78563412000000");
	assert_string_equal(gdb_ask("p28"), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
	assert_string_equal(gdb_ask("p42"), "E22");
	assert_string_equal(gdb_ask("p"), "E22");
	/* other CPUs; one that did not answer has no registers */
	assert_string_equal(gdb_ask("Hg2"), "OK");
	assert_string_equal(gdb_ask("p10"), "78560080ffffffff");
	assert_string_equal(gdb_ask("T3"), "OK");
	assert_string_equal(gdb_ask("Hg0"), "OK");
	assert_string_equal(gdb_ask("qC"), "QC2");
	assert_string_equal(gdb_ask("Hg1"), "OK");
	assert_string_equal(gdb_ask("p10"), "xxxxxxxxxxxxxxxx");
	assert_string_equal(gdb_ask("T4"), "E22"); /* it is offline */
	assert_string_equal(gdb_ask("Hg5"), "E22");
	assert_string_equal(gdb_ask("Hgx"), "E22");
	assert_string_equal(gdb_ask("Hg100000001"), "E22");
}

static void test_postmortem_memory(void **state)
{
	(void)state;
	open_postmortem();
	assert_string_equal(gdb_ask("m1ffe,2"), "feff");
	assert_string_equal(gdb_ask("m1ffe,8"), "feff");
	assert_string_equal(gdb_ask("m1ffe,0"), "");
	assert_string_equal(gdb_ask("m0,4"), "E14");
	assert_string_equal(gdb_ask("m1000"), "E22");
	assert_int_equal(strlen(gdb_ask("m1000,ffffffffffffffff")), GDB_PACKET);
	/* nothing changes, nothing runs */
	assert_string_equal(gdb_ask("M1000,1:00"), "E01");
	assert_string_equal(gdb_ask("P10=0000000000000000"), "E01");
	assert_string_equal(gdb_ask("G00"), "E01");
	assert_string_equal(gdb_ask("c"), "E01");
	assert_string_equal(gdb_ask("s"), "E01");
	assert_string_equal(gdb_ask("X1000,0:"), "");
	assert_string_equal(gdb_ask("Z0,1000,1"), "");
	assert_string_equal(gdb_ask("vCont?"), "");
	gdb_type("\x03", 1);
	assert_string_equal(gdb_ask("D"), "OK");
	assert_int_equal(gdb_resets, 0);
	gdb_ask("k");
	assert_int_equal(gdb_resets, 1);
}

/* Whatever else there is gets an empty answer. */
static void test_unknown(void **state)
{
	static const char *const asked[] = { "qTStatus", "vFile:open", "R00",	  "i",
					     "b",	 "qL",	       "x1000,4", "j",
					     "vRun;",	 "z",	       "",	  "QPassSignals" };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(asked); i++) {
		const char *answer = gdb_ask(asked[i]);

		assert_true(!*answer || !strcmp(answer, "E22"));
	}
}

#define SERVER(f) cmocka_unit_test_setup(f, connected)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_acks),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_hello),
		SERVER(test_threads),
		SERVER(test_description),
		SERVER(test_registers),
		SERVER(test_fpu),
		SERVER(test_memory),
		SERVER(test_paging),
		SERVER(test_soft),
		SERVER(test_hard),
		SERVER(test_dr_access),
		SERVER(test_running),
		SERVER(test_two_stops),
		SERVER(test_ends),
		SERVER(test_two_vms),
		SERVER(test_again),
		SERVER(test_monitor),
		SERVER(test_postmortem),
		SERVER(test_postmortem_memory),
		SERVER(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
