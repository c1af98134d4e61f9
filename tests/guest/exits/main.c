/* SPDX-License-Identifier: MIT */
/* Instructions that exit, each by itself: what they do, where they are refused, what they leave. */
#include "tests/guest/lib/apic.h"

#define KVM_ENOSYS   1000
#define UNCLAIMED    0x2e0 /* a port where nothing is */
#define TIMER_VECTOR 0x40

#define HYPERCALL(bytes)                                  \
	({                                                \
		u64 result_ = 12345;                      \
		u32 fault_ = TRY(".byte " bytes,          \
				 : "+a"(result_)          \
				 : "b"(0), "c"(0), "d"(0) \
				 : "memory");             \
		EXPECT(fault_, NO_FAULT);                 \
		result_;                                  \
	})

TEST(hypercall, "the vendor's own hypercall says that it knows no number")
{
	u64 result = on_intel() ? HYPERCALL("0x0f, 0x01, 0xc1") : HYPERCALL("0x0f, 0x01, 0xd9");

	EXPECT(result, (u64)-KVM_ENOSYS);
}

TEST(foreign_hypercall, "the other vendor's is #UD")
{
	if (on_intel())
		EXPECT(TRY(".byte 0x0f, 0x01, 0xd9", :), UD);
	else
		EXPECT(TRY(".byte 0x0f, 0x01, 0xc1", :), UD);
}

TEST(vmx_instructions, "VMX is not there: #UD at CPL 0")
{
	u64 mem[2] = { 0 };

	EXPECT(TRY("vmxon %0", : : "m"(mem)), UD);
	EXPECT(TRY("vmclear %0", : : "m"(mem)), UD);
	EXPECT(TRY("vmptrld %0", : : "m"(mem)), UD);
	EXPECT(TRY("vmptrst %0", : "+m"(mem)), UD);
	EXPECT(TRY("vmlaunch", :), UD);
	EXPECT(TRY("vmresume", :), UD);
	EXPECT(TRY("vmxoff", :), UD);
	EXPECT(TRY("vmread %%rax, %%rcx", :), UD);
	EXPECT(TRY("vmwrite %%rax, %%rcx", :), UD);
	EXPECT(TRY("invept %0, %%rax", : : "m"(mem)), UD);
	EXPECT(TRY("invvpid %0, %%rax", : : "m"(mem)), UD);
	EXPECT(TRY("vmfunc", : : "a"(0), "c"(0)), UD);
}

TEST(svm_instructions, "SVM is not there: #UD at CPL 0")
{
	EXPECT(TRY("vmrun", : : "a"(0)), UD);
	EXPECT(TRY("vmload", : : "a"(0)), UD);
	EXPECT(TRY("vmsave", : : "a"(0)), UD);
	EXPECT(TRY("stgi", :), UD);
	EXPECT(TRY("clgi", :), UD);
	EXPECT(TRY("skinit", : : "a"(0)), UD);
	EXPECT(TRY("invlpga", : : "a"(0), "c"(0)), UD);
}

TEST(virt_instructions_user, "and at CPL 3 they kill the program at most")
{
	u32 fault = USER_TRY(NULL, 0x0f, 0x01, 0xc2); /* vmlaunch */

	EXPECT_TRUE(fault == UD || fault == GP);
	fault = USER_TRY(NULL, 0x0f, 0x01, 0xd8); /* vmrun */
	EXPECT_TRUE(fault == UD || fault == GP);
	fault = USER_TRY(NULL, 0x0f, 0x01, 0xdd); /* clgi */
	EXPECT_TRUE(fault == UD || fault == GP);
	EXPECT(USER_TRY(NULL, 0x0f, 0xaa), UD); /* rsm */
}

TEST(monitor_mwait, "MONITOR and MWAIT are not offered")
{
	EXPECT(has(1, 'c', 3), 0);
	EXPECT(TRY("monitor", : : "a"(0x1000), "c"(0), "d"(0)), UD);
	EXPECT(TRY("mwait", : : "a"(0), "c"(0)), UD);
}

TEST(rdpmc, "no counters: RDPMC is #GP")
{
	EXPECT(TRY("rdpmc", : : "c"(0) : "rax", "rdx"), GP);
	write_cr4(read_cr4() | X86_CR4_PCE);
	EXPECT(USER_TRY(NULL, 0x0f, 0x33), GP);
}

TEST(invd_wbinvd, "INVD and WBINVD lose nothing")
{
	volatile u32 *p = pages(1);

	for (u32 i = 0; i < 1024; i++)
		p[i] = i;
	EXPECT(TRY("invd", : : : "memory"), NO_FAULT);
	EXPECT(TRY("wbinvd", : : : "memory"), NO_FAULT);
	for (u32 i = 0; i < 1024; i++)
		EXPECT(p[i], i);
	EXPECT(USER_TRY(NULL, 0x0f, 0x08), GP);
	EXPECT(USER_TRY(NULL, 0x0f, 0x09), GP);
}

TEST(invlpg, "INVLPG of any address, canonical or not, and at CPL 3")
{
	invlpg((void *)0x0000800000000000);
	invlpg((void *)0x8000000000000000);
	invlpg((void *)~0ul);
	invlpg(NULL);
	EXPECT(USER_TRY(NULL, 0x0f, 0x01, 0x38), GP);
}

TEST(pause, "PAUSE a thousand times")
{
	u32 n = 0;

	for (; n < 1000; n++)
		cpu_pause();
	EXPECT(n, 1000);
}

TEST(unclaimed_port, "a port where nothing is reads as ones, of each size")
{
	u64 rax = 0x1122334455667788;

	asm volatile("in %%dx, %%al" : "+a"(rax) : "d"(UNCLAIMED));
	EXPECT(rax, 0x11223344556677ff);
	asm volatile("in %%dx, %%ax" : "+a"(rax) : "d"(UNCLAIMED));
	EXPECT(rax, 0x112233445566ffff);
	asm volatile("in %%dx, %%eax" : "+a"(rax) : "d"(UNCLAIMED));
	EXPECT(rax, 0xffffffff);
	outl(UNCLAIMED, 0);
	outw(0xffff, 0); /* the last port, and beyond */
	EXPECT(inw(0xffff), 0xffff);
	EXPECT(inl(0xfffe), 0xffffffff);
}

TEST(port_immediate, "IN and OUT with the port in the instruction")
{
	u64 rax = ~0ull;

	asm volatile("out %%al, $0x80; in $0x80, %%al" : "+a"(rax) : :);
	EXPECT(rax, ~0ull);
	asm volatile("mov $0x12, %%al; out %%al, $0x70; in $0xe0, %%eax" : "+a"(rax) : :);
	EXPECT(rax, 0xffffffff);
}

TEST(all_ports, "every 31st port read and written in three sizes: Corbel stays")
{
	u32 n = 0;

	for (u32 port = 0; port < 0x10000; port += 31) {
		if ((port >= 0xf0 && port < 0xf8) || port == 0x64 ||
		    (port >= 0x20 && port < 0x70) || (port >= 0xcf0 && port < 0xd00) ||
		    (port >= 0x3f0 && port < 0x400) || (port >= 0x5f0 && port < 0x610))
			continue; /* they print, or end the VM */
		outb((u16)port, inb((u16)port));
		outw((u16)port, inw((u16)port));
		outl((u16)port, inl((u16)port));
		n++;
	}
	EXPECT_TRUE(n > 2000);
}

TEST(device_border, "a wide access over a device's end is one of single bytes")
{
	outb(0x3ff, 0x5a); /* the UART's last register */
	EXPECT(inw(0x3ff), 0xff5a);
	outw(0x3ff, 0x1234);
	EXPECT(inb(0x3ff), 0x34);
}

TEST(port_user, "at CPL 3, without IOPL and bitmap, ports are #GP")
{
	EXPECT(USER_TRY(NULL, 0xe4, 0x80), GP);
	EXPECT(USER_TRY(NULL, 0xe6, 0x80), GP);
	EXPECT(USER_TRY(NULL, 0x6c), GP);
}

TEST(hlt, "HLT ends with an interrupt, and only with one")
{
	u64 start = rdtsc();

	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	apic_write(APIC_TMICT, tsc_khz); /* a few ms, whatever its rate */
	asm volatile("sti; hlt; cli" : : : "memory");
	EXPECT(this_cpu()->irqs[TIMER_VECTOR], 1);
	EXPECT(this_cpu()->irq_total, 1);
	EXPECT_TRUE(rdtsc() - start > tsc_khz / 2);
	EXPECT(USER_TRY(NULL, 0xf4), GP);
}

TEST(hlt_pending, "HLT with an interrupt pending does not wait")
{
	apic_icr(0, TIMER_VECTOR);
	asm volatile("sti; hlt; cli" : : : "memory");
	EXPECT(this_cpu()->irqs[TIMER_VECTOR], 1);
}

static u32 try_xsetbv(u32 index, u64 value)
{
	return TRY("xsetbv", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

TEST(xsetbv, "XSETBV: x87 always, AVX needs SSE, nothing that CPUID does not show")
{
	u64 all;

	NEED(1, 'c', 26, "XSAVE");
	EXPECT(try_xsetbv(0, 1), UD); /* OSXSAVE is clear */
	EXPECT(TRY("xgetbv", : : "c"(0) : "rax", "rdx"), UD);
	write_cr4(read_cr4() | X86_CR4_OSXSAVE);
	all = cpuid(0xd, 0).eax | (u64)cpuid(0xd, 0).edx << 32;
	EXPECT(try_xsetbv(0, 0), GP);
	EXPECT(try_xsetbv(0, 2), GP);
	EXPECT(try_xsetbv(0, 5), GP);
	EXPECT(try_xsetbv(1, 1), GP);
	EXPECT(try_xsetbv(~0u, 1), GP);
	for (u32 bit = 0; bit < 64;
	     bit++) /* QEMU 7.2 has no XSETBV intercept: it looks at its own */
		if (!(all >> bit & 1) && (on_intel() || bit > 17))
			EXPECT(try_xsetbv(0, all | 1ull << bit), GP);
	for (u32 bit = 5; bit < 8 && all >> bit & 1; bit++)
		EXPECT(try_xsetbv(0, 7 | 1ull << bit), GP);
	EXPECT(try_xsetbv(0, all), NO_FAULT);
	EXPECT(xgetbv0(), all);
	EXPECT(try_xsetbv(0, 3), NO_FAULT);
	EXPECT(xgetbv0(), 3);
	EXPECT(try_xsetbv(0, 1), NO_FAULT);
	EXPECT(USER_TRY((&(struct user_regs){ .rax = 3 }), 0x0f, 0x01, 0xd1), GP);
	EXPECT(xgetbv0(), 1);
}

TEST(descriptor_tables, "SGDT, SIDT, STR, SLDT, and their loads")
{
	struct desc_ptr gdtr, idtr;
	u16 tr, ldt;

	asm volatile("sgdt %0; sidt %1; str %2; sldt %3"
		     : "=m"(gdtr), "=m"(idtr), "=m"(tr), "=m"(ldt));
	EXPECT(gdtr.base, (u64)gdt);
	EXPECT(gdtr.limit, sizeof(gdt) - 1);
	EXPECT(idtr.limit, 4095);
	EXPECT(tr, SEL_TSS);
	EXPECT(ldt, 0);
	EXPECT(TRY("lldt %w0", : : "r"(SEL_DATA)), FAULT(13, SEL_DATA));
	EXPECT(TRY("ltr %w0", : : "r"(SEL_TSS)), FAULT(13, SEL_TSS)); /* it is busy */
}

TEST(segment_limits, "a selector beyond the GDT is #GP with the selector")
{
	EXPECT(TRY("mov %w0, %%ds", : : "r"(0x200)), FAULT(13, 0x200));
	EXPECT(TRY("mov %w0, %%fs", : : "r"(SEL_TSS)), FAULT(13, SEL_TSS));
	EXPECT(TRY("mov %w0, %%ss", : : "r"(SEL_CODE64)), FAULT(13, SEL_CODE64));
}
