/* SPDX-License-Identifier: MIT */
/*
 * Memory that is missing until the operator supplies it (pager = none): each kind of access waits
 * for it, with the right report, and then goes on as if nothing had been. The operator first gets
 * the guest going, and then supplies what `operator:` says before each case: kind of access and
 * address, as Corbel reports them. (With nested paging a page walk counts as a write.)
 *
 * vm: memory = 32M
 * vm: pager = none
 * vm: rng = on
 * vm: mce = on
 */
#include <asm/kvm_para.h>
#include <linux/serial_reg.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include "tests/guest/lib/test.h"

/* Each case has pages of its own. */
#define AT(n)	(0x1000000ul + (n)*0x1000)
#define SCRATCH (0x3f8 + UART_SCR)
#define IOAPIC	0xfec00000ul
#define RNG	0xfeb02000ul

static volatile u64 *word(u64 at)
{
	return (volatile u64 *)at;
}

/*
 * operator: r 0x1000008
 */
TEST(data_read, "a load")
{
	EXPECT(*word(AT(0) + 8), 0);
	EXPECT(*word(AT(0) + 16), 0); /* there now */
}

/*
 * operator: w 0x1001010
 */
TEST(data_write, "a store")
{
	*word(AT(1) + 0x10) = 0x1234;
	EXPECT(*word(AT(1) + 0x10), 0x1234);
	EXPECT(*word(AT(1) + 0x18), 0);
}

/*
 * The immediate, and the page behind it, are zero: add %al, (%rax), with 0.
 *
 * operator: w 0x1010fff
 * operator: w 0x1012000
 * operator: x 0x1011000
 */
TEST(fetch, "an instruction that begins in one page and ends in a missing one")
{
	volatile u8 *code = (volatile u8 *)AT(16);
	u64 rax = 5;

	code[0xfff] = 0xb8; /* mov $imm32, %eax */
	code[0x2000] = 0xc3;
	asm volatile("call *%1" : "+a"(rax) : "r"(code + 0xfff) : "memory", "cc");
	EXPECT(rax, 0);
}

/*
 * operator: walk 0x1003000
 * operator: w 0x1004ff8
 */
TEST(page_walk, "the guest's own page table; then what it maps")
{
	u64 *pd = pages(1), *pt = (u64 *)AT(3);
	volatile u64 *through = (volatile u64 *)(WINDOW + GIB);
	u64 *pdpt = (u64 *)(boot_tables[WINDOW >> 39 & 511] & ~0xffful);

	pdpt[1] = (u64)pd | PTE_P | PTE_W;
	pd[0] = (u64)pt | PTE_P | PTE_W;
	invlpg((void *)through);
	EXPECT(try_write32((volatile void *)through, 5), PF(PTE_W)); /* zero: not present */
	pt[0] = AT(4) | PTE_P | PTE_W;
	invlpg((void *)through);
	through[0xff8 / 8] = 7;
	EXPECT(*word(AT(4) + 0xff8), 7);
	EXPECT(pt[0] & (PTE_A | PTE_D), PTE_A | PTE_D);
	pdpt[1] = 0;
	invlpg((void *)through);
}

/*
 * At first it is there, but read-only: what the walk wants is to set A and D.
 *
 * operator: walk 0x101b000 ro
 * operator: walk 0x101b000 rw
 */
TEST(page_walk_write, "a page table that the walk may read, but not write")
{
	volatile u64 *through = (volatile u64 *)(WINDOW + GIB);
	u64 *pdpt = (u64 *)(boot_tables[WINDOW >> 39 & 511] & ~0xffful), *pd = pages(1);

	pdpt[1] = (u64)pd | PTE_P | PTE_W;
	pd[0] = AT(27) | PTE_P | PTE_W;
	invlpg((void *)through);
	EXPECT(try_write32((volatile void *)through, 5), PF(PTE_W)); /* zero: not present */
	*word(AT(27)) = 0x1000;
	pdpt[1] = 0;
	invlpg((void *)through);
}

/* mov %al, (%rdi) and ret are the last bytes of their page, and nobody supplies the next one. */
TEST(decoder, "an instruction is decoded though the page behind its own is missing")
{
	volatile u8 *code = (volatile u8 *)AT(27); /* AT(28) is not there */
	volatile u32 *at = (volatile u32 *)IOAPIC;

	code[0xffd] = 0x88;
	code[0xffe] = 0x07;
	code[0xfff] = 0xc3;
	*at = 2;
	asm volatile("call *%0" : : "r"(code + 0xffd), "D"(IOAPIC), "a"(1) : "memory", "cc");
	EXPECT(*at, 1);
}

/*
 * operator: r 0x1005ffe
 * operator: r 0x1006000
 */
TEST(outs, "REP OUTSB from there, into a second missing page")
{
	u64 si = AT(5) + 0xffe, cx = 4;

	outb(SCRATCH, 0x77);
	asm volatile("rep outsb" : "+S"(si), "+c"(cx) : "d"(SCRATCH) : "memory");
	EXPECT(si, AT(6) + 2);
	EXPECT(cx, 0);
	EXPECT(inb(SCRATCH), 0);
}

/*
 * operator: w 0x1007ffd
 * operator: w 0x1008000
 */
TEST(ins, "REP INSB to there")
{
	u64 di = AT(7) + 0xffd, cx = 6;

	outb(SCRATCH, 0x5a);
	asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
	EXPECT(cx, 0);
	for (u32 i = 0; i < 6; i++)
		EXPECT(*(volatile u8 *)(AT(7) + 0xffd + i), 0x5a);
	EXPECT(*(volatile u8 *)(AT(7) + 0xffc), 0);
	EXPECT(*(volatile u8 *)(AT(8) + 3), 0);
}

/*
 * operator: r 0x1009002
 * operator: w 0x100a004
 */
TEST(emulated, "the other operand of an instruction that touches a device")
{
	u64 si = AT(9) + 2, di = IOAPIC;

	*(volatile u32 *)IOAPIC = 1;
	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	EXPECT(si, AT(9) + 6);
	EXPECT(*(volatile u32 *)IOAPIC, 0);
	*(volatile u32 *)IOAPIC = 1; /* IOREGSEL keeps what is written to it */
	si = IOAPIC;
	di = AT(10) + 4;
	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	EXPECT(di, AT(10) + 8);
	EXPECT(*(volatile u32 *)(AT(10) + 4), 1);
}

struct PACKED gate {
	u16 low, selector, type, middle;
	u32 high, reserved;
};

/* Its own handler, because the library's would look for this_cpu() by RSP. */
static struct gate set_gate(u8 vector, const void *handler)
{
	u64 at = (u64)handler;
	struct desc_ptr idtr;
	struct gate *gate, old;

	asm volatile("sidt %0" : "=m"(idtr));
	gate = (struct gate *)idtr.base + vector;
	old = *gate;
	*gate = (struct gate){ (u16)at, SEL_CODE64, 0x8e00, (u16)(at >> 16), (u32)(at >> 32), 0 };
	return old;
}

void skip_ud(void);
void just_return(void);
asm("skip_ud: addq $2, (%rsp)\njust_return: iretq\n");

/*
 * operator: w 0x100bff8
 */
TEST(exception_stack, "an exception whose frame goes there is delivered once")
{
	u64 rsp = AT(12);
	struct gate old = set_gate(6, skip_ud);

	asm volatile("xchg %%rsp, %0\nud2\nxchg %%rsp, %0" : "+r"(rsp) : : "memory", "cc");
	EXPECT(rsp, AT(12));
	EXPECT(*word(AT(12) - 32), SEL_CODE64);
	set_gate(6, (void *)((u64)old.low | (u64)old.middle << 16 | (u64)old.high << 32));
}

/*
 * operator: w 0x100cff8
 */
TEST(soft_interrupt_stack, "so is INT n")
{
	u64 rsp = AT(13);

	set_gate(0x60, just_return);
	asm volatile("xchg %%rsp, %0\nint $0x60\nxchg %%rsp, %0" : "+r"(rsp) : : "memory", "cc");
	EXPECT(rsp, AT(13));
	EXPECT(*word(AT(13) - 32), SEL_CODE64);
}

/*
 * operator: w 0x100e000
 */
TEST(kvmclock, "the page that the guest names for its clock")
{
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, AT(14) | 1), NO_FAULT);
	EXPECT(*(volatile u32 *)AT(14), 2); /* its version: odd, then even */
	EXPECT(try_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0), NO_FAULT);
}

static void put(u32 reg, u32 value)
{
	*(volatile u32 *)(RNG + reg) = value;
}

static void put64(u32 low, u64 value)
{
	put(low, (u32)value);
	put(low + 4, (u32)(value >> 32));
}

static void rng_begin(u64 desc, u64 avail, u64 used)
{
	put(VIRTIO_MMIO_STATUS, 0);
	put(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	put(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
	put(VIRTIO_MMIO_QUEUE_SEL, 0);
	put(VIRTIO_MMIO_QUEUE_NUM, 4);
	put64(VIRTIO_MMIO_QUEUE_DESC_LOW, desc);
	put64(VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail);
	put64(VIRTIO_MMIO_QUEUE_USED_LOW, used);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
	put(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

/*
 * operator: r 0x1014002
 * operator: w 0x1015004
 * operator: w 0x1016ff8
 * operator: w 0x1017000
 */
TEST(virtio, "rings and buffers that only the device touches")
{
	struct vring_desc *desc = pages(1);
	volatile struct vring_avail *avail = (volatile struct vring_avail *)AT(20);
	volatile struct vring_used *used = (volatile struct vring_used *)AT(21);
	volatile u64 *random = word(AT(22) + 0xff8);

	if (*(volatile u32 *)RNG != 0x74726976)
		skip("no virtio-rng");
	rng_begin((u64)desc, AT(20), AT(21));
	put(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	EXPECT(avail->idx, 0);
	desc[0] = (struct vring_desc){ AT(22) + 0xff8, 16, VRING_DESC_F_WRITE, 0 };
	avail->ring[0] = 0;
	avail->idx = 1;
	put(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	EXPECT(used->idx, 1);
	EXPECT(used->ring[0].len, 16);
	EXPECT_TRUE(random[0] && random[1]);
	EXPECT(*(volatile u32 *)(RNG + VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/*
 * operator: r 0x1018000
 */
TEST(virtio_descriptors, "a table of descriptors: it is read once it is there, and is no good")
{
	volatile struct vring_avail *avail = pages(1);

	if (*(volatile u32 *)RNG != 0x74726976)
		skip("no virtio-rng");
	rng_begin(AT(24), (u64)avail, (u64)pages(1));
	avail->idx = 1;
	put(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	EXPECT(*(volatile u32 *)(RNG + VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	       VIRTIO_CONFIG_S_NEEDS_RESET);
	put(VIRTIO_MMIO_STATUS, 0);
}

#define MC	   FAULT(18, 0)
#define MCG_STATUS (MSR_MCG_CAP + 1)
#define MC2_CTL	   (MSR_MC0_CTL + 8)
#define MC2_STATUS (MC2_CTL + 1)
#define MC2_ADDR   (MC2_CTL + 2)
#define MC2_MISC   (MC2_CTL + 3)

/* The bank after an access to gpa that hit poison; it is cleared, as a handler would. */
static void expect_bank(u64 gpa, u64 code)
{
	EXPECT(rdmsr_or_fail(MCG_STATUS), 7 | (on_intel() ? BIT(3) : 0));
	EXPECT(rdmsr_or_fail(MC2_STATUS),
	       MASK(61, 58) | BIT(63) | (on_intel() ? MASK(56, 55) : BIT(43)) | code);
	EXPECT(rdmsr_or_fail(MC2_ADDR), gpa);
	EXPECT(rdmsr_or_fail(MC2_MISC), 2 << 6 | 12);
	EXPECT(try_wrmsr(MC2_STATUS, 1), GP);
	EXPECT(try_wrmsr(MC2_STATUS, 0), NO_FAULT);
	EXPECT(try_wrmsr(MCG_STATUS, 0), NO_FAULT);
	EXPECT(rdmsr_or_fail(MC2_STATUS), 0);
}

/* From code that can't be fetched to its caller. */
static void to_caller(struct frame *f)
{
	f->rip = *(u64 *)f->rsp;
	f->rsp += 8;
}

/*
 * operator: r 0x1019008 poison
 * operator: x 0x101a000 poison
 */
TEST(machine_check, "poisoned memory is a machine check, with a bank that says where")
{
	u32 value;

	NEED(1, 'd', 7, "machine checks");
	EXPECT_TRUE(has(1, 'd', 14));
	EXPECT(rdmsr_or_fail(MSR_MCG_CAP) & 0xff, 10);
	EXPECT(rdmsr_or_fail(MSR_MC0_CTL + 39), 0);
	EXPECT(try_wrmsr(MSR_MCG_CAP, 1), GP);
	EXPECT(try_wrmsr(MCG_STATUS, BIT(40)), GP);
	EXPECT(try_wrmsr(MC2_CTL, ~0ull), NO_FAULT);
	EXPECT(try_cr4(read_cr4() | X86_CR4_MCE), NO_FAULT);
	if (on_intel())
		EXPECT(try_wrmsr(MSR_MCG_EXT_CTL, 1), NO_FAULT);
	EXPECT(try_read32(word(AT(25) + 8), &value), MC);
	expect_bank(AT(25) + 8, 0x134);
	EXPECT(try_read32(word(AT(25) + 0x10), &value), MC); /* from now on without the operator */
	expect_bank(AT(25) + 0x10, 0x134);
	trap_handler[18] = to_caller;
	asm volatile("call *%0" : : "r"(AT(26)) : "memory", "cc");
	trap_handler[18] = NULL;
	expect_bank(AT(26), 0x150);
}

TEST_ENDS(machine_check_off, "a CPU that can't take it ends with the VM", "reads gpa 0x1019008")
{
	EXPECT(try_cr4(read_cr4() & ~(u64)X86_CR4_MCE), NO_FAULT);
	(void)*word(AT(25) + 8);
}
