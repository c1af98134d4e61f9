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
%include "print32.inc"
start:
%include "multiboot/body.inc"
image_end:
absolute image_end
bss:	resb	0x3000
stack_top:
bss_end:
