/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "arch/x86/trap.h"
#include "lib/error.h"

struct extable_entry {
	u64 insn, fixup;
};
extern const struct extable_entry extable_start[], extable_end[];

bool (*trap_ac_hook)(struct trap_frame *f);
void (*trap_nmi_hook)(struct trap_frame *f);
void (*trap_crash_hook)(struct trap_frame *f);
static void (*irq_handlers[256])(void);

void trap_set_irq(u8 vector, void (*handler)(void))
{
	irq_handlers[vector] = handler;
}

static bool fix_up(struct trap_frame *f)
{
	for (const struct extable_entry *e = extable_start; e < extable_end; e++) {
		if (e->insn == f->rip) {
			f->rip = e->fixup;
			return true;
		}
	}
	return false;
}

static void exception(struct trap_frame *f)
{
	if (fix_up(f))
		return;
	if (f->vector == 17 && trap_ac_hook && trap_ac_hook(f))
		return;
	if (f->vector == 1 && read_dr7() & DR7_ENABLED) {
		/* A guest's breakpoint at an address of ours, on QEMU only: svm/step.c */
		write_dr7(DR7_RESET);
		return;
	}
	trap_crash_hook(f);
}

void irq_taken(u8 vector)
{
	if (vector != VECTOR_SPURIOUS)
		apic_eoi();
	this_cpu(irq_depth)++;
	if (irq_handlers[vector])
		irq_handlers[vector]();
	this_cpu(irq_depth)--;
}

void trap_handler(struct trap_frame *f)
{
	if (f->vector >= 32) {
		irq_taken((u8)f->vector);
		return;
	}
	if (f->vector == 2) {
		trap_nmi_hook(f);
		return;
	}
	exception(f);
}

void nmi_from_exit(void)
{
	/* by its IST gate; NMIs are blocked until its IRET, as after a real one */
	asm volatile("int $2");
}

void machine_check_from_exit(void)
{
	asm volatile("int $18");
}

size_t peek(void *dst, u64 address, size_t n)
{
	asm volatile("1: rep movsb\n"
		     "2:\n\t"
		     ".pushsection .extable,\"a\"; .balign 8; .quad 1b, 2b; .popsection"
		     : "+c"(n), "+D"(dst), "+S"(address)
		     :
		     : "memory");
	return n;
}

int rdmsr_safe(u32 msr, u64 *value)
{
	u32 lo = 0, hi = 0;
	int err = 0;

	asm volatile("1: rdmsr\n\t"
		     "jmp 3f\n"
		     "2: mov %[eio], %[err]\n"
		     "3:\n\t"
		     ".pushsection .extable,\"a\"; .balign 8; .quad 1b, 2b; .popsection"
		     : "+a"(lo), "+d"(hi), [err] "+r"(err)
		     : "c"(msr), [eio] "i"(-EIO));
	*value = lo | (u64)hi << 32;
	switch (fault_here(FAULT_RDMSR, msr, value)) {
	case FAULT_GP:
		*value = 0;
		return -EIO;
	case FAULT_VALUE:
		return 0;
	default:
		return err;
	}
}

int wrmsr_safe(u32 msr, u64 value)
{
	u32 fault = fault_here(FAULT_WRMSR, msr, &value);
	int err = 0;

	if (fault)
		return fault == FAULT_GP ? -EIO : 0;
	asm volatile("1: wrmsr\n\t"
		     "jmp 3f\n"
		     "2: mov %[eio], %[err]\n"
		     "3:\n\t"
		     ".pushsection .extable,\"a\"; .balign 8; .quad 1b, 2b; .popsection"
		     : [err] "+r"(err)
		     : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)), [eio] "i"(-EIO)
		     : "memory");
	return err;
}
