; SPDX-License-Identifier: MIT
;
; Into the guest and out of it.
;
; Only the general registers are switched here; RIP, RSP, RFLAGS, segments, CR0/3/4, DR7, EFER and PAT are the VMCS's
; (SDM "VM Entries", "Loading Host State"), the rest is switched when a vCPU is loaded or put (vcpu.c).

bits 64
default rel

%define VMCS_HOST_RSP 0x6c14

; struct vcpu begins with the registers in encoding order; the slot of RSP is not used
%define GPR(n) n * 8
%define RAX_ GPR(0)
%define RCX_ GPR(1)
%define RDX_ GPR(2)
%define RBX_ GPR(3)
%define RBP_ GPR(5)
%define RSI_ GPR(6)
%define RDI_ GPR(7)

section .text

; u64 vmx_enter(u64 gpr[16], u64 *host_rsp, bool resume)
;
; Returns 0 after a VM exit; else the flags of a failed VMLAUNCH or VMRESUME: bit 0 CF, bit 1 ZF. The guest did not run
; then, and gpr[] is as it was. *host_rsp is what the VMCS holds for RSP. Interrupts off.
global vmx_enter
vmx_enter:
	push	rbp
	push	rbx
	push	r12
	push	r13
	push	r14
	push	r15
	push	rdi
	cmp	rsp, [rsi]
	jne	vmx_set_host_rsp
.enter:
	test	dl, dl			; the loads below leave the flags alone
	mov	rax, [rdi + RAX_]
	mov	rcx, [rdi + RCX_]
	mov	rdx, [rdi + RDX_]
	mov	rbx, [rdi + RBX_]
	mov	rbp, [rdi + RBP_]
	mov	rsi, [rdi + RSI_]
	mov	r8,  [rdi + GPR(8)]
	mov	r9,  [rdi + GPR(9)]
	mov	r10, [rdi + GPR(10)]
	mov	r11, [rdi + GPR(11)]
	mov	r12, [rdi + GPR(12)]
	mov	r13, [rdi + GPR(13)]
	mov	r14, [rdi + GPR(14)]
	mov	r15, [rdi + GPR(15)]
	mov	rdi, [rdi + RDI_]
	jz	.launch
	vmresume
	jmp	.failed
.launch:
	vmlaunch
.failed:
	setc	al
	setz	cl
	movzx	eax, al
	movzx	ecx, cl
	lea	eax, [rax + rcx * 2]
	pop	rdi
	jmp	vmx_restore

; The VM exit arrives here, with RSP as it was at .enter.
global vmx_exit
vmx_exit:
	push	rdi
	mov	rdi, [rsp + 8]
	mov	[rdi + RAX_], rax
	mov	[rdi + RCX_], rcx
	mov	[rdi + RDX_], rdx
	mov	[rdi + RBX_], rbx
	mov	[rdi + RBP_], rbp
	mov	[rdi + RSI_], rsi
	mov	[rdi + GPR(8)], r8
	mov	[rdi + GPR(9)], r9
	mov	[rdi + GPR(10)], r10
	mov	[rdi + GPR(11)], r11
	mov	[rdi + GPR(12)], r12
	mov	[rdi + GPR(13)], r13
	mov	[rdi + GPR(14)], r14
	mov	[rdi + GPR(15)], r15
	pop	qword [rdi + RDI_]
	pop	rdi
	xor	eax, eax
vmx_restore:
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	rbx
	pop	rbp
	ret

; The depth of the stack changed since the last entry. A failed VMWRITE must not be entered with: it is a failed entry.
vmx_set_host_rsp:
	mov	eax, VMCS_HOST_RSP
	vmwrite	rax, rsp
	jbe	.failed
	mov	[rsi], rsp
	jmp	vmx_enter.enter
.failed:
	jmp	vmx_enter.failed

; The out-of-line end of vmcs_read() and vmcs_write(): report, with every register kept. The field number is on the
; stack.
extern vmx_access_failed

%macro REPORT 2
global %1
%1:
	push	rbp
	mov	rbp, rsp
	push	rax
	push	rcx
	push	rdx
	push	rsi
	push	rdi
	push	r8
	push	r9
	push	r10
	push	r11
	mov	rdi, [rbp + 16]
	mov	esi, %2
	and	rsp, -16
	call	vmx_access_failed
	lea	rsp, [rbp - 9 * 8]
	pop	r11
	pop	r10
	pop	r9
	pop	r8
	pop	rdi
	pop	rsi
	pop	rdx
	pop	rcx
	pop	rax
	pop	rbp
	ret	8
%endmacro

	REPORT	vmread_failed, 0
	REPORT	vmwrite_failed, 1

section .note.GNU-stack noalloc noexec nowrite progbits
