; SPDX-License-Identifier: MIT
;
; Touches memory that is missing, a page after the other, which tests/bench/pager.c brings: what it costs from the MOV
; to the instruction behind it, the best and the average (the tables of 2 MiB are in it), and how many locks Corbel
; took. Then the same for pages whose writes are logged: the first time, and each time after the log was read.
%include "bzimage.inc"
default rel

FIRST	equ LOAD_AT + 0x400000	; nobody else touches it
PAGES	equ 1000

main:
	xor	r8d, r8d
	lea	rbp, [missing]
	call	touch
	sub	rbx, r12
	lea	rsi, [locks]
	mov	rax, rbx
	call	say
	call	wait_for_host		; who turns the log of writes on, so that nothing is mapped
	mov	r8d, 1			; from now on, write
	lea	rbp, [first_write]
	call	touch
	call	wait_for_host		; who reads the log
	lea	rbp, [write]
	call	touch
	lea	rsi, [done]
	call	print
	jmp	poweroff

; Touch them all (r8: by writes), and say what that cost under the name at rbp. r12, rbx: what the first page said, and
; the last.
touch:
	mov	r13, -1		; the best
	xor	r14d, r14d	; all
	mov	edi, FIRST
	mov	r12, [rdi]
.page:
	add	rdi, 0x1000
	rdtsc
	mov	r15d, eax
	test	r8d, r8d
	jnz	.write
	mov	rbx, [rdi]
	jmp	.touched
.write:	mov	[rdi], ecx
	nop
.touched:
	rdtsc
	sub	eax, r15d
	sub	eax, 5		; RDTSC, the access and what is beside it
	add	r14, rax
	cmp	rax, r13
	cmovb	r13, rax
	cmp	edi, FIRST + PAGES * 0x1000
	jb	.page
	lea	rsi, [bench]
	call	print
	mov	rsi, rbp
	mov	rax, r13
	call	say
	lea	rsi, [bench]
	call	print
	mov	rsi, rbp
	call	print
	lea	rsi, [average]
	mov	rax, r14
	xor	edx, edx
	mov	ecx, PAGES
	div	rcx
	jmp	say

wait_for_host:
	lea	rsi, [ready]
	call	print
	mov	dx, COM1 + 5
.wait:	in	al, dx
	test	al, 1
	jz	.wait
	mov	dx, COM1
	in	al, dx
	ret

; The name at rsi, and rax, decimal.
say:
	push	rax
	call	print
	lea	rsi, [blank]
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

bench:	db	'bench: ', 0
missing: db	'missing-page', 0
first_write: db	'logged-page-mapped', 0
write:	db	'logged-page', 0
average: db	'-average', 0
locks:	db	'bench: missing-page-locks', 0
ready:	db	'ready', 10, 0
blank:	db	' ', 0
done:	db	'bench-guest: done', 10, 0
digits:	times 20 db 0
digits_end:
	db	10, 0
image_end:
