/* SPDX-License-Identifier: MIT */
/*
 * Loading a bzImage. The file comes from a disk and may be anything: every number in its header is
 * checked against the file's size and the VM's memory before it is used.
 */
#include "virt/linux.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "virt/guestmem.h"
#include "virt/ops.h"

#define HDR_OFFSET	 0x1f1	    /* of struct setup_header, in the file as in the zero page */
#define HDR_MAGIC	 0x53726448 /* "HdrS" */
#define HDR_END_BYTE	 0x201	    /* the byte there, plus 0x202, is the end of the header */
#define HDR_MIN_END	 (HDR_OFFSET + offsetof(struct setup_header, init_size) + 4)
#define HDR_ROOM_END	 0x290 /* of the header's place in the zero page */
#define PROTOCOL_2_12	 0x020c
#define ENTRY_64	 0x200 /* of the 64-bit entry, from where the kernel is loaded */
#define SECTOR		 512u
#define LOADER_UNDEFINED 0xff /* type_of_loader of a loader without a number */

_Static_assert(offsetof(struct boot_params, hdr) == HDR_OFFSET, "setup header");
_Static_assert(sizeof(struct boot_params) == PAGE_SIZE, "zero page");

/* One loading: what is known so far. */
struct loading {
	struct vm *vm;
	const struct linux_image *img;
	struct setup_header hdr;	   /* a copy: the file's is not aligned */
	u64 setup_size;			   /* offset of the protected-mode kernel in the file */
	const struct boot_e820_entry *ram; /* that the kernel lies in */
	struct linux_entry *entry;
	char *why;
	size_t why_len;
};

#define FAIL(l, code, ...) (fmt_snprintf((l)->why, (l)->why_len, __VA_ARGS__), trace_error(code))

static u64 payload_size(const struct loading *l)
{
	return l->img->kernel_size - l->setup_size;
}

static int check_magic(struct loading *l)
{
	const u8 *file = l->img->kernel;
	u64 size = l->img->kernel_size;
	u32 end;

	if (size < HDR_MIN_END)
		return FAIL(l, -ENOEXEC, "not a bzImage: only %llu bytes long",
			    (unsigned long long)size);
	memcpy(&l->hdr, file + HDR_OFFSET, HDR_MIN_END - HDR_OFFSET);
	if (l->hdr.header != HDR_MAGIC)
		return FAIL(l, -ENOEXEC, "not a bzImage: no HdrS signature at offset 0x202");
	if (l->hdr.version < PROTOCOL_2_12)
		return FAIL(l, -ENOEXEC, "boot protocol %u.%02u is too old: 2.12 is needed",
			    l->hdr.version >> 8, l->hdr.version & 0xffu);
	end = 0x202u + file[HDR_END_BYTE];
	if (end < HDR_MIN_END)
		return FAIL(l, -ENOEXEC, "bad bzImage: its header ends at 0x%x already", end);
	end = (u32)MIN((u64)MIN(end, (u32)HDR_ROOM_END), size);
	memcpy(&l->hdr, file + HDR_OFFSET, MIN(end - HDR_OFFSET, sizeof(l->hdr)));
	if (!(l->hdr.xloadflags & XLF_KERNEL_64))
		return FAIL(l, -ENOEXEC, "not a 64-bit kernel: it has no 64-bit entry");
	return 0;
}

static int check_sizes(struct loading *l)
{
	u32 sectors = l->hdr.setup_sects ? l->hdr.setup_sects : 4;
	u64 size = l->img->kernel_size, wanted = (u64)l->hdr.syssize * 16;

	l->setup_size = (sectors + 1ull) * SECTOR;
	if (l->setup_size >= size)
		return FAIL(l, -ENOEXEC, "bad bzImage: %u setup sectors, but only %llu bytes",
			    sectors, (unsigned long long)size);
	if (ALIGN_UP(payload_size(l), 16ull) < wanted)
		return FAIL(l, -ENOEXEC,
			    "bzImage is cut short: %llu bytes behind the setup, its "
			    "header says %llu",
			    (unsigned long long)payload_size(l), (unsigned long long)wanted);
	if (payload_size(l) <= ENTRY_64)
		return FAIL(l, -ENOEXEC, "bad bzImage: too short for its 64-bit entry");
	return 0;
}

/* The RAM entry that contains [from, to), or NULL. */
static const struct boot_e820_entry *ram_with(const struct linux_image *img, u64 from, u64 to)
{
	for (u32 i = 0; i < img->e820_count; i++) {
		const struct boot_e820_entry *e = &img->e820[i];

		if (e->type == E820_RAM && from >= e->addr && from - e->addr < e->size &&
		    to - from <= e->size - (from - e->addr))
			return e;
	}
	return NULL;
}

static int place_kernel(struct loading *l)
{
	u64 base = l->hdr.pref_address, need = MAX((u64)l->hdr.init_size, payload_size(l));

	if (base < MIB || base % PAGE_SIZE || base >= 4 * GIB || need > 4 * GIB - base)
		return FAIL(l, -ENOEXEC, "bad bzImage: it wants %llu KiB at 0x%llx",
			    (unsigned long long)need / KIB, (unsigned long long)base);
	l->ram = ram_with(l->img, base, base + need);
	if (!l->ram)
		return FAIL(l, -ENOSPC, "kernel needs memory from 0x%llx to 0x%llx (%llu MiB)",
			    (unsigned long long)base, (unsigned long long)(base + need),
			    (unsigned long long)((base + need + MIB - 1) / MIB));
	l->entry->kernel = base;
	l->entry->kernel_end = ALIGN_UP(base + need, PAGE_SIZE);
	l->entry->rip = base + ENTRY_64;
	return 0;
}

/* As high as the kernel allows, in the RAM that the kernel lies in, so that the space behind the
 * kernel stays in one piece. */
static int place_initrd(struct loading *l)
{
	u64 size = l->img->initrd_size, low = l->entry->kernel_end;
	u64 high = MIN(l->ram->addr + l->ram->size, (u64)l->hdr.initrd_addr_max + 1);

	if (!size)
		return 0;
	if (high < low || size > high - low || ALIGN_DOWN(high - size, PAGE_SIZE) < low)
		return FAIL(l, -ENOSPC, "initrd of %llu MiB does not fit between 0x%llx and 0x%llx",
			    (unsigned long long)((size - 1) / MIB + 1), (unsigned long long)low,
			    (unsigned long long)MAX(high, low));
	l->entry->initrd = ALIGN_DOWN(high - size, PAGE_SIZE);
	l->entry->initrd_end = l->entry->initrd + size;
	return 0;
}

static int check_cmdline(struct loading *l)
{
	u64 max = MIN((u64)l->hdr.cmdline_size, LINUX_CMDLINE_MAX - 1);
	size_t len = strnlen(l->img->cmdline, LINUX_CMDLINE_MAX);

	if (len > max)
		return FAIL(l, -ENOSPC,
			    "command line is too long: this kernel takes %llu characters",
			    (unsigned long long)max);
	return 0;
}

static int check_map(struct loading *l)
{
	if (l->img->e820_count > E820_MAX_ENTRIES_ZEROPAGE)
		return FAIL(l, -EINVAL, "memory map of %u entries: at most %u fit",
			    l->img->e820_count, E820_MAX_ENTRIES_ZEROPAGE);
	if (!ram_with(l->img, 0, LINUX_LOW_TOP))
		return FAIL(l, -ENOSPC, "no memory from 0 to 0x%llx for the boot parameters",
			    LINUX_LOW_TOP);
	return 0;
}

static int put(struct loading *l, u64 gpa, const void *from, u64 size, const char *what)
{
	if (guest_write(l->vm, GPA(gpa), from, size))
		return FAIL(l, -EFAULT, "%s: the VM has no memory at 0x%llx..0x%llx", what,
			    (unsigned long long)gpa, (unsigned long long)(gpa + size));
	return 0;
}

/* Piece by piece, because a whole zero page is a lot for a hypervisor's stack. */
static int write_zero_page(struct loading *l)
{
	u64 initrd = l->entry->initrd, size = l->img->initrd_size, page = LINUX_ZERO_PAGE;
	u32 ext[] = { (u32)(initrd >> 32), (u32)(size >> 32) };
	u64 e820_size = l->img->e820_count * sizeof(*l->img->e820);
	u8 e820_count = (u8)l->img->e820_count;
	int err;

	l->hdr.type_of_loader = LOADER_UNDEFINED;
	l->hdr.loadflags &= (u8)~CAN_USE_HEAP; /* only real-mode setup code has one */
	l->hdr.code32_start = (u32)l->entry->kernel;
	l->hdr.ramdisk_image = (u32)initrd;
	l->hdr.ramdisk_size = (u32)size;
	l->hdr.cmd_line_ptr = LINUX_CMDLINE;
	l->hdr.setup_data = 0;
	if (guest_fill(l->vm, GPA(page), 0, PAGE_SIZE))
		return FAIL(l, -EFAULT, "zero page: the VM has no memory at 0x%llx",
			    LINUX_ZERO_PAGE);
	err = put(l, page + HDR_OFFSET, &l->hdr, sizeof(l->hdr), "zero page");
	if (!err)
		err = put(l, page + offsetof(struct boot_params, ext_ramdisk_image), ext,
			  sizeof(ext), "zero page");
	if (!err)
		err = put(l, page + offsetof(struct boot_params, acpi_rsdp_addr), &l->img->rsdp.v,
			  sizeof(u64), "zero page");
	if (!err)
		err = put(l, page + offsetof(struct boot_params, e820_entries), &e820_count,
			  sizeof(e820_count), "zero page");
	if (!err)
		err = put(l, page + offsetof(struct boot_params, e820_table), l->img->e820,
			  e820_size, "zero page");
	return err;
}

#define PTE_PW	 0x3ull	 /* present, writable */
#define PTE_PWL	 0x83ull /* and large */
#define PT_CHUNK 64u	 /* entries at a time, for the stack's sake */

/* count entries: first, first + step, ... */
static int write_entries(struct loading *l, u64 gpa, u64 first, u64 step, u32 count)
{
	u64 entries[PT_CHUNK];
	int err = 0;

	for (u32 done = 0, n; done < count && !err; done += n) {
		n = MIN(PT_CHUNK, count - done);
		for (u32 i = 0; i < n; i++)
			entries[i] = first + (done + i) * step;
		err = put(l, gpa + done * 8ull, entries, n * 8ull, "page tables");
	}
	return err;
}

/* PML4[0] -> PDPT[0..3] -> four directories of 2 MiB pages: gpa = linear address below 4 GiB. */
static int write_page_tables(struct loading *l)
{
	u64 pml4 = LINUX_PAGE_TABLES, pdpt = pml4 + PAGE_SIZE, directories = pdpt + PAGE_SIZE;
	int err;

	if (guest_fill(l->vm, GPA(pml4), 0, 6 * PAGE_SIZE))
		return FAIL(l, -EFAULT, "page tables: the VM has no memory at 0x%llx",
			    LINUX_PAGE_TABLES);
	err = write_entries(l, pml4, pdpt | PTE_PW, 0, 1);
	if (!err)
		err = write_entries(l, pdpt, directories | PTE_PW, PAGE_SIZE, 4);
	if (!err) /* the four are contiguous */
		err = write_entries(l, directories, PTE_PWL, 2 * MIB, 4 * 512);
	return err;
}

static int write_all(struct loading *l)
{
	static const u64 gdt[] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	const struct linux_image *img = l->img;
	const u8 *payload = (const u8 *)img->kernel + l->setup_size;
	int err = put(l, LINUX_GDT, gdt, sizeof(gdt), "GDT");

	if (!err)
		err = write_page_tables(l);
	if (!err)
		err = write_zero_page(l);
	if (!err)
		err = put(l, LINUX_CMDLINE, img->cmdline, strlen(img->cmdline) + 1, "command line");
	if (!err)
		err = put(l, l->entry->kernel, payload, payload_size(l), "kernel");
	if (!err && img->initrd_size)
		err = put(l, l->entry->initrd, img->initrd, img->initrd_size, "initrd");
	return err;
}

int linux_load(struct vm *vm, const struct linux_image *img, struct linux_entry *entry, char *why,
	       size_t why_len)
{
	static int (*const steps[])(struct loading *) = {
		check_magic,  check_sizes,   check_map, place_kernel,
		place_initrd, check_cmdline, write_all,
	};
	struct linux_image image = *img;
	struct loading l = {
		.vm = vm, .img = &image, .entry = entry, .why = why, .why_len = why_len
	};

	*entry = (struct linux_entry){ 0 };
	if (!image.cmdline)
		image.cmdline = "";
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		int err = steps[i](&l);

		if (err)
			return err;
	}
	return 0;
}

static void set_flat_segments(struct vcpu *v)
{
	static const u8 data[] = { SEG_DS, SEG_ES, SEG_SS };
	struct segment s = { .limit = ~0u };

	s.selector = 0x10;
	s.attr = 0xb | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_L |
		 SEG_ATTR_G; /* execute, read, accessed */
	virt_ops->set_seg(v, SEG_CS, &s);
	s.selector = 0x18;
	s.attr = 0x3 | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_DB |
		 SEG_ATTR_G; /* read, write, accessed */
	for (u32 i = 0; i < ARRAY_SIZE(data); i++)
		virt_ops->set_seg(v, data[i], &s);
	s.selector = 0;
	virt_ops->set_seg(v, SEG_FS, &s);
	virt_ops->set_seg(v, SEG_GS, &s);
}

static void set_system_segments(struct vcpu *v)
{
	/* A busy 64-bit TSS: VM entry demands one in long mode (SDM "Checks on Guest Segment
	 * Registers"). */
	struct segment tr = { .limit = 0x67, .attr = 0xb | SEG_ATTR_P };
	struct segment ldtr = { .attr = 0x2 | SEG_ATTR_P, .unusable = true };
	struct segment gdtr = { .base = LINUX_GDT, .limit = 4 * 8 - 1 };
	struct segment idtr = { .limit = 0xffff };

	virt_ops->set_seg(v, SEG_TR, &tr);
	virt_ops->set_seg(v, SEG_LDTR, &ldtr);
	virt_ops->set_seg(v, SEG_GDTR, &gdtr);
	virt_ops->set_seg(v, SEG_IDTR, &idtr);
}

int linux_start(struct vcpu *v, const struct linux_entry *entry)
{
	virt_ops->set_reg(v, VR_CR3, LINUX_PAGE_TABLES);
	virt_ops->set_reg(v, VR_CR4, X86_CR4_PAE);
	virt_ops->set_reg(v, VR_EFER, EFER_LME | EFER_LMA);
	virt_ops->set_reg(v, VR_CR0,
			  X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_PG);
	set_flat_segments(v);
	set_system_segments(v);
	for (u32 n = 0; n < GPRS; n++)
		v->gpr[n] = 0;
	virt_ops->set_reg(v, VR_RSP, 0);
	v->gpr[RSI] = LINUX_ZERO_PAGE;
	v->rip = entry->rip;
	v->rflags = X86_EFLAGS_FIXED;
	return 0;
}
