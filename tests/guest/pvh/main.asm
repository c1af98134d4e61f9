; SPDX-License-Identifier: MIT
; A 64-bit ELF file with a PVH entry: print what the start information has, exit with status 0; 1 for a wrong magic.
%define LOAD_AT 0x1000000
%define FILE_END image_end
%define MEMORY_END bss_end
%define ENTRY 0				; not the one that counts
%define NOTES notes
%define NOTES_END notes_end
%include "elf.inc"
bits 32
org LOAD_AT
	elf64_header
notes:
	dd	4, 5, 6			; another note, which is to be passed over
	db	'GNU', 0, 'four+', 0, 0, 0
	dd	4, 4, 18
	db	'Xen', 0
	dd	start
notes_end:
%include "print32.inc"
start:
	mov	esp, stack_top
	mov	eax, 1
	cmp	dword [ebx], 0x336ec578
	jne	exit
	mov	ebp, ebx
	say	{10, 'pvh: version '}
	say_hex	[ebp + 4]
	mov	ebx, [ebp + 32]		; the RSDP
	say	{10, 'rsdp <'}
	mov	ecx, 8
	mov	esi, ebx
	mov	dx, COM1
	rep	outsb
	say	{'>', 10, 'cmdline <'}
	mov	esi, [ebp + 24]
	call	print
	say	{'>', 10}
	mov	edi, [ebp + 40]
	mov	ebx, [ebp + 48]
.entry:	test	ebx, ebx
	jz	.modules
	say	'map '
	say_hex	[edi + 4]
	say_hex	[edi]
	say_hex	[edi + 12]
	say_hex	[edi + 8]
	say_hex	[edi + 16]
	newline
	add	edi, 24
	dec	ebx
	jmp	.entry
.modules:
	mov	edi, [ebp + 16]
	mov	ebx, [ebp + 12]
.module:
	test	ebx, ebx
	jz	.done
	say	'module '
	say_hex	[edi]
	say_hex	[edi + 8]
	mov	esi, [edi + 16]
	call	print
	say	': '
	mov	esi, [edi]
	call	print
	newline
	add	edi, 32
	dec	ebx
	jmp	.module
.done:	say	{'bss '}
	say_hex	[bss]
	newline
	xor	eax, eax
exit:	out	EXIT, eax
	hlt
	jmp	exit
image_end:
absolute image_end
bss:	resb	0x3000
stack_top:
bss_end:
