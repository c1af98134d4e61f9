; SPDX-License-Identifier: MIT
; Out of long mode and back: an interpreter of steps (modes.h) in 32-bit code without paging at first, with routines
; that it calls there, in 16-bit code, in real mode and in virtual-8086 mode; and code of 64-bit mode that calls
; compatibility mode.

%include "lib/layout.inc"
extern boot_tables, gdt, idt32, tss32

%define SEL_TSS_A	0x60		; modes.h
%define SEL_TSS_B	0x68
%define MSR_EFER	0xc0000080
%define EFER_LME	0x100
%define CR0_PE		1
%define CR0_FLAT	0x33		; NE, ET, MP, PE
%define REAL_STACK	0x7000
%define SCRATCH		0x3ff		; the UART's scratch register
%define LAPIC_VERSION	0xfee00030

; CR0.CD on and off again; eax: CR0 while it was on. In code of any width.
%macro toggle_cd 0
	mov	eax, cr0
	or	eax, 1 << 30
	mov	cr0, eax
	mov	ecx, cr0
	and	eax, ~(1 << 30)
	mov	cr0, eax
	mov	eax, ecx
%endmacro

; struct step
%define STEP_OP		0
%define STEP_A		4
%define STEP_B		8
%define STEP_VALUE	12
%define STEP_FAULT	16
%define STEP_CR2	20
%define STEP_SIZE	24

; ---- 64-bit: void modes_run(struct step *) ----
section .text
bits 64
default abs
global modes_run
modes_run:
	push	rbx
	push	rbp
	push	r12
	push	r13
	push	r14
	push	r15
	sidt	[idtr64]
	mov	[rsp64], rsp
	mov	ebp, edi
	push	qword SEL_CODE32
	push	qword leave_long
	retfq
back64:
	mov	eax, SEL_DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	lldt	ax
	mov	rsp, [rsp64]
	lidt	[idtr64]
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	rbp
	pop	rbx
	ret

; u32 compat_call(u32 selector, u32 routine, u32 eax): until its far return of 32 bits each.
global compat_call
compat_call:
	push	rbx
	push	rbp
	mov	edi, edi
	mov	esi, esi
	mov	eax, edx
	sub	rsp, 8
	mov	dword [rsp], .back
	mov	dword [rsp + 4], SEL_CODE64
	push	rdi
	push	rsi
	retfq
.back:	pop	rbp
	pop	rbx
	mov	ecx, SEL_DATA
	mov	ds, ecx
	mov	es, ecx
	ret

; ---- 32-bit ----
bits 32
%macro FLAT 0
	mov	eax, SEL_DATA
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	mov	esp, stack32_end
%endmacro

leave_long:
	FLAT
	lidt	[idtr32]
	mov	eax, CR0_FLAT
	mov	cr0, eax
	mov	ecx, MSR_EFER
	rdmsr
	and	eax, ~EFER_LME
	wrmsr
	xor	eax, eax
	mov	cr4, eax
	lldt	ax
next_step:
	FLAT
	mov	[step], ebp
	mov	ecx, [ebp + STEP_OP]
	mov	eax, [ebp + STEP_A]
	mov	edx, [ebp + STEP_B]
	jmp	[ops + ecx * 4]
; The end of a step; EAX is its value.
done:
	mov	[ss:ebp + STEP_VALUE], eax
	add	ebp, STEP_SIZE
	jmp	next_step

op_end:
	mov	eax, CR0_FLAT
	mov	cr0, eax
	mov	eax, CR4_START
	mov	cr4, eax
	mov	eax, boot_tables
	mov	cr3, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_LME
	wrmsr
	mov	eax, CR0_START
	mov	cr0, eax
	jmp	SEL_CODE64:back64

op_read:
	mov	eax, [eax]
	jmp	done
op_write:
	mov	[eax], edx
	jmp	done
op_outs:
	mov	esi, eax
	mov	edx, SCRATCH
	outsb
	jmp	done
op_ins:
	mov	edi, eax
	mov	edx, SCRATCH
	insb
	jmp	done
op_set_cr0:
	mov	cr0, eax
	jmp	done
op_set_cr3:
	mov	cr3, eax
	jmp	done
op_set_cr4:
	mov	cr4, eax
	jmp	done
op_get_cr0:
	mov	eax, cr0
	jmp	done
op_get_cr3:
	mov	eax, cr3
	jmp	done
op_get_cr4:
	mov	eax, cr4
	jmp	done
op_set_efer:
	mov	ecx, MSR_EFER
	xor	edx, edx
	wrmsr
	jmp	done
op_get_efer:
	mov	ecx, MSR_EFER
	rdmsr
	jmp	done
op_invlpg:
	invlpg	[eax]
	jmp	done
op_call:
	xchg	eax, edx
	call	edx
	mov	ebp, [ss:step]
	jmp	done

; 16-bit code in protected mode, and in real mode: the routine is in the low part.
op_code16:
	xchg	eax, edx
	mov	ecx, SEL_DATA16
	mov	ds, ecx
	mov	es, ecx
	mov	ss, ecx
	mov	esp, REAL_STACK
	jmp	SEL_CODE16:code16
op_real:
	xchg	eax, edx
	mov	ecx, SEL_DATA16
	mov	ds, ecx
	mov	es, ecx
	mov	ss, ecx
	mov	esp, REAL_STACK
	lidt	[cs:ivt]
	jmp	SEL_CODE16:to_real
; The same, but DS and ES keep their limit of 4 GiB.
op_unreal:
	xchg	eax, edx
	mov	ecx, SEL_DATA16
	mov	ss, ecx
	mov	esp, REAL_STACK
	lidt	[cs:ivt]
	jmp	SEL_CODE16:to_unreal
back32:
	mov	ecx, SEL_DATA
	mov	ds, ecx
	mov	es, ecx
	mov	ss, ecx
	mov	esp, stack32_end
	lidt	[idtr32]
	mov	ebp, [step]
	jmp	done

; Virtual-8086 mode at 0:A, until a fault: UD2 is how the routines end.
op_v86:
	call	load_tr
	xor	ecx, ecx
	push	ecx			; GS, FS, DS, ES
	push	ecx
	push	ecx
	push	ecx
	push	ecx			; SS:ESP
	push	dword REAL_STACK
	push	dword 0x20002		; VM, IOPL 0
	push	ecx
	push	eax
	mov	eax, edx
	iret

; Far jump and call through a TSS, whose other side is task_b.
op_jmp_tss:
	call	load_tr
	mov	ebx, 0x11111111
	mov	esi, 0x22222222
	jmp	SEL_TSS_B:0
	jmp	came_back
op_call_tss:
	call	load_tr
	mov	ebx, 0x11111111
	mov	esi, 0x22222222
	call	SEL_TSS_B:0
came_back:
	mov	ebp, [ss:step]
	xor	eax, eax
	cmp	ebx, 0x11111111
	jne	.bad
	cmp	esi, 0x22222222
	jne	.bad
	str	ax
	jmp	done
.bad:	mov	eax, -1
	jmp	done
op_int:					; what leads through a task gate, the interrupt enable flag set
	call	load_tr
	mov	ebx, 0x11111111
	mov	esi, 0x22222222
	int	0x60
	jmp	came_back
; An interrupt, an NMI or a fault arrives while this runs: edx is written to the LAPIC's ICR at eax; 0: no write
op_icr:
	call	load_tr
	mov	ebx, 0x11111111
	mov	esi, 0x22222222
	mov	[eax], edx
	sti
	nop
	nop
	cli
	jmp	came_back
global gp_at, gp_behind
op_gp:
	call	load_tr
	mov	ebx, 0x11111111
	mov	esi, 0x22222222
	mov	ecx, 0xfff8
gp_at:	mov	fs, ecx			; #GP(0xfff8)
gp_behind:
	jmp	came_back
; TR = TSS A. Its CR3 is this CPU's.
load_tr:
	mov	ecx, SEL_TSS_A
	and	byte [gdt + SEL_TSS_A + 5], ~2	; not busy
	ltr	cx
	mov	ecx, cr3
	mov	[tss32 + 0x1c], ecx
	mov	dword [tss32 + 4], stack32_end
	ret

; The other task: counts, notes what it began with, and goes back the way that it was called.
global task_b_jmp, task_b_iret, task_b_error, task_b16, task_b16_error, task_b_user
task_b_jmp:
	call	note_b
	jmp	SEL_TSS_A:0
	jmp	task_b_jmp
task_b_iret:
	call	note_b
	iret
	jmp	task_b_iret
task_b_error:				; an error code is on the stack; the faulting task goes on behind the fault
	pop	dword [b_error]
	mov	dword [tss32 + 0x20], gp_behind
	call	note_b
	iret
	jmp	task_b_error
task_b_user:				; CPL 3: note_b would fault
	inc	dword [b_runs]
	mov	[b_eax], eax
	ud2
note_b:
	inc	dword [b_runs]
	mov	[b_eax], eax
	mov	[b_edi], edi
	pushfd
	pop	dword [b_flags]
	push	eax
	mov	eax, cr0
	mov	[b_cr0], eax
	mov	eax, cr3
	mov	[b_cr3], eax
	sldt	[b_ldt]
	mov	[b_fs], fs
	str	[b_tr]
	clts
	pop	eax
	inc	edi			; what the task has next time
	ret

; Routines of op_call, EAX in and out.
global r32_cpuid, r32_port, r32_apic, r32_string, r32_inc_cpuid, r32_toggle_cd, r32_msr
r32_inc_cpuid:				; what 64-bit code would take for a REX prefix
	inc	eax
r32_cpuid:
	cpuid
	mov	eax, ebx
	ret
r32_port:
	mov	edx, SCRATCH
	out	dx, al
	xor	eax, eax
	in	al, dx
	ret
r32_apic:
	mov	eax, [LAPIC_VERSION]
	ret
r32_string:				; 4 bytes out, and 4 in to EAX + 4: ECX of both, 0
	mov	esi, eax
	lea	edi, [eax + 4]
	mov	edx, SCRATCH
	mov	ecx, 4
	rep	outsb
	mov	ecx, 4
	rep	insb
	mov	eax, ecx
	ret
r32_toggle_cd:
	toggle_cd
	ret
r32_msr:
	mov	ecx, eax
	rdmsr
	ret

; The same by far call, for compatibility mode.
global c32_cpuid, c32_inc_cpuid, c32_apic, c32_port, c32_string, c32_cr0
c32_inc_cpuid:
	inc	eax
c32_cpuid:
	cpuid
	mov	eax, ebx
	retf
c32_apic:
	call	r32_apic
	retf
c32_port:
	call	r32_port
	retf
c32_string:
	call	r32_string
	retf
c32_cr0:
	mov	eax, cr0
	retf

; ---- Traps of 32-bit mode: all end the step ----
global trap32_stubs
trap32_stubs:				; 16 bytes each
%assign vector 0
%rep 256
	align	16
%if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
	push	dword 0
%endif
	push	dword vector
	jmp	trap32
%assign vector vector + 1
%endrep
	align	16
trap32:
	mov	[ss:trap_eax], eax
	mov	eax, SEL_DATA
	mov	ds, eax
	mov	es, eax
	mov	ebp, [step]
	pop	ecx			; vector
	pop	edx			; error code
	cmp	ecx, 32
	jae	.irq
.fault:	shl	ecx, 16
	movzx	edx, dx
	or	ecx, edx
	mov	[ebp + STEP_FAULT], ecx
	mov	ecx, cr2
	mov	[ebp + STEP_CR2], ecx
	mov	eax, [trap_eax]
	jmp	done
.irq:	xor	edx, edx
	jmp	.fault

; ---- Below 64 KiB: 16-bit code ----
section .low progbits alloc exec write
bits 16
code16:
	call	ax_routine
	jmp	dword SEL_CODE32:back32
to_real:
	mov	ebx, cr0
	and	bl, ~CR0_PE
	mov	cr0, ebx
	jmp	0:.real
.real:	xor	bx, bx
	mov	ds, bx
	mov	es, bx
	mov	ss, bx
	call	ax_routine
	jmp	from_real
to_unreal:
	mov	ebx, cr0
	and	bl, ~CR0_PE
	mov	cr0, ebx
	jmp	0:.real
.real:	xor	bx, bx
	mov	ss, bx
	call	ax_routine
from_real:
	mov	ebx, cr0
	or	bl, CR0_PE
	mov	cr0, ebx
	jmp	dword SEL_CODE32:back32
; The routine at DX, with EAX.
ax_routine:
	jmp	dx

global r16_cpuid, r16_port, r16_string, r16_apic, r16_int, r16_gp, r16_msr, r16_toggle_cd, r16_lmsw, r16_real_cs
r16_cpuid:
	cpuid
	mov	eax, ebx
	ret
r16_port:
	mov	dx, SCRATCH
	out	dx, al
	xor	eax, eax
	in	al, dx
	ret
r16_string:				; as r32_string, with 16-bit addresses; SI and DI wrap nothing
	mov	si, ax
	mov	di, ax
	add	di, 4
	mov	dx, SCRATCH
	mov	cx, 4
	rep	outsb
	mov	cx, 4
	rep	insb
	movzx	eax, cx
	ret
r16_apic:				; unreal mode; or a flat DS
	mov	eax, [dword LAPIC_VERSION]
	ret
r16_int:				; real mode: through the interrupt table, 1000 to EAX
	mov	word [0x60 * 4], .handler
	mov	word [0x60 * 4 + 2], 0
	int	0x60
	ret
.handler:
	add	eax, 1000
	iret
; A #GP that Corbel raises: there is no error code in real mode. EAX: how much was pushed.
r16_gp:
	mov	word [13 * 4], .handler
	mov	word [13 * 4 + 2], 0
	mov	bx, sp
	mov	ecx, 0x12345
	rdmsr
	ud2
.handler:
	sub	bx, sp
	movzx	eax, bx
	add	sp, bx
	ret
r16_msr:
	mov	ecx, eax
	rdmsr
	ret
r16_toggle_cd:
	toggle_cd
	ret
; LMSW turns protected mode on, in the middle of real mode; MOV to CR0 ends it.
r16_lmsw:
	mov	ax, CR0_PE | 2
	lmsw	ax
	jmp	SEL_CODE16:.protected
.protected:
	mov	ebx, cr0
	mov	eax, ebx
	and	bl, ~CR0_PE
	mov	cr0, ebx
	jmp	0:.real
.real:	ret
r16_real_cs:				; CS:IP as real mode has them
	mov	ax, cs
	movzx	eax, ax
	ret

global v86_cpuid, v86_port, v86_string, v86_read, v86_hlt, v86_msr, v86_int
v86_cpuid:
	cpuid
	mov	eax, ebx
	ud2
v86_port:
	call	r16_port
	ud2
v86_string:
	call	r16_string
	ud2
v86_read:				; of the linear address in AX
	mov	si, ax
	mov	eax, [si]
	ud2
v86_hlt:
	hlt
	ud2
v86_msr:
	mov	ecx, 0x1b
	rdmsr
	ud2
v86_int:
	int	0x60
	ud2

global c16_cpuid, c16_apic
c16_cpuid:
	cpuid
	mov	eax, ebx
	o32 retf
c16_apic:
	mov	eax, [dword LAPIC_VERSION]
	o32 retf

; A task of a 16-bit TSS: it only goes back.
task_b16:
	inc	dword [dword b_runs]
	mov	[dword b_eax], eax
	jmp	SEL_TSS_A:0
	jmp	task_b16
task_b16_error:				; as task_b_error, in 16 bits
	pop	word [dword b_error]
	inc	dword [dword b_runs]
	mov	dword [dword tss32 + 0x20], gp_behind
	iret

section .data
align 8
ops:	dd	op_end, op_read, op_write, op_outs, op_ins, op_set_cr0, op_set_cr3, op_set_cr4, op_get_cr0, op_get_cr3
	dd	op_get_cr4, op_set_efer, op_get_efer, op_invlpg, op_call, op_code16, op_real, op_unreal, op_v86
	dd	op_jmp_tss, op_call_tss, op_int, op_icr, op_gp
idtr32:	dw	256 * 8 - 1
	dd	idt32
ivt:	dw	0x3ff
	dd	0
global b_runs, b_eax, b_edi, b_flags, b_cr0, b_cr3, b_ldt, b_fs, b_tr, b_error
b_runs:	dd	0
b_eax:	dd	0
b_edi:	dd	0
b_flags:
	dd	0
b_cr0:	dd	0
b_cr3:	dd	0
b_ldt:	dd	0
b_fs:	dd	0
b_tr:	dd	0
b_error:
	dd	0
step:	dd	0
trap_eax:
	dd	0

section .bss
idtr64:	resb	16
rsp64:	resq	1
	alignb	16
	resb	4096
stack32_end:

section .note.GNU-stack noalloc noexec nowrite progbits
