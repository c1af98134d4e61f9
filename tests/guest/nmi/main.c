/* SPDX-License-Identifier: MIT */
/*
 * NMIs: what blocks them, what opens them, that none is lost and none is doubled.
 *
 * vm: vcpus = 2
 */
#include "tests/guest/lib/apic.h"

static volatile u32 nmis, depth, deepest;
static void (*in_nmi)(struct frame *f);

static void on_nmi(struct frame *f)
{
	nmis++;
	depth++;
	deepest = MAX(deepest, depth);
	if (in_nmi)
		in_nmi(f);
	depth--;
}

static void prepare(void (*inside)(struct frame *f))
{
	nmis = depth = deepest = 0;
	in_nmi = inside;
	trap_handler[2] = on_nmi;
}

static void send_nmi(u32 to)
{
	apic_icr(to, APIC_NMI << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
}

TEST(to_self, "an NMI to oneself arrives with interrupts off")
{
	prepare(NULL);
	for (u32 i = 1; i <= 10; i++) {
		send_nmi(0);
		EXPECT_TRUE(WAIT_FOR(nmis == i, 100));
	}
}

static void send_two(struct frame *f)
{
	(void)f;
	if (nmis > 1)
		return;
	send_nmi(0);
	send_nmi(0);
	outb(0x80, 0);
	delay_us(100);
	EXPECT(nmis, 1); /* blocked */
}

TEST(blocked, "in an NMI handler NMIs are blocked; two that come are one behind it")
{
	prepare(send_two);
	send_nmi(0);
	EXPECT_TRUE(WAIT_FOR(nmis >= 2, 100));
	delay_us(1000);
	EXPECT(nmis, 2);
	EXPECT(deepest, 1);
}

static void return_inside(struct frame *f)
{
	(void)f;
	if (nmis > 2)
		return;
	if (nmis == 1)
		send_nmi(0);
	/* an IRET to the next instruction */
	asm volatile("mov %%rsp, %%rax; push %0; push %%rax; pushfq; push %1; lea 1f(%%rip), %%rax;"
		     "push %%rax; iretq; 1:"
		     :
		     : "r"((u64)SEL_DATA), "r"((u64)SEL_CODE64)
		     : "rax", "memory");
	delay_us(100);
}

TEST(iret_opens, "an IRET inside the handler opens NMIs")
{
	trap_stack(2, 0); /* the second one must not begin where the first did */
	prepare(return_inside);
	send_nmi(0);
	EXPECT_TRUE(WAIT_FOR(nmis >= 2, 100));
	delay_us(500);
	EXPECT(nmis, 2);
	EXPECT(deepest, 2);
}

static void fault_inside(struct frame *f)
{
	(void)f;
	if (nmis > 1)
		return;
	send_nmi(0);
	EXPECT(TRY("ud2", :), UD); /* its handler returns by IRET */
	delay_us(100);
}

TEST(fault_inside_opens, "so does the IRET of an exception's handler inside")
{
	trap_stack(2, 0);
	prepare(fault_inside);
	send_nmi(0);
	EXPECT_TRUE(WAIT_FOR(nmis >= 2, 100));
	EXPECT(nmis, 2);
	EXPECT(deepest, 2);
}

static void storm(void *arg)
{
	for (u32 i = 0; i < 300; i++) {
		u32 before = nmis;

		send_nmi(0);
		if (!WAIT_FOR(nmis != before, 1000))
			return;
		(*(volatile u32 *)arg)++;
	}
}

TEST(storm_during_exits, "300 NMIs by another vCPU while this one exits all the time: none is lost")
{
	volatile u32 sent = 0;

	need_cpus(2);
	prepare(NULL);
	cpu_start(1, storm, (void *)&sent);
	while (__atomic_load_n(&cpu_of(1)->call, __ATOMIC_ACQUIRE)) {
		cpuid(0, 0);
		outb(0x80, 0);
		asm volatile("pushfq; popfq; mov %0, %%ss" : : "r"(SEL_DATA));
	}
	cpu_wait(1);
	EXPECT(sent, 300);
	EXPECT(nmis, 300);
}

TEST(storm_in_hlt, "the same into HLT with interrupts off")
{
	volatile u32 sent = 0;

	need_cpus(2);
	prepare(NULL);
	cpu_start(1, storm, (void *)&sent);
	while (nmis < 300 && __atomic_load_n(&cpu_of(1)->call, __ATOMIC_ACQUIRE))
		asm volatile("hlt");
	cpu_wait(1);
	EXPECT(sent, 300);
	EXPECT(nmis, 300);
}

static struct {
	u8 line[62];
	u32 counter; /* across the end of a cache line */
} PACKED ALIGNED(64) split;

static void lock_inside(struct frame *f)
{
	(void)f;
	asm volatile("lock incl %0" : "+m"(split.counter));
}

/* On a CPU that detects split locks each is a step of Corbel's. */
TEST(storm_at_split_locks,
     "NMIs while each instruction locks two cache lines, also of their handler")
{
	volatile u32 sent = 0;
	u32 rounds = 0;

	need_cpus(2);
	prepare(lock_inside);
	trap_handler[1] = lock_inside;
	split.counter = 0;
	cpu_start(1, storm, (void *)&sent);
	while (__atomic_load_n(&cpu_of(1)->call, __ATOMIC_ACQUIRE)) {
		rounds++;
		asm volatile("mov %1, %%ss; lock incl %0; sti; lock incl %0; cli; lock incl %0"
			     : "+m"(split.counter)
			     : "r"(SEL_DATA));
	}
	cpu_wait(1);
	EXPECT(sent, 300);
	EXPECT(nmis, 300);
	EXPECT(split.counter, 3 * rounds + nmis);
	asm volatile(
		"pushfq; orl $0x100, (%%rsp); popfq; lock incl %0; pushfq; andl $~0x100, (%%rsp);"
		"popfq"
		: "+m"(split.counter)
		:
		: "cc", "memory");
	EXPECT(split.counter, 3 * rounds + nmis + 5); /* itself and four traps */
}

static u64 taken_at;

static void note_rip(struct frame *f)
{
	taken_at = f->rip;
}

TEST(sti_shadow, "an NMI that comes in the shadow of STI is not lost")
{
	prepare(note_rip);
	for (u32 i = 1; i <= 20; i++) {
		/* the write to ICR stands in the shadow */
		asm volatile("sti; movl %0, %1; cli"
			     :
			     : "r"(APIC_NMI << APIC_MODE_SHIFT | APIC_TO_SELF << 18),
			       "m"(*(volatile u32 *)(APIC_BASE_GPA + APIC_ICR))
			     : "memory");
		EXPECT_TRUE(WAIT_FOR(nmis == i, 100));
	}
}

TEST(mov_ss_shadow, "nor one in the shadow of MOV SS")
{
	prepare(note_rip);
	for (u32 i = 1; i <= 20; i++) {
		asm volatile("mov %2, %%ss; movl %0, %1; nop"
			     :
			     : "r"(APIC_NMI << APIC_MODE_SHIFT | APIC_TO_SELF << 18),
			       "m"(*(volatile u32 *)(APIC_BASE_GPA + APIC_ICR)), "r"(SEL_DATA)
			     : "memory");
		EXPECT_TRUE(WAIT_FOR(nmis == i, 100));
	}
}

TEST(storm_in_shadows, "NMIs while the guest is in shadows of STI all the time")
{
	volatile u32 sent = 0;

	need_cpus(2);
	prepare(NULL);
	cpu_start(1, storm, (void *)&sent);
	while (__atomic_load_n(&cpu_of(1)->call, __ATOMIC_ACQUIRE))
		asm volatile("sti; cli; sti; cli; sti; out %%al, $0x80; cli; mov %0, %%ss;"
			     "out %%al, $0x80"
			     :
			     : "r"(SEL_DATA));
	cpu_wait(1);
	EXPECT(sent, 300);
	EXPECT(nmis, 300);
}

TEST(with_interrupts, "an NMI goes before an interrupt that is pending, too")
{
	prepare(note_rip);
	apic_icr(0, 0x41);
	send_nmi(0);
	EXPECT_TRUE(WAIT_FOR(nmis == 1, 100));
	EXPECT(this_cpu()->irqs[0x41], 0);
	take_irqs();
	EXPECT(this_cpu()->irqs[0x41], 1);
	EXPECT(nmis, 1);
}

TEST(io_apic, "an I/O APIC entry in mode NMI: the UART's interrupt as an NMI")
{
	prepare(NULL);
	ioapic_entry(4, APIC_NMI << APIC_MODE_SHIFT);
	outb(0x3f9, 2); /* THRE: at once */
	EXPECT_TRUE(WAIT_FOR(nmis == 1, 100));
	outb(0x3f9, 0);
	ioapic_entry(4, APIC_LVT_MASKED);
	delay_us(100);
	EXPECT(nmis, 1);
}

TEST(to_all, "NMI to all but oneself, and a logical destination")
{
	need_cpus(2);
	prepare(NULL);
	apic_icr(0, APIC_NMI << APIC_MODE_SHIFT | APIC_TO_OTHERS << APIC_ICR_SHORTHAND_SHIFT);
	EXPECT_TRUE(WAIT_FOR(nmis == 1, 1000));
	apic_icr(0xff, APIC_NMI << APIC_MODE_SHIFT);
	EXPECT_TRUE(WAIT_FOR(nmis == 3, 1000));
}
