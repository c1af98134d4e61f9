/* SPDX-License-Identifier: MIT */
/* debug/monitor.c, lineedit.c, terminal.c and the commands, on a made-up machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "dev/platform.h"
#include "debug/console.h"
#include "debug/lineedit.h"
#include "debug/monitor.h"
#include "debug/status.h"
#include "lib/error.h"
#include "tests/unit/debug_fake.h"
#include "tests/unit/host.h"
#include "tests/unit/monitor_expect.h"

static void poweroff(void)
{
	strcpy(fake_called, "poweroff");
}

static void reboot(void)
{
	strcpy(fake_called, "reboot");
}

static int vm_reset(struct vm *vm)
{
	snprintf(fake_called, sizeof(fake_called), "reset %s", vm->name);
	return fake_error;
}

static const char *create_vm(const char *name)
{
	snprintf(fake_called, sizeof(fake_called), "create %s", name);
	return fake_error ? "because" : NULL;
}

static const char *destroy_vm(struct vm *vm)
{
	snprintf(fake_called, sizeof(fake_called), "destroy %s", vm->name);
	return fake_error ? "because" : NULL;
}

static const char *clone_vm(struct vm *vm, const char *name)
{
	snprintf(fake_called, sizeof(fake_called), "clone %s as %s", vm->name, name);
	return fake_error ? "because" : NULL;
}

static const char *snapshot_vm(struct vm *vm)
{
	snprintf(fake_called, sizeof(fake_called), "snapshot %s", vm->name);
	return fake_error ? "because" : NULL;
}

static const char *restore_vm(struct vm *vm)
{
	snprintf(fake_called, sizeof(fake_called), "restore %s", vm->name);
	return fake_error ? "because" : NULL;
}

static const struct monitor_actions actions = {
	.version = "1.2.3",
	.poweroff = poweroff,
	.reboot = reboot,
	.vm_reset = vm_reset,
	.vm_create = create_vm,
	.vm_destroy = destroy_vm,
	.vm_clone = clone_vm,
	.vm_snapshot = snapshot_vm,
	.vm_restore = restore_vm,
};

static int setup(void **state)
{
	(void)state;
	fake_open(&actions);
	status_init();
	console_vm_add(&fake_linux, &fake_uart);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	console_vm_remove(&fake_linux);
	console_edit_end(); /* the next test begins with an empty terminal */
	return 0;
}

/* ---- Editing ---- */

static void expect_line(const char *keys, const char *text, u32 cursor)
{
	char expected[256];

	fake_type(keys);
	snprintf(expected, sizeof(expected), "corbel> %s", text);
	assert_string_equal(fake_serial.line, expected);
	assert_int_equal(fake_serial.column, 8 + cursor);
	assert_string_equal(fake_screen.line, expected);
}

#define LEFT  "\x1b[D"
#define RIGHT "\x1b[C"
#define UP    "\x1b[A"
#define DOWN  "\x1b[B"

static void editing(void **state)
{
	(void)state;
	expect_line("", "", 0);
	expect_line("abc", "abc", 3);
	expect_line(LEFT, "abc", 2);
	expect_line("X", "abXc", 3);
	expect_line("\x7f", "abc", 2);
	expect_line("\b", "ac", 1);
	expect_line("\x1b[3~", "a", 1);
	expect_line("\x01one two  ", "one two  a", 9);
	expect_line("\x17", "one a", 4);
	expect_line("\x0b", "one ", 4);
	expect_line(LEFT LEFT RIGHT, "one ", 3);
	expect_line("\x15", " ", 0);
	expect_line("\x04", "", 0);
	expect_line("12345\x1b[H<\x1b[F>", "<12345>", 7);
	expect_line("\x1b[1~(\x1b[4~)", "(<12345>)", 9);
	expect_line("\x1bOH[\x1bOF]\x1b[7~{\x1b[8~}", "{[(<12345>)]}", 13);
	expect_line("\x02\x02\x06\x05\x01", "{[(<12345>)]}", 0);
	expect_line("\x1bOC\x1bOD\x1b[1;5C", "{[(<12345>)]}", 1);
}

static void keys_that_do_nothing(void **state)
{
	(void)state;
	fake_clear();
	expect_line("ab\x1b[5~\x1b[99999~\x1b[24~\x1b[Z\x1bx\x1b\x1b[D", "ab", 1);
	expect_line("\xc3\xa9\x80\xff\x1f", "ab", 1);
	assert_non_null(strchr(fake_serial.text, '\a'));
	expect_line("\x1b\x1b[C", "ab", 2);
}

static void cancel_and_clear(void **state)
{
	(void)state;
	expect_line("poweroff\x0c", "poweroff", 8);
	assert_true(fake_said("\x1b[H\x1b[2J"));
	expect_line("\x03", "", 0);
	assert_true(fake_said("corbel> poweroff"));
	expect_line(UP, "", 0);
	assert_string_equal(fake_called, "");
}

static void only_what_changes_is_sent(void **state)
{
	(void)state;
	fake_type("hello");
	fake_clear();
	fake_type("!");
	assert_string_equal(fake_serial.text, "!");
	fake_clear();
	fake_type(LEFT RIGHT);
	assert_string_equal(fake_serial.text, "\b!");
	fake_clear();
	fake_type("\x7f");
	assert_string_equal(fake_serial.text, "\b\x1b[K");
}

static void long_lines_scroll(void **state)
{
	u32 lines = fake_serial.lines;

	(void)state;
	for (u32 i = 0; i < 300; i++) {
		fake_type("x");
		assert_in_range(fake_serial.line_len, 8, 79);
		assert_in_range(fake_serial.column, 8, 79);
	}
	assert_memory_equal(fake_serial.line, "corbel> ", 8);
	fake_type("\x01");
	assert_int_equal(fake_serial.column, 8);
	assert_int_equal(fake_serial.lines, lines);
	fake_type("\x0b");
	expect_line("a", "a", 1);
}

static void history(void **state)
{
	char text[32];

	(void)state;
	expect_line(UP DOWN, "", 0);
	fake_type("version\r\rversion\nvms\r\n");
	expect_line("draft" UP, "vms", 3);
	expect_line(UP, "version", 7);
	expect_line(UP, "version", 7);
	expect_line("X" DOWN, "vms", 3);
	expect_line(DOWN, "draft", 5);
	expect_line(DOWN, "draft", 5);
	expect_line("\x10\x10", "version", 7);
	expect_line("\x0e\x0e", "draft", 5);
	fake_type("\x03");
	for (u32 i = 0; i < 40; i++) {
		snprintf(text, sizeof(text), "n%u\r", i);
		fake_type(text);
	}
	for (u32 i = 0; i < 30; i++)
		fake_type(UP);
	expect_line("", "n24", 3);
}

/* Whatever is typed, the terminal shows the line that the editor has. */
static void random_keys(void **state)
{
	static const char *const keys[] = { LEFT,      RIGHT,  UP,     DOWN,	    "\x7f",
					    "\x1b[3~", "\x01", "\x05", "\x0b",	    "\x15",
					    "\x17",    "a",    "bcd",  " ",	    "x",
					    "\r",      "\x03", "\x0c", "long word " };
	u64 seed = host_seed();
	struct line line = { 0 };
	struct edit_view view;

	(void)state;
	for (u32 i = 0; i < 20000; i++) {
		const char *key = keys[host_random(&seed) % ARRAY_SIZE(keys)];

		fake_type(key);
		for (const char *c = key; *c; c++) {
			enum line_event event = line_key(&line, (u8)*c);

			if (event == LINE_ENTER || event == LINE_CANCEL)
				line_reset(&line, event == LINE_ENTER);
		}
		if (!(i % 16))
			log_info("a line");
		line_view(&line, "corbel> ", &view);
		assert_int_equal(fake_serial.line_len, view.len);
		assert_memory_equal(fake_serial.line, view.text, view.len);
		assert_int_equal(fake_serial.column, view.cursor);
	}
}

static void completion(void **state)
{
	(void)state;
	expect_line("ver\t", "version ", 8);
	expect_line("\x03"
		    "v\t",
		    "v", 1);
	assert_true(fake_said("\r\nvms  vm  vmcs  vmcb  virt  version\r\ncorbel> v"));
	expect_line("\x03"
		    "vm l\t",
		    "vm l", 4);
	assert_true(fake_said("\r\nlinux  lab\r\n"));
	expect_line("i\t", "vm linux ", 9);
	expect_line("st\t", "vm linux st", 11);
	assert_true(fake_said("\r\nstart  stop\r\n"));
	expect_line("a\t", "vm linux start ", 15);
	expect_line("\t", "vm linux start ", 15);
	expect_line("\x03help pow\t", "help poweroff ", 14);
	expect_line("\x03"
		    "cpus \t",
		    "cpus -v ", 8);
	expect_line("\x03"
		    "cpu 1 d\t",
		    "cpu 1 diff ", 11);
	expect_line("\x03"
		    "cpu \t",
		    "cpu ", 4);
	expect_line("\x03nonsense \t", "nonsense ", 9);
	expect_line("\x03"
		    "mem x\t",
		    "mem x", 5);
	/* In the middle of a line: what stands before the cursor counts. */
	expect_line("\x03vm  info\x01" RIGHT RIGHT RIGHT "lab\t", "vm lab  info", 7);
}

/* ---- Commands ---- */

