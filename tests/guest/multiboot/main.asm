; SPDX-License-Identifier: MIT
; A Multiboot kernel that is no ELF: its header has the addresses.
bits 32
org 0x200000
	times 0x40 db 0x90		; the header need not come first
header:
	dd	0x1badb002, 0x10003, -(0x1badb002 + 0x10003)
	dd	header, 0x200000, image_end, bss_end, start
%include "multiboot/body.inc"
