; SPDX-License-Identifier: MIT
;
; Touches memory that is missing, a page after the other, which tests/bench/pager.c brings: what it costs from the MOV
; to the instruction behind it, the best and the average (the tables of 2 MiB are in it), and how many locks Corbel
; took.
%include "bzimage.inc"
default rel

FIRST	equ LOAD_AT + 0x400000	; nobody else touches it
PAGES	equ 1000

main:
	mov	r13, -1		; the best
	xor	r14d, r14d	; all
	mov	edi, FIRST
	mov	r12, [rdi]
.page:
	add	rdi, 0x1000
	rdtsc
	mov	r15d, eax
	mov	rbx, [rdi]
	rdtsc
	sub	eax, r15d
	sub	eax, 2		; without RDTSC and MOV
	add	r14, rax
	cmp	rax, r13
	cmovb	r13, rax
	cmp	edi, FIRST + PAGES * 0x1000
	jb	.page
	sub	rbx, r12
	lea	rsi, [best]
	mov	rax, r13
	call	say
	lea	rsi, [average]
	mov	rax, r14
	xor	edx, edx
	mov	ecx, PAGES
	div	rcx
	call	say
	lea	rsi, [locks]
	mov	rax, rbx
	call	say
	lea	rsi, [done]
	call	print
	jmp	poweroff

; The name at rsi, and rax, decimal.
say:
	push	rax
	call	print
	pop	rax
	mov	ecx, 10
	lea	rsi, [digits_end]
.digit:	xor	edx, edx
	div	rcx
	add	dl, '0'
	dec	rsi
	mov	[rsi], dl
	test	rax, rax
	jnz	.digit
	jmp	print

best:	db	'bench: missing-page ', 0
average: db	'bench: missing-page-average ', 0
locks:	db	'bench: missing-page-locks ', 0
done:	db	'bench-guest: done', 10, 0
digits:	times 20 db 0
digits_end:
	db	10, 0
image_end:
