; SPDX-License-Identifier: MIT
;
; A guest that measures exits. It prints "bench: NAME VALUE" on COM1 and powers off.
;
; VALUE is in TSC ticks, which are instructions where tests/bench/run starts it: from the measured instruction to the
; one behind it, the best of RUNS loops of LOOPS turns each, less an empty loop and what only sets the stage.
%include "bzimage.inc"
default rel

LOOPS	equ 100
RUNS	equ 16
ALIAS	equ 0x40000000		; the same 2 MiB once more, in 4 KiB pages
TABLES	equ 0x100000		; from LOAD_AT: behind image and stack
COM1_LSR equ COM1 + 5
COM1_SCRATCH equ COM1 + 7
LSR_EMPTY equ 0x20
XAPIC	equ 0xfee00000
XAPIC_VERSION equ 0x30
XAPIC_EOI equ 0xb0
XAPIC_SVR equ 0xf0
XAPIC_ICR equ 0x300
ICR_SELF equ 1 << 18 | 1 << 14
SVR_ON	equ 0x1ff
APIC_BASE equ 0x1b
APIC_BASE_X2 equ 1 << 10
X2APIC_VERSION equ 0x803
X2APIC_EOI equ 0x80b
X2APIC_LVT_TIMER equ 0x832
X2APIC_TMICT equ 0x838
X2APIC_SELF_IPI equ 0x83f
CR0_WP	equ 1 << 16
VECTOR_X equ 0x40		; ends by the xAPIC's EOI
VECTOR_X2 equ 0x41		; ends by the x2APIC's
VECTOR_BLK equ 0x42
IOAPIC	equ 0xfec00000
VIRTIO	equ 0xfeb00000		; the disk, behind virtio-mmio; registers as in linux/virtio_mmio.h
VIRTIO_GSI equ 16
DEVICE_ID equ 0x8
DRIVER_FEATURES equ 0x20
DRIVER_FEATURES_SEL equ 0x24
QUEUE_NUM equ 0x38
QUEUE_READY equ 0x44
QUEUE_NOTIFY equ 0x50
INTERRUPT_STATUS equ 0x60
INTERRUPT_ACK equ 0x64
STATUS	equ 0x70
QUEUE_DESC equ 0x80
QUEUE_AVAIL equ 0x90
QUEUE_USED equ 0xa0
QUEUE	equ LOAD_AT + 0x200000	; descriptors; what follows them is one page further each
AVAIL	equ QUEUE + 0x1000
USED	equ QUEUE + 0x2000
HEADER	equ QUEUE + 0x3000
DISK_DATA equ QUEUE + 0x4000
DISK_STATUS equ QUEUE + 0x5000
FRESH	equ LOAD_AT + 0x600000	; nobody touches it, up to the end of memory
FRESH_END equ 32 << 20
NEXT	equ 1			; flags of a descriptor
WRITE	equ 2

main:
	cld
	call	set_idt
	call	set_tables
	mov	r8d, XAPIC
	mov	dword [r8 + XAPIC_SVR], SVR_ON
	jmp	measure

; What is measured stands between these two. It leaves R8 and R12 to R15 alone.
%macro BEGIN 0
%push measurement
	mov	r13, -1			; the best
	mov	r14d, RUNS
	align	64			; a turn does not straddle pages
%$run:
	rdtsc
	mov	r15d, eax
	mov	r12d, LOOPS
%$turn:
%endmacro

%macro END 2				; name, instructions of a turn that set the stage
	dec	r12d
	jnz	%$turn
	rdtsc
	sub	eax, r15d
	cmp	rax, r13
	cmovb	r13, rax
	dec	r14d
	jnz	%$run
	lea	rsi, [%$name]
	mov	ebx, %2
	call	report
	jmp	%$done
%$name:	db	%1, 0
%$done:
%pop
%endmacro

measure:
	BEGIN
	END	"empty", 0		; report() keeps it

	mov	r13, -1			; memory that Corbel has cleared, but that was never mapped
	mov	edi, FRESH
.fresh:	rdtsc
	mov	r15d, eax
	mov	[rdi], al
	rdtsc
	sub	eax, r15d
	cmp	rax, r13
	cmovb	r13, rax
	add	edi, 0x200000
	cmp	edi, FRESH_END
	jb	.fresh
	lea	rsi, [text_fault]
	call	say
	lea	rax, [r13 - 2]		; without RDTSC and MOV
	call	print_number
	lea	rsi, [text_line]
	call	say

	BEGIN
	xor	eax, eax
	cpuid
	END	"cpuid", 1

	lea	rax, [.small]
	add	rax, ALIAS - LOAD_AT
	jmp	rax
.small:
	BEGIN
	xor	eax, eax
	cpuid
	END	"cpuid-4k-page", 1
	lea	rax, [.large]
	sub	rax, ALIAS - LOAD_AT
	jmp	rax
.large:

	BEGIN
	mov	eax, 1
	cpuid
	END	"cpuid-leaf1", 1

	BEGIN
	xor	eax, eax
	db	0x66			; no effect, but the instruction is longer
	cpuid
	END	"cpuid-prefixed", 1

	xor	eax, eax
	cpuid
	cmp	ebx, "Auth"
	je	.amd
	BEGIN
	xor	eax, eax
	vmcall
	END	"hypercall", 1
	jmp	.ports
.amd:
	BEGIN
	xor	eax, eax
	vmmcall
	END	"hypercall", 1

.ports:
	mov	edx, COM1_LSR
	BEGIN
	mov	edx, COM1_LSR
	in	al, dx
	END	"port-read", 1

	BEGIN
	mov	edx, COM1_SCRATCH
	out	dx, al
	END	"port-write", 1

	BEGIN
	mov	ecx, APIC_BASE
	rdmsr
	END	"msr-read", 1

	BEGIN
	mov	eax, [r8 + XAPIC_VERSION]
	END	"xapic-read", 0

	BEGIN
	mov	[r8 + XAPIC_EOI], eax
	END	"xapic-write-eoi", 0

	mov	rbx, cr0
	BEGIN
	xor	rbx, CR0_WP
	mov	cr0, rbx
	END	"cr0-wp-toggle", 1

	sti
	BEGIN
	mov	dword [r8 + XAPIC_ICR], ICR_SELF | VECTOR_X
	END	"xapic-self-ipi", 0
	cli

	BEGIN
	mov	dword [r8 + XAPIC_ICR], ICR_SELF | VECTOR_X
	sti
	hlt
	cli
	END	"xapic-self-ipi-hlt", 0

	mov	ecx, APIC_BASE
	rdmsr
	or	eax, APIC_BASE_X2
	wrmsr
	BEGIN
	mov	ecx, X2APIC_VERSION
	rdmsr
	END	"x2apic-read", 1

	BEGIN
	mov	ecx, X2APIC_EOI
	xor	eax, eax
	xor	edx, edx
	wrmsr
	END	"x2apic-write-eoi", 3

	mov	ecx, X2APIC_LVT_TIMER
	mov	eax, VECTOR_X2		; one shot, not masked
	xor	edx, edx
	wrmsr
	BEGIN
	mov	ecx, X2APIC_TMICT
	mov	eax, 0x7fffffff
	xor	edx, edx
	wrmsr
	END	"x2apic-write-tmict", 3
	mov	ecx, X2APIC_TMICT
	xor	eax, eax
	xor	edx, edx
	wrmsr

	sti
	BEGIN
	mov	ecx, X2APIC_SELF_IPI
	mov	eax, VECTOR_X2
	xor	edx, edx
	wrmsr
	END	"x2apic-self-ipi", 3
	cli

	mov	r8d, VIRTIO
	cmp	dword [r8 + DEVICE_ID], 2
	jne	.no_disk
	call	set_disk
	sti
	BEGIN				; sector 0 again and again: notify; interrupt, its status, its end
	inc	word [abs AVAIL + 2]
	mov	dword [r8 + QUEUE_NOTIFY], 0
	END	"virtio-blk-read-4k", 0
	cli
	mov	ax, [abs AVAIL + 2]
	cmp	ax, [abs USED + 2]
	jne	.no_disk
	cmp	byte [abs DISK_STATUS], 0
	jne	.no_disk

	lea	rsi, [text_done]
	call	say
.no_disk:
	jmp	poweroff

	align	16
irq_x:
	mov	dword [r8 + XAPIC_EOI], 0
	iretq

	align	16
irq_x2:
	mov	ecx, X2APIC_EOI
	xor	eax, eax
	xor	edx, edx
	wrmsr
	iretq

	align	16
irq_blk:
	mov	eax, [r8 + INTERRUPT_STATUS]
	mov	[r8 + INTERRUPT_ACK], eax
	mov	ecx, X2APIC_EOI
	xor	eax, eax
	xor	edx, edx
	wrmsr
	iretq

; One queue of 8, whose descriptor 0 begins a read of 4 KiB, and an edge interrupt. r8: the device.
set_disk:
	mov	dword [r8 + STATUS], 0
	mov	dword [r8 + STATUS], 3	; acknowledge, driver
	mov	dword [r8 + DRIVER_FEATURES_SEL], 1
	mov	dword [r8 + DRIVER_FEATURES], 1	; VERSION_1
	mov	dword [r8 + STATUS], 11	; features ok
	mov	dword [r8 + QUEUE_NUM], 8
	mov	dword [r8 + QUEUE_DESC], QUEUE
	mov	dword [r8 + QUEUE_AVAIL], AVAIL
	mov	dword [r8 + QUEUE_USED], USED
	mov	dword [r8 + QUEUE_READY], 1
	mov	dword [r8 + STATUS], 15	; driver ok
	mov	edi, QUEUE
	mov	dword [rdi], HEADER	; all zero: read, sector 0
	mov	dword [rdi + 8], 16
	mov	dword [rdi + 12], 1 << 16 | NEXT
	mov	dword [rdi + 16], DISK_DATA
	mov	dword [rdi + 24], 4096
	mov	dword [rdi + 28], 2 << 16 | NEXT | WRITE
	mov	dword [rdi + 32], DISK_STATUS
	mov	dword [rdi + 40], 1
	mov	dword [rdi + 44], WRITE
	mov	byte [abs DISK_STATUS], 0xff
	mov	edi, IOAPIC
	mov	dword [rdi], 0x11 + 2 * VIRTIO_GSI
	mov	dword [rdi + 0x10], 0
	mov	dword [rdi], 0x10 + 2 * VIRTIO_GSI
	mov	dword [rdi + 0x10], VECTOR_BLK
	ret

; Gates of rdi: vector, rax: handler.
set_gate:
	shl	edi, 4
	lea	rdx, [idt]
	add	rdi, rdx
	mov	[rdi], ax
	mov	word [rdi + 2], 0x10	; the loader's code segment
	mov	word [rdi + 4], 0x8e00
	shr	rax, 16
	mov	[rdi + 6], rax
	ret

set_idt:
	lea	rax, [irq_x]
	mov	edi, VECTOR_X
	call	set_gate
	lea	rax, [irq_x2]
	mov	edi, VECTOR_X2
	call	set_gate
	lea	rax, [irq_blk]
	mov	edi, VECTOR_BLK
	call	set_gate
	lea	rax, [idt]
	mov	[idtr + 2], rax
	lidt	[idtr]
	ret

; Page tables in the guest's own memory, as a kernel has them: the first 4 GiB in 2 MiB pages, and the guest's 2 MiB
; at ALIAS in 4 KiB pages.
set_tables:
	lea	rdi, [protected + TABLES]	; PML4, PDPT, 4 directories, page table
	lea	rdx, [rdi + 0x1003]
	mov	[rdi], rdx
	add	rdi, 0x1000
	mov	ecx, 4
.directory:
	add	rdx, 0x1000
	mov	[rdi], rdx
	add	rdi, 8
	dec	ecx
	jnz	.directory
	lea	rdi, [protected + TABLES + 0x2000]
	mov	eax, 0x83		; present, writable, large
	mov	ecx, 4 * 512
.large:
	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x200000
	dec	ecx
	jnz	.large
	lea	rdx, [rdi + 3]
	mov	[protected + TABLES + 0x2000 + (ALIAS >> 21) * 8], rdx
	mov	eax, LOAD_AT + 3
	mov	ecx, 512
.small:
	mov	[rdi], rax
	add	rdi, 8
	add	rax, 0x1000
	dec	ecx
	jnz	.small
	lea	rax, [protected + TABLES]
	mov	cr3, rax
	ret

; r13: ticks of LOOPS turns; ebx: of each, ticks that don't count; rsi: name. "empty" comes first and is subtracted
; from the rest.
report:
	mov	rax, r13
	cmp	qword [empty], 0
	jne	.known
	mov	[empty], rax
	ret
.known:
	sub	rax, [empty]
	imul	ebx, LOOPS
	sub	rax, rbx
	add	rax, LOOPS - 1		; round up
	xor	edx, edx
	mov	ecx, LOOPS
	div	rcx
	push	rax
	push	rsi
	lea	rsi, [text_bench]
	call	say
	pop	rsi
	call	say
	mov	al, " "
	call	put
	pop	rax
	call	print_number
	mov	al, 13
	call	put
	mov	al, 10
	jmp	put

; rax, decimal.
print_number:
	xor	edx, edx
	mov	ecx, 10
	div	rcx
	push	rdx
	test	rax, rax
	jz	.digit
	call	print_number
.digit:
	pop	rax
	add	al, "0"
	jmp	put

; The text at rsi.
say:
	lodsb
	test	al, al
	jz	.end
	call	put
	jmp	say
.end:
	ret

; al.
put:
	mov	ah, al
	mov	edx, COM1_LSR
.wait:
	in	al, dx
	test	al, LSR_EMPTY
	jz	.wait
	mov	al, ah
	mov	edx, COM1
	out	dx, al
	ret

text_bench: db	"bench: ", 0
text_fault: db	"bench: stage2-fault ", 0
text_line: db	13, 10, 0
text_done: db	"bench-guest: done", 13, 10, 0
	align	8
empty:	dq	0
idtr:	dw	idt_end - idt - 1
	dq	0
	align	16
idt:	times (VECTOR_BLK + 1) * 16 db 0
idt_end:
image_end:
