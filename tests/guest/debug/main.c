/* SPDX-License-Identifier: MIT */
/* Debug registers and single steps, above all over what Corbel executes. */
#include "tests/guest/lib/apic.h"

#define DR6_RESET	   0xffff0ff0ul
#define DR6_BS		   BIT(14)
#define DR6_BD		   BIT(13)
#define ENABLE(n, rw, len) (BIT((n)*2) | (u64)((len) << 2 | (rw)) << (16 + (n)*4))
#define EXECUTE		   0u
#define WRITE		   1u
#define ACCESS		   3u

static u64 at[16], dr6;
static u32 traps;

static void on_db(struct frame *f)
{
	if (traps < ARRAY_SIZE(at))
		at[traps] = f->rip;
	traps++;
	dr6 = read_dr6();
	write_dr6(DR6_RESET);
	if ((dr6 & 0xf) && !(dr6 & DR6_BS))
		f->rflags |= X86_EFLAGS_RF;
}

static void prepare(void)
{
	traps = 0;
	dr6 = 0;
	write_dr6(DR6_RESET);
	trap_handler[1] = on_db;
}

TEST(registers, "DR0 to DR3, DR6 and DR7 keep what is written, across exits")
{
	prepare();
	write_dr0(0x1111);
	write_dr1(0x2222);
	write_dr2(0x3333);
	write_dr3(0xffff800000004444);
	write_dr7(0x400);
	outb(0x80, 0);
	asm volatile("sti; nop; cli");
	EXPECT(read_dr0(), 0x1111);
	EXPECT(read_dr1(), 0x2222);
	EXPECT(read_dr2(), 0x3333);
	EXPECT(read_dr3(), 0xffff800000004444);
	EXPECT(read_dr6(), DR6_RESET);
	EXPECT(read_dr7(), 0x400);
}

TEST(dr7_reserved, "the upper halves of DR6 and DR7 are #GP")
{
	EXPECT(TRY("mov %0, %%dr7", : : "r"(BIT(32) | 0x400)), GP);
	EXPECT(TRY("mov %0, %%dr6", : : "r"(BIT(32))), GP);
	EXPECT(read_dr7(), 0x400);
}

/* Steps through code; the addresses behind each instruction, from its start. */
#define STEP(code, ...)                                                                \
	({                                                                             \
		u64 base_;                                                             \
		prepare();                                                             \
		asm volatile("lea 1f(%%rip), %0; pushfq; orq $0x100, (%%rsp); popfq\n" \
			     "1:" code "\npushfq; andq $~0x100, (%%rsp); popfq"        \
			     : "=&r"(base_)                                            \
			     : __VA_ARGS__                                             \
			     : "memory", "rax", "rbx", "rcx", "rdx");                  \
		for (u32 i_ = 0; i_ < traps && i_ < ARRAY_SIZE(at); i_++)              \
			at[i_] -= base_;                                               \
	})

TEST(single_step, "a trap behind each instruction")
{
	STEP("nop; nop; mov $1, %%eax");
	EXPECT(at[0], 1);
	EXPECT(at[1], 2);
	EXPECT(at[2], 7);
	EXPECT(dr6 & DR6_BS, DR6_BS);
}

TEST(step_cpuid, "over CPUID")
{
	STEP("xor %%eax, %%eax; cpuid; nop");
	EXPECT(at[0], 2);
	EXPECT(at[1], 4);
	EXPECT(at[2], 5);
}

TEST(step_io, "over IN and OUT")
{
	STEP("in $0x80, %%al; out %%al, $0x80; nop");
	EXPECT(at[0], 2);
	EXPECT(at[1], 4);
	EXPECT(at[2], 5);
}

TEST(step_msr, "over RDMSR of one that Corbel answers")
{
	STEP("mov $0x1b, %%ecx; rdmsr; nop");
	EXPECT(at[0], 5);
	EXPECT(at[1], 7);
	EXPECT(at[2], 8);
}

TEST(step_mmio, "over an access to the LAPIC")
{
	STEP("mov (%1), %%eax; nop", "r"(APIC_BASE_GPA + APIC_VERSION));
	EXPECT_TRUE(at[0] == 2 || at[0] == 3);
	EXPECT(at[1], at[0] + 1);
}

TEST(step_string, "over REP OUTSB: a trap for each element")
{
	static const u8 bytes[3] = { 0 };
	u64 si = (u64)bytes, base;

	prepare();
	asm volatile(
		"mov $3, %%ecx; mov $0x80, %%edx; lea 1f(%%rip), %1; pushfq; orq $0x100, (%%rsp);"
		"popfq; 1: rep outsb; nop; pushfq; andq $~0x100, (%%rsp); popfq"
		: "+S"(si), "=&r"(base)
		:
		: "memory", "rcx", "rdx");
	EXPECT(si, (u64)bytes + 3);
	EXPECT_TRUE(traps >= 3);
	EXPECT(at[0] - base, 0);
	EXPECT(at[1] - base, 0);
	EXPECT(at[2] - base, 2);
	EXPECT(at[3] - base, 3);
}

TEST(step_wrmsr_cr, "over WRMSR and MOV to CR0 and CR4")
{
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	STEP("mov %1, %%cr0; mov %2, %%cr4; nop", "r"(cr0 | X86_CR0_AM), "r"(cr4 | X86_CR4_PGE));
	EXPECT_TRUE(at[0] == 3 || at[0] == 4);
	EXPECT_TRUE(at[1] - at[0] == 3 || at[1] - at[0] == 4);
	EXPECT(at[2], at[1] + 1);
	EXPECT(read_cr0(), cr0 | X86_CR0_AM);
}

TEST(step_sti, "in the shadow of STI the VM entry is not refused (XSA-308)")
{
	prepare();
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq; sti; nop; cli; nop; pushfq;"
		     "andq $~0x100, (%%rsp); popfq"
		     :
		     :
		     : "memory");
	EXPECT_TRUE(traps >= 4);
	prepare();
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq; mov %0, %%ss; nop; nop; pushfq;"
		     "andq $~0x100, (%%rsp); popfq"
		     :
		     : "r"(SEL_DATA)
		     : "memory");
	EXPECT_TRUE(traps >= 2);
}

static volatile u64 watched;

TEST(data_breakpoint, "a write breakpoint fires behind the write, with its bit in DR6")
{
	prepare();
	write_dr1((u64)&watched);
	write_dr7(0x400 | ENABLE(1, WRITE, 2u));
	watched = 5;
	write_dr7(0x400);
	EXPECT(traps, 1);
	EXPECT(dr6 & 0xf, 2);
}

TEST(data_access, "an access breakpoint fires for reads, one for writes does not")
{
	prepare();
	write_dr0((u64)&watched);
	write_dr7(0x400 | ENABLE(0, WRITE, 2u));
	(void)watched;
	EXPECT(traps, 0);
	write_dr7(0x400 | ENABLE(0, ACCESS, 2u));
	(void)watched;
	write_dr7(0x400);
	EXPECT(traps, 1);
	EXPECT(dr6 & 0xf, 1);
}

TEST(code_breakpoint, "an instruction breakpoint fires before it, also on one that exits")
{
	extern u8 break_here[];

	prepare();
	write_dr2((u64)break_here);
	write_dr7(0x400 | ENABLE(2, EXECUTE, 0u));
	asm volatile("xor %%eax, %%eax; break_here: cpuid" : : : "rax", "rbx", "rcx", "rdx");
	write_dr7(0x400);
	EXPECT(traps, 1);
	EXPECT(at[0], (u64)break_here);
	EXPECT(dr6 & 0xf, 4);
}

TEST(general_detect, "GD in DR7: an access to a debug register is a fault, and clears GD")
{
	u64 value;

	if (!on_intel())
		skip("QEMU TCG has no GD");
	prepare();
	trap_handler[1] = NULL;
	write_dr7(0x400 | BIT(13));
	EXPECT(TRY("mov %%dr3, %0", : "=r"(value)), FAULT(1, 0));
	EXPECT(read_dr6() & DR6_BD, DR6_BD);
	EXPECT(read_dr7(), 0x400);
}

TEST(icebp, "INT1 (F1) goes to vector 1, behind itself")
{
	u64 base;

	if (!on_intel())
		skip("QEMU TCG has no INT1");
	prepare();
	asm volatile("lea 1f(%%rip), %0; 1: .byte 0xf1" : "=r"(base));
	EXPECT(traps, 1);
	EXPECT(at[0] - base, 1);
}

TEST(int3, "INT3 goes to vector 3, behind itself; from CPL 3 too")
{
	EXPECT(USER_TRY(NULL, 0xcc), FAULT(3, 0));
	EXPECT(this_cpu()->fault_rip, WINDOW + 1);
}

TEST(de, "with CR4.DE DR4 and DR5 do not exist, without it they are DR6 and DR7")
{
	u64 value;

	prepare();
	EXPECT(TRY("mov %%db5, %0", : "=r"(value)), NO_FAULT);
	write_cr4(read_cr4() | X86_CR4_DE);
	EXPECT(TRY("mov %%db5, %0", : "=r"(value)), UD);
}

TEST(ac_storm, "#AC upon #AC: misaligned stacks of CPL 3 end in exceptions, not in a hang")
{
	write_cr0(read_cr0() | X86_CR0_AM);
	/* mov eax, [rsp - 7] with AC set */
	static const u8 code[] = { 0x8b, 0x44, 0x24, 0xf9 };
	u32 fault = user_run(code, sizeof(code), NULL, X86_EFLAGS_FIXED | X86_EFLAGS_AC);

	if (fault == NO_FAULT)
		skip("this CPU checks no alignment");
	EXPECT(fault, FAULT(17, 0));
}
