/* SPDX-License-Identifier: MIT */
#include "tests/unit/dev_fake.h"

#include "arch/x86/msr.h"
#include "dev/lapic.h"
#include "virt/cpuid.h"

#define VCPUS	   20
#define VECTOR	   0x45
#define NS(n)	   ((u64)(n)*3) /* at 3 GHz */
#define ICR_ASSERT 0x4000
#define LOGICAL	   0x800
#define SELF	   (1u << 18)
#define ALL	   (2u << 18)
#define OTHERS	   (3u << 18)
#define PERIODIC   (1u << 17)
#define DEADLINE   (2u << 17)
#define MASKED	   0x10000

static int setup(void **state)
{
	fake_now = 1000000;
	fake_log_lines = 0;
	struct vm *vm = fake_vm(VCPUS);
	for (u32 i = 0; vm && i < VCPUS; i++)
		apic_set(vm->vcpus[i], APIC_SVR, 0x1ff);
	*state = vm;
	return !vm;
}

static int teardown(void **state)
{
	fake_vm_free(*state);
	return fake_frames != 0;
}

static void x2apic(struct vcpu *v)
{
	assert_int_equal(
		msr_set(v, MSR_APIC_BASE, APIC_BASE_GPA | APIC_BASE_ENABLE | APIC_BASE_X2APIC), 0);
}

static void test_reset_state(void **state)
{
	struct vm *vm = *state;
	platform_reset(vm);
	for (u32 i = 0; i < VCPUS; i++) {
		struct vcpu *v = vm->vcpus[i];
		u64 base;
		assert_int_equal(msr_get(v, MSR_APIC_BASE, &base), 0);
		assert_int_equal(base, APIC_BASE_GPA | APIC_BASE_ENABLE | (i ? 0 : APIC_BASE_BSP));
		assert_int_equal(apic_get(v, APIC_ID), i << 24);
		assert_int_equal(apic_get(v, APIC_VERSION), 0x1050014);
		assert_int_equal(apic_get(v, APIC_DFR), 0xffffffff);
		assert_int_equal(apic_get(v, APIC_SVR), 0xff);
		for (u32 lvt = APIC_LVT_TIMER; lvt <= APIC_LVT_ERROR; lvt += 16)
			assert_int_equal(apic_get(v, lvt), MASKED);
	}
}

/* HAZARDS row 34: offsets 0..0xfff, sizes 1..8, unaligned. */
static void test_every_mmio_access(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[1];
	static const u64 values[] = { 0, ~0ull, 0x10045, 1ull << 32 };
	for (u32 off = 0; off < 0x1000; off++)
		for (u32 size = 1; size <= 8; size *= 2) {
			u64 value = mmio_get(v, APIC_BASE_GPA + off, size);
			if ((off & 0xf) + size > 4)
				assert_int_equal(value, 0);
			if (size < 8)
				assert_int_equal(value >> size * 8, 0);
			for (u32 i = 0; i < ARRAY_SIZE(values); i++)
				mmio_set(v, APIC_BASE_GPA + off, size, values[i]);
		}
	assert_int_equal(apic_get(v, APIC_ID), 1 << 24);
	assert_int_equal(apic_get(v, APIC_VERSION), 0x1050014);
	assert_int_equal(mmio_get(v, APIC_BASE_GPA + APIC_VERSION + 2, 1), 5);
	assert_int_equal(mmio_get(v, APIC_BASE_GPA + APIC_VERSION, 2), 0x14);
	assert_int_equal(fake_log_lines, 0); /* whatever the guest does */
}

/* HAZARDS row 9: no MSR beyond the registers, reserved bits are #GP. */
static void test_every_x2apic_msr(void **state)
{
	static const u8 readable[] = { 0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x28, 0x30, 0x32,
				       0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3e };
	static const u8 writable[] = { 0x08, 0x0b, 0x0f, 0x28, 0x30, 0x32, 0x33,
				       0x34, 0x35, 0x36, 0x37, 0x38, 0x3e };
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[17];
	u64 value;
	for (u32 msr = 0x800; msr < 0xc00; msr++) {
		assert_int_not_equal(msr_get(v, msr, &value), 0); /* xAPIC mode */
		assert_int_not_equal(msr_set(v, msr, 0), 0);
	}
	x2apic(v);
	for (u32 msr = 0x800; msr < 0xc00; msr++) {
		bool r = (msr >= 0x810 && msr < 0x828) ||
			 (msr < 0x840 && memchr(readable, (int)(msr - 0x800), sizeof(readable)));
		bool w = msr < 0x840 && memchr(writable, (int)(msr - 0x800), sizeof(writable));
		assert_int_equal(!msr_get(v, msr, &value), r);
		if (msr != 0x83f) /* self IPI: vector 0 is an error, not #GP */
			assert_int_equal(!msr_set(v, msr, 0), w);
		if (msr != 0x838 && msr != 0x830)
			assert_int_not_equal(msr_set(v, msr, 0xffffffff), 0);
		if (msr != 0x830)
			assert_int_not_equal(msr_set(v, msr, 1ull << 32), 0);
	}
	assert_int_equal(msr_get(v, 0x802, &value) | (int)value, 17);
	assert_int_equal(msr_get(v, 0x80d, &value), 0);
	assert_int_equal(value, 1 << 16 | 1 << 1);
	assert_int_equal(mmio_get(v, APIC_BASE_GPA + APIC_ID, 4),
			 0xffffffff);		     /* the page is gone */
	assert_int_equal(msr_set(v, 0x80b, 1), -22); /* EOI takes 0 only */
	assert_int_equal(msr_set(v, 0x828, 1), -22); /* and ESR */
}

/* SDM "x2APIC State Transitions" */
static void test_mode_switches(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	const u64 off = APIC_BASE_GPA | APIC_BASE_BSP, x = off | APIC_BASE_ENABLE,
		  x2 = x | APIC_BASE_X2APIC;
	u64 value;
	apic_set(v, APIC_TPR, 0x20);
	apic_set(v, APIC_LVT_LINT0, 0x33);
	assert_int_not_equal(msr_set(v, 0x1b, off | APIC_BASE_X2APIC), 0);
	assert_int_not_equal(msr_set(v, 0x1b, x | 1), 0);
	assert_int_not_equal(msr_set(v, 0x1b, x + 0x1000), 0);
	assert_int_not_equal(msr_set(v, 0x1b, x | 1ull << 52), 0);
	assert_int_equal(msr_set(v, 0x1b, x2), 0);
	assert_int_equal(msr_get(v, 0x808, &value) | (int)value, 0x20); /* kept */
	assert_int_equal(msr_get(v, 0x835, &value) | (int)value, 0x33);
	assert_int_not_equal(msr_set(v, 0x1b, x), 0);
	assert_int_equal(msr_set(v, 0x1b, off), 0);
	assert_int_not_equal(msr_set(v, 0x1b, x2), 0);
	assert_int_equal(mmio_get(v, APIC_BASE_GPA + APIC_TPR, 4), 0xffffffff);
	assert_int_equal(msr_set(v, 0x1b, x), 0);
	assert_int_equal(apic_get(v, APIC_TPR), 0); /* as after reset */
	assert_int_equal(apic_get(v, APIC_SVR), 0xff);
}

static void test_priorities(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	apic_set(v, APIC_ICR, SELF | 0x41);
	apic_set(v, APIC_ICR, SELF | 0x4f);
	apic_set(v, APIC_ICR, SELF | 0x83);
	assert_int_equal(apic_get(v, APIC_IRR + 0x20), 1u << 1 | 1u << 15);
	assert_int_equal(fake_take(v), 0x83);
	assert_int_equal(apic_get(v, APIC_PPR), 0x80);
	assert_int_equal(apic_get(v, APIC_ISR + 0x40), 1u << 3);
	assert_int_equal(apic_get(v, APIC_IRR + 0x40), 0);
	apic_set(v, APIC_ICR, SELF | 0x8f); /* the same class waits */
	assert_int_equal(fake_take(v), -1);
	apic_set(v, APIC_ICR, SELF | 0x90); /* a higher one nests */
	assert_int_equal(fake_take(v), 0x90);
	apic_set(v, APIC_EOI, 0);
	assert_int_equal(fake_take(v), -1);
	apic_set(v, APIC_EOI, 0);
	assert_int_equal(fake_take(v), 0x8f);
	apic_set(v, APIC_TPR, 0x4e);
	apic_set(v, APIC_EOI, 0);
	assert_int_equal(apic_get(v, APIC_PPR), 0x4e);
	assert_int_equal(fake_take(v), -1);
	vm->irqchip->set_tpr(v, 0x3f); /* as by CR8 */
	assert_int_equal(vm->irqchip->get_tpr(v), 0x3f);
	assert_int_equal(fake_take_eoi(v), 0x4f);
	assert_int_equal(fake_take_eoi(v), 0x41);
	assert_int_equal(fake_take_eoi(v), -1);
	apic_set(v, APIC_EOI, 0); /* with nothing in service */
	apic_set(v, APIC_TPR, 0xff);
	for (u32 vec = 16; vec < 256; vec++)
		apic_set(v, APIC_ICR, SELF | vec);
	assert_int_equal(fake_take(v), -1);
	apic_set(v, APIC_TPR, 0);
	for (int vec = 255; vec >= 0; vec--) /* class 1 is above priority 0 */
		assert_int_equal(fake_take_eoi(v), vec >= 16 ? vec : -1);
	apic_set(v, APIC_ICR, SELF | 0x20);
	apic_set(v, APIC_ICR, SELF | 0x20);
	assert_int_equal(fake_take_eoi(v), 0x20);
	assert_int_equal(fake_take_eoi(v), -1); /* coalesced */
}

static u32 takers(struct vm *vm)
{
	u32 set = 0;
	for (u32 i = 0; i < VCPUS; i++)
		if (fake_take_eoi(vm->vcpus[i]) == VECTOR)
			set |= 1u << i;
	return set;
}

static u32 xapic_ipi(struct vm *vm, u32 from, u32 dest, u32 low)
{
	apic_set(vm->vcpus[from], APIC_ICR_HIGH, dest << 24);
	apic_set(vm->vcpus[from], APIC_ICR, low | ICR_ASSERT | VECTOR);
	return takers(vm);
}

#define EVERYBODY ((1u << VCPUS) - 1)

static void test_physical_and_shorthands(void **state)
{
	struct vm *vm = *state;
	for (u32 dest = 0; dest < 255; dest++)
		assert_int_equal(xapic_ipi(vm, 3, dest, 0), dest < VCPUS ? 1u << dest : 0);
	assert_int_equal(xapic_ipi(vm, 3, 255, 0), EVERYBODY);
	assert_int_equal(xapic_ipi(vm, 3, 9, SELF), 1u << 3);
	assert_int_equal(xapic_ipi(vm, 3, 9, ALL), EVERYBODY);
	assert_int_equal(xapic_ipi(vm, 3, 9, OTHERS), EVERYBODY & ~(1u << 3));
	apic_set(vm->vcpus[5], APIC_SVR, 0xff); /* disabled by software: no fixed interrupts */
	assert_int_equal(msr_set(vm->vcpus[6], 0x1b, APIC_BASE_GPA), 0);
	assert_int_equal(xapic_ipi(vm, 3, 9, ALL), EVERYBODY & ~(3u << 5));
	apic_set(vm->vcpus[3], APIC_ICR, OTHERS | ICR_ASSERT | 4 << 8); /* NMIs reach the former */
	for (u32 i = 0; i < VCPUS; i++)
		assert_int_equal(fake_requested(vm->vcpus[i], REQ_NMI), i != 3 && i != 6);
}

/* Every logical destination in both models, against the SDM's rule written the long way. */
static void test_logical_xapic(void **state)
{
	struct vm *vm = *state;
	for (u32 model = 0; model < 2; model++) {
		for (u32 i = 0; i < VCPUS; i++) {
			u32 ldr = model ? 1u << i % 8 : (i / 4) << 4 | 1u << i % 4;
			apic_set(vm->vcpus[i], APIC_DFR, model ? ~0u : 0x0fffffff);
			apic_set(vm->vcpus[i], APIC_LDR, ldr << 24);
		}
		for (u32 dest = 0; dest < 256; dest++) {
			u32 expected = 0;
			for (u32 i = 0; i < VCPUS; i++) {
				bool flat = dest >> i % 8 & 1;
				bool cluster = (dest >> 4 == i / 4 || dest >> 4 == 15) &&
					       dest >> i % 4 & 1;
				expected |= dest == 255 || (model ? flat : cluster) ? 1u << i : 0;
			}
			assert_int_equal(xapic_ipi(vm, 7, dest, LOGICAL), expected);
		}
	}
}

static void test_x2apic_destinations(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[2];
	for (u32 i = 0; i < VCPUS; i++)
		x2apic(vm->vcpus[i]);
	for (u64 dest = 0; dest < 1024; dest++) {
		assert_int_equal(msr_set(v, 0x830, dest << 32 | VECTOR), 0);
		assert_int_equal(takers(vm), dest < VCPUS ? 1u << dest : 0);
	}
	for (u64 cluster = 0; cluster < 4; cluster++)
		for (u64 set = 0; set < 0x10000; set += 0x333) {
			u64 dest = cluster << 16 | set;
			assert_int_equal(msr_set(v, 0x830, dest << 32 | LOGICAL | VECTOR), 0);
			assert_int_equal(takers(vm),
					 cluster < 2 ? set << cluster * 16 & EVERYBODY : 0);
		}
	assert_int_equal(msr_set(v, 0x830, ~0u * (1ull << 32) | VECTOR), 0);
	assert_int_equal(takers(vm), EVERYBODY);
	assert_int_equal(msr_set(v, 0x83f, VECTOR), 0);
	assert_int_equal(takers(vm), 1u << 2);
	u64 icr;
	assert_int_equal(msr_set(v, 0x830, 5ull << 32 | VECTOR), 0);
	assert_int_equal(msr_get(v, 0x830, &icr), 0);
	assert_int_equal(icr, 5ull << 32 | VECTOR);
}

static void test_lowest_priority(void **state)
{
	struct vm *vm = *state;
	for (u32 i = 0; i < VCPUS; i++)
		apic_set(vm->vcpus[i], APIC_TPR, i == 11 ? 0x10 : 0x20);
	assert_int_equal(xapic_ipi(vm, 0, 255, 1 << 8), 1u << 11);
	apic_set(vm->vcpus[11], APIC_TPR, 0x20);
	assert_int_equal(__builtin_popcount(xapic_ipi(vm, 0, 255, 1 << 8)), 1);
	assert_int_equal(xapic_ipi(vm, 0, 12, 1 << 8), 1u << 12);
	assert_int_equal(xapic_ipi(vm, 0, 200, 1 << 8), 0);
}

/* Whom NMI, INIT and SIPI reach: by every kind of destination, and whatever SVR says. */
static u32 started(struct vm *vm, u32 request)
{
	u32 set = 0;
	for (u32 i = 0; i < VCPUS; i++)
		if (fake_requested(vm->vcpus[i], request))
			set |= 1u << i;
	return set;
}

static void test_start_ipis(void **state)
{
	static const struct {
		u32 mode, request;
	} modes[] = { { 4, REQ_NMI }, { 5, REQ_INIT }, { 6, REQ_SIPI } };
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[3];

	platform_reset(vm); /* nobody is enabled by SVR yet: that is how kernels find them */
	assert_int_equal(msr_set(vm->vcpus[6], 0x1b, APIC_BASE_GPA), 0);
	for (u32 i = 0; i < VCPUS; i++)
		apic_set(vm->vcpus[i], APIC_LDR, 1u << (24 + i % 8));
	for (u32 m = 0; m < ARRAY_SIZE(modes); m++) {
		u32 low = modes[m].mode << 8 | ICR_ASSERT | 0x9a, all = EVERYBODY & ~(1u << 6);
		for (u32 dest = 0; dest < 255; dest++) {
			u32 expected = dest < VCPUS && dest != 6 ? 1u << dest : 0;
			apic_set(v, APIC_ICR_HIGH, dest << 24);
			apic_set(v, APIC_ICR, low);
			assert_int_equal(started(vm, modes[m].request), expected);
			if (expected && modes[m].mode == 6)
				assert_int_equal(vm->vcpus[dest]->sipi_vector, 0x9a);
		}
		apic_set(v, APIC_ICR_HIGH, 3 << 24);
		apic_set(v, APIC_ICR, low | LOGICAL);
		assert_int_equal(started(vm, modes[m].request), 0x30303); /* 0, 1, 8, 9, 16, 17 */
		apic_set(v, APIC_ICR, low | ALL);
		assert_int_equal(started(vm, modes[m].request), all);
		apic_set(v, APIC_ICR, low | OTHERS);
		assert_int_equal(started(vm, modes[m].request), all & ~(1u << 3));
	}
	/* INIT level de-assert */
	apic_set(v, APIC_ICR, OTHERS | 5 << 8 | 1 << 15);
	assert_int_equal(started(vm, ~0u), 0);
	/* SMI, remote read, ExtINT: there is nobody behind them. */
	for (u32 mode = 2; mode < 8; mode += mode == 3 ? 4 : 1)
		apic_set(v, APIC_ICR, ALL | mode << 8 | ICR_ASSERT | VECTOR);
	assert_int_equal(started(vm, ~0u), 0);
	/* In x2APIC mode, by cluster: 16, 18 and 19. */
	for (u32 i = 0; i < VCPUS; i++)
		if (i != 6)
			x2apic(vm->vcpus[i]);
	assert_int_equal(msr_set(v, 0x830, (u64)0x1000d << 32 | LOGICAL | 0x5500), 0);
	assert_int_equal(started(vm, REQ_INIT), 0xd0000);
	assert_int_equal(msr_set(v, 0x830, 17ull << 32 | 0x4611), 0);
	assert_int_equal(started(vm, REQ_SIPI), 1u << 17);
	assert_int_equal(vm->vcpus[17]->sipi_vector, 0x11);
}

/* INIT: as after a reset, but id and mode stay. */
static void test_init(void **state)
{
	struct vm *vm = *state;
	for (u32 mode = 0; mode < 2; mode++) {
		struct vcpu *v = vm->vcpus[18];
		u64 base, value;
		apic_set(v, APIC_SVR, 0x1ff);
		apic_set(v, APIC_LVT_TIMER, PERIODIC | VECTOR);
		apic_set(v, APIC_TMICT, 100000);
		apic_set(v, APIC_TPR, 0x10);
		apic_set(v, APIC_ICR, SELF | 0x77);
		apic_set(v, APIC_ICR, SELF | 0x76);
		assert_int_equal(fake_take(v), 0x77);
		if (mode)
			x2apic(v);
		assert_int_equal(msr_get(v, 0x1b, &base), 0);
		vm->irqchip->init(v);
		assert_false(v->timer.armed);
		assert_int_equal(msr_get(v, 0x1b, &value), 0);
		assert_int_equal(value, base);
		for (u32 reg = 0; reg < 0x40; reg++) {
			u32 is = lapic_peek(v->lapic, reg * 16);
			switch (reg * 16) {
			case APIC_ID:
				assert_int_equal(is, mode ? 18 : 18 << 24);
				break;
			case APIC_LDR:
				assert_int_equal(is, mode ? 1 << 16 | 1 << 2 : 0);
				break;
			case APIC_VERSION:
				assert_int_equal(is & 0xff, 0x14);
				break;
			case APIC_DFR:
				assert_int_equal(is, ~0u);
				break;
			case APIC_SVR:
				assert_int_equal(is, 0xff);
				break;
			case APIC_LVT_TIMER ... APIC_LVT_ERROR:
				assert_int_equal(is, MASKED);
				break;
			default:
				assert_int_equal(is, 0);
			}
		}
		assert_int_equal(lapic_pending(v), -1);
		assert_int_equal(!msr_set(v, 0x80f, 0x1ff), mode);
	}
}

/* Whatever mode and shorthand: no crash, and nothing in the log. */
static void test_all_icr_values(void **state)
{
	struct vm *vm = *state;
	for (u32 round = 0; round < 50; round++)
		for (u32 low = 0; low < 0x100000; low += 0x100)
			apic_set(vm->vcpus[round % VCPUS], APIC_ICR, low | (round & 0xf));
	assert_true(fake_log_lines <= 2 * VCPUS);
}

static void test_error_status(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	apic_set(v, APIC_LVT_ERROR, 0xfe);
	apic_set(v, APIC_ICR, SELF | 0x0f);
	assert_int_equal(apic_get(v, APIC_ESR), 0); /* only after a write */
	assert_int_equal(fake_take_eoi(v), 0xfe);
	apic_set(v, APIC_ICR, SELF | 0x0f);
	assert_int_equal(fake_take_eoi(v), -1); /* writing ESR is what arms it again */
	apic_set(v, APIC_ESR, 0x1234);
	assert_int_equal(apic_get(v, APIC_ESR), 1 << 5);
	apic_set(v, APIC_ESR, 0);
	assert_int_equal(apic_get(v, APIC_ESR), 0);
	apic_get(v, 0x010);
	apic_set(v, 0x3f0, VECTOR); /* no self IPI register here */
	assert_int_equal(fake_take_eoi(v), 0xfe);
	apic_set(v, APIC_ESR, 0);
	assert_int_equal(apic_get(v, APIC_ESR), 1 << 7);
	/* HAZARDS row 36: an illegal vector for errors about illegal vectors. */
	apic_set(v, APIC_LVT_ERROR, 0x0f);
	apic_set(v, APIC_ICR, SELF | 0x0f);
	assert_int_equal(fake_take_eoi(v), -1);
	apic_set(v, APIC_ESR, 0);
	assert_int_equal(apic_get(v, APIC_ESR), 3 << 5);
	/* The timer with an illegal vector. */
	apic_set(v, APIC_LVT_ERROR, 0xfe);
	apic_set(v, APIC_LVT_TIMER, 5);
	apic_set(v, APIC_TMICT, 1);
	fake_advance(vm, NS(100));
	assert_int_equal(fake_take_eoi(v), 0xfe);
	apic_set(v, APIC_ESR, 0);
	assert_int_equal(apic_get(v, APIC_ESR), 1 << 6);
}

static void test_software_disable(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	apic_set(v, APIC_LVT_TIMER, 0x30);
	apic_set(v, APIC_TMICT, 1000);
	assert_true(v->timer.armed);
	apic_set(v, APIC_ICR, SELF | 0x50);
	apic_set(v, APIC_SVR, 0xff);
	assert_false(v->timer.armed);
	assert_int_equal(apic_get(v, APIC_LVT_TIMER), MASKED | 0x30);
	apic_set(v, APIC_LVT_TIMER, 0x31);
	assert_int_equal(apic_get(v, APIC_LVT_TIMER), MASKED | 0x31);
	assert_int_equal(fake_take_eoi(v), 0x50); /* what was there stays */
	apic_set(v, APIC_SVR, 0x1ff);
	assert_int_equal(apic_get(v, APIC_LVT_TIMER), MASKED | 0x31);
}

static void test_timer_divisors(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	static const u8 shift[] = {
		[0] = 1, [1] = 2, [2] = 3, [3] = 4, [8] = 5, [9] = 6, [10] = 7, [11] = 0
	};
	apic_set(v, APIC_LVT_TIMER, 0x30);
	for (u32 code = 0; code < 16; code++) {
		u32 div = 1u << shift[code & 0xb];
		apic_set(v, APIC_TDCR, code);
		assert_int_equal(apic_get(v, APIC_TDCR), code & 0xb);
		apic_set(v, APIC_TMICT, 10000);
		assert_in_range(apic_get(v, APIC_TMCCT), 9999, 10000);
		fake_advance(vm, NS(4000 * div));
		assert_in_range(apic_get(v, APIC_TMCCT), 5999, 6000);
		assert_int_equal(fake_take_eoi(v), -1);
		fake_advance(vm, NS(5999 * div));
		assert_int_equal(fake_take_eoi(v), -1);
		fake_advance(vm, NS(div));
		assert_int_equal(apic_get(v, APIC_TMCCT), 0);
		assert_int_equal(fake_take_eoi(v), 0x30);
		fake_advance(vm, NS(1000000));
		assert_int_equal(fake_take_eoi(v), -1);
	}
	/* Changed while it runs: the count goes on at the new rate. */
	apic_set(v, APIC_TDCR, 0xb);
	apic_set(v, APIC_TMICT, 10000);
	fake_advance(vm, NS(5000));
	apic_set(v, APIC_TDCR, 1);
	assert_in_range(apic_get(v, APIC_TMCCT), 4998, 5000);
	fake_advance(vm, NS(4 * 4990));
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(vm, NS(4 * 10));
	assert_int_equal(fake_take_eoi(v), 0x30);
}

/* The rate is the one that the guest's CPUID promises. */
static void test_timer_rate(void **state)
{
	(void)state;
	static const u32 khz[] = { 1000, 24000, 1500000, 3000000 };
	for (u32 i = 0; i < ARRAY_SIZE(khz); i++) {
		struct cpuid_policy policy = { .apic_khz = khz[i] };
		struct vm *vm = fake_vm_with(1, &policy);
		struct vcpu *v = vm->vcpus[0];
		apic_set(v, APIC_SVR, 0x1ff);
		apic_set(v, APIC_TDCR, 0xb);
		apic_set(v, APIC_LVT_TIMER, 0x30);
		apic_set(v, APIC_TMICT, khz[i]); /* 1 ms */
		fake_advance(vm, NS(500000));
		assert_in_range(apic_get(v, APIC_TMCCT), khz[i] / 2 - 1, khz[i] / 2);
		fake_advance(vm, NS(499990));
		assert_int_equal(fake_take_eoi(v), -1);
		fake_advance(vm, NS(20));
		assert_int_equal(fake_take_eoi(v), 0x30);
		fake_vm_free(vm);
	}
}

/* HAZARDS row 35. */
static void test_timer_periodic(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	u32 ticks = 0;
	apic_set(v, APIC_TDCR, 0xb);
	apic_set(v, APIC_LVT_TIMER, PERIODIC | 0x30);
	apic_set(v, APIC_TMICT, 100000);
	for (u32 i = 0; i < 1000; i++) { /* looked at every 10 us: 10 ms are 100 ticks, no drift */
		fake_advance(vm, NS(10000));
		ticks += fake_take_eoi(v) == 0x30;
	}
	assert_in_range(ticks, 99, 100);
	fake_advance(vm, NS(1000000000)); /* a second without looking: one tick, not 10,000 */
	assert_int_equal(fake_take_eoi(v), 0x30);
	assert_int_equal(fake_take_eoi(v), -1);
	assert_in_range(apic_get(v, APIC_TMCCT), 0, 100000);
	/* The shortest count is stretched. */
	apic_set(v, APIC_TMICT, 1);
	ticks = 0;
	for (u32 i = 0; i < 10000; i++) {
		fake_advance(vm, NS(100));
		ticks += fake_take_eoi(v) == 0x30;
	}
	assert_in_range(ticks, 49, 50);
	assert_in_range(apic_get(v, APIC_TMCCT), 0, 1);
	/* Masked it costs the host nothing, but counts. */
	apic_set(v, APIC_TMICT, 100000);
	apic_set(v, APIC_LVT_TIMER, MASKED | PERIODIC | 0x30);
	assert_false(v->timer.armed);
	fake_advance(vm, NS(1025000));
	assert_in_range(apic_get(v, APIC_TMCCT), 74998, 75000);
	apic_set(v, APIC_LVT_TIMER, PERIODIC | 0x31);
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(vm, NS(75001));
	assert_int_equal(fake_take_eoi(v), 0x31);
	apic_set(v, APIC_TMICT, 0);
	assert_false(v->timer.armed);
	assert_int_equal(apic_get(v, APIC_TMCCT), 0);
	fake_advance(vm, NS(1000000));
	assert_int_equal(fake_take_eoi(v), -1);
}

static void test_timer_masked_oneshot(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	apic_set(v, APIC_TDCR, 0xb);
	apic_set(v, APIC_LVT_TIMER, MASKED | 0x30);
	apic_set(v, APIC_TMICT, 1000);
	fake_advance(vm, NS(2000));
	apic_set(v, APIC_LVT_TIMER, 0x30); /* it expired while masked: lost */
	assert_int_equal(fake_take_eoi(v), -1);
	apic_set(v, APIC_TMICT, 1000);
	fake_advance(vm, NS(2000));
	apic_set(v, APIC_LVT_TIMER, MASKED | 0x30); /* it expired before that */
	assert_int_equal(fake_take_eoi(v), 0x30);
	/*
	 * Set anew between the host timer's firing and the request's being served: that request is
	 * stale.
	 */
	apic_set(v, APIC_LVT_TIMER, 0x30);
	apic_set(v, APIC_TMICT, 1000);
	v->requests |= REQ_TIMER;
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(vm, NS(1001));
	assert_int_equal(fake_take_eoi(v), 0x30);
	/* The longest count, and 32 bits of it at the largest divisor. */
	apic_set(v, APIC_TDCR, 0xa);
	apic_set(v, APIC_TMICT, ~0u);
	assert_in_range(apic_get(v, APIC_TMCCT), 0xfffffff0, 0xffffffff);
	fake_advance(vm, NS(128ull * 0x80000000));
	assert_in_range(apic_get(v, APIC_TMCCT), 0x7fffff00, 0x7fffffff);
}

static void test_timer_deadline(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[0];
	u64 value;
	vm->tsc_base = 400000;
	assert_int_equal(msr_set(v, 0x6e0, 12345), 0); /* not in the mode: ignored */
	assert_int_equal(msr_get(v, 0x6e0, &value) | (int)value, 0);
	apic_set(v, APIC_LVT_TIMER, DEADLINE | 0x30);
	apic_set(v, APIC_TMICT, 100);
	assert_int_equal(apic_get(v, APIC_TMICT) | apic_get(v, APIC_TMCCT), 0);
	u64 guest_now = fake_now - vm->tsc_base;
	assert_int_equal(msr_set(v, 0x6e0, guest_now + 5000), 0);
	fake_advance(vm, 4999);
	assert_int_equal(fake_take_eoi(v), -1);
	assert_int_equal(msr_get(v, 0x6e0, &value), 0);
	assert_int_equal(value, guest_now + 5000);
	fake_advance(vm, 1);
	assert_int_equal(fake_take_eoi(v), 0x30);
	assert_int_equal(msr_get(v, 0x6e0, &value) | (int)value, 0);
	for (u32 i = 0; i < 100; i++) { /* in the past: at once, without the host's timer */
		assert_int_equal(msr_set(v, 0x6e0, 1), 0);
		assert_false(v->timer.armed);
		assert_int_equal(fake_take_eoi(v), 0x30);
	}
	/* The guest moves its TSC: the deadline is one of that TSC. */
	guest_now = fake_now - vm->tsc_base;
	assert_int_equal(msr_set(v, 0x6e0, guest_now + 5000), 0);
	fake_tsc_moved = 4000;
	vcpu_request(v, REQ_TIMER);
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(vm, 999);
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(vm, 1);
	assert_int_equal(fake_take_eoi(v), 0x30);
	fake_tsc_moved = 0;
	assert_int_equal(msr_set(v, 0x6e0, ~0ull), 0); /* no wrap into the past */
	assert_int_equal(fake_take_eoi(v), -1);
	assert_int_equal(msr_set(v, 0x6e0, 0), 0);
	assert_false(v->timer.armed);
	assert_int_equal(msr_set(v, 0x6e0, ~0ull), 0);
	apic_set(v, APIC_LVT_TIMER, 0x30); /* leaving the mode disarms */
	assert_false(v->timer.armed);
	apic_set(v, APIC_LVT_TIMER, 3u << 17 | 0x30); /* reserved */
	apic_set(v, APIC_TMICT, 1);
	assert_int_equal(msr_set(v, 0x6e0, 1), 0);
	assert_int_equal(fake_take_eoi(v), -1);
}

static void test_creation_fails(void **state)
{
	(void)state;
	for (u32 n = 0; n < 4; n++) {
		u32 before = fake_frames;
		fake_frames_left = n;
		struct vm *vm = fake_vm(3);
		assert_null(vm);
		assert_int_equal(fake_frames, before);
	}
	fake_frames_left = ~0u;
}

/* What the CPU does when it delivers: from IRR to ISR. */
static void cpu_delivers(u8 vector)
{
	fake_apicv.page[(APIC_IRR + vector / 32 * 16) / 4] &= ~(1u << vector % 32);
	fake_apicv.page[(APIC_ISR + vector / 32 * 16) / 4] |= 1u << vector % 32;
	fake_apicv.page[APIC_PPR / 4] = vector & 0xf0;
}

/*
 * APIC virtualization is on in x2APIC mode while SVR enables the APIC, and nothing is lost when
 * that changes. While the guest runs, nobody but the CPU writes IRR.
 */
static void test_apicv(void **state)
{
	struct vm *vm = *state;
	struct vcpu *v = vm->vcpus[1];
	struct lapic *l = lapic_of(v);
	const struct irqchip_ops *chip = vm->irqchip;
	u64 value;

	x2apic(v);
	assert_false(v->apicv);
	vm->apicv = true;
	assert_int_equal(msr_set(v, 0x83f, VECTOR), 0);
	assert_int_equal(fake_take(v), VECTOR); /* in service now, by software */
	assert_int_equal(msr_set(v, 0x80f, 0x1ff), 0);
	assert_true(v->apicv);
	assert_ptr_equal(fake_apicv.page, l->regs);
	assert_int_equal(fake_apicv.in_service, VECTOR);
	assert_true(fake_requested(v, REQ_EVENT));

	/* From another vCPU, with a higher class and with a lower one: IRR only when we look. */
	apic_set(vm->vcpus[0], APIC_ICR_HIGH, 1 << 24);
	apic_set(vm->vcpus[0], APIC_ICR, ICR_ASSERT | (VECTOR + 0x10));
	apic_set(vm->vcpus[0], APIC_ICR, ICR_ASSERT | (VECTOR - 0x10));
	assert_int_equal(l->regs[APIC_IRR / 4 + (VECTOR + 0x10) / 32 * 4], 0);
	assert_true(fake_requested(v, REQ_EVENT));
	assert_int_equal(chip->pending(v), VECTOR + 0x10);
	assert_int_equal(fake_apicv.requested, VECTOR + 0x10);
	cpu_delivers(VECTOR + 0x10);
	assert_int_equal(chip->pending(v), -1);
	assert_int_equal(fake_apicv.requested, VECTOR - 0x10);

	/* Off in the handler: software sees what the CPU left, and ends both. */
	assert_int_equal(msr_set(v, 0x80f, 0xff), 0);
	assert_false(v->apicv);
	assert_null(fake_apicv.page);
	assert_int_equal(msr_set(v, 0x80b, 0), 0);
	assert_int_equal(msr_get(v, 0x80a, &value), 0);
	assert_int_equal(value, VECTOR & 0xf0);
	assert_int_equal(chip->pending(v), -1);
	assert_int_equal(msr_set(v, 0x80b, 0), 0);
	assert_int_equal(chip->pending(v), VECTOR - 0x10);

	/* Enabled again, the request is there. A self-IPI that the CPU leaves to us is an error. */
	assert_int_equal(msr_set(v, 0x80f, 0x1ff), 0);
	assert_int_equal(fake_apicv.in_service, 0);
	assert_int_equal(chip->pending(v), VECTOR - 0x10);
	assert_int_equal(fake_apicv.requested, VECTOR - 0x10);
	l->regs[APIC_SELF_IPI / 4] = 5;
	chip->written(v, APIC_SELF_IPI);
	assert_int_equal(msr_set(v, 0x828, 0), 0);
	assert_int_equal(msr_get(v, 0x828, &value), 0);
	assert_int_equal(value, APIC_ESR_SEND_ILLEGAL);
	/* Out of x2APIC mode there is none. */
	assert_int_equal(msr_set(v, MSR_APIC_BASE, APIC_BASE_GPA), 0);
	assert_false(v->apicv);
}

/*
 * Random accesses in both modes: the sanitizers are the oracle; and the two summaries must agree
 * with the registers.
 */
static void test_random(void **state)
{
	struct vm *vm = *state;
	srand(1);
	for (u32 i = 0; i < 300000; i++) {
		struct vcpu *v = vm->vcpus[rand() % VCPUS];
		u32 value = (u32)rand() ^ (u32)rand() << 16;
		value = rand() & 1 ? value : value & 0xc0fff;
		if (rand() % 100 == 0)
			(void)msr_set(v, 0x1b, APIC_BASE_GPA | (u64)(rand() & 3) << 10);
		if (rand() & 1)
			apic_set(v, (u32)rand() % 64 * 16, value);
		else
			(void)msr_set(v, 0x800 + (u32)rand() % 64, value);
		if (rand() % 8 == 0)
			fake_advance(vm, (u64)rand() % 100000);
		fake_take(v);
		struct lapic *l = lapic_of(v);
		for (u32 w = 0; w < 8; w++) {
			assert_int_equal(!!*lapic_reg(l, APIC_ISR + w * 16), l->isr_words >> w & 1);
			assert_int_equal(!!*lapic_reg(l, APIC_IRR + w * 16), l->irr_words >> w & 1);
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_reset_state),
		TEST(test_every_mmio_access),
		TEST(test_every_x2apic_msr),
		TEST(test_mode_switches),
		TEST(test_priorities),
		TEST(test_physical_and_shorthands),
		TEST(test_logical_xapic),
		TEST(test_x2apic_destinations),
		TEST(test_lowest_priority),
		TEST(test_all_icr_values),
		TEST(test_start_ipis),
		TEST(test_init),
		TEST(test_error_status),
		TEST(test_software_disable),
		TEST(test_timer_divisors),
		TEST(test_timer_rate),
		TEST(test_timer_periodic),
		TEST(test_timer_masked_oneshot),
		TEST(test_timer_deadline),
		TEST(test_creation_fails),
		TEST(test_apicv),
		TEST(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
