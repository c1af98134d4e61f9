/* SPDX-License-Identifier: MIT */
/* Which files the VMs of a configuration name. */
#include "boot/config.h"

/* Reference number n: 2 for each VM, whether it is there or not, then the modules. */
static bool file_at(const struct config *config, u32 n, struct config_file *file)
{
	if (n >= 2 * config->nr_vms) {
		const struct config_module *m = &config->modules[n - 2 * config->nr_vms];

		*file = (struct config_file){
			.name = m->name, .key = "module", .line = m->line, .vm = m->vm
		};
		return !config->vms[m->vm].broken;
	}

	const struct config_vm *vm = &config->vms[n / 2];
	bool initrd = n % 2;

	*file = (struct config_file){ .name = initrd ? vm->initrd : vm->kernel,
				      .key = initrd ? "initrd" : "kernel",
				      .line = initrd ? vm->initrd_line : vm->kernel_line,
				      .vm = n / 2 };
	return !vm->broken && file->name[0];
}

bool config_next_file(const struct config *config, u32 *pos, struct config_file *file)
{
	while (*pos < 2 * config->nr_vms + config->nr_modules) {
		u32 n = (*pos)++;

		if (!file_at(config, n, file))
			continue;
		for (u32 i = 0; i < n; i++) {
			struct config_file earlier;

			if (file_at(config, i, &earlier) &&
			    config_same_file(earlier.name, file->name))
				file->again = true;
		}
		return true;
	}
	return false;
}
