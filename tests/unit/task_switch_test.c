/* SPDX-License-Identifier: MIT */
/*
 * Task switches that meet missing memory: every page that one touches is missing once, and until
 * the last of them is there, nothing has changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <asm/processor-flags.h>
#include "tests/unit/fake_vm.h"
#include "virt/debug.h"
#include "virt/exits.h"
#include "virt/guestmem.h"

/* What lies in which page; mapped one to one. */
enum { GDT = 1, TSS_A, TSS_B, LDT, STACK, TABLE, DIRECTORY, DIRECTORY_A, PAGES };
enum { CODE = 0x08, DATA = 0x10, SEL_A = 0x18, SEL_B = 0x20, SEL_LDT = 0x28, IN_LDT = 0x0c };
#define AT(page) ((u32)(page) << PAGE_SHIFT)
/* By words, SDM "32-Bit Task-State Segment". */
enum { LINK, CR3 = 7, EIP, FLAGS, T_EAX, ESP = 14, ES = 18, CS, SS, DS, FS, GS, SEL_OF_LDT, TRAP };

static struct fake_vcpu *const f = &fake_vcpu;
static u32 image[PAGES][1024], exceptions;

u64 vcpu_gpr(struct vcpu *v, enum gpr n)
{
	return n == RSP ? f->reg[VR_RSP] : v->gpr[n];
}

void vcpu_set_gpr(struct vcpu *v, enum gpr n, u64 value)
{
	*(n == RSP ? &f->reg[VR_RSP] : &v->gpr[n]) = value;
}

static u32 bad_cr3;

bool guest_cr3_bad(struct vcpu *v, u64 value)
{
	(void)v;
	return value == bad_cr3;
}

int guest_set_cr3(struct vcpu *v, u64 value)
{
	if (guest_cr3_bad(v, value))
		return -EINVAL;
	f->reg[VR_CR3] = value;
	return 0;
}

void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	(void)v, (void)has_error;
	exceptions = exceptions << 16 | vector << 8 | (error & 0xff);
}

u32 vcpu_fetched_length(struct vcpu *v)
{
	(void)v;
	return 7;
}

void debug_guest_dr6(struct vcpu *v, u64 bits)
{
	(void)v;
	f->reg[VR_DR6] |= bits;
}

void vcpu_walk_fault(struct vcpu *v, const struct walk_fault *w)
{
	const struct memory_fault fault = { .gpa = w->gpa, .access = w->access, .kind = w->kind };

	assert_true(w->stage2);
	memory_fault(v, &fault);
}

static u64 descriptor(u32 base, u32 limit, u64 attr)
{
	return (base & 0xffffffull) << 16 | (u64)(base >> 24) << 56 | (limit & 0xffff) |
	       (u64)(limit >> 16) << 48 | attr << 40;
}

static u32 *word_of(u32 page, u32 n)
{
	return &image[page][n];
}

static void put_descriptor(u32 page, u32 selector, u64 d)
{
	memcpy(&image[page][selector / 8 * 2], &d, sizeof(d));
}

static u8 type_of(u32 selector)
{
	u64 d;

	assert_int_equal(guest_read(&fake_vm, GPA(AT(GDT) + selector), &d, 8), 0);
	return d >> 40 & 15;
}

/* Task A runs, without paging; B has some. Nothing is there yet. */
static void open_tasks(void)
{
	u32 *b = image[TSS_B];

	fake_vm_open(64 * MIB);
	memset(image, 0, sizeof(image));
	exceptions = bad_cr3 = 0;
	put_descriptor(GDT, CODE, descriptor(0, 0xfffff, 0xc09b));
	put_descriptor(GDT, DATA, descriptor(0, 0xfffff, 0xc093));
	put_descriptor(GDT, SEL_A, descriptor(AT(TSS_A), 0x67, 0x8b));
	put_descriptor(GDT, SEL_B, descriptor(AT(TSS_B), 0x67, 0x89));
	put_descriptor(GDT, SEL_LDT, descriptor(AT(LDT), 0xfff, 0x82));
	put_descriptor(LDT, IN_LDT, descriptor(0x1234, 0xfff, 0x92)); /* not accessed yet */
	for (u32 i = 0; i < PAGES; i++)
		*word_of(TABLE, i) = AT(i) | 0x63; /* marked already */
	*word_of(DIRECTORY, 0) = *word_of(DIRECTORY_A, 0) = AT(TABLE) | 0x23;
	b[CR3] = AT(DIRECTORY);
	b[EIP] = 0x4444;
	b[FLAGS] = X86_EFLAGS_FIXED;
	b[T_EAX] = 0x55;
	b[ESP] = AT(STACK) + 0x800;
	b[CS] = CODE;
	b[ES] = b[SS] = b[DS] = DATA;
	b[GS] = IN_LDT;
	b[SEL_OF_LDT] = SEL_LDT;
	f->v.gpr[RAX] = 0x11;
	f->v.rip = 0x2222;
	f->v.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_ZF;
	f->reg[VR_CR0] = X86_CR0_PE;
	f->reg[VR_RSP] = 0x3333;
	f->reg[VR_DR7] = 0x401;
	f->seg[SEG_TR] = (struct segment){ AT(TSS_A), 0x67, SEL_A, 0x8b, false };
	f->seg[SEG_GDTR] = (struct segment){ AT(GDT), 0xff, 0, 0, false };
	f->seg[SEG_LDTR].unusable = true;
	f->seg[SEG_CS] = (struct segment){ 0, ~0u, CODE, 0xc09b, false };
	f->seg[SEG_SS] = (struct segment){ 0, ~0u, DATA, 0xc093, false };
	assert_int_equal(vm_add_memory(&fake_vm, GPA(0), 2 * MIB, SLOT_EXIT_ON_MISSING), 0);
	fake_vm.state = VM_RUNNING;
	fake_current = &f->v;
}

/* What is there is as it was supplied. */
static void nothing_has_changed(const struct fake_vcpu *before, const bool *there)
{
	static u8 now[PAGE_SIZE];

	assert_memory_equal(f->reg, before->reg, sizeof(f->reg));
	assert_memory_equal(f->seg, before->seg, sizeof(f->seg));
	assert_memory_equal(f->v.gpr, before->v.gpr, sizeof(f->v.gpr));
	assert_memory_equal(&f->v.event, &before->v.event, sizeof(f->v.event));
	assert_int_equal(f->v.rip, before->v.rip);
	assert_int_equal(f->v.rflags, before->v.rflags);
	assert_int_equal(f->v.exit.done, before->v.exit.done);
	assert_int_equal(exceptions, 0);
	for (u32 i = 0; i < PAGES; i++) {
		if (!there[i])
			continue;
		assert_int_equal(guest_peek(&fake_vm, GPA(AT(i)), now, PAGE_SIZE), MEMORY_OK);
		assert_memory_equal(now, image[i], PAGE_SIZE);
	}
}

/* Returns how many pages it waited for, one after the other. */
static u32 switch_task(u32 source, u16 selector)
{
	struct fake_vcpu before;
	bool there[PAGES] = { false };
	u32 waits = 0, woken;

	f->v.exit.task.source = source;
	f->v.exit.task.selector = selector;
	f->v.exit.insn_len = source == TASK_JMP ? 0 : 7; /* as CPUs without NRIPS */
	before = *f;
	for (;;) {
		u64 page;

		task_switch(&f->v);
		if (!(f->v.activity & VCPU_WAITS_MEMORY))
			return waits;
		page = f->v.wait.fault.gpa.v >> PAGE_SHIFT;
		assert_in_range(page, 1, PAGES - 1);
		assert_false(there[page]);
		assert_int_equal(f->v.wait.fault.rip, before.v.rip);
		nothing_has_changed(&before, there);
		assert_int_equal(vm_resolve(&fake_vm, GPA(AT(page)), PAGE_SIZE, FILL_COPY,
					    image[page], &woken),
				 0);
		there[page] = true;
		memory_wait_end(&f->v);
		waits++;
	}
}

static u32 in_tss(u32 page, u32 n)
{
	u32 value;

	assert_int_equal(guest_read(&fake_vm, GPA(AT(page) + n * 4), &value, 4), 0);
	return value;
}

