/* SPDX-License-Identifier: MIT */
#include "boot/config.h"

#include "lib/printf.h"
#include "lib/string.h"

/* A piece of the configuration's text, not terminated. */
struct text {
	const char *s;
	size_t n;
};

struct parser {
	struct config *config;
	const struct config_sink *sink;
	u32 line;		/* 0: not lines but words, as in LoadOptions */
	u32 reported;		/* errors of this call */
	const struct key *keys; /* of the section; NULL outside of one */
	u32 nr_keys;
	bool skip; /* the section's head was bad and has been reported: be silent about its keys */
	struct config_vm *vm; /* of the section; NULL in [corbel] */
	u32 seen;	      /* bit n: keys[n] was set in this section */
	const char *key;      /* whose value is being read */
	u32 corbel_line;      /* of [corbel]; 0: not seen */
	struct text attach;   /* checked once all VMs are known */
	u32 attach_line;
	bool attach_given;
};

struct key {
	const char *name;
	bool (*set)(struct parser *p, struct text value); /* false: reported, nothing was set */
	bool may_be_empty;
};

/* ---- Messages ---- */

#define MESSAGE_MAX 200
#define QUOTE_MAX   48

struct quoted {
	char s[QUOTE_MAX + 6];
};

/* Text as it may be shown on any terminal: in quotes, shortened, without control characters. */
static struct quoted quote(struct text t)
{
	struct quoted q;
	size_t n = 0;

	q.s[n++] = '\'';
	for (size_t i = 0; i < t.n && i < QUOTE_MAX; i++)
		q.s[n++] = t.s[i] >= ' ' && t.s[i] <= '~' ? t.s[i] : '.';
	if (t.n > QUOTE_MAX) {
		memcpy(q.s + n, "...", 3);
		n += 3;
	}
	q.s[n++] = '\'';
	q.s[n] = '\0';
	return q;
}

static void report_va(const struct config_sink *sink, u32 line, const char *key, const char *fmt,
		      va_list ap)
{
	char message[MESSAGE_MAX], out[2 * MESSAGE_MAX], where[16] = "";

	fmt_vsnprintf(message, sizeof(message), fmt, ap);
	if (line)
		fmt_snprintf(where, sizeof(where), ":%u", line);
	fmt_snprintf(out, sizeof(out), "%s%s: %s%s%s", sink->file, where, key ? key : "",
		     key ? ": " : "", message);
	sink->report(sink->arg, out);
}

void config_error_at(const struct config_sink *sink, u32 line, const char *key, const char *fmt,
		     ...)
{
	va_list ap;

	va_start(ap, fmt);
	report_va(sink, line, key, fmt, ap);
	va_end(ap);
}

/* Count and report an error, and take it out on the VM whose section this is. */
static void PRINTF(4, 5) complain(struct parser *p, u32 line, const char *key, const char *fmt, ...)
{
	va_list ap;

	p->config->errors++;
	if (p->vm)
		p->vm->broken = true;
	if (p->reported++ > CONFIG_ERRORS_MAX)
		return;
	if (p->reported > CONFIG_ERRORS_MAX) {
		config_error_at(p->sink, 0, NULL, "more errors, not shown");
		return;
	}
	va_start(ap, fmt);
	report_va(p->sink, line, key, fmt, ap);
	va_end(ap);
}

/* The usual complaint about a value; false, so that a setter can return it. */
static bool reject(struct parser *p, struct text value, const char *why)
{
	complain(p, p->line, p->key, "%s %s", quote(value).s, why);
	return false;
}

/* ---- Text ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_char(char c)
{
	return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' || c == '_';
}

/* What VMs and networks can be called. */
static bool is_name(struct text t)
{
	if (!t.n || t.n > CONFIG_NAME_MAX)
		return false;
	for (size_t i = 0; i < t.n; i++) {
		if (!is_name_char(t.s[i]))
			return false;
	}
	return true;
}

static struct text trim(struct text t)
{
	while (t.n && is_blank(t.s[0])) {
		t.s++;
		t.n--;
	}
	while (t.n && is_blank(t.s[t.n - 1]))
		t.n--;
	return t;
}

static bool text_is(struct text t, const char *word)
{
	return strlen(word) == t.n && !memcmp(t.s, word, t.n);
}

/* Cut t at the first c: returns what is before it, leaves what is after it; without c, all is
 * before and *found is false. */
static struct text cut(struct text *t, char c, bool *found)
{
	struct text head = *t;

	for (size_t i = 0; i < t->n; i++) {
		if (t->s[i] == c) {
			head.n = i;
			t->s += i + 1;
			t->n -= i + 1;
			*found = true;
			return head;
		}
	}
	t->s += t->n;
	t->n = 0;
	*found = false;
	return head;
}

/* The caller has checked that t fits. */
static void text_copy(char *to, struct text t)
{
	memcpy(to, t.s, t.n);
	to[t.n] = '\0';
}

static s32 digit_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (lower(c) >= 'a' && lower(c) <= 'f')
		return lower(c) - 'a' + 10;
	return 16;
}

/* A whole number in base 10 or 16, at most max. */
static bool text_number(struct text t, u32 base, u64 max, u64 *out)
{
	u64 value = 0;

	if (!t.n)
		return false;
	for (size_t i = 0; i < t.n; i++) {
		u64 digit = (u64)digit_value(t.s[i]);

		if (digit >= base || digit > max || value > (max - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	return true;
}

/* A number as 0x100000. */
static bool text_hex(struct text t, u64 max, u64 *out)
{
	return t.n > 2 && t.s[0] == '0' && t.s[1] == 'x' &&
	       text_number((struct text){ t.s + 2, t.n - 2 }, 16, max, out);
}

/* Position of value in a list of words, or -1. */
static int word_index(struct text value, const char *const *words, int n)
{
	for (int i = 0; i < n; i++) {
		if (text_is(value, words[i]))
			return i;
	}
	return -1;
}

/* ---- Keys of [corbel] ---- */

static bool set_serial(struct parser *p, struct text value)
{
	static const char *const words[] = { "auto", "none", "com1", "com2", "com3", "com4" };
	static const u16 ports[] = { 0, 0, 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
	int i = word_index(value, words, ARRAY_SIZE(words));
	u64 port;

	if (i >= 0) {
		p->config->serial = i == 0   ? CONFIG_SERIAL_AUTO
				    : i == 1 ? CONFIG_SERIAL_NONE
					     : CONFIG_SERIAL_PORT;
		p->config->serial_port = ports[i];
		return true;
	}
	if (!text_hex(value, 0xfff8, &port) || !port)
		return reject(p, value, "is not auto, none, com1 to com4, or a port like 0x3f8");
	p->config->serial = CONFIG_SERIAL_PORT;
	p->config->serial_port = (u16)port;
	return true;
}

static bool set_baud(struct parser *p, struct text value)
{
	u64 baud;

	if (!text_number(value, 10, 115200, &baud) || !baud || 115200 % baud)
		return reject(p, value, "is not a rate that divides 115200");
	p->config->baud = (u32)baud;
	return true;
}

static bool set_when_idle(struct parser *p, struct text value)
{
	bool poweroff = text_is(value, "poweroff");

	if (!poweroff && !text_is(value, "monitor"))
		return reject(p, value, "is not monitor or poweroff");
	p->config->when_idle = poweroff ? CONFIG_IDLE_POWEROFF : CONFIG_IDLE_MONITOR;
	return true;
}

static bool set_attach(struct parser *p, struct text value)
{
	p->attach = value;
	p->attach_line = p->line;
	p->attach_given = true;
	return true;
}

static bool set_setup_cpu(struct parser *p, struct text value)
{
	u64 cpu;

	if (text_is(value, "boot")) {
		p->config->setup_cpu = CONFIG_SETUP_BOOT;
		return true;
	}
	if (!text_number(value, 10, MAX_CPUS - 1, &cpu))
		return reject(p, value, "is not boot or a CPU number (0 to 255)");
	p->config->setup_cpu = (s32)cpu;
	return true;
}

static bool set_mixed_cpus(struct parser *p, struct text value)
{
	static const char *const words[] = { [CONFIG_MIXED_EXCLUDE] = "exclude",
					     [CONFIG_MIXED_REFUSE] = "refuse",
					     [CONFIG_MIXED_COMMON] = "common" };
	int i = word_index(value, words, ARRAY_SIZE(words));

	if (i < 0)
		return reject(p, value, "is not exclude, refuse or common");
	p->config->mixed_cpus = (enum config_mixed)i;
	return true;
}

/* What it means is known to FAULTS builds only: here it is text. */
static bool set_faults(struct parser *p, struct text value)
{
	if (value.n > CONFIG_FAULTS_MAX)
		return reject(p, value, "is longer than 1023 characters");
	for (size_t i = 0; i < value.n; i++)
		if (value.s[i] < ' ' || value.s[i] > '~')
			return reject(p, value, "is not plain ASCII");
	text_copy(p->config->faults, value);
	p->config->faults_line = p->line;
	return true;
}

static const struct key corbel_keys[] = {
	{ "serial", set_serial, false },       { "baud", set_baud, false },
	{ "when_idle", set_when_idle, false }, { "attach", set_attach, false },
	{ "setup_cpu", set_setup_cpu, false }, { "mixed_cpus", set_mixed_cpus, false },
	{ "faults", set_faults, true },
};

/* ---- Keys of [vm NAME] ---- */

/* What FAT can name, directly in \corbel. */
static bool set_file(struct parser *p, struct text value, char *to)
{
	bool dots_only = true;

	if (value.n > CONFIG_FILE_MAX)
		return reject(p, value, "is longer than 127 characters");
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
	text_copy(to, value);
	return true;
}

static bool set_kernel(struct parser *p, struct text value)
{
	p->vm->kernel_line = p->line;
	return set_file(p, value, p->vm->kernel);
}

static bool set_initrd(struct parser *p, struct text value)
{
	p->vm->initrd_line = p->line;
	return set_file(p, value, p->vm->initrd);
}

static bool set_disk(struct parser *p, struct text value)
{
	struct text rest = value;
	bool has_option;
	struct text name = trim(cut(&rest, ',', &has_option));

	p->vm->disk_line = p->line;
	if (!name.n || (has_option && !text_is(trim(rest), "readonly")))
		return reject(p, value, "is not a file name, or one with ,readonly");
	p->vm->disk_readonly = has_option;
	return set_file(p, name, p->vm->disk);
}

static bool set_net(struct parser *p, struct text value)
{
	if (!is_name(value))
		return reject(p, value, "is not a name (1 to 31 of a-z A-Z 0-9 - _)");
	text_copy(p->vm->net, value);
	return true;
}

/* Six bytes as 02:00:00:00:00:01; the lowest bit of the first one is that of groups. */
static bool set_mac(struct parser *p, struct text value)
{
	struct text rest = value;
	u64 byte, any = 0;
	bool more = true;
	u32 n = 0;

	for (; more && n < sizeof(p->vm->mac); n++) {
		struct text item = cut(&rest, ':', &more);

		if (item.n != 2 || !text_number(item, 16, 0xff, &byte))
			break;
		p->vm->mac[n] = (u8)byte;
		any |= byte;
	}
	if (n < sizeof(p->vm->mac) || more || !any || p->vm->mac[0] & 1)
		return reject(p, value, "is not a MAC address like 02:00:00:00:00:01");
	return true;
}

static bool set_rng(struct parser *p, struct text value)
{
	static const char *const words[] = { "off", "on" };
	int i = word_index(value, words, ARRAY_SIZE(words));

	if (i < 0)
		return reject(p, value, "is not on or off");
	p->vm->rng = i;
	return true;
}

static bool set_cmdline(struct parser *p, struct text value)
{
	if (value.n > CONFIG_CMDLINE_MAX)
		return reject(p, value, "is longer than 2047 characters");
	text_copy(p->vm->cmdline, value);
	return true;
}

static bool set_memory(struct parser *p, struct text value)
{
	struct text number = { value.s, value.n - 1 };
	char suffix = lower(value.s[value.n - 1]);
	u32 shift = suffix == 'k' ? 10 : suffix == 'm' ? 20 : suffix == 'g' ? 30 : 0;
	u64 units, bytes;

	p->vm->memory_line = p->line;
	if (!shift || !text_number(number, 10, ~0ull >> shift, &units))
		return reject(p, value, "is not a size");
	bytes = units << shift;
	if (bytes < CONFIG_MEMORY_MIN)
		return reject(p, value, "is less than 16M");
	if (bytes > CONFIG_MEMORY_MAX)
		return reject(p, value, "is more than 16384G");
	if (bytes % 4096)
		return reject(p, value, "is not a multiple of 4K");
	p->vm->memory = bytes;
	return true;
}

static bool set_vcpus(struct parser *p, struct text value)
{
	u64 n;

	if (!text_number(value, 10, CONFIG_VCPUS_MAX, &n) || !n)
		return reject(p, value, "is not a number of vCPUs (1 to 64)");
	p->vm->vcpus = (u32)n;
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

static bool set_cpus(struct parser *p, struct text value)
{
	struct cpumask mask = { 0 };
	struct text rest = value;
	bool more;

	do {
		if (!add_cpus(&mask, cut(&rest, ',', &more)))
			return reject(p, value, "is not a list of CPUs like 0-1,3 (0 to 255)");
	} while (more);
	p->vm->cpus = mask;
	return true;
}

static bool set_protocol(struct parser *p, struct text value)
{
	static const char *const words[] = { "auto", "linux", "multiboot", "pvh", "flat" };
	int i = word_index(value, words, ARRAY_SIZE(words));

	if (i < 0)
		return reject(p, value, "is not auto, linux, multiboot, pvh or flat");
	p->vm->protocol = words[i];
	return true;
}

static bool set_address(struct parser *p, struct text value)
{
	p->vm->address_line = p->line;
	return text_hex(value, 0xffffffff, &p->vm->address) ||
	       reject(p, value, "is not an address like 0x100000, below 4 GiB");
}

static bool set_module(struct parser *p, struct text value)
{
	struct config_module *m = &p->config->modules[p->config->nr_modules];
	struct text file = value, args = { "", 0 };

	for (size_t i = 0; i < value.n && !args.n; i++) {
		if (is_blank(value.s[i])) {
			file.n = i;
			args = trim((struct text){ value.s + i, value.n - i });
		}
	}
	if (p->config->nr_modules == CONFIG_MODULES_MAX)
		return reject(p, file, "is one too many: at most 32, of all VMs together");
	if (args.n > CONFIG_ARGS_MAX)
		return reject(p, args, "is longer than 255 characters");
	if (!set_file(p, file, m->name))
		return false;
	text_copy(m->args, args);
	m->vm = p->config->nr_vms - 1;
	m->line = p->line;
	p->config->nr_modules++;
	return true;
}

static bool set_devices(struct parser *p, struct text value)
{
	p->vm->test_devices = text_is(value, "test");
	return p->vm->test_devices || reject(p, value, "is not test");
}

static bool set_autostart(struct parser *p, struct text value)
{
	p->vm->autostart = text_is(value, "yes");
	return p->vm->autostart || text_is(value, "no") || reject(p, value, "is not yes or no");
}

static bool set_on_exit(struct parser *p, struct text value)
{
	static const char *const words[] = { [CONFIG_EXIT_STOP] = "stop",
					     [CONFIG_EXIT_RESTART] = "restart",
					     [CONFIG_EXIT_POWEROFF] = "poweroff" };
	int i = word_index(value, words, ARRAY_SIZE(words));

	if (i < 0)
		return reject(p, value, "is not stop, restart or poweroff");
	p->vm->on_exit = (enum config_exit)i;
	return true;
}

#define VM_KEY_KERNEL 0 /* index of the one key that must be there */
static const struct key vm_keys[] = {
	{ "kernel", set_kernel, false },
	{ "initrd", set_initrd, false },
	{ "cmdline", set_cmdline, true },
	{ "memory", set_memory, false },
	{ "vcpus", set_vcpus, false },
	{ "cpus", set_cpus, false },
	{ "autostart", set_autostart, false },
	{ "on_exit", set_on_exit, false },
	{ "protocol", set_protocol, false },
	{ "address", set_address, false },
	{ "module", set_module, false },
	{ "devices", set_devices, false },
	{ "disk", set_disk, false },
	{ "net", set_net, false },
	{ "mac", set_mac, false },
	{ "rng", set_rng, false },
};

/* ---- Sections and lines ---- */

static void set_key(struct parser *p, struct text name, struct text value)
{
	for (u32 i = 0; i < p->nr_keys; i++) {
		const struct key *key = &p->keys[i];

		if (!text_is(name, key->name))
			continue;
		p->key = key->name;
		if (p->seen & BIT(i) && key->set != set_module) { /* of those there may be many */
			complain(p, p->line, key->name, "is there twice");
			return;
		}
		p->seen |= (u32)BIT(i);
		if (!value.n && !key->may_be_empty)
			complain(p, p->line, key->name, "has no value");
		else
			key->set(p, value);
		return;
	}
	complain(p, p->line, NULL, "%s is not a key of %s", quote(name).s,
		 p->vm ? "[vm]" : "[corbel]");
}

/* What can only be said once a VM's section is complete. */
static void end_section(struct parser *p)
{
	if (p->vm && !(p->seen & BIT(VM_KEY_KERNEL)))
		complain(p, p->vm->line, "kernel", "vm %s has none", p->vm->name);
	if (p->vm && p->vm->address_line && !text_is((struct text){ "flat", 4 }, p->vm->protocol))
		complain(p, p->vm->address_line, "address", "only protocol = flat takes one");
	p->vm = NULL;
	p->keys = NULL;
	p->nr_keys = 0;
	p->seen = 0;
	p->skip = false;
}

static struct config_vm *find_vm(struct config *config, struct text name)
{
	for (u32 i = 0; i < config->nr_vms; i++) {
		if (text_is(name, config->vms[i].name))
			return &config->vms[i];
	}
	return NULL;
}

/* "monitor" stands for Corbel's own prompt wherever a VM's name can stand. */
static bool is_vm_name(struct text name)
{
	return is_name(name) && !text_is(name, "monitor");
}

static void begin_vm(struct parser *p, struct text name)
{
	struct config *config = p->config;
	struct config_vm *vm = find_vm(config, name);

	p->skip = true;
	if (!is_vm_name(name))
		return complain(p, p->line, "vm", "%s is not a name (1 to 31 of a-z A-Z 0-9 - _)",
				quote(name).s);
	if (vm)
		return complain(p, p->line, "vm", "%s is there already, in line %u", quote(name).s,
				vm->line);
	if (config->nr_vms == CONFIG_MAX_VMS)
		return complain(p, p->line, "vm", "%s is one too many: at most 16", quote(name).s);
	p->skip = false;
	vm = &config->vms[config->nr_vms++];
	text_copy(vm->name, name);
	vm->memory = 256 * MIB;
	vm->protocol = "auto";
	vm->address = MIB;
	vm->vcpus = 1;
	memset(&vm->cpus, 0xff, sizeof(vm->cpus));
	vm->autostart = true;
	vm->rng = true;
	vm->line = p->line;
	p->vm = vm;
	p->keys = vm_keys;
	p->nr_keys = ARRAY_SIZE(vm_keys);
}

static void begin_corbel(struct parser *p)
{
	if (p->corbel_line) {
		complain(p, p->line, "corbel", "is there already, in line %u", p->corbel_line);
		p->skip = true;
		return;
	}
	p->corbel_line = p->line;
	p->keys = corbel_keys;
	p->nr_keys = ARRAY_SIZE(corbel_keys);
}

static void begin_section(struct parser *p, struct text line)
{
	struct text inner = trim((struct text){ line.s + 1, line.n - 1 });

	end_section(p);
	if (!inner.n || inner.s[inner.n - 1] != ']') {
		complain(p, p->line, NULL, "%s has no closing ]", quote(line).s);
		p->skip = true;
		return;
	}
	inner.n--;
	inner = trim(inner);
	if (text_is(inner, "corbel")) {
		begin_corbel(p);
	} else if (inner.n >= 2 && !memcmp(inner.s, "vm", 2) &&
		   (inner.n == 2 || is_blank(inner.s[2]))) {
		begin_vm(p, trim((struct text){ inner.s + 2, inner.n - 2 }));
	} else {
		complain(p, p->line, NULL, "%s is neither [corbel] nor [vm NAME]", quote(line).s);
		p->skip = true;
	}
}

/* A comment starts at a # that begins the line or follows white space: a # inside a word is the
 * word's. */
static struct text strip_comment(struct text t)
{
	for (size_t i = 0; i < t.n; i++) {
		if (t.s[i] == '#' && (!i || is_blank(t.s[i - 1]))) {
			t.n = i;
			break;
		}
	}
	return trim(t);
}

static bool line_is_clean(struct parser *p, struct text line)
{
	if (line.n > CONFIG_LINE_MAX) {
		complain(p, p->line, NULL, "the line is longer than %u bytes", CONFIG_LINE_MAX);
		return false;
	}
	for (size_t i = 0; i < line.n; i++) {
		u8 c = (u8)line.s[i];

		if ((c < ' ' && c != '\t') || c == 0x7f) {
			complain(p, p->line, NULL, "byte 0x%02x in column %u is not text", c,
				 (u32)i + 1);
			return false;
		}
	}
	return true;
}

static void parse_line(struct parser *p, struct text line)
{
	struct text name, value;
	bool found;

	if (line.n && line.s[line.n - 1] == '\r')
		line.n--;
	if (!line_is_clean(p, line))
		return;
	line = strip_comment(line);
	if (!line.n)
		return;
	if (line.s[0] == '[') {
		begin_section(p, line);
		return;
	}
	if (p->skip)
		return;
	value = line;
	name = trim(cut(&value, '=', &found));
	if (!found)
		complain(p, p->line, NULL, "%s is not key = value", quote(line).s);
	else if (!p->keys)
		complain(p, p->line, NULL, "%s stands before any section", quote(name).s);
	else
		set_key(p, name, trim(value));
}

/* "attach" may name a VM that comes further down. */
static void resolve_attach(struct parser *p)
{
	if (!p->attach_given)
		return;
	if (text_is(p->attach, "monitor"))
		p->config->attach[0] = '\0';
	else if (find_vm(p->config, p->attach))
		text_copy(p->config->attach, p->attach);
	else
		complain(p, p->attach_line, "attach", "no VM is called %s", quote(p->attach).s);
}

/* The text after a UTF-8 byte order mark; nothing of a UTF-16 text, which some editors make without
 * being asked. */
static struct text skip_bom(struct parser *p, struct text t)
{
	if (t.n >= 3 && !memcmp(t.s, "\xef\xbb\xbf", 3))
		return (struct text){ t.s + 3, t.n - 3 };
	if (t.n >= 2 && (!memcmp(t.s, "\xff\xfe", 2) || !memcmp(t.s, "\xfe\xff", 2))) {
		complain(p, 1, NULL, "the text is UTF-16; it must be UTF-8");
		t.n = 0;
	}
	return t;
}

void config_parse(struct config *config, const char *text, size_t length,
		  const struct config_sink *sink)
{
	struct parser p = { .config = config, .sink = sink };
	struct text rest;
	bool more = true;

	memset(config, 0, sizeof(*config));
	config->baud = 115200;
	config->setup_cpu = CONFIG_SETUP_BOOT;

	rest = skip_bom(&p, (struct text){ text, length });
	while (more && rest.n) {
		struct text line = cut(&rest, '\n', &more);

		p.line++;
		parse_line(&p, line);
	}
	end_section(&p);
	resolve_attach(&p);
}

static bool ends_in_efi(struct text t)
{
	return t.n >= 4 && t.s[t.n - 4] == '.' && lower(t.s[t.n - 3]) == 'e' &&
	       lower(t.s[t.n - 2]) == 'f' && lower(t.s[t.n - 1]) == 'i';
}

/* Take the next word off t; empty at the end. */
static struct text next_word(struct text *t)
{
	struct text word;

	while (t->n && (u8)t->s[0] <= ' ') {
		t->s++;
		t->n--;
	}
	word = (struct text){ t->s, 0 };
	while (word.n < t->n && (u8)t->s[word.n] > ' ')
		word.n++;
	t->s += word.n;
	t->n -= word.n;
	return word;
}

void config_override(struct config *config, const char *words, const struct config_sink *sink)
{
	struct parser p = { .config = config,
			    .sink = sink,
			    .keys = corbel_keys,
			    .nr_keys = ARRAY_SIZE(corbel_keys) };
	struct text rest = { words, strlen(words) };
	struct text word = next_word(&rest);

	if (ends_in_efi(word))
		word = next_word(&rest);
	for (; word.n; word = next_word(&rest)) {
		struct text value = word;
		bool found;
		struct text name = cut(&value, '=', &found);

		if (found)
			set_key(&p, name, value);
		else
			complain(&p, 0, NULL, "%s is not key=value", quote(word).s);
	}
	resolve_attach(&p);
}

bool config_same_file(const char *a, const char *b)
{
	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) == lower(*b);
}
