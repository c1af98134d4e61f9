/* SPDX-License-Identifier: MIT */
/*
 * Instructions that Corbel executes because they touch a device: each operand form, on registers of
 * the LAPIC that keep what is written, and their flags, as the CPU has them in plain memory.
 */
#include "tests/guest/lib/apic.h"

#define TPR   (APIC_BASE_GPA + APIC_TPR)   /* 8 bits */
#define TMICT (APIC_BASE_GPA + APIC_TMICT) /* 32 bits; the timer is masked */
#define FLAGS                                                                            \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF | \
	 X86_EFLAGS_OF)

static u32 plain; /* the same in memory */

struct result {
	u64 rax, rbx, flags;
	u32 memory;
};

/* insn on (%rcx), from these registers, there and in memory: all must be the same. */
#define BOTH(insn, start, a, b)                                                                \
	do {                                                                                   \
		struct result r_[2];                                                           \
		for (u32 i_ = 0; i_ < 2; i_++) {                                               \
			volatile u32 *p_ = i_ ? &plain : (volatile u32 *)TMICT;                \
			r_[i_] = (struct result){ (a), (b), 0, 0 };                            \
			*p_ = (start);                                                         \
			asm volatile("pushq $0x02; popfq; " insn "; pushfq; pop %2"            \
				     : "+a"(r_[i_].rax), "+b"(r_[i_].rbx), "=&r"(r_[i_].flags) \
				     : "c"(p_)                                                 \
				     : "memory", "cc", "r8");                                  \
			r_[i_].memory = *p_;                                                   \
		}                                                                              \
		if (r_[0].rax != r_[1].rax || r_[0].rbx != r_[1].rbx ||                        \
		    r_[0].memory != r_[1].memory || (r_[0].flags ^ r_[1].flags) & FLAGS)       \
			note("%s of %#x", insn, start);                                        \
		EXPECT(r_[0].rax, r_[1].rax);                                                  \
		EXPECT(r_[0].rbx, r_[1].rbx);                                                  \
		EXPECT(r_[0].memory, r_[1].memory);                                            \
		EXPECT(r_[0].flags &FLAGS, r_[1].flags &FLAGS);                                \
	} while (0)
#define VALUES(insn)                                                     \
	do {                                                             \
		BOTH(insn, 0x12345678u, 0x11, 0x7fffffff12345678);       \
		BOTH(insn, 0xffffffffu, 1, 1);                           \
		BOTH(insn, 0x80000000u, 0x80000000, 0xffffffff80000000); \
		BOTH(insn, 1u, 0x12345678, 0);                           \
	} while (0)

TEST(mov, "MOV in both directions, from a register and an immediate")
{
	VALUES("mov (%%rcx), %%eax");
	VALUES("mov %%ebx, (%%rcx)");
	VALUES("movl $0x1234567, (%%rcx)");
	VALUES("mov %%r8d, %%r8d; mov (%%rcx), %%r8d; mov %%r8, %%rax");
}

TEST(addressing, "every addressing form: base, index, scale, displacement, RIP, absolute, segment")
{
	u32 out;
	u64 base = APIC_BASE_GPA;

	apic_write(APIC_TMICT, 0x1111);
	asm volatile("mov 0x380(%1), %0" : "=r"(out) : "r"(base));
	EXPECT(out, 0x1111);
	asm volatile("mov (%1,%2,8), %0" : "=r"(out) : "r"(base), "r"(0x70ul));
	EXPECT(out, 0x1111);
	asm volatile("mov 0x40(%1,%2,2), %0" : "=r"(out) : "r"(base), "r"(0x1a0ul));
	EXPECT(out, 0x1111);
	asm volatile("mov %1, %%r12; mov 0x380(%%r12), %0" : "=r"(out) : "r"(base) : "r12");
	EXPECT(out, 0x1111);
	asm volatile("mov %1, %%r13; mov 0x380(%%r13), %0" : "=r"(out) : "r"(base) : "r13");
	EXPECT(out, 0x1111);
	asm volatile("movabs 0xfee00380, %%eax" : "=a"(out));
	EXPECT(out, 0x1111);
	asm volatile("addr32 mov 0x380(%k1), %0" : "=r"(out) : "r"(base | 0xabcdul << 32));
	EXPECT(out, 0x1111);
	asm volatile("mov %1, %%r15; xchg %%rsp, %%r15; mov 0x380(%%rsp), %0; xchg %%rsp, %%r15"
		     : "=r"(out)
		     : "r"(base)
		     : "r15");
	EXPECT(out, 0x1111);
	wrmsr(MSR_FS_BASE, base - 0x1000);
	asm volatile("mov %%fs:0x1380, %0" : "=r"(out));
	EXPECT(out, 0x1111);
	wrmsr(MSR_FS_BASE, 0);
}

TEST(extensions, "MOVZX, MOVSX, MOVSXD, narrow reads, high byte registers")
{
	VALUES("movzbl (%%rcx), %%eax");
	VALUES("movsbl (%%rcx), %%eax");
	VALUES("movsbq (%%rcx), %%rax");
	VALUES("movzwl (%%rcx), %%eax");
	VALUES("movswq (%%rcx), %%rax");
	VALUES("movslq (%%rcx), %%rax");
	VALUES("mov (%%rcx), %%al");
	VALUES("mov (%%rcx), %%ah");
	VALUES("mov (%%rcx), %%ax");
	VALUES("mov 1(%%rcx), %%bl");
}

TEST(arithmetic, "ADD to XOR with memory as the source: values and flags")
{
	VALUES("add (%%rcx), %%eax");
	VALUES("or (%%rcx), %%eax");
	VALUES("stc; adc (%%rcx), %%eax");
	VALUES("stc; sbb (%%rcx), %%eax");
	VALUES("and (%%rcx), %%eax");
	VALUES("sub (%%rcx), %%eax");
	VALUES("xor (%%rcx), %%eax");
	VALUES("cmp (%%rcx), %%eax");
}

TEST(arithmetic_to_memory, "and as the destination, by register and immediate, with LOCK")
{
	VALUES("add %%ebx, (%%rcx)");
	VALUES("lock or %%ebx, (%%rcx)");
	VALUES("stc; adc %%ebx, (%%rcx)");
	VALUES("stc; sbbl $0x7f, (%%rcx)");
	VALUES("andl $0xf0f0f0f, (%%rcx)");
	VALUES("lock subl $1, (%%rcx)");
	VALUES("xor %%ebx, (%%rcx)");
	VALUES("cmp %%ebx, (%%rcx)");
	VALUES("cmpl $0x12345678, (%%rcx)");
}

TEST(one_operand, "INC, DEC, NOT, NEG, TEST")
{
	VALUES("stc; incl (%%rcx)");
	VALUES("decl (%%rcx)");
	VALUES("notl (%%rcx)");
	VALUES("negl (%%rcx)");
	VALUES("test %%ebx, (%%rcx)");
	VALUES("testl $0x80000000, (%%rcx)");
}

TEST(exchange, "XCHG, XADD, CMPXCHG: equal and not")
{
	VALUES("xchg %%ebx, (%%rcx)");
	VALUES("lock xadd %%ebx, (%%rcx)");
	VALUES("cmpxchg %%ebx, (%%rcx)");
	BOTH("lock cmpxchg %%ebx, (%%rcx)", 0x55u, 0x55, 0x66);
}

TEST(bits, "BT, BTS, BTR, BTC by register and immediate, also beyond the operand")
{
	VALUES("btl $7, (%%rcx)");
	VALUES("btsl $33, (%%rcx)");
	VALUES("lock btrl $31, (%%rcx)");
	VALUES("btcl $0, (%%rcx)");
	BOTH("bts %%ebx, (%%rcx)", 0u, 0, 13);
	BOTH("lea 32(%%rcx), %%rcx; bt %%ebx, (%%rcx); lea -32(%%rcx), %%rcx", 0xf0u, 0, (u64)-250);
}

TEST(strings, "MOVS from and to a device, STOS, LODS, SCAS, CMPS, with REP and backwards")
{
	volatile u32 *device = (volatile u32 *)TMICT;
	u32 buffer[4] = { 1, 2, 3, 4 }, *p = buffer;
	u64 si, di, cx, ax;

	*device = 0x77;
	si = TMICT, di = (u64)p;
	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	EXPECT(buffer[0], 0x77);
	EXPECT(si, TMICT + 4);
	si = (u64)&buffer[3], di = TMICT, cx = 1;
	asm volatile("std; rep movsl; cld" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	EXPECT(*device, 4);
	EXPECT(di, TMICT - 4);
	di = TMICT, ax = 0x99;
	asm volatile("stosl" : "+D"(di) : "a"(ax) : "memory");
	EXPECT(*device, 0x99);
	si = TMICT, ax = ~0ul;
	asm volatile("lodsl" : "+S"(si), "+a"(ax) : : "memory");
	EXPECT(ax, 0x99);
	di = TMICT, cx = 5, ax = 0x99;
	asm volatile("repne scasl" : "+D"(di), "+c"(cx) : "a"(ax) : "memory", "cc");
	EXPECT(cx, 4);
	di = TMICT, si = (u64)p, cx = 3;
	asm volatile("repe cmpsl" : "+D"(di), "+S"(si), "+c"(cx) : : "memory", "cc");
	EXPECT(cx, 2);
}

TEST(widths, "a write by MOVNTI; widths that the LAPIC does not take do nothing")
{
	VALUES("movnti %%ebx, (%%rcx)");
	apic_write(APIC_TPR, 0x20);
	*(volatile u8 *)TPR = 0x30;
	EXPECT(apic_read(APIC_TPR), 0x20);
	*(volatile u32 *)(TPR + 4) = 0x30;
	EXPECT(apic_read(APIC_TPR), 0x20);
	EXPECT(*(volatile u32 *)(TPR + 4), 0);
	apic_write(APIC_TPR, 0);
}

TEST(unmapped, "where nothing is: reads give ones, writes vanish, over a page's end too")
{
	volatile u64 *p = (volatile u64 *)0xd0000000;

	EXPECT(*p, ~0ull);
	*p = 0;
	EXPECT(*(volatile u8 *)p, 0xff);
	EXPECT(*(volatile u64 *)0xd0000ffc, ~0ull);
	*(volatile u64 *)0xd0000ffc = 0;
	EXPECT(*(volatile u16 *)0xfec00fff, 0xff00); /* the I/O APIC's last byte is the first */
}

TEST(lapic_offsets, "every offset of the LAPIC's page, in each width: nothing breaks")
{
	u32 n = 0;

	for (u32 offset = 0; offset < PAGE_SIZE; offset += 4) {
		volatile u8 *p = (volatile u8 *)(APIC_BASE_GPA + offset);

		(void)*p;
		(void)*(volatile u32 *)p;
		if (offset % 64 == 0)
			(void)*(volatile u64 *)(p + 1);
		n++;
	}
	EXPECT(n, 1024);
	apic_write(APIC_ESR, 0);
}

TEST(user_mode, "a program at CPL 3 reaches a device only if its page tables say so")
{
	struct user_regs r = { .rdi = WINDOW + WINDOW_FREE * PAGE_SIZE + APIC_VERSION };

	window(WINDOW_FREE, APIC_BASE_GPA | PTE_P | PTE_W);
	EXPECT(USER_TRY(&r, 0x8b, 0x07), PF(5));
	window(WINDOW_FREE, APIC_BASE_GPA | PTE_P | PTE_W | PTE_U);
	r.rdi = WINDOW + WINDOW_FREE * PAGE_SIZE + APIC_VERSION;
	EXPECT(USER_TRY(&r, 0x8b, 0x07), NO_FAULT); /* mov eax, [rdi] */
	EXPECT(r.rax, apic_read(APIC_VERSION));
	window(WINDOW_FREE, APIC_BASE_GPA | PTE_P | PTE_U);
	r.rdi = WINDOW + WINDOW_FREE * PAGE_SIZE + APIC_TPR;
	EXPECT(USER_TRY(&r, 0x89, 0x07), PF(7)); /* mov [rdi], eax */
}

TEST(half_missing, "an operand half in a device, half in a page that is not there")
{
	u8 *at = window(WINDOW_FREE, APIC_BASE_GPA | PTE_P | PTE_W);
	u64 value = 0;

	window(WINDOW_FREE + 1, 0);
	EXPECT(TRY("mov (%1), %0", : "+r"(value) : "r"(at + PAGE_SIZE - 4)), PF(0));
	EXPECT(this_cpu()->cr2, (u64)at + PAGE_SIZE);
	EXPECT(TRY("mov %0, (%1)", : : "r"(value), "r"(at + PAGE_SIZE - 4) : "memory"), PF(2));
	EXPECT(value, 0);
}
