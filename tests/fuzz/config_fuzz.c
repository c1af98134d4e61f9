/* SPDX-License-Identifier: MIT */
/* Arbitrary bytes as a configuration, and what follows their last NUL as LoadOptions. */
#include <stdlib.h>
#include <string.h>

#include "boot/config.h"
#include "lib/string.h"

static struct config config;

static void check_line(void *arg, const char *line)
{
	(void)arg;
	for (; *line; line++) {
		if (*line < ' ' || *line > '~')
			abort();
	}
}

/* What the users of a config rely on without looking again. */
static void check_vm(const struct config_vm *vm)
{
	if (!memchr(vm->name, 0, sizeof(vm->name)) || !memchr(vm->kernel, 0, sizeof(vm->kernel)) ||
	    !memchr(vm->initrd, 0, sizeof(vm->initrd)) || !memchr(vm->disk, 0, sizeof(vm->disk)) ||
	    !memchr(vm->net, 0, sizeof(vm->net)) || !memchr(vm->cmdline, 0, sizeof(vm->cmdline)))
		abort();
	if (!vm->name[0] || (!vm->broken && !vm->kernel[0]))
		abort();
	if (!memchr(vm->protocol, 0, sizeof(vm->protocol)) || !vm->protocol[0] ||
	    vm->address > 0xffffffff)
		abort();
	if (vm->memory < CONFIG_MEMORY_MIN || vm->memory > CONFIG_MEMORY_MAX || vm->memory % 4096)
		abort();
	if (!vm->vcpus || vm->vcpus > CONFIG_VCPUS_MAX)
		abort();
	if (bitmap_next(vm->cpus.bits, MAX_CPUS, 0) == MAX_CPUS)
		abort();
}

static void check(void)
{
	struct config_file file;
	u32 pos = 0, files = 0;

	if (config.nr_vms > CONFIG_MAX_VMS || !config.baud || 115200 % config.baud)
		abort();
	if (config.setup_cpu < CONFIG_SETUP_BOOT || config.setup_cpu >= MAX_CPUS)
		abort();
	if ((config.serial == CONFIG_SERIAL_PORT) != (config.serial_port != 0))
		abort();
	if (config.nr_modules > CONFIG_MODULES_MAX)
		abort();
	for (u32 i = 0; i < config.nr_modules; i++) {
		const struct config_module *m = &config.modules[i];

		if (m->vm >= config.nr_vms || !memchr(m->name, 0, sizeof(m->name)) ||
		    !memchr(m->args, 0, sizeof(m->args)))
			abort();
	}
	for (u32 i = 0; i < config.nr_vms; i++)
		check_vm(&config.vms[i]);
	while (config_next_file(&config, &pos, &file)) {
		if (!file.line || config.vms[file.vm].broken || ++files > CONFIG_FILES_MAX)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const struct config_sink sink = { .file = "fuzz", .report = check_line };
	size_t head = size;
	char *words;

	while (head && data[head - 1])
		head--;
	words = malloc(size - head + 1);
	memcpy(words, data + head, size - head);
	words[size - head] = '\0';

	config_parse(&config, (const char *)data, head ? head - 1 : size, &sink);
	check();
	config_override(&config, words, &sink);
	check();
	free(words);
	return 0;
}
