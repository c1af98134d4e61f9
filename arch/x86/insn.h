/* SPDX-License-Identifier: MIT */
/* Single instructions as functions. CR and EFLAGS bits: asm/processor-flags.h of linux-libc-dev. */
#pragma once

#include <asm/processor-flags.h>
#include "arch/x86/fault.h"
#include "lib/types.h"

struct cpuid_regs {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid_regs cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_regs r;
	asm volatile("cpuid"
		     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(subleaf));
	fault_cpuid(leaf, subleaf, &r);
	return r;
}

#ifdef CORBEL_HOST
/* Tests have threads as CPUs: time and the interrupt flag are the test's. */
u64 rdtsc(void);
void irq_disable(void);
void irq_enable(void);
u64 read_flags(void);
#else
static inline u64 rdtsc(void)
{
	u32 lo, hi;
	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (u64)hi << 32;
}

static inline void irq_disable(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void irq_enable(void)
{
	asm volatile("sti" : : : "memory");
}

static inline u64 read_flags(void)
{
	u64 f;
	asm volatile("pushfq; pop %0" : "=r"(f) : : "memory");
	return f;
}
#endif

/* False: no number this time. Only where CPUID.1:ECX[30] says so. */
static inline bool rdrand(u64 *value)
{
	bool valid;

	asm volatile("rdrand %0" : "=r"(*value), "=@ccc"(valid) : : "cc");
	return valid;
}

/* This CPU does nothing any more, until INIT or a reset. */
static inline void NORETURN halt_forever(void)
{
	for (;;)
		asm volatile("cli; hlt");
}

#define REGISTER_ACCESS(reg)                                               \
	static inline u64 read_##reg(void)                                 \
	{                                                                  \
		u64 x;                                                     \
		asm volatile("mov %%" #reg ", %0" : "=r"(x) : : "memory"); \
		return x;                                                  \
	}                                                                  \
	static inline void write_##reg(u64 x)                              \
	{                                                                  \
		asm volatile("mov %0, %%" #reg : : "r"(x) : "memory");     \
	}
REGISTER_ACCESS(cr0)
REGISTER_ACCESS(cr2)
REGISTER_ACCESS(cr3)
REGISTER_ACCESS(cr4)
#ifdef CORBEL_HOST
void write_dr0(u64 x);
void write_dr1(u64 x);
void write_dr2(u64 x);
void write_dr3(u64 x);
#else
REGISTER_ACCESS(dr0)
REGISTER_ACCESS(dr1)
REGISTER_ACCESS(dr2)
REGISTER_ACCESS(dr3)
#endif
REGISTER_ACCESS(dr6)
REGISTER_ACCESS(dr7)
#undef REGISTER_ACCESS

#define PORT_ACCESS(suffix, type)                                  \
	static inline type in##suffix(u16 port)                    \
	{                                                          \
		type v;                                            \
		asm volatile("in %1, %0" : "=a"(v) : "Nd"(port));  \
		return v;                                          \
	}                                                          \
	static inline void out##suffix(u16 port, type v)           \
	{                                                          \
		asm volatile("out %0, %1" : : "a"(v), "Nd"(port)); \
	}
PORT_ACCESS(b, u8)
PORT_ACCESS(w, u16)
PORT_ACCESS(l, u32)
#undef PORT_ACCESS

static inline u64 xgetbv0(void)
{
	u32 lo, hi;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo | (u64)hi << 32;
}

static inline void xsetbv0(u64 v)
{
	asm volatile("xsetbv" : : "c"(0), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline void invlpg(const void *p)
{
	asm volatile("invlpg (%0)" : : "r"(p) : "memory");
}

static inline void cpu_pause(void)
{
	asm volatile("pause" : : : "memory");
}

static inline bool irqs_enabled(void)
{
	return read_flags() & X86_EFLAGS_IF;
}

static inline u64 irq_save(void)
{
	u64 f = read_flags();
	irq_disable();
	return f;
}

static inline void irq_restore(u64 flags)
{
	if (flags & X86_EFLAGS_IF)
		irq_enable();
}

/*
 * Take whatever interrupts are pending, then go on with interrupts off. (STI's shadow covers the
 * NOP.)
 */
static inline void irq_window(void)
{
	asm volatile("sti; nop; cli" : : : "memory");
}

/* Wait for an interrupt with no gap between enabling and halting; interrupts off on return. */
static inline void irq_wait(void)
{
	asm volatile("sti; hlt; cli" : : : "memory");
}

struct PACKED desc_ptr {
	u16 limit;
	u64 base;
};
