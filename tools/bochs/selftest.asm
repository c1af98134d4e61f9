; SPDX-License-Identifier: MIT
; A 64 KiB firmware of its own: enters long mode, divides, writes a verdict to port 0xe9 and ends Bochs.
; It shows in a second whether this Bochs computes 64-bit IDIV right, before anything bigger is built on it.
	org	0xf0000
	bits	16

%define PML4	0x1000
%define PDPT	0x2000

start:
	cli
	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	di, PML4		; two empty tables, then one entry in each: the first GiB maps to itself
	mov	cx, 0x1000
	rep	stosw
	mov	word [PML4], PDPT | 3
	mov	word [PDPT], 0x83
	mov	ax, cs
	mov	ds, ax
	lgdt	[gdtr - $$]
	mov	eax, cr4
	or	al, 1 << 5		; PAE
	mov	cr4, eax
	mov	eax, PML4
	mov	cr3, eax
	mov	ecx, 0xc0000080
	rdmsr
	or	ah, 1			; EFER.LME
	wrmsr
	mov	eax, cr0
	or	eax, 0x80000001
	mov	cr0, eax
	jmp	dword 8:long_mode

	bits	64
; dividend, divisor -> quotient, remainder of a sign-extended IDIV
cases:
	dq	1000000000, 1000, 1000000, 0
	dq	-1000000007, 1000, -1000000, -7
	dq	1000000007, -1000, -1000000, 7
	dq	-1000000007, -1000, 1000000, -7
	dq	0x7fffffffffffffff, 10, 922337203685477580, 7
	dq	0, 5, 0, 0
cases_end:

long_mode:
	mov	esp, 0x8000
	mov	rbx, cases
.next:
	mov	rax, [rbx]
	cqo
	idiv	qword [rbx + 8]
	cmp	rax, [rbx + 16]
	jne	.wrong
	cmp	rdx, [rbx + 24]
	jne	.wrong
	add	rbx, 32
	cmp	rbx, cases_end
	jb	.next
	mov	edx, 1			; a dividend that needs both halves: 2^64 + 6 over 7
	mov	eax, 6
	mov	ecx, 7
	idiv	rcx
	mov	rcx, 2635249153387078803
	cmp	rax, rcx
	jne	.wrong
	cmp	edx, 1
	jne	.wrong
	mov	rsi, right
	jmp	.say
.wrong:
	mov	rsi, wrong
.say:
	mov	edx, 0xe9
	call	put
	mov	rsi, shutdown
	mov	edx, 0x8900
	call	put
.stop:
	hlt
	jmp	.stop

put:
	lodsb
	test	al, al
	jz	.done
	out	dx, al
	jmp	put
.done:
	ret

right:		db	"idiv: right", 10, 0
wrong:		db	"idiv: wrong", 10, 0
shutdown:	db	"Shutdown", 0

	align	8
gdt:
	dq	0, 0x00209a0000000000
gdtr:
	dw	gdtr - gdt - 1
	dd	gdt

	times	0xfff0 - ($ - $$) db 0xf4
	bits	16
	jmp	0xf000:start - $$
	times	0x10000 - ($ - $$) db 0
