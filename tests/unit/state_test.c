/* SPDX-License-Identifier: MIT */
/* Records of VMs: what goes in comes out in another VM, and nothing that is wrong gets in. */
#include "tests/unit/virtio_fake.h"

#include <asm-generic/errno.h>
#include <asm/processor-flags.h>
#include "arch/x86/msr.h"
#include "dev/lapic.h"
#include "lib/xxh64.h"
#include "mm/backing.h"
#include "mm/phys.h"
#include "virt/cpuid.h"
#include "virt/fpu.h"
#include "virt/slots.h"
#include "virt/state.h"

#define VCPUS  2
#define HEADER sizeof(struct state_header)
/* Of the record of vm(): what is there counts for its version. */
#define LAYOUT 0xdf5a592fd2efde76

static char why[160];

static const struct cpuid_policy the_policy = {
	.basic[0] = { 0x16, 1, 2, 3 },
	.basic[0x15] = { 1, 1, 3000000000u, 0 },
	.ext[1] = { .edx = 1u << 29 },
	.xcr0 = 7,
	.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXSAVE,
	.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE,
	.tsc_khz = 3000000,
	.apic_khz = 3000000,
	.phys_bits = 40,
};
static struct cpuid_policy policies[2]; /* each VM's own */
static u32 nr_vms;

static struct {
	struct backing backing, other;
	struct {
		struct slot_map map;
		struct memslot slot[3];
	};
} memory[2];

static struct vm *vm_of(u32 vcpus)
{
	u32 n = nr_vms++ % 2;
	struct vm *vm;

	policies[n] = the_policy;
	vm = fake_vm_with(vcpus, &policies[n]);
	vm->tsc_base = fake_now - 5000;
	for (u32 i = 0; i < vcpus; i++)
		vm->vcpus[i]->rflags = X86_EFLAGS_FIXED;
	memset(&memory[n], 0, sizeof(memory[n]));
	memory[n].map.nr = 2;
	memory[n].backing.vm = vm;
	memory[n].slot[0] = (struct memslot){ .size = 128 * MIB, .backing = &memory[n].backing };
	memory[n].slot[1] = (struct memslot){ .gpa = GPA(4 * GIB),
					      .size = 2 * MIB,
					      .backing = &memory[n].other,
					      .flags = SLOT_READONLY | SLOT_LOG_DIRTY };
	vm->slots = &memory[n].map;
	vm->state = VM_RUNNING;
	return vm;
}