static void errors(void **state)
{
	(void)state;
	expect("", "");
	expect("   ", "");
	expect("exit", "exit: no such command; did you mean 'exits'? (see help)\r\n");
	expect("powerof", "powerof: no such command; did you mean 'poweroff'? (see help)\r\n");
	expect("xyzzy", "xyzzy: no such command (see help)\r\n");
	expect("averyveryverylongcommand",
	       "averyveryverylongcommand: no such command (see help)\r\n");
	expect("vm foo info", "vm foo: no such VM (see vms)\r\n");
	expect("exits foo", "exits foo: no such VM (see vms)\r\n");
	expect("console foo", "console foo: no such VM (see vms)\r\n");
	expect("console lab", "console lab: it has no console\r\n");
	expect("vm linux",
	       "usage: vm NAME start|stop|reset|info|destroy|create|powerbutton|sleepbutton\r\n");
	expect("vm linux dance",
	       "usage: vm NAME start|stop|reset|info|destroy|create|powerbutton|sleepbutton\r\n");
	expect("vms x", "usage: vms\r\n");
	expect("cpus x", "usage: cpus [-v]\r\n");
	expect("help a b", "usage: help [CMD]\r\n");
	expect("version 1 2 3 4 5 6 7 8 9", "usage: version\r\n");
	expect("cpu 4 diff", "cpu 4: no such CPU (see cpus)\r\n");
	expect("cpu 99999999999 diff", "cpu 99999999999: no such CPU (see cpus)\r\n");
	expect("cpu -1 diff", "cpu -1: no such CPU (see cpus)\r\n");
	expect("cpu 0 offline", "cpu 0 offline: it is the boot CPU\r\n");
	assert_string_equal(fake_called, "offline 0 1");
	expect("cpu 1 offline 1000", "");
	assert_string_equal(fake_called, "offline 1 1000");
	expect("cpu 3 online", "");
	assert_string_equal(fake_called, "online 3 1");
	fake_called[0] = '\0';
	expect("cpu 1 offline 0", "usage: cpu N diff|offline|online [ROUNDS]\r\n");
	expect("cpu 1 diff 2", "usage: cpu N diff|offline|online [ROUNDS]\r\n");
	expect("cpu 1 park", "usage: cpu N diff|offline|online [ROUNDS]\r\n");
	assert_string_equal(fake_called, "");
	expect("cpu 3 diff", "cpu 3: its capabilities were not read\r\n");
}

static void help(void **state)
{
	(void)state;
	expect_part("help", "\r\nvms                                    one line for each VM\r\n");
	expect_part(
		"help", /* words that are too long for their column */
		"powerbutton|sleepbutton\r\n                                       control a VM");
	expect("help vm",
	       "usage: vm NAME start|stop|reset|info|destroy|create|powerbutton|sleepbutton\r\n"
	       "control a VM, or show all about it; destroy and create: of the configuration\r\n"
	       "example: vm linux info\r\n");
	expect("help vmz", "vmz: no such command; did you mean 'vms'? (see help)\r\n");
	expect("version", "version=1.2.3\r\n");
}

static void vms(void **state)
{
	(void)state;
	fake_lab.state = VM_STOPPED;
	fake_lab.stop_reason = STOP_TRIPLE_FAULT;
	expect("vms", "vm=linux id=1 state=running reason=\"none\" vcpus=2 cpus=0-1,3 "
		      "memory_kib=262144 starts=0 "
		      "resets=0 exits=781\r\n"
		      "vm=lab id=2 state=stopped reason=\"triple fault\" vcpus=0 cpus= "
		      "memory_kib=0 starts=0 resets=0 "
		      "exits=0\r\n");
	fake_linux.dead = true;
	expect_part("vms", "vm=linux id=1 state=dead ");
}

