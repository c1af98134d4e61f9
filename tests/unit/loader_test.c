/* SPDX-License-Identifier: MIT */
/* Loading made-up Multiboot, PVH and flat images, good ones and damaged ones. */
#include "tests/unit/boot_images.h"

#define TOP (16 * MIB)
#include "tests/unit/load.h"

static const char two[] = "the second module";

static struct vcpu *const v = &fake_vcpu.v;
static struct image *image; /* on the heap, in its own size: ASan sees every byte too many */
static struct boot_file modules[3];

static void make(enum image_kind kind)
{
	image_make(image, kind);
	img.protocol = kind == IMAGE_FLAT ? "flat" : "auto";
	img.kernel = (struct boot_file){ image, sizeof(*image), "kernel's words", 0 };
	img.nr_modules = kind == IMAGE_FLAT ? 0 : 2;
}

static int setup(void **state)
{
	(void)state;
	load_open(64 * MIB);
	image = realloc(image, sizeof(*image));
	modules[0] = (struct boot_file){ "one", 3, "", 0 };
	modules[1] = (struct boot_file){ two, sizeof(two), "its words", 0 };
	img = (struct boot_image){ .modules = modules,
				   .address = IMAGE_AT,
				   .e820 = map,
				   .e820_count = ARRAY_SIZE(map),
				   .rsdp = GPA(0x90000) };
	return 0;
}

static void read_at(u64 gpa, void *to, size_t size)
{
	assert_int_equal(guest_read(vm, GPA(gpa), to, size), 0);
}

static void string_is(u64 gpa, const char *text)
{
	char found[64] = "";

	read_at(gpa, found, strlen(text) + 1);
	assert_string_equal(found, text);
}

static void code_is_there(u64 at, u32 offset)
{
	u8 found[0x1000];

	read_at(at, found, sizeof(found));
	assert_memory_equal(found, image->bytes + offset, sizeof(found));
}

/* 32-bit protected mode, as both protocols ask for it. */
static void starts_at(u64 rip, u64 rax)
{
	struct segment cs, ss, tr;

	assert_int_equal(entry.mode, BOOT_PROTECTED);
	memset(v->gpr, 0xff, sizeof(v->gpr));
	boot_start(v, &entry);
	assert_int_equal(v->rip, rip);
	assert_int_equal(v->rflags, 2);
	for (u32 n = 0; n < GPRS; n++)
		assert_int_equal(v->gpr[n], n == RAX ? rax : n == RBX ? entry.rbx : 0);
	assert_int_equal(virt_ops->get_reg(v, VR_CR0), 0x11);
	assert_int_equal(virt_ops->get_reg(v, VR_EFER), 0);
	virt_ops->get_seg(v, SEG_CS, &cs);
	virt_ops->get_seg(v, SEG_SS, &ss);
	virt_ops->get_seg(v, SEG_TR, &tr);
	assert_int_equal(cs.base | ss.base, 0);
	assert_int_equal(cs.limit & ss.limit, ~0u);
	assert_int_equal(cs.attr, 0xc09b);
	assert_int_equal(ss.attr, 0xc093);
	assert_int_equal(tr.attr, 0x8b);
}

static void multiboot_info(u64 behind)
{
	u32 info[17], mods[8], map_words[18];

	read_at(entry.rbx, info, sizeof(info));
	assert_int_equal(info[0], 0x24d);
	assert_int_equal(info[1], 576);
	assert_int_equal(info[2], 15 * 1024);
	string_is(info[4], "kernel's words");
	string_is(info[16], "Corbel");
	assert_int_equal(info[5], 2);
	read_at(info[6], mods, sizeof(mods));
	assert_int_equal(mods[0], behind);
	assert_int_equal(mods[1], behind + 3);
	string_is(mods[0], "one");
	string_is(mods[2], "");
	assert_int_equal(mods[4], behind + PAGE_SIZE);
	assert_int_equal(mods[5], behind + PAGE_SIZE + sizeof(two));
	string_is(mods[4], two);
	string_is(mods[6], "its words");
	assert_int_equal(info[11], 72);
	read_at(info[12], map_words, sizeof(map_words));
	for (u32 i = 0; i < 3; i++) {
		assert_int_equal(map_words[6 * i], 20);
		assert_memory_equal(&map_words[6 * i + 1], &map[i], 20);
	}
}

static void multiboot(void **state)
{
	(void)state;
	make(IMAGE_ADDRESSES);
	assert_int_equal(load(), 0);
	code_is_there(IMAGE_AT, 0);
	starts_at(IMAGE_AT + 0x234, 0x2badb002);
	multiboot_info(IMAGE_AT + 0x3000); /* 0x2200, in whole pages */
	image->words[0x180 / 4 + 5] = 0;   /* all of the file, and no bss */
	image->words[0x180 / 4 + 6] = 0;
	assert_int_equal(load(), 0);
	multiboot_info(IMAGE_AT + 0x2000);
	make(IMAGE_ELF32);
	assert_int_equal(load(), 0);
	code_is_there(IMAGE_AT, 0x200);
	starts_at(IMAGE_AT + 0x34, 0x2badb002);
	multiboot_info(IMAGE_AT + 0x2000);
	make(IMAGE_ELF64); /* whose entry is a virtual address */
	assert_int_equal(load(), 0);
	code_is_there(IMAGE_AT, 0x200);
	starts_at(IMAGE_AT + 0x34, 0x2badb002);
	multiboot_info(IMAGE_AT + 0x2000);
}

static void pvh(void **state)
{
	u64 info[7], mods[8], memory[9];
	u32 words[4];

	(void)state;
	make(IMAGE_PVH);
	assert_int_equal(load(), 0);
	code_is_there(IMAGE_AT, 0x200);
	starts_at(IMAGE_AT + 0x34, 0);
	read_at(entry.rbx, info, sizeof(info));
	memcpy(words, info, sizeof(words));
	assert_int_equal(words[0], 0x336ec578);
	assert_int_equal(words[1], 1);
	assert_int_equal(words[3], 2);
	read_at(info[2], mods, sizeof(mods));
	assert_int_equal(mods[0], IMAGE_AT + 0x2000);
	assert_int_equal(mods[1], 3);
	string_is(mods[2], "");
	assert_int_equal(mods[4], IMAGE_AT + 0x3000);
	assert_int_equal(mods[5], sizeof(two));
	string_is(mods[6], "its words");
	string_is(info[3], "kernel's words");
	assert_int_equal(info[4], 0x90000);
	assert_int_equal(info[6], 3);
	read_at(info[5], memory, sizeof(memory));
	for (u32 i = 0; i < 3; i++) {
		assert_memory_equal(&memory[3 * i], &map[i], 20);
		assert_int_equal(memory[3 * i + 2] >> 32, 0);
	}
}

static void flat(void **state)
{
	struct segment cs;

	(void)state;
	make(IMAGE_FLAT);
	assert_int_equal(load(), 0);
	code_is_there(IMAGE_AT, 0);
	starts_at(IMAGE_AT, 0);
	img.address = 0x7c00;
	assert_int_equal(load(), 0);
	boot_start(v, &entry);
	virt_ops->get_seg(v, SEG_CS, &cs);
	assert_int_equal(v->rip, 0x7c00);
	assert_int_equal(cs.base | cs.selector, 0);
	img.address = 0x12348;
	assert_int_equal(load(), 0);
	boot_start(v, &entry);
	virt_ops->get_seg(v, SEG_CS, &cs);
	assert_int_equal(v->rip, 8);
	assert_int_equal(cs.base, 0x12340);
	assert_int_equal(cs.selector, 0x1234);
	img.address = 0x90000;
	fails("image needs 4608 bytes of memory at 0x90000");
	img.address = IMAGE_AT;
	img.nr_modules = 1;
	fails("a flat image takes no modules and no initrd");
}

/* What low memory an image takes, boot information and modules leave alone. */
static void nothing_overlaps(void **state)
{
	u32 info[7], mods[8];

	(void)state;
	make(IMAGE_ELF32);
	image->e32.h.e_phnum = 3;
	image->e32.p[2] = (Elf32_Phdr){ .p_type = PT_LOAD, .p_paddr = 0x11000, .p_memsz = 0x2345 };
	assert_int_equal(load(), 0);
	assert_true(entry.rbx >= 0x14000 && entry.rbx < 0x14000 + 0x8000);
	image->e32.p[2].p_memsz = 0x90000 - 0x11000; /* low memory is full */
	assert_int_equal(load(), 0);
	assert_true(entry.rbx >= MIB && entry.rbx < MIB + 0x8000);
	read_at(entry.rbx, info, sizeof(info));
	read_at(info[6], mods, sizeof(mods));
	assert_int_equal(mods[0], IMAGE_AT + 0x2000);
}

static void refused(void **state)
{
	(void)state;
	make(IMAGE_FLAT);
	img.protocol = "auto";
	fails("not a kernel: neither bzImage, Multiboot nor ELF");
	memcpy(image, "\x1f\x8b", 2);
	fails("compressed with gzip: tools/mkusb unpacks kernels, not Corbel");
	img.protocol = "pvh";
	fails("bad ELF: no ELF signature");
	make(IMAGE_PVH);
	image->e64.p[0].p_filesz = 0x20; /* in the middle of the second note */
	fails("ELF without a PVH entry (Xen's note 18)");
	make(IMAGE_PVH);
	image->words[0x180 / 4 + 3] = 0x6e6558; /* now the first is Xen's; its entry is 1 */
	fails("bad image: its entry 0x1 is outside of it");
	make(IMAGE_PVH);
	image->e64.p[1] = image->e64.p[2];
	image->e64.p[1].p_paddr -= 0x1fff;
	fails("bad image: its pieces at 0x3fe001..0x400001 and 0x400000..0x402000 overlap");
	make(IMAGE_PVH);
	image->e64.p[2].p_memsz = ~0ull;
	fails("image needs 18446744073709551615 bytes of memory at 0x400000");
	image->e64.p[2].p_memsz = 0xfff;
	fails("bad image: 4096 bytes at 0x200 of a file of 4608, for 4095 of memory");
	image->e64.h.e_phnum = 0xffff;
	fails("bad ELF: its program headers are outside of the file");
	image->e64.h.e_phnum = 0;
	fails("bad ELF: it has no program headers");
	make(IMAGE_ELF32);
	image->e32.h.e_ident[EI_DATA] = 2;
	fails("Multiboot without addresses, and bad ELF: neither 32-bit nor 64-bit, or "
	      "not little-endian");
	make(IMAGE_ADDRESSES);
	image->words[0x180 / 4 + 3] += 0x184; /* from before the file's begin */
	fails("bad Multiboot header: it is at 0x400304, loaded from 0x400000");
	make(IMAGE_ADDRESSES);
	image->words[0x180 / 4 + 6] = IMAGE_AT + 0x1000; /* bss ends in the middle of the data */
	fails("bad Multiboot header: 0x400000..0x401200, bss up to 0x401000");
	make(IMAGE_ADDRESSES);
	image_multiboot_header(image, 0x10009);
	fails("Multiboot flags 0x8: not known to version 1");
	make(IMAGE_ADDRESSES);
	modules[1].size = 13 * MIB;
	fails("module of 13312 KiB does not fit in the VM's memory");
}

static u32 module_start(u32 i)
{
	u32 info[17], mods[8];

	read_at(entry.rbx, info, sizeof(info));
	read_at(info[6], mods, sizeof(mods));
	return mods[4 * i];
}

/* A module that has its place; the others keep away from it. */
static void module_by_need(void **state)
{
	u64 lowest;

	(void)state;
	make(IMAGE_ADDRESSES);
	assert_int_equal(load(), 0);
	lowest = module_start(0);
	make(IMAGE_ADDRESSES);
	modules[0] = (struct boot_file){ NULL, 3, "", lowest };
	assert_int_equal(load(), 0);
	assert_int_equal(module_start(0), lowest);
	assert_true(module_start(1) >= lowest + 3);
	make(IMAGE_ADDRESSES);
	modules[0] = (struct boot_file){ NULL, 3, "", IMAGE_AT };
	assert_int_equal(load(), -ENOEXEC);
	assert_non_null(strstr(why, "image and initrd overlap at 0x"));
}

/* More than the boot information, the list of pieces, or the interface can hold. */
static void too_much(void **state)
{
	static struct boot_file many[34];
	char *words = calloc(1, 0x8001);

	(void)state;
	make(IMAGE_ADDRESSES);
	memset(words, 'x', 0x8000);
	img.kernel.args = words;
	fails("command line and modules' arguments are too long");
	words[0x7000] = '\0';
	assert_int_equal(load(), 0);
	img.kernel.args = "";
	for (u32 i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = modules[1];
	img.modules = many;
	img.nr_modules = 33;
	assert_int_equal(load(), 0);
	img.nr_modules = 34;
	fails("too many modules, or entries of the memory map");
	free(words);
}

/* Any damage at all: never a byte outside file or memory (ASan), a sentence for each refusal. */
static void random_damage(void **state)
{
	u64 seed = host_seed();
	u32 good = 0, bad = 0;

	(void)state;
	for (u32 round = 0; round < 20000; round++) {
		u64 size = host_random(&seed) % 4 ? IMAGE_SIZE : host_random(&seed) % IMAGE_SIZE;
		int err;

		make(round % IMAGE_KINDS);
		img.protocol = image_protocols[round % IMAGE_KINDS];
		for (u64 i = host_random(&seed) % 4; i; i--)
			image->bytes[host_random(&seed) % 0x200] = (u8)host_random(&seed);
		u8 *cut = malloc(size + !size);
		memcpy(cut, image, size);
		img.kernel.data = cut;
		img.kernel.size = size;
		err = load();
		free(cut);
		*(err ? &bad : &good) += 1;
		assert_int_equal(!err, !why[0]);
		assert_true(err || (entry.rip < TOP && entry.rbx < TOP));
	}
	assert_true(good > 1000 && bad > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(multiboot, setup),
		cmocka_unit_test_setup(pvh, setup),
		cmocka_unit_test_setup(flat, setup),
		cmocka_unit_test_setup(nothing_overlaps, setup),
		cmocka_unit_test_setup(refused, setup),
		cmocka_unit_test_setup(module_by_need, setup),
		cmocka_unit_test_setup(too_much, setup),
		cmocka_unit_test_setup(random_damage, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
