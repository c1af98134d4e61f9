; SPDX-License-Identifier: MIT
; For memory that is loaded by need: each word from 4 to 12 MiB follows from its address. After a d on its console it
; reads at 12 MiB, where it expects to end.
%include "bzimage.inc"
main:
	mov	r8, 0x9e3779b97f4a7c15
	mov	rdi, 0x400000
.read:	mov	rax, rdi
	imul	rax, r8
	cmp	[rdi], rax
	jne	.wrong
	add	rdi, 8
	cmp	rdi, 0xc00000
	jb	.read
	lea	rsi, [rel right]
	call	print
	mov	dx, COM1 + 5
.wait:	in	al, dx
	test	al, 1
	jz	.wait
	mov	rax, [rdi]
.wrong:	lea	rsi, [rel wrong]
	call	print
	jmp	poweroff
right:	db	'lazy: every word is right', 10, 0
wrong:	db	'lazy: WRONG', 10, 0
image_end:
