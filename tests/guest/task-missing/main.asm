; SPDX-License-Identifier: MIT
; A task switch by a fault, in the middle of which memory is missing: the GDT on both sides of the new task's
; descriptor, both TSSs, the new task's page tables, its LDT and its stack are in pieces of their own of the VM's
; image, which tests/system/tests.py makes (task_missing), and nobody has touched them before. If the image says so at
; LATE, the guest first touches what comes after the old task is saved.
bits 32
org 0x300000
	mov	esp, 0x380000
	jmp	start
%include "print32.inc"

; As in task_missing().
GDT	equ 0x21ff000		; the new task's descriptor is behind 0x2200000
TSS_A	equ 0x2400000
TSS_B	equ 0x2600000
LDT	equ 0x2800000
DIRECTORY_B equ 0x2a00000
TABLE_B	equ 0x2c00000
STACK_B	equ 0x2e00000
DIRECTORY_A equ 0x390000
ENTRY_B	equ 0x3a0000		; jumps to task_b
LATE	equ 0x3b0000
FAULT	equ 0x300800		; the instruction that faults
CODE	equ 0x08
DATA	equ 0x10
SEL_A	equ 0x18
SEL_B	equ 0x1000
IN_LDT	equ 0x0c
TSS_EIP	equ 0x20
TSS_EFLAGS equ 0x24
TSS_EAX	equ 0x28
TSS_ESP	equ 0x38
TSS_EDI	equ 0x44
TSS_DS	equ 0x54
NT	equ 1 << 14
PSE	equ 1 << 4
PG	equ 1 << 31
TS	equ 1 << 3

%macro expect 2				; value, what it has to be
	mov	ecx, %1
	cmp	ecx, %2
	jne	%%wrong
	jmp	%%good
%%wrong:
	push	ecx
	say	{'task-missing: WRONG at line '}
	say_hex	__LINE__
	say_hex	[esp]
	newline
	pop	ecx
%%good:
%endmacro

start:
	cld
	mov	edi, DIRECTORY_A	; 64 MiB one to one
	mov	eax, 0x83
.page:	stosd
	add	eax, 4 << 20
	cmp	eax, 64 << 20
	jb	.page
	mov	byte [ENTRY_B], 0xe9
	mov	dword [ENTRY_B + 1], task_b - (ENTRY_B + 5)
	mov	eax, cr4
	or	eax, PSE
	mov	cr4, eax
	mov	eax, DIRECTORY_A
	mov	cr3, eax
	mov	eax, cr0
	or	eax, PG
	mov	cr0, eax
	lgdt	[gdtr_old]
	jmp	CODE:.flat
.flat:	mov	eax, DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	lldt	ax
	mov	eax, SEL_A
	ltr	ax
	lgdt	[gdtr]
	lidt	[idtr]
	cmp	dword [LATE], 0
	je	.late
	mov	eax, [GDT]
	mov	eax, [DIRECTORY_B]
	mov	eax, [TABLE_B]
	mov	eax, [LDT]
	mov	eax, [STACK_B]
.late:	jmp	go

go:
	mov	eax, 0x11111111
	mov	edi, 0x22222222
	mov	ecx, 0xfff8
	stc
	jmp	FAULT
	times FAULT - 0x300000 - ($ - $$) nop
	mov	fs, ecx			; #GP(0xfff8): a task gate
behind:
	mov	ebx, eax
	pushfd
	pop	eax
	and	eax, NT
	expect	eax, 0
	expect	ebx, 0x11111111
	expect	edi, 0x22222222
	mov	eax, cr3
	expect	eax, DIRECTORY_A
	str	eax
	expect	eax, SEL_A
	mov	eax, [TSS_A + TSS_EAX]
	expect	eax, 0x11111111
	mov	eax, [TSS_A + TSS_EDI]
	expect	eax, 0x22222222
	mov	eax, [TSS_A + TSS_ESP]
	expect	eax, 0x380000
	movzx	eax, word [TSS_A + TSS_DS]
	expect	eax, DATA
	mov	eax, [TSS_A + TSS_EFLAGS]
	and	eax, NT | 1
	expect	eax, 1
	movzx	eax, byte [GDT + SEL_A + 5]
	expect	eax, 0x8b
	movzx	eax, byte [GDT + SEL_B + 5]
	expect	eax, 0x89
	movzx	eax, byte [LDT + 8 + 5]	; accessed, but not by QEMU
	or	al, [LATE]
	expect	eax, 0x93
	movzx	eax, word [TSS_B]	; its link
	expect	eax, SEL_A
	expect	dword [runs], 1
	say	{'task-missing: it is over', 10}
	hlt

task_b:
	inc	dword [runs]
	mov	ebx, eax
	expect	ebx, 0x777
	pop	eax
	expect	eax, 0xfff8
	mov	eax, esp
	expect	eax, STACK_B + 0x800
	mov	eax, gs
	expect	eax, IN_LDT
	pushfd
	pop	eax
	and	eax, NT
	expect	eax, NT
	mov	eax, cr0
	and	eax, TS
	expect	eax, TS
	mov	eax, cr3
	expect	eax, DIRECTORY_B
	mov	eax, [TSS_A + TSS_EIP]
	expect	eax, FAULT
	mov	dword [TSS_A + TSS_EIP], behind
	iret

	align	8
old:	dq	0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0200894000000067
gdtr_old:
	dw	0x1f
	dd	old
gdtr:	dw	SEL_B + 15
	dd	GDT
	align	8
idt:	times 13 dq 0
	dq	SEL_B << 16 | 0xe5 << 40
idtr:	dw	14 * 8 - 1
	dd	idt
runs:	dd	0
