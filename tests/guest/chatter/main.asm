; SPDX-License-Identifier: MIT
; Talks without end: somebody else's being stopped is no reason to stop.
%include "bzimage.inc"
main:
.again:	lea	rsi, [rel text]
	call	print
	mov	ecx, 2000
.wait:	pause
	loop	.wait
	jmp	.again
text:	db	'chatter', 10, 0
image_end:
