; SPDX-License-Identifier: MIT
; An exception with no IDT behind it: #UD, #GP, #DF, triple fault. The IDT limit is not 0, so it is no request to
; restart.
%include "bzimage.inc"
main:
	lea	rsi, [rel text]
	call	print
	ud2
text:	db	'triple-fault: now', 10, 0
image_end:
