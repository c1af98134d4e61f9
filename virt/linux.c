/* SPDX-License-Identifier: MIT */
/* Loading a bzImage by the 64-bit Linux boot protocol. */
#include "virt/linux.h"
#include "lib/string.h"
#include "virt/guestmem.h"
#include "virt/loading.h"

#define HDR_OFFSET	 0x1f1	    /* of struct setup_header, in the file as in the zero page */
#define HDR_MAGIC	 0x53726448 /* "HdrS" */
#define HDR_MAGIC_AT	 0x202
#define HDR_END_BYTE	 0x201 /* the byte there, plus 0x202, is the end of the header */
#define HDR_MIN_END	 (HDR_OFFSET + offsetof(struct setup_header, init_size) + 4)
#define HDR_ROOM_END	 0x290 /* of the header's place in the zero page */
#define PROTOCOL_2_12	 0x020c
#define ENTRY_64	 0x200 /* of the 64-bit entry, from where the kernel is loaded */
#define SECTOR		 512u
#define LOADER_UNDEFINED 0xff /* type_of_loader of a loader without a number */

_Static_assert(offsetof(struct boot_params, hdr) == HDR_OFFSET, "setup header");
_Static_assert(sizeof(struct boot_params) == PAGE_SIZE, "zero page");

/* What is known so far of the kernel that is being loaded. */
struct bzimage {
	struct setup_header hdr; /* a copy: the file's is not aligned */
	u64 setup_size;		 /* offset of the protected-mode kernel in the file */
	u64 payload_size;	 /* of that kernel */
	u64 base, end;		 /* in the guest, with what it needs to unpack itself */
	u64 initrd, initrd_size;
};

bool linux_detect(const struct loading *l)
{
	const u32 magic = HDR_MAGIC;
	const void *found = load_file(l, HDR_MAGIC_AT, sizeof(magic));

	return found && !memcmp(found, &magic, sizeof(magic));
}

static int check_magic(struct loading *l, struct bzimage *z)
{
	const u8 *file = l->img->kernel.data;
	u64 size = l->img->kernel.size;
	u32 end;

	if (size < HDR_MIN_END)
		return refuse(l, "not a bzImage: only %lu bytes long", size);
	if (!linux_detect(l))
		return refuse(l, "not a bzImage: no HdrS signature at offset 0x202");
	memcpy(&z->hdr, file + HDR_OFFSET, HDR_MIN_END - HDR_OFFSET);
	if (z->hdr.version < PROTOCOL_2_12)
		return refuse(l, "boot protocol %u.%02u is too old: 2.12 is needed",
			      z->hdr.version >> 8, z->hdr.version & 0xffu);
	end = 0x202u + file[HDR_END_BYTE];
	if (end < HDR_MIN_END)
		return refuse(l, "bad bzImage: its header ends at 0x%x already", end);
	end = (u32)MIN((u64)MIN(end, (u32)HDR_ROOM_END), size);
	memcpy(&z->hdr, file + HDR_OFFSET, MIN(end - HDR_OFFSET, sizeof(z->hdr)));
	if (!(z->hdr.xloadflags & XLF_KERNEL_64))
		return refuse(l, "not a 64-bit kernel: it has no 64-bit entry");
	return 0;
}

static int check_sizes(struct loading *l, struct bzimage *z)
{
	u32 sectors = z->hdr.setup_sects ? z->hdr.setup_sects : 4;
	u64 size = l->img->kernel.size, wanted = (u64)z->hdr.syssize * 16;

	z->setup_size = (sectors + 1ull) * SECTOR;
	if (z->setup_size >= size)
		return refuse(l, "bad bzImage: %u setup sectors, but only %lu bytes", sectors,
			      size);
	z->payload_size = size - z->setup_size;
	if (ALIGN_UP(z->payload_size, 16ull) < wanted)
		return refuse(
			l, "bzImage is cut short: %lu bytes behind the setup, its header says %lu",
			z->payload_size, wanted);
	if (z->payload_size <= ENTRY_64)
		return refuse(l, "bad bzImage: too short for its 64-bit entry");
	return 0;
}

static int check_arguments(struct loading *l, struct bzimage *z)
{
	u64 max = MIN((u64)z->hdr.cmdline_size, LINUX_CMDLINE_MAX - 1);

	if (strlen(l->img->kernel.args) > max)
		return refuse(l, "command line is too long: this kernel takes %lu characters", max);
	if (l->img->nr_modules > 1)
		return refuse(l, "Linux takes one initrd, and no modules");
	if (!load_ram(l, 0, LINUX_LOW_TOP))
		return refuse(l, "no memory from 0 to %#llx for the boot parameters",
			      LINUX_LOW_TOP);
	return 0;
}

static int place_kernel(struct loading *l, struct bzimage *z)
{
	u64 base = z->hdr.pref_address, need = MAX((u64)z->hdr.init_size, z->payload_size);

	if (base < MIB || base % PAGE_SIZE || base >= 4 * GIB || need > 4 * GIB - base)
		return refuse(l, "bad bzImage: it wants %lu KiB at %#lx", need / KIB, base);
	if (!load_ram(l, base, base + need))
		return refuse(l, "kernel needs memory from %#lx to %#lx (%lu MiB)", base,
			      base + need, (base + need + MIB - 1) / MIB);
	z->base = base;
	z->end = ALIGN_UP(base + need, PAGE_SIZE);
	return 0;
}

/* As high as the kernel allows, in the RAM that the kernel lies in, so that the space behind the
 * kernel stays in one piece. */
static int place_initrd(struct loading *l, struct bzimage *z)
{
	const struct boot_e820_entry *ram = load_ram(l, z->base, z->base + 1);
	const struct boot_file *file = l->img->modules;
	u64 size = l->img->nr_modules ? file->size : 0, low = z->end;
	u64 high = MIN(ram->addr + ram->size, (u64)z->hdr.initrd_addr_max + 1);

	if (!size)
		return 0;
	z->initrd = file->at ? file->at : ALIGN_DOWN(high - size, PAGE_SIZE);
	z->initrd_size = size;
	if (high < low || size > high - low || z->initrd < low || z->initrd > high - size)
		return refuse(l, "initrd of %lu MiB does not fit between %#lx and %#lx",
			      (size - 1) / MIB + 1, low, MAX(high, low));
	return 0;
}

/* Piece by piece, because a whole zero page is a lot for a hypervisor's stack. */
static void write_zero_page(struct loading *l, struct bzimage *z)
{
	const char *what = "zero page";
	u64 page = LINUX_ZERO_PAGE;
	u32 ext[] = { (u32)(z->initrd >> 32), (u32)(z->initrd_size >> 32) };
	u8 e820_count = (u8)l->img->e820_count;

	z->hdr.type_of_loader = LOADER_UNDEFINED;
	z->hdr.loadflags &= (u8)~CAN_USE_HEAP; /* only real-mode setup code has one */
	z->hdr.code32_start = (u32)z->base;
	z->hdr.ramdisk_image = (u32)z->initrd;
	z->hdr.ramdisk_size = (u32)z->initrd_size;
	z->hdr.cmd_line_ptr = LINUX_CMDLINE;
	z->hdr.setup_data = 0;
	load_put(l, page + HDR_OFFSET, &z->hdr, sizeof(z->hdr), what);
	load_put(l, page + offsetof(struct boot_params, ext_ramdisk_image), ext, sizeof(ext), what);
	load_put(l, page + offsetof(struct boot_params, acpi_rsdp_addr), &l->img->rsdp.v,
		 sizeof(u64), what);
	load_put(l, page + offsetof(struct boot_params, e820_entries), &e820_count,
		 sizeof(e820_count), what);
	load_put(l, page + offsetof(struct boot_params, e820_table), l->img->e820,
		 e820_count * sizeof(*l->img->e820), what);
}

#define PTE_PW	0x3ull	/* present, writable */
#define PTE_PWL 0x83ull /* and large */

/* count entries: first, first + step, ... */
static void write_entries(struct loading *l, u64 gpa, u64 first, u64 step, u32 count)
{
	for (u32 i = 0; i < count; i++, first += step)
		load_put(l, gpa + i * sizeof(first), &first, sizeof(first), "page tables");
}

/* PML4[0] -> PDPT[0..3] -> four directories of 2 MiB pages: gpa = linear address below 4 GiB. */
static void write_page_tables(struct loading *l)
{
	u64 pml4 = LINUX_PAGE_TABLES, pdpt = pml4 + PAGE_SIZE, directories = pdpt + PAGE_SIZE;

	write_entries(l, pml4, pdpt | PTE_PW, 0, 1);
	write_entries(l, pdpt, directories | PTE_PW, PAGE_SIZE, 4);
	write_entries(l, directories, PTE_PWL, 2 * MIB, 4 * 512); /* the four are contiguous */
}

static int write_all(struct loading *l, struct bzimage *z)
{
	static const u64 gdt[] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	const char *cmdline = l->img->kernel.args;

	if (guest_fill(l->vm, GPA(LINUX_GDT), 0, LINUX_CMDLINE - LINUX_GDT))
		return refuse(l, "boot parameters: the VM has no memory at %#llx", LINUX_GDT);
	load_put(l, LINUX_GDT, gdt, sizeof(gdt), "GDT");
	write_page_tables(l);
	write_zero_page(l, z);
	load_put(l, LINUX_CMDLINE, cmdline, strlen(cmdline) + 1, "command line");
	load_put(l, z->base, (const u8 *)l->img->kernel.data + z->setup_size, z->payload_size,
		 "kernel");
	if (z->initrd_size && l->img->modules[0].data)
		load_put(l, z->initrd, l->img->modules[0].data, z->initrd_size, "initrd");
	*l->entry = (struct boot_entry){ .mode = BOOT_LONG,
					 .rip = z->base + ENTRY_64,
					 .rsi = LINUX_ZERO_PAGE,
					 .cr3 = LINUX_PAGE_TABLES,
					 .gdt = LINUX_GDT };
	return l->err;
}

int linux_load(struct loading *l)
{
	static int (*const steps[])(struct loading *, struct bzimage *) = {
		check_magic, check_sizes, check_arguments, place_kernel, place_initrd, write_all,
	};
	struct bzimage z = { 0 };
	int err = 0;

	for (u32 i = 0; !err && i < ARRAY_SIZE(steps); i++)
		err = steps[i](l, &z);
	return err;
}
