/* SPDX-License-Identifier: MIT */
/*
 * Guest tests: programs that run in a VM of Corbel and say what they saw as TAP on its console
 * (docs/TESTING.md). A folder is a group; its cases are TEST()s, run in the order of the source by
 * vCPU 0, in 64-bit mode at CPL 0, with interrupts off.
 */
#pragma once

#include <asm/processor-flags.h>
#include "arch/x86/insn.h"
#include "arch/x86/msr.h"
#include "lib/addr.h"
#include "lib/string.h"
#include "lib/types.h"

/* ---- Cases and their verdicts ---- */

struct test {
	const char *name, *what;
	void (*run)(void);
};
#define TEST(id, what_)                                                                           \
	static void test_##id(void);                                                              \
	static const struct test id##_test                                                        \
		__attribute__((section(".tests"), used, aligned(8))) = { #id, what_, test_##id }; \
	static void test_##id(void)
/* One that ends the VM: `how` must be in the line that Corbel says then. The group's last case. */
#define TEST_ENDS(id, what_, how) TEST(id, what_)
/*
 * One that restarts the VM. It is called twice: `reborn` is false, and it may not return; then, in
 * the VM's next life, true.
 */
#define TEST_RESETS(id, what_) TEST(id, what_)
extern bool reborn;
/* What TEST_RESETS does right before it restarts the VM. */
void reset_follows(void);

/*
 * Verdicts. A case without any of these is an error: it has tested nothing. A failure says what was
 * expected and what was seen, and the case goes on; the others end it. From any vCPU, but skip()
 * and error() end the case only on vCPU 0.
 */
#define EXPECT(seen, expected) expect_(__FILE__, __LINE__, #seen, (u64)(seen), (u64)(expected))
#define EXPECT_TRUE(condition) expect_(__FILE__, __LINE__, #condition, !!(condition), 1)
void expect_(const char *file, u32 line, const char *what, u64 seen, u64 expected);
/* This machine has not what the case is about. */
void skip(const char *fmt, ...) PRINTF(1, 2) NORETURN;
/* The case could not be run. */
void error(const char *fmt, ...) PRINTF(1, 2) NORETURN;
/* A line of explanation. */
void note(const char *fmt, ...) PRINTF(1, 2);

/* The VM's name and further words of its command line. */
extern const char *vm_name;
bool has_word(const char *word);
bool on_intel(void);

/* ---- vCPUs ---- */

#define MAX_CPUS  8
#define CPU_SHIFT 16 /* layout.inc */
#define CPU_AREA  (1ul << CPU_SHIFT)

struct context {
	u64 reg[8];
};
bool context_save(struct context *c) __attribute__((returns_twice));
void context_go(struct context *c) NORETURN;

struct user_regs;
struct PACKED tss {
	u32 reserved;
	u64 rsp[3], reserved2, ist[7], reserved3;
	u16 reserved4, iomap;
};

#define IRQ_LOG 64
/* At the start of each vCPU's area; its stacks are behind it. */
struct cpu {
	u32 index;
	bool online, x2apic;
	/* work from another vCPU */
	void (*call)(void *arg);
	void *arg;
	struct context abort;	     /* the end of the case, or of the work */
	struct context user;	     /* where traps from ring 3 go, ... */
	struct user_regs *user_regs; /* ... and its registers */
	u32 fault;		     /* of the last TRY */
	u64 fault_rip, cr2;
	u32 irqs[256]; /* traps by vector, without those that TRY caught */
	u32 irq_total;
	u8 irq_log[IRQ_LOG]; /* their vectors, in order */
	struct tss tss;
};
static inline struct cpu *this_cpu(void)
{
	u64 rsp;

	asm volatile("mov %%rsp, %0" : "=r"(rsp));
	return (struct cpu *)(rsp & ~(CPU_AREA - 1));
}
struct cpu *cpu_of(u32 index);
/* vCPUs of this VM that are online. */
u32 cpu_count(void);
/* Skip the case if there are fewer. */
void need_cpus(u32 n);
/* Have another vCPU call fn(arg), with interrupts off: wakes it by an IPI, which needs its LAPIC.
 */
void cpu_start(u32 index, void (*fn)(void *), void *arg);
/* Until it is done; error() after 10 s. */
void cpu_wait(u32 index);
void cpu_call(u32 index, void (*fn)(void *), void *arg);
/* All other vCPUs at once, and this one too; until all are done. */
void cpu_call_all(void (*fn)(void *), void *arg);
/* INIT and SIPI anew; error() if it does not come up. */
void cpu_restart(u32 index);

/* ---- Time ---- */

extern u32 tsc_khz;
void delay_us(u64 us);
/* Wait for a condition, at most ms milliseconds; whether it became true. */
#define WAIT_FOR(condition, ms)                                               \
	({                                                                    \
		u64 end_ = rdtsc() + (u64)tsc_khz * (ms);                     \
		bool true_;                                                   \
		while (!(true_ = !!(condition)) && (s64)(rdtsc() - end_) < 0) \
			cpu_pause();                                          \
		true_;                                                        \
	})
/* Interrupts on until the condition holds. */
#define WAIT_IRQ(condition, ms)                       \
	({                                            \
		irq_enable();                         \
		bool came_ = WAIT_FOR(condition, ms); \
		irq_disable();                        \
		came_;                                \
	})
/* Let in what is pending now. */
static inline void take_irqs(void)
{
	asm volatile("sti; nop; nop; cli" : : : "memory");
}

/* ---- Traps ---- */

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};
/* Called for a vector instead of the usual: count, and EOI for 32 and above. NULL: the usual. */
extern void (*trap_handler[256])(struct frame *f);
/* A stack of its own: 1 and 2 (as NMI and #DF have by default), or 0: none. */
void trap_stack(u8 vector, u8 ist);

#define NO_FAULT	 (~0u)
#define FAULT(vector, e) ((u32)(vector) << 16 | (u32)(e))
#define UD		 FAULT(6, 0)
#define NM		 FAULT(7, 0)
#define SS0		 FAULT(12, 0)
#define GP		 FAULT(13, 0)
#define PF(error)	 FAULT(14, error)

#define EXTABLE(from, to) ".pushsection .extable, \"a\"\n.quad " from ", " to "\n.popsection\n"
/*
 * An instruction that may fault: TRY("wrmsr", : : "c"(msr), "a"(0), "d"(0)). NO_FAULT, or
 * FAULT(vector, error code); behind it also fault_rip and, of a #PF, cr2 of this_cpu(). What the
 * instruction sets is what it was before if it faults.
 */
#define TRY(insn, ...)                                                                     \
	({                                                                                 \
		this_cpu()->fault = NO_FAULT;                                              \
		asm volatile("661: " insn "\n662:\n" EXTABLE("661b", "662b") __VA_ARGS__); \
		*(volatile u32 *)&this_cpu()->fault;                                       \
	})
/* #GP instead of a value: see TRY. */
u32 try_rdmsr(u32 msr, u64 *value);
u32 try_wrmsr(u32 msr, u64 value);
u64 rdmsr_or_fail(u32 msr);
u32 try_read32(const volatile void *p, u32 *value);
u32 try_write32(volatile void *p, u32 value);
u32 try_cr0(u64 value);
u32 try_cr3(u64 value);
u32 try_cr4(u64 value);

/* Code in ring 3: these bytes, with these registers; what it faults with, or NO_FAULT. */
struct user_regs {
	u64 rax, rcx, rdx, rdi;
};
u32 user_run(const void *code, size_t size, struct user_regs *regs, u64 rflags);
#define USER_TRY(regs, ...)                                             \
	({                                                              \
		static const u8 code_[] = { __VA_ARGS__ };              \
		user_run(code_, sizeof(code_), regs, X86_EFLAGS_FIXED); \
	})

/* ---- Paging ---- */

#define PTE_P  BIT(0)
#define PTE_W  BIT(1)
#define PTE_U  BIT(2)
#define PTE_A  BIT(5)
#define PTE_D  BIT(6)
#define PTE_PS BIT(7)
#define PTE_NX BIT(63)

/* 512 pages that tests map as they like. */
#define WINDOW 0x8000000000ul
extern u64 boot_tables[512], window_pte[512];
/* Page n of the window: the entry, TLB included. Its address. */
void *window(u32 n, u64 entry);
#define WINDOW_USER_CODE  0 /* used by user_run() */
#define WINDOW_USER_STACK 1
#define WINDOW_FREE	  2 /* from here on they are the tests' */
/* Memory: cleared pages, freed at the end of the case. */
void *pages(u32 n);

/* ---- Selectors: layout.inc ---- */

enum {
	SEL_CODE64 = 0x08,
	SEL_DATA = 0x10,
	SEL_CODE32 = 0x18,
	SEL_CODE16 = 0x20,
	SEL_DATA16 = 0x28,
	SEL_UCODE32 = 0x30,
	SEL_UDATA = 0x38,
	SEL_UCODE64 = 0x40,
	SEL_TSS = 0x50, /* 16 bytes for each vCPU */
};
extern u64 gdt[32];

static inline u64 xcr0_get(void)
{
	return xgetbv0();
}
static inline bool has(u32 leaf, char reg, u32 bit)
{
	struct cpuid_regs r = cpuid(leaf, 0);
	u32 word = reg == 'a' ? r.eax : reg == 'b' ? r.ebx : reg == 'c' ? r.ecx : r.edx;

	return word >> bit & 1;
}
#define NEED(leaf, reg, bit, name)        \
	do {                              \
		if (!has(leaf, reg, bit)) \
			skip("no " name); \
	} while (0)
