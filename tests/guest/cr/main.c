/* SPDX-License-Identifier: MIT */
/* Control registers in 64-bit mode: what can be set, what is #GP, what reads back. */
#include "tests/guest/lib/apic.h"

TEST(cr0_reserved, "CR0: PG without PE, NW without CD, upper half")
{
	u64 cr0 = read_cr0();

	EXPECT(try_cr0(cr0 & ~(u64)X86_CR0_PE), GP);
	EXPECT(try_cr0(cr0 | X86_CR0_NW), GP);
	EXPECT(try_cr0((cr0 ^ X86_CR0_AM) | BIT(32)), GP);
	EXPECT(try_cr0((cr0 ^ X86_CR0_AM) | BIT(63)), GP);
	EXPECT(read_cr0(), cr0);
	if (on_intel()) /* QEMU TCG ignores the upper half where nothing else changes */
		EXPECT(try_cr0(cr0 | BIT(32)), GP);
}

TEST(cr0_paging_in_long_mode, "64-bit code cannot turn paging off, nor PAE")
{
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	EXPECT(try_cr0(cr0 & ~(u64)X86_CR0_PG), GP);
	EXPECT(try_cr4(cr4 & ~(u64)X86_CR4_PAE), GP);
	EXPECT(read_cr0(), cr0);
	EXPECT(read_cr4(), cr4);
}

TEST(cr0_bits, "each bit of CR0 that the guest owns reads back")
{
	static const u64 bits[] = { X86_CR0_MP, X86_CR0_EM, X86_CR0_TS, X86_CR0_NE,
				    X86_CR0_WP, X86_CR0_AM, X86_CR0_CD, X86_CR0_CD | X86_CR0_NW };
	u64 cr0 = read_cr0();

	for (u32 i = 0; i < ARRAY_SIZE(bits); i++) {
		EXPECT(try_cr0(cr0 ^ bits[i]), NO_FAULT);
		EXPECT(read_cr0(), cr0 ^ bits[i]);
		EXPECT(try_cr0(cr0), NO_FAULT);
		EXPECT(read_cr0(), cr0);
	}
	EXPECT(try_cr0(cr0 & ~(u64)X86_CR0_ET), NO_FAULT);
	EXPECT(read_cr0(), cr0); /* ET is always set */
}

TEST(cr0_cache_disable, "CR0.CD a thousand times, with work in between")
{
	volatile u32 x = 0;
	u64 cr0 = read_cr0();

	for (u32 i = 0; i < 500; i++) {
		write_cr0(cr0 | X86_CR0_CD);
		x++;
		write_cr0(cr0);
		x++;
	}
	EXPECT(x, 1000);
	EXPECT(read_cr0(), cr0);
}

TEST(ts_and_em, "TS gives #NM, EM gives #UD, until they are clear again")
{
	u64 cr0 = read_cr0();

	write_cr0(cr0 | X86_CR0_TS);
	EXPECT(TRY("fnop", :), NM);
	EXPECT(TRY("movaps %%xmm0, %%xmm1", :), NM);
	asm volatile("clts");
	EXPECT(read_cr0(), cr0);
	EXPECT(TRY("fnop", :), NO_FAULT);
	write_cr0(cr0 | X86_CR0_EM);
	EXPECT(TRY("movaps %%xmm0, %%xmm1", :), UD);
	write_cr0(cr0);
	EXPECT(TRY("movaps %%xmm0, %%xmm1", :), NO_FAULT);
}

TEST(lmsw, "LMSW sets MP, EM, TS, and PE never clears; from a register and from memory")
{
	u64 cr0 = read_cr0();
	u16 low = (u16)((cr0 & ~0xful) | X86_CR0_TS | X86_CR0_PE);

	asm volatile("lmsw %0" : : "r"(low));
	EXPECT(read_cr0() & 0xf, X86_CR0_TS | X86_CR0_PE);
	EXPECT(read_cr0() & ~0xful, cr0 & ~0xful);
	low = (u16)(X86_CR0_MP | X86_CR0_EM);
	asm volatile("lmsw %0" : : "m"(low));
	EXPECT(read_cr0() & 0xf, X86_CR0_MP | X86_CR0_EM | X86_CR0_PE);
	asm volatile("lmsw %0" : : "r"((u16)0));
	EXPECT(read_cr0() & 0xf, X86_CR0_PE);
	write_cr0(cr0);
}

static void smsw(u64 cr0)
{
	u16 word = 0;
	u32 dword = 0;
	u64 qword = 0;

	asm volatile("smsw %0" : "=m"(word));
	EXPECT(word, cr0 & 0xffff);
	asm volatile("smsw %k0" : "+r"(dword));
	EXPECT(dword, (u32)cr0);
	asm volatile("smsw %q0" : "+r"(qword));
	EXPECT(qword, cr0);
	qword = ~0ull;
	asm volatile("smsw %w0" : "+r"(qword));
	EXPECT(qword, ~0xffffull | (cr0 & 0xffff));
}

TEST(smsw, "SMSW to registers of all sizes and to memory")
{
	smsw(read_cr0());
}

TEST(smsw_cache_disable, "SMSW and LMSW while CR0.CD is set, which the host does not do")
{
	u64 cr0 = read_cr0();
	u16 word = X86_CR0_TS | X86_CR0_PE;

	write_cr0(cr0 | X86_CR0_CD);
	EXPECT(read_cr0(), cr0 | X86_CR0_CD);
	smsw(cr0 | X86_CR0_CD);
	asm volatile("lmsw %0" : : "m"(word));
	EXPECT(read_cr0(), (cr0 & ~0xful) | X86_CR0_CD | word);
	asm volatile("clts");
	EXPECT(read_cr0(), (cr0 & ~0xful) | X86_CR0_CD | X86_CR0_PE);
	write_cr0(cr0);
}

TEST(smsw_fault, "SMSW to a page that is not there is a page fault")
{
	u64 cr0 = read_cr0();
	u8 *at = window(WINDOW_FREE, 0);

	EXPECT(TRY("smsw (%0)", : : "r"(at) : "memory"), PF(2));
	EXPECT(this_cpu()->cr2, (u64)at);
	EXPECT(TRY("lmsw (%0)", : : "r"(at) : "memory"), PF(0));
	write_cr0(cr0 | X86_CR0_CD);
	EXPECT(TRY("smsw (%0)", : : "r"(at) : "memory"), PF(2));
	EXPECT(this_cpu()->cr2, (u64)at);
	EXPECT(TRY("lmsw (%0)", : : "r"(at) : "memory"), PF(0));
	write_cr0(cr0);
}

TEST(cr3_reserved, "CR3: bits above the physical address width")
{
	u32 width = cpuid(0x80000008, 0).eax & 0xff;
	u64 cr3 = read_cr3();

	if (!on_intel())
		skip("QEMU TCG takes any CR3, and SVM does not intercept it here");
	if (width < 52)
		EXPECT(try_cr3(cr3 | BIT(width)), GP);
	EXPECT(try_cr3(cr3 | BIT(62)), GP);
	EXPECT(read_cr3(), cr3);
}

TEST(cr4_reserved, "CR4: VMXE, LA57, reserved bits and the upper half are #GP")
{
	static const u64 bits[] = { BIT(12), BIT(13), BIT(14), BIT(15), BIT(22),
				    BIT(23), BIT(24), BIT(31), BIT(32), BIT(63) };
	u64 cr4 = read_cr4();

	for (u32 i = 0; i < ARRAY_SIZE(bits); i++)
		EXPECT(try_cr4(cr4 | bits[i]), GP);
	EXPECT(read_cr4(), cr4);
}

TEST(cr4_bits, "CR4: bits of features that CPUID shows, and only these")
{
	static const struct {
		u64 cr4;
		u32 leaf;
		char reg;
		u32 bit;
	} features[] = {
		{ X86_CR4_OSXSAVE, 1, 'c', 26 }, { X86_CR4_FSGSBASE, 7, 'b', 0 },
		{ X86_CR4_SMEP, 7, 'b', 7 },	 { X86_CR4_SMAP, 7, 'b', 20 },
		{ X86_CR4_UMIP, 7, 'c', 2 },	 { X86_CR4_TSD, 1, 'd', 4 },
		{ X86_CR4_DE, 1, 'd', 2 },	 { X86_CR4_PGE, 1, 'd', 13 },
		{ X86_CR4_PSE, 1, 'd', 3 },	 { X86_CR4_VME, 1, 'd', 1 },
		{ X86_CR4_PCIDE, 1, 'c', 17 },
	};
	u64 cr4 = read_cr4();

	for (u32 i = 0; i < ARRAY_SIZE(features); i++) {
		bool there = has(features[i].leaf, features[i].reg, features[i].bit);

		EXPECT(try_cr4(cr4 | features[i].cr4), there ? NO_FAULT : GP);
		EXPECT(read_cr4(), there ? cr4 | features[i].cr4 : cr4);
		EXPECT(try_cr4(cr4), NO_FAULT);
	}
}

TEST(cr4_time_stamp, "CR4.TSD keeps RDTSC from CPL 3")
{
	EXPECT(USER_TRY(NULL, 0x0f, 0x31), NO_FAULT);
	write_cr4(read_cr4() | X86_CR4_TSD);
	EXPECT(USER_TRY(NULL, 0x0f, 0x31), GP);
	EXPECT(TRY("rdtsc", : : : "rax", "rdx"), NO_FAULT);
}

TEST(cr8, "CR8 is bits 7:4 of TPR, both ways; more than 4 bits are #GP")
{
	u64 value;

	asm volatile("mov %0, %%cr8" : : "r"(5ul));
	EXPECT(apic_read(APIC_TPR), 0x50);
	apic_write(APIC_TPR, 0x93);
	asm volatile("mov %%cr8, %0" : "=r"(value));
	EXPECT(value, 9);
	EXPECT(TRY("mov %0, %%cr8", : : "r"(16ul)), GP);
	EXPECT(apic_read(APIC_TPR), 0x93);
}

TEST(cr_numbers, "CR1, CR5 to CR7 and CR9 on do not exist")
{
	EXPECT(TRY(".byte 0x0f, 0x20, 0xc8", : : : "rax"), UD);
	EXPECT(TRY(".byte 0x0f, 0x20, 0xe8", : : : "rax"), UD);
	EXPECT(TRY(".byte 0x0f, 0x22, 0xf0", : : : "rax"), UD);
	EXPECT(TRY(".byte 0x44, 0x0f, 0x20, 0xc8", : : : "rax"), UD);
}

TEST(user_mode, "at CPL 3 all of this is #GP")
{
	EXPECT(USER_TRY(NULL, 0x0f, 0x20, 0xc0), GP);	    /* mov rax, cr0 */
	EXPECT(USER_TRY(NULL, 0x0f, 0x22, 0xc0), GP);	    /* mov cr0, rax */
	EXPECT(USER_TRY(NULL, 0x0f, 0x22, 0xd8), GP);	    /* mov cr3, rax */
	EXPECT(USER_TRY(NULL, 0x0f, 0x22, 0xe0), GP);	    /* mov cr4, rax */
	EXPECT(USER_TRY(NULL, 0x44, 0x0f, 0x22, 0xc0), GP); /* mov cr8, rax */
	EXPECT(USER_TRY(NULL, 0x0f, 0x06), GP);		    /* clts */
	EXPECT(USER_TRY(NULL, 0x0f, 0x01, 0xf0), GP);	    /* lmsw ax */
	EXPECT(USER_TRY(NULL, 0x0f, 0x01, 0xe0), NO_FAULT); /* smsw eax */
}
