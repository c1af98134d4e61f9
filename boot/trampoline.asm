; SPDX-License-Identifier: MIT
; Where the other CPUs start: copied to a page below 640 KiB, entered in real mode at CS:0 = that page. Real mode -> 32
; bit -> long mode; then each CPU looks for its own APIC id in cpus[] and takes its stack. All CPUs run this at once and
; write no memory but their stacks: the page is mapped read-only. arch/x86/smp.c adds the page's address to the three
; trampoline_fix words. Layout of struct cpu: asserted in arch/x86/cpu.h.

global trampoline_start, trampoline_end, trampoline_data
global trampoline_fix_gdt, trampoline_fix_32, trampoline_fix_64
extern cpus, nr_cpus

CPU_SIZE	equ 40
CPU_APIC_ID	equ 4
CPU_STACK	equ 32

section .rodata
align 16
bits 16
trampoline_start:
	cli
	cld
	mov	ax, cs
	mov	ds, ax
	movzx	ebx, ax
	shl	ebx, 4			; our linear address
	o32 lgdt [gdtr - trampoline_start]
	mov	eax, cr0
	and	eax, 0x9fffffff		; caches on
	or	al, 1
	mov	cr0, eax
	jmp	far dword [far32 - trampoline_start]

bits 32
mode32:
	mov	ax, 0x10
	mov	ds, ax
	mov	ss, ax
	mov	eax, [ebx + trampoline_data - trampoline_start + 4]
	mov	cr4, eax
	mov	eax, [ebx + trampoline_data - trampoline_start]
	mov	cr3, eax
	mov	ecx, 0xc0000080
	mov	eax, [ebx + trampoline_data - trampoline_start + 8]
	mov	edx, [ebx + trampoline_data - trampoline_start + 12]
	wrmsr
	mov	eax, cr0
	or	eax, 0x80000000
	mov	cr0, eax
	jmp	far dword [ebx + far64 - trampoline_start]

bits 64
mode64:
	mov	ebp, ebx
	xor	eax, eax
	cpuid
	cmp	eax, 0xb
	jb	.xapic
	mov	eax, 0xb
	xor	ecx, ecx
	cpuid
	test	ebx, ebx		; 0: the leaf is not there
	jz	.xapic
	mov	eax, edx
	jmp	.find
.xapic:
	mov	eax, 1
	cpuid
	mov	eax, ebx
	shr	eax, 24
.find:
	mov	rcx, nr_cpus		; absolute: this code does not run where it was linked
	mov	ecx, [rcx]
	mov	rdx, cpus
	xor	edi, edi
.next:
	cmp	edi, ecx
	je	.unknown
	cmp	[rdx + CPU_APIC_ID], eax
	je	.found
	add	rdx, CPU_SIZE
	inc	edi
	jmp	.next
.found:
	mov	rsp, [rdx + CPU_STACK]
	test	rsp, rsp
	jz	.unknown
	mov	rax, [rbp + trampoline_data - trampoline_start + 16]
	xor	ebp, ebp
	push	rbp			; ends every backtrace; aligned as after a call
	jmp	rax
.unknown:
	cli
	hlt
	jmp	.unknown

align 16
gdt:	dq	0
	dq	0x00cf9b000000ffff	; 0x08: 32-bit code
	dq	0x00cf93000000ffff	; 0x10: data
	dq	0x00af9b000000ffff	; 0x18: 64-bit code
	dw	0
gdtr:	dw	4 * 8 - 1
trampoline_fix_gdt:
	dd	gdt - trampoline_start
far32:
trampoline_fix_32:
	dd	mode32 - trampoline_start
	dw	0x08
align 4
far64:
trampoline_fix_64:
	dd	mode64 - trampoline_start
	dw	0x18
align 8
trampoline_data:
	dd	0, 0			; cr3, cr4
	dq	0			; efer
	dq	0			; entry
trampoline_end:
