/* SPDX-License-Identifier: MIT */
#include "boot/config_parser.h"

#include "lib/printf.h"
#include "lib/string.h"

struct section {
	const char *name;
	const struct key *keys;
	bool named; /* as in [vm NAME] */
	/* False: reported, the section is to be skipped. */
	bool (*begin)(struct parser *p, struct text name);
};

/* ---- Messages ---- */

#define MESSAGE_MAX 200

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

bool complain(struct parser *p, u32 line, const char *key, const char *fmt, ...)
{
	va_list ap;

	p->config->errors++;
	if (p->vm)
		p->vm->broken = true;
	if (p->memory)
		p->memory->broken = true;
	if (p->reported++ > CONFIG_ERRORS_MAX)
		return false;
	if (p->reported > CONFIG_ERRORS_MAX) {
		config_error_at(p->sink, 0, NULL, "more errors, not shown");
		return false;
	}
	va_start(ap, fmt);
	report_va(p->sink, line, key, fmt, ap);
	va_end(ap);
	return false;
}

/* ---- Sections and lines ---- */

static const struct key *find_key(const struct section *section, struct text name)
{
	for (const struct key *key = section->keys; key->name; key++)
		if (text_is(name, key->name))
			return key;
	return NULL;
}

static void set_key(struct parser *p, struct text name, struct text value)
{
	u8 *object = p->vm ? (u8 *)p->vm : p->memory ? (u8 *)p->memory : (u8 *)p->config;
	const struct key *key = find_key(p->section, name);
	u64 bit;

	if (!key) {
		complain(p, p->line, NULL, "%s is not a key of [%s]", quote(name).s,
			 p->section->name);
		return;
	}
	bit = BIT(key - p->section->keys);
	if (p->seen & bit && !key->many) {
		complain(p, p->line, key->name, "is there twice");
	} else if (!value.n && !key->may_be_empty) {
		complain(p, p->line, key->name, "has no value");
	} else {
		p->key = key;
		if (key->line)
			*(u32 *)(object + key->line) = p->line;
		key->set(p, value, object + key->field);
	}
	p->seen |= bit;
}

static struct config_vm *find_vm(struct config *config, struct text name)
{
	for (u32 i = 0; i < config->nr_vms; i++) {
		if (text_is(name, config->vms[i].name))
			return &config->vms[i];
	}
	return NULL;
}

/* Copy number i can be made; if not, that is reported. */
static void check_copy(struct parser *p, u32 i)
{
	u32 line = p->vm->copies_line;
	char name[CONFIG_NAME_MAX + 1];
	struct text t = { name, 0 };
	const struct config_vm *vm;

	t.n = (size_t)fmt_snprintf(name, sizeof(name), "%s-%u", p->vm->name, i);
	if (t.n > CONFIG_NAME_MAX) {
		complain(p, line, "copies", "'%s-%u' is longer than 31 characters", p->vm->name, i);
		return;
	}
	vm = find_vm(p->config, t);
	if (vm)
		complain(p, line, "copies", "'%s' is there already, in line %u", name, vm->line);
	else if (p->config->nr_vms + i - 1 > CONFIG_MAX_VMS)
		complain(p, line, "copies", "'%s' is one too many: at most 16", name);
}

/* copies = N: NAME becomes NAME-1, and the others are like it. All of them or none. */
static void make_copies(struct parser *p)
{
	static const u8 no_mac[sizeof(p->vm->mac)];
	struct config_vm *vm = p->vm;
	char base[CONFIG_NAME_MAX + 1];

	if (memcmp(vm->mac, no_mac, sizeof(no_mac)))
		complain(p, vm->copies_line, "copies", "mac: each needs its own: leave it out");
	for (u32 i = 1; i <= vm->copies && !vm->broken; i++)
		check_copy(p, i);
	if (vm->broken)
		return;
	memcpy(base, vm->name, sizeof(base));
	for (u32 i = 1; i <= p->vm->copies; i++) {
		if (i > 1) {
			vm = &p->config->vms[p->config->nr_vms++];
			*vm = *p->vm;
		}
		fmt_snprintf(vm->name, sizeof(vm->name), "%s-%u", base, i);
	}
}

static void check_pins(struct parser *p)
{
	const struct config_vm *vm = p->vm;

	for (u32 i = 0; i < CONFIG_VCPUS_MAX; i++) {
		if (!vm->pin[i])
			continue;
		if (i >= vm->vcpus)
			complain(p, vm->pin_line, "pin", "there is no vCPU %u: vcpus = %u", i,
				 vm->vcpus);
		else if (!bitmap_test(vm->cpus.bits, vm->pin[i] - 1u))
			complain(p, vm->pin_line, "pin", "CPU %u is not one of cpus",
				 vm->pin[i] - 1);
	}
}

/* What can only be said once a VM's section is complete. */
static void end_section(struct parser *p)
{
	if (p->vm && !(p->seen & BIT(VM_KEY_KERNEL)))
		complain(p, p->vm->line, "kernel", "vm %s has none", p->vm->name);
	if (p->vm && p->vm->address_line && strcmp(p->vm->protocol, "flat"))
		complain(p, p->vm->address_line, "address", "only protocol = flat takes one");
	if (p->vm && p->vm->pin_line)
		check_pins(p);
	if (p->vm && p->vm->copies)
		make_copies(p);
	if (p->memory && !p->seen)
		complain(p, p->memory->line, "size", "memory %s has none", p->memory->name);
	p->vm = NULL;
	p->memory = NULL;
	p->section = NULL;
	p->seen = 0;
	p->skip = false;
}

/* "monitor" stands for Corbel's own prompt wherever a VM's name can stand. */
static bool is_vm_name(struct text name)
{
	return is_name(name) && !text_is(name, "monitor");
}

static bool begin_vm(struct parser *p, struct text name)
{
	struct config *config = p->config;
	struct config_vm *vm = find_vm(config, name);

	if (!is_vm_name(name))
		return complain(p, p->line, "vm", "%s is not " NAME_IS, quote(name).s);
	if (vm)
		return complain(p, p->line, "vm", "%s is there already, in line %u", quote(name).s,
				vm->line);
	if (config->nr_vms == CONFIG_MAX_VMS)
		return complain(p, p->line, "vm", "%s is one too many: at most 16", quote(name).s);
	vm = &config->vms[config->nr_vms];
	vm->section = config->nr_vms++;
	text_copy(vm->name, name);
	vm->memory = 256 * MIB;
	text_copy(vm->protocol, (struct text){ "auto", 4 });
	vm->address = MIB;
	vm->vcpus = 1;
	vm->weight = 100;
	vm->apicv = vm->posted = true;
	memset(&vm->cpus, 0xff, sizeof(vm->cpus));
	vm->autostart = true;
	vm->rng = true;
	vm->line = p->line;
	p->vm = vm;
	return true;
}

static struct config_memory *find_memory(struct config *config, struct text name)
{
	for (u32 i = 0; i < config->nr_memories; i++) {
		if (text_is(name, config->memories[i].name))
			return &config->memories[i];
	}
	return NULL;
}

static bool begin_memory(struct parser *p, struct text name)
{
	struct config *config = p->config;
	struct config_memory *memory = find_memory(config, name);

	if (!is_name(name))
		return complain(p, p->line, "memory", "%s is not " NAME_IS, quote(name).s);
	if (memory)
		return complain(p, p->line, "memory", "%s is there already, in line %u",
				quote(name).s, memory->line);
	if (config->nr_memories == CONFIG_MEMORIES_MAX)
		return complain(p, p->line, "memory", "%s is one too many: at most 16",
				quote(name).s);
	memory = &config->memories[config->nr_memories++];
	text_copy(memory->name, name);
	memory->line = p->line;
	p->memory = memory;
	return true;
}

static bool begin_corbel(struct parser *p, struct text name)
{
	(void)name;
	if (p->corbel_line)
		return complain(p, p->line, "corbel", "is there already, in line %u",
				p->corbel_line);
	p->corbel_line = p->line;
	return true;
}

static const struct section sections[] = {
	{ "corbel", corbel_keys, false, begin_corbel },
	{ "vm", vm_keys, true, begin_vm },
	{ "memory", memory_keys, true, begin_memory },
};
#define OPTIONS (&sections[0]) /* the section that LoadOptions are of */

static void begin_section(struct parser *p, struct text line)
{
	struct text name = trim((struct text){ line.s + 1, line.n - 1 }), word;

	end_section(p);
	p->skip = true;
	if (!name.n || name.s[name.n - 1] != ']') {
		complain(p, p->line, NULL, "%s has no closing ]", quote(line).s);
		return;
	}
	name.n--;
	word = next_word(&name);
	name = trim(name);
	for (u32 i = 0; i < ARRAY_SIZE(sections); i++) {
		if (!text_is(word, sections[i].name) || (name.n && !sections[i].named))
			continue;
		p->section = &sections[i];
		p->skip = !p->section->begin(p, name);
		return;
	}
	complain(p, p->line, NULL, "%s is neither [corbel], [vm NAME] nor [memory NAME]",
		 quote(line).s);
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
	else if (!p->section)
		complain(p, p->line, NULL, "%s stands before any section", quote(name).s);
	else
		set_key(p, name, trim(value));
}

/* "attach" may name a VM that comes further down. */
static void resolve_attach(struct parser *p)
{
	if (!p->attach.n)
		return;
	if (text_is(p->attach, "monitor"))
		p->config->attach[0] = '\0';
	else if (find_vm(p->config, p->attach))
		text_copy(p->config->attach, p->attach);
	else
		complain(p, p->attach_line, "attach", "no VM is called %s", quote(p->attach).s);
}

/* "share" may name a [memory] that comes further down. */
static void resolve_shares(struct parser *p)
{
	for (u32 i = 0; i < p->config->nr_shares; i++) {
		const struct config_share *s = &p->config->shares[i];
		struct text name = { s->name, strlen(s->name) };
		const struct config_memory *memory = find_memory(p->config, name);

		p->vm = &p->config->vms[s->vm];
		if (!memory)
			complain(p, s->line, "share", "no [memory] is called '%s'", s->name);
		else if (memory->broken)
			complain(p, s->line, "share", "[memory %s] has errors", s->name);
	}
	p->vm = NULL;
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
	resolve_shares(&p);
}

static bool ends_in_efi(struct text t)
{
	return t.n >= 4 && t.s[t.n - 4] == '.' && lower(t.s[t.n - 3]) == 'e' &&
	       lower(t.s[t.n - 2]) == 'f' && lower(t.s[t.n - 1]) == 'i';
}

void config_override(struct config *config, const char *words, const struct config_sink *sink)
{
	struct parser p = { .config = config, .sink = sink, .section = OPTIONS };
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
