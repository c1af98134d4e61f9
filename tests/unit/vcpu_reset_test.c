/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <asm/processor-flags.h>
#include "tests/unit/fake_vm.h"
#include "virt/debug.h"
#include "virt/fpu.h"

#define SIGNATURE 0x806ea
#define PAT	  0x0706050403020100ull

void split_put(struct vcpu *v)
{
	v->want_step = false;
}

static u32 inits, dr_loads, wakes;

void fpu_reset(void *area)
{
	*(u8 *)area = 0x7f;
}

void vcpu_load_dr(const struct vcpu *v)
{
	dr_loads++;
	for (u32 i = 0; i < 4; i++)
		assert_int_equal(v->dr[i], 0);
}

void debug_vcpu_load(struct vcpu *v)
{
	(void)v;
	fail(); /* no debugger is attached */
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
	wakes++;
}

static void chip_init(struct vcpu *v)
{
	(void)v;
	inits++;
}
static const struct irqchip_ops chip = { .init = chip_init };

/* As a backend: everything is gone. */
static void backend_reset(struct vcpu *v)
{
	struct fake_vcpu *f = (struct fake_vcpu *)v;

	memset(f->reg, 0, sizeof(f->reg));
	f->reg[VR_CR0] = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
	f->seg[SEG_CS] =
		(struct segment){ .base = 0xffff0000, .selector = 0xf000, .limit = 0xffff };
	v->rip = 0xfff0;
	v->rflags = 2;
}

static u8 fpu_area[16];

static int setup(void **state)
{
	static struct virt_ops ops;
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	fake_vm_open(64 * MIB);
	ops = *virt_ops;
	ops.vcpu_reset = backend_reset;
	virt_ops = &ops;
	fake_policy.basic[1].eax = SIGNATURE;
	fake_vm.irqchip = &chip;
	fake_vm.tsc_base = 1000;
	v->fpu = fpu_area;
	inits = dr_loads = wakes = 0;
	return 0;
}

/* A vCPU in the middle of its work: no field is what a reset makes of it. */
static void make_busy(struct vcpu *v)
{
	struct fake_vcpu *f = (struct fake_vcpu *)v;

	for (u32 i = 0; i < VREGS; i++)
		f->reg[i] = 0x1000 + i;
	f->reg[VR_PAT] = PAT;
	f->reg[VR_CR0] = X86_CR0_PG | X86_CR0_WP | X86_CR0_PE | X86_CR0_ET;
	memset(v->gpr, 0x55, sizeof(v->gpr));
	memset(v->dr, 0x55, sizeof(v->dr));
	v->event = (struct event){ .valid = true, .type = EVENT_EXT_INT, .vector = 0x40 };
	v->exit.done = v->want_irq_window = v->want_nmi_window = v->nmi_pending = true;
	v->activity = VCPU_ACTIVE;
	v->kvmclock_msr = 0x1001;
	v->xcr0 = 7;
	fpu_area[0] = 0x33;
}

static void expect_reset(const struct vcpu *v)
{
	for (u32 i = 0; i < GPRS; i++)
		assert_int_equal(v->gpr[i], i == RDX ? SIGNATURE : 0);
	assert_false(v->event.valid || v->exit.done || v->want_irq_window || v->want_nmi_window ||
		     v->nmi_pending);
	assert_int_equal(v->rip, 0xfff0);
}

static void test_power_on(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	for (v->index = 0; v->index < 3; v->index++) {
		make_busy(v);
		v->requests = REQ_STOP | REQ_INIT | REQ_SIPI;
		vcpu_power_on(v);
		expect_reset(v);
		assert_int_equal(v->requests, REQ_FLUSH | REQ_SLOTS);
		assert_int_equal(v->activity, v->index ? VCPU_WAIT_SIPI : VCPU_ACTIVE);
		assert_int_equal(fake_vcpu.reg[VR_TSC_OFFSET], -1000);
		assert_int_equal(fake_vcpu.reg[VR_PAT], 0);
		assert_int_equal(v->xcr0, 1);
		assert_int_equal(v->kvmclock_msr, 0);
		assert_int_equal(fpu_area[0], 0x7f);
	}
}

/* What INIT keeps: SDM "Processor States Following Power-up, Reset, or INIT". */
static void test_init(void **state)
{
	static const u8 kept[] = { VR_STAR,	    VR_LSTAR,	       VR_CSTAR,
				   VR_SFMASK,	    VR_KERNEL_GS_BASE, VR_SYSENTER_CS,
				   VR_SYSENTER_ESP, VR_SYSENTER_EIP,   VR_TSC_OFFSET };
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	for (u32 caches = 0; caches < 4; caches++) {
		u64 cr0 = (caches & 1 ? X86_CR0_CD : 0) | (caches & 2 ? X86_CR0_NW : 0);

		v->index = 1;
		make_busy(v);
		fake_vcpu.reg[VR_CR0] |= cr0;
		vcpu_take_init(v);
		expect_reset(v);
		assert_int_equal(v->activity, VCPU_WAIT_SIPI);
		for (u32 i = 0; i < ARRAY_SIZE(kept); i++)
			assert_int_equal(fake_vcpu.reg[kept[i]], 0x1000 + kept[i]);
		assert_int_equal(fake_vcpu.reg[VR_PAT], PAT);
		assert_int_equal(fake_vcpu.reg[VR_CR0], cr0 | X86_CR0_ET);
		assert_int_equal(fake_vcpu.reg[VR_CR4] | fake_vcpu.reg[VR_EFER], 0);
		assert_int_equal(v->xcr0, 7);
		assert_int_equal(v->kvmclock_msr, 0x1001);
		assert_int_equal(fpu_area[0], 0x33);
		assert_int_equal(inits, caches + 1);
		assert_int_equal(dr_loads, caches + 1);
	}
	/* The boot processor does not wait: it is at the reset vector. */
	v->index = 0;
	make_busy(v);
	vcpu_take_init(v);
	expect_reset(v);
	assert_int_equal(v->activity, VCPU_ACTIVE);
	assert_int_equal(fake_vcpu.seg[SEG_CS].base, 0xffff0000);
}

static void test_sipi(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	v->index = 1;
	for (u32 vector = 0; vector < 256; vector++) {
		make_busy(v);
		vcpu_take_init(v);
		v->sipi_vector = (u8)vector;
		vcpu_take_sipi(v);
		assert_int_equal(v->activity, VCPU_ACTIVE);
		assert_int_equal(v->rip, 0);
		assert_int_equal(fake_vcpu.seg[SEG_CS].base, vector << 12);
		assert_int_equal(fake_vcpu.seg[SEG_CS].selector, vector << 8);
		assert_int_equal(fake_vcpu.seg[SEG_CS].limit, 0xffff);
		/* The second one of the usual pair finds it running, or halted again. */
		v->rip = 0x1234;
		v->activity = vector & 1 ? VCPU_ACTIVE : VCPU_IN_HLT;
		vcpu_take_sipi(v);
		assert_int_equal(v->rip, 0x1234);
		assert_int_equal(v->activity, vector & 1 ? VCPU_ACTIVE : VCPU_IN_HLT);
	}
}

/* An INIT forgets the SIPI before it, not the one after it; both ask the runner to look. */
static void test_order(void **state)
{
	struct vcpu *v = &fake_vcpu.v;

	(void)state;
	v->requests = REQ_EVENT;
	vcpu_send_sipi(v, 0x98);
	assert_int_equal(v->requests, REQ_EVENT | REQ_SIPI);
	assert_int_equal(v->sipi_vector, 0x98);
	vcpu_send_init(v);
	assert_int_equal(v->requests, REQ_EVENT | REQ_INIT);
	vcpu_send_sipi(v, 0x99);
	assert_int_equal(v->requests, REQ_EVENT | REQ_INIT | REQ_SIPI);
	assert_int_equal(v->sipi_vector, 0x99);
	assert_int_equal(wakes, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_power_on, setup),
		cmocka_unit_test_setup(test_init, setup),
		cmocka_unit_test_setup(test_sipi, setup),
		cmocka_unit_test_setup(test_order, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
