; SPDX-License-Identifier: MIT
; A flat image below 1 MiB, as a boot sector: it begins in real mode, at CS:IP 0000:7C00.
bits 16
org 0x7c00
	mov	sp, 0x7c00
	mov	eax, cr0
	test	al, 1
	jnz	exit
	mov	ax, cs
	test	ax, ax
	jnz	exit
	mov	si, text
	mov	dx, 0x3f8
.next:	lodsb
	test	al, al
	jz	.done
	out	dx, al
	jmp	.next
.done:	xor	ax, ax
exit:	out	0xf4, al
	hlt
text:	db	10, 'flat-real: real mode', 10, 0
