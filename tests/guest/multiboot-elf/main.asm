; SPDX-License-Identifier: MIT
; A Multiboot kernel that is a 32-bit ELF file.
%define LOAD_AT 0x400000
%define FILE_END image_end
%define MEMORY_END bss_end
%define ENTRY start
%include "elf.inc"
bits 32
org LOAD_AT
	elf32_header
header:
	dd	0x1badb002, 3, -(0x1badb002 + 3)
%include "multiboot/body.inc"
