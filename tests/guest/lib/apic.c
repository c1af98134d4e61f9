/* SPDX-License-Identifier: MIT */
#include "tests/guest/lib/apic.h"

static volatile u32 *reg(u32 offset)
{
	return (volatile u32 *)(APIC_BASE_GPA + offset);
}

u32 apic_read(u32 offset)
{
	return this_cpu()->x2apic ? (u32)rdmsr(MSR_X2APIC_BASE + offset / 16) : *reg(offset);
}

void apic_write(u32 offset, u32 value)
{
	if (this_cpu()->x2apic)
		wrmsr(MSR_X2APIC_BASE + offset / 16, value);
	else
		*reg(offset) = value;
}

void apic_icr(u32 dest, u32 low)
{
	if (this_cpu()->x2apic) {
		wrmsr(MSR_X2APIC_BASE + APIC_ICR / 16, low | (u64)dest << 32);
		return;
	}
	*reg(APIC_ICR_HIGH) = dest << 24;
	*reg(APIC_ICR) = low;
}

void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

void apic_mode(bool x2apic)
{
	u64 base = rdmsr(MSR_APIC_BASE) & ~(APIC_BASE_ENABLE | APIC_BASE_X2APIC);

	if (x2apic == this_cpu()->x2apic)
		return;
	if (!x2apic)
		wrmsr(MSR_APIC_BASE, base);
	wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
	if (x2apic)
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	this_cpu()->x2apic = x2apic;
	apic_defaults();
}

void apic_defaults(void)
{
	/* what the last case left in service or pending */
	for (u32 i = 0; i < 256 && this_cpu()->online; i++) {
		u32 left = 0;

		for (u32 r = 0; r < 8; r++)
			left |= apic_read(APIC_ISR + r * 16);
		if (!left)
			break;
		apic_eoi();
	}
	apic_write(APIC_SVR, APIC_SVR_ENABLE | 0xff);
	apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_write(APIC_TMICT, 0);
	apic_write(APIC_LVT_ERROR, APIC_LVT_MASKED);
	apic_write(APIC_LVT_LINT0, APIC_LVT_MASKED);
	apic_write(APIC_LVT_LINT1, APIC_LVT_MASKED);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_TDCR, 0xb); /* divide by 1 */
	apic_write(APIC_ESR, 0);
}

static bool vector_bit(u32 set, u8 vector)
{
	return apic_read(set + vector / 32 * 16) >> vector % 32 & 1;
}

bool apic_pending(u8 vector)
{
	return vector_bit(APIC_IRR, vector);
}

bool apic_in_service(u8 vector)
{
	return vector_bit(APIC_ISR, vector);
}

static volatile u32 *ioapic(u32 offset)
{
	return (volatile u32 *)(IOAPIC_GPA + offset);
}

u32 ioapic_read(u8 index)
{
	*ioapic(0) = index;
	return *ioapic(0x10);
}

void ioapic_write(u8 index, u32 value)
{
	*ioapic(0) = index;
	*ioapic(0x10) = value;
}

void ioapic_entry(u32 pin, u64 entry)
{
	ioapic_write((u8)(0x10 + pin * 2), APIC_LVT_MASKED);
	ioapic_write((u8)(0x11 + pin * 2), (u32)(entry >> 32));
	ioapic_write((u8)(0x10 + pin * 2), (u32)entry);
}

u64 ioapic_entry_read(u32 pin)
{
	return ioapic_read((u8)(0x10 + pin * 2)) | (u64)ioapic_read((u8)(0x11 + pin * 2)) << 32;
}
