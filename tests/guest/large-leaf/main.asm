; SPDX-License-Identifier: MIT
; Touches each 2 MiB of its first GiB, upwards, and then every 4 KiB of what lies above itself.
%include "bzimage.inc"

GIB		equ 0x40000000
EXTENT		equ 0x200000
ABOVE		equ 0x2000000

main:
	xor	edi, edi
.touch:	mov	al, [rdi]
	add	rdi, EXTENT
	cmp	rdi, GIB
	jb	.touch
	mov	edi, ABOVE
.write:	mov	[rdi], rdi
	add	rdi, 0x1000
	cmp	rdi, GIB
	jb	.write
	mov	edi, ABOVE
.look:	cmp	[rdi], rdi
	jne	.halt
	add	rdi, 0x1000
	cmp	rdi, GIB
	jb	.look
	lea	rsi, [rel done]
	call	print
.halt:	cli
	hlt
	jmp	.halt
done:	db	'large-leaf: all is well', 10, 0
image_end:
