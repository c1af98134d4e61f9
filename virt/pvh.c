/* SPDX-License-Identifier: MIT */
/*
 * The PVH entry of an ELF kernel: Xen's "x86/HVM direct boot ABI". An ELF note names the 32-bit
 * entry; EBX points to the start information.
 */
#include "lib/string.h"
#include "virt/elf.h"

#define NOTE_PHYS32_ENTRY 18u
#define START_MAGIC	  0x336ec578u

struct note {
	u32 name_size, desc_size, type; /* then name and descriptor, each padded to 4 bytes */
};

struct start_info {
	u32 magic, version, flags, nr_modules;
	u64 modules, cmdline, rsdp, memmap;
	u32 nr_memmap, reserved;
};

struct start_module {
	u64 address, size, cmdline, reserved;
};

struct start_memory {
	u64 addr, size;
	u32 type, reserved; /* type as in E820 */
};

bool pvh_detect(const struct loading *l)
{
	const void *magic = load_file(l, 0, SELFMAG);

	return magic && !memcmp(magic, ELFMAG, SELFMAG);
}

/* The entry, if it is among the notes in that part of the file; 0: it is not. */
static u64 entry_in_notes(const struct loading *l, u64 at, u64 size)
{
	u64 end = load_file(l, at, size) ? at + size : at;
	struct note n;
	u32 entry;

	while (end - at >= sizeof(n)) {
		u64 name, desc;

		memcpy(&n, load_file(l, at, sizeof(n)), sizeof(n));
		name = at + sizeof(n);
		desc = name + ALIGN_UP((u64)n.name_size, 4);
		at = desc + ALIGN_UP((u64)n.desc_size, 4);
		if (at > end)
			break;
		if (n.type != NOTE_PHYS32_ENTRY || n.name_size != 4 ||
		    n.desc_size < sizeof(entry) || memcmp(load_file(l, name, 4), "Xen", 4))
			continue;
		memcpy(&entry, load_file(l, desc, sizeof(entry)), sizeof(entry));
		return entry;
	}
	return 0;
}

static u64 find_entry(const struct loading *l, const Elf64_Ehdr *h)
{
	u64 entry = 0;
	Elf64_Phdr p;

	for (u32 i = 0; !entry && i < h->e_phnum; i++) {
		elf_segment(l, h, i, &p);
		if (p.p_type == PT_NOTE)
			entry = entry_in_notes(l, p.p_offset, p.p_filesz);
	}
	return entry;
}

static int write_info(struct loading *l)
{
	struct start_info info = { .magic = START_MAGIC,
				   .version = 1,
				   .nr_modules = l->img->nr_modules,
				   .cmdline = l->cmdline,
				   .rsdp = l->img->rsdp.v,
				   .nr_memmap = l->img->e820_count };

	info.modules = l->info;
	for (u32 i = 0; i < l->img->nr_modules; i++) {
		const struct load_module *m = &l->modules[i];
		struct start_module module = { m->start, m->end - m->start, m->args, 0 };

		load_info(l, &module, sizeof(module));
	}
	info.memmap = l->info;
	for (u32 i = 0; i < l->img->e820_count; i++) {
		const struct boot_e820_entry *e = &l->img->e820[i];
		struct start_memory memory = { e->addr, e->size, e->type, 0 };

		load_info(l, &memory, sizeof(memory));
	}
	l->entry->rbx = load_info(l, &info, sizeof(info));
	return l->err;
}

int pvh_load(struct loading *l)
{
	Elf64_Ehdr h;
	const char *wrong = elf_open(l, &h);
	u64 entry;

	if (wrong)
		return refuse(l, "bad ELF: %s", wrong);
	entry = find_entry(l, &h);
	if (!entry)
		return refuse(l, "ELF without a PVH entry (Xen's note 18)");
	if (elf_load(l, &h) || load_modules(l, entry))
		return l->err;
	return write_info(l);
}
