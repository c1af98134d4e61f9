; SPDX-License-Identifier: MIT
; Jump to an address that is mapped in the guest's tables but has no memory behind it.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
	mov	eax, 0xd0000000
	jmp	rax
text:	db	'jump-nowhere: now', 10, 0
image_end:
