/* SPDX-License-Identifier: MIT */
/* Which files the VMs of a configuration name. */
#include "boot/config.h"

/* Reference number n: CONFIG_VM_FILES for each VM, whether it is there or not, then the modules. */
static bool file_at(const struct config *config, u32 n, struct config_file *file)
{
	u32 modules = CONFIG_VM_FILES * config->nr_vms;

	if (n >= modules) {
		const struct config_module *m = &config->modules[n - modules];

		*file = (struct config_file){
			.name = m->name, .key = "module", .line = m->line, .vm = m->vm
		};
	} else {
		const struct config_vm *vm = &config->vms[n / CONFIG_VM_FILES];
		const struct config_file files[CONFIG_VM_FILES] = {
			{ .name = vm->kernel, .key = "kernel", .line = vm->kernel_line },
			{ .name = vm->initrd, .key = "initrd", .line = vm->initrd_line },
			{ .name = vm->disk, .key = "disk", .line = vm->disk_line },
			{ .name = vm->image, .key = "image", .line = vm->image_line },
		};

		*file = files[n % CONFIG_VM_FILES];
		file->vm = n / CONFIG_VM_FILES;
	}
	return !config->vms[file->vm].broken && file->name[0];
}

bool config_next_file(const struct config *config, u32 *pos, struct config_file *file)
{
	while (*pos < CONFIG_VM_FILES * config->nr_vms + config->nr_modules) {
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
