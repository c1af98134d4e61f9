; SPDX-License-Identifier: MIT
; First instruction of the hypervisor proper, on the boot CPU: long mode, interrupts off, the loader's page tables,
; RDI = struct bootinfo in the direct map. The loader's stack is left behind here.

bits 64
default rel
global corbel_start
extern corbel_main, boot_stack

STACK_SIZE	equ 16384

section .text
corbel_start:
	mov	rsp, boot_stack + STACK_SIZE
	xor	ebp, ebp		; ends every backtrace
	push	rbp
	push	rbp
	call	corbel_main
	ud2				; it doesn't return
