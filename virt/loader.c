/* SPDX-License-Identifier: MIT */
#include "virt/loading.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "virt/guestmem.h"

#define INFO_FROM 0x10000ull /* where boot information may be: real mode's tables stay free */
#define INFO_SIZE 0x8000ull

int refuse(struct loading *l, const char *fmt, ...)
{
	va_list ap;

	if (l->err)
		return l->err;
	va_start(ap, fmt);
	fmt_vsnprintf(l->why, l->why_len, fmt, ap);
	va_end(ap);
	l->err = trace_error(-ENOEXEC);
	return l->err;
}

const void *load_file(const struct loading *l, u64 offset, u64 size)
{
	const struct boot_file *file = &l->img->kernel;

	if (offset > file->size || size > file->size - offset)
		return NULL;
	return (const u8 *)file->data + offset;
}

const struct boot_e820_entry *load_ram(const struct loading *l, u64 from, u64 to)
{
	for (u32 i = 0; i < l->img->e820_count; i++) {
		const struct boot_e820_entry *e = &l->img->e820[i];

		if (e->type == E820_RAM && from >= e->addr && from - e->addr < e->size &&
		    to - from <= e->size - (from - e->addr))
			return e;
	}
	return NULL;
}

int load_put(struct loading *l, u64 gpa, const void *from, u64 size, const char *what)
{
	if (!l->err && guest_write(l->vm, GPA(gpa), from, size))
		refuse(l, "%s: the VM has no memory at %#lx..%#lx", what, gpa, gpa + size);
	return l->err;
}

static const struct load_range *taken_in(const struct loading *l, u64 start, u64 end)
{
	for (u32 i = 0; i < l->nr_taken; i++)
		if (start < l->taken[i].end && end > l->taken[i].start)
			return &l->taken[i];
	return NULL;
}

static int take(struct loading *l, u64 start, u64 end)
{
	if (l->nr_taken == LOAD_RANGES_MAX)
		return refuse(l, "the image has too many pieces: with its modules, %u",
			      LOAD_RANGES_MAX);
	l->taken[l->nr_taken++] = (struct load_range){ start, end };
	return 0;
}

int load_segment(struct loading *l, u64 gpa, u64 offset, u64 filesz, u64 memsz)
{
	const void *from = load_file(l, offset, filesz);
	const struct load_range *other;

	if (!memsz)
		return 0;
	if (!from || filesz > memsz)
		return refuse(l, "bad image: %lu bytes at %#lx of a file of %lu, for %lu of memory",
			      filesz, offset, l->img->kernel.size, memsz);
	if (gpa >= 4 * GIB || memsz > 4 * GIB - gpa || !load_ram(l, gpa, gpa + memsz))
		return refuse(l, "image needs %lu bytes of memory at %#lx", memsz, gpa);
	other = taken_in(l, gpa, gpa + memsz);
	if (other)
		return refuse(l, "bad image: its pieces at %#lx..%#lx and %#lx..%#lx overlap",
			      other->start, other->end, gpa, gpa + memsz);
	if (take(l, gpa, gpa + memsz))
		return l->err;
	return load_put(l, gpa, from, filesz, "image");
}

/* The lowest free pages in RAM below 4 GiB, from `from` on; 0 after refuse(). */
static u64 place(struct loading *l, u64 from, u64 size, const char *what)
{
	const struct load_range *other;

	for (u32 i = 0; i < l->img->e820_count; i++) {
		const struct boot_e820_entry *e = &l->img->e820[i];
		u64 at = ALIGN_UP(MAX(from, MIN(e->addr, 4 * GIB)), PAGE_SIZE);

		while ((other = taken_in(l, at, at + size)))
			at = ALIGN_UP(other->end, PAGE_SIZE);
		if (at < 4 * GIB && size <= 4 * GIB - at && load_ram(l, at, at + size) == e)
			return take(l, at, at + size) ? 0 : at;
	}
	refuse(l, "%s of %lu KiB does not fit in the VM's memory", what, (size + KIB - 1) / KIB);
	return 0;
}

u64 load_info(struct loading *l, const void *from, u64 size)
{
	u64 at = l->info;

	if (size > l->info_end - at) {
		refuse(l, "command line and modules' arguments are too long");
		return 0;
	}
	l->info = MIN(ALIGN_UP(at + size, 8ull), l->info_end);
	return load_put(l, at, from, size, "boot information") ? 0 : at;
}

static u64 info_string(struct loading *l, const char *s)
{
	return load_info(l, s, strlen(s) + 1);
}

int load_modules(struct loading *l, u64 entry)
{
	u64 behind = MIB;

	if (!taken_in(l, entry, entry + 1))
		return refuse(l, "bad image: its entry %#lx is outside of it", entry);
	*l->entry = (struct boot_entry){ .mode = BOOT_PROTECTED, .rip = entry };
	for (u32 i = 0; i < l->nr_taken; i++)
		behind = MAX(behind, l->taken[i].end);
	l->info = place(l, INFO_FROM, INFO_SIZE, "boot information");
	l->info_end = l->info + INFO_SIZE;
	l->cmdline = info_string(l, l->img->kernel.args);
	for (u32 i = 0; !l->err && i < l->img->nr_modules; i++) {
		const struct boot_file *file = &l->img->modules[i];
		struct load_module *m = &l->modules[i];

		m->start = file->at ? file->at : place(l, behind, file->size, "module");
		if (file->at && taken_in(l, m->start, m->start + file->size))
			refuse(l, "image and initrd overlap at %#lx", m->start);
		m->end = m->start + file->size;
		m->args = info_string(l, file->args);
		if (file->at)
			take(l, m->start, m->end);
		else
			load_put(l, m->start, file->data, file->size, "module");
	}
	return l->err;
}

static int flat_load(struct loading *l)
{
	u64 at = l->img->address, size = l->img->kernel.size;

	if (!size)
		return refuse(l, "the image is empty");
	if (l->img->nr_modules)
		return refuse(l, "a flat image takes no modules and no initrd");
	l->entry->mode = at < MIB ? BOOT_REAL : BOOT_PROTECTED;
	l->entry->rip = at;
	return load_segment(l, at, 0, size, size);
}

/* In the order in which a file is asked what it is; without detect it is never that. */
static const struct protocol {
	const char *name;
	bool (*detect)(const struct loading *l);
	int (*load)(struct loading *l);
} protocols[] = {
	{ "linux", linux_detect, linux_load },
	{ "multiboot", multiboot_detect, multiboot_load },
	{ "pvh", pvh_detect, pvh_load },
	{ "flat", NULL, flat_load },
};

int boot_load(struct vm *vm, const struct boot_image *img, struct boot_entry *entry, char *why,
	      size_t why_len)
{
	struct loading l = { .vm = vm, .img = img, .entry = entry, .why = why, .why_len = why_len };
	bool detect = !strcmp(img->protocol, "auto");
	const void *magic = load_file(&l, 0, 2);

	*entry = (struct boot_entry){ 0 };
	if (img->nr_modules > LOAD_MODULES_MAX || img->e820_count > E820_MAX_ENTRIES_ZEROPAGE)
		return refuse(&l, "too many modules, or entries of the memory map");
	if (detect && magic && !memcmp(magic, "\x1f\x8b", 2))
		return refuse(&l, "compressed with gzip: tools/mkusb unpacks kernels, not Corbel");
	for (u32 i = 0; i < ARRAY_SIZE(protocols); i++) {
		const struct protocol *p = &protocols[i];

		if (detect ? p->detect && p->detect(&l) : !strcmp(img->protocol, p->name))
			return p->load(&l);
	}
	return refuse(&l, "not a kernel: neither bzImage, Multiboot nor ELF");
}
