; SPDX-License-Identifier: MIT
; Page tables where no memory is.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
	mov	eax, 0xd0000000
	mov	cr3, rax
	nop
	hlt
text:	db	'tables-nowhere: now', 10, 0
image_end:
