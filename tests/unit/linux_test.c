/* SPDX-License-Identifier: MIT */
/* Loading made-up bzImages, good ones and damaged ones. */
#include "arch/x86/msr.h"
#include "mm/phys.h"
#include "virt/linux.h"

#define TOP (32 * MIB)
#include "tests/unit/load.h"

static struct boot_file module;
static u8 *file; /* exactly kernel.size bytes on the heap, so that ASan sees every byte too many */
static u8 *initrd;

static struct setup_header *hdr(void)
{
	return (struct setup_header *)(file + 0x1f1);
}

static void new_file(u64 size)
{
	free(file);
	file = calloc(1, size);
	img.kernel.data = file;
	img.kernel.size = size;
}

/* A kernel of 3 setup sectors and 64 KiB, in the shape of the real ones. */
static int good_image(void **state)
{
	(void)state;
	load_open(96 * MIB);
	memset(&img, 0, sizeof(img));
	new_file(4 * 512 + 0x10000);
	for (u64 i = 4 * 512; i < img.kernel.size; i++)
		file[i] = (u8)(i * 7);
	hdr()->setup_sects = 3;
	hdr()->syssize = 0x1000;
	hdr()->jump = 0x6aeb; /* header up to 0x26c */
	hdr()->header = 0x53726448;
	hdr()->version = 0x20f;
	hdr()->loadflags = LOADED_HIGH | CAN_USE_HEAP;
	hdr()->initrd_addr_max = 0x7fffffff;
	hdr()->kernel_alignment = 0x200000;
	hdr()->relocatable_kernel = 1;
	hdr()->xloadflags = 0x7f;
	hdr()->cmdline_size = 2047;
	hdr()->pref_address = 16 * MIB;
	hdr()->init_size = 3 * MIB + 0x123;
	hdr()->setup_data = 0x1234; /* not ours: must not get through */
	free(initrd);
	initrd = malloc(100000);
	memset(initrd, 0xcd, 100000);
	module.data = initrd;
	module.size = 100000;
	img.kernel.args = "console=ttyS0 quiet";
	img.protocol = "linux";
	img.modules = &module;
	img.nr_modules = 1;
	img.e820 = map;
	img.e820_count = ARRAY_SIZE(map);
	img.rsdp = GPA(0x90000);
	return 0;
}

static u64 read8(u64 gpa)
{
	u64 value;

	assert_int_equal(guest_read(vm, GPA(gpa), &value, 8), 0);
	return value;
}

/* Where the zero page says that it is. */
static u64 initrd_at(void)
{
	return (u32)read8(LINUX_ZERO_PAGE + offsetof(struct boot_params, hdr.ramdisk_image));
}

static void a_good_one(void **state)
{
	static struct boot_params zero;
	static u8 buf[100000];

	(void)state;
	assert_int_equal(load(), 0);
	assert_string_equal(why, "");
	assert_int_equal(entry.rip, 16 * MIB + 0x200);
	assert_int_equal(entry.mode, BOOT_LONG);
	assert_int_equal(guest_read(vm, GPA(16 * MIB), buf, 0x10000), 0);
	assert_memory_equal(buf, file + 4 * 512, 0x10000);
	assert_int_equal(guest_read(vm, GPA(ALIGN_DOWN(TOP - 100000, PAGE_SIZE)), buf, 100000), 0);
	assert_memory_equal(buf, initrd, 100000);
	assert_int_equal(guest_read(vm, GPA(LINUX_ZERO_PAGE), &zero, sizeof(zero)), 0);
	assert_int_equal(zero.hdr.header, 0x53726448);
	assert_int_equal(zero.hdr.type_of_loader, 0xff);
	assert_int_equal(zero.hdr.loadflags, LOADED_HIGH);
	assert_int_equal(zero.hdr.code32_start, 16 * MIB);
	assert_int_equal(zero.hdr.ramdisk_image, ALIGN_DOWN(TOP - 100000, PAGE_SIZE));
	assert_int_equal(zero.hdr.ramdisk_size, 100000);
	assert_int_equal(zero.hdr.init_size, 3 * MIB + 0x123);
	assert_int_equal(zero.hdr.setup_data, 0);
	assert_int_equal(zero.ext_ramdisk_image | zero.ext_ramdisk_size | zero.ext_cmd_line_ptr, 0);
	assert_int_equal(zero.acpi_rsdp_addr, 0x90000);
	assert_int_equal(zero.e820_entries, 3);
	assert_memory_equal(zero.e820_table, map, sizeof(map));
	assert_int_equal(zero.sentinel, 0);
	assert_int_equal(guest_read(vm, GPA(zero.hdr.cmd_line_ptr), buf, 20), 0);
	assert_string_equal((char *)buf, "console=ttyS0 quiet");
}

static void without_extras(void **state)
{
	(void)state;
	img.nr_modules = 0;
	img.kernel.args = "";
	img.rsdp = GPA(0);
	assert_int_equal(load(), 0);
	assert_int_equal(initrd_at(), 0);
	assert_int_equal(read8(LINUX_CMDLINE), 0);
}

/* The registers, and that the tables really are an identity map by Corbel's own walk. */
static void starting(void **state)
{
	static const u64 places[] = { 0, LINUX_ZERO_PAGE + 0x123, 16 * MIB + 0x200, GIB,
				      4 * GIB - 1 };
	struct vcpu *v = &fake_vcpu.v;
	struct walk_fault fault;
	struct segment s;
	u8 bytes[15];
	gpa_t gpa;

	(void)state;
	assert_int_equal(load(), 0);
	memset(v->gpr, 0xff, sizeof(v->gpr));
	boot_start(v, &entry);
	assert_int_equal(v->rip, entry.rip);
	assert_int_equal(v->rflags, 2);
	for (u32 n = 0; n < GPRS; n++)
		assert_int_equal(v->gpr[n], n == RSI ? LINUX_ZERO_PAGE : 0);
	for (u32 i = 0; i < ARRAY_SIZE(places); i++) {
		assert_int_equal(guest_walk(v, places[i], ACCESS_W, 0, &gpa, &fault), 0);
		assert_int_equal(gpa.v, places[i]);
	}
	assert_int_equal(guest_walk(v, 4 * GIB, ACCESS_R, 0, &gpa, &fault), -EFAULT);
	assert_int_equal(guest_fetch(v, bytes, &fault), 15);
	assert_memory_equal(bytes, file + 4 * 512 + 0x200, 15);
	/* The GDT in memory says the same as the segments. */
	virt_ops->get_seg(v, SEG_CS, &s);
	assert_int_equal(read8(LINUX_GDT + s.selector), 0x00af9b000000ffff);
	assert_int_equal(s.attr, 0xa09b);
	virt_ops->get_seg(v, SEG_SS, &s);
	assert_int_equal(read8(LINUX_GDT + s.selector), 0x00cf93000000ffff);
	assert_int_equal(s.attr, 0xc093);
	virt_ops->get_seg(v, SEG_GDTR, &s);
	assert_int_equal(s.base, LINUX_GDT);
	virt_ops->get_seg(v, SEG_IDTR, &s);
	assert_int_equal(s.limit, 0xffff);
}

static void no_kernel(void **state)
{
	new_file(100);
	fails("not a bzImage: only 100 bytes long");
	new_file(0);
	fails("not a bzImage: only 0 bytes long");
	new_file(4096);
	fails("not a bzImage: no HdrS signature at offset 0x202");
	good_image(state);
	hdr()->version = 0x20b;
	fails("boot protocol 2.11 is too old: 2.12 is needed");
	good_image(state);
	hdr()->xloadflags &= (u16)~XLF_KERNEL_64;
	fails("not a 64-bit kernel: it has no 64-bit entry");
	good_image(state);
	hdr()->jump = 0x10eb;
	fails("bad bzImage: its header ends at 0x212 already");
	good_image(state);
	hdr()->setup_sects = 200;
	fails("bad bzImage: 200 setup sectors, but only 67584 bytes");
	good_image(state);
	hdr()->syssize = 0x1001;
	fails("bzImage is cut short: 65536 bytes behind the setup, its header says 65552");
	good_image(state);
	hdr()->pref_address = 0x1000;
	fails("bad bzImage: it wants 3072 KiB at 0x1000");
	good_image(state);
	hdr()->pref_address = ~0xfffull;
	load();
	good_image(state);
	hdr()->pref_address = 4 * GIB - PAGE_SIZE;
	hdr()->init_size = ~0u;
	assert_int_equal(load(), -ENOEXEC);
}

/* It is there already, by need: nothing is copied, and nothing may be below or above its place. */
static void initrd_by_need(void **state)
{
	u64 was;

	(void)state;
	was = read8(28 * MIB);
	module.data = NULL;
	module.at = 28 * MIB;
	assert_int_equal(load(), 0);
	assert_int_equal(initrd_at(), 28 * MIB);
	assert_int_equal(read8(28 * MIB), was);
	module.at = 18 * MIB;
	fails("initrd of 1 MiB does not fit between 0x1301000 and 0x2000000");
	good_image(state);
	hdr()->initrd_addr_max = 24 * MIB - 1;
	module.at = 28 * MIB;
	assert_int_equal(load(), -ENOEXEC);
	module.at = 0;
}

static void no_room(void **state)
{
	static char line[70000];

	hdr()->init_size = 17 * MIB;
	fails("kernel needs memory from 0x1000000 to 0x2100000 (33 MiB)");
	good_image(state);
	module.size = 300 * MIB;
	fails("initrd of 300 MiB does not fit between 0x1301000 and 0x2000000");
	good_image(state);
	module.size = ~0ull;
	assert_int_equal(load(), -ENOEXEC);
	good_image(state);
	hdr()->initrd_addr_max = 18 * MIB;
	fails("initrd of 1 MiB does not fit between 0x1301000 and 0x1301000");
	good_image(state);
	hdr()->initrd_addr_max = 24 * MIB - 1;
	assert_int_equal(load(), 0);
	assert_int_equal(initrd_at(), ALIGN_DOWN(24 * MIB - 100000, PAGE_SIZE));
	hdr()->initrd_addr_max = 0xffffffff;
	assert_int_equal(load(), 0);
	memset(line, 'x', 2047);
	img.kernel.args = line;
	assert_int_equal(load(), 0);
	line[2047] = 'x';
	fails("command line is too long: this kernel takes 2047 characters");
	memset(line, 'x', sizeof(line) - 1);
	hdr()->cmdline_size = 0xffffffff;
	fails("command line is too long: this kernel takes 65535 characters");
	good_image(state);
	img.e820_count = 129;
	fails("too many modules, or entries of the memory map");
	good_image(state);
	img.nr_modules = 2;
	fails("Linux takes one initrd, and no modules");
	good_image(state);
	img.e820 = map + 1;
	img.e820_count = 2;
	fails("no memory from 0 to 0x30000 for the boot parameters");
}

/* The map promises what the VM doesn't have. */
static void map_lies(void **state)
{
	static const struct boot_e820_entry big[] = { { 0, 0x90000, E820_RAM },
						      { MIB, 64 * MIB, E820_RAM } };

	(void)state;
	img.e820 = big;
	img.e820_count = 2;
	fails("initrd: the VM has no memory at 0x40e7000..0x40ff6a0");
}

/* Any header at all: never a byte outside file or memory (ASan), and a sentence for each refusal.
 */
static void random_damage(void **state)
{
	u64 seed = host_seed();
	u32 good = 0, bad = 0;
	static u8 whole[4 * 512 + 0x10000];

	(void)state;
	memcpy(whole, file, sizeof(whole));
	for (int round = 0; round < 20000; round++) {
		int err;

		if (round % 4 == 0) { /* of any length */
			u64 size = host_random(&seed) % (sizeof(whole) + 1);

			if (host_random(&seed) % 2)
				size = sizeof(whole) - size % 64;
			new_file(size);
			memcpy(file, whole, size);
		}
		for (u64 i = host_random(&seed) % 4; i; i--) {
			u64 at = 0x1f1 + host_random(&seed) % 0x80;

			if (at < img.kernel.size)
				file[at] = (u8)host_random(&seed);
		}
		module.size = host_random(&seed) % 8 ? 100000 : host_random(&seed);
		if (module.size > 100000 && module.size < 32 * MIB)
			continue; /* there is no such buffer */
		err = load();
		*(err ? &bad : &good) += 1;
		assert_int_equal(!err, !why[0]);
		assert_true(strlen(why) < sizeof(why) - 1);
		if (!err) {
			assert_true(entry.rip >= MIB + 0x200 && entry.rip < TOP);
			assert_true(!initrd_at() || (initrd_at() > entry.rip && initrd_at() < TOP));
		}
		if (round % 4 == 3)
			memcpy(file, whole, MIN(sizeof(whole), img.kernel.size));
	}
	assert_true(good > 100 && bad > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_good_one, good_image),
		cmocka_unit_test_setup(without_extras, good_image),
		cmocka_unit_test_setup(starting, good_image),
		cmocka_unit_test_setup(no_kernel, good_image),
		cmocka_unit_test_setup(initrd_by_need, good_image),
		cmocka_unit_test_setup(no_room, good_image),
		cmocka_unit_test_setup(map_lies, good_image),
		cmocka_unit_test_setup(random_damage, good_image),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(file);
	free(initrd);
	return failed;
}
