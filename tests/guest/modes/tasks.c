/* SPDX-License-Identifier: MIT */
/* Hardware task switches: which VMX leaves to Corbel, and SVM to the CPU. */
#include "tests/guest/modes/modes.h"

#define TS(selector) FAULT(10, selector)
#define TASK_GATE    0xe5
#define ICR	     0xfee00300u
#define EOI	     0xfee000b0u
#define NT	     BIT(14)

/* What task B noted: modes.asm. */
extern volatile u32 b_runs, b_eax, b_edi, b_flags, b_cr0, b_cr3, b_ldt, b_fs, b_tr, b_error;
static u8 stack_b[1024] ALIGNED(16);

static void prepare(u32 entry)
{
	memset(&tss32, 0, sizeof(tss32));
	tss32.t.ss0 = SEL_DATA;
	tss32.t.iomap = sizeof(tss32.t);
	tss_b = (struct tss32){ .esp0 = (u32)(u64)(stack_b + 512),
				.ss0 = SEL_DATA,
				.eip = entry,
				.eflags = 2,
				.eax = 0x777,
				.edi = 100,
				.esp = (u32)(u64)(stack_b + sizeof(stack_b)),
				.es = SEL_DATA,
				.cs = SEL_CODE32,
				.ss = SEL_DATA,
				.ds = SEL_DATA,
				.fs = SEL_DATA16,
				.iomap = sizeof(tss_b) };
	make_tss(SEL_TSS_A, &tss32, sizeof(tss32.t) - 1, 0x89);
	make_tss(SEL_TSS_B, &tss_b, sizeof(tss_b) - 1, 0x89);
	b_runs = b_eax = b_edi = b_flags = b_cr0 = b_cr3 = b_ldt = b_fs = b_tr = b_error = 0;
}

static bool is_busy(u32 selector)
{
	return gdt[selector / 8] & BIT(41);
}

static void gate(u8 vector)
{
	idt32[vector] = (struct gate32){ .selector = SEL_TSS_B, .type = TASK_GATE };
}

/* Nested: by CALL or a gate, and back by IRET. */
static void check_tasks(const struct step *s, u32 runs, bool nested)
{
	EXPECT(s->fault, NO_FAULT);
	EXPECT(s->value, SEL_TSS_A);
	EXPECT(b_runs, runs);
	EXPECT(b_eax, 0x777);
	EXPECT(b_edi, 100 + runs - 1);
	EXPECT(b_tr, SEL_TSS_B);
	EXPECT(b_fs, SEL_DATA16);
	EXPECT(b_cr0 & X86_CR0_TS, X86_CR0_TS);
	EXPECT(b_flags & NT, nested ? NT : 0);
	EXPECT(tss_b.link, nested ? SEL_TSS_A : 0);
	EXPECT(tss_b.eflags & NT, 0);
	EXPECT_TRUE(is_busy(SEL_TSS_A));
	EXPECT_TRUE(!is_busy(SEL_TSS_B));
}

TEST(task_jmp, "JMP to a TSS and back, twice: registers, TS, busy bits")
{
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_JMP_TSS), STEP(OP_GET_CR0), STEP(OP_END) };

	prepare(ROUTINE(task_b_jmp));
	write_dr7(0x400 | 0x3); /* L0 and G0, of an address that nothing executes */
	write_dr0(0x10);
	RUN(s);
	check_tasks(&s[1], 2, false);
	EXPECT(s[2].value & X86_CR0_TS, X86_CR0_TS);
	EXPECT(read_dr7() & 3, 2); /* local breakpoints are the task's */
}

TEST(task_call, "CALL to a TSS and IRET, twice: NT and the link")
{
	struct step s[] = { STEP(OP_CALL_TSS), STEP(OP_CALL_TSS), STEP(OP_END) };

	prepare(ROUTINE(task_b_iret));
	RUN(s);
	check_tasks(&s[1], 2, true);
}

TEST(task_gate, "INT through a task gate")
{
	struct step s[] = { STEP(OP_INT), STEP(OP_INT), STEP(OP_END) };

	prepare(ROUTINE(task_b_iret));
	gate(0x60);
	RUN(s);
	check_tasks(&s[1], 2, true);
}

TEST(task_gate_fault, "#GP through a task gate: its error code is on the new stack")
{
	struct step s[] = { STEP(OP_GP), STEP(OP_END) };

	prepare(ROUTINE(task_b_error));
	gate(13);
	RUN(s);
	check_tasks(s, 1, true);
	EXPECT(b_error, 0xfff8);
}

TEST(task_gate_interrupt, "an interrupt of the LAPIC through a task gate")
{
	struct step s[] = {
		STEP(OP_ICR, ICR, 0x61 | APIC_ICR_ASSERT | BIT(18)),
		STEP(OP_WRITE, EOI, 0),
		STEP(OP_ICR, ICR, 0x61 | APIC_ICR_ASSERT | BIT(18)),
		STEP(OP_WRITE, EOI, 0),
		STEP(OP_END),
	};

	prepare(ROUTINE(task_b_iret));
	gate(0x61);
	RUN(s);
	check_tasks(&s[2], 2, true);
}

TEST(task_gate_nmi, "an NMI through a task gate; its IRET opens NMIs again")
{
	struct step s[] = {
		STEP(OP_ICR, ICR, APIC_NMI << APIC_MODE_SHIFT | APIC_ICR_ASSERT),
		STEP(OP_ICR, ICR, APIC_NMI << APIC_MODE_SHIFT | APIC_ICR_ASSERT),
		STEP(OP_END),
	};

	prepare(ROUTINE(task_b_iret));
	gate(2);
	RUN(s);
	check_tasks(&s[1], 2, true);
	EXPECT(tss_b.eflags & X86_EFLAGS_TF, 0);
}

TEST(task_paging, "a task has page tables of its own")
{
	u32 *pt, *pd = tables32(&pt), *pt_b, *pd_b = tables32(&pt_b);
	struct step s[] = {
		STEP(OP_SET_CR3, (u32)(u64)pd),
		STEP(OP_SET_CR0, PG | CR0_FLAT),
		STEP(OP_CALL_TSS),
		STEP(OP_GET_CR3),
		STEP(OP_END),
	};

	prepare(ROUTINE(task_b_iret));
	tss_b.cr3 = (u32)(u64)pd_b;
	RUN(s);
	check_tasks(&s[2], 1, true);
	EXPECT(b_cr3, (u32)(u64)pd_b);
	EXPECT(s[3].value, (u32)(u64)pd);
}

TEST(task_ldt, "a task has an LDT of its own")
{
	static u64 ldt[2];
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_END) };

	prepare(ROUTINE(task_b_jmp));
	ldt[1] = gdt[SEL_DATA16 / 8];
	make_tss(SEL_LDT, ldt, sizeof(ldt) - 1, 0x82);
	tss_b.ldt = SEL_LDT;
	tss_b.gs = 8 | 4;
	RUN(s);
	check_tasks(s, 1, false);
	EXPECT(b_ldt, SEL_LDT);
	EXPECT(tss_b.gs, 12);
}

TEST(task_user, "a task at CPL 3")
{
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_END) };

	prepare(ROUTINE(task_b_user));
	tss_b.cs = SEL_UCODE32 | 3;
	tss_b.ss = tss_b.ds = tss_b.es = SEL_UDATA | 3;
	tss_b.fs = 0;
	RUN(s);
	EXPECT(s[0].fault, UD);
	EXPECT(b_runs, 1);
	EXPECT(b_eax, 0x777);
}

TEST(task_v86, "a task in virtual-8086 mode")
{
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_END) };

	prepare(ROUTINE(v86_cpuid));
	tss_b.eflags = X86_EFLAGS_VM | 2;
	tss_b.eax = tss_b.cs = tss_b.ss = tss_b.ds = tss_b.es = tss_b.fs = 0;
	tss_b.esp = 0x7000;
	RUN(s);
	EXPECT(s[0].fault, UD);
	EXPECT(s[0].value, cpuid(0, 0).ebx);
}

static u16 tss16[23];

static void prepare16(u32 entry)
{
	prepare(0);
	memset(tss16, 0, sizeof(tss16));
	tss16[7] = (u16)entry;
	tss16[8] = 2;
	tss16[9] = 0x777;
	tss16[13] = 0x6800;
	tss16[17] = SEL_DATA;
	tss16[18] = SEL_CODE16;
	tss16[19] = SEL_DATA16;
	tss16[20] = SEL_DATA;
	tss16[22] = 0xabcd;
	make_tss(SEL_TSS_B, tss16, 43, 0x81);
}

TEST(task16, "a TSS of 16 bits, twice")
{
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_JMP_TSS), STEP(OP_END) };

	prepare16(ROUTINE(task_b16));
	RUN(s);
	EXPECT(s[0].fault, NO_FAULT);
	EXPECT(s[0].value, SEL_TSS_A);
	EXPECT(s[1].fault, NO_FAULT);
	EXPECT(s[1].value, SEL_TSS_A);
	EXPECT(b_runs, 2);
	EXPECT(b_eax & 0xffff, 0x777);
	/* What was saved when it left; what is behind its words is not the switch's. */
	EXPECT_TRUE(tss16[7] > (u16)ROUTINE(task_b16));
	EXPECT(tss16[9], 0x777);
	EXPECT(tss16[13], 0x6800);
	EXPECT(tss16[18], SEL_CODE16);
	EXPECT(tss16[20], SEL_DATA);
	EXPECT(tss16[22], 0xabcd);
}

TEST(task16_gate, "#GP through a task gate to a TSS of 16 bits: an error code of 16 bits")
{
	struct step s[] = { STEP(OP_GP), STEP(OP_END) };

	prepare16(ROUTINE(task_b16_error));
	gate(13);
	RUN(s);
	EXPECT(s[0].fault, NO_FAULT);
	EXPECT(b_runs, 1);
	EXPECT(b_error, 0xfff8);
	EXPECT(tss16[13], 0x6800);
	EXPECT(tss16[0], SEL_TSS_A);
}

TEST(task_pdptes, "a task whose CR3 leads to bad PDPTEs, or to none, is #TS of the new task")
{
	u64 *pt, *pd, *pdpt = tables_pae(&pt, &pd), *bad = pages(1);
	struct step s[] = {
		STEP(OP_SET_CR4, X86_CR4_PAE),
		STEP(OP_SET_CR3, (u32)(u64)pdpt),
		STEP(OP_SET_CR0, PG | CR0_FLAT),
		STEP(OP_JMP_TSS),
		STEP(OP_GET_CR3),
		STEP(OP_END),
	};
	u32 cr3s[] = { (u32)(u64)bad, 0xd0000000 };

	if (!on_intel())
		skip("with nested paging SVM reads PDPTEs when it walks");
	bad[0] = PTE_P | PTE_W;
	for (u32 i = 0; i < ARRAY_SIZE(cr3s); i++) {
		prepare(ROUTINE(task_b_jmp));
		tss_b.cr3 = cr3s[i];
		RUN(s);
		EXPECT(s[3].fault, TS(0));
		EXPECT(s[4].value, (u32)(u64)pdpt);
		EXPECT(b_runs, 0);
	}
}

static u32 *const fields[] = { &tss_b.cs, &tss_b.ss, &tss_b.ds, &tss_b.fs, &tss_b.ldt };

TEST(task_bad, "what a TSS must not have is #TS of the new task; a bad TSS one of the old")
{
	static const struct {
		u32 field, value, fault;
	} bad[] = {
		{ 0, 0, TS(0) },
		{ 0, SEL_DATA, TS(SEL_DATA) },
		{ 0, 0xfff8, TS(0xfff8) },
		{ 1, 0, TS(0) },
		{ 1, SEL_CODE32, TS(SEL_CODE32) },
		{ 1, SEL_UDATA | 3, TS(SEL_UDATA) },
		{ 2, 0xfff8, TS(0xfff8) },
		{ 3, SEL_TSS_A, TS(SEL_TSS_A) },
		{ 4, SEL_DATA, TS(SEL_DATA) },
		{ 4, 0xfff8, TS(0xfff8) },
	};
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_END) };

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		prepare(ROUTINE(task_b_jmp));
		*fields[bad[i].field] = bad[i].value;
		RUN(s);
		EXPECT(s[0].fault, bad[i].fault);
		EXPECT(b_runs, 0);
	}
	prepare(ROUTINE(task_b_jmp));
	make_tss(SEL_TSS_B, &tss_b, 0x66, 0x89);
	RUN(s);
	EXPECT(s[0].fault, TS(SEL_TSS_B));
	make_tss(SEL_TSS_B, &tss_b, 0x67, 0x8b);
	RUN(s);
	EXPECT(s[0].fault, FAULT(13, SEL_TSS_B));
	EXPECT(b_runs, 0);
}

TEST(task_trap, "the T bit of a TSS is a debug trap before its first instruction")
{
	struct step s[] = { STEP(OP_JMP_TSS), STEP(OP_END) };

	if (!on_intel())
		skip("QEMU TCG does not look at the T bit");
	prepare(ROUTINE(task_b_jmp));
	tss_b.trap = 1;
	asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ul));
	RUN(s);
	EXPECT(s[0].fault, FAULT(1, 0));
	EXPECT(read_dr6() & BIT(15), BIT(15));
	EXPECT(b_runs, 0);
}
