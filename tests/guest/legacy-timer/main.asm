; SPDX-License-Identifier: MIT
; The interrupt controllers and the timer of a PC, as kernels without paravirtual help use them: periodic and one-shot
; interrupts through the 8259As, and through the I/O APIC; the serial port's interrupt; a TSC measured by counter 2; all
; that once more with the LAPIC disabled. Times are compared with the TSC, whose rate CPUID tells.
%include "bzimage.inc"

IDT	equ LOAD_AT + 0x90000
TIMER	equ 0x20			; IRQ 0 through the 8259A
SERIAL	equ 0x24
IOAPIC	equ 0xfec00000
APIC	equ 0xfee00000
GSI	equ 0x41			; IRQ 0 through the I/O APIC
PERIOD	equ 11932			; 100 Hz

main:
	mov	eax, 0x40000010
	cpuid
	mov	r15d, eax		; kHz
	lea	rbx, [rel timer]
	mov	ecx, TIMER
	call	gate
	lea	rbx, [rel serial]
	mov	ecx, SERIAL
	call	gate
	lea	rbx, [rel timer_apic]
	mov	ecx, GSI
	call	gate
	lidt	[rel idtr]

	mov	al, 0x11		; both 8259As: vectors 0x20 and 0x28, only IRQ 0 and 4 open
	out	0x20, al
	out	0xa0, al
	mov	al, 0x20
	out	0x21, al
	mov	al, 0x28
	out	0xa1, al
	mov	al, 4
	out	0x21, al
	mov	al, 2
	out	0xa1, al
	mov	al, 1
	out	0x21, al
	out	0xa1, al
	mov	al, 0xee
	out	0x21, al
	mov	al, 0xff
	out	0xa1, al
	in	al, 0x21
	mov	r14d, 1			; what is tested: said when it is wrong
	cmp	al, 0xee
	jne	wrong

	inc	r14d			; 2: the 8259A, through LINT0 as the firmware left it
	call	periodic
	inc	r14d			; 3: one interrupt, which waits while IF is clear
	call	one_shot
	inc	r14d			; 4: counter 2
	call	measure

	inc	r14d			; 5: the serial port says that it has nothing to send
	xor	ebp, ebp
	mov	dx, COM1 + 1
	mov	al, 2
	out	dx, al
	sti
	hlt
	cli
	xor	eax, eax
	out	dx, al
	cmp	ebp, 0x100
	jne	wrong

	inc	r14d			; 6: the I/O APIC's pin 2, while the 8259A is masked
	mov	al, 0xff
	out	0x21, al
	mov	r10d, IOAPIC
	mov	dword [r10], 0x10 + 2 * 2 + 1
	mov	dword [r10 + 0x10], 0
	mov	dword [r10], 0x10 + 2 * 2
	mov	dword [r10 + 0x10], GSI
	call	periodic
	mov	dword [r10 + 0x10], 0x10000 | GSI

	inc	r14d			; 7: ExtINT by the I/O APIC's pin 0, LINT0 masked
	mov	r11d, APIC
	mov	dword [r11 + 0x350], 0x10700
	mov	dword [r10], 0x10 + 1
	mov	dword [r10 + 0x10], 0
	mov	dword [r10], 0x10
	mov	dword [r10 + 0x10], 0x700
	mov	al, 0xee
	out	0x21, al
	call	periodic
	mov	dword [r10 + 0x10], 0x10000

	inc	r14d			; 8: no LAPIC: the 8259A's output is the CPU's
	mov	ecx, 0x1b
	rdmsr
	and	eax, ~0x800
	wrmsr
	call	periodic
	call	one_shot

	lea	rsi, [rel good]
	call	print
	jmp	poweroff
wrong:	cli
	lea	rsi, [rel bad]
	call	print
	lea	eax, [r14 + '0']
	out	dx, al
	mov	al, 10
	out	dx, al
	jmp	poweroff

; Ten interrupts of the timer, at their distance. (The first one may come at once.)
periodic:
	call	ticks
	mov	r12, rax
	mov	al, 0x34
	out	0x43, al
	mov	al, PERIOD & 0xff
	out	0x40, al
	mov	al, PERIOD >> 8
	out	0x40, al
	xor	ebp, ebp
.wait:	sti
	hlt
	cli
	cmp	ebp, 11
	jb	.wait
	call	ticks
	sub	rax, r12
	imul	rcx, r15, 99		; at least 99 ms
	cmp	rax, rcx
	jb	wrong
	imul	rcx, r15, 3000		; an emulator may have other things to do
	cmp	rax, rcx
	ja	wrong
	mov	al, 0x30		; the control word alone stops it
	out	0x43, al
	ret

one_shot:
	sti				; what is left of before
	nop
	cli
	mov	al, 0x30
	out	0x43, al
	mov	al, PERIOD & 0xff
	out	0x40, al
	mov	al, PERIOD >> 8
	out	0x40, al
	xor	ebp, ebp
.wait:	mov	al, 0xe2		; the status of counter 0: its output is bit 7
	out	0x43, al
	in	al, 0x40
	test	al, al
	jns	.wait
	test	ebp, ebp
	jnz	wrong
	sti
	nop
	nop
	cli
	cmp	ebp, 1
	jne	wrong
	ret

; 10 ms by counter 2, as kernels measure their TSC.
measure:
	in	al, 0x61
	and	al, 0xfc
	out	0x61, al
	mov	al, 0xb0
	out	0x43, al
	mov	al, PERIOD & 0xff
	out	0x42, al
	mov	al, PERIOD >> 8
	out	0x42, al
	call	ticks
	mov	r12, rax
	in	al, 0x61
	or	al, 1
	out	0x61, al
.wait:	in	al, 0x61
	test	al, 0x20
	jz	.wait
	call	ticks
	sub	rax, r12
	imul	rcx, r15, 99
	imul	rax, rax, 10
	cmp	rax, rcx
	jb	wrong
	imul	rcx, r15, 3000
	cmp	rax, rcx
	ja	wrong
	ret

ticks:	rdtsc
	shl	rdx, 32
	or	rax, rdx
	ret

; Vector ECX is to go to RBX.
gate:	shl	ecx, 4
	lea	rdi, [rcx + IDT]
	mov	rax, rbx
	mov	[rdi], ax
	mov	word [rdi + 2], 0x10
	mov	word [rdi + 4], 0x8e00
	shr	rax, 16
	mov	[rdi + 6], ax
	shr	rax, 16
	mov	[rdi + 8], rax
	ret

timer:	inc	ebp
.eoi:	push	rax
	mov	al, 0x20
	out	0x20, al
	pop	rax
	iretq
serial:	add	ebp, 0x100
	push	rax
	push	rdx
	mov	dx, COM1 + 2
	in	al, dx
	pop	rdx
	pop	rax
	jmp	timer.eoi
timer_apic:
	inc	ebp
	mov	dword [abs qword APIC + 0xb0], eax
	iretq

idtr:	dw	256 * 16 - 1
	dq	IDT
good:	db	'legacy-timer: all is well', 10, 0
bad:	db	'legacy-timer: WRONG in test ', 0
image_end:
