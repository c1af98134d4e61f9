; SPDX-License-Identifier: MIT
; INS and OUTS: values, registers, direction, prefixes, and a count of 0. The port is the scratch register of COM1.
%include "bzimage.inc"
SCRATCH	equ COM1 + 7
%macro expect 2			; register, value
	mov	rax, %2
	cmp	%1, rax
	jne	wrong
%endmacro
main:
	mov	edx, SCRATCH
	cld
	lea	rsi, [rel values]
	mov	r12, rsi
	mov	ecx, 3
	rep outsb			; the last one stays
	sub	rsi, r12
	expect	rsi, 3
	expect	rcx, 0
	lea	rdi, [rel buffer]
	mov	r12, rdi
	mov	ecx, 4
	rep insb
	sub	rdi, r12
	expect	rdi, 4
	expect	rcx, 0
	mov	ebx, [rel buffer]
	expect	rbx, 0x33333333
	; Backwards, once, with a segment prefix.
	std
	lea	rsi, [rel values + 1]
	mov	r12, rsi
	db	0x2e, 0x6e
	cld
	sub	rsi, r12
	expect	rsi, -1
	in	al, dx
	cmp	al, 0x22
	jne	wrong
	; A count of 0, and one whose upper half an address size of 32 bits leaves out.
	lea	rdi, [rel buffer]
	mov	r12, rdi
	xor	ecx, ecx
	rep insb
	sub	rdi, r12
	expect	rdi, 0
	mov	rdi, r12
	mov	rcx, 0x100000002
	db	0x67, 0xf3, 0x6c	; at edi, ecx times
	sub	rdi, r12
	expect	rdi, 2
	expect	rcx, 0
	mov	ebx, [rel buffer]
	expect	rbx, 0x33332222
	lea	rsi, [rel good]
	mov	ecx, good_end - good
	mov	edx, COM1
	rep outsb
	jmp	poweroff
wrong:
	lea	rsi, [rel bad]
	call	print
	jmp	poweroff
values:	db	0x11, 0x22, 0x33
good:	db	'string-io: all values are right', 10
good_end:
bad:	db	'string-io: WRONG', 10, 0
buffer:	dd	0
image_end:
