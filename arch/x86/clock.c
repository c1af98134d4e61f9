/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "lib/log.h"

#define PM_HZ  3579545u
#define PIT_HZ 1193182u
#define PM_SPAN	 (PM_HZ / 100) /* 10 ms */
#define PIT_SPAN (PIT_HZ / 100)

u32 tsc_khz = 1000000;
bool clock_has_deadline;
u64 clock_apic_mult = 1ull << 32;
const char *clock_source = "nothing (1 GHz assumed)";
static u64 ns_mult = 1ull << 32;  /* nanoseconds per TSC tick, times 2^32 */
static u64 tsc_mult = 1ull << 32; /* TSC ticks per nanosecond, times 2^32 */

static volatile u32 *pm_mmio;

static u32 pm_read(void)
{
	u32 v = acpi.pm_timer.space == 1 ? inl((u16)acpi.pm_timer.address) : *pm_mmio;

	return v & 0xffffff; /* the low 24 bits exist everywhere */
}

/* Wait for `span` ticks of the PM timer; false if it doesn't tick. */
static bool pm_wait(u32 span)
{
	u32 start = pm_read();

	for (u64 tries = 0; ((pm_read() - start) & 0xffffff) < span; tries++)
		if (tries > 10000000 || (tries > 100000 && pm_read() == start))
			return false;
	return true;
}

/* Counter 2 of the PIT, mode 0, gate by port 0x61: its output goes high at the end. */
static bool pit_wait(u32 span)
{
	outb(0x61, (u8)((inb(0x61) & ~2u) | 1));
	outb(0x43, 0xb0);
	outb(0x42, (u8)span);
	outb(0x42, (u8)(span >> 8));
	for (u64 tries = 0; !(inb(0x61) & 0x20); tries++)
		if (tries > 10000000)
			return false;
	return true;
}

static bool measure(bool (*wait)(u32 span), u32 span, u32 hz, const char *name)
{
	u64 tsc, ticks;
	u32 start;

	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_write(APIC_TMICT, 0xffffffff);
	start = apic_read(APIC_TMCCT);
	tsc = rdtsc();
	if (!wait(span))
		return false;
	tsc = rdtsc() - tsc;
	ticks = start - apic_read(APIC_TMCCT);
	apic_write(APIC_TMICT, 0);
	if (!tsc || !ticks)
		return false;
	tsc_khz = (u32)(tsc * hz / span / 1000);
	clock_apic_mult = (ticks << 32) / tsc;
	clock_source = name;
	return true;
}

void clock_calibrate(void)
{
	clock_has_deadline = cpuid(1, 0).ecx & BIT(24);
	if (acpi.pm_timer.address && acpi.pm_timer.space == 0)
		pm_mmio = arch_map(acpi.pm_timer.address, 4, false);
	if (!((acpi.pm_timer.address && (acpi.pm_timer.space == 1 || pm_mmio) &&
	       measure(pm_wait, PM_SPAN, PM_HZ, "ACPI PM timer")) ||
	      measure(pit_wait, PIT_SPAN, PIT_HZ, "PIT")))
		log_warn("clock: neither the ACPI PM timer nor the PIT ticks: time is a guess");
	ns_mult = (1000000ull << 32) / tsc_khz;
	tsc_mult = ((u64)tsc_khz << 32) / 1000000;
	log_info("clock: TSC %u.%03u MHz by %s, timer %s", tsc_khz / 1000, tsc_khz % 1000, clock_source,
		 clock_has_deadline ? "TSC deadline" : "one-shot");
}

u64 tsc_to_ns(u64 ticks)
{
	return (u64)((unsigned __int128)ticks * ns_mult >> 32);
}

u64 ns_to_tsc(u64 ns)
{
	return (u64)((unsigned __int128)ns * tsc_mult >> 32);
}

u64 clock_ns(void)
{
	return tsc_to_ns(rdtsc());
}

void clock_delay_us(u32 us)
{
	u64 end = rdtsc() + (u64)us * tsc_khz / 1000;

	while (rdtsc() < end)
		cpu_pause();
}
