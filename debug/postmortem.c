/* SPDX-License-Identifier: MIT */
/* gdb manual, appendix "Remote Serial Protocol". */
#include "arch/x86/acpi.h"
#include "debug/gdb_regs.h"
#include "debug/postmortem.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "virt/sched.h"

#define NOT_PERMITTED "E01"
#define BAD_ADDRESS   "E14"
#define INVALID	      "E22"

const struct trap_frame *postmortem_frames[MAX_CPUS];
static struct gdb_link link;
static u32 crashed_cpu, selected;

static void reply(const char *text)
{
	gdb_reply(&link, text);
}

/* Threads are numbered from 1 on. */
static void reply_thread(const char *fmt, u32 cpu)
{
	char text[32];

	fmt_snprintf(text, sizeof(text), fmt, cpu + 1);
	reply(text);
}

static void describe_threads(struct gdb_doc *d)
{
	char text[VM_NAME_MAX + 100];

	gdb_doc(d, "<threads>");
	for_each_cpu(cpu, &cpus_online) {
		const struct vcpu *v = sched_current(cpu);

		fmt_snprintf(text, sizeof(text), "<thread id=\"%x\" name=\"CPU %u\">%s", cpu + 1,
			     cpu,
			     cpu == crashed_cpu	      ? "crashed, "
			     : postmortem_frames[cpu] ? ""
						      : "does not answer, ");
		gdb_doc(d, text);
		fmt_snprintf(text, sizeof(text), v ? "for %s/%u</thread>" : "no vCPU</thread>",
			     v ? v->vm->name : "", v ? v->index : 0);
		gdb_doc(d, text);
	}
	gdb_doc(d, "</threads>");
}

/* ---- Registers and memory ---- */

/* In gdb's order. */
#define AT(reg) (offsetof(struct trap_frame, reg) / sizeof(u64))
static const u8 words[] = { AT(rax), AT(rbx), AT(rcx), AT(rdx),	   AT(rsi), AT(rdi), AT(rbp),
			    AT(rsp), AT(r8),  AT(r9),  AT(r10),	   AT(r11), AT(r12), AT(r13),
			    AT(r14), AT(r15), AT(rip), AT(rflags), AT(cs),  AT(ss) };

/* gs_base is what this CPU's own variables are found by. Others are not known: "x". */
static void put_reg(u32 n)
{
	const struct trap_frame *f = postmortem_frames[selected];
	u64 value = cpus[selected].percpu_offset;
	u32 size = gdb_reg_size(n);

	if (f && n < ARRAY_SIZE(words))
		value = ((const u64 *)f)[words[n]];
	else if (n != GDB_GS_BASE)
		for (; size; size--)
			gdb_put(&link, "xx", 2);
	gdb_hex(&link, &value, size);
}

static void put_regs(u32 from, u32 to)
{
	gdb_begin(&link);
	while (from < to)
		put_reg(from++);
	gdb_send(&link);
}

static void read_registers(const char *s)
{
	(void)s;
	put_regs(0, GDB_G_REGS);
}

static void read_register(const char *s)
{
	u64 n;

	if (gdb_get_number(&s, &n) && n < GDB_REGS)
		put_regs((u32)n, (u32)n + 1);
	else
		reply(INVALID);
}

static void read_memory(const char *s)
{
	static u8 buf[GDB_PACKET / 2];
	u64 address, len, n;

	if (!gdb_get_range(&s, &address, &len))
		return reply(INVALID);
	n = MIN(len, sizeof(buf));
	n -= peek(buf, address, n);
	if (len && !n)
		return reply(BAD_ADDRESS);
	gdb_begin(&link);
	gdb_hex(&link, buf, n);
	gdb_send(&link);
}

/* ---- Packets ---- */

/* 0 and -1 are any: the one that is selected. */
static void select_thread(const char *s)
{
	u64 id;

	if (!strcmp(s, "0") || !strcmp(s, "-1"))
		return reply("OK");
	if (!gdb_get_number(&s, &id) || *s || !id || id > nr_cpus ||
	    !bitmap_test(cpus_online.bits, (u32)id - 1))
		return reply(INVALID);
	selected = (u32)id - 1;
	reply("OK");
}

static void thread_alive(const char *s)
{
	u32 before = selected;

	select_thread(s);
	selected = before;
}

static void current_thread(const char *s)
{
	(void)s;
	reply_thread("QC%x", selected);
}

static void reason(const char *s)
{
	(void)s;
	selected = crashed_cpu;
	reply_thread("T06thread:%x;", crashed_cpu); /* SIGABRT */
}

static void no_ack(const char *s)
{
	(void)s;
	reply("OK");
	gdb_link_no_acks(&link);
}

static void read_features(const char *s)
{
	gdb_doc_reply(&link, s, gdb_describe);
}

static void read_threads(const char *s)
{
	gdb_doc_reply(&link, s, describe_threads);
}

static void reset(const char *s)
{
	(void)s;
	log_err("corbel: reset: gdb wants it");
	machine_reset();
}

static const struct {
	const char *name;
	void (*run)(const char *s); /* what follows the name */
	const char *reply;	    /* without run */
} packets[] = {
	{ "?", reason, NULL },
	{ "D", NULL, "OK" },
	{ "G", NULL, NOT_PERMITTED },
	{ "Hc", thread_alive, NULL },
	{ "Hg", select_thread, NULL },
	{ "M", NULL, NOT_PERMITTED },
	{ "P", NULL, NOT_PERMITTED },
	{ "QStartNoAckMode", no_ack, NULL },
	{ "T", thread_alive, NULL },
	{ "c", NULL, NOT_PERMITTED },
	{ "g", read_registers, NULL },
	{ "k", reset, NULL },
	{ "m", read_memory, NULL },
	{ "p", read_register, NULL },
	{ "qAttached", NULL, "1" },
	{ "qSupported", NULL,
	  "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+" },
	{ "qXfer:features:read:target.xml:", read_features, NULL },
	{ "qXfer:threads:read::", read_threads, NULL },
	{ "s", NULL, NOT_PERMITTED },
	{ "qC", current_thread, NULL }, /* behind longer names */
};
_Static_assert(GDB_PACKET == 0x1000, "qSupported says so");

static void packet(const char *s)
{
	for (u32 i = 0; i < ARRAY_SIZE(packets); i++) {
		size_t n = strlen(packets[i].name);

		if (strncmp(s, packets[i].name, n))
			continue;
		if (packets[i].run)
			packets[i].run(s + n);
		else
			reply(packets[i].reply);
		return;
	}
	reply("");
}

void postmortem_init(u32 crashed, void (*write)(const char *bytes, size_t n))
{
	crashed_cpu = selected = crashed;
	gdb_link_init(&link, write);
}

void postmortem_input(u8 c)
{
	switch (gdb_link_byte(&link, c)) {
	case GDB_PACKET_IN:
		packet((const char *)link.in);
		break;
	case GDB_TOO_LONG:
		reply(INVALID);
		break;
	case GDB_INTERRUPT: /* it stands still already */
	case GDB_NOTHING:
		break;
	}
}
