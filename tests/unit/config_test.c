/* SPDX-License-Identifier: MIT */
/* boot/config.c: what is accepted, what is refused, and in which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "boot/config.h"
#include "lib/string.h"
#include <string.h>

static struct config config;
static char said[64 * 1024];

static void collect(void *arg, const char *line)
{
	size_t used = strlen(said);

	(void)arg;
	for (const char *c = line; *c; c++)
		assert_in_range(*c, ' ', '~');
	snprintf(said + used, sizeof(said) - used, "%s\n", line);
}

static const struct config_sink sink = { .file = "c", .report = collect };

/* The text gets a block of its own size, so that ASan sees every byte read too far. */
static void parse_bytes(const char *text, size_t length)
{
	char *copy = malloc(length + !length);

	memcpy(copy, text, length);
	said[0] = '\0';
	memset(&config, 0xee, sizeof(config));
	config_parse(&config, copy, length, &sink);
	free(copy);
}

static void parse(const char *text)
{
	parse_bytes(text, strlen(text));
}

/* ---- One bad line, one message ---- */

struct bad {
	const char *text;
	const char *said;
};

#define SPLIT_LOCK_IS "silent, warn, fatal, off, or ratelimit:N (N from 1 to 1000000 per second)\n"

static const struct bad bad_corbel[] = {
	{ "serial = com5",
	  "c:2: serial: 'com5' is not auto, none, com1 to com4, or a port like 0x3f8\n" },
	{ "serial = 0x",
	  "c:2: serial: '0x' is not auto, none, com1 to com4, or a port like 0x3f8\n" },
	{ "serial = 0x0",
	  "c:2: serial: '0x0' is not auto, none, com1 to com4, or a port like 0x3f8\n" },
	{ "serial = 0x10000",
	  "c:2: serial: '0x10000' is not auto, none, com1 to com4, or a port like 0x3f8\n" },
	{ "serial = 3f8",
	  "c:2: serial: '3f8' is not auto, none, com1 to com4, or a port like 0x3f8\n" },
	{ "serial =", "c:2: serial: has no value\n" },
	{ "serial", "c:2: 'serial' is not key = value\n" },
	{ "baud = 0", "c:2: baud: '0' is not a rate that divides 115200\n" },
	{ "baud = 115201", "c:2: baud: '115201' is not a rate that divides 115200\n" },
	{ "baud = 7", "c:2: baud: '7' is not a rate that divides 115200\n" },
	{ "baud = fast", "c:2: baud: 'fast' is not a rate that divides 115200\n" },
	{ "baud = -9600", "c:2: baud: '-9600' is not a rate that divides 115200\n" },
	{ "when_idle = sleep", "c:2: when_idle: 'sleep' is not monitor or poweroff\n" },
	{ "attach = nobody", "c:2: attach: no VM is called 'nobody'\n" },
	{ "setup_cpu = 256", "c:2: setup_cpu: '256' is not boot or a CPU number (0 to 255)\n" },
	{ "setup_cpu = 99999999999999999999",
	  "c:2: setup_cpu: '99999999999999999999' is not boot or a CPU number (0 to 255)\n" },
	{ "faults = cpu0:vmxon=\xff", "c:2: faults: 'cpu0:vmxon=.' is not plain ASCII\n" },
	{ "split_lock = on", "c:2: split_lock: 'on' is not " SPLIT_LOCK_IS },
	{ "split_lock = ratelimit", "c:2: split_lock: 'ratelimit' is not " SPLIT_LOCK_IS },
	{ "split_lock = ratelimit:0", "c:2: split_lock: 'ratelimit:0' is not " SPLIT_LOCK_IS },
	{ "split_lock = ratelimit:1000001",
	  "c:2: split_lock: 'ratelimit:1000001' is not " SPLIT_LOCK_IS },
	{ "split_lock = warn:5", "c:2: split_lock: 'warn:5' is not " SPLIT_LOCK_IS },
	{ "on_corruption = stop", "c:2: on_corruption: 'stop' is not kill or panic\n" },
	{ "x_split = yes", "c:2: x_split: 'yes' is not auto, on or off\n" },
	{ "mixed_cpus = allow", "c:2: mixed_cpus: 'allow' is not exclude, refuse or common\n" },
	{ "Serial = auto", "c:2: 'Serial' is not a key of [corbel]\n" },
	{ "memory = 1G", "c:2: 'memory' is not a key of [corbel]\n" },
	{ "= auto", "c:2: '' is not a key of [corbel]\n" },
	{ "=", "c:2: '' is not a key of [corbel]\n" },
	{ "baud = 9600\nbaud = 9600", "c:3: baud: is there twice\n" },
	{ "baud = no\nbaud = 9600",
	  "c:2: baud: 'no' is not a rate that divides 115200\nc:3: baud: is there twice\n" },
	{ "[corbel]", "c:2: corbel: is there already, in line 1\n" },
	{ "[corbel]\nnonsense = 1", "c:2: corbel: is there already, in line 1\n" },
	{ "[corbel", "c:2: '[corbel' has no closing ]\n" },
	{ "[", "c:2: '[' has no closing ]\n" },
	{ "[]", "c:2: '[]' is neither [corbel], [vm NAME] nor [memory NAME]\n" },
	{ "[guest x]\nkernel = k",
	  "c:2: '[guest x]' is neither [corbel], [vm NAME] nor [memory NAME]\n" },
	{ "[vmx]", "c:2: '[vmx]' is neither [corbel], [vm NAME] nor [memory NAME]\n" },
	{ "[vm]", "c:2: vm: '' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "[vm  ]\nwhat = 1", "c:2: vm: '' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "[vm a b]", "c:2: vm: 'a b' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "[vm monitor]", "c:2: vm: 'monitor' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "[vm abcdefghijklmnopqrstuvwxyz123456]",
	  "c:2: vm: 'abcdefghijklmnopqrstuvwxyz123456' is not a name "
	  "(1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "\x1b[31mred", "c:2: byte 0x1b in column 1 is not text\n" },
	{ "baud = 9600\x7f", "c:2: byte 0x7f in column 12 is not text\n" },
	{ "# comment\rbaud = 1", "c:2: byte 0x0d in column 10 is not text\n" },
	{ "baud = \xc3\xa4", "c:2: baud: '..' is not a rate that divides 115200\n" },
};

static void bad_keys_of_corbel_keep_their_default(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_corbel); i++) {
		char text[512];

		snprintf(text, sizeof(text), "[corbel]\n%s\n", bad_corbel[i].text);
		parse(text);
		assert_string_equal(said, bad_corbel[i].said);
		assert_int_not_equal(config.errors, 0);
		assert_int_equal(config.serial, CONFIG_SERIAL_AUTO);
		assert_int_equal(config.when_idle, CONFIG_IDLE_MONITOR);
		assert_int_equal(config.setup_cpu, CONFIG_SETUP_BOOT);
		assert_int_equal(config.mixed_cpus, CONFIG_MIXED_EXCLUDE);
		assert_int_equal(config.split_lock.policy, CONFIG_SPLIT_DEFAULT);
		assert_int_equal(config.on_corruption, CONFIG_CORRUPTION_KILL);
		assert_string_equal(config.attach, "");
		assert_int_equal(config.nr_vms, 0);
		if (!strstr(text, "9600\n"))
			assert_int_equal(config.baud, 115200);
	}
}

static const struct bad bad_vm[] = {
	{ "kernel = a/b",
	  "c:3: kernel: 'a/b' is not a file name: no folders, files are in \\corbel\n" },
	{ "kernel = \\b",
	  "c:3: kernel: '\\b' is not a file name: no folders, files are in \\corbel\n" },
	{ "kernel = ..", "c:3: kernel: '..' is not a file name\n" },
	{ "kernel = a.", "c:3: kernel: 'a.' is not a file name\n" },
	{ "kernel = a?", "c:3: kernel: 'a?' is not a file name\n" },
	{ "kernel = \"a\"", "c:3: kernel: '\"a\"' is not a file name\n" },
	{ "kernel = k\xc3\xa4", "c:3: kernel: 'k..' is not a file name\n" },
	{ "kernel =", "c:3: kernel: has no value\n" },
	{ "kernel = # none", "c:3: kernel: has no value\n" },
	{ "cmdline = x", "c:2: kernel: vm bad has none\n" },
	{ "kernel = k\ninitrd = ", "c:4: initrd: has no value\n" },
	{ "kernel = k\nkernel = k", "c:4: kernel: is there twice\n" },
	{ "kernel = k\nmemory = 25M6", "c:4: memory: '25M6' is not a size\n" },
	{ "kernel = k\nmemory = 256", "c:4: memory: '256' is not a size\n" },
	{ "kernel = k\nmemory = M", "c:4: memory: 'M' is not a size\n" },
	{ "kernel = k\nmemory = 1.5G", "c:4: memory: '1.5G' is not a size\n" },
	{ "kernel = k\nmemory = 256 M", "c:4: memory: '256 M' is not a size\n" },
	{ "kernel = k\nmemory = -1G", "c:4: memory: '-1G' is not a size\n" },
	{ "kernel = k\nmemory = 0x10M", "c:4: memory: '0x10M' is not a size\n" },
	{ "kernel = k\nmemory = 256MB", "c:4: memory: '256MB' is not a size\n" },
	{ "kernel = k\nmemory = 17179869184G", "c:4: memory: '17179869184G' is not a size\n" },
	{ "kernel = k\nmemory = 17179869183G",
	  "c:4: memory: '17179869183G' is more than 16384G\n" },
	{ "kernel = k\nmemory = 0M", "c:4: memory: '0M' is less than 16M\n" },
	{ "kernel = k\nmemory = 16383K", "c:4: memory: '16383K' is less than 16M\n" },
	{ "kernel = k\nmemory = 16385K", "c:4: memory: '16385K' is not a multiple of 4K\n" },
	{ "kernel = k\nvcpus = 0", "c:4: vcpus: '0' is not a number of vCPUs (1 to 64)\n" },
	{ "kernel = k\nvcpus = 65", "c:4: vcpus: '65' is not a number of vCPUs (1 to 64)\n" },
	{ "kernel = k\nvcpus = two", "c:4: vcpus: 'two' is not a number of vCPUs (1 to 64)\n" },
	{ "kernel = k\nweight = 0", "c:4: weight: '0' is not a weight (1 to 1000)\n" },
	{ "kernel = k\nweight = 1001", "c:4: weight: '1001' is not a weight (1 to 1000)\n" },
	{ "kernel = k\ncopies = 0", "c:4: copies: '0' is not a number of VMs (1 to 16)\n" },
	{ "kernel = k\ncopies = 17", "c:4: copies: '17' is not a number of VMs (1 to 16)\n" },
	{ "kernel = k\ncopies = 16\nmac = 02:00:00:00:00:01",
	  "c:4: copies: mac: each needs its own: leave it out\n" },
	{ "kernel = k\ncpus = 1-0",
	  "c:4: cpus: '1-0' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = 0,",
	  "c:4: cpus: '0,' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = ,0",
	  "c:4: cpus: ',0' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = 0-",
	  "c:4: cpus: '0-' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = -1",
	  "c:4: cpus: '-1' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = 0-1-2",
	  "c:4: cpus: '0-1-2' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = 256",
	  "c:4: cpus: '256' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = 0 1",
	  "c:4: cpus: '0 1' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\ncpus = all",
	  "c:4: cpus: 'all' is not a list of CPUs like 0-1,3 (0 to 255)\n" },
	{ "kernel = k\npin = 0", "c:4: pin: '0' is not pairs of vCPU and CPU like 0:1 1:3\n" },
	{ "kernel = k\npin = 0:", "c:4: pin: '0:' is not pairs of vCPU and CPU like 0:1 1:3\n" },
	{ "kernel = k\npin = 0:1,1:3",
	  "c:4: pin: '0:1,1:3' is not pairs of vCPU and CPU like 0:1 1:3\n" },
	{ "kernel = k\npin = 0:256",
	  "c:4: pin: '0:256' is not pairs of vCPU and CPU like 0:1 1:3\n" },
	{ "kernel = k\npin = 64:0",
	  "c:4: pin: '64:0' is not pairs of vCPU and CPU like 0:1 1:3\n" },
	{ "kernel = k\npin = 0:1 0:2", "c:4: pin: '0:1 0:2' names a vCPU twice\n" },
	{ "kernel = k\npin = 0:1 2:0\nvcpus = 2", "c:4: pin: there is no vCPU 2: vcpus = 2\n" },
	{ "kernel = k\npin = 0:3\ncpus = 0-2", "c:4: pin: CPU 3 is not one of cpus\n" },
	{ "kernel = k\napicv = on", "c:4: apicv: 'on' is not auto or off\n" },
	{ "kernel = k\nautostart = true", "c:4: autostart: 'true' is not yes or no\n" },
	{ "kernel = k\nprotocol = elf",
	  "c:4: protocol: 'elf' is not auto, linux, multiboot, pvh or flat\n" },
	{ "kernel = k\nprotocol = flat\naddress = 1000",
	  "c:5: address: '1000' is not an address like 0x100000, below 4 GiB\n" },
	{ "kernel = k\nprotocol = flat\naddress = 0x100000000",
	  "c:5: address: '0x100000000' is not an address like 0x100000, below 4 GiB\n" },
	{ "kernel = k\naddress = 0x1000", "c:4: address: only protocol = flat takes one\n" },
	{ "kernel = k\ndevices = all", "c:4: devices: 'all' is not test\n" },
	{ "kernel = k\nmodule = a/b c",
	  "c:4: module: 'a/b' is not a file name: no folders, files are "
	  "in \\corbel\n" },
	{ "kernel = k\nmodule =", "c:4: module: has no value\n" },
	{ "kernel = k\non_exit = die", "c:4: on_exit: 'die' is not stop, restart or poweroff\n" },
	{ "kernel = k\nbaud = 9600", "c:4: 'baud' is not a key of [vm]\n" },
	{ "kernel = k\ndisk", "c:4: 'disk' is not key = value\n" },
	{ "kernel = k\ndisk = ,readonly",
	  "c:4: disk: ',readonly' is not a file name, or one with ,readonly\n" },
	{ "kernel = k\ndisk = a, ro",
	  "c:4: disk: 'a, ro' is not a file name, or one with ,readonly\n" },
	{ "kernel = k\ndisk = a/b",
	  "c:4: disk: 'a/b' is not a file name: no folders, files are in \\corbel\n" },
	{ "kernel = k\nnet = a b", "c:4: net: 'a b' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
	{ "kernel = k\nmac = 02:00:00:00:00",
	  "c:4: mac: '02:00:00:00:00' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\nmac = 02:00:00:00:00:01:02",
	  "c:4: mac: '02:00:00:00:00:01:02' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\nmac = 02:00:00:00:00:1",
	  "c:4: mac: '02:00:00:00:00:1' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\nmac = 02:00:00:00:0g:01",
	  "c:4: mac: '02:00:00:00:0g:01' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\nmac = 03:00:00:00:00:01",
	  "c:4: mac: '03:00:00:00:00:01' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\nmac = 00:00:00:00:00:00",
	  "c:4: mac: '00:00:00:00:00:00' is not a MAC address like 02:00:00:00:00:01\n" },
	{ "kernel = k\npm_timer = 1", "c:4: pm_timer: '1' is not on or off\n" },
	{ "kernel = k\nrng = yes", "c:4: rng: 'yes' is not on or off\n" },
	{ "kernel = k\n\x01", "c:4: byte 0x01 in column 1 is not text\n" },
	{ "kernel = k\nmemory = 1\nvcpus = 0",
	  "c:4: memory: '1' is not a size\nc:5: vcpus: '0' is not a number of vCPUs (1 to 64)\n" },
	{ "kernel = k\nmemory = 1234567890123456789012345678901234567890123456789X",
	  "c:4: memory: '123456789012345678901234567890123456789012345678...' is not a size\n" },
};

static void a_bad_vm_is_broken_and_others_are_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_vm); i++) {
		char text[512];

		snprintf(text, sizeof(text), "\n[vm bad]\n%s\n[vm good]\nkernel = k\n",
			 bad_vm[i].text);
		parse(text);
		assert_string_equal(said, bad_vm[i].said);
		assert_int_equal(config.nr_vms, 2);
		assert_string_equal(config.vms[0].name, "bad");
		assert_true(config.vms[0].broken);
		assert_string_equal(config.vms[1].name, "good");
		assert_false(config.vms[1].broken);
	}
}

static void long_values_are_refused(void **state)
{
	char text[4096], value[3000];

	(void)state;
	memset(value, 'x', sizeof(value));
	value[CONFIG_FILE_MAX] = '\0';
	snprintf(text, sizeof(text), "[vm a]\nkernel = %s", value);
	parse(text);
	assert_string_equal(said, "");
	assert_string_equal(config.vms[0].kernel, value);
	snprintf(text, sizeof(text), "[vm a]\nkernel = %sx", value);
	parse(text);
	assert_non_null(strstr(said, "...' is longer than 127 characters\n"));

	memset(value, 'x', sizeof(value));
	value[CONFIG_CMDLINE_MAX] = '\0';
	snprintf(text, sizeof(text), "[vm a]\nkernel = k\ncmdline = %s", value);
	parse(text);
	assert_string_equal(said, "");
	assert_string_equal(config.vms[0].cmdline, value);
	snprintf(text, sizeof(text), "[vm a]\nkernel = k\ncmdline = %sx", value);
	parse(text);
	assert_non_null(strstr(said, "...' is longer than 2047 characters\n"));
	assert_string_equal(config.vms[0].cmdline, "");

	memset(value, 'x', sizeof(value));
	value[CONFIG_LINE_MAX] = '\0';
	value[0] = '#';
	snprintf(text, sizeof(text), "[vm a]\nkernel = k\n%s\r\n", value);
	parse(text);
	assert_string_equal(said, "");
	snprintf(text, sizeof(text), "[vm a]\nkernel = k\n%sx\r\n", value);
	parse(text);
	assert_string_equal(said, "c:3: the line is longer than 2560 bytes\n");
	assert_true(config.vms[0].broken);
}

/* ---- What is right ---- */

static void empty_texts_give_the_defaults(void **state)
{
	static const char *const texts[] = {
		"",	    "\n",	"\r\n",		"# x",
		"\t \n#\n", "[corbel]", "\xef\xbb\xbf", "\xef\xbb\xbf[corbel]\r\n"
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		parse(texts[i]);
		assert_string_equal(said, "");
		assert_int_equal(config.errors, 0);
		assert_int_equal(config.nr_vms, 0);
		assert_int_equal(config.serial, CONFIG_SERIAL_AUTO);
		assert_int_equal(config.baud, 115200);
		assert_int_equal(config.when_idle, CONFIG_IDLE_MONITOR);
		assert_int_equal(config.mixed_cpus, CONFIG_MIXED_EXCLUDE);
		assert_int_equal(config.setup_cpu, CONFIG_SETUP_BOOT);
		assert_string_equal(config.attach, "");
	}
}

static void a_vm_has_defaults(void **state)
{
	(void)state;
	parse("[vm a]\nkernel=k");
	assert_string_equal(said, "");
	assert_int_equal(config.nr_vms, 1);
	assert_string_equal(config.vms[0].kernel, "k");
	assert_string_equal(config.vms[0].initrd, "");
	assert_string_equal(config.vms[0].cmdline, "");
	assert_true(config.vms[0].memory == 256 * MIB);
	assert_int_equal(config.vms[0].vcpus, 1);
	assert_int_equal(bitmap_weight(config.vms[0].cpus.bits, MAX_CPUS), MAX_CPUS);
	assert_true(config.vms[0].autostart);
	assert_true(config.vms[0].apicv && config.vms[0].posted);
	assert_int_equal(config.vms[0].on_exit, CONFIG_EXIT_STOP);
	assert_false(config.vms[0].broken);
	assert_int_equal(config.vms[0].line, 1);
	assert_int_equal(config.vms[0].kernel_line, 2);
	assert_int_equal(config.vms[0].initrd_line, 0);
}

static const char whole[] = "[corbel]\r\n"
			    "serial = com2            # auto | com1..com4\r\n"
			    "baud=9600\r\n"
			    "\twhen_idle\t=\tpoweroff\r\n"
			    "attach = linux\r\n"
			    "setup_cpu = 255\r\n"
			    "mixed_cpus = common\r\n"
			    "split_lock = warn\r\n"
			    "on_corruption = panic\r\n"
			    "x_split = off\r\n"
			    "\r\n"
			    " [ vm  linux ]  # first\r\n"
			    "kernel = memtest86+x64.bin\r\n"
			    "initrd = Initrd.GZ\r\n"
			    "cmdline = console=ttyS0  quiet a=b#c root=/dev/x # d\r\n"
			    "memory = 1g\r\n"
			    "split_lock = ratelimit:250\r\n"
			    "vcpus = 64\r\n"
			    "cpus = 0-1 , 3,64-65,255\r\n"
			    "pin = 0:255\t63:0\r\n"
			    "autostart = no\r\n"
			    "on_exit = restart\r\n"
			    "disk = Root.img , readonly\r\n"
			    "net = lab-1\r\n"
			    "mac = 02:00:0A:ff:00:10\r\n"
			    "rng = off\r\n"
			    "apicv = off\r\n"
			    "posted = off\r\n"
			    "[vm Other_VM-2]\r\n"
			    "cmdline =\r\n"
			    "kernel = vmlinuz-6.1.0-50-cloud-amd64\r\n"
			    "on_exit = poweroff\r\n"
			    "disk = d\r\n"
			    "memory = 16M";

static void check_whole(void)
{
	const struct config_vm *vm = &config.vms[0];

	assert_string_equal(said, "");
	assert_int_equal(config.serial, CONFIG_SERIAL_PORT);
	assert_int_equal(config.serial_port, 0x2f8);
	assert_int_equal(config.baud, 9600);
	assert_int_equal(config.when_idle, CONFIG_IDLE_POWEROFF);
	assert_string_equal(config.attach, "linux");
	assert_int_equal(config.setup_cpu, 255);
	assert_int_equal(config.mixed_cpus, CONFIG_MIXED_COMMON);
	assert_int_equal(config.split_lock.policy, CONFIG_SPLIT_WARN);
	assert_int_equal(vm->split_lock.policy, CONFIG_SPLIT_RATELIMIT);
	assert_int_equal(vm->split_lock.rate, 250);
	assert_int_equal(config.on_corruption, CONFIG_CORRUPTION_PANIC);
	assert_int_equal(config.x_split, CONFIG_X_SPLIT_OFF);
	assert_int_equal(config.nr_vms, 2);
	assert_string_equal(vm->name, "linux");
	assert_string_equal(vm->kernel, "memtest86+x64.bin");
	assert_string_equal(vm->initrd, "Initrd.GZ");
	assert_string_equal(vm->cmdline, "console=ttyS0  quiet a=b#c root=/dev/x");
	assert_true(vm->memory == GIB);
	assert_int_equal(vm->vcpus, 64);
	assert_true(vm->pin[0] == 256 && vm->pin[63] == 1 && !vm->pin[1]);
	assert_true(vm->cpus.bits[0] == 0xb && vm->cpus.bits[1] == 3);
	assert_true(vm->cpus.bits[2] == 0 && vm->cpus.bits[3] == BIT(63));
	assert_false(vm->autostart);
	assert_false(vm->apicv || vm->posted);
	assert_int_equal(vm->on_exit, CONFIG_EXIT_RESTART);
	assert_int_equal(vm->line, 12);
	assert_int_equal(vm->kernel_line, 13);
	assert_int_equal(vm->initrd_line, 14);
	assert_int_equal(vm->memory_line, 16);
	assert_string_equal(vm->disk, "Root.img");
	assert_true(vm->disk_readonly);
	assert_int_equal(vm->disk_line, 23);
	assert_string_equal(vm->net, "lab-1");
	assert_memory_equal(vm->mac, "\x02\x00\x0a\xff\x00\x10", 6);
	assert_false(vm->rng);
	assert_string_equal(config.vms[1].name, "Other_VM-2");
	assert_string_equal(config.vms[1].disk, "d");
	assert_false(config.vms[1].disk_readonly);
	assert_string_equal(config.vms[1].net, "");
	assert_memory_equal(config.vms[1].mac, "\0\0\0\0\0", 6);
	assert_true(config.vms[1].rng);
	assert_int_equal(config.vms[1].on_exit, CONFIG_EXIT_POWEROFF);
	assert_true(config.vms[1].memory == 16 * MIB);
}

static void a_whole_configuration(void **state)
{
	char unix_text[sizeof(whole)];
	size_t n = 0;

	(void)state;
	parse(whole);
	check_whole();
	for (const char *c = whole; *c; c++) {
		if (*c != '\r')
			unix_text[n++] = *c;
	}
	parse_bytes(unix_text, n);
	check_whole();
}

static void every_serial_port(void **state)
{
	static const struct {
		const char *word;
		enum config_serial kind;
		u16 port;
	} ports[] = {
		{ "auto", CONFIG_SERIAL_AUTO, 0 },	  { "none", CONFIG_SERIAL_NONE, 0 },
		{ "com1", CONFIG_SERIAL_PORT, 0x3f8 },	  { "com2", CONFIG_SERIAL_PORT, 0x2f8 },
		{ "com3", CONFIG_SERIAL_PORT, 0x3e8 },	  { "com4", CONFIG_SERIAL_PORT, 0x2e8 },
		{ "0xE000", CONFIG_SERIAL_PORT, 0xe000 }, { "0xfff8", CONFIG_SERIAL_PORT, 0xfff8 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		char text[64];

		snprintf(text, sizeof(text), "[corbel]\nserial = %s", ports[i].word);
		parse(text);
		assert_string_equal(said, "");
		assert_int_equal(config.serial, ports[i].kind);
		assert_int_equal(config.serial_port, ports[i].port);
		assert_int_equal(config.gdb, CONFIG_SERIAL_AUTO);
		snprintf(text, sizeof(text), "[corbel]\ngdb = %s", ports[i].word);
		parse(text);
		assert_string_equal(said, "");
		assert_int_equal(config.gdb, ports[i].kind);
		assert_int_equal(config.gdb_port, ports[i].port);
		assert_int_equal(config.serial_port, 0);
	}
}

static void attach_takes_any_vm_or_the_monitor(void **state)
{
	(void)state;
	parse("[vm a]\nkernel=k\n[corbel]\nattach = monitor\n");
	assert_string_equal(said, "");
	assert_string_equal(config.attach, "");
	parse("[corbel]\nattach = b\n[vm a]\nkernel=k\n[vm b]\n");
	assert_string_equal(said, "c:5: kernel: vm b has none\n");
	assert_string_equal(config.attach, "b");
}

/* ---- The text as a whole ---- */

static void keys_need_a_section(void **state)
{
	(void)state;
	parse("kernel = k\n[vm a]\nkernel = k");
	assert_string_equal(said, "c:1: 'kernel' stands before any section\n");
	assert_false(config.vms[0].broken);
}

static void a_name_is_given_once(void **state)
{
	(void)state;
	parse("[vm a]\nkernel = k\n[vm a]\nkernel = other\nnonsense\n");
	assert_string_equal(said, "c:3: vm: 'a' is there already, in line 1\n");
	assert_int_equal(config.nr_vms, 1);
	assert_string_equal(config.vms[0].kernel, "k");
	assert_false(config.vms[0].broken);
	parse("[vm a]\nkernel = k\n[vm A]\nkernel = k\n");
	assert_string_equal(said, "");
	assert_int_equal(config.nr_vms, 2);
}

static void sixteen_vms_fit(void **state)
{
	char text[1024] = "";
	size_t n = 0;

	(void)state;
	for (int i = 0; i < CONFIG_MAX_VMS; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "[vm v%d]\nkernel=k\n", i);
	parse(text);
	assert_string_equal(said, "");
	assert_int_equal(config.nr_vms, CONFIG_MAX_VMS);
	snprintf(text + n, sizeof(text) - n, "[vm more]\nkernel=k\nmemory=1");
	parse(text);
	assert_string_equal(said, "c:33: vm: 'more' is one too many: at most 16\n");
	assert_int_equal(config.nr_vms, CONFIG_MAX_VMS);
}

static void copies_are_alike(void **state)
{
	const struct config_vm *vm = config.vms;
	struct config_file file;
	u32 pos = 0, n = 0;

	(void)state;
	parse("[vm a]\ncopies = 3\nkernel = k\nmodule = m args\nweight = 7\nmemory = 32M\n"
	      "[vm b]\nkernel = l\n[corbel]\nattach = a-2\n");
	assert_string_equal(said, "");
	assert_int_equal(config.nr_vms, 4);
	assert_string_equal(vm[0].name, "a-1");
	assert_string_equal(vm[1].name, "a-2");
	assert_string_equal(vm[2].name, "a-3");
	assert_string_equal(vm[3].name, "b");
	assert_string_equal(config.attach, "a-2");
	for (u32 i = 0; i < 3; i++) {
		assert_string_equal(vm[i].kernel, "k");
		assert_int_equal(vm[i].weight, 7);
		assert_int_equal(vm[i].memory, 32 * MIB);
		assert_int_equal(vm[i].section, 0);
		assert_int_equal(vm[i].line, 1);
	}
	assert_int_equal(vm[3].section, 3);
	assert_int_equal(vm[3].weight, 100);
	/* each has its kernel, the first one the module as well */
	while (config_next_file(&config, &pos, &file))
		n++;
	assert_int_equal(n, 5);
	parse("[vm a]\nkernel = k\ncopies = 1\n");
	assert_int_equal(config.nr_vms, 1);
	assert_string_equal(vm[0].name, "a-1");
}

/* A name that is taken, before or after; too long; too many: none of the copies is made. */
static void copies_that_cannot_be(void **state)
{
	(void)state;
	parse("[vm a-2]\nkernel = k\n[vm a]\ncopies = 3\nkernel = k\n");
	assert_string_equal(said, "c:4: copies: 'a-2' is there already, in line 1\n");
	assert_int_equal(config.nr_vms, 2);
	assert_true(config.vms[1].broken);
	assert_false(config.vms[0].broken);
	parse("[vm a]\ncopies = 3\nkernel = k\n[vm a-2]\nkernel = k\n");
	assert_string_equal(said, "c:4: vm: 'a-2' is there already, in line 1\n");
	assert_int_equal(config.nr_vms, 3);
	assert_false(config.vms[1].broken);
	parse("[vm a]\ncopies = 2\nkernel = k\n[vm a]\nkernel = k\ncopies=2\n");
	assert_string_equal(said, "c:6: copies: 'a-1' is there already, in line 1\n");
	parse("[vm abcdefghijklmnopqrstuvwxyz0123]\ncopies = 2\nkernel = k\n");
	assert_string_equal(said, "c:2: copies: 'abcdefghijklmnopqrstuvwxyz0123-1' is longer than "
				  "31 characters\n");
	parse("[vm a]\nkernel = k\n[vm b]\nkernel = k\ncopies = 16\n");
	assert_string_equal(said, "c:5: copies: 'b-16' is one too many: at most 16\n");
	assert_int_equal(config.nr_vms, 2);
	parse("[vm b]\nkernel = k\ncopies = 16\n");
	assert_string_equal(said, "");
	assert_int_equal(config.nr_vms, 16);
}

static void foreign_encodings(void **state)
{
	static const char nul[] = "[corbel]\nbaud = 96\0"
				  "00\n";
	static const char utf16[] = "\xff\xfe[\0c\0o\0";

	(void)state;
	parse_bytes(nul, sizeof(nul) - 1);
	assert_string_equal(said, "c:2: byte 0x00 in column 10 is not text\n");
	parse_bytes(utf16, sizeof(utf16) - 1);
	assert_string_equal(said, "c:1: the text is UTF-16; it must be UTF-8\n");
}

static void messages_are_limited(void **state)
{
	char text[400];
	u32 lines = 0;

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = 1; i < sizeof(text); i += 2)
		text[i] = '\n';
	parse_bytes(text, sizeof(text));
	for (const char *c = said; *c; c++)
		lines += *c == '\n';
	assert_int_equal(lines, CONFIG_ERRORS_MAX + 1);
	assert_non_null(strstr(said, "c: more errors, not shown\n"));
	assert_int_equal(config.errors, sizeof(text) / 2);
}

/* ---- LoadOptions ---- */

static void override_replaces_keys(void **state)
{
	static const struct config_sink options = { .file = "options", .report = collect };

	(void)state;
	parse(whole);
	config_override(&config,
			"BootX64.EFI  serial=none\tattach=Other_VM-2 when_idle=monitor\r\n",
			&options);
	assert_string_equal(said, "");
	assert_int_equal(config.serial, CONFIG_SERIAL_NONE);
	assert_string_equal(config.attach, "Other_VM-2");
	assert_int_equal(config.when_idle, CONFIG_IDLE_MONITOR);
	assert_int_equal(config.baud, 9600);
	assert_int_equal(config.errors, 0);
	config_override(&config, "attach=monitor", &options);
	assert_string_equal(config.attach, "");
	config_override(&config, "", &options);
	config_override(&config, "  ", &options);
	assert_string_equal(said, "");
}

static void bad_overrides_have_no_effect(void **state)
{
	static const struct config_sink options = { .file = "options", .report = collect };

	(void)state;
	parse(whole);
	config_override(
		&config,
		"quiet attach=x baud= serial=com9 memory=1G =1 x.efi setup_cpu=1 setup_cpu=2",
		&options);
	assert_string_equal(
		said,
		"options: 'quiet' is not key=value\n"
		"options: baud: has no value\n"
		"options: serial: 'com9' is not auto, none, com1 to com4, or a port like 0x3f8\n"
		"options: 'memory' is not a key of [corbel]\n"
		"options: '' is not a key of [corbel]\n"
		"options: 'x.efi' is not key=value\n"
		"options: setup_cpu: is there twice\n"
		"options: attach: no VM is called 'x'\n");
	assert_int_equal(config.errors, 8);
	assert_string_equal(config.attach, "linux");
	assert_int_equal(config.baud, 9600);
	assert_int_equal(config.serial_port, 0x2f8);
	assert_int_equal(config.setup_cpu, 1);
}

/* ---- Files ---- */

static void files_are_walked_in_order(void **state)
{
	static const struct config_file expect[] = {
		{ "vmlinuz", "kernel", 2, 0, false }, { "initrd", "initrd", 3, 0, false },
		{ "VMLINUZ", "kernel", 10, 2, true }, { "initrd2", "initrd", 9, 2, false },
		{ "INITRD", "disk", 12, 2, true },    { "memory.lz", "image", 13, 2, false },
		{ "initrd", "kernel", 15, 3, true },  { "m1", "module", 11, 2, false },
		{ "M1", "module", 16, 3, true },
	};
	struct config_file file;
	u32 pos = 0;

	(void)state;
	parse("[vm a]\nkernel=vmlinuz\ninitrd=initrd\n[vm broken]\nkernel=k2\nmemory=1\n"
	      "module=no\n"
	      "[vm c]\ninitrd=initrd2\nkernel=VMLINUZ\nmodule=m1\ndisk=INITRD,readonly\n"
	      "image=memory.lz\n"
	      "[vm d]\nkernel=initrd\nmodule=M1\n");
	for (size_t i = 0; i < ARRAY_SIZE(expect); i++) {
		assert_true(config_next_file(&config, &pos, &file));
		assert_string_equal(file.name, expect[i].name);
		assert_string_equal(file.key, expect[i].key);
		assert_int_equal(file.line, expect[i].line);
		assert_int_equal(file.vm, expect[i].vm);
		assert_int_equal(file.again, expect[i].again);
	}
	assert_false(config_next_file(&config, &pos, &file));
	assert_false(config_next_file(&config, &pos, &file));
}

static void keys_of_other_protocols(void **state)
{
	char text[1024] = "[vm a]\nkernel = k\n", line[400];

	(void)state;
	parse("[vm a]\nkernel = k\nprotocol = flat\naddress = 0x7c00\ndevices = test\n"
	      "module = one\nmodule = two\twith  words \n[vm b]\nkernel = k\nmodule = three x\n");
	assert_string_equal(said, "");
	assert_string_equal(config.vms[0].protocol, "flat");
	assert_int_equal(config.vms[0].address, 0x7c00);
	assert_true(config.vms[0].test_devices);
	assert_string_equal(config.vms[1].protocol, "auto");
	assert_int_equal(config.vms[1].address, 0x100000);
	assert_false(config.vms[1].test_devices);
	assert_int_equal(config.nr_modules, 3);
	assert_string_equal(config.modules[0].name, "one");
	assert_string_equal(config.modules[0].args, "");
	assert_string_equal(config.modules[1].name, "two");
	assert_string_equal(config.modules[1].args, "with  words");
	assert_int_equal(config.modules[2].vm, 1);
	for (u32 i = 0; i < CONFIG_MODULES_MAX; i++)
		strcat(text, "module = m\n");
	parse(text);
	assert_string_equal(said, "");
	strcat(text, "module = m33 x\n");
	parse(text);
	assert_string_equal(said, "c:35: module: 'm33' is one too many: at most 32, of all VMs "
				  "together\n");
	snprintf(line, sizeof(line), "[vm a]\nkernel = k\nmodule = m %0255d\n", 0);
	parse(line);
	assert_string_equal(said, "");
	snprintf(line, sizeof(line), "[vm a]\nkernel = k\nmodule = m %0256d\n", 0);
	parse(line);
	assert_non_null(strstr(said, "is longer than 255 characters"));
}

static void file_names_compare_as_on_fat(void **state)
{
	(void)state;
	assert_true(config_same_file("a.GZ", "A.gz"));
	assert_true(config_same_file("", ""));
	assert_false(config_same_file("a", "ab"));
	assert_false(config_same_file("ab", "a"));
	assert_false(config_same_file("[", "{"));
}

static void shared_memory(void **state)
{
	static const struct {
		const char *text, *said;
	} bad[] = {
		{ "[memory m]", "c:1: size: memory m has none\n" },
		{ "[memory m]\nsize = 4K", "c:2: size: '4K' is less than 1M\n" },
		{ "[memory m]\nsize = 1M\n[memory m]\nsize = 2M",
		  "c:3: memory: 'm' is there already, in line 1\n" },
		{ "[memory a b]",
		  "c:1: memory: 'a b' is not a name (1 to 31 of a-z A-Z 0-9 - _)\n" },
		{ "[memory m]\nname = x\nsize = 1M", "c:2: 'name' is not a key of [memory]\n" },
		{ "[vm a]\nkernel = k\nshare = m, 0x100000000",
		  "c:3: share: no [memory] is called 'm'\n" },
		{ "[vm a]\nkernel = k\nshare = m, 0x200000\n[memory m]\nsize = 1",
		  "c:5: size: '1' is not a size\nc:3: share: [memory m] has errors\n" },
		{ "[vm a]\nkernel = k\nshare = m",
		  "c:3: share: 'm' is not the name of a [memory], "
		  "an address, and perhaps readonly, like mailbox, "
		  "0x100000000, readonly\n" },
		{ "[vm a]\nkernel = k\nshare = m, 0x1, rw",
		  "c:3: share: 'm, 0x1, rw' is not the name of a [memory], "
		  "an address, and perhaps readonly, like mailbox, 0x100000000, readonly\n" },
		{ "[vm a]\nkernel = k\npager = lazy", "c:3: pager: 'lazy' is not zero or none\n" },
	};

	(void)state;
	parse("[memory big]\nsize = 4M\n[vm a]\nkernel = k\nshare = big, 0x100000000\n"
	      "share = late, 0x200000000, readonly\npager = none\nmce = on\n[vm b]\nkernel = k\n"
	      "share = big,0x40000000\n[memory late]\nsize = 1G\n");
	assert_string_equal(said, "");
	assert_int_equal(config.nr_memories, 2);
	assert_string_equal(config.memories[1].name, "late");
	assert_int_equal(config.memories[1].size, GIB);
	assert_int_equal(config.nr_shares, 3);
	assert_string_equal(config.shares[1].name, "late");
	assert_true(config.shares[1].readonly && !config.shares[0].readonly);
	assert_int_equal(config.shares[1].address, 0x200000000);
	assert_int_equal(config.shares[2].vm, 1);
	assert_int_equal(config.vms[0].pager, CONFIG_PAGER_NONE);
	assert_int_equal(config.vms[1].pager, CONFIG_PAGER_ZERO);
	assert_true(config.vms[0].mce && !config.vms[1].mce);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		parse(bad[i].text);
		assert_string_equal(said, bad[i].said);
		assert_int_equal(config.nr_vms ? config.vms[0].broken : true, true);
	}
}

static void later_errors_look_the_same(void **state)
{
	(void)state;
	said[0] = '\0';
	config_error_at(&sink, 9, "kernel", "no file '%s'", "vmlinuz");
	config_error_at(&sink, 0, NULL, "no such file");
	assert_string_equal(said, "c:9: kernel: no file 'vmlinuz'\nc: no such file\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_keys_of_corbel_keep_their_default),
		cmocka_unit_test(a_bad_vm_is_broken_and_others_are_not),
		cmocka_unit_test(long_values_are_refused),
		cmocka_unit_test(empty_texts_give_the_defaults),
		cmocka_unit_test(a_vm_has_defaults),
		cmocka_unit_test(a_whole_configuration),
		cmocka_unit_test(every_serial_port),
		cmocka_unit_test(attach_takes_any_vm_or_the_monitor),
		cmocka_unit_test(keys_need_a_section),
		cmocka_unit_test(a_name_is_given_once),
		cmocka_unit_test(sixteen_vms_fit),
		cmocka_unit_test(copies_are_alike),
		cmocka_unit_test(copies_that_cannot_be),
		cmocka_unit_test(foreign_encodings),
		cmocka_unit_test(messages_are_limited),
		cmocka_unit_test(override_replaces_keys),
		cmocka_unit_test(bad_overrides_have_no_effect),
		cmocka_unit_test(files_are_walked_in_order),
		cmocka_unit_test(keys_of_other_protocols),
		cmocka_unit_test(file_names_compare_as_on_fat),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(later_errors_look_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