static void vm_info(void **state)
{
	static const struct virtio_kind kind = { .name = "virtio-blk" };
	static struct virtio disk = { .kind = &kind,
				      .requests = 5,
				      .bytes = 4096,
				      .dropped = 4,
				      .errors = 3,
				      .broken = 2,
				      .status = 0x4f };
	static struct platform platform = { .virtio[VIRTIO_SLOT_BLK] = &disk };

	(void)state;
	fake_guest("\x1b[2JKernel panic - \x1b[31mnot\x1b[m syncing\r\n");
	strcpy(fake_linux.stop_text, "because \"x\"");
	expect_part("vm linux info", "\r\nvm=linux why=\"because 'x'\"\r\n");
	expect_part("vm linux info",
		    "vm=linux vcpu=1 cpu=0 state=running rip=0x0000000000000000 exits=6 "
		    "last_exit=irq\r\n");
	expect_part("vm linux info",
		    "vm=linux slot=3 gpa=0x0 size=0x10000000 object=own offset=0x0 "
		    "generation=7 flags=no-exec,exit-on-missing\r\n");
	fake_linux.vcpus[1]->wait.fault = (struct memory_fault){ .gpa = GPA(0x1238),
								 .size = 0x1000,
								 .gva = 0xffff800000001238,
								 .gva_valid = true,
								 .sequence = 4,
								 .generation = 7,
								 .slot = 3,
								 .access = ACCESS_W,
								 .kind = MEMORY_MISSING,
								 .rip = 0x1000 };
	expect_part("vm linux info", "vm=linux vcpu=1 memory_fault=4 waits=no kind=missing "
				     "gpa=0x1238 size=0x1000 access=w slot=3 generation=7 "
				     "gva=0xffff800000001238 walk=no rip=0x1000 again=0\r\n");
	expect_part(
		"vm linux info",
		"vm=linux console_written=40 console_unseen=40 input_queued=0 input_lost=0\r\n");
	expect_part("vm linux info", "vm=linux last_line=\"Kernel panic - not syncing\"\r\n");
	assert_false(fake_said("\x1b[31m"));
	assert_false(fake_said("\x1b[2J"));
	assert_false(fake_said("device="));
	fake_linux.platform = &platform;
	expect("vm linux powerbutton", "vm=linux powerbutton=ok\r\n");
	assert_string_equal(fake_called, "press 1");
	expect("vm linux sleepbutton", "vm=linux sleepbutton=ok\r\n");
	assert_string_equal(fake_called, "press 2");
	expect("vm lab powerbutton", "vm lab powerbutton: it is not running\r\n");
	expect_part("vm linux info", "vm=linux device=virtio-blk requests=5 bytes=4096 dropped=4 "
				     "errors=3 broken=2 status=0x4f\r\n");
	fake_linux.platform = NULL;
	expect_part("vm lab info", "vm=lab id=2 state=created");
}

/* The clock of fake_open() has 100 kHz: a tick is 10 us. */
static void status_page(void **state)
{
	(void)state;
	log_warn("something is odd");
	expect("screen status", "");
	assert_int_equal(fake_page, SCREEN_STATUS);
	expect_part("screen", "page=status row=0 text=\"Corbel 1.2.3   up 0:00:");
	expect_part("screen", "text=\"CPUs: 3 of 4 online, 2 run vCPUs\"\r\n");
	expect_part("screen", "text=\"  CPU 1       1 vCPUs,   1 wait   linux/0\"\r\n");
	expect_part("screen", "text=\"linux                             running      2         256 "
			      "        0      0\"\r\n");
	expect_part("screen", "W] something is odd\"\r\n");

	/* a second later: its timer, its task, and rates from then to now */
	fake_linux.vcpus[0]->exits[EXIT_IO] += 5000;
	fake_linux.vcpus[1]->ran += 50000;
	fake_now += 100000;
	fake_timer->fire(fake_timer);
	fake_run_tasks();
	expect_part("screen", "text=\"linux                             running      2         256 "
			      "     49");
	expect_part("screen", "     49\"\r\n");

	/* the keys: from interrupt context, so it is the task that draws */
	fake_timer = NULL;
	fake_key(SCREEN_LOG);
	assert_int_equal(fake_page, SCREEN_STATUS);
	fake_run_tasks();
	assert_int_equal(fake_page, SCREEN_LOG);
	assert_null(fake_timer);
	fake_key(SCREEN_STATUS);
	fake_run_tasks();
	assert_int_equal(fake_page, SCREEN_STATUS);
	assert_non_null(fake_timer);
	expect("screen log", "");
	assert_int_equal(fake_page, SCREEN_LOG);
	expect_part("screen", "page=log\r\n");
	expect_part("screen x", "usage: screen [log|status]");
}

static void sched(void **state)
{
	(void)state;
	fake_linux.vcpus[1]->ran = 1234;
	fake_linux.vcpus[1]->share.weight = 300;
	expect("sched", "cpu=0 vcpus=0 waiting=0 current=none runs=0 slices=0 given=0 wakeups=0 "
			"wakeup_avg_us=0 wakeup_max_us=0\r\n"
			"cpu=1 vcpus=1 waiting=1 current=linux/0 runs=7 slices=3 given=1 wakeups=2 "
			"wakeup_avg_us=4000 wakeup_max_us=6000\r\n"
			"cpu=1 wakeup_below_us=2048 count=1\r\n"
			"cpu=1 wakeup_below_us=8192 count=1\r\n"
			"cpu=2 vcpus=0 waiting=0 current=none runs=0 slices=0 given=0 wakeups=0 "
			"wakeup_avg_us=0 wakeup_max_us=0\r\n"
			"vm=linux vcpu=0 cpu=0 weight=0 ran_us=0\r\n"
			"vm=linux vcpu=1 cpu=0 weight=300 ran_us=12340\r\n");
	expect("sched x", "usage: sched\r\n");
}

