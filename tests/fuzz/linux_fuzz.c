/* SPDX-License-Identifier: MIT */
/*
 * Any file as a kernel, with any memory map: never a crash; an error has a sentence, and what is
 * accepted lies in the VM's memory. The input is XORed over a good setup: zeros are a good one.
 */
#include <string.h>

#include "tests/fuzz/load.h"

#define KERNEL_MAX 4096u
#define HDR_AT	   0x1f1 /* of the header in the file */

struct PACKED input {
	u16 kernel_size, initrd_size;
	u8 e820_count, why_len, flags;
	u8 cmdline[16];
	struct boot_e820_entry e820[3];
	struct setup_header hdr;
};

static const struct input good = {
	.kernel_size = 2 * 512 + 2000,
	.initrd_size = 1000,
	.e820_count = 3,
	.why_len = 128,
	.cmdline = "console=ttyS0",
	.e820 = { { 0, 0x90000, E820_RAM },
		  { 0x90000, 0x10000, E820_ACPI },
		  { MIB, TOP - MIB, E820_RAM } },
	.hdr = { .setup_sects = 1,
		 .syssize = 2000 / 16,
		 .boot_flag = 0xaa55,
		 .jump = 0x6aeb,
		 .header = 0x53726448,
		 .version = 0x20f,
		 .loadflags = LOADED_HIGH,
		 .initrd_addr_max = 0x7fffffff,
		 .kernel_alignment = 0x200000,
		 .relocatable_kernel = 1,
		 .xloadflags = XLF_KERNEL_64,
		 .cmdline_size = 2047,
		 .pref_address = 16 * MIB,
		 .init_size = MIB },
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = good;
	struct boot_e820_entry *e820;
	struct boot_image img = { .protocol = "linux" };
	struct boot_file module = { .args = "" };
	struct boot_entry entry;
	u8 *kernel, *initrd;
	char *why, *cmdline;
	size_t why_len;
	int err;

	for (size_t i = 0; i < MIN(size, sizeof(in)); i++)
		((u8 *)&in)[i] ^= data[i];
	/* Blocks of their own size: a look past an end is seen. */
	img.kernel.size = in.kernel_size % KERNEL_MAX;
	kernel = calloc(1, img.kernel.size + !img.kernel.size);
	if (img.kernel.size > HDR_AT)
		memcpy(kernel + HDR_AT, &in.hdr, MIN(sizeof(in.hdr), img.kernel.size - HDR_AT));
	img.kernel.data = kernel;
	module.size = in.initrd_size;
	module.data = initrd = calloc(1, module.size + !module.size);
	img.e820_count = in.flags & 1 ? in.e820_count : in.e820_count % 4;
	e820 = calloc(img.e820_count + 1, sizeof(*e820));
	memcpy(e820, in.e820, MIN(img.e820_count, 3u) * sizeof(*e820));
	img.e820 = e820;
	cmdline = calloc(1, in.flags & 2 ? 3000 : sizeof(in.cmdline) + 1);
	if (in.flags & 2)
		memset(cmdline, 'x', 2999);
	else
		memcpy(cmdline, in.cmdline, sizeof(in.cmdline));
	img.kernel.args = in.flags & 4 ? "" : cmdline;
	img.modules = &module;
	img.nr_modules = in.flags >> 3 & 1 ? 0 : 1;
	why_len = in.why_len + 1u;
	why = calloc(1, why_len);

	err = boot_load(&fake_vm, &img, &entry, why, why_len);
	check_result(err, why, why_len);
	/* Only the first byte of what the map calls RAM needs to be there: the end may be a lie. */
	if (!err &&
	    (entry.mode != BOOT_LONG || entry.rip < MIB + 0x200 || entry.rip % PAGE_SIZE != 0x200))
		abort();
	free(kernel);
	free(initrd);
	free(e820);
	free(cmdline);
	free(why);
	return 0;
}
