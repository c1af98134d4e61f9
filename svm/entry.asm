; SPDX-License-Identifier: MIT
; World switch (APM vol. 2 "VMRUN Instruction", "VMSAVE and VMLOAD Instructions").
;
; struct vcpu *svm_enter(struct vcpu * /* rdi */, hpa_t vmcb /* rsi */, hpa_t host_vmcb /* rdx */)
;
; Returns the vCPU, which begins with its registers: the caller need not keep it in a register that would have to be
; saved.
;
; GIF is off from CLGI to STGI: neither NMI nor interrupt arrives while GS, TR and the system-call MSRs are the guest's.
; IF is on during VMRUN: with V_INTR_MASKING the host's IF decides whether a physical interrupt ends the guest's run.

bits 64
global svm_enter

%define GPR(n) rdi + 8 * n
RAX_ equ 0
RCX_ equ 1
RDX_ equ 2
RBX_ equ 3
RBP_ equ 5
RSI_ equ 6
RDI_ equ 7

section .text
svm_enter:
	push	rbp
	push	rbx
	push	r12
	push	r13
	push	r14
	push	r15
	push	rdi
	push	rdx
	mov	rax, rsi
	mov	rcx, [GPR(RCX_)]
	mov	rdx, [GPR(RDX_)]
	mov	rbx, [GPR(RBX_)]
	mov	rbp, [GPR(RBP_)]
	mov	rsi, [GPR(RSI_)]
	mov	r8, [GPR(8)]
	mov	r9, [GPR(9)]
	mov	r10, [GPR(10)]
	mov	r11, [GPR(11)]
	mov	r12, [GPR(12)]
	mov	r13, [GPR(13)]
	mov	r14, [GPR(14)]
	mov	r15, [GPR(15)]
	mov	rdi, [GPR(RDI_)]
	clgi
	sti
	vmload
	vmrun			; RAX and RSP come back as they were
	cli
	vmsave
	pop	rax
	vmload			; GS base, TR: the host's again
	pop	rax			; the vCPU: the result
	mov	[rax + 8 * RSI_], rsi
	mov	[rax + 8 * RCX_], rcx
	mov	[rax + 8 * RDX_], rdx
	mov	[rax + 8 * RBX_], rbx
	mov	[rax + 8 * RBP_], rbp
	mov	[rax + 8 * RDI_], rdi
	mov	[rax + 8 * 8], r8
	mov	[rax + 8 * 9], r9
	mov	[rax + 8 * 10], r10
	mov	[rax + 8 * 11], r11
	mov	[rax + 8 * 12], r12
	mov	[rax + 8 * 13], r13
	mov	[rax + 8 * 14], r14
	mov	[rax + 8 * 15], r15
	stgi				; an NMI that waited comes here
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	rbx
	pop	rbp
	ret
