/* SPDX-License-Identifier: MIT */
/*
 * All the ways in which a VM restarts itself, and what it finds then. The last case powers it off.
 */
#include "tests/guest/lib/apic.h"

#define MARK 0xd00000ul /* memory that nothing else uses */

TEST_RESETS(register_cf9, "the reset register: memory is clear, registers and LAPIC as at power-on")
{
	if (!reborn) {
		*(volatile u64 *)MARK = 1;
		write_dr0(0x1234);
		wrmsr(MSR_LSTAR, 0x5678);
		apic_write(APIC_LVT_ERROR, 0x33);
		reset_follows();
		outb(0xcf9, 6);
		return;
	}
	EXPECT(*(volatile u64 *)MARK, 0);
	EXPECT(read_dr0(), 0);
	EXPECT(rdmsr_or_fail(MSR_LSTAR), 0);
	EXPECT(apic_read(APIC_LVT_ERROR) & 0xff, 0);
}

TEST_RESETS(keyboard_controller, "the keyboard controller's command")
{
	if (!reborn) {
		reset_follows();
		outb(0x64, 0xfe);
		return;
	}
	EXPECT_TRUE(reborn);
}

TEST_RESETS(triple_fault, "a triple fault with an IDT of limit 0")
{
	struct desc_ptr none = { 0, 0 };

	if (!reborn) {
		reset_follows();
		asm volatile("lidt %0; ud2" : : "m"(none));
		return;
	}
	EXPECT_TRUE(reborn);
}

TEST_RESETS(init_to_self, "INIT to the first vCPU")
{
	if (!reborn) {
		reset_follows();
		apic_icr(0, APIC_INIT << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
		delay_us(100000);
		return;
	}
	EXPECT_TRUE(reborn);
}

TEST(no_reset,
     "0xcf9 without the reset bit, other keyboard commands and other sleep states do nothing")
{
	outb(0xcf9, 2);
	outl(0xcf8, 0x80000600); /* how kernels look for PCI: not a byte at 0xcf9 */
	outb(0x64, 0xd1);
	outb(0x600, 0x05 << 2);	       /* no enable bit */
	outb(0x600, 0x20 | 0x03 << 2); /* S3 */
	EXPECT(inb(0x600), 0);
}

TEST_ENDS(power_off, "the ACPI sleep register powers the VM off", "ended: power-off")
{
	outb(0x600, 0x20 | 0x05 << 2);
}
