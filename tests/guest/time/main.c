/* SPDX-License-Identifier: MIT */
/*
 * Time: TSC and kvmclock, on each vCPU and between them.
 *
 * vm: vcpus = 2
 * vm: pm_timer = on
 */
#include <asm/kvm_para.h>
#include "dev/acpi.h"
#include "dev/pm_timer.h"
#include "tests/guest/lib/apic.h"

/* Linux, Documentation/virt/kvm/x86/msr.rst: MSR_KVM_SYSTEM_TIME_NEW. */
struct PACKED time_info {
	u32 version, pad0;
	u64 tsc_timestamp, system_time;
	u32 mul;
	s8 shift;
	u8 flags, pad[2];
};

static u64 nanoseconds(const struct time_info *t)
{
	u64 delta = rdtsc() - t->tsc_timestamp, high;

	delta = t->shift < 0 ? delta >> -t->shift : delta << t->shift;
	asm("mul %2" : "+a"(delta), "=d"(high) : "r"((u64)t->mul) : "cc");
	return t->system_time + (high << 32 | delta >> 32);
}

TEST(tsc_monotonic, "the TSC never goes back on one vCPU, with exits in between")
{
	u64 last = rdtsc();
	u32 backwards = 0;

	for (u32 i = 0; i < 3000; i++) {
		u64 now;

		if (i % 3 == 0)
			outb(0x80, 0);
		if (i % 3 == 1)
			cpuid(0, 0);
		now = rdtsc();
		backwards += now < last;
		last = now;
	}
	EXPECT(backwards, 0);
}

struct shared {
	u64 last;
	u32 backwards, turns;
	const struct time_info *info; /* NULL: the TSC itself */
};

/* Each vCPU in turn must see a later time than the one before it. */
static void watch(void *arg)
{
	struct shared *s = arg;
	u32 n = cpu_count();

	for (u32 turn = this_cpu()->index; turn < 300; turn += n) {
		u64 now;

		if (!WAIT_FOR(__atomic_load_n(&s->turns, __ATOMIC_SEQ_CST) == turn, 8000))
			return;
		now = s->info ? nanoseconds(s->info) : rdtsc();
		s->backwards += now < s->last;
		s->last = now;
		__atomic_store_n(&s->turns, turn + 1, __ATOMIC_SEQ_CST);
	}
}

TEST(tsc_across, "nor from one vCPU to the next")
{
	struct shared s = { 0 };

	need_cpus(2);
	cpu_call_all(watch, &s);
	EXPECT(s.turns, 300);
	if (s.backwards && !(cpuid(0x40000001, 0).eax & BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT)))
		skip("the host's TSCs are not known to agree: %u steps back", s.backwards);
	EXPECT(s.backwards, 0);
}

TEST(kvmclock, "kvmclock: even version, a scale that fits the TSC's rate, time since the start")
{
	volatile struct time_info *t = pages(1);
	u64 before, after, spent;

	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (u64)t | 1), NO_FAULT);
	EXPECT(t->version & 1, 0);
	EXPECT_TRUE(t->version != 0);
	before = nanoseconds((struct time_info *)t);
	delay_us(3000);
	after = nanoseconds((struct time_info *)t);
	spent = after - before;
	EXPECT_TRUE(spent >= 2990000);
	EXPECT_TRUE(before < 3600ull * 1000000000);
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}

TEST(kvmclock_across, "kvmclock never goes back from one vCPU to the next")
{
	struct shared s = { .info = pages(1) };

	need_cpus(2);
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (u64)s.info | 1), NO_FAULT);
	cpu_call_all(watch, &s);
	EXPECT(s.turns, 300);
	if (s.backwards && !(s.info->flags & 1))
		skip("kvmclock is not called stable here: %u steps back", s.backwards);
	EXPECT(s.backwards, 0);
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}

TEST(wall_clock, "the wall clock is a time after 2020, and goes with the system time")
{
	u32 *wall = pages(1);

	EXPECT(try_wrmsr(MSR_KVM_WALL_CLOCK_NEW, (u64)wall), NO_FAULT);
	EXPECT(wall[0] & 1, 0);
	EXPECT_TRUE(wall[1] > 1577836800);
	EXPECT_TRUE(wall[2] < 1000000000);
}

TEST(rate, "the LAPIC's timer, the TSC and kvmclock agree within 5 %")
{
	const struct time_info *t = pages(1);
	u32 first, tries = 10;
	bool agree;

	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (u64)t | 1), NO_FAULT);
	apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_write(APIC_TMICT, ~0u);
	do { /* a vCPU that loses its CPU between two reads sees them far apart */
		u64 ns, tsc = rdtsc(), ticks;

		first = apic_read(APIC_TMCCT);
		ns = nanoseconds(t);
		delay_us(50000);
		ticks = first - apic_read(APIC_TMCCT);
		tsc = rdtsc() - tsc;
		ns = nanoseconds(t) - ns;
		ticks = ticks * tsc_khz / cpuid(0x40000010, 0).ebx;
		ns = ns * tsc_khz / 1000000;
		agree = ticks <= tsc && ticks > tsc - tsc / 20 && ns <= tsc + tsc / 20 &&
			ns > tsc - tsc / 20;
	} while (!agree && --tries);
	EXPECT_TRUE(agree);
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}

TEST(pm_timer, "the ACPI PM timer: the FADT names it, 3.58 MHz, each byte of it, never backwards")
{
	const u8 *rsdp = (const u8 *)ACPI_GPA;
	const u8 *xsdt = (const u8 *)*(const u64 *)(rsdp + 24);
	const u8 *fadt = (const u8 *)*(const u64 *)(xsdt + 36);
	u32 first, last, now, backwards = 0, tries = 10;
	bool agrees;

	EXPECT(*(const u32 *)fadt, 0x50434146); /* FACP */
	EXPECT(*(const u32 *)(fadt + 76), PM_TIMER_PORT);
	EXPECT(fadt[91], 4);
	EXPECT(*(const u64 *)(fadt + 212), PM_TIMER_PORT);
	EXPECT(*(const u32 *)(fadt + 112) & BIT(8), BIT(8)); /* 32 bits */
	last = inl(PM_TIMER_PORT);
	for (u32 i = 0; i < 1000; i++) {
		now = inl(PM_TIMER_PORT);
		backwards += (s32)(now - last) < 0;
		last = now;
	}
	EXPECT(backwards, 0);
	do { /* a vCPU that loses its CPU between two reads sees them far apart */
		u64 tsc = rdtsc();

		first = inl(PM_TIMER_PORT);
		delay_us(20000);
		now = inl(PM_TIMER_PORT) - first;
		tsc = (rdtsc() - tsc) * (PM_TIMER_HZ / 1000) / tsc_khz;
		agrees = now <= tsc + 2 && now > tsc - tsc / 20;
	} while (!agrees && --tries);
	EXPECT_TRUE(agrees);
	first = inl(PM_TIMER_PORT);
	now = inb(PM_TIMER_PORT + 3);
	EXPECT_TRUE(now == first >> 24 || now == (u8)((first >> 24) + 1));
	outl(PM_TIMER_PORT, 0);
	EXPECT_TRUE(inl(PM_TIMER_PORT) - first < PM_TIMER_HZ);
}