/* Some of everything. */
static void live(struct vm *vm)
{
	struct vcpu *v = vm->vcpus[0];
	struct fake_vcpu *f = container_of(v, struct fake_vcpu, v);

	for (u32 i = 0; i < GPRS; i++)
		v->gpr[i] = 0x1111111111111111ull * i;
	v->rip = 0xffffffff81000123;
	v->rflags = X86_EFLAGS_FIXED | X86_EFLAGS_IF;
	v->event = (struct event){ true, EVENT_EXCEPTION, 14, true, 2, 0 };
	v->activity = VCPU_DELAYED | VCPU_WAITS_MEMORY;
	v->requests = REQ_NMI | REQ_FLUSH;
	v->kvmclock_msr = 0x1001;
	v->xcr0 = 3;
	v->dr[3] = 77;
	memset((u8 *)v->fpu + 160, 0x5c, 64);
	f->reg[VR_RSP] = 0xffff888000001000;
	f->reg[VR_CR0] = X86_CR0_PG | X86_CR0_PE;
	f->reg[VR_CR3] = 0x1000;
	f->reg[VR_CR4] = X86_CR4_PAE;
	f->reg[VR_EFER] = EFER_LME | EFER_LMA;
	f->reg[VR_LSTAR] = 0xffffffff81800000;
	f->reg[VR_TSC_OFFSET] = 0 - vm->tsc_base;
	f->reg[VR_NMI_BLOCKED] = 1;
	f->seg[SEG_CS] = (struct segment){ 0, ~0u, 0x10, 0xa09b, false };
	f->seg[SEG_LDTR].unusable = true;
	f->tsc_aux = 9;
	if (vm->nr_vcpus > 1)
		vm->vcpus[1]->activity = VCPU_WAIT_SIPI;

	msr_set(v, MSR_APIC_BASE,
		APIC_BASE_GPA | APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	msr_set(v, 0x80f, APIC_SVR_ENABLE | 0xff);
	msr_set(v, 0x832, 0x31 | APIC_TIMER_PERIODIC << APIC_LVT_TIMER_SHIFT);
	msr_set(v, 0x83e, 3);
	msr_set(v, 0x838, 1000);
	lapic_accept(lapic_of(v), 0x41, true);
	lapic_accept(lapic_of(v), 0x52, false);
	assert_int_equal(fake_take(v), 0x52);
	mmio_set(v, IOAPIC_GPA, 4, 0x10 + 2 * PLATFORM_UART_IRQ);
	mmio_set(v, IOAPIC_GPA + 0x10, 4, 0x24);
	out(v, 0x21, 0xf0);
	out(v, 0x43, 0x34);
	out(v, 0x40, 0x10);
	out(v, 0x40, 0x27);
	out(v, 0x43, 0x00); /* latched */
	out(v, 0x70, 0x20);
	out(v, 0x71, 0x99);
	out(v, PLATFORM_UART_PORT + 1, 1);
	uart_receive(platform_uart(vm), (const u8 *)"typed", 1);
	power_press(&platform_of(vm)->power, SLEEP_BUTTON);
	msr_set(v, 0x400 + 8, ~0ull); /* MC2_CTL */
	fake_now += 10;
}

static struct state_header *save(struct vm *vm)
{
	struct state_header *h = vm_save(vm, vm, why, sizeof(why));

	if (!h)
		fail_msg("%s", why);
	assert_int_equal(h->address, (u64)(uintptr_t)h);
	h->address = 0; /* as in a file: it is not believed */
	state_set_memory(h, vm);
	assert_null(state_check(h, h->size));
	return h;
}

static void rechecked(struct state_header *h)
{
	h->check = xxh64(h + 1, h->size - sizeof(*h),
			 xxh64(h, offsetof(struct state_header, check), 0));
}

static const char *part_before(const struct state_header *h, u32 at)
{
	static const char *const names[] = { "segment", "registers", "vCPU", "LAPIC",  "PIC",
					     "PIT",	"platform",  "MCE",  "virtio-" };
	const char *found = "the header";

	for (u32 i = HEADER; i < at; i++)
		for (u32 n = 0; n < ARRAY_SIZE(names); n++)
			if (!memcmp((const u8 *)h + i, names[n], strlen(names[n])))
				found = names[n];
	return found;
}

/* But for where they are: the record itself, and the VM's memory. */
static void assert_same(struct state_header *a, struct state_header *b)
{
	u8 *x = (u8 *)a, *y = (u8 *)b;

	assert_int_equal(a->size, b->size);
	for (u32 i = HEADER; i < a->size; i++)
		if (x[i] != y[i])
			fail_msg("byte %u, behind '%s': %02x, not %02x", i, part_before(a, i), y[i],
				 x[i]);
}

/* The values of a part; it must be there. */
static u8 *part_of(struct state_header *h, const char *name, u32 index)
{
	struct state_part want = { .index = index };

	strcpy(want.name, name);
	for (u8 *at = (u8 *)(h + 1); at + sizeof(want) <= (u8 *)h + h->size; at++)
		if (!memcmp(at, &want, offsetof(struct state_part, fields)))
			return at + sizeof(want);
	fail_msg("no part %s %u", name, index);
	return NULL;
}

static void open_devices(void)
{
	nr_vms = 0;
	fake_devices = (struct platform_devices){ .network = { "lab", { 2, 0, 0, 0, 0, 1 } },
						  .rng = true,
						  .mce = true };
}

static void test_round_trip(void **unused)
{
	struct state_header *first, *second;
	struct vm *a, *b;
	struct fake_vcpu *f;

	(void)unused;
	open_devices();
	a = vm_of(VCPUS);
	fake_devices.network.mac[5] = 2;
	b = vm_of(VCPUS);
	live(a);
	first = save(a);
	fake_now += 1000000;
	assert_int_equal(vm_load_state(b, first, why, sizeof(why)), 0);
	second = save(b);
	assert_int_equal(first->memory[0], (u64)(uintptr_t)&memory[0].backing);
	assert_int_equal(first->memory[1], 0); /* that of the second slot is not its own */
	assert_same(first, second);
	f = container_of(b->vcpus[0], struct fake_vcpu, v);
	assert_int_equal(b->tsc_base, a->tsc_base + 1000000);
	assert_int_equal(f->reg[VR_TSC_OFFSET], 0 - b->tsc_base);
	assert_int_equal(f->tsc_aux, 9);
	assert_int_equal(b->vcpus[0]->activity, VCPU_ACTIVE);
	assert_int_equal(b->vcpus[1]->activity, VCPU_WAIT_SIPI);
	assert_true(b->vcpus[0]->requests & REQ_NMI);
	assert_false(b->vcpus[0]->requests & REQ_FLUSH);
	state_free(first);
	state_free(second);
	fake_vm_free(a);
	fake_vm_free(b);
	assert_int_equal(fake_frames, 0);
}

/* Timers go on where they were, interrupts are taken in their order. */
static void test_goes_on(void **unused)
{
	struct state_header *h;
	struct vm *a, *b;
	struct vcpu *v;

	(void)unused;
	open_devices();
	a = vm_of(1);
	v = a->vcpus[0];
	msr_set(v, MSR_APIC_BASE,
		APIC_BASE_GPA | APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	msr_set(v, 0x80f, APIC_SVR_ENABLE | 0xff);
	msr_set(v, 0x832, 0x31 | APIC_TIMER_PERIODIC << APIC_LVT_TIMER_SHIFT);
	msr_set(v, 0x83e, 0xb); /* by 1 */
	msr_set(v, 0x838, 200000);
	lapic_accept(lapic_of(v), 0x41, false);
	lapic_accept(lapic_of(v), 0x52, false);
	fake_now += 50000;
	h = save(a);
	fake_now += 77777777;
	fake_devices.network.mac[5] = 2;
	b = vm_of(1);
	v = b->vcpus[0];
	assert_int_equal(vm_load_state(b, h, why, sizeof(why)), 0);
	assert_int_equal(fake_take_eoi(v), 0x52);
	fake_requested(v, 0);
	vcpu_request(v, REQ_EVENT);
	assert_int_equal(fake_take_eoi(v), 0x41);
	fake_advance(b, 149999);
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(b, 2);
	assert_int_equal(fake_take_eoi(v), 0x31);
	fake_advance(b, 199998);
	assert_int_equal(fake_take_eoi(v), -1);
	fake_advance(b, 2);
	assert_int_equal(fake_take_eoi(v), 0x31);
	state_free(h);
	fake_vm_free(a);
	fake_vm_free(b);
}

static char printed[256];

static void print(void *arg, const u8 *bytes, size_t n)
{
	(void)arg;
	strncat(printed, (const char *)bytes, n);
}

/* In the middle of what it prints a VM is kept: nothing is printed twice, and nothing is lost. */
static void test_half_printed(void **unused)
{
	static const char text[] = "the quick brown fox jumps over the lazy dog";
	struct fake_buffer buffer = { BUFFERS, sizeof(text) - 1, false };
	struct state_header *h;
	struct vring_used_elem last;
	struct fake_ring r;
	struct vm *a, *b;
	u64 doorbell = VIRTIO_GPA(VIRTIO_SLOT_CONSOLE) + VIRTIO_MMIO_QUEUE_NOTIFY;

	(void)unused;
	open_devices();
	a = vm_of(1);
	platform_uart(a)->output = print;
	memcpy(fake_memory + BUFFERS, text, sizeof(text));
	assert_true(virtio_begin(a->vcpus[0], VIRTIO_SLOT_CONSOLE, 0));
	virtio_ring(&r, a->vcpus[0], VIRTIO_SLOT_CONSOLE, 1, 8);
	virtio_driver_ok(a->vcpus[0], VIRTIO_SLOT_CONSOLE);
	virtio_add(&r, &buffer, 1);
	printed[0] = 0;
	assert_int_equal(io_write(a->vcpus[0], IO_MMIO, doorbell, 4, 1), -EAGAIN);
	assert_in_range(strlen(printed), 1, sizeof(text) - 2);
	h = save(a);
	fake_devices.network.mac[5] = 2;
	b = vm_of(1);
	platform_uart(b)->output = print;
	assert_int_equal(vm_load_state(b, h, why, sizeof(why)), 0);
	r.v = b->vcpus[0];
	virtio_kick(&r);
	assert_string_equal(printed, text);
	assert_int_equal(virtio_used(&r, &last), 1);
	state_free(h);
	fake_vm_free(a);
	fake_vm_free(b);
}

/* Behind the IOAPIC and the PICs' lines. */
#define PLATFORM_REST (192 + 4 + 2 + 8)

/* What must not get in, and how it is called. */
static const struct {
	const char *part;
	u32 index;
	int offset;
	u32 bytes;
	u64 value;
	const char *why;
} bad[] = {
	{ "vm", 0, 0, 4, 3, "vm 0: nr_vcpus: 0x3" },
	{ "CPU", 0, 4, 4, 9, "CPU 0: basic[0].eax: 0x9" },
	{ "memory", 0, 0, 8, 0x1000, "memory 0: gpa: 0x1000" },
	{ "memory", 1, 8, 8, 0x1000, "memory 1: gpa: 0x1000" }, /* its size */
	{ "memory", 1, 16, 8, 0, "memory 1: gpa: 0" },		/* its flags */
	{ "segment", 0, 0, 8, 1ull << 47, "segment 0: base: 0x800000000000" },
	{ "segment", 0, 14, 2, 0x100, "segment 0: attr: 0x100" },
	{ "segment", 0, 16, 1, 2, "segment 0: unusable: 0x2" },
	{ "FPU", 0, 26, 2, 1, "vCPU 0: XSAVE area" },
	{ "registers", 0, 8, 8, 1ull << 32, "registers 0: reg[VR_CR0]: 0x100000000" },
	{ "registers", 0, 24, 8, 1ull << 40, "vCPU 0: CR3" },
	{ "registers", 0, 32, 8, X86_CR4_VMXE, "vCPU 0: CR4" },
	{ "registers", 0, 40, 8, 1ull << 32, "registers 0: reg[VR_DR6]" },
	{ "registers", 0, 48, 8, 1ull << 32, "registers 0: reg[VR_DR6]" }, /* DR7 */
	{ "registers", 0, 56, 8, 1ull << 12, "vCPU 0: EFER" },
	{ "registers", 0, 56, 8, EFER_LME, "vCPU 0: EFER" }, /* without LMA, with paging */
	{ "registers", 0, 80, 8, 1ull << 63, "registers 0: reg[VR_LSTAR]: 0x8000000000000000" },
	{ "registers", 0, 88, 8, 1ull << 63, "registers 0: reg[VR_LSTAR]" }, /* CSTAR */
	{ "registers", 0, 96, 8, 1ull << 32, "registers 0: reg[VR_SFMASK]" },
	{ "registers", 0, 104, 8, 1ull << 50, "registers 0: reg[VR_KERNEL_GS_BASE]" },
	{ "registers", 0, 112, 8, 1ull << 32, "registers 0: reg[VR_SYSENTER_CS]" },
	{ "registers", 0, 120, 8, 1ull << 60, "registers 0: reg[VR_SYSENTER_ESP]" },
	{ "registers", 0, 144, 8, 2, "registers 0: reg[VR_INTR_SHADOW]: 0x2" },
	{ "registers", 0, 160, 8, 1ull << 32, "registers 0: tsc_aux" },
	{ "registers", 0, 168, 4, VCPU_DELAYED, "registers 0: activity: 0x3" },
	{ "registers", 0, 172, 4, REQ_STOP, "registers 0: requests: 0x2" },
	{ "vCPU", 0, 128, 8, 1ull << 47, "vCPU 0: rip" },
	{ "vCPU", 0, 136, 8, 1ull << 3, "vCPU 0: rflags: 0x8" },
	{ "vCPU", 0, 144, 1, 2, "vCPU 0: event.valid: 0x2" },
	{ "vCPU", 0, 145, 1, 5, "vCPU 0: event.type: 0x5" },
	{ "vCPU", 0, 147, 1, 2, "vCPU 0: event.has_error" },
	{ "vCPU", 0, 154, 1, 2, "vCPU 0: nmi_pending" },
	{ "vCPU", 0, 163, 8, 1, "vCPU 0: split.test_ctrl: 0x1" },
	{ "vCPU", 0, 171, 8, 5, "vCPU 0: XCR0" },
	{ "LAPIC", 0, 0x320, 4, 1u << 31, "LAPIC 0: a register: 0x320" },
	{ "LAPIC", 0, 0x3e0, 4, 0x10, "LAPIC 0: a register: 0x3e0" },
	{ "LAPIC", 0, 1024, 8, 0x1000, "LAPIC 0: base: 0x1000" },
	{ "LAPIC", 0, 1024, 8, APIC_BASE_GPA | APIC_BASE_X2APIC, "LAPIC 0: base" },
	{ "LAPIC", 1, 1024 + 8 + 128 + 4, 1, 2, "LAPIC 1: extint: 0x2" },
	{ "LAPIC", 1, 1024 + 8 + 128 + 5, 1, 2, "LAPIC 1: timer.running: 0x2" },
	{ "PIC", 0, 4, 1, 8, "PIC 0: lowest: 0x8" },
	{ "PIC", 1, 6, 1, 2, "PIC 1: single: 0x2" },
	{ "PIT", 0, 0, 1, 6, "PIT 0: mode: 0x6" },
	{ "PIT", 2, 2, 1, 2, "PIT 2: bcd: 0x2" },
	{ "platform", 0, 0, 8, 1u << 20, "platform 0: ioapic.entry[0]: 0x100000" },
	{ "platform", 0, 192, 4, 1u << 24, "platform 0: ioapic.lines: 0x1000000" },
	{ "platform", 0, PLATFORM_REST + 2, 1, 16, "platform 0: pit.control: 0x10" },
	{ "platform", 0, PLATFORM_REST + 11, 1, 2, "platform 0: uart.line: 0x2" },
	{ "platform", 0, PLATFORM_REST + 23, 1, 16, "platform 0: uart.fifo_head: 0x10" },
	{ "platform", 0, PLATFORM_REST + 24, 1, 17, "platform 0: uart.fifo_count: 0x11" },
	{ "platform", 0, PLATFORM_REST + 41, 1, 2, "platform 0: uart.second_wrote: 0x2" },
	{ "platform", 0, PLATFORM_REST + 42, 1, 128, "platform 0: rtc.index: 0x80" },
	{ "queue", 0, 24, 2, 129, "queue 0: size: 0x81" },
	{ "queue", 1, 26, 1, 2, "queue 1: ready: 0x2" },
	{ "virtio-net", 0, -1, 1, 9, "virtio-net 0: its place" },
};

static void test_bad_fields(void **unused)
{
	struct state_header *h, *copy;
	struct cpuid_policy own;
	struct vm *a, *b;

	(void)unused;
	open_devices();
	a = vm_of(VCPUS);
	fake_devices.network.mac[5] = 2;
	b = vm_of(VCPUS);
	own = *b->cpuid;
	live(a);
	h = save(a);
	copy = malloc(h->size);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(copy, h, h->size);
		memcpy(part_of(copy, bad[i].part, bad[i].index) + bad[i].offset, &bad[i].value,
		       bad[i].bytes);
		rechecked(copy);
		assert_null(state_check(copy, copy->size));
		if (vm_load_state(b, copy, why, sizeof(why)) != -EINVAL || !strstr(why, bad[i].why))
			fail_msg("%s %u, offset %d: '%s'", bad[i].part, bad[i].index, bad[i].offset,
				 why);
		assert_memory_equal(b->cpuid, &own, sizeof(own));
	}
	/* The PIT divides by what it counts: that it was told to count 0 is not believed. */
	memcpy(copy, h, h->size);
	part_of(copy, "PIT", 2)[3] = 1;
	assert_int_equal(part_of(copy, "PIT", 2)[14], 0);
	rechecked(copy);
	assert_int_equal(vm_load_state(b, copy, why, sizeof(why)), 0);
	in(b->vcpus[0], 0x42);
	in(b->vcpus[0], 0x61);
	/* The guest's TSC was faster. */
	policies[0].tsc_khz = 3100000;
	state_free(h);
	h = save(a);
	assert_int_equal(vm_load_state(b, h, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "its saved state: CPU 0: its TSC's kHz: 0x2f4d60");
	assert_int_equal(b->cpuid->tsc_khz, 3000000);
	free(copy);
	state_free(h);
	fake_vm_free(a);
	fake_vm_free(b);
}

/*
 * Any single bit: it is refused, or it is what the VM then has. Some things follow from others and
 * are computed anew.
 */
static void test_any_bit(void **unused)
{
	u32 refused = 0, taken = 0, other = 0;
	struct state_header *h, *copy, *again;
	struct vm *a, *b;

	(void)unused;
	open_devices();
	a = vm_of(1);
	live(a);
	h = save(a);
	copy = malloc(h->size);
	for (u32 bit = HEADER * 8; bit < h->size * 8; bit += 7) {
		memcpy(copy, h, h->size);
		((u8 *)copy)[bit / 8] ^= (u8)(1 << bit % 8);
		rechecked(copy);
		fake_devices.network.mac[5] = 2;
		nr_vms = 1;
		b = vm_of(1);
		if (vm_load_state(b, copy, why, sizeof(why))) {
			refused++;
		} else {
			again = save(b);
			if (memcmp(again + 1, copy + 1, h->size - HEADER))
				other++;
			else
				taken++;
			state_free(again);
		}
		fake_vm_free(b);
	}
	print_message("%u refused, %u taken, %u follow\n", refused, taken, other);
	assert_true(refused > 100 && taken > 1000 && other < taken / 10);
	free(copy);
	state_free(h);
	fake_vm_free(a);
}

/* What is no record, or half of one, is not walked. */
static void test_header(void **unused)
{
	struct state_header *h, *copy;
	struct vm *a, *b;

	(void)unused;
	open_devices();
	a = vm_of(1);
	fake_devices.network.mac[5] = 2;
	b = vm_of(1);
	h = save(a);
	assert_memory_equal(h->magic, STATE_MAGIC, 8);
	assert_string_equal(h->name, "test");
	for (u32 size = 0; size < h->size; size += size < 200 ? 1 : 97) {
		copy = malloc(size + 1);
		memcpy(copy, h, size);
		assert_string_equal(state_check(copy, size), "its saved state is cut short");
		if (size >= HEADER) { /* said to be whole */
			copy->size = size;
			rechecked(copy);
			assert_int_equal(vm_load_state(b, copy, why, sizeof(why)), -EINVAL);
			assert_non_null(strstr(why, ": cut short: "));
		}
		free(copy);
	}
	copy = malloc(h->size + 8);
	memcpy(copy, h, h->size);
	copy->size += 8;
	memset((u8 *)copy + h->size, 0, 8);
	rechecked(copy);
	assert_int_equal(vm_load_state(b, copy, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "there is more behind it: 0x8"));
	copy->size -= 8;
	rechecked(copy);
	copy->version++;
	assert_string_equal(state_check(copy, h->size), "another version of Corbel saved it");
	copy->version--;
	assert_null(state_check(copy, h->size));
	for (u32 i = 0; i < h->size; i += 11) {
		((u8 *)copy)[i] ^= 0x40;
		assert_non_null(state_check(copy, h->size));
		((u8 *)copy)[i] ^= 0x40;
	}
	free(copy);
	state_free(h);
	assert_int_not_equal(fake_freed, STATE_MAGIC[0]);
	fake_vm_free(a);
	fake_vm_free(b);
}

static void refused(struct vm *vm, const struct state_header *h, const char *expected)
{
	if (vm_load_state(vm, h, why, sizeof(why)) != -EINVAL || !strstr(why, expected))
		fail_msg("not '%s', but '%s'", expected, why);
	fake_vm_free(vm);
	nr_vms = 1;
}

/* A VM that is not the same. */
static void test_other_vm(void **unused)
{
	static u8 disk[512];
	struct state_header *h;
	struct vm *a, *b;

	(void)unused;
	open_devices();
	a = vm_of(VCPUS);
	h = save(a);
	fake_devices.network.mac[5] = 2;
	refused(vm_of(1), h, "vm 0: nr_vcpus: 0x2");
	fake_devices.rng = false;
	refused(vm_of(VCPUS), h, "virtio-console 0: its place");
	fake_devices.rng = true;
	fake_devices.mce = false;
	refused(vm_of(VCPUS), h, "CPU 0: basic[0].eax: 0x4080"); /* MCE, MCA */
	fake_devices.mce = true;
	b = vm_of(VCPUS);
	memory[1].map.nr = 1;
	refused(b, h, "segment 0: its place");
	b = vm_of(VCPUS);
	memory[1].slot[1].flags = SLOT_SHARED;
	refused(b, h, "memory 1: gpa: 0x1");
	b = vm_of(VCPUS);
	policies[1].xsave[0].ebx = 1;
	refused(b, h, "CPU 0: cache[0].eax: 0");
	b = vm_of(VCPUS);
	policies[1].cr4 = 0; /* as is XCR0, it is the VM's own */
	container_of(a->vcpus[0], struct fake_vcpu, v)->reg[VR_CR4] = X86_CR4_PAE;
	state_free(h);
	h = save(a);
	refused(b, h, "vCPU 0: CR4");
	fake_devices.disk = (struct virtio_disk){ .base = disk, .size = sizeof(disk), .id = "d" };
	refused(vm_of(VCPUS), h, "virtio-blk 0: its place");
	assert_int_equal(h->disk, 0);
	for (u32 readonly = 0; readonly < 2; readonly++) {
		fake_devices.disk.readonly = readonly;
		b = vm_of(VCPUS);
		state_free(h);
		h = save(b);
		assert_int_equal(h->disk, !readonly);
		fake_vm_free(b);
	}
	state_free(h);
	fake_vm_free(a);
	assert_int_equal(fake_frames, 0);
}

static void test_not_now(void **unused)
{
	struct vm *a;

	(void)unused;
	open_devices();
	a = vm_of(1);
	fake_busy = true;
	assert_null(vm_save(a, a, why, sizeof(why)));
	assert_non_null(strstr(why, "a vCPU is not at rest"));
	fake_busy = false;
	fake_frames_left = 0;
	assert_null(vm_save(a, a, why, sizeof(why)));
	assert_string_equal(why, "no memory for its state");
	fake_frames_left = ~0u;
	fake_vm_free(a);
	assert_int_equal(fake_frames, 0);
}

/*
 * Names, numbers and sizes of the parts. If this fails: what is in a record has changed, which has
 * to count STATE_VERSION, so that what an older Corbel saved is refused. Then LAYOUT, too.
 */
static void test_layout(void **unused)
{
	static const char *const parts[] = {
		"vm",	 "CPU",	       "memory",     "segment",	      "FPU",	  "registers",
		"vCPU",	 "LAPIC",      "PIC",	     "PIT",	      "platform", "MCE",
		"queue", "virtio-net", "virtio-rng", "virtio-console"
	};
	struct state_header *h;
	struct vm *a;
	u64 hash = STATE_VERSION;

	(void)unused;
	open_devices();
	a = vm_of(1);
	h = save(a);
	for (u32 i = 0; i < ARRAY_SIZE(parts); i++) {
		u64 at[2] = { (u64)(part_of(h, parts[i], 0) - (u8 *)h) };

		memcpy(&at[1], (u8 *)h + at[0] - 8, 8);
		hash = xxh64(at, sizeof(at), hash);
	}
	if (hash != LAYOUT)
		fail_msg("LAYOUT is %#lx", hash);
	state_free(h);
	fake_vm_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_half_printed), cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_any_bit),	     cmocka_unit_test(test_header),
		cmocka_unit_test(test_other_vm),     cmocka_unit_test(test_not_now),
		cmocka_unit_test(test_layout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
