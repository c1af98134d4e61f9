/* SPDX-License-Identifier: MIT */
/* Made-up kernels for the 32-bit entry, each in the shape of real ones. */
#pragma once

#include <linux/elf.h>
#include <string.h>
#include "lib/types.h"

#define IMAGE_SIZE 0x1200u
#define IMAGE_AT   (4 * MIB)

enum image_kind { IMAGE_ADDRESSES, IMAGE_ELF32, IMAGE_ELF64, IMAGE_PVH, IMAGE_FLAT, IMAGE_KINDS };

static const char *const image_protocols[] = { "multiboot", "multiboot", "multiboot", "pvh",
					       "flat" };

/* Code of 0x1000 bytes at IMAGE_AT, in the file from 0x200 on, and as much bss. */
struct image {
	union {
		u8 bytes[IMAGE_SIZE];
		struct {
			Elf32_Ehdr h;
			Elf32_Phdr p[3];
		} e32;
		struct {
			Elf64_Ehdr h;
			Elf64_Phdr p[3];
		} e64;
		u32 words[IMAGE_SIZE / 4];
	};
};

#define IMAGE_HEADER 0x180 /* of Multiboot, or the note */

static inline void image_multiboot_header(struct image *image, u32 flags)
{
	const u32 header[] = { 0x1badb002, flags, 0 - (0x1badb002 + flags),
			       /* with flag 16 */
			       IMAGE_AT + 0x180, IMAGE_AT, IMAGE_AT + IMAGE_SIZE, IMAGE_AT + 0x2200,
			       IMAGE_AT + 0x234 };

	memcpy(image->bytes + IMAGE_HEADER, header, sizeof(header));
}

static inline void image_elf_header(unsigned char ident[EI_NIDENT], u8 class)
{
	memcpy(ident, ELFMAG, SELFMAG);
	ident[EI_CLASS] = class;
	ident[EI_DATA] = ELFDATA2LSB;
	ident[EI_VERSION] = 1;
}

static inline void image_elf32(struct image *image)
{
	image_elf_header(image->e32.h.e_ident, ELFCLASS32);
	image->e32.h.e_type = 2;
	image->e32.h.e_machine = EM_386;
	image->e32.h.e_entry = IMAGE_AT + 0x34;
	image->e32.h.e_phoff = sizeof(Elf32_Ehdr);
	image->e32.h.e_phentsize = sizeof(Elf32_Phdr);
	image->e32.h.e_phnum = 2;
	image->e32.p[1] = (Elf32_Phdr){ .p_type = PT_LOAD,
					.p_offset = 0x200,
					.p_vaddr = IMAGE_AT,
					.p_paddr = IMAGE_AT,
					.p_filesz = 0x1000,
					.p_memsz = 0x2000 };
}

/* Linked at a high virtual address, as kernels are. */
static inline void image_elf64(struct image *image)
{
	image_elf_header(image->e64.h.e_ident, ELFCLASS64);
	image->e64.h.e_type = 2;
	image->e64.h.e_machine = EM_X86_64;
	image->e64.h.e_entry = 0xffffffff80000034ull;
	image->e64.h.e_phoff = sizeof(Elf64_Ehdr);
	image->e64.h.e_phentsize = sizeof(Elf64_Phdr);
	image->e64.h.e_phnum = 3;
	image->e64.p[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 0x180, .p_filesz = 0x30 };
	image->e64.p[2] = (Elf64_Phdr){ .p_type = PT_LOAD,
					.p_offset = 0x200,
					.p_vaddr = 0xffffffff80000000ull,
					.p_paddr = IMAGE_AT,
					.p_filesz = 0x1000,
					.p_memsz = 0x2000 };
}

/* A good one of that kind. */
static inline void image_make(struct image *image, enum image_kind kind)
{
	static const u32 notes[] = { 4, 5, 18, 0x554e47, 1,
				     2, /* GNU's 18 */
				     4, 4, 18, 0x6e6558, IMAGE_AT + 0x34 };

	for (u32 i = 0; i < IMAGE_SIZE; i++)
		image->bytes[i] = i < 0x200 ? 0 : (u8)(i * 7 + (i >> 8));
	if (kind == IMAGE_ELF32)
		image_elf32(image);
	if (kind == IMAGE_ELF64 || kind == IMAGE_PVH)
		image_elf64(image);
	if (kind == IMAGE_PVH)
		memcpy(image->bytes + IMAGE_HEADER, notes, sizeof(notes));
	else if (kind != IMAGE_FLAT)
		image_multiboot_header(image, kind == IMAGE_ADDRESSES ? 0x10007 : 3);
}
