; SPDX-License-Identifier: MIT
; void long_idiv(Bit128s *quotient, Bit64s *remainder, const Bit128s *dividend, Bit64s divisor)
;
; Stands in for the function of that name in Debian's build of Bochs 3.1, which loses the low half of the dividend.
; System V calling convention, position independent, a leaf. The caller has excluded a divisor of 0 and looks itself
; whether the quotient fits in 64 bits. Negating is (x ^ -1) - -1, with the sign spread over a register as the mask.
	bits 64

	endbr64
	mov	r8, [rdx]		; dividend, low
	mov	r9, [rdx + 8]		; dividend, high
	mov	r10, r9
	sar	r10, 63			; r10: sign of the dividend, which is also the remainder's
	mov	r11, rcx
	sar	r11, 63			; r11: sign of the divisor

	xor	r8, r10			; magnitudes
	xor	r9, r10
	sub	r8, r10
	sbb	r9, r10
	xor	rcx, r11
	sub	rcx, r11
	xor	r11, r10		; r11: sign of the quotient

	mov	rax, r9			; two steps of long division, base 2^64
	xor	edx, edx
	div	rcx
	mov	r9, rax
	mov	rax, r8
	div	rcx

	xor	rax, r11
	xor	r9, r11
	sub	rax, r11
	sbb	r9, r11
	xor	rdx, r10
	sub	rdx, r10
	mov	[rdi], rax
	mov	[rdi + 8], r9
	mov	[rsi], rdx
	ret
