; SPDX-License-Identifier: MIT
; INIT, start-up IPIs and NMIs to the other vCPUs, again and again, whatever they are at: spinning, halted with
; interrupts off, exiting all the time, in protected mode. Each start is counted by the one who starts; a second SIPI
; must not count. Then a reset with the others in these states, the same once more, and power-off.
%include "bzimage.inc"

APIC	equ 0xfee00000
INIT	equ 0x4500
SIPI	equ 0x4600
NMI	equ 0x4400
OTHERS	equ 0xc0000
START	equ 0x40000			; where the others start: in real mode, with SIPI vector 0x40
ROUNDS	equ 120

; A variable of the others' code, once that is at START.
%define AT_START(label) (START + (label) - ap)

main:
	mov	r10d, APIC
	mov	dword [r10 + 0xf0], 0x1ff
	lea	rsi, [rel ap]
	mov	edi, START
	mov	ecx, ap_end - ap
	rep	movsb
	mov	word [abs 8], nmi - ap	; vector 2 of the real-mode table
	mov	word [abs 10], START >> 4
	mov	eax, 0xb		; CPUID tells how many vCPUs there are
	mov	ecx, 1
	cpuid
	movzx	r8d, bx			; all of them
	xor	r12d, r12d		; round
	xor	r13d, r13d		; starts that must have been by now
	xor	r14d, r14d		; NMIs
	mov	r15d, 1			; the one whose turn it is
round:	mov	eax, r12d
	shr	eax, 3
	add	eax, r12d
	and	eax, 3
	mov	[abs AT_START(what)], eax
	test	r12d, 7
	jnz	.one
	mov	ebx, OTHERS
	lea	r9d, [r8 - 1]
	jmp	.init
.one:	xor	ebx, ebx
	mov	r9d, 1
.init:	mov	edi, INIT
	call	send
	mov	edi, SIPI | START >> 12
	call	send
	add	r13d, r9d
.wait:	pause
	mov	eax, [abs AT_START(starts)]
	cmp	eax, r13d
	jb	.wait
	ja	wrong
	call	send			; the second SIPI finds it running
	mov	eax, [abs AT_START(what)]
	cmp	eax, 3			; in protected mode there is no table for an NMI
	je	.next
	mov	edi, NMI
	call	send
	add	r14d, r9d
.nmi:	pause
	mov	eax, [abs AT_START(nmis)]
	cmp	eax, r14d
	jb	.nmi
	ja	wrong
	cmp	[abs AT_START(starts)], r13d
	jne	wrong
.next:	inc	r15d
	cmp	r15d, r8d
	jb	.same
	mov	r15d, 1
.same:	inc	r12d
	cmp	r12d, ROUNDS
	jb	round
	cmp	dword [abs AT_START(dirty)], 0
	jne	wrong
	mov	eax, 1			; every APIC id but ours
	mov	ecx, r8d
	shl	eax, cl
	sub	eax, 2
	cmp	[abs AT_START(ids)], eax
	jne	wrong
	mov	r15d, 1			; one shall wait for its SIPI at the end
	mov	edi, INIT
	xor	ebx, ebx
	call	send
	mov	al, 0x40		; the CMOS memory survives a reset
	out	0x70, al
	in	al, 0x71
	test	al, al
	jnz	second
	lea	rsi, [rel first]
	call	print
	mov	al, 0x40
	out	0x70, al
	mov	al, 1
	out	0x71, al
	mov	dx, 0xcf9
	mov	al, 6
	out	dx, al
second:	lea	rsi, [rel good]
	call	print
	jmp	poweroff
wrong:	lea	rsi, [rel bad]
	call	print
	jmp	poweroff

; ICR: EDI to APIC id R15D, or to the shorthand in EBX.
send:	mov	eax, r15d
	shl	eax, 24
	mov	[r10 + 0x310], eax
	mov	eax, edi
	or	eax, ebx
	mov	[r10 + 0x300], eax
	ret

bits 16
ap:	mov	bp, ax
	or	bp, bx
	or	bp, cx			; 0 after INIT
	lock or [cs:dirty - ap], bp
	mov	eax, 0xb
	xor	ecx, ecx
	cpuid
	lock bts [cs:ids - ap], edx
	mov	sp, 0x7000
	shl	dx, 8
	sub	sp, dx			; a stack for the NMI
	mov	bx, 0x1234
	mov	cl, [cs:what - ap]
	lock inc dword [cs:starts - ap]
	cmp	cl, 1
	je	.halt
	cmp	cl, 2
	je	.exits
	cmp	cl, 3
	je	.protected
.spin:	jmp	.spin
.halt:	hlt
	jmp	.halt
.exits:	xor	eax, eax
	cpuid
	out	0x80, al
	jmp	.exits
.protected:
	mov	eax, cr0
	or	al, 1
	mov	cr0, eax
.there:	jmp	.there
nmi:	lock inc dword [cs:nmis - ap]
	iret
align 4
what:	dd	0
starts:	dd	0
nmis:	dd	0
ids:	dd	0
dirty:	dd	0
ap_end:

first:	db	'start-ipis: first life', 10, 0
good:	db	'start-ipis: all is well', 10, 0
bad:	db	'start-ipis: WRONG', 10, 0
image_end:
