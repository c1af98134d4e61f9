; SPDX-License-Identifier: MIT
; Spins with interrupts off, after an exit: the host's interrupts must end the guest's run all the same.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
.spin:	pause
	jmp	.spin
text:	db	'spin-masked: now', 10, 0
image_end:
