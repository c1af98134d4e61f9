; SPDX-License-Identifier: MIT
; Computes for ever, with interrupts off and without a PAUSE: it takes all of the CPU that it is given.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
.spin:	inc	rax
	jmp	.spin
text:	db	'busy: now', 10, 0
image_end:
