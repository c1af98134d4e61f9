; SPDX-License-Identifier: MIT
; From the loader, or from a start-up IPI, to C in 64-bit mode: guest_main(index of the vCPU, Multiboot information).
; Then the ways in and out of C: traps, user mode, contexts.

%include "lib/layout.inc"
extern guest_main, trap, cpu_areas, boot_tables, gdt

; ---- Below 1 MiB: where a start-up IPI with vector 8 begins ----
section .low progbits alloc exec write
bits 16
ap_start:
	cli
	o32 lgdt [cs:gdt_pointer - ap_start]
	mov	eax, cr0
	or	al, 1
	mov	cr0, eax
	jmp	dword SEL_CODE32:ap_start32

	align	4
	dd	0x1badb002, 2, -(0x1badb002 + 2)	; Multiboot: memory information wanted
	align	8
gdt_pointer:
	dw	GDT_BYTES - 1
	dq	gdt

section .text
bits 32
ap_start32:
	mov	eax, 1
	cpuid
	shr	ebx, 24
	mov	esi, ebx		; APIC id: the vCPU's index
	xor	edi, edi
	jmp	to_long
global start32
start32:
	cld
	cli
	xor	esi, esi
	mov	edi, ebx		; Multiboot information
	lgdt	[gdt_pointer]
to_long:
	mov	eax, CR4_START
	mov	cr4, eax
	mov	eax, boot_tables
	mov	cr3, eax
	mov	ecx, 0xc0000080
	rdmsr
	or	eax, 1 << 8
	wrmsr
	mov	eax, CR0_START
	mov	cr0, eax
	jmp	SEL_CODE64:start64
bits 64
default rel
start64:
	mov	eax, SEL_DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	lldt	ax
	lea	eax, [esi + 1]
	shl	rax, CPU_SHIFT
	lea	rsp, [cpu_areas]
	add	rsp, rax
	xor	ebp, ebp
	xchg	rdi, rsi
	call	guest_main
	ud2

; ---- Traps: all 256 vectors, to trap(struct frame *) ----
%macro PUSH_ALL 0
	push	rax
	push	rcx
	push	rdx
	push	rbx
	push	rbp
	push	rsi
	push	rdi
	push	r8
	push	r9
	push	r10
	push	r11
	push	r12
	push	r13
	push	r14
	push	r15
%endmacro
%macro POP_ALL 0
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	r11
	pop	r10
	pop	r9
	pop	r8
	pop	rdi
	pop	rsi
	pop	rbp
	pop	rbx
	pop	rdx
	pop	rcx
	pop	rax
%endmacro
global trap_stubs, trap_return
trap_stubs:				; 16 bytes each
%assign vector 0
%rep 256
	align	16
%if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
	push	qword 0
%endif
	push	qword vector
	jmp	trap_common
%assign vector vector + 1
%endrep
	align	16
trap_common:
	PUSH_ALL
	cld
	mov	rdi, rsp
	call	trap
trap_return:
	POP_ALL
	add	rsp, 16
	iretq

; ---- Contexts: bool context_save(struct context *), void context_go(struct context *) ----
global context_save, context_go
context_save:
	mov	[rdi], rbx
	mov	[rdi + 8], rbp
	mov	[rdi + 16], r12
	mov	[rdi + 24], r13
	mov	[rdi + 32], r14
	mov	[rdi + 40], r15
	lea	rax, [rsp + 8]
	mov	[rdi + 48], rax
	mov	rax, [rsp]
	mov	[rdi + 56], rax
	xor	eax, eax
	ret
context_go:
	mov	rbx, [rdi]
	mov	rbp, [rdi + 8]
	mov	r12, [rdi + 16]
	mov	r13, [rdi + 24]
	mov	r14, [rdi + 32]
	mov	r15, [rdi + 40]
	mov	rsp, [rdi + 48]
	mov	eax, 1
	jmp	[rdi + 56]

; void user_enter(u64 rip, const struct user_regs *regs, u64 rflags): ring 3, up to a trap.
global user_enter
user_enter:
	push	qword SEL_UDATA | 3
	mov	rax, USER_STACK
	push	rax
	push	rdx
	push	qword SEL_UCODE64 | 3
	push	rdi
	mov	rax, [rsi]
	mov	rcx, [rsi + 8]
	mov	rdx, [rsi + 16]
	mov	rdi, [rsi + 24]
	iretq

section .note.GNU-stack noalloc noexec nowrite progbits
