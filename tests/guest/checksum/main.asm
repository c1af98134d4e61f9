; SPDX-License-Identifier: MIT
; Fills 4 MiB with what follows from each address, and reads it again and again: who else writes there is found out. A
; few MiB more are touched once, and again when it reads a t on its console: there a test may damage how they are
; mapped. q ends it, after one more round.
%include "bzimage.inc"
%define FROM	0x1200000
%define BYTES	0x400000
%define TOUCHED	0x1a00000		; up to TOUCHED_END
%define TOUCHED_END 0x1e00000
main:
	mov	r8, 0x9e3779b97f4a7c15
	mov	rdi, FROM
.fill:	mov	rax, rdi
	imul	rax, r8
	mov	[rdi], rax
	add	rdi, 8
	cmp	rdi, FROM + BYTES
	jb	.fill
.again:	mov	rdi, TOUCHED
.touch:	mov	[rdi], rdi
	add	rdi, 4096
	cmp	rdi, TOUCHED_END
	jb	.touch
	lea	rsi, [rel ready]
	call	print
	xor	ebx, ebx
.round:	mov	rdi, FROM
.read:	mov	rax, rdi
	imul	rax, r8
	cmp	[rdi], rax
	jne	.wrong
	add	rdi, 8
	cmp	rdi, FROM + BYTES
	jb	.read
	test	ebx, ebx
	jnz	.end
	mov	dx, COM1 + 5
	in	al, dx
	test	al, 1
	jz	.round
	mov	dx, COM1
	in	al, dx
	cmp	al, 't'
	je	.again
	cmp	al, 'q'
	sete	bl
	jmp	.round
.wrong:	lea	rsi, [rel wrong]
	call	print
	jmp	poweroff
.end:	lea	rsi, [rel right]
	call	print
	jmp	poweroff
ready:	db	'checksum: ready', 10, 0
right:	db	'checksum: every round was right', 10, 0
wrong:	db	'checksum: WRONG', 10, 0
image_end:
