; SPDX-License-Identifier: MIT
; HLT with interrupts off: nothing will wake it. The machine must stay usable and the VM stoppable.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
.again:	cli
	hlt
	jmp	.again
text:	db	'idle-forever: now', 10, 0
image_end:
