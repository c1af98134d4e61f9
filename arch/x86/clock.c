/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "lib/log.h"

#define PM_HZ	 3579545u
#define PIT_HZ	 1193182u
#define PM_SPAN	 (PM_HZ / 100) /* 10 ms */
#define PIT_SPAN (PIT_HZ / 100)
#define ROUNDS	 20

u32 tsc_khz = 1000000;
bool clock_has_deadline;
u64 clock_apic_mult = 1ull << 32;
const char *clock_source = "nothing (1 GHz assumed)";
static u64 ns_mult = 1ull << 32; /* nanoseconds per TSC tick, times 2^32 */

static volatile u32 *pm_mmio;

static u32 pm_read(void)
{
	u32 v = acpi.pm_timer.space == 1 ? inl((u16)acpi.pm_timer.address) : *pm_mmio;

	return v & 0xffffff; /* the low 24 bits exist everywhere */
}

/* The three clocks at one moment. */
struct moment {
	u64 tsc;
	u32 apic, reference;
};

/*
 * Under an emulator or another hypervisor the CPU may be taken away between two reads, so the
 * reference is read between two TSC reads, several times, and the closest pair counts.
 */
static struct moment pm_moment(void)
{
	struct moment best = { 0 };
	u64 narrowest = ~0ul;

	for (u32 i = 0; i < 8; i++) {
		u64 before = rdtsc();
		u32 apic = apic_read(APIC_TMCCT), pm = pm_read();
		u64 width = rdtsc() - before;

		if (width < narrowest) {
			narrowest = width;
			best = (struct moment){ before + width / 2, apic, pm };
		}
	}
	return best;
}

/* False if the timer doesn't tick. */
static bool pm_wait(u32 since)
{
	for (u64 tries = 0; ((pm_read() - since) & 0xffffff) < PM_SPAN; tries++)
		if (tries > 10000000 || (tries > 100000 && pm_read() == since))
			return false;
	return true;
}

static bool measure_pm(struct moment *span)
{
	struct moment start = pm_moment(), end;

	if (!pm_wait(start.reference))
		return false;
	end = pm_moment();
	span->tsc = end.tsc - start.tsc;
	span->apic = start.apic - end.apic; /* it counts down */
	span->reference = (end.reference - start.reference) & 0xffffff;
	return true;
}

/* Counter 2 of the PIT, mode 0, gate by port 0x61: its output goes high at the end. */
static bool measure_pit(struct moment *span)
{
	struct moment start;

	outb(0x61, (u8)((inb(0x61) & ~2u) | 1));
	outb(0x43, 0xb0);
	outb(0x42, (u8)PIT_SPAN);
	outb(0x42, (u8)(PIT_SPAN >> 8));
	start = (struct moment){ rdtsc(), apic_read(APIC_TMCCT), 0 };
	for (u64 tries = 0; !(inb(0x61) & 0x20); tries++)
		if (tries > 10000000)
			return false;
	span->tsc = rdtsc() - start.tsc;
	span->apic = start.apic - apic_read(APIC_TMCCT);
	span->reference = PIT_SPAN;
	return true;
}

static bool agree(u32 a, u32 b)
{
	return MAX(a, b) - MIN(a, b) <= MAX(a, b) / 1000;
}

/*
 * Rounds until two in a row agree within 0.1 %; else the last one has to do, with a word about it.
 */
static bool measure(bool (*once)(struct moment *span), u32 hz, const char *name)
{
	struct moment span;
	u32 before = 0;

	for (u32 round = 0; round < ROUNDS; round++) {
		apic_write(APIC_TDCR, 0xb);
		apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
		apic_write(APIC_TMICT, 0xffffffff);
		if (!once(&span) || !span.tsc || !span.apic || !span.reference)
			return false;
		apic_write(APIC_TMICT, 0);
		tsc_khz = (u32)(span.tsc * hz / span.reference / 1000);
		clock_apic_mult = ((u64)span.apic << 32) / span.tsc;
		clock_source = name;
		if (agree(before, tsc_khz))
			return true;
		before = tsc_khz;
	}
	log_warn("clock: %u measurements of the TSC disagree; time may be off", ROUNDS);
	return true;
}

void clock_calibrate(void)
{
	clock_has_deadline = cpuid(1, 0).ecx & BIT(24);
	if (acpi.pm_timer.address && acpi.pm_timer.space == 0)
		pm_mmio = arch_map(acpi.pm_timer.address, 4, false);
	if (!((acpi.pm_timer.address && (acpi.pm_timer.space == 1 || pm_mmio) &&
	       measure(measure_pm, PM_HZ, "ACPI PM timer")) ||
	      measure(measure_pit, PIT_HZ, "PIT")))
		log_warn("clock: neither the ACPI PM timer nor the PIT ticks: time is a guess");
	ns_mult = (1000000ull << 32) / tsc_khz;
	log_info("clock: TSC %u.%03u MHz by %s, timer %s", tsc_khz / 1000, tsc_khz % 1000,
		 clock_source, clock_has_deadline ? "TSC deadline" : "one-shot");
}

u64 tsc_to_ns(u64 ticks)
{
	return (u64)((unsigned __int128)ticks * ns_mult >> 32);
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