static void vm_control(void **state)
{
	(void)state;
	expect("vm lab start", "vm=lab start=ok\r\n");
	assert_string_equal(fake_called, "start lab");
	expect("vm linux stop", "vm=linux stop=ok\r\n");
	assert_string_equal(fake_called, "stop linux 3");
	expect("vm lab stop", "vm lab stop: it is not running\r\n");
	assert_string_equal(fake_called, "");
	expect("vm linux reset", "vm=linux reset=ok\r\n");
	assert_string_equal(fake_called, "reset linux");
	fake_error = -EBUSY;
	expect("vm linux start", "vm linux start: it is running\r\n");
	expect("vm linux reset", "vm linux reset: it is running\r\n");
	fake_error = -ENOENT;
	strcpy(fake_lab.stop_text, "not a kernel");
	expect("vm lab start", "vm lab start: not a kernel\r\n");
	fake_error = -ENODEV;
	expect("vm lab start", "vm lab start: no CPU can run it: see the log\r\n");
	fake_error = 0;
	expect("vm lab destroy", "vm=lab destroy=ok\r\n");
	assert_string_equal(fake_called, "destroy lab");
	expect("vm new create", "vm=new create=ok\r\n");
	assert_string_equal(fake_called, "create new");
	fake_error = -EBUSY;
	expect("vm linux destroy", "vm linux destroy: because\r\n");
	expect("vm linux create", "vm linux create: because\r\n");
	expect("vm absent destroy", "vm absent: no such VM (see vms)\r\n");
	expect("clone linux b", "vm linux clone: because\r\n");
	fake_error = 0;
	expect("clone lab b", "vm=lab clone=ok\r\n");
	assert_string_equal(fake_called, "clone lab as b");
	expect("snapshot lab", "vm=lab snapshot=ok\r\n");
	assert_string_equal(fake_called, "snapshot lab");
	expect("restore lab", "vm=lab restore=ok\r\n");
	assert_string_equal(fake_called, "restore lab");
	expect("restore absent", "restore absent: no such VM (see vms)\r\n");
	expect("clone lab", "usage: clone NAME NEW\r\n");
}

static void console_and_back(void **state)
{
	(void)state;
	fake_clear();
	fake_guest("hello from the guest");
	fake_type("console linux\r");
	assert_true(fake_said("hello from the guest"));
	assert_ptr_equal(console_attached(), &fake_linux);
	fake_clear();
	fake_type("vms\r");
	assert_int_equal(fake_serial.len, 0);
	assert_memory_equal(fake_typed, "vms\r", 4);
	fake_type("\x1d");
	assert_string_equal(fake_serial.line, "corbel> ");
	expect("version", "version=1.2.3\r\n");
}

static void exits(void **state)
{
	(void)state;
	expect("exits linux",
	       "vm=linux vcpu=0 exit=io count=700\r\nvm=linux vcpu=0 exit=irq count=70\r\n"
	       "vm=linux vcpu=0 exit=cpuid count=5\r\nvm=linux vcpu=1 exit=cpuid count=6\r\n");
	expect("exits lab", "");
}

static void cpus_and_virt(void **state)
{
	(void)state;
	expect("cpus", "cpu=0 apic=0 state=online virt=on differences=0 vcpus=0\r\n"
		       "cpu=1 apic=2 state=online virt=on differences=0 vcpus=1\r\n"
		       "cpu=2 apic=4 state=online virt=excluded differences=1 vcpus=0\r\n"
		       "cpu=3 apic=6 state=dead virt=off differences=0 vcpus=0 "
		       "why=\"no answer to SIPI\"\r\n");
	expect_part("cpus -v",
		    "vcpus=0\r\ncpu=2 apic_hex=0x4 package=0 core=1 thread=0 siblings=2\r\n"
		    "cpu=2 tsc_skew_min=-7 tsc_skew_max=5 tsc_agrees=1\r\n"
		    "cpu=2 cap=signature value=0x906ea\r\ncpu=3");
	expect_part("cpus -v", "\r\ncpu=1 apic_hex=0x2 package=0 core=0 thread=2 siblings=0-1\r\n");
	expect_part("cpus -v",
		    "cpu=3 apic_hex=0x6 topology_unknown=\"this CPU never came up\"\r\n");
	cpus[2].apic_id = 0x4ae;
	expect_part("cpus -v", "cpu=2 apic_hex=0x4ae package=149 core=1 thread=2 siblings=2\r\n");
	fake_topology.packages_known = false;
	expect_part("cpus -v", "cpu=2 apic_hex=0x4ae core=299 thread=2 "
			       "siblings=2\r\n");
	strcpy(fake_topology.why, "no \"leaf\"");
	expect_part("cpus -v", "\r\ncpu=0 apic_hex=0x0 topology_unknown=\"no 'leaf'\"\r\n");
	expect("cpu 1 diff", "cpu=1 reference=0 differences=0\r\n");
	expect("cpu 2 diff", "cpu=2 field=\"7_ebx\" rule=superset expected=0xff seen=0x7f\r\n"
			     "cpu=2 reference=0 differences=1\r\n");
	expect("virt", "virt=on backend=none cpus=4 on=2 excluded=1 reference=0\r\n");
}

static void ipi(void **state)
{
	(void)state;
	fake_ipi_calls = 0;
	expect_part("ipi 20", "ipi 20\r\ncpu=0 rounds=20 failures=0 ticks_avg=");
	assert_int_equal(fake_ipi_calls, 4 * 20);
	assert_true(fake_said("\r\ncpu=1 rounds=20 failures=0 ticks_avg="));
	assert_true(fake_said("\r\ncpu=2 rounds=20 failures=10 ticks_avg="));
	assert_true(fake_said("\r\nrounds=20 failures=10 unfinished=0\r\n"
			      "alone=0 rounds=20 failures=0 ticks_avg=100 ticks_min=100 "
			      "ticks_max=100\r\n"));
	expect_part("ipi 100000", "unfinished=3\r\n"); /* it ends, however many are asked for */
	expect("ipi x", "usage: ipi [ROUNDS]\r\n");
	expect("ipi 100001", "usage: ipi [ROUNDS]\r\n");
	expect("ipi 1 2", "usage: ipi [ROUNDS]\r\n");
	/* One that does not come to it is said, each time, until it has. */
	fake_cpu_stuck = 1;
	expect_part("ipi 5", "\r\ncpu=1 rounds=0 failures=0");
	expect_part("ipi 5", "\r\ncpu=1 rounds=0 failures=0");
	assert_true(fake_said("unfinished=1\r\nalone=0 rounds=5"));
	fake_cpu_stuck = CPU_ID_NONE;
	fake_run_tasks();
	expect_part("ipi 5", "\r\ncpu=1 rounds=5 failures=0");
}

static void mem(void **state)
{
	(void)state;
	expect_part("mem", "\r\nowner=\"free\" kib=1024 mib=1.0\r\n");
	expect_part("mem", "\r\nowner=\"guest memory\" kib=9216 mib=9.0\r\n");
	expect_part("mem", "\r\nowner=total kib=56320 mib=55.0\r\nfree_2mib_extents=17\r\n"
			   "rmap_nodes_kib=8 corruptions=0 on_corruption=kill\r\n"
			   "vm=linux kib=262144 mib=256.0\r\n");
}

static void split_lock_command(void **state)
{
	(void)state;
	fake_split_lock = SPLIT_LOCK_UNSUPPORTED;
	expect_part("split-lock", "split_lock=unsupported bus_locks=free why=\"the CPUs don't "
				  "have it\"\r\nvm=linux ");
	expect_part("split-lock on", "split-lock on: not supported: the CPUs don't have it\r\n");
	fake_split_lock = SPLIT_LOCK_OFF_SELF;
	expect_part("split-lock", "split_lock=off-by-corbel bus_locks=free cpu=1 rip=0x1234 "
				  "at=\"somewhere+0x1234\"\r\n");
	expect_part("split-lock off", "split-lock off: it is already\r\n");
	fake_renewed = 0;
	expect_part("split-lock on", "split_lock=on bus_locks=free\r\n");
	assert_int_equal(fake_renewed, 2);
	fake_core = (struct split_lock_core){ .following = SPLIT_LOCK_ON,
					      .current = true,
					      .threads = 2,
					      .passes = 1,
					      .value = 0x10000000,
					      .hardware = 0x10000000,
					      .writes = 5,
					      .uncovered = 7 };
	expect_part("split-lock",
		    "split_lock=on bus_locks=free\r\n"
		    "core=0 cpus=0-1 follows=on current=1 threads=2 passes=1 "
		    "value=0x10000000 hardware=0x10000000 found=0x0 writes=5 opened=0 joined=0 "
		    "expired=0 cancelled=0 uncovered_us=70 spurious=0\r\n");
	expect_part("split-lock", "\r\ncore=2 cpus=2 error=\"");
	expect_part("split-lock", "\r\nvm=linux policy=silent offered=0 seen=0 bus_locks=0 "
				  "injected=0 passed=0 delayed=0 fatal=0\r\n"
				  "vm=lab policy=silent ");
	expect_part("split-lock lab ratelimit:1000000",
		    "vm=lab policy=ratelimit rate=1000000 offered=0 ");
	expect_part("split-lock lab fatal", "vm=lab policy=fatal offered=0 ");
	expect_part("split-lock lab ratelimit:0", "split-lock [NAME|on|off]");
	expect_part("split-lock lab often", "split-lock [NAME|on|off]");
	expect_part("split-lock nobody warn", "split-lock nobody: no such VM");
	expect_part("split-lock", "vm=lab policy=fatal");
}

static void populate(void **state)
{
	static const struct {
		int err;
		const char *text;
	} errors[] = {
		{ -EINVAL, "the range is not a multiple of 4 KiB" },
		{ -EFAULT, "the VM has no memory in some of that range (see vm NAME info)" },
		{ -EEXIST, "nothing is missing there" },
		{ -EBUSY, "it is being fetched" },
		{ -ESRCH, "no vCPU waits there" },
		{ -ENOMEM, "out of memory" },
	};
	char text[128];

	(void)state;
	expect("populate linux 0x201000",
	       "vm=linux populate=ok gpa=0x201000 size=0x1000 waited=2\r\n");
	assert_string_equal(fake_called, "resolve linux 201000 1000 0");
	expect_part("populate linux 0x200000 2M", "size=0x200000");
	expect_part("populate linux 0x200000 0x3000 ro", "size=0x3000");
	assert_string_equal(fake_called, "resolve linux 200000 3000 2");
	expect_part("populate linux 0 1G poison", "size=0x40000000");
	assert_string_equal(fake_called, "resolve linux 0 40000000 3");
	expect_part("populate linux 0 4K rw", "populate=ok");
	assert_string_equal(fake_called, "resolve linux 0 1000 4");
	expect_part("populate linux 0x1000 8K giveup", "size=0x2000 waited=1");
	assert_string_equal(fake_called, "give up linux 1000 2000");
	for (u32 i = 0; i < ARRAY_SIZE(errors); i++) {
		fake_error = errors[i].err;
		snprintf(text, sizeof(text), "populate linux: %s\r\n", errors[i].text);
		expect("populate linux 0 4K", text);
	}
	fake_error = 0;
	expect_part("populate linux", "usage: populate");
	expect_part("populate linux x", "usage: populate");
	expect_part("populate linux 0 4", "usage: populate");
	expect_part("populate linux 0 4T", "usage: populate");
	expect_part("populate linux 0 4K often", "usage: populate");
	expect_part("populate linux 0 99999999999G", "usage: populate");
	expect_part("populate nobody 0", "populate nobody: no such VM");
}

static void slot(void **state)
{
	static const struct {
		int err;
		const char *text;
	} errors[] = {
		{ -ENOENT, "it has no such slot" },
		{ -EINVAL, "the address is not a multiple of 4 KiB" },
		{ -EDOM, "address and offset in the object differ within 2 MiB" },
		{ -ERANGE, "beyond what the CPUs' physical addresses reach" },
		{ -EEXIST, "overlaps another slot" },
		{ -EADDRINUSE, "overlaps a device" },
		{ -ENOSPC, "no space" },
	};
	char text[128];

	(void)state;
	expect("slot linux add mailbox 0x100000000", "vm=linux slot=12 add=ok\r\n");
	assert_string_equal(fake_called, "add linux 100000000 10000000 0 4");
	expect("slot linux add mailbox 0x100000000 read-only", "vm=linux slot=12 add=ok\r\n");
	assert_string_equal(fake_called, "add linux 100000000 10000000 0 5");
	expect("slot linux add x 0x100000000", "slot linux: no [memory] is called x\r\n");
	expect("slot linux remove 3", "vm=linux slot=3 remove=ok\r\n");
	assert_string_equal(fake_called, "remove linux 3");
	expect("slot linux move 3 0x40000000", "vm=linux slot=3 move=ok\r\n");
	assert_string_equal(fake_called, "move linux 3 40000000");
	expect("slot linux flags 3 read-only,log-dirty", "vm=linux slot=3 flags=ok\r\n");
	assert_string_equal(fake_called, "flags linux 3 9");
	expect("slot linux flags 3 none", "vm=linux slot=3 flags=ok\r\n");
	assert_string_equal(fake_called, "flags linux 3 0");
	expect("slot linux dirty 3", "vm=linux slot=3 dirty=0x3000 size=0x3000\r\n"
				     "vm=linux slot=3 dirty=0xffff000 size=0x1000\r\n"
				     "vm=linux slot=3 dirty_pages=4\r\n");
	expect("slot linux dirty 4", "slot linux: dirty: it has no such slot\r\n");
	for (u32 i = 0; i < ARRAY_SIZE(errors); i++) {
		fake_error = errors[i].err;
		snprintf(text, sizeof(text), "slot linux: move: %s\r\n", errors[i].text);
		expect("slot linux move 3 0x1000", text);
	}
	fake_error = -EOPNOTSUPP;
	expect("slot linux dirty 3",
	       "slot linux: dirty: its writes are not logged (flag log-dirty)\r\n");
	fake_error = 0;
	expect_part("slot linux", "usage: slot");
	expect_part("slot linux dirty", "usage: slot");
	expect_part("slot linux move 3", "usage: slot");
	expect_part("slot linux move x 5", "usage: slot");
	expect_part("slot linux remove 65535", "usage: slot");
	expect_part("slot linux flags 3 read", "usage: slot");
	expect_part("slot linux grow 3", "usage: slot");
	expect_part("slot nobody remove 3", "slot nobody: no such VM");
}

static void audit_rmap_and_ept(void **state)
{
	(void)state;
	expect("audit", "audit=all tables=4 leaves=3 keys=3 findings=0\r\n");
	expect("audit lab",
	       "finding=leaf-without-key vm=lab level=1 gfn=0x5 pfn=0x405 seen=0x405007 "
	       "expected=0x51\r\naudit=lab tables=4 leaves=3 keys=3 findings=1\r\n");
	expect("audit x", "audit x: no such VM (see vms)\r\n");
	expect("audit lab x", "usage: audit [NAME]\r\n");

	expect("rmap 0x412",
	       "pfn=0x412 owner=\"guest memory\" vm=lab mappers=2\r\n"
	       "pfn=0x412 mapper=0 vm=linux root=0 level=1 gfn=0x11 state=waits-for-flush\r\n"
	       "pfn=0x412 mapper=1 vm=lab root=0 level=2 gfn=0x812 state=mapped\r\n");
	expect("rmap 7", "pfn=0x7 owner=\"free\" vm=none mappers=0\r\n");
	expect("rmap 0x", "usage: rmap PFN\r\n");
	expect("rmap 12g", "usage: rmap PFN\r\n");
	expect("rmap 12345678123456781", "usage: rmap PFN\r\n");

	expect("ept linux 0x40401234",
	       "vm=linux level=4 table=0x1000 index=0 entry=0x2007 kind=table next=0x2000\r\n"
	       "vm=linux level=3 table=0x2000 index=1 entry=0x3007 kind=table next=0x3000\r\n"
	       "vm=linux level=2 table=0x3000 index=2 entry=0x4000e7 kind=leaf pfn=0x401 prot=rwx "
	       "memtype=wb accessed=1 dirty=1\r\n");
	expect_part("ept linux 200000", "index=2 entry=0x0 kind=empty\r\n");
	expect("ept linux 100000000", "ept linux: 0x100000000 is beyond the VM's address space, "
				      "which ends at 0x100000000\r\n");
	expect("ept linux", "usage: ept NAME GPA\r\n");
	fake_linux.stage2.corruptions = 1;
	expect("ept linux 0", "ept linux: its tables are damaged and not walked\r\n");
	fake_linux.stage2.corruptions = 0;
}

static void log_command(void **state)
{
	(void)state;
	log_debug("only a detail");
	log_info("a fact [D]");
	expect_part("log", "I] a fact [D]\r\n");
	assert_false(fake_said("detail"));
	expect_part("log -d", "D] only a detail\r\n");
}

static void power(void **state)
{
	(void)state;
	fake_type("reboot\r");
	assert_string_equal(fake_called, "reboot");
	fake_type("  poweroff  \r");
	assert_string_equal(fake_called, "poweroff");
	fake_clear();
	fake_type("poweroff now\rreboot now\r");
	assert_string_equal(fake_called, "");
}

static void too_long_for_a_line(void **state)
{
	char wide[1000];

	(void)state;
	memset(wide, 'w', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	fake_clear();
	monitor_printf("begin");
	monitor_printf("%s", wide);
	assert_true(fake_said("beginwww"));
	assert_true(fake_said("www\r\ncorbel> "));
	assert_int_equal(fake_serial.len, 4 + MONITOR_LINE + 2 + 8);
	expect("version", "version=1.2.3\r\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(editing),
		TEST(keys_that_do_nothing),
		TEST(cancel_and_clear),
		TEST(only_what_changes_is_sent),
		TEST(long_lines_scroll),
		TEST(history),
		TEST(random_keys),
		TEST(completion),
		TEST(errors),
		TEST(help),
		TEST(vms),
		TEST(vm_info),
		TEST(sched),
		TEST(status_page),
		TEST(vm_control),
		TEST(console_and_back),
		TEST(exits),
		TEST(cpus_and_virt),
		TEST(ipi),
		TEST(mem),
		TEST(split_lock_command),
		TEST(populate),
		TEST(slot),
		TEST(audit_rmap_and_ept),
		TEST(log_command),
		TEST(power),
		TEST(too_long_for_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
