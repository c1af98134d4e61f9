; SPDX-License-Identifier: MIT
; Split locks, on a CPU that detects them or not. The first letter of the command line says what is tried:
;   u  unaware: many, and one in each place that needs care (TF, shadows, a page that is missing, a page fault), and
;      between interrupts whose handler does one as well
;   l  as u, but only the many; then it goes on for ever
;   a  aware: the feature must be there; each split lock must be #AC, and none once it is turned off
;   n  not offered: MSR_TEST_CTRL and IA32_CORE_CAPABILITIES must be #GP, as DEBUGCTL is
;   k  in user mode, with alignment checks on: each #AC of its own must come, also of split locks
;   m  likewise, but those with a mark in R11 are split locks for Corbel (faults: marked-ac=split), and must not come
; A wrong step is printed by its number.
%include "bzimage.inc"

MANY	equ 20000
LINE	equ LOAD_AT + 0x90000 + 61	; four bytes across a cache line
EXTENT	equ 0x1800000 - 2		; across 2 MiB of which the second ones were never touched
NOWHERE	equ 0x7000000000 - 2		; no linear address
APIC	equ 0xfee00000
TICK	equ 0x20			; vector of its timer
TICKS	equ 100
PERIOD	equ 300000
TF	equ 0x100
AC	equ 0x40000

%macro expect 3				; step, register, value
	mov	ebx, %1
	cmp	%2, %3
	jne	wrong
%endmacro

%macro step_from 0			; the guest steps by itself: #DBs are counted in R12
	xor	r12d, r12d
	pushfq
	or	dword [rsp], TF
	popfq
%endmacro
%macro step_until 0
	pushfq
	and	dword [rsp], ~TF
	popfq
%endmacro

; One in each place that needs care; the first of nine steps.
%macro places 1
	mov	dword [r15], 0
	step_from
	lock inc dword [r15]		; the first trap comes behind this one
	step_until			; ... its PUSHFQ pushes TF
	expect	%1, r12d, 4
	expect	%1 + 1, dword [r15], 1
	expect	%1 + 2, r13d, 0x4000

	mov	ax, ss			; in the shadow of MOV SS, and of STI
	mov	ss, ax
	lock inc dword [r15]
	sti
	lock inc dword [r15]
	cli
	expect	%1 + 3, dword [r15], 3

	mov	ax, ss			; TF and the shadow together: no trap between the two
	step_from
	mov	ss, ax
	lock inc dword [r15]
	step_until
	sub	r12d, 4			; QEMU traps behind MOV SS as well
	shr	r12d, 1
	expect	%1 + 4, r12d, 0
	expect	%1 + 5, dword [r15], 4

	mov	rdi, EXTENT		; memory that Corbel has to find while the pass is open
	lock inc dword [rdi]
	expect	%1 + 6, dword [rdi], 1

	xor	r12d, r12d		; a page fault of the guest's own while it is open
	mov	rdi, NOWHERE
	lea	r9, [rel %%after]
	lock inc dword [rdi]
%%after:
	expect	%1 + 7, r12d, 1
	expect	%1 + 8, r13d, 0		; TF in the flags that were pushed
%endmacro

; Until the timer has interrupted often enough, mostly in front of one that is let through; the first of two steps.
%macro ticks 1
	mov	edi, APIC
	mov	dword [rdi + 0xf0], 0x1ff	; spurious vector; enabled
	mov	dword [rdi + 0x3e0], 0xb	; divide by 1
	mov	dword [rdi + 0x320], 0x20000 | TICK	; periodic
	mov	dword [rdi + 0x380], PERIOD
	mov	dword [r15], 0
	xor	r10d, r10d
	sti
%%more:	lock inc dword [r15]
	inc	r10d
	cmp	dword [rel ticked], TICKS
	jb	%%more
	cli
	mov	dword [rdi + 0x380], 0
	expect	%1, dword [r15], r10d
	mov	r10d, [rel ticked]
	expect	%1 + 1, dword [r15 + 64], r10d
%endmacro

main:
	mov	ecx, [rsi + 0x228]	; the command line
	mov	bpl, [rcx]
	lea	rdi, [rel idt]
	lea	rax, [rel handler_db]
	mov	ecx, 1
	call	gate
	lea	rax, [rel handler_gp]
	mov	ecx, 13
	call	gate
	lea	rax, [rel handler_pf]
	mov	ecx, 14
	call	gate
	lea	rax, [rel handler_ac]
	mov	ecx, 17
	call	gate
	lea	rax, [rel handler_tick]
	mov	ecx, TICK
	call	gate
	mov	[rel idt_pointer + 2], rdi
	lidt	[rel idt_pointer]
	mov	r15, LINE
	mov	dword [r15], 0
	mov	dword [r15 + 64], 0
	cmp	bpl, 'a'
	je	aware
	cmp	bpl, 'n'
	je	not_offered
	cmp	bpl, 'k'
	je	user
	cmp	bpl, 'm'
	je	user

	mov	ecx, MANY
.many:	lock inc dword [r15]
	loop	.many
	expect	1, dword [r15], MANY
	lea	rsi, [rel many]
	call	print
	cmp	bpl, 'l'
	je	for_ever

	pushfq				; TF is not seen, and DR6 is as it was
	pop	rax
	and	eax, TF
	expect	2, eax, 0
	mov	rax, dr6
	and	eax, 0x400f
	expect	3, eax, 0

	mov	eax, 0x12345678		; XCHG locks without a prefix
	xchg	[r15], eax
	expect	4, eax, MANY
	expect	5, dword [r15], 0x12345678

	places	6
	mov	rax, cr2
	mov	rcx, NOWHERE
	cmp	rax, rcx
	je	.there
	add	rcx, 2
.there:	expect	15, rax, rcx

	mov	rax, dr6
	and	eax, 0x400f
	expect	16, eax, 0x4000		; of its own steps
	ticks	18
	expect	17, r14d, 0		; no #AC came
	lea	rsi, [rel all_well]
	call	print
	jmp	poweroff

for_ever:
	lock inc dword [r15]
	jmp	for_ever

aware:	mov	eax, 7
	xor	ecx, ecx
	cpuid
	shr	edx, 30
	and	edx, 1
	expect	20, edx, 1
	mov	ecx, 0xcf
	rdmsr
	expect	21, eax, 0x20
	mov	ecx, 0x33
	rdmsr
	expect	22, eax, 0
	lock inc dword [r15]		; not aware yet
	expect	23, r14d, 0
	mov	eax, 1 << 31
	xor	edx, edx
	xor	r12d, r12d
	wrmsr				; only bit 29 can be set
	expect	24, r12d, 1
	mov	eax, 1 << 29
	wrmsr
	expect	25, r12d, 1
	rdmsr
	expect	26, eax, 1 << 29
	mov	ecx, MANY
.many:	lock inc dword [r15]		; #AC, each; the handler lets it pass
	loop	.many
	expect	27, r14d, MANY
	expect	28, dword [r15], 1 + MANY
	lea	rsi, [rel all_well]
	call	print
	jmp	poweroff

not_offered:
	mov	eax, 7
	xor	ecx, ecx
	cpuid
	shr	edx, 30
	and	edx, 1
	expect	30, edx, 0
	xor	r12d, r12d
	mov	ecx, 0xcf
	rdmsr
	expect	31, r12d, 1
	mov	ecx, 0x33
	rdmsr
	expect	32, r12d, 2
	xor	eax, eax
	xor	edx, edx
	wrmsr
	expect	33, r12d, 3
	mov	ecx, 0x1d9		; nobody has a DEBUGCTL
	rdmsr
	expect	36, r12d, 4
	wrmsr
	expect	37, r12d, 5
	mov	ecx, MANY
.many:	lock inc dword [r15]
	loop	.many
	expect	34, dword [r15], MANY
	expect	35, r14d, 0
	lea	rsi, [rel all_well]
	call	print
	jmp	poweroff

; To CPL 3, with IOPL 3 so that all prints and powers off there, and with CR0.AM and EFLAGS.AC.
user:	mov	rax, cr3		; its pages: 4 GiB in leaves of the third level, or of the second
	and	rax, ~0xfff
	or	byte [rax], 4
	mov	rax, [rax]
	and	rax, ~0xfff
	xor	ecx, ecx
.gib:	or	byte [rax + rcx * 8], 4
	test	byte [rax + rcx * 8], 0x80
	jnz	.next
	mov	rbx, [rax + rcx * 8]
	and	rbx, ~0xfff
	xor	edx, edx
.mib:	or	byte [rbx + rdx * 8], 4
	inc	edx
	cmp	edx, 512
	jb	.mib
.next:	inc	ecx
	cmp	ecx, 4
	jb	.gib
	mov	rax, cr3
	mov	cr3, rax
	lea	rax, [rel tss]
	lea	rdi, [rel gdt_tss]
	mov	[rdi + 2], ax
	shr	rax, 16
	mov	[rdi + 4], al
	mov	[rdi + 7], ah
	lea	rax, [rel gdt]
	mov	[rel gdt_pointer + 2], rax
	lgdt	[rel gdt_pointer]
	mov	ax, 0x30
	ltr	ax
	mov	rax, cr0
	or	eax, AC			; AM is the same bit
	mov	cr0, rax
	push	0x23
	push	LOAD_AT + 0x88000
	push	0x3002 | AC
	push	0x2b
	lea	rax, [rel in_user]
	push	rax
	iretq
in_user:
	xor	r11d, r11d
	lock inc dword [r15]		; its own: not executed, but counted by the handler
	expect	40, r14d, 1
	cmp	dword [r15], 0		; one that is no lock, and has four bytes as well
	expect	41, r14d, 2
	cmp	bpl, 'k'
	jne	.mark
	call	clock
	mov	ecx, MANY / 20
.own:	lock inc dword [r15]
	loop	.own
	call	each
	expect	42, r14d, 2 + MANY / 20
	jmp	.well

.mark:	mov	r11, 'split'
	xor	r14d, r14d
	mov	dword [r15], 0
	call	clock
	mov	ecx, MANY / 20
.many:	lock inc dword [r15]
	loop	.many
	call	each
	expect	43, r14d, 0
	expect	44, dword [r15], MANY / 20

	places	45
	ticks	57
	expect	54, r14d, 0		; no #AC came
	pushfq
	pop	rax
	and	eax, TF | AC
	expect	55, eax, AC
	xor	r11d, r11d
	lock inc dword [r15]
	expect	56, r14d, 1
.well:	lea	rsi, [rel all_well]
	call	print
	jmp	poweroff

; TSC ticks for each of MANY / 20, from clock to each; in R8.
clock:	rdtsc
	shl	rdx, 32
	or	rax, rdx
	mov	r8, rax
	ret
each:	rdtsc
	shl	rdx, 32
	or	rax, rdx
	sub	rax, r8
	xor	edx, edx
	mov	ecx, MANY / 20
	div	rcx
	lea	rsi, [rel cost]
	push	rax
	call	print
	pop	rax
	lea	rdi, [rel digits + 10]
	mov	ebx, 10
.digit:	xor	edx, edx
	div	rbx
	add	dl, '0'
	dec	rdi
	mov	[rdi], dl
	test	rax, rax
	jnz	.digit
	mov	rsi, rdi
	jmp	print

; RDI: table; ECX: vector; RAX: handler
gate:	shl	ecx, 4
	mov	[rdi + rcx], ax
	mov	dword [rdi + rcx + 2], 0x8e000000 | 0x10
	mov	word [rdi + rcx + 4], 0x8e00
	shr	rax, 16
	mov	[rdi + rcx + 6], ax
	shr	rax, 16
	mov	[rdi + rcx + 8], eax
	ret

handler_db:
	inc	r12d
	mov	r13, dr6
	and	r13d, 0x400f
	iretq
handler_gp:				; RDMSR and WRMSR: two bytes
	inc	r12d
	add	qword [rsp + 8], 2
	add	rsp, 8
	iretq
handler_pf:				; on to what follows
	inc	r12d
	mov	r13, [rsp + 24]
	and	r13d, TF
	mov	[rsp + 8], r9
	add	rsp, 8
	iretq
handler_tick:
	lock inc dword [r15 + 64]
	inc	dword [rel ticked]
	mov	dword [rdi + 0xb0], 0	; EOI
	iretq
handler_ac:				; an aware guest's: executed in another way, and skipped
	inc	r14d
	inc	dword [r15]
	add	qword [rsp + 8], 4	; lock inc dword [r15]
	add	rsp, 8
	iretq

wrong:	lea	rsi, [rel bad]
	call	print
	mov	eax, ebx
	mov	ecx, 10
	xor	edx, edx
	div	ecx
	add	al, '0'
	mov	cl, dl
	mov	dx, COM1
	out	dx, al
	lea	eax, [rcx + '0']
	out	dx, al
	lea	rsi, [rel newline]
	call	print
	mov	dx, 0xf4		; where there are test devices, the VM has failed
	mov	al, 1
	out	dx, al
	jmp	poweroff

many:	db	'split-lock: the many add up', 10, 0
all_well: db	'split-lock: all is well', 10, 0
bad:	db	'split-lock: WRONG at step ', 0
newline: db	10, 0
cost:	db	'split-lock: ticks for each: ', 0
digits:	times 10 db 0
	db	10, 0
align 16
gdt_pointer:
	dw	gdt_end - gdt - 1
	dq	0
align 16
gdt:	dq	0, 0
	dq	0x00af9b000000ffff, 0x00cf93000000ffff
	dq	0x00cff3000000ffff, 0x00affb000000ffff	; 0x23, 0x2b: of user mode
gdt_tss: dq	0x0000890000000067, 0
gdt_end:
align 16
tss:	dd	0
	dq	LOAD_AT + 0x84000	; RSP0
	times 0x68 - ($ - tss) db 0
align 16
idt_pointer:
	dw	(TICK + 1) * 16 - 1
	dq	0
align 4
ticked:	dd	0
align 16
idt:	times (TICK + 1) * 16 db 0
image_end:
