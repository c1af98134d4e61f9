; SPDX-License-Identifier: MIT
; A flat image in 32-bit mode that asks fw_cfg what the machine is, and exits with status 3.
%define FWCFG 0x510
bits 32
org 0x300000
	mov	esp, 0x380000
	jmp	start
%include "print32.inc"

; Item EAX, ECX bytes of it, to EDI.
fetch:
	mov	dx, FWCFG
	out	dx, ax
	inc	dx
	cld
	rep	insb
	ret

%macro item 2
	mov	eax, %1
	mov	ecx, %2
	mov	edi, buffer
	call	fetch
%endmacro

start:
	say	{10, 'flat: signature '}
	item	0, 4
	mov	esi, buffer
	call	print
	item	3, 8
	say	{10, 'ram '}
	say_hex	[buffer + 4]
	say_hex	[buffer]
	item	5, 4
	say	{10, 'cpus '}
	say_hex	[buffer]
	item	0x14, 4
	say	{10, 'cmdline size '}
	say_hex	[buffer]
	mov	ebx, [buffer]
	cmp	ebx, 1000		; nobody is at the port
	ja	halt
	item	0x15, ebx
	say	{10, 'cmdline <'}
	mov	esi, buffer
	call	print
	say	{'>', 10, 'behind an item '}
	item	0, 8
	say_hex	[buffer + 4]
	item	0x19, 4
	say	{10, 'files '}
	say_hex	[buffer]
	newline
	mov	al, 3
	out	EXIT, al
halt:	hlt
	jmp	halt
align 16
buffer:
