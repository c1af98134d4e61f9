; SPDX-License-Identifier: MIT
; A program to debug, an ELF file with symbols (the Makefile links it): 64-bit code with paging, interrupts, a user
; mode, and breakpoints of its own. It goes round until a debugger sets `finish`. In each round are the instructions
; that show whoever steps over them with TF; what the program sees of that, or misses of its own breakpoints, is
; counted in `errors`.
section .note.Xen note alloc noexec nowrite align=4
	dd	4, 4, 18
	db	'Xen', 0
	dd	start

%define COM1 0x3f8
%define EXIT 0xf4
%define KERNEL_CODE 0x08
%define KERNEL_DATA 0x10
%define USER_DATA 0x1b
%define USER_CODE 0x23
%define TSS 0x28
TF_BIT equ 1			; of the second byte of the flags
WINDOW equ 0x8000005000			; where `secret` is mapped

section .text
bits 32
%macro entry 3				; table, index, value
	mov	dword [%1 + 8 * (%2)], %3
%endmacro
global start
start:	mov	esp, stack_top
	entry	pml4, 0, pdpt + 7
	entry	pml4, 1, window_pdpt + 7
	entry	pdpt, 0, pd + 7
	entry	pdpt, 3, apic_pd + 7
	entry	apic_pd, 0x1f7, 0xfee00083
	entry	window_pdpt, 0, window_pd + 7
	entry	window_pd, 0, window_pt + 7
	entry	window_pt, 5, secret + 7
	mov	eax, 0x87
	mov	edi, pd
.map:	mov	[edi], eax
	add	eax, 0x200000
	add	edi, 8
	cmp	edi, pd + 4096
	jne	.map
	mov	eax, pml4
	mov	cr3, eax
	mov	eax, 0x20
	mov	cr4, eax
	mov	ecx, 0xc0000080
	mov	eax, 0x101		; LME, SCE
	xor	edx, edx
	wrmsr
	mov	eax, cr0
	or	eax, 0x80000000
	mov	cr0, eax
	lgdt	[gdt_pointer]
	jmp	KERNEL_CODE:long_mode

bits 64
%macro gate 3				; vector, handler, attributes
	mov	edi, idt + 16 * (%1)
	mov	eax, %2
	mov	edx, %3
	call	set_gate
%endmacro
set_gate:
	mov	[rdi], ax
	mov	word [rdi + 2], KERNEL_CODE
	mov	[rdi + 4], dx
	shr	eax, 16
	mov	[rdi + 6], ax
	ret

long_mode:
	mov	eax, KERNEL_DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	mov	eax, tss		; its base
	mov	[gdt + TSS + 2], ax
	shr	eax, 16
	mov	[gdt + TSS + 4], al
	mov	[gdt + TSS + 7], ah
	mov	eax, TSS
	ltr	ax
	gate	1, on_db, 0x8e00
	gate	3, on_bp, 0xee00
	gate	6, on_ud, 0x8e00
	gate	0x40, on_timer, 0x8e00
	gate	0x80, on_int, 0xee00
	lidt	[idt_pointer]
	mov	ecx, 0xc0000081		; STAR, LSTAR, FMASK: TF and IF go
	xor	eax, eax
	mov	edx, 0x130008
	wrmsr
	inc	ecx
	mov	eax, on_syscall
	xor	edx, edx
	wrmsr
	mov	ecx, 0xc0000084
	mov	eax, 0x300
	wrmsr
	mov	eax, own_target		; a breakpoint of the program's own
	mov	dr3, rax
	mov	eax, 0x480		; global, execution
	mov	dr7, rax
	mov	ebx, 0xfee00000		; the timer: periodic
	mov	dword [rbx + 0xf0], 0x1ff
	mov	dword [rbx + 0x3e0], 3
	mov	dword [rbx + 0x320], 0x20040
	mov	dword [rbx + 0x380], 0x100000
	mov	esi, ready
	call	print
	sti

global round
round:	call	tick
	mov	rbp, [counter]
	pushfq				; is TF to be seen?
	pop	rax
	call	check_flags
	pushfq
	popfq
	pushf
	popf
	xor	eax, eax
	cpuid
	mov	edx, COM1 + 5
	in	al, dx
	int	0x80
	int3
	ud2
	call	own_target
	mov	[watched], rbp
	mov	rax, dr3
	cmp	rax, own_target
	jne	wrong
	mov	ecx, 0x10
	mov	edi, scratch
	mov	eax, ecx
	rep	stosb
	mov	ecx, user
	mov	r11d, 0x202
	o64	sysret

user:	inc	qword [users]
	pushfq
	pop	rax
	test	ah, TF_BIT
	jnz	.bad
	syscall
.bad:	inc	qword [errors]
	syscall

on_syscall:
	mov	rax, r11
	call	check_flags
	mov	rax, rsp
	push	KERNEL_DATA
	push	rax
	push	0x202
	push	KERNEL_CODE
	push	after
	iretq
after:	cmp	[bps], rbp		; each of its own once in each round
	jne	wrong
	cmp	[dbs], rbp
	jne	wrong
	cmp	[ints], rbp
	jne	wrong
again:	cmp	qword [finish], 0
	je	round
	mov	esi, well
	cmp	qword [errors], 0
	je	.say
	mov	esi, seen
.say:	cli
	call	print
	mov	eax, [errors]
	mov	edx, EXIT
	out	dx, eax
	hlt
wrong:	inc	qword [errors]
	jmp	again

global tick
tick:	inc	qword [counter]
	ret

own_target:
	ret

check_flags:				; rax
	test	ah, TF_BIT
	jz	.well
	inc	qword [errors]
.well:	ret

%macro handler 2			; name, counter; the frame is checked for TF
%1:	inc	qword [%2]
	push	rax
	mov	rax, [rsp + 24]
	call	check_flags
	pop	rax
%endmacro
	handler on_bp, bps
	iretq
	handler on_int, ints
	iretq
	handler on_ud, uds
	add	qword [rsp], 2
	iretq
	handler on_db, dbs
	push	rax
	mov	rax, dr6
	and	eax, 0x400f		; B3 and nothing else
	cmp	eax, 8
	je	.well
	inc	qword [errors]
.well:	xor	eax, eax
	mov	dr6, rax
	pop	rax
	or	dword [rsp + 16], 0x10000	; RF
	iretq
	handler on_timer, ticks
	push	rax
	mov	eax, 0xfee000b0		; EOI
	mov	dword [rax], 0
	pop	rax
	iretq

print:	lodsb				; the string at RSI
	test	al, al
	jz	.done
	mov	edx, COM1
	out	dx, al
	jmp	print
.done:	ret

section .data align=16
gdt:	dq	0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
	dq	0x0000890000000067, 0	; the TSS
gdt_pointer:
	dw	$ - gdt - 1
	dd	gdt, 0
idt_pointer:
	dw	0x81 * 16 - 1
	dq	idt
tss:	dd	0
	dq	stack_top
	times 104 - ($ - tss) db 0
ready:	db	'gdb: ready', 10, 0
well:	db	'gdb: well', 10, 0
seen:	db	'gdb: it was seen', 10, 0
global counter, watched, finish, errors, ticks, bps, dbs, ints, uds, users, secret
align 8
counter: dq	0
watched: dq	0
finish:	dq	0
errors:	dq	0
ticks:	dq	0
bps:	dq	0
dbs:	dq	0
ints:	dq	0
uds:	dq	0
users:	dq	0
align 4096
secret:	db	'through the window', 0

section .bss align=4096
pml4:	resb	4096
pdpt:	resb	4096
pd:	resb	4096
apic_pd: resb	4096
window_pdpt: resb 4096
window_pd: resb	4096
window_pt: resb	4096
idt:	resb	0x81 * 16
scratch: resb	64
	resb	8192
stack_top:
