/* SPDX-License-Identifier: MIT */
/* The keys of the configuration, and how their values are read. */
#include "boot/config_parser.h"
#include "lib/string.h"

/* Offset of a member that has the type which the key's setter writes. */
#define FIELD(object, type, member) \
	(offsetof(object, member) + _Generic(((object *)0)->member, type : 0u))

/* The usual complaints about a value. */
static bool reject(struct parser *p, struct text value, const char *why)
{
	return complain(p, p->line, p->key->name, "%s %s", quote(value).s, why);
}

static bool unfit(struct parser *p, struct text value)
{
	return complain(p, p->line, p->key->name, "%s is not %s", quote(value).s, p->key->expects);
}

static bool fits(struct parser *p, struct text value, u64 max)
{
	return value.n <= max || complain(p, p->line, p->key->name,
					  "%s is longer than %lu characters", quote(value).s, max);
}

/* ---- Kinds of values ---- */

/* u32 or enum: the word's position in what is expected. */
static bool set_word(struct parser *p, struct text value, void *field)
{
	s32 i = word_index(value, p->key->expects);

	if (i < 0)
		return unfit(p, value);
	*(u32 *)field = (u32)i;
	return true;
}

/* bool: the first of the words is true. */
static bool set_flag(struct parser *p, struct text value, void *field)
{
	u32 i = 0;

	if (!set_word(p, value, &i))
		return false;
	*(bool *)field = !i;
	return true;
}

/* The word itself. */
static bool copy_word(struct parser *p, struct text value, void *field)
{
	if (word_index(value, p->key->expects) < 0)
		return unfit(p, value);
	text_copy(field, value);
	return true;
}

/* u32 */
static bool set_number(struct parser *p, struct text value, void *field)
{
	u64 n;

	if (!text_number(value, 10, p->key->max, &n) || n < p->key->min)
		return unfit(p, value);
	*(u32 *)field = (u32)n;
	return true;
}

/* u64 */
static bool set_hex(struct parser *p, struct text value, void *field)
{
	return text_hex(value, p->key->max, field) || unfit(p, value);
}

/* u64: bytes, a multiple of 4 KiB; min counts in MiB, max in GiB. */
static bool set_size(struct parser *p, struct text value, void *field)
{
	struct text number = { value.s, value.n - 1 };
	char suffix = lower(value.s[value.n - 1]);
	u32 shift = suffix == 'k' ? 10 : suffix == 'm' ? 20 : suffix == 'g' ? 30 : 0;
	u64 units, bytes;

	if (!shift || !text_number(number, 10, ~0ull >> shift, &units))
		return unfit(p, value);
	bytes = units << shift;
	if (bytes < p->key->min)
		return complain(p, p->line, p->key->name, "%s is less than %luM", quote(value).s,
				p->key->min / MIB);
	if (bytes > p->key->max)
		return complain(p, p->line, p->key->name, "%s is more than %luG", quote(value).s,
				p->key->max / GIB);
	if (bytes % 4096)
		return reject(p, value, "is not a multiple of 4K");
	*(u64 *)field = bytes;
	return true;
}

static bool set_text(struct parser *p, struct text value, void *field)
{
	if (!fits(p, value, p->key->max))
		return false;
	text_copy(field, value);
	return true;
}

static bool set_name(struct parser *p, struct text value, void *field)
{
	if (!is_name(value))
		return unfit(p, value);
	text_copy(field, value);
	return true;
}

/* What FAT can name, directly in \corbel. */
static bool set_file(struct parser *p, struct text value, void *field)
{
	bool dots_only = true;

	if (!fits(p, value, CONFIG_FILE_MAX))
		return false;
	for (size_t i = 0; i < value.n; i++) {
		char c = value.s[i];

		if (c == '/' || c == '\\')
			return reject(p, value,
				      "is not a file name: no folders, files are in \\corbel");
		if (c < ' ' || c > '~' || strchr("\"*:<>?|", c))
			return reject(p, value, "is not a file name");
		dots_only &= c == '.';
	}
	if (dots_only || value.s[value.n - 1] == '.')
		return reject(p, value, "is not a file name");
	text_copy(field, value);
	return true;
}

static bool set_split_lock(struct parser *p, struct text value, void *field)
{
	struct text number = value;
	bool has_number;
	struct text word = cut(&number, ':', &has_number);
	s32 i = word_index(word, "silent warn fatal off ratelimit") + 1;
	u64 rate = 0;

	if (!i || has_number != (i == CONFIG_SPLIT_RATELIMIT) ||
	    (has_number && (!text_number(number, 10, CONFIG_SPLIT_RATE_MAX, &rate) || !rate)))
		return unfit(p, value);
	*(struct config_split *)field = (struct config_split){ (u8)i, (u32)rate };
	return true;
}
#define SPLIT_LOCK_IS "silent, warn, fatal, off, or ratelimit:N (N from 1 to 1000000 per second)"

/* ---- Keys of [corbel] ---- */

/* serial and gdb */
static bool set_line(struct parser *p, struct text value, void *field)
{
	bool is_gdb = field == &p->config->gdb;
	static const u16 ports[] = { 0, 0, 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
	s32 i = word_index(value, "auto none com1 com2 com3 com4");
	u64 port = i < 0 ? 0 : ports[i];

	if (i < 0 && (!text_hex(value, 0xfff8, &port) || !port))
		return unfit(p, value);
	*(u32 *)field = i == 0	 ? CONFIG_SERIAL_AUTO
			: i == 1 ? CONFIG_SERIAL_NONE
				 : CONFIG_SERIAL_PORT;
	*(is_gdb ? &p->config->gdb_port : &p->config->serial_port) = (u16)port;
	return true;
}

static bool set_baud(struct parser *p, struct text value, void *field)
{
	u64 baud;

	if (!text_number(value, 10, 115200, &baud) || !baud || 115200 % baud)
		return unfit(p, value);
	*(u32 *)field = (u32)baud;
	return true;
}

static bool set_attach(struct parser *p, struct text value, void *field)
{
	(void)field; /* until all VMs are known */
	p->attach = value;
	p->attach_line = p->line;
	return true;
}

static bool set_setup_cpu(struct parser *p, struct text value, void *field)
{
	u64 cpu;

	if (text_is(value, "boot"))
		*(s32 *)field = CONFIG_SETUP_BOOT;
	else if (text_number(value, 10, MAX_CPUS - 1, &cpu))
		*(s32 *)field = (s32)cpu;
	else
		return unfit(p, value);
	return true;
}

/* What it means is known to FAULTS builds only: here it is text. */
static bool set_faults(struct parser *p, struct text value, void *field)
{
	for (size_t i = 0; i < value.n && value.n <= p->key->max; i++)
		if (value.s[i] < ' ' || value.s[i] > '~')
			return unfit(p, value);
	if (!set_text(p, value, field))
		return false;
	p->config->faults_line = p->line;
	return true;
}

#define CORBEL(type, member) FIELD(struct config, type, member)
const struct key corbel_keys[] = {
	{ "serial", set_line, CORBEL(u32, serial),
	  .expects = "auto, none, com1 to com4, or a port like 0x3f8" },
	{ "gdb", set_line, CORBEL(u32, gdb),
	  .expects = "auto, none, com1 to com4, or a port like 0x3f8" },
	{ "baud", set_baud, CORBEL(u32, baud), .expects = "a rate that divides 115200" },
	{ "when_idle", set_word, CORBEL(u32, when_idle), .expects = "monitor or poweroff" },
	{ .name = "attach", .set = set_attach },
	{ "setup_cpu", set_setup_cpu, CORBEL(s32, setup_cpu),
	  .expects = "boot or a CPU number (0 to 255)" },
	{ "on_panic", set_word, CORBEL(u32, on_panic), .expects = "halt or reboot" },
	{ "on_corruption", set_word, CORBEL(u32, on_corruption), .expects = "kill or panic" },
	{ "mixed_cpus", set_word, CORBEL(u32, mixed_cpus), .expects = "exclude, refuse or common" },
	{ "x_split", set_word, CORBEL(u32, x_split), .expects = "auto, on or off" },
	{ "split_lock", set_split_lock, CORBEL(struct config_split, split_lock),
	  .expects = SPLIT_LOCK_IS },
	{ "faults", set_faults, CORBEL(char *, faults), .expects = "plain ASCII",
	  .max = CONFIG_FAULTS_MAX, .may_be_empty = true },
	{ 0 },
};

/* ---- Keys of [vm NAME] ---- */

static bool set_disk(struct parser *p, struct text value, void *field)
{
	struct text rest = value;
	bool has_option;
	struct text name = trim(cut(&rest, ',', &has_option));

	if (!name.n || (has_option && !text_is(trim(rest), "readonly")))
		return unfit(p, value);
	p->vm->disk_readonly = has_option;
	return set_file(p, name, field);
}

/* Six bytes as 02:00:00:00:00:01; the lowest bit of the first one is that of groups. */
static bool set_mac(struct parser *p, struct text value, void *field)
{
	struct text rest = value;
	u8 *mac = field;
	u64 byte, any = 0;
	bool more = true;
	u32 n = 0;

	for (; more && n < sizeof(p->vm->mac); n++) {
		struct text item = cut(&rest, ':', &more);

		if (item.n != 2 || !text_number(item, 16, 0xff, &byte))
			break;
		mac[n] = (u8)byte;
		any |= byte;
	}
	if (n < sizeof(p->vm->mac) || more || !any || mac[0] & 1)
		return unfit(p, value);
	return true;
}

/* One item of a CPU list, "3" or "0-1". */
static bool add_cpus(struct cpumask *mask, struct text item)
{
	bool is_range;
	struct text first = trim(cut(&item, '-', &is_range));
	struct text last = is_range ? trim(item) : first;
	u64 from, to;

	if (!text_number(first, 10, MAX_CPUS - 1, &from) ||
	    !text_number(last, 10, MAX_CPUS - 1, &to) || from > to)
		return false;
	for (u64 cpu = from; cpu <= to; cpu++)
		bitmap_set(mask->bits, (u32)cpu);
	return true;
}

static bool set_cpus(struct parser *p, struct text value, void *field)
{
	struct cpumask mask = { 0 };
	struct text rest = value;
	bool more;

	do {
		if (!add_cpus(&mask, cut(&rest, ',', &more)))
			return unfit(p, value);
	} while (more);
	*(struct cpumask *)field = mask;
	return true;
}

/* Words like 0:1: vCPU 0 runs on CPU 1. */
static bool set_pin(struct parser *p, struct text value, void *field)
{
	u16 pin[CONFIG_VCPUS_MAX] = { 0 };
	struct text rest = value, word;

	while ((word = next_word(&rest)).n) {
		struct text cpu_text = word;
		bool found;
		struct text vcpu_text = cut(&cpu_text, ':', &found);
		u64 vcpu, cpu;

		if (!text_number(vcpu_text, 10, CONFIG_VCPUS_MAX - 1, &vcpu) ||
		    !text_number(cpu_text, 10, MAX_CPUS - 1, &cpu))
			return unfit(p, value);
		if (pin[vcpu])
			return reject(p, value, "names a vCPU twice");
		pin[vcpu] = (u16)(cpu + 1);
	}
	memcpy(field, pin, sizeof(pin));
	return true;
}

static bool set_module(struct parser *p, struct text value, void *field)
{
	struct config_module *m = &p->config->modules[p->config->nr_modules];
	struct text file = value, args = { "", 0 };

	(void)field;
	for (size_t i = 0; i < value.n && !args.n; i++) {
		if (is_blank(value.s[i])) {
			file.n = i;
			args = trim((struct text){ value.s + i, value.n - i });
		}
	}
	if (p->config->nr_modules == CONFIG_MODULES_MAX)
		return reject(p, file, "is one too many: at most 32, of all VMs together");
	if (!fits(p, args, CONFIG_ARGS_MAX) || !set_file(p, file, m->name))
		return false;
	text_copy(m->args, args);
	m->vm = p->config->nr_vms - 1;
	m->line = p->line;
	p->config->nr_modules++;
	return true;
}

/* NAME, ADDRESS[, readonly] */
static bool set_share(struct parser *p, struct text value, void *field)
{
	struct config_share *s = &p->config->shares[p->config->nr_shares];
	struct text rest = value;
	bool has_address, has_option;
	struct text name = trim(cut(&rest, ',', &has_address));
	struct text address = trim(cut(&rest, ',', &has_option));

	(void)field;
	if (!is_name(name) || !has_address || !text_hex(address, BIT(48), &s->address) ||
	    (has_option && !text_is(trim(rest), "readonly")))
		return unfit(p, value);
	if (p->config->nr_shares == CONFIG_SHARES_MAX)
		return reject(p, name, "is one too many: at most 64, of all VMs together");
	text_copy(s->name, name);
	s->readonly = has_option;
	s->vm = p->vm->section;
	s->line = p->line;
	p->config->nr_shares++;
	return true;
}

#define VM(type, member) FIELD(struct config_vm, type, member)
const struct key vm_keys[] = {
	{ "kernel", set_file, VM(char *, kernel), .line = VM(u32, kernel_line) },
	{ "initrd", set_file, VM(char *, initrd), .line = VM(u32, initrd_line) },
	{ "image", set_file, VM(char *, image), .line = VM(u32, image_line) },
	{ "cmdline", set_text, VM(char *, cmdline), .max = CONFIG_CMDLINE_MAX,
	  .may_be_empty = true },
	{ "memory", set_size, VM(u64, memory), .expects = "a size", .min = CONFIG_MEMORY_MIN,
	  .max = CONFIG_MEMORY_MAX, .line = VM(u32, memory_line) },
	{ "vcpus", set_number, VM(u32, vcpus), .expects = "a number of vCPUs (1 to 64)", .min = 1,
	  .max = CONFIG_VCPUS_MAX },
	{ "cpus", set_cpus, VM(struct cpumask, cpus),
	  .expects = "a list of CPUs like 0-1,3 (0 to 255)" },
	{ "pin", set_pin, VM(u16 *, pin), .expects = "pairs of vCPU and CPU like 0:1 1:3",
	  .line = VM(u32, pin_line) },
	{ "weight", set_number, VM(u32, weight), .expects = "a weight (1 to 1000)", .min = 1,
	  .max = CONFIG_WEIGHT_MAX },
	{ "copies", set_number, VM(u32, copies), .expects = "a number of VMs (1 to 16)", .min = 1,
	  .max = CONFIG_MAX_VMS, .line = VM(u32, copies_line) },
	{ "autostart", set_flag, VM(bool, autostart), .expects = "yes or no" },
	{ "on_exit", set_word, VM(u32, on_exit), .expects = "stop, restart or poweroff" },
	{ "split_lock", set_split_lock, VM(struct config_split, split_lock),
	  .expects = SPLIT_LOCK_IS },
	{ "pager", set_word, VM(u32, pager), .expects = "zero or none" },
	{ "protocol", copy_word, VM(char *, protocol),
	  .expects = "auto, linux, multiboot, pvh or flat" },
	{ "address", set_hex, VM(u64, address), .expects = "an address like 0x100000, below 4 GiB",
	  .max = 0xffffffff, .line = VM(u32, address_line) },
	{ .name = "module", .set = set_module, .many = true },
	{ .name = "share",
	  .set = set_share,
	  .many = true,
	  .expects = "the name of a [memory], an address, and perhaps readonly, like "
		     "mailbox, 0x100000000, readonly" },
	{ "devices", set_flag, VM(bool, test_devices), .expects = "test" },
	{ "apicv", set_flag, VM(bool, apicv), .expects = "auto or off" },
	{ "posted", set_flag, VM(bool, posted), .expects = "on or off" },
	{ "disk", set_disk, VM(char *, disk), .expects = "a file name, or one with ,readonly",
	  .line = VM(u32, disk_line) },
	{ "net", set_name, VM(char *, net), .expects = NAME_IS },
	{ "mac", set_mac, VM(u8 *, mac), .expects = "a MAC address like 02:00:00:00:00:01" },
	{ "rng", set_flag, VM(bool, rng), .expects = "on or off" },
	{ "mce", set_flag, VM(bool, mce), .expects = "on or off" },
	{ "pm_timer", set_flag, VM(bool, pm_timer), .expects = "on or off" },
	{ 0 },
};

/* ---- Keys of [memory NAME] ---- */

#define MEMORY(type, member) FIELD(struct config_memory, type, member)
const struct key memory_keys[] = {
	{ "size", set_size, MEMORY(u64, size), .expects = "a size", .min = MIB,
	  .max = CONFIG_MEMORY_MAX },
	{ 0 },
};
