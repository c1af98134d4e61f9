; SPDX-License-Identifier: MIT
; Instructions that exit, with prefixes: the length of each has to be found where the CPU doesn't tell it. A wrong one
; shows as a wrong count, or as a crash in the bytes behind.
%include "bzimage.inc"
main:
	xor	r15d, r15d
%macro cpuid_after 0-1+
	xor	eax, eax
	xor	ecx, ecx
	%1
	db	0x0f, 0xa2
	inc	r15d
%endmacro
	cpuid_after
	cpuid_after db 0x66
	cpuid_after db 0xf3
	cpuid_after db 0x2e
	cpuid_after db 0x48
	cpuid_after db 0x66, 0x67, 0x26, 0xf2, 0x4f
	; 15 bytes in all
	cpuid_after db 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
	; RDMSR of APIC_BASE with a REX prefix, and across a page.
	mov	ecx, 0x1b
	db	0x48, 0x0f, 0x32
	inc	r15d
	times 4095 - ($ - protected) % 4096 db 0x90
	cpuid				; its first byte is the last one of a page
	inc	r15d
	; The same code byte by byte modified: CPUID with and without a prefix at one address.
	lea	rdi, [rel patch]
	mov	byte [rdi], 0x66
	xor	eax, eax
	call	patch
	mov	byte [rdi], 0x90
	xor	eax, eax
	call	patch
	cmp	r15d, 11		; 7 + RDMSR + the page's end + 2
	lea	rsi, [rel good]
	je	.say
	lea	rsi, [rel bad]
.say:	call	print
	jmp	poweroff
patch:	nop
	db	0x0f, 0xa2
	inc	r15d
	ret
good:	db	'prefixed-cpuid: all lengths are right', 10, 0
bad:	db	'prefixed-cpuid: WRONG', 10, 0
image_end:
