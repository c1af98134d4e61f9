/* SPDX-License-Identifier: MIT */
/* The LAPIC's timer in all its modes. */
#include "tests/guest/lib/apic.h"

#define VECTOR	 0x51
#define ONE_SHOT VECTOR
#define PERIODIC (VECTOR | APIC_TIMER_PERIODIC << APIC_LVT_TIMER_SHIFT)
#define DEADLINE (VECTOR | APIC_TIMER_DEADLINE << APIC_LVT_TIMER_SHIFT)
#define IRQS	 (*(volatile u32 *)&this_cpu()->irqs[VECTOR])

/* Counts of a millisecond with divider 1: what the hypervisor's leaf says. */
static u32 ms(u32 n)
{
	return cpuid(0x40000010, 0).ebx * n;
}

TEST(one_shot, "one interrupt, not before its time; the count is 0 then")
{
	u64 start = rdtsc();

	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	apic_write(APIC_TMICT, ms(40));
	EXPECT_TRUE(apic_read(APIC_TMCCT) > ms(1));
	EXPECT_TRUE(WAIT_IRQ(IRQS, 1000));
	EXPECT_TRUE(rdtsc() - start >= 40ull * tsc_khz * 99 / 100);
	EXPECT(apic_read(APIC_TMCCT), 0);
	WAIT_IRQ(IRQS > 1, 10);
	EXPECT(IRQS, 1);
}

TEST(periodic, "20 periods take as long as they should")
{
	u64 start = rdtsc();

	apic_write(APIC_LVT_TIMER, PERIODIC);
	apic_write(APIC_TMICT, ms(1));
	EXPECT_TRUE(WAIT_IRQ(IRQS >= 20, 5000));
	EXPECT_TRUE(rdtsc() - start >= 19ull * tsc_khz);
	apic_write(APIC_TMICT, 0);
	take_irqs();
	u32 before = IRQS;
	WAIT_IRQ(IRQS != before, 5);
	EXPECT(IRQS, before);
}

TEST(divider, "the divide configuration: each of the eight, by the count that is left")
{
	static const u8 code[8] = { 0xb, 0, 1, 2, 3, 8, 9, 0xa }; /* 1, 2, 4, .. 128 */

	apic_write(APIC_LVT_TIMER, ONE_SHOT | APIC_LVT_MASKED);
	for (u32 i = 0; i < 8; i++) {
		u64 start, spent, took;
		u32 first, last;

		apic_write(APIC_TDCR, code[i]);
		EXPECT(apic_read(APIC_TDCR), code[i]);
		apic_write(APIC_TMICT, ~0u);
		start = rdtsc();
		first = apic_read(APIC_TMCCT);
		delay_us(2000);
		last = apic_read(APIC_TMCCT);
		spent = rdtsc() - start;
		took = ((u64)(first - last) << i) * tsc_khz / ms(1); /* in TSC ticks */
		EXPECT_TRUE(took <= spent + (tsc_khz / 1000ul << i));
		EXPECT_TRUE(took >= 2ul * tsc_khz * 9 / 10);
	}
}

TEST(masked, "masked it counts and stays silent; unmasking later brings nothing back")
{
	apic_write(APIC_LVT_TIMER, ONE_SHOT | APIC_LVT_MASKED);
	apic_write(APIC_TMICT, ms(1));
	EXPECT_TRUE(WAIT_FOR(apic_read(APIC_TMCCT) == 0, 1000));
	take_irqs();
	EXPECT(IRQS, 0);
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	take_irqs();
	EXPECT(IRQS, 0);
}

TEST(stopped, "an initial count of 0 stops it, a new one starts over")
{
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	apic_write(APIC_TMICT, ms(20));
	apic_write(APIC_TMICT, 0);
	WAIT_IRQ(IRQS, 30);
	EXPECT(IRQS, 0);
	apic_write(APIC_TMICT, ms(1000));
	apic_write(APIC_TMICT, ms(1));
	EXPECT_TRUE(WAIT_IRQ(IRQS, 500));
	EXPECT(IRQS, 1);
}

TEST(periodic_to_one_shot,
     "one-shot and periodic share the count: a change of mode is seen at its end")
{
	apic_write(APIC_LVT_TIMER, PERIODIC);
	apic_write(APIC_TMICT, ms(1));
	EXPECT_TRUE(WAIT_IRQ(IRQS >= 2, 1000));
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	take_irqs();
	u32 before = IRQS;
	WAIT_IRQ(false, 5);
	EXPECT_TRUE(IRQS <= before + 1);
	EXPECT(apic_read(APIC_TMCCT), 0);
}

TEST(deadline, "TSC deadline: not before it; reads 0 then; one in the past comes at once")
{
	NEED(1, 'c', 24, "TSC deadline");
	apic_write(APIC_LVT_TIMER, DEADLINE);
	u64 when = rdtsc() + 20ul * tsc_khz;

	EXPECT(try_wrmsr(MSR_TSC_DEADLINE, when), NO_FAULT);
	u64 read = rdmsr_or_fail(MSR_TSC_DEADLINE);

	if (rdtsc() < when) /* else the emulator took that long */
		EXPECT(read, when);
	EXPECT_TRUE(WAIT_IRQ(IRQS, 1000));
	EXPECT_TRUE(rdtsc() >= when);
	EXPECT(rdmsr_or_fail(MSR_TSC_DEADLINE), 0);
	for (u32 i = 2; i < 100; i++) {
		wrmsr(MSR_TSC_DEADLINE, 1);
		take_irqs();
		EXPECT(IRQS, i);
	}
}

TEST(deadline_off, "a deadline of 0 disarms; so does leaving the mode; TMICT is ignored in it")
{
	NEED(1, 'c', 24, "TSC deadline");
	apic_write(APIC_LVT_TIMER, DEADLINE);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 20ul * tsc_khz);
	wrmsr(MSR_TSC_DEADLINE, 0);
	WAIT_IRQ(IRQS, 30);
	EXPECT(IRQS, 0);
	apic_write(APIC_TMICT, ms(1));
	EXPECT(apic_read(APIC_TMCCT), 0);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 20ul * tsc_khz);
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	WAIT_IRQ(IRQS, 30);
	EXPECT(IRQS, 0);
	wrmsr(MSR_TSC_DEADLINE, 1); /* ignored outside of its mode */
	take_irqs();
	EXPECT(IRQS, 0);
}

TEST(deadline_and_tsc, "a deadline moves with the TSC when that is written")
{
	NEED(1, 'c', 24, "TSC deadline");
	apic_write(APIC_LVT_TIMER, DEADLINE);
	u64 now = rdtsc();

	wrmsr(MSR_TSC_DEADLINE, now + 100000ul * tsc_khz);
	wrmsr(MSR_TSC, now + 200000ul * tsc_khz);
	EXPECT_TRUE(WAIT_IRQ(IRQS, 500));
	wrmsr(MSR_TSC, rdtsc() - 200000ul * tsc_khz);
	EXPECT(IRQS, 1);
}

static void count_to_200(struct frame *f)
{
	if (++this_cpu()->irqs[f->vector] == 200)
		apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_eoi();
}

TEST(storm, "200 times the shortest period")
{
	trap_handler[VECTOR] = count_to_200;
	apic_write(APIC_LVT_TIMER, PERIODIC);
	apic_write(APIC_TMICT, 1);
	EXPECT_TRUE(WAIT_IRQ(IRQS >= 200, 5000));
	EXPECT_TRUE(IRQS <= 201);
}

TEST(many_hlts, "100 times HLT until the timer")
{
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	for (u32 i = 0; i < 100; i++) {
		apic_write(APIC_TMICT, ms(1) / 20);
		asm volatile("sti; hlt; cli" : : : "memory");
	}
	EXPECT(IRQS, 100);
}

TEST(x2apic_registers, "the same registers in x2APIC mode")
{
	apic_mode(true);
	apic_write(APIC_LVT_TIMER, ONE_SHOT);
	apic_write(APIC_TMICT, ms(1));
	EXPECT_TRUE(WAIT_IRQ(IRQS, 1000));
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_TMCCT / 16, 1), GP);
	EXPECT(try_wrmsr(MSR_X2APIC_BASE + APIC_TDCR / 16, 4), GP);
	apic_mode(false);
}
