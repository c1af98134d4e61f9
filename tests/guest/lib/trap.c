/* SPDX-License-Identifier: MIT */
/* Exceptions, expected ones and others; interrupts; ring 3. */
#include "tests/guest/lib/apic.h"
#include "tests/guest/lib/private.h"

struct PACKED gate {
	u16 low, selector;
	u8 ist, type;
	u16 middle;
	u32 high, reserved;
};

extern const u8 trap_stubs[];
extern const struct {
	u64 from, to;
} extable_begin[], extable_end[];

static struct gate idt[256];
void (*trap_handler[256])(struct frame *f);

void traps_init(void)
{
	struct desc_ptr p = { sizeof(idt) - 1, (u64)idt };

	for (u32 i = 0; i < 256; i++) {
		u64 at = (u64)trap_stubs + i * 16;
		bool user = i == 3 || i == 4 || i == VECTOR_USER_END;

		idt[i] = (struct gate){ .low = (u16)at,
					.selector = SEL_CODE64,
					.ist = i == 2	? 1
					       : i == 8 ? 2
							: 0,
					.type = user ? 0xee : 0x8e,
					.middle = (u16)(at >> 16),
					.high = (u32)(at >> 32) };
	}
	asm volatile("lidt %0" : : "m"(p));
}

void trap_stack(u8 vector, u8 ist)
{
	idt[vector].ist = ist;
}

void traps_defaults(void)
{
	struct desc_ptr p = { sizeof(idt) - 1, (u64)idt };

	asm volatile("lidt %0" : : "m"(p));
	if (this_cpu()->index)
		return;
	memset(trap_handler, 0, sizeof(trap_handler));
	trap_stack(2, 1);
}

static void remember(struct cpu *c, const struct frame *f)
{
	c->fault = FAULT(f->vector, f->error);
	c->fault_rip = f->rip;
	c->cr2 = f->vector == 14 ? read_cr2() : 0;
}

/* The instruction of a TRY? */
static bool fix_up(struct cpu *c, struct frame *f)
{
	for (u64 i = 0; extable_begin + i < extable_end; i++) {
		if (f->rip < extable_begin[i].from || f->rip >= extable_begin[i].to)
			continue;
		remember(c, f);
		f->rip = extable_begin[i].to;
		return true;
	}
	return false;
}

static void from_user(struct cpu *c, struct frame *f)
{
	remember(c, f);
	if (f->vector == VECTOR_USER_END) {
		c->fault = NO_FAULT;
		*c->user_regs = (struct user_regs){ f->rax, f->rcx, f->rdx, f->rdi };
	}
	context_go(&c->user);
}

static void unexpected(struct cpu *c, struct frame *f)
{
	note("vCPU %u: exception %lu (error %#lx) at %#lx, rsp %#lx, cr2 %#lx", c->index, f->vector,
	     f->error, f->rip, f->rsp, read_cr2());
	error("unexpected exception %lu on vCPU %u", f->vector, c->index);
}

void trap(struct frame *f);
void trap(struct frame *f)
{
	struct cpu *c = this_cpu();

	if (trap_handler[f->vector]) {
		trap_handler[f->vector](f);
		return;
	}
	if ((f->cs & 3) == 3 && (f->vector < 32 || f->vector == VECTOR_USER_END))
		from_user(c, f);
	if (f->vector < 32 && f->vector != 2) {
		if (!fix_up(c, f))
			unexpected(c, f);
		return;
	}
	c->irqs[f->vector]++;
	if (c->irq_total < IRQ_LOG)
		c->irq_log[c->irq_total] = (u8)f->vector;
	c->irq_total++;
	if (f->vector >= 32)
		apic_eoi();
}

u32 user_run(const void *code, size_t size, struct user_regs *regs, u64 rflags)
{
	static const u8 end[] = { 0xcd, VECTOR_USER_END };
	struct cpu *c = this_cpu();
	struct user_regs in = regs ? *regs : (struct user_regs){ 0 };
	u8 *page = pages(1);
	u64 stack = (u64)pages(1);

	memcpy(page, code, size);
	memcpy(page + size, end, sizeof(end));
	window(WINDOW_USER_CODE, (u64)page | PTE_P | PTE_W | PTE_U);
	window(WINDOW_USER_STACK, stack | PTE_P | PTE_W | PTE_U);
	c->fault = NO_FAULT;
	if (!context_save(&c->user)) {
		c->user_regs = &in;
		user_enter(WINDOW, &in, rflags);
	}
	if (regs)
		*regs = in;
	return c->fault;
}

/* ---- TRYs that many use ---- */

u32 try_rdmsr(u32 msr, u64 *value)
{
	u32 lo = 0, hi = 0, fault = TRY("rdmsr", : "+a"(lo), "+d"(hi) : "c"(msr));

	*value = lo | (u64)hi << 32;
	return fault;
}

u32 try_wrmsr(u32 msr, u64 value)
{
	return TRY("wrmsr", : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

u64 rdmsr_or_fail(u32 msr)
{
	u64 value;

	EXPECT(try_rdmsr(msr, &value), NO_FAULT);
	return value;
}

u32 try_read32(const volatile void *p, u32 *value)
{
	u32 v = 0, fault = TRY("mov (%1), %0", : "+r"(v) : "r"(p) : "memory");

	*value = v;
	return fault;
}

u32 try_write32(volatile void *p, u32 value)
{
	return TRY("mov %0, (%1)", : : "r"(value), "r"(p) : "memory");
}

u32 try_cr0(u64 value)
{
	return TRY("mov %0, %%cr0", : : "r"(value) : "memory");
}

u32 try_cr3(u64 value)
{
	return TRY("mov %0, %%cr3", : : "r"(value) : "memory");
}

u32 try_cr4(u64 value)
{
	return TRY("mov %0, %%cr4", : : "r"(value) : "memory");
}
