/* SPDX-License-Identifier: MIT */
/* Multiboot Specification version 0.6.96 ("Multiboot 1"): its sections "OS image format", "Machine
 * state" and "Boot information format". */
#include "lib/log.h"
#include "lib/string.h"
#include "virt/elf.h"

#define HEADER_MAGIC  0x1badb002u
#define LOADER_MAGIC  0x2badb002u
#define SEARCH_END    8192u
#define WANTS_VIDEO   BIT(2)
#define WANTS_UNKNOWN 0xfff8u /* of the bits that a loader must understand */
#define HAS_ADDRESSES BIT(16)

struct header {
	u32 magic, flags, checksum;
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
#define HEADER_SHORT offsetof(struct header, header_addr) /* without HAS_ADDRESSES */

#define INFO_MEMORY  BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODULES BIT(3)
#define INFO_MAP     BIT(6)
#define INFO_LOADER  BIT(9)

/* Up to apm_table, which like all that follows is not there: its flag is 0. */
struct info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
	u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
};

struct module {
	u32 start, end, string, reserved;
};

struct PACKED map_entry {
	u32 size; /* of what follows */
	u64 addr, len;
	u32 type; /* as in E820 */
};

/* The header and its place in the file; false: there is none. */
static bool find_header(const struct loading *l, struct header *h, u64 *at)
{
	for (*at = 0; *at + HEADER_SHORT <= SEARCH_END; *at += 4) {
		const void *from = load_file(l, *at, HEADER_SHORT);

		if (!from)
			return false;
		*h = (struct header){ 0 };
		memcpy(h, from, HEADER_SHORT);
		if (h->magic == HEADER_MAGIC && !(u32)(h->magic + h->flags + h->checksum))
			return true;
	}
	return false;
}

bool multiboot_detect(const struct loading *l)
{
	struct header h;
	u64 at;

	return find_header(l, &h, &at);
}

/* The header says itself what of the file goes where. */
static int load_by_addresses(struct loading *l, u64 at, u64 *entry)
{
	const void *from = load_file(l, at, sizeof(struct header));
	u64 offset, size, end;
	struct header h;

	if (!from)
		return refuse(l, "bad Multiboot header: cut short");
	memcpy(&h, from, sizeof(h));
	if (h.header_addr < h.load_addr || h.header_addr - h.load_addr > at)
		return refuse(l, "bad Multiboot header: it is at %#x, loaded from %#x",
			      h.header_addr, h.load_addr);
	offset = at - (h.header_addr - h.load_addr);
	end = h.load_end_addr ? h.load_end_addr : h.load_addr + (l->img->kernel.size - offset);
	if (end <= h.load_addr || (h.bss_end_addr && h.bss_end_addr < end))
		return refuse(l, "bad Multiboot header: %#x..%#lx, bss up to %#x", h.load_addr, end,
			      h.bss_end_addr);
	size = end - h.load_addr;
	*entry = h.entry_addr;
	return load_segment(l, h.load_addr, offset, size,
			    h.bss_end_addr ? h.bss_end_addr - h.load_addr : size);
}

static int load_elf(struct loading *l, u64 *entry)
{
	Elf64_Ehdr h;
	const char *wrong = elf_open(l, &h);

	if (wrong)
		return refuse(l, "Multiboot without addresses, and bad ELF: %s", wrong);
	elf_load(l, &h);
	*entry = h.e_entry;
	return l->err;
}

/* KiB of RAM from there on, without a hole. */
static u32 memory_from(const struct loading *l, u64 start)
{
	const struct boot_e820_entry *ram = load_ram(l, start, start + 1);

	return ram ? (u32)MIN((ram->addr + ram->size - start) / KIB, 0xffffffffull) : 0;
}

static int write_info(struct loading *l)
{
	static const char name[] = "Corbel";
	struct info info = { .flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP |
				      INFO_LOADER };

	info.mem_lower = memory_from(l, 0);
	info.mem_upper = memory_from(l, MIB);
	info.cmdline = (u32)l->cmdline;
	info.boot_loader_name = (u32)load_info(l, name, sizeof(name));
	info.mods_count = l->img->nr_modules;
	info.mods_addr = (u32)l->info;
	for (u32 i = 0; i < l->img->nr_modules; i++) {
		const struct load_module *m = &l->modules[i];
		struct module module = { (u32)m->start, (u32)m->end, (u32)m->args, 0 };

		load_info(l, &module, sizeof(module));
	}
	info.mmap_addr = (u32)l->info;
	info.mmap_length = l->img->e820_count * sizeof(struct map_entry);
	for (u32 i = 0; i < l->img->e820_count; i++) {
		const struct boot_e820_entry *e = &l->img->e820[i];
		struct map_entry entry = { sizeof(entry) - sizeof(u32), e->addr, e->size, e->type };

		load_info(l, &entry, sizeof(entry));
	}
	l->entry->rax = LOADER_MAGIC;
	l->entry->rbx = load_info(l, &info, sizeof(info));
	return l->err;
}

int multiboot_load(struct loading *l)
{
	struct header h;
	u64 at, entry = 0;

	if (!find_header(l, &h, &at))
		return refuse(l, "no Multiboot header in the first 8 KiB");
	if (h.flags & WANTS_UNKNOWN)
		return refuse(l, "Multiboot flags %#x: not known to version 1",
			      h.flags & WANTS_UNKNOWN);
	if (h.flags & WANTS_VIDEO)
		log_info("vm %s: the kernel asks for a video mode: there is none", l->vm->name);
	if (h.flags & HAS_ADDRESSES ? load_by_addresses(l, at, &entry) : load_elf(l, &entry))
		return l->err;
	return load_modules(l, entry) ? l->err : write_info(l);
}
