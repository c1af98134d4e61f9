/* SPDX-License-Identifier: MIT */
/* Interrupts to one vCPU: priorities, shadows, nesting, what the LAPIC's registers say of it. */
#include "tests/guest/lib/apic.h"

static void self(u8 vector)
{
	apic_icr(0, vector | APIC_TO_SELF << APIC_ICR_SHORTHAND_SHIFT);
}

static bool came(u32 n, const u8 *vectors)
{
	struct cpu *c = this_cpu();

	if (c->irq_total == n && !memcmp(c->irq_log, vectors, n))
		return true;
	note("%u interrupts: %#x %#x %#x %#x", c->irq_total, c->irq_log[0], c->irq_log[1],
	     c->irq_log[2], c->irq_log[3]);
	return false;
}
#define CAME(...)                                             \
	({                                                    \
		static const u8 vectors_[] = { __VA_ARGS__ }; \
		came(sizeof(vectors_), vectors_);             \
	})

TEST(self_ipi, "a self-IPI arrives once, at the next instruction with interrupts on")
{
	self(0x41);
	EXPECT_TRUE(apic_pending(0x41));
	EXPECT(this_cpu()->irq_total, 0);
	take_irqs();
	EXPECT_TRUE(CAME(0x41));
	EXPECT(apic_pending(0x41) | apic_in_service(0x41), 0);
}

TEST(coalesced, "the same vector twice, not taken yet, is one interrupt")
{
	self(0x41);
	self(0x41);
	take_irqs();
	EXPECT_TRUE(CAME(0x41));
}

TEST(order, "of several, the highest vector comes first")
{
	self(0x41);
	self(0x91);
	self(0x42);
	self(0xe0);
	take_irqs();
	EXPECT_TRUE(CAME(0xe0, 0x91, 0x42, 0x41));
}

TEST(all_vectors, "every vector from 32 up arrives")
{
	for (u32 v = 32; v < 256; v++) {
		this_cpu()->irq_total = 0;
		self((u8)v);
		take_irqs();
		EXPECT(this_cpu()->irqs[v], 1);
		EXPECT(this_cpu()->irq_total, 1);
	}
}

TEST(tpr, "TPR holds back its own class and those below")
{
	apic_write(APIC_TPR, 0x50);
	self(0x41);
	self(0x5f);
	self(0x60);
	take_irqs();
	EXPECT_TRUE(CAME(0x60));
	EXPECT(apic_read(APIC_PPR), 0x50);
	apic_write(APIC_TPR, 0x40);
	take_irqs();
	EXPECT_TRUE(CAME(0x60, 0x5f));
	apic_write(APIC_TPR, 0x30);
	take_irqs();
	EXPECT_TRUE(CAME(0x60, 0x5f, 0x41));
}

TEST(tpr_by_cr8, "the same by CR8")
{
	asm volatile("mov %0, %%cr8" : : "r"(4ul));
	self(0x4f);
	take_irqs();
	EXPECT(this_cpu()->irq_total, 0);
	asm volatile("mov %0, %%cr8" : : "r"(3ul));
	take_irqs();
	EXPECT_TRUE(CAME(0x4f));
}

static void open_handler(struct frame *f)
{
	struct cpu *c = this_cpu();

	c->irq_log[c->irq_total++] = (u8)f->vector;
	if (f->vector == 0x51) {
		EXPECT(apic_read(APIC_PPR), 0x50);
		self(0x41);
		self(0x52); /* the same class: waits */
		self(0x61);
		take_irqs();
		EXPECT(c->irq_total, 3); /* its begin and its end */
		EXPECT_TRUE(apic_in_service(0x51));
	}
	apic_eoi();
	c->irq_log[c->irq_total++] = (u8)f->vector;
}

TEST(nested, "a handler with interrupts on is interrupted by higher classes only")
{
	trap_handler[0x51] = trap_handler[0x61] = open_handler;
	self(0x51);
	irq_enable();
	asm volatile("nop");
	irq_disable();
	EXPECT(this_cpu()->irq_log[0], 0x51);
	EXPECT(this_cpu()->irq_log[1], 0x61);
	EXPECT(this_cpu()->irq_log[2], 0x61);
	EXPECT(this_cpu()->irq_log[3], 0x51);
	EXPECT(this_cpu()->irqs[0x52], 1);
	EXPECT(this_cpu()->irqs[0x41], 1);
}

static void no_eoi(struct frame *f)
{
	this_cpu()->irqs[f->vector]++;
}

TEST(eoi, "without EOI lower ones wait; each EOI ends the highest in service")
{
	trap_handler[0x61] = trap_handler[0x71] = no_eoi;
	self(0x61);
	take_irqs();
	self(0x71);
	take_irqs();
	self(0x51);
	take_irqs();
	EXPECT(this_cpu()->irqs[0x51], 0);
	EXPECT(apic_read(APIC_PPR), 0x70);
	EXPECT(apic_in_service(0x61) && apic_in_service(0x71), 1);
	apic_eoi();
	EXPECT(apic_in_service(0x71), 0);
	EXPECT(apic_read(APIC_PPR), 0x60);
	take_irqs();
	EXPECT(this_cpu()->irqs[0x51], 0);
	apic_eoi();
	take_irqs();
	EXPECT(this_cpu()->irqs[0x51], 1);
	apic_eoi(); /* nothing is in service: nothing happens */
	EXPECT(apic_read(APIC_PPR), 0);
}

static u64 taken_at;

static void note_rip(struct frame *f)
{
	taken_at = f->rip;
	apic_eoi();
}

/* Where an interrupt is taken that waits when IF is set. */
#define TAKEN_AT(code, ...)                                       \
	({                                                        \
		u64 base_;                                        \
		trap_handler[0x41] = note_rip;                    \
		taken_at = 0;                                     \
		self(0x41);                                       \
		asm volatile("lea 1f(%%rip), %0\n1:" code "\ncli" \
			     : "=&r"(base_)                       \
			     : __VA_ARGS__                        \
			     : "memory", "rcx");                  \
		taken_at - base_;                                 \
	})

TEST(sti_shadow, "the instruction behind STI is still executed")
{
	EXPECT(TAKEN_AT("sti; nop; nop"), 2);
	EXPECT(TAKEN_AT("sti; .byte 0x66, 0x90; nop"), 3);
	/* with IF set already there is no shadow; a second STI does not add one */
	EXPECT(TAKEN_AT("sti; sti; nop; nop"), 2);
}

TEST(sti_shadow_exit, "also when it is one that exits")
{
	u32 max;

	EXPECT(TAKEN_AT("sti; out %%al, $0x80; nop"), 3);
	EXPECT(TAKEN_AT("sti; in $0x80, %%al; nop", "a"(0)), 3);
	asm volatile("xor %%eax, %%eax; cpuid" : "=a"(max) : : "rbx", "rcx", "rdx");
	EXPECT_TRUE(max > 1);
}

TEST(sti_cli, "STI directly before CLI lets nothing in")
{
	this_cpu()->irq_total = 0;
	self(0x41);
	for (u32 i = 0; i < 100; i++)
		asm volatile("sti; cli");
	EXPECT(this_cpu()->irq_total, 0);
	take_irqs();
	EXPECT_TRUE(CAME(0x41));
}

static u64 left_at;

static void note_count(struct frame *f)
{
	left_at = f->rcx;
	apic_eoi();
}

/* What is left of 8 iterations when an interrupt is taken that waits when IF is set. */
static u64 left_of_8(void (*repeat)(const void *from), const void *from)
{
	trap_handler[0x41] = note_count;
	left_at = ~0ul;
	self(0x41);
	repeat(from);
	return left_at;
}

static void rep_lodsb(const void *from)
{
	u64 n = 8;

	asm volatile("sti; rep lodsb; cli" : "+S"(from), "+c"(n) : : "rax", "memory");
}

static void rep_outsb(const void *from)
{
	u64 n = 8;

	asm volatile("sti; rep outsb; cli" : "+S"(from), "+c"(n) : "d"(0x80) : "memory");
}

TEST(sti_shadow_rep, "STI's shadow lasts for the first iteration of a repeated instruction")
{
	EXPECT(left_of_8(rep_lodsb, gdt), 7);
	EXPECT(left_of_8(rep_lodsb, (void *)0xd0000000), 7); /* nothing is there: emulated */
	EXPECT(left_of_8(rep_outsb, gdt), 7);
}

/* CPUs may add up the two shadows, or only believe the first. */
TEST(mov_ss_shadow, "MOV SS in the shadow of STI, and an instruction that exits in its own")
{
	u64 at = TAKEN_AT("sti; mov %w1, %%ss; nop; nop", "r"(SEL_DATA));

	EXPECT_TRUE(at == 3 || at == 4);
	at = TAKEN_AT("sti; mov %w1, %%ss; out %%al, $0x80; nop", "r"(SEL_DATA));
	EXPECT_TRUE(at == 3 || at == 5);
}

TEST(popf, "POPF and IRET that set IF have no shadow")
{
	EXPECT(TAKEN_AT("pushfq; orq $0x200, (%%rsp); popfq; nop; nop"), 10);
}

TEST(software_interrupt, "INT n works with interrupts off, and leaves the LAPIC alone")
{
	trap_handler[0x90] = no_eoi;
	asm volatile("int $0x90");
	EXPECT(this_cpu()->irqs[0x90], 1);
	EXPECT(apic_in_service(0x90), 0);
}

TEST(illegal_vector, "an IPI with a vector below 16 is an error in ESR, and nothing arrives")
{
	apic_write(APIC_LVT_ERROR, 0x45);
	self(0x0f);
	apic_write(APIC_ESR, 0);
	EXPECT(apic_read(APIC_ESR), APIC_ESR_SEND_ILLEGAL);
	take_irqs();
	EXPECT_TRUE(CAME(0x45));
	apic_write(APIC_ESR, 0);
	EXPECT(apic_read(APIC_ESR), 0);
}

TEST(error_recursion, "an error interrupt with an illegal vector itself ends there")
{
	apic_write(APIC_LVT_ERROR, 0x05);
	apic_write(APIC_ESR, 0);
	self(0x0f);
	apic_write(APIC_ESR, 0);
	EXPECT(apic_read(APIC_ESR) & APIC_ESR_RECV_ILLEGAL, APIC_ESR_RECV_ILLEGAL);
	take_irqs();
	EXPECT(this_cpu()->irq_total, 0);
}

TEST(disabled_by_svr, "a LAPIC that SVR disables takes nothing, and masks its LVT")
{
	apic_write(APIC_LVT_TIMER, 0x41);
	apic_write(APIC_SVR, 0xff);
	EXPECT(apic_read(APIC_LVT_TIMER) & APIC_LVT_MASKED, APIC_LVT_MASKED);
	apic_write(APIC_LVT_TIMER, 0x41);
	EXPECT(apic_read(APIC_LVT_TIMER) & APIC_LVT_MASKED, APIC_LVT_MASKED);
	self(0x42);
	take_irqs();
	EXPECT(this_cpu()->irq_total, 0);
	apic_write(APIC_SVR, APIC_SVR_ENABLE | 0xff);
	self(0x42);
	take_irqs();
	EXPECT_TRUE(CAME(0x42));
}

TEST(x2apic, "x2APIC mode: registers by MSRs, the page is gone, reserved bits are #GP")
{
	u32 value;

	apic_mode(true);
	EXPECT(rdmsr_or_fail(MSR_X2APIC_BASE + APIC_ID / 16), 0);
	EXPECT(rdmsr_or_fail(MSR_X2APIC_BASE + APIC_LDR / 16), 1);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_LDR / 16, 1), GP);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_TPR / 16, 0x100), GP);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_EOI / 16, 1), GP);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_DFR / 16, 0), GP);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + 0x40, 0), GP);
	EXPECT(try_read32((void *)(APIC_BASE_GPA + APIC_ID), &value), NO_FAULT);
	EXPECT(value, ~0u);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_SELF_IPI / 16, 0x43), NO_FAULT);
	take_irqs();
	EXPECT_TRUE(CAME(0x43));
	apic_mode(false);
}
