/* SPDX-License-Identifier: MIT */
#include "virt/elf.h"
#include "lib/string.h"

static bool is_64(const Elf64_Ehdr *h)
{
	return h->e_ident[EI_CLASS] == ELFCLASS64;
}

static u64 entry_size(const Elf64_Ehdr *h)
{
	return is_64(h) ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
}

/* The rest of the header, whose e_ident is there. */
static bool read_header(const struct loading *l, Elf64_Ehdr *h)
{
	Elf32_Ehdr h32;
	const void *from = load_file(l, 0, is_64(h) ? sizeof(*h) : sizeof(h32));

	if (!from)
		return false;
	if (is_64(h)) {
		memcpy(h, from, sizeof(*h));
		return true;
	}
	memcpy(&h32, from, sizeof(h32));
	h->e_machine = h32.e_machine;
	h->e_entry = h32.e_entry;
	h->e_phoff = h32.e_phoff;
	h->e_phentsize = h32.e_phentsize;
	h->e_phnum = h32.e_phnum;
	return true;
}

const char *elf_open(const struct loading *l, Elf64_Ehdr *h)
{
	const u8 *ident = load_file(l, 0, EI_NIDENT);

	if (!ident || memcmp(ident, ELFMAG, SELFMAG))
		return "no ELF signature";
	memcpy(h->e_ident, ident, EI_NIDENT);
	if (ident[EI_DATA] != ELFDATA2LSB || (ident[EI_CLASS] != ELFCLASS32 && !is_64(h)))
		return "neither 32-bit nor 64-bit, or not little-endian";
	if (!read_header(l, h))
		return "its header is cut short";
	if (h->e_machine != EM_386 && h->e_machine != EM_X86_64)
		return "not for x86";
	if (h->e_phentsize != entry_size(h) || !h->e_phnum)
		return "it has no program headers";
	if (!load_file(l, h->e_phoff, h->e_phnum * entry_size(h)))
		return "its program headers are outside of the file";
	return NULL;
}

void elf_segment(const struct loading *l, const Elf64_Ehdr *h, u32 n, Elf64_Phdr *p)
{
	const void *from = load_file(l, h->e_phoff + n * entry_size(h), entry_size(h));
	Elf32_Phdr p32;

	if (is_64(h)) {
		memcpy(p, from, sizeof(*p));
		return;
	}
	memcpy(&p32, from, sizeof(p32));
	*p = (Elf64_Phdr){ .p_type = p32.p_type,
			   .p_offset = p32.p_offset,
			   .p_vaddr = p32.p_vaddr,
			   .p_paddr = p32.p_paddr,
			   .p_filesz = p32.p_filesz,
			   .p_memsz = p32.p_memsz };
}

int elf_load(struct loading *l, Elf64_Ehdr *h)
{
	u64 entry = h->e_entry;
	Elf64_Phdr p;

	for (u32 i = 0; i < h->e_phnum; i++) {
		elf_segment(l, h, i, &p);
		if (p.p_type != PT_LOAD)
			continue;
		if (load_segment(l, p.p_paddr, p.p_offset, p.p_filesz, p.p_memsz))
			return l->err;
		if (entry >= p.p_vaddr && entry - p.p_vaddr < p.p_memsz)
			h->e_entry = entry - p.p_vaddr + p.p_paddr;
	}
	return 0;
}