static void is_task_b(u32 next_rip)
{
	assert_int_equal(f->v.gpr[RAX], 0x55);
	assert_int_equal(f->v.rip, 0x4444);
	assert_int_equal(f->seg[SEG_TR].selector, SEL_B);
	assert_int_equal(f->seg[SEG_GS].base, 0x1234);
	assert_int_equal(f->seg[SEG_LDTR].base, AT(LDT));
	assert_true(f->reg[VR_CR0] & X86_CR0_TS);
	assert_int_equal(f->reg[VR_DR7], 0x400);
	assert_int_equal(type_of(SEL_B), 11);
	assert_int_equal(in_tss(TSS_A, EIP), next_rip);
	assert_int_equal(in_tss(TSS_A, T_EAX), 0x11);
	assert_int_equal(in_tss(TSS_A, ESP), 0x3333);
	assert_int_equal(in_tss(LDT, IN_LDT / 8 * 2 + 1) >> 8 & 1, 1); /* accessed */
}

static void jump(void **state)
{
	(void)state;
	open_tasks();
	assert_int_equal(switch_task(TASK_JMP, SEL_B), 4); /* GDT, both TSSs, LDT */
	is_task_b(0x2222 + 7);
	assert_int_equal(type_of(SEL_A), 9);
	assert_int_equal(in_tss(TSS_B, LINK), 0);
	assert_int_equal(exceptions, 0);
	f->reg[VR_CR0] &= ~X86_CR0_TS;
	/* and back, to what was saved */
	assert_int_equal(switch_task(TASK_JMP, SEL_A), 0);
	assert_int_equal(f->v.rip, 0x2229);
	assert_int_equal(f->v.gpr[RAX], 0x11);
}

/* With paging, in both; an exception with an error code, for B's stack; the T bit of its TSS. */
static void gate(void **state)
{
	(void)state;
	open_tasks();
	f->reg[VR_CR0] |= X86_CR0_PG;
	f->reg[VR_CR3] = AT(DIRECTORY_A);
	image[TSS_B][TRAP] = 1;
	f->v.event = (struct event){ .valid = true,
				     .type = EVENT_EXCEPTION,
				     .vector = 13,
				     .has_error = true,
				     .error = 0x77 };
	assert_int_equal(switch_task(TASK_GATE, SEL_B), PAGES - 1);
	is_task_b(0x2222);
	assert_false(f->v.event.valid);
	assert_int_equal(type_of(SEL_A), 11);
	assert_int_equal(in_tss(TSS_B, LINK) & 0xffff, SEL_A);
	assert_true(f->v.rflags & X86_EFLAGS_NT);
	assert_int_equal(f->reg[VR_RSP], AT(STACK) + 0x7fc);
	assert_int_equal(in_tss(STACK, 0x7fc / 4), 0x77);
	assert_int_equal(exceptions, 1 << 8);
	assert_int_equal(f->reg[VR_DR6], BIT(15));
}

/* A fault of the new task is one of the new task, and only happens once. */
static void bad_segment(void **state)
{
	(void)state;
	open_tasks();
	image[TSS_B][DS] = SEL_A;
	assert_int_equal(switch_task(TASK_JMP, SEL_B), 3);
	assert_int_equal(exceptions, 10 << 8 | SEL_A);
	assert_int_equal(f->v.rip, 0x4444);
	assert_int_equal(type_of(SEL_B), 11);
}

/* What a CR3 leads to that can't be loaded is not even looked at: no memory is there. */
static void bad_tables(void **state)
{
	(void)state;
	open_tasks();
	f->reg[VR_CR0] |= X86_CR0_PG;
	f->reg[VR_CR3] = AT(DIRECTORY_A);
	image[TSS_B][CR3] = bad_cr3 = 0x80000000;
	switch_task(TASK_JMP, SEL_B);
	assert_int_equal(exceptions, 10 << 8);
	assert_int_equal(f->reg[VR_CR3], AT(DIRECTORY_A));
	assert_int_equal(f->v.rip, 0x4444);
	assert_int_equal(fake_vm.stop_reason, STOP_NONE);
}

/* By words, SDM "16-Bit Task-State Segment". */
enum { IP16 = 7, FLAGS16, AX16, SP16 = 13, ES16 = 17, CS16, SS16, DS16, LDT16, WORDS16 };

static u16 in_tss16(u32 n)
{
	return (u16)(in_tss(TSS_B, n / 2) >> n % 2 * 16);
}

static void open_task16(void)
{
	u16 *b = (u16 *)image[TSS_B];

	open_tasks();
	memset(b, 0, PAGE_SIZE);
	b[IP16] = 0x4444;
	b[FLAGS16] = X86_EFLAGS_FIXED;
	b[AX16] = 0x55;
	b[SP16] = 0x800;
	b[CS16] = CODE;
	b[ES16] = b[SS16] = b[DS16] = DATA;
	b[LDT16] = SEL_LDT;
	b[WORDS16] = 0xabcd;
	put_descriptor(GDT, SEL_B, descriptor(AT(TSS_B), 0x2b, 0x81));
	put_descriptor(GDT, DATA, descriptor(AT(STACK), 0xffff, 0x93));
}

/* To a task of 16 bits, with an error code, and back. */
static void sixteen(void **state)
{
	(void)state;
	open_task16();
	f->reg[VR_CR3] = 0x7000;
	f->v.event = (struct event){ .valid = true,
				     .type = EVENT_EXCEPTION,
				     .vector = 13,
				     .has_error = true,
				     .error = 0x77 };
	switch_task(TASK_GATE, SEL_B);
	assert_int_equal(exceptions, 0);
	assert_int_equal(f->v.rip, 0x4444);
	assert_int_equal(f->v.gpr[RAX], 0x55);
	assert_int_equal(f->v.rflags, X86_EFLAGS_FIXED | X86_EFLAGS_NT);
	assert_int_equal(f->seg[SEG_TR].selector, SEL_B);
	assert_int_equal(f->seg[SEG_LDTR].base, AT(LDT));
	assert_int_equal(f->seg[SEG_DS].selector, DATA);
	assert_true(f->seg[SEG_FS].unusable && f->seg[SEG_GS].unusable);
	assert_int_equal(f->reg[VR_CR3], 0x7000);
	assert_int_equal(f->reg[VR_RSP], 0x7fe);
	assert_int_equal(in_tss(STACK, 0x7fc / 4), 0x77 << 16);
	assert_int_equal(type_of(SEL_B), 3);
	assert_int_equal(in_tss16(LINK), SEL_A);
	assert_int_equal(in_tss(TSS_A, EIP), 0x2222);
	f->v.gpr[RAX] = 0x12345678;
	f->reg[VR_RSP] = 0x700;
	switch_task(TASK_IRET, SEL_A);
	assert_int_equal(f->v.rip, 0x2222);
	assert_int_equal(f->v.gpr[RAX], 0x11);
	assert_int_equal(type_of(SEL_B), 1);
	assert_int_equal(in_tss16(IP16), 0x4444 + 7);
	assert_int_equal(in_tss16(FLAGS16), X86_EFLAGS_FIXED);
	assert_int_equal(in_tss16(AX16), 0x5678);
	assert_int_equal(in_tss16(SP16), 0x700);
	assert_int_equal(in_tss16(ES16), DATA);
	assert_int_equal(in_tss16(CS16), CODE);
	assert_int_equal(in_tss16(LDT16), SEL_LDT);
	assert_int_equal(in_tss16(WORDS16), 0xabcd);
}

/* Not memory that will come: the VM ends, and nothing else happens. */
static void no_way(void **state)
{
	u32 woken;

	(void)state;
	open_tasks();
	assert_int_equal(vm_resolve(&fake_vm, GPA(AT(TSS_A)), PAGE_SIZE, FILL_POISON, NULL, &woken),
			 0);
	switch_task(TASK_JMP, SEL_B);
	assert_int_equal(fake_vm.stop_reason, STOP_MEMORY_FAULT);
	assert_int_equal(f->v.rip, 0x2222);
	assert_int_equal(type_of(SEL_B), 9);
}

/* The CPU has looked at the TSS before; what it is now is another vCPU's doing. */
static void changed_meanwhile(void **state)
{
	static const u64 descriptors[] = { 0x66, 0x89, 0x2a, 0x81, 0x67, 0x99, 0x67, 0x85 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(descriptors); i += 2) {
		open_tasks();
		put_descriptor(GDT, SEL_B,
			       descriptor(AT(TSS_B), (u32)descriptors[i], descriptors[i + 1]));
		switch_task(TASK_JMP, SEL_B);
		assert_int_equal(exceptions, 10 << 8 | SEL_B);
		assert_int_equal(f->v.rip, 0x2222);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jump),
		cmocka_unit_test(gate),
		cmocka_unit_test(bad_segment),
		cmocka_unit_test(bad_tables),
		cmocka_unit_test(sixteen),
		cmocka_unit_test(no_way),
		cmocka_unit_test(changed_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
