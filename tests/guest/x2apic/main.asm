; SPDX-License-Identifier: MIT
; Priorities of the local APIC in x2APIC mode, as a kernel uses it: what is the same whether Corbel or the CPU (APIC
; virtualization) delivers. Self-IPIs, nested handlers, TPR by MSR and by CR8, PPR, IRR and ISR, a request that ends a
; HLT, illegal vectors, reserved bits, software-disabling, and level-triggered interrupts through the IOAPIC, whose EOI
; must reach it. Prints the number of a step that went wrong.
%include "bzimage.inc"

%define MSR(register) (0x800 + (register) / 16)
ID	equ MSR(0x20)
TPR	equ MSR(0x80)
PPR	equ MSR(0xa0)
EOI	equ MSR(0xb0)
SVR	equ MSR(0xf0)
ISR2	equ MSR(0x120)			; vectors 0x40 to 0x5f
TMR2	equ MSR(0x1a0)
IRR2	equ MSR(0x220)
ESR	equ MSR(0x280)
ICR	equ MSR(0x300)
SELF_IPI equ MSR(0x3f0)
APIC_BASE equ 0x1b
BASE_X2	equ 1 << 10
LOW	equ 0x41			; its handler is nested
HIGH	equ 0x51
LEVEL	equ 0x43
MANY	equ 1000
IOAPIC	equ 0xfec00000
UART_PIN equ 4
UART_IER equ COM1 + 1
UART_IIR equ COM1 + 2
IER_THRI equ 2

main:
	cld
	lea	rdi, [rel idt]
	mov	rax, HERE(wrong)
	mov	ecx, 32
.gate:	call	set_gate
	loop	.gate
	mov	rax, HERE(fault)
	lea	rdi, [rel idt + 13 * 16]
	call	set_gate
	mov	rax, HERE(low)
	lea	rdi, [rel idt + LOW * 16]
	call	set_gate
	mov	rax, HERE(level)
	lea	rdi, [rel idt + LEVEL * 16]
	call	set_gate
	mov	rax, HERE(high)
	lea	rdi, [rel idt + HIGH * 16]
	call	set_gate
	lea	rax, [rel idt]
	mov	[rel idtr + 2], rax
	lidt	[rel idtr]
	mov	ecx, APIC_BASE
	rdmsr
	or	eax, BASE_X2
	wrmsr

; set REGISTER, VALUE: clobbers RAX, RCX, RDX
%macro set 2
	mov	ecx, %1
	mov	eax, %2
	xor	edx, edx
	wrmsr
%endmacro
%macro get 1
	mov	ecx, %1
	rdmsr
%endmacro
; The next step; the numbers are in the order of the file.
%macro step 0
	inc	ebx
%endmacro
%macro must 3				; compare, with, condition
	cmp	%1, %2
	j%-3	wrong
%endmacro

	xor	ebx, ebx
	set	SVR, 0x1ff
	step				; 1: delivered at once, and ended
	sti
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 1, e
	get	ISR2
	must	eax, 0, e

	step				; 2: masked by IF, seen in IRR; STI opens
	cli
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 1, e
	get	IRR2
	must	eax, 1 << (HIGH & 31), e
	sti
	nop
	must	dword [rel highs], 2, e
	get	IRR2
	must	eax, 0, e

	step				; 3: masked by TPR's class, in PPR too; lowered by the MSR
	set	TPR, HIGH & 0xf0
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 2, e
	get	PPR
	must	eax, HIGH & 0xf0, e
	mov	rax, cr8
	must	rax, HIGH >> 4, e
	set	TPR, 0
	nop
	must	dword [rel highs], 3, e

	step				; 4: the same by CR8
	mov	eax, 15
	mov	cr8, rax
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 3, e
	get	TPR
	must	eax, 0xf0, e
	xor	eax, eax
	mov	cr8, rax
	nop
	must	dword [rel highs], 4, e

	step				; 5: a handler is interrupted by a higher class, not by its own
	mov	dword [rel nest], 1
	set	SELF_IPI, LOW
	nop
	must	dword [rel lows], 2, e
	must	dword [rel highs], 5, e
	get	PPR
	must	eax, 0, e

	step				; 6: one that waits ends a HLT
	cli
	set	SELF_IPI, HIGH
	sti
	hlt
	must	dword [rel highs], 6, e

	step				; 7: by the ICR: shorthand, and to the id
	get	ID
	mov	edx, eax
	mov	ecx, ICR
	mov	eax, 1 << 14 | HIGH
	wrmsr
	nop
	must	dword [rel highs], 7, e
	set	ICR, 1 << 18 | 1 << 14 | HIGH
	nop
	must	dword [rel highs], 8, e

	step				; 8: illegal vectors are errors, no interrupts
	set	ESR, 0
	set	SELF_IPI, 5
	set	ESR, 0
	get	ESR
	must	eax, 1 << 5, e

	step				; 9: #GP for reserved bits, for EOI with a value, for reading EOI
	set	TPR, 0x100
	set	EOI, 1
	set	SELF_IPI, 0x100 | HIGH
	get	EOI
	must	dword [rel faults], 4, e
	must	dword [rel highs], 8, e

	step				; 10: software-disabled it takes no more, and goes on after
	set	SVR, 0xff
	set	SELF_IPI, HIGH
	nop
	set	SVR, 0x1ff
	nop
	must	dword [rel highs], 8, e
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 9, e

	step				; 11: disabled inside a handler, its EOI still counts
	mov	dword [rel disable], 1
	set	SELF_IPI, HIGH
	nop
	get	ISR2
	must	eax, 0, e
	set	SELF_IPI, LOW
	nop
	must	dword [rel lows], 3, e

	step				; 12: level-triggered: each EOI lets the next through
	mov	r8d, IOAPIC
	mov	dword [r8], 0x11 + 2 * UART_PIN
	mov	dword [r8 + 0x10], 0
	mov	dword [r8], 0x10 + 2 * UART_PIN
	mov	dword [r8 + 0x10], 1 << 15 | LEVEL
	mov	dx, UART_IER
	mov	al, IER_THRI		; the transmitter is empty: the line rises
	out	dx, al
	nop
	must	dword [rel levels], 3, e
	get	TMR2
	must	eax, 1 << (LEVEL & 31), e
	mov	eax, [r8 + 0x10]	; remote IRR is clear
	test	eax, 1 << 14
	jnz	wrong
	mov	dword [r8 + 0x10], 1 << 16

	step				; 13: its vector, edge-triggered (TMR's bit may stay)
	set	SELF_IPI, LEVEL
	nop
	must	dword [rel levels], 4, e

	step				; 14: many
	mov	ebp, MANY
.many:	set	SELF_IPI, HIGH
	dec	ebp
	jnz	.many
	must	dword [rel highs], 10 + MANY, e
	lea	rsi, [rel text_good]
	call	print
.end:	cli				; for who counts exits
	hlt
	jmp	.end

wrong:
	cli
	lea	rsi, [rel text_wrong]
	call	print
	mov	eax, ebx
	mov	cl, 10
	div	cl
	or	ax, '00'
	mov	dx, COM1
	out	dx, al
	mov	al, ah
	out	dx, al
	lea	rsi, [rel text_end]
	call	print
.end:	cli
	hlt
	jmp	.end

; Gate at RDI, handler RAX.
set_gate:
	mov	[rdi], ax
	mov	dword [rdi + 2], 0x8e000010
	mov	edx, eax
	shr	edx, 16
	mov	[rdi + 6], dx
	mov	qword [rdi + 8], 0
	add	rdi, 16
	ret

; Skips the two bytes of RDMSR or WRMSR.
fault:	inc	dword [rel faults]
	add	rsp, 8
	add	qword [rsp], 2
	iretq

%macro enter_handler 0
	push	rax
	push	rcx
	push	rdx
%endmacro
%macro leave_handler 0
	set	EOI, 0
	pop	rdx
	pop	rcx
	pop	rax
	iretq
%endmacro

high:	enter_handler
	inc	dword [rel highs]
	cmp	dword [rel disable], 0
	je	.end
	mov	dword [rel disable], 0
	set	SVR, 0xff
	get	ISR2
	must	eax, 1 << (HIGH & 31), e
	set	EOI, 0
	set	SVR, 0x1ff
	pop	rdx
	pop	rcx
	pop	rax
	iretq
.end:	leave_handler

low:	enter_handler
	inc	dword [rel lows]
	cmp	dword [rel nest], 0
	je	.end
	mov	dword [rel nest], 0
	get	PPR
	must	eax, LOW & 0xf0, e
	sti
	set	SELF_IPI, LOW		; waits for the EOI
	set	SELF_IPI, HIGH
	nop
	must	dword [rel highs], 5, e
	must	dword [rel lows], 1, e
	get	ISR2
	must	eax, 1 << (LOW & 31), e
	cli
.end:	leave_handler

; The line stays up until the third time.
level:	enter_handler
	inc	dword [rel levels]
	cmp	dword [rel levels], 3
	jne	.end
	mov	dx, UART_IER
	xor	eax, eax
	out	dx, al
.end:	leave_handler

text_good: db	'x2apic: all is well', 10, 0
text_wrong: db	'x2apic: WRONG in step ', 0
text_end: db	10, 0
	align	8
highs:	dd	0
lows:	dd	0
levels:	dd	0
faults:	dd	0
nest:	dd	0
disable: dd	0
idtr:	dw	256 * 16 - 1
	dq	0
	align	16
idt:	times 256 * 16 db 0
image_end:
