/* SPDX-License-Identifier: MIT */
/*
 * Commands that look into CPUs, vCPUs and guests, and what scripts get of all commands: tags, JSON,
 * the trace's dump and what tools/trace makes of it. On the made-up machine of debug_fake.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/trace.h"
#include "debug/console.h"
#include "debug/monitor.h"
#include "debug/status.h"
#include "tests/unit/debug_fake.h"
#include "tests/unit/host.h"
#include "tests/unit/monitor_expect.h"

static const struct monitor_actions actions = { .version = "1.2.3" };

static int setup(void **state)
{
	(void)state;
	fake_open(&actions);
	status_init();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	console_edit_end(); /* the next test begins with an empty terminal */
	return 0;
}

/* Rows become objects, whatever the command; a script's tag stands before each line. */
static void for_scripts(void **state)
{
	(void)state;
	expect("version -j", "{\"version\":\"1.2.3\"}\r\n");
	expect_part("-j vms",
		    "{\"vm\":\"linux\",\"id\":1,\"state\":\"running\",\"reason\":\"none\",");
	expect_part("mem -j", "{\"owner\":\"guest memory\",\"kib\":");
	expect_part("mem -j", ".0}\r\n");
	expect_part("rmap -j 7", "{\"pfn\":\"0x7\",\"owner\":\"free\",");
	expect("rmap -j", "{\"text\":\"usage: rmap PFN\"}\r\n");
	expect_part("help vm -j", "{\"text\":\"example: vm linux info\"}\r\n");
	expect("x\"\\ -j", "{\"text\":\"x\\\"\\\\: no such command (see help)\"}\r\n");
	expect("@7 version", "@7 version=1.2.3\r\n@7 end lines=1\r\n");
	expect("@7 version -j", "@7 {\"version\":\"1.2.3\"}\r\n@7 end lines=1\r\n");
	expect("@7", "@7 end lines=0\r\n");
	expect("@7 aa b c d e f g h i", "@7 aa: no such command (see help)\r\n@7 end lines=1\r\n");
	expect("@7 vm b c d e f g h i j k -j",
	       "@7 usage: vm NAME start|stop|reset|info|destroy|create|powerbutton|sleepbutton\r\n"
	       "@7 end lines=1\r\n");
	expect("version", "version=1.2.3\r\n"); /* it does not last */
}

static void json_rows(void **state)
{
	static const char *const rows[][2] = {
		{ "a=1 b=-2 c=0 d=1.5 e=0x1 f=01 g=1. h=- i=.5 j=1.2.3",
		  "{\"a\":1,\"b\":-2,\"c\":0,\"d\":1.5,\"e\":\"0x1\",\"f\":\"01\","
		  "\"g\":\"1.\",\"h\":\"-\","
		  "\"i\":\".5\",\"j\":\"1.2.3\"}" },
		{ "a=\"\" b=\"x y=z\" c=", "{\"a\":\"\",\"b\":\"x y=z\",\"c\":\"\"}" },
		{ "a=1  b=2", "{\"text\":\"a=1  b=2\"}" },
		{ "a=\"1", "{\"text\":\"a=\\\"1\"}" },
		{ "a=1 ", "{\"text\":\"a=1 \"}" },
		{ "a=b\"c", "{\"text\":\"a=b\\\"c\"}" },
		{ "=1", "{\"text\":\"=1\"}" },
		{ "", "{\"text\":\"\"}" },
	};
	char line[256];

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		fake_clear();
		monitor_print_begin(NULL, true);
		monitor_printf("%s\n", rows[i][0]);
		monitor_print_end();
		snprintf(line, sizeof(line), "%s\r\n", rows[i][1]);
		if (!fake_said(line))
			fail_msg("%s became %s", rows[i][0], fake_serial.text);
	}
}

static struct trace_event ring[TRACE_EVENTS_KEPT] ALIGNED(TRACE_BYTES);

/* As virt/vcpu.c does. */
static void put_exit(u64 who, u64 rip, u64 detail)
{
	trace_end(trace_begin(), who, rip, detail, this_cpu(trace_ring).exit_step);
}

static void trace_command(void **state)
{

	(void)state;
	memset(ring, 0, sizeof(ring));
	trace_give_memory(0, ring);
	expect_part("trace", "cpu=0 events=0\r\ncpu=1 events=0\r\n");
	expect_part("trace", "class=exit on=1 events=0\r\n");
	trace(TRACE_KICK, 0, 1, 0, 0);
	trace(TRACE_MAP, TRACE_WHO(1, 0), 2, 0x1000, 0x2000);
	put_exit(TRACE_WHO(1, 0) | EXIT_CPUID, 0xffffffff81000000, 7);
	put_exit(TRACE_WHO(1, 0) | EXIT_IO, 1, 2);
	expect_part("trace", "cpu=0 events=4\r\n");
	expect_part("trace", "class=exit on=1 events=2\r\n");
	expect_part("trace off exit", "class=exit on=0 events=2\r\nclass=inject on=1 events=0\r\n");
	put_exit(TRACE_WHO(1, 0) | EXIT_IRQ, 1, 2);
	expect_part("trace", "class=exit on=0 events=2\r\n");
	expect_part("trace off", "class=ipi on=0 events=1\r\n");
	expect_part("trace on vm", "class=ipi on=0 events=1\r\n");
	expect_part("trace on", "class=ipi on=1 events=1\r\n");
	expect_part("trace dump 3", "trace_vm=1 name=linux\r\n");
	expect_part("trace dump 3",
		    "trace_type=4 name=cpuid class=exit arg=entered a=rip b=detail\r\n");
	expect_part("trace dump 3", "\r\ntrace_cpu=0 n=3 data=\"");
	expect_part("trace dump", "\r\ntrace_cpu=0 n=1 data=\"");
	expect_part("trace dump", "trace=end lines=2\r\n");
	expect_part("trace dump 3", "trace=end lines=1\r\n");
	expect_part("trace", "class=exit on=1 events=2\r\n"); /* as before */
	expect_part("trace on x", "usage: trace ");
	expect_part("trace dump 0", "usage: trace ");
	expect_part("trace dump 1x", "usage: trace ");
	trace_set_classes(0);
	memset(ring, 0, sizeof(ring));
}

/* Time passes, and the line is empty again. Returns what came meanwhile. */
static const char *later(void)
{
	fake_clear();
	fake_serial_room = 32768;
	fake_timer->fire(fake_timer);
	fake_run_tasks();
	return fake_serial.text;
}

/*
 * A long answer comes in pieces, none of which waits for the line (serial_write() of debug_fake.c
 * sees that); keys wait for its end, and Ctrl-C is one.
 */
static void long_answers(void **state)
{
	u32 pieces = 1;

	(void)state;
	for (u32 i = 0; i < 700; i++)
		log_debug("line %u of the log, which is rather long, as lines of logs are", i);
	fake_clear();
	fake_serial_room = 24000;
	fake_type("@9 log -d\rversion\r");
	assert_null(strchr(fake_serial.text, '['));
	for (; !strstr(later(), "@9 end lines="); pieces++)
		assert_null(strstr(fake_serial.text, "line 699"));
	assert_true(pieces > 2);
	assert_non_null(strstr(fake_serial.text, "line 699 of the log"));
	if (!strstr(fake_serial.text, "version="))
		assert_non_null(strstr(later(), "version=1.2.3\r\n"));
	/* not all of it; the trace goes on */
	memset(ring, 0, sizeof(ring));
	trace_give_memory(0, ring);
	trace_set_classes(BIT(TRACE_CLASS_VM));
	for (u32 i = 0; i < 1500; i++)
		trace(TRACE_VM_START, TRACE_WHO(1, 0), 0, 0, 0);
	fake_type("trace dump 1500\rversion\r");
	assert_int_equal(trace_classes(), 0);
	assert_non_null(strstr(later(), "\r\ntrace_cpu=0 n=3 data="));
	fake_type("\x03");
	assert_int_equal(trace_classes(), BIT(TRACE_CLASS_VM));
	assert_null(strstr(fake_serial.text, "trace=end"));
	assert_null(strstr(later(), "version="));
	fake_type("trace dump 1500\r");
	for (pieces = 1; !strstr(later(), "trace=end lines=500\r\n"); pieces++)
		assert_true(pieces < 50);
	assert_true(pieces > 2);
	fake_serial_room = ~0u;
	trace_set_classes(0);
	memset(ring, 0, sizeof(ring));
}

/* What tools/trace makes of a dump that came with other lines in between, one of them damaged. */
static void trace_tool(void **state)
{
	char name[] = "/tmp/corbel-trace-XXXXXX", command[128], got[2048], *line;
	FILE *log = fdopen(mkstemp(name), "w"), *table;
	size_t n;

	(void)state;
	memset(ring, 0, sizeof(ring));
	trace_give_memory(0, ring);
	trace_set_classes(BIT(TRACE_CLASS_COUNT) - 1);
	trace(TRACE_RUN, TRACE_WHO(1, 3), 0, 0x1234, 0);
	put_exit(TRACE_WHO(1, 3) | EXIT_CPUID, 0xffffffff81000000, 7);
	trace(TRACE_INJECT, TRACE_WHO(1, 3), 3 << 8 | 14, 2, 0x1234);
	for (u32 i = 0; i < 3; i++)
		trace(TRACE_KICK, 0, 0x20 + i, 0, 0);
	fake_type("\x03");
	fake_clear();
	fake_type("@x trace dump -j\r");
	fprintf(log, "noise trace=begin\n%s", fake_serial.text);
	fake_clear();
	fake_type("trace dump\r");
	line = strstr(fake_serial.text, "trace_cpu=0 n=3");
	line[40] ^= 1; /* the newest three */
	fprintf(log, "%.*s\nguest: trace_cpu=1 n=3 data=\"\"\n%s", (int)(line - fake_serial.text),
		fake_serial.text, line);
	fclose(log);
	snprintf(command, sizeof(command), "tools/trace --class exit %s 2>&1; tools/trace %s 2>&1",
		 name, name);
	table = popen(command, "r");
	n = fread(got, 1, sizeof(got) - 1, table);
	got[n] = '\0';
	assert_int_equal(pclose(table) >> 8, 1);
	unlink(name);
	if (!strstr(got, "  0 linux/3          exit    cpuid          guest_ticks=") ||
	    !strstr(got, " rip=0xffffffff81000000 detail=7\n") ||
	    !strstr(got, "  0 linux/3          inject  inject         vector=14 type=3 error=2 "
			 "rip=0x1234\n") ||
	    !strstr(got, "1 of 2 lines are missing or damaged\n") || strstr(got, "kick"))
		fail_msg("%s", got);
	trace_set_classes(0);
	memset(ring, 0, sizeof(ring));
}

static void put_entry(u32 at, u64 entry)
{
	memcpy(fake_guest_memory + at, &entry, sizeof(entry));
}

static void registers(void **state)
{
	struct vcpu *v = fake_linux.vcpus[1];

	(void)state;
	virt_ops = &fake_ops;
	v->cpu = 1;
	v->rip = 0xffffffff81000000;
	v->gpr[R9] = 0x99;
	fake_regs[VR_CR3] = 0x3000;
	expect_part("regs linux 1", "vm=linux vcpu=1 rip=0xffffffff81000000 rflags=0x00000000 ");
	expect_part("regs linux 1", " r9=0x0000000000000099 ");
	expect_part("regs linux/1", " cr3=0x0000000000003000 ");
	expect_part("regs linux/1",
		    "vm=linux vcpu=1 seg=ss selector=0x0008 base=0x0000000000002000 ");
	/* on the CPU that has it loaded nothing is loaded or put */
	fake_loads = 0;
	v->loaded_cpu = 1;
	expect_part("regs linux 1", " cr3=0x0000000000003000 ");
	assert_int_equal(fake_loads, 0);
	v->loaded_cpu = CPU_NONE;
	v->cpu = 2; /* has no virtualization */
	expect("regs linux 1", "regs linux: vCPU 1 can't be read: no CPU runs it\r\n");
	expect("regs linux 2", "regs linux: no vCPU 2: it has 2\r\n");
	expect("regs x", "regs x: no such VM (see vms)\r\n");
	expect("vmcb linux", "vm=linux vcpu=0 field=exit_code value=0x72\r\n"
			     "vm=linux vcpu=0 field=rip value=0x0\r\n"
			     "vm=linux vcpu=0 field=intercept2 value=0x8000000000010005 "
			     "bits=\"vmrun vmload bit16 bit63\"\r\n"
			     "vm=linux vcpu=0 field=PROC_CONTROLS value=0x80000006 "
			     "bits=\"bit1 interrupt-window secondary\"\r\n"
			     "vm=linux vcpu=0 field=np_control value=0x0 bits=\"\"\r\n"
			     "vm=linux vcpu=0 field=event_inj value=0x80000b0e vector=14 "
			     "type=exception error_code=1\r\n"
			     "vm=linux vcpu=0 field=EXIT_INTR_INFO value=0xb0e type=none\r\n");
	expect("vmcs linux", "vmcs: this machine has vmcb\r\n");
	expect("msr 1 10", "cpu=1 msr=0x10 value=0x1001\r\n");
	expect("msr 0 11", "msr 0 0x11: #GP: this CPU has no such MSR\r\n");
	expect("msr 3 10", "msr 3 0x10: this CPU is not online\r\n");
	expect("msr 3 100000000", "usage: msr CPU N\r\n");
}

static void guest_memory(void **state)
{
	(void)state;
	virt_ops = &fake_ops;
	memcpy(fake_guest_memory + 0x5ffe, "hi\x01\"lo", 6);
	expect("x linux p:5ffe 4", "addr=0x5ffe hex=\"68 69\" text=\"hi\"\r\n"
				   "addr=0x6000 hex=\"01 22\" text=\".'\"\r\n");
	expect("x linux p:fff8 10",
	       "addr=0xfff8 hex=\"00 00 00 00 00 00 00 00\" text=\"........\"\r\n"
	       "x linux: 0x10000: no memory there\r\n");
	expect("x linux p:50000000 8", "x linux: 0x50000000: its contents are missing\r\n");
	expect("x linux 5ffe 1", "addr=0x5ffe hex=\"68\" text=\"h\"\r\n"); /* no paging */
	/* 4 levels: 0x1000 -> 0x2000 -> 0x3000 -> 0x4000 -> 0x5000; a large page; 32-bit */
	fake_regs[VR_CR0] = X86_CR0_PG | X86_CR0_PE;
	fake_regs[VR_CR4] = X86_CR4_PAE;
	fake_regs[VR_EFER] = BIT(10);
	fake_regs[VR_CR3] = 0x1000;
	put_entry(0x1000 + 511 * 8, 0x2003);
	put_entry(0x2000 + 510 * 8, 0x3003);
	put_entry(0x3000, 0x4003);
	put_entry(0x3008, 0x83);
	put_entry(0x4000 + 7 * 8, BIT(63) | 0x5067);
	expect("x linux ffffffff80007ffe 1", "addr=0xffffffff80007ffe hex=\"68\" text=\"h\"\r\n");
	expect("x linux ffffffff80205ffe 1", "addr=0xffffffff80205ffe hex=\"68\" text=\"h\"\r\n");
	expect("x linux ffffffff80008000 1",
	       "x linux: 0xffffffff80008000: not present in the guest's tables\r\n");
	expect("x linux 7fff00000000000 1",
	       "x linux: 0x7fff00000000000: the address is not canonical\r\n");
	expect_part("walk linux ffffffff80007ffe",
		    "vm=linux vcpu=0 gva=0xffffffff80007ffe cr3=0x1000 levels=4\r\n"
		    "vm=linux guest_level=4 at=0x1ff8 entry=0x2003 kind=table prot=rwx user=0 "
		    "accessed=0 dirty=0 global=0\r\nvm=linux level=4 table=0x1000 ");
	expect_part("walk linux ffffffff80007ffe",
		    "guest_level=1 at=0x4038 entry=0x8000000000005067 kind=leaf prot=rw- user=1 "
		    "accessed=1 dirty=1 global=0\r\nvm=linux level=4 ");
	expect_part("walk linux ffffffff80007ffe",
		    "vm=linux gva=0xffffffff80007ffe gpa=0x5ffe\r\nvm=linux level=4 ");
	expect_part("walk linux ffffffff80008000", " at=0x4040 entry=0x0 kind=empty\r\n");
	expect_part("walk linux ffffffff80008000",
		    "walk linux: not present in the guest's tables\r\n");
	put_entry(0x2000 + 510 * 8, 0x40000003);
	expect_part("walk linux ffffffff80007ffe", "walk linux: a table is where no memory is\r\n");
	put_entry(0x2000 + 510 * 8, 0x50000003);
	expect_part("walk linux ffffffff80007ffe",
		    "walk linux: the contents of a table are missing\r\n");
	fake_regs[VR_EFER] = 0;
	fake_regs[VR_CR4] = X86_CR4_PSE;
	put_entry(0x1000 + 4, 0x00000083); /* 4 MiB at 0x400000 -> 0 */
	expect("x linux 405ffe 1", "addr=0x405ffe hex=\"68\" text=\"h\"\r\n");
	expect("x linux p:0 2049", "usage: x NAME ADDR [COUNT]\r\n");
	expect("x linux q:0", "usage: x NAME ADDR [COUNT]\r\n");
}

static void exits_and_costs(void **state)
{
	struct vcpu *v = fake_linux.vcpus[0];
	u64 who = v->trace.who;

	(void)state;
	memset(ring, 0, sizeof(ring));
	trace_give_memory(0, ring);
	expect_part("exits linux",
		    "vm=linux vcpu=0 exit=io count=700\r\nvm=linux vcpu=0 exit=irq count=70\r\n");
	/* an exit at 1000, the entry before the next exit at 1250: 250 ticks; at 2000: 50 */
	ring[0] = (struct trace_event){ .tsc = 1000, .who = who | EXIT_IO };
	ring[1] = (struct trace_event){ .tsc = 1900, .who = who | EXIT_IO | 1250ull << 32 };
	ring[2] = (struct trace_event){ .tsc = 1920, .who = TRACE_KICK };
	ring[3] = (struct trace_event){ .tsc = 2000, .who = who | EXIT_CPUID | 1950ull << 32 };
	ring[4] = (struct trace_event){ .tsc = 2001, .who = who | TRACE_REST };
	ring[5] = (struct trace_event){ .tsc = 9000, .who = who | EXIT_IO | 8000ull << 32 };
	this_cpu(trace_ring).next.low = 6 * sizeof(ring[0]);
	expect_part("exits linux", "exit=io count=700 traced=2 ticks_avg=150 ticks_max=250\r\n");
	expect_part("exits linux", "vcpu=0 exit=cpuid count=5\r\n");
	expect_part("exits linux -r", "vcpu=0 exit=cpuid count=5\r\n");
	expect("exits linux", "");
	v->exits[EXIT_CPUID]++;
	expect("exits linux", "vm=linux vcpu=0 exit=cpuid count=1\r\n");
	expect("exits linux x", "usage: exits NAME [-r]\r\n");
	trace_set_classes(0);
	memset(ring, 0, sizeof(ring));
}

static void top(void **state)
{
	(void)state;
	expect_part("@1 top", "@1 CPUs: 3 of 4 online");
	expect_part("@1 top", "@1 end lines=");
	fake_clear();
	fake_type("top\r");
	assert_true(fake_said("any key ends this") && fake_said("\x1b[H\x1b[2J"));
	fake_clear();
	for (u32 i = 0; i < 2; i++) {
		assert_non_null(fake_timer);
		fake_timer->fire(fake_timer);
		fake_run_tasks();
	}
	assert_true(fake_said("any key ends this"));
	fake_type("v"); /* is swallowed */
	fake_clear();
	fake_run_tasks();
	expect("version", "version=1.2.3\r\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(for_scripts),  TEST(json_rows),	   TEST(trace_command),
		TEST(long_answers), TEST(trace_tool),	   TEST(registers),
		TEST(guest_memory), TEST(exits_and_costs), TEST(top),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
