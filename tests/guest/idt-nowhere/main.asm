; SPDX-License-Identifier: MIT
; An interrupt whose delivery faults for ever: the IDT lies where no memory is, and RIP is at a string instruction that
; has nothing to do with it. The guest never reaches an instruction boundary; the machine must stay usable and name the
; reason.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
	mov	eax, 0xfee00000
	mov	dword [rax + 0xf0], 0x1ff	; LAPIC on
	lidt	[rel idtr]
	mov	esi, LOAD_AT
	mov	rcx, -1
	mov	dword [rax + 0x300], 0x44040	; self-IPI, vector 64
	sti
	rep lodsb
	ud2
idtr:	dw	0xfff
	dq	0xd0000000
text:	db	'idt-nowhere: now', 10, 0
image_end:
