/* SPDX-License-Identifier: MIT */
/*
 * IPIs between vCPUs: every way to name the destination, in both modes of the LAPIC, every
 * delivery mode.
 *
 * vm: vcpus = 4
 */
#include "tests/guest/lib/apic.h"

#define VECTOR	   0x61
#define FIXED(v)   ((v) | APIC_ICR_ASSERT)
#define TO(short_) ((u32)(short_) << APIC_ICR_SHORTHAND_SHIFT)

static void clear(void *arg)
{
	(void)arg;
	memset(this_cpu()->irqs, 0, sizeof(this_cpu()->irqs));
}

static u32 got(u8 vector)
{
	u32 mask = 0;

	for (u32 i = 0; i < cpu_count(); i++)
		mask |= __atomic_load_n(&cpu_of(i)->irqs[vector], __ATOMIC_SEQ_CST) ? BIT(i) : 0;
	return mask;
}

/* Which vCPUs an ICR reaches, as a mask; none of them twice. */
static u32 reached(u32 dest, u32 low, u32 expected)
{
	cpu_call_all(clear, NULL);
	irq_enable();
	apic_icr(dest, low);
	WAIT_FOR(got((u8)low) == expected, 1000);
	delay_us(300);
	irq_disable();
	for (u32 i = 0; i < cpu_count(); i++)
		EXPECT_TRUE(cpu_of(i)->irqs[(u8)low] <= 1);
	return got((u8)low);
}
#define EXPECT_REACHED(dest, low, expected) EXPECT(reached(dest, low, expected), expected)

TEST(physical, "an APIC id names one vCPU; nobody has the others")
{
	need_cpus(4);
	for (u32 i = 0; i < 4; i++)
		EXPECT_REACHED(i, FIXED(VECTOR), BIT(i));
	EXPECT_REACHED(7, FIXED(VECTOR), 0);
	EXPECT_REACHED(0xff, FIXED(VECTOR), 0xf);
}

TEST(shorthands, "self, all, all others; the destination does not matter")
{
	need_cpus(4);
	EXPECT_REACHED(2, FIXED(VECTOR) | TO(APIC_TO_SELF), 1);
	EXPECT_REACHED(2, FIXED(VECTOR) | TO(APIC_TO_ALL), 0xf);
	EXPECT_REACHED(2, FIXED(VECTOR) | TO(APIC_TO_OTHERS), 0xe);
}

static void set_ldr(void *arg)
{
	const u8 *ldr = arg;

	apic_write(APIC_DFR, ldr[8] ? ~0u : 0x0fffffff);
	apic_write(APIC_LDR, (u32)ldr[this_cpu()->index] << 24);
}

TEST(logical_flat, "logical destinations, flat model: a bit for each vCPU")
{
	u8 ldr[9] = { 1, 2, 4, 0x80, [8] = 1 };

	need_cpus(4);
	cpu_call_all(set_ldr, ldr);
	EXPECT_REACHED(1, FIXED(VECTOR) | APIC_LOGICAL, 1);
	EXPECT_REACHED(0x82, FIXED(VECTOR) | APIC_LOGICAL, 0xa);
	EXPECT_REACHED(0x78, FIXED(VECTOR) | APIC_LOGICAL, 0);
	EXPECT_REACHED(0xff, FIXED(VECTOR) | APIC_LOGICAL, 0xf);
	EXPECT_REACHED(0, FIXED(VECTOR) | APIC_LOGICAL, 0);
}

TEST(logical_cluster, "cluster model: a cluster, and members within it")
{
	u8 ldr[9] = { 0x01, 0x02, 0x11, 0x18, [8] = 0 };

	need_cpus(4);
	cpu_call_all(set_ldr, ldr);
	EXPECT_REACHED(0x01, FIXED(VECTOR) | APIC_LOGICAL, 1);
	EXPECT_REACHED(0x0f, FIXED(VECTOR) | APIC_LOGICAL, 3);
	EXPECT_REACHED(0x19, FIXED(VECTOR) | APIC_LOGICAL, 0xc);
	EXPECT_REACHED(0x18, FIXED(VECTOR) | APIC_LOGICAL, 8);
	EXPECT_REACHED(0x2f, FIXED(VECTOR) | APIC_LOGICAL, 0);
	EXPECT_REACHED(0xf1, FIXED(VECTOR) | APIC_LOGICAL, 5); /* cluster 15: all of them */
	ldr[8] = 1;
	cpu_call_all(set_ldr, ldr);
}

static void go_x2(void *arg)
{
	apic_mode(arg != NULL);
}

static void all_x2(bool on)
{
	/* from the last to this one: a call needs the mode in which it is sent, not that of its
	 * target */
	for (u32 i = 1; i < cpu_count(); i++)
		cpu_call(i, go_x2, on ? (void *)1 : NULL);
	apic_mode(on);
}

TEST(x2apic, "x2APIC: 32-bit ids, logical ids by cluster, broadcast")
{
	need_cpus(4);
	all_x2(true);
	for (u32 i = 0; i < 4; i++)
		EXPECT_REACHED(i, FIXED(VECTOR), BIT(i));
	EXPECT_REACHED(0x102, FIXED(VECTOR), 0);
	EXPECT_REACHED(0xff, FIXED(VECTOR), 0); /* an id like any other here */
	EXPECT_REACHED(~0u, FIXED(VECTOR), 0xf);
	EXPECT_REACHED(0x5, FIXED(VECTOR) | APIC_LOGICAL, 0x5);
	EXPECT_REACHED(0x10005, FIXED(VECTOR) | APIC_LOGICAL, 0);
	EXPECT_REACHED(~0u, FIXED(VECTOR) | APIC_LOGICAL, 0xf);
	EXPECT_REACHED(0, FIXED(VECTOR) | TO(APIC_TO_OTHERS), 0xe);
	all_x2(false);
}

TEST(mixed_modes, "vCPUs in x2APIC and in xAPIC mode reach each other by id")
{
	need_cpus(4);
	cpu_call(1, go_x2, (void *)1);
	EXPECT_REACHED(1, FIXED(VECTOR), 2);
	EXPECT_REACHED(0xff, FIXED(VECTOR), 0xf);
	cpu_call(1, go_x2, NULL);
	EXPECT_REACHED(1, FIXED(VECTOR), 2);
}

static void set_tpr(void *arg)
{
	apic_write(APIC_TPR, *(u32 *)arg);
}

static u32 count_bits(u32 mask)
{
	u32 n = 0;

	for (; mask; mask &= mask - 1)
		n++;
	return n;
}

TEST(lowest_priority, "lowest priority: one of the addressed, with the lowest priority")
{
	u8 ldr[9] = { 1, 2, 4, 8, [8] = 1 };
	u32 high = 0x20, low = 0;
	const u32 mode = FIXED(VECTOR) | APIC_LOWEST << APIC_MODE_SHIFT | APIC_LOGICAL;

	need_cpus(4);
	cpu_call_all(set_ldr, ldr);
	EXPECT(count_bits(reached(0xf, mode, 1)), 1);
	for (u32 i = 1; i < 4; i++)
		cpu_call(i, set_tpr, &high);
	EXPECT_REACHED(0xf, mode, 1);
	cpu_call(2, set_tpr, &low);
	apic_write(APIC_TPR, high);
	EXPECT_REACHED(0xf, mode, 4);
	EXPECT(reached(0xa, mode, 8) & ~0xau, 0);
	for (u32 i = 1; i < 4; i++)
		cpu_call(i, set_tpr, &low);
	apic_write(APIC_TPR, 0);
}

TEST(no_such_mode, "SMI, ExtINT and the reserved mode reach nobody")
{
	need_cpus(4);
	EXPECT_REACHED(1, FIXED(VECTOR) | APIC_SMI << APIC_MODE_SHIFT, 0);
	EXPECT_REACHED(1, FIXED(VECTOR) | APIC_RESERVED << APIC_MODE_SHIFT, 0);
	EXPECT_REACHED(1, FIXED(VECTOR) | APIC_EXTINT << APIC_MODE_SHIFT, 0);
}

TEST(vectors, "every vector from 32 up to another vCPU, but the call's own")
{
	need_cpus(2);
	cpu_call(1, clear, NULL);
	for (u32 v = 32; v < 256; v++) {
		if (v == VECTOR_CALL)
			continue;
		apic_icr(1, FIXED(v));
		EXPECT_TRUE(WAIT_FOR(cpu_of(1)->irqs[v] == 1, 1000));
	}
}

static void ping(void *arg)
{
	volatile u32 *turn = arg;
	struct cpu *c = this_cpu();

	for (u32 i = 1; i <= 300; i++) {
		if (!WAIT_IRQ(c->irqs[VECTOR] >= i, 5000))
			return;
		(*turn)++;
		apic_icr(0, FIXED(VECTOR));
	}
}

TEST(ping_pong, "300 times there and back: no IPI is lost")
{
	volatile u32 turn = 0;

	need_cpus(2);
	cpu_call(1, clear, NULL);
	cpu_start(1, ping, (void *)&turn);
	for (u32 i = 1; i <= 300; i++) {
		apic_icr(1, FIXED(VECTOR));
		if (!WAIT_IRQ(this_cpu()->irqs[VECTOR] >= i, 5000))
			break;
	}
	cpu_wait(1);
	EXPECT(turn, 300);
	EXPECT(this_cpu()->irqs[VECTOR], 300);
}

static void halted(void *arg)
{
	struct cpu *c = this_cpu();

	while (c->irqs[VECTOR] < *(u32 *)arg)
		asm volatile("sti; hlt; cli" : : : "memory");
}

TEST(wake_from_hlt, "an IPI wakes a vCPU from HLT, 200 times")
{
	u32 rounds = 200;

	need_cpus(2);
	cpu_call(1, clear, NULL);
	cpu_start(1, halted, &rounds);
	for (u32 i = 1; i <= rounds; i++) {
		apic_icr(1, FIXED(VECTOR));
		EXPECT_TRUE(WAIT_FOR(cpu_of(1)->irqs[VECTOR] >= i, 5000));
	}
	cpu_wait(1);
	EXPECT(cpu_of(1)->irqs[VECTOR], rounds);
}

TEST(init_sipi, "INIT and SIPI start a vCPU again, 20 times; a second SIPI does nothing")
{
	need_cpus(3);
	for (u32 i = 0; i < 20; i++) {
		cpu_restart(2);
		apic_icr(2, APIC_SIPI << APIC_MODE_SHIFT | APIC_ICR_ASSERT | 8);
		delay_us(100);
		cpu_call(2, clear, NULL);
	}
	EXPECT(cpu_of(2)->online, 1);
}

TEST(waits_for_sipi, "after INIT a vCPU takes no interrupt, until its SIPI")
{
	need_cpus(3);
	cpu_call(2, clear, NULL);
	cpu_of(2)->online = false;
	apic_icr(2, APIC_INIT << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
	delay_us(500);
	apic_icr(2, FIXED(VECTOR));
	apic_icr(2, APIC_NMI << APIC_MODE_SHIFT);
	delay_us(500);
	EXPECT(cpu_of(2)->irqs[VECTOR], 0);
	EXPECT(cpu_of(2)->online, 0);
	cpu_restart(2);
	EXPECT(cpu_of(2)->irqs[VECTOR], 0);
}

static void after_init(void *arg)
{
	u64 *seen = arg;

	seen[0] = read_dr7();
	seen[1] = apic_read(APIC_SVR) & APIC_SVR_ENABLE; /* start-up sets it */
	seen[2] = rdmsr(MSR_LSTAR);
	seen[3] = read_cr0();
}

static void before_init(void *arg)
{
	(void)arg;
	wrmsr(MSR_LSTAR, 0x123456);
	write_dr7(0x455);
	write_cr0(read_cr0() | X86_CR0_CD);
}

TEST(init_keeps, "INIT resets debug and control registers, and keeps the syscall MSRs")
{
	u64 seen[4] = { 0 };

	need_cpus(3);
	cpu_call(2, before_init, NULL);
	cpu_restart(2);
	cpu_call(2, after_init, seen);
	EXPECT(seen[0], 0x400);
	EXPECT(seen[1], APIC_SVR_ENABLE);
	EXPECT(seen[2], 0x123456);
	EXPECT(seen[3], 0x80010033);
}
