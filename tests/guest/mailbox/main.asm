; SPDX-License-Identifier: MIT
; Memory that VMs share: the first that comes waits, and writes to its own memory meanwhile, until the second has been.
%include "bzimage.inc"
%define MAILBOX	0x80000000
main:
	lea	rsi, [rel now]
	call	print
	mov	edi, MAILBOX
	mov	eax, 1
	lock xadd [rdi], eax
	test	eax, eax
	jz	.wait
	mov	dword [rdi + 8], 1
	lea	rsi, [rel told]
	call	print
	jmp	poweroff
.wait:	inc	dword [rel counter]
	cmp	dword [rdi + 8], 1
	jne	.wait
	lea	rsi, [rel heard]
	call	print
	jmp	poweroff
now:	db	'mailbox: now', 10, 0
told:	db	'mailbox: told', 10, 0
heard:	db	'mailbox: heard', 10, 0
align 4096
counter: dd	0
image_end:
