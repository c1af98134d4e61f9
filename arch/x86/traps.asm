; SPDX-License-Identifier: MIT
; Interrupt and exception entries of the host.
;
; Vectors 2, 8 and 18 (#DF, NMI, #MC) are "paranoid": they can arrive anywhere, also where GS base is not the host's
; (between #VMEXIT and VMLOAD). They run on stacks of their own, at whose very top the CPU's GS base is stored, load it,
; and put back what they found. RBX carries the old value across the call.

bits 64
default rel
extern trap_handler
global trap_stubs

MSR_GS_BASE	equ 0xc0000101
IST_SIZE	equ 8192

section .text

; In the order of the pushes: struct trap_frame has them backwards.
%define REGS rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15

%macro SAVE 1-*
%rep %0
	push	%1
%rotate 1
%endrep
%endmacro

%macro RESTORE 1-*
%rep %0
%rotate -1
	pop	%1
%endrep
%endmacro

; Frame pointers chain through a trap: the handler's caller looks like a function that was called at the trapped RIP.
trap_common:
	SAVE REGS
	mov	rdi, rsp
	cld
	call	trap_handler
	RESTORE REGS
	add	rsp, 16
	iretq

trap_paranoid:
	SAVE REGS
	mov	ecx, MSR_GS_BASE
	rdmsr
	shl	rdx, 32
	or	rax, rdx
	mov	rbx, rax		; what we found
	mov	rax, rsp
	or	rax, IST_SIZE - 1
	mov	rax, [rax - 7]		; the stack's top word
	mov	rdx, rax
	shr	rdx, 32
	wrmsr
	mov	rdi, rsp
	cld
	call	trap_handler
	mov	ecx, MSR_GS_BASE
	mov	rax, rbx
	mov	rdx, rbx
	shr	rdx, 32
	wrmsr
	RESTORE REGS
	add	rsp, 16
	iretq

%assign vector 0
%rep 256
stub_ %+ vector:
%if vector = 8 || (vector >= 10 && vector <= 14) || vector = 17 || vector = 21 || vector = 29 || vector = 30
%else
	push	qword 0			; no error code from the CPU
%endif
	push	qword vector
%if vector = 2 || vector = 8 || vector = 18
	jmp	trap_paranoid
%else
	jmp	trap_common
%endif
%assign vector vector + 1
%endrep

section .rodata
align 8
trap_stubs:
%assign vector 0
%rep 256
	dq	stub_ %+ vector
%assign vector vector + 1
%endrep
