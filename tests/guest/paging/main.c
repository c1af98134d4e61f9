/* SPDX-License-Identifier: MIT */
/* 4-level paging: page sizes, rights, accessed and dirty bits, reserved bits; also where Corbel
 * walks. */
#include "tests/guest/lib/apic.h"

#define SCRATCH 0x3ff

static u32 read_at(const volatile void *p)
{
	u32 value;

	return try_read32(p, &value);
}

/* The same access by Corbel: INS and OUTS walk the guest's tables in software. */
static u32 ins(void *p)
{
	u64 di = (u64)p;

	return TRY("insb", : "+D"(di) : "d"(SCRATCH) : "memory");
}

static u32 outs(const void *p)
{
	u64 si = (u64)p;

	return TRY("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
}

/* Read and write faults of a page with this entry, by the CPU and by Corbel. */
static void expect_faults(u64 entry, u32 reading, u32 writing)
{
	u8 *p = window(WINDOW_FREE, entry);

	EXPECT(read_at(p), reading);
	EXPECT(outs(p), reading);
	EXPECT(try_write32((u32 *)p, 1), writing);
	EXPECT(ins(p), writing);
}

TEST(rights, "present, writable, by the CPU and by Corbel's walk")
{
	u64 page = (u64)pages(1);

	expect_faults(0, PF(0), PF(2));
	expect_faults(page | PTE_P, NO_FAULT, PF(3));
	expect_faults(page | PTE_P | PTE_W, NO_FAULT, NO_FAULT);
	expect_faults(page | PTE_W | PTE_U, PF(0), PF(2));
}

TEST(write_protect, "without CR0.WP the supervisor writes to read-only pages")
{
	u64 page = (u64)pages(1);

	write_cr0(read_cr0() & ~(u64)X86_CR0_WP);
	expect_faults(page | PTE_P, NO_FAULT, NO_FAULT);
	write_cr0(read_cr0() | X86_CR0_WP);
	expect_faults(page | PTE_P, NO_FAULT, PF(3));
}

TEST(user, "at CPL 3 only user pages, and writes only to writable ones")
{
	u64 page = (u64)pages(1);
	u64 at = WINDOW + WINDOW_FREE * PAGE_SIZE;
	struct user_regs r = { .rdi = at };

	window(WINDOW_FREE, page | PTE_P | PTE_W);
	EXPECT(USER_TRY(&r, 0x8b, 0x07), PF(5));
	EXPECT(this_cpu()->cr2, at);
	window(WINDOW_FREE, page | PTE_P | PTE_U);
	r = (struct user_regs){ .rdi = at };
	EXPECT(USER_TRY(&r, 0x8b, 0x07), NO_FAULT);
	r = (struct user_regs){ .rdi = at };
	EXPECT(USER_TRY(&r, 0x89, 0x07), PF(7));
	window(WINDOW_FREE, 0);
	r = (struct user_regs){ .rdi = at };
	EXPECT(USER_TRY(&r, 0x89, 0x07), PF(6));
}

static u32 execute(u64 entry)
{
	void *p = window(WINDOW_FREE, entry);

	return TRY("call *%0", : : "r"(p) : "memory");
}

/* A fetch faults at the target, outside of the TRY: the return address leads back. */
static void fetch_fault(struct frame *f)
{
	struct cpu *c = this_cpu();

	c->fault = FAULT(f->vector, f->error);
	f->rip = *(u64 *)f->rsp;
	f->rsp += 8;
}

TEST(no_execute, "NX forbids fetches once EFER.NXE is set; before that it is reserved")
{
	u8 *page = pages(1);
	u64 efer = rdmsr_or_fail(MSR_EFER);

	NEED(0x80000001, 'd', 20, "NX");
	page[0] = 0xc3;
	trap_handler[14] = fetch_fault;
	EXPECT(execute((u64)page | PTE_P), NO_FAULT);
	wrmsr(MSR_EFER, efer & ~EFER_NXE);
	trap_handler[14] = NULL;
	u32 fault = read_at(window(WINDOW_FREE, (u64)page | PTE_P | PTE_NX));

	EXPECT_TRUE(fault == PF(9) || (!on_intel() && fault == PF(8))); /* QEMU: without P */
	wrmsr(MSR_EFER, efer | EFER_NXE);
	trap_handler[14] = fetch_fault;
	EXPECT(execute((u64)page | PTE_P | PTE_NX), PF(0x11));
	EXPECT(execute((u64)page | PTE_P), NO_FAULT);
	trap_handler[14] = NULL;
	EXPECT(read_at(window(WINDOW_FREE, (u64)page | PTE_P | PTE_NX)), NO_FAULT);
	wrmsr(MSR_EFER, efer);
}

TEST(smep, "SMEP: the supervisor fetches from no user page")
{
	u8 *page = pages(1);

	NEED(7, 'b', 7, "SMEP");
	page[0] = 0xc3;
	EXPECT(execute((u64)page | PTE_P | PTE_U), NO_FAULT);
	write_cr4(read_cr4() | X86_CR4_SMEP);
	trap_handler[14] = fetch_fault;
	EXPECT(execute((u64)page | PTE_P | PTE_U), PF(0x11));
	EXPECT(execute((u64)page | PTE_P), NO_FAULT);
}

TEST(smap, "SMAP: the supervisor reads no user page unless AC is set; Corbel's walk neither")
{
	u64 page = (u64)pages(1);
	void *p = window(WINDOW_FREE, page | PTE_P | PTE_W | PTE_U);

	NEED(7, 'b', 20, "SMAP");
	EXPECT(read_at(p), NO_FAULT);
	write_cr4(read_cr4() | X86_CR4_SMAP);
	EXPECT(read_at(p), PF(1));
	EXPECT(outs(p), PF(1));
	EXPECT(ins(p), PF(3));
	asm volatile("stac");
	EXPECT(read_at(p), NO_FAULT);
	EXPECT(outs(p), NO_FAULT);
	asm volatile("clac");
	EXPECT(read_at(p), PF(1));
}

TEST(accessed_dirty, "accessed and dirty bits, set by the CPU")
{
	u64 page = (u64)pages(1);
	volatile u64 *entry = &window_pte[WINDOW_FREE];
	u32 *p = window(WINDOW_FREE, page | PTE_P | PTE_W);

	EXPECT(*entry & (PTE_A | PTE_D), 0);
	EXPECT(read_at(p), NO_FAULT);
	EXPECT(*entry & (PTE_A | PTE_D), PTE_A);
	EXPECT(try_write32(p, 1), NO_FAULT);
	EXPECT(*entry & (PTE_A | PTE_D), PTE_A | PTE_D);
}

#define MARKS(n) (window_pte[WINDOW_FREE + (n)] & (PTE_A | PTE_D))

TEST(accessed_dirty_emulated, "... and by Corbel, where it executes: at all levels, in both pages")
{
	u64 page = (u64)pages(2), si, di;
	volatile u64 *top = &boot_tables[WINDOW >> 39];
	u8 *p;

	*top &= ~PTE_A;
	window(WINDOW_FREE + 1, (page + PAGE_SIZE) | PTE_P | PTE_W);
	p = window(WINDOW_FREE, page | PTE_P | PTE_W);
	EXPECT(outs(p), NO_FAULT);
	EXPECT(MARKS(0), PTE_A);
	EXPECT(*top & PTE_A, PTE_A);
	EXPECT(ins(p), NO_FAULT);
	EXPECT(MARKS(0), PTE_A | PTE_D);
	EXPECT(MARKS(1), 0);
	si = (u64)p + PAGE_SIZE - 1;
	EXPECT(TRY("outsw", : "+S"(si) : "d"(SCRATCH - 1) : "memory"), NO_FAULT);
	EXPECT(MARKS(1), PTE_A);
	window(WINDOW_FREE, page | PTE_P | PTE_W);
	di = (u64)p + PAGE_SIZE - 1;
	EXPECT(TRY("insw", : "+D"(di) : "d"(SCRATCH - 1) : "memory"), NO_FAULT);
	EXPECT(MARKS(0), PTE_A | PTE_D);
	EXPECT(MARKS(1), PTE_A | PTE_D);
	/* from a device, whose register the CPU does not get to read: it has not seen the other end
	 */
	window(WINDOW_FREE, page | PTE_P | PTE_W);
	si = IOAPIC_GPA;
	di = (u64)p;
	EXPECT(TRY("movsl", : "+S"(si), "+D"(di) : : "memory"), NO_FAULT);
	EXPECT(MARKS(0), PTE_A | PTE_D);
	/* who may not write leaves no D */
	window(WINDOW_FREE, page | PTE_P);
	EXPECT(ins(p), PF(3));
	EXPECT(MARKS(0) & PTE_D, 0);
}

TEST(reserved, "address bits above the width are reserved")
{
	u32 width = cpuid(0x80000008, 0).eax & 0xff;
	u64 page = (u64)pages(1);
	u32 fault;

	if (width >= 52)
		skip("this CPU has 52 bits");
	fault = read_at(window(WINDOW_FREE, page | PTE_P | BIT(51)));
	EXPECT_TRUE(fault == PF(9) || (!on_intel() && fault == PF(8))); /* QEMU: without P */
	EXPECT(outs((void *)(WINDOW + WINDOW_FREE * PAGE_SIZE)), PF(9));
}

/* boot_tables' last entry: 2 MiB and 1 GiB leaves at -512 GiB, with the memory at 0. */
static u8 *big(u64 pdpt_entry, u64 pd_entry)
{
	u64 *pdpt = pages(1), *pd = pages(1);

	pdpt[0] = pd_entry ? (u64)pd | PTE_P | PTE_W : pdpt_entry;
	pd[0] = pd_entry;
	boot_tables[511] = (u64)pdpt | PTE_P | PTE_W;
	write_cr3((u64)boot_tables);
	return (u8 *)(511ul << 39 | 0xfffful << 48);
}

TEST(two_mib, "pages of 2 MiB: the right memory, reserved bits")
{
	u32 *low = pages(1);
	u8 *at = big(0, 0x400000 | PTE_P | PTE_W | PTE_PS);

	*low = 0x12345;
	EXPECT(*(volatile u32 *)(at + (u64)low - 0x400000), 0x12345);
	at = big(0, 0x402000 | PTE_P | PTE_W | PTE_PS);
	u32 fault = read_at(at);

	EXPECT_TRUE(fault == PF(9) || (!on_intel() && fault == PF(8)));
	boot_tables[511] = 0;
}

TEST(one_gib, "pages of 1 GiB where CPUID shows them, else reserved")
{
	u32 *low = pages(1);
	u8 *at = big(PTE_P | PTE_W | PTE_PS, 0);
	u32 value = 0, fault;

	*low = 0x54321;
	fault = try_read32(at + (u64)low, &value);
	if (has(0x80000001, 'd', 26)) {
		EXPECT(fault, NO_FAULT);
		EXPECT(value, 0x54321);
		EXPECT(outs(at + (u64)low), NO_FAULT);
	} else {
		EXPECT_TRUE(fault != NO_FAULT);
	}
	boot_tables[511] = 0;
}

TEST(stale, "a mapping that changes is seen after INVLPG, MOV CR3 and a toggle of CR4.PGE")
{
	u32 *a = pages(1), *b = pages(1);
	volatile u32 *p = window(WINDOW_FREE, (u64)a | PTE_P | PTE_W);

	*a = 1, *b = 2;
	EXPECT(*p, 1);
	window(WINDOW_FREE, (u64)b | PTE_P | PTE_W);
	EXPECT(*p, 2);
	*(volatile u64 *)&window_pte[WINDOW_FREE] = (u64)a | PTE_P | PTE_W;
	write_cr3(read_cr3());
	EXPECT(*p, 1);
	*(volatile u64 *)&window_pte[WINDOW_FREE] = (u64)b | PTE_P | PTE_W;
	write_cr4(read_cr4() ^ X86_CR4_PGE);
	EXPECT(*p, 2);
}

TEST(cr0_paging_bits, "CR3 reads back; PCID where it is shown")
{
	u64 cr3 = read_cr3();

	EXPECT(cr3, (u64)boot_tables);
	if (!has(1, 'c', 17)) {
		EXPECT(try_cr4(read_cr4() | X86_CR4_PCIDE), GP);
		return;
	}
	write_cr4(read_cr4() | X86_CR4_PCIDE);
	EXPECT(try_cr3(cr3 | 5), NO_FAULT);
	EXPECT(read_cr3(), cr3 | 5);
	EXPECT(try_cr3(cr3 | 5 | BIT(63)), NO_FAULT);
	EXPECT(read_cr3(), cr3 | 5);
	EXPECT(try_cr3(cr3), NO_FAULT);
	write_cr4(read_cr4() & ~(u64)X86_CR4_PCIDE);
}

TEST(non_canonical, "a non-canonical address is #GP")
{
	EXPECT(read_at((void *)0x0000800000000000), GP);
	EXPECT(try_write32((void *)0xffff7ffffffffffc, 0), GP);
	EXPECT(outs((void *)0xffff7ffffffffffc), GP);
}
