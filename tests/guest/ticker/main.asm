; SPDX-License-Identifier: MIT
; Sleeps in HLT, and is woken by its LAPIC timer again and again: what it waits for is the CPU.
%include "bzimage.inc"
%define APIC	0xfee00000
%define VECTOR	0x40
%define COUNT	7000000
main:
	lea	rsi, [rel text]
	call	print
	lea	rdi, [rel idt + VECTOR * 16]	; a 64-bit interrupt gate, by the loader's code segment
	lea	rax, [rel tick]
	mov	[rdi], ax
	mov	word [rdi + 2], cs
	mov	word [rdi + 4], 0x8e00
	shr	rax, 16
	mov	[rdi + 6], rax
	lea	rax, [rel idt]
	mov	[rel idtr + 2], rax
	lidt	[rel idtr]
	mov	ebx, APIC
	mov	dword [rbx + 0xf0], 0x1ff	; spurious vector; enabled
	mov	dword [rbx + 0x3e0], 0xb	; divide by 1
	mov	dword [rbx + 0x320], 0x20000 | VECTOR	; periodic
	mov	dword [rbx + 0x380], COUNT
	sti
.sleep:	hlt
	jmp	.sleep
tick:	mov	dword [rbx + 0xb0], 0		; EOI
	iretq
text:	db	'ticker: now', 10, 0
align 8
idtr:	dw	0x41 * 16 - 1
	dq	0
align 16
idt:	times 0x41 * 16 db 0
image_end:
