/* SPDX-License-Identifier: MIT */
/*
 * Any file as a kernel for Multiboot, PVH or a flat image, with any memory map: never a crash; an
 * error has a sentence, and what is accepted begins in the VM's memory. The input's first byte is
 * the kind of image and how it is asked for; the rest is XORed over a good setup.
 */
#include "tests/fuzz/load.h"
#include "tests/unit/boot_images.h"

struct input {
	struct image image;
	u16 cut; /* of the image's end */
	u16 module_size[2];
	u32 address;
	u8 nr_modules, e820_count, why_len;
	char args[16];
	struct boot_e820_entry e820[3];
};

static void *copy(const void *from, size_t size)
{
	void *to = malloc(size + !size);

	memcpy(to, from, size);
	return to;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct input in;
	static const u8 zeros[0x10000];
	u8 kind = size ? data[0] % IMAGE_KINDS : 0;
	struct boot_file modules[34] = { { 0 } };
	struct boot_image img = { .modules = modules, .rsdp = GPA(0x90000) };
	struct boot_entry entry;
	size_t why_len;
	char *why;
	int err;

	memset(&in, 0, sizeof(in));
	image_make(&in.image, kind);
	in.nr_modules = kind == IMAGE_FLAT ? 0 : 2;
	in.address = IMAGE_AT;
	in.e820_count = 3;
	in.why_len = 128;
	in.e820[0] = (struct boot_e820_entry){ 0, 0x90000, E820_RAM };
	in.e820[1] = (struct boot_e820_entry){ 0x90000, 0x10000, E820_ACPI };
	in.e820[2] = (struct boot_e820_entry){ MIB, TOP - MIB, E820_RAM };
	for (size_t i = 1; i < MIN(size, sizeof(in) + 1); i++)
		((u8 *)&in)[i - 1] ^= data[i];
	in.args[sizeof(in.args) - 1] = '\0';
	/* Blocks of their own size: a look past an end is seen. */
	img.protocol = size && data[0] & 0x80 ? "auto" : image_protocols[kind];
	img.kernel.size = IMAGE_SIZE - in.cut % (IMAGE_SIZE + 1);
	img.kernel.data = copy(&in.image, img.kernel.size);
	img.kernel.args = in.args;
	img.address = in.address;
	img.nr_modules = in.nr_modules % 36;
	for (u32 i = 0; i < ARRAY_SIZE(modules); i++)
		modules[i] = (struct boot_file){ zeros, in.module_size[i % 2], in.args, 0 };
	img.e820_count = in.e820_count % 4;
	img.e820 = copy(in.e820, img.e820_count * sizeof(*img.e820));
	why_len = in.why_len + 1u;
	why = calloc(1, why_len);

	err = boot_load(&fake_vm, &img, &entry, why, why_len);
	check_result(err, why, why_len);
	if (!err && (entry.mode == BOOT_LONG || entry.rip >= TOP || entry.rbx >= TOP))
		abort();
	free((void *)img.kernel.data);
	free((void *)img.e820);
	free(why);
	return 0;
}
