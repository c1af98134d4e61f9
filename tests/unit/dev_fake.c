/* SPDX-License-Identifier: MIT */
#include "tests/unit/dev_fake.h"

#include <asm-generic/errno.h>
#include "arch/x86/tsc.h"
#include "dev/lapic.h"
#include "dev/virtio_rng.h"
#include "mm/audit.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "mm/rmap.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "arch/x86/insn.h"
#include "virt/fpu.h"
#include "virt/guestmem.h"
#include "virt/ops.h"
#include "virt/slots.h"

u64 fake_now = 1000000, fake_tsc_moved;
bool fake_tsc_stable;
u32 fake_frames, fake_frames_left = ~0u;
u8 fake_freed;
u32 fake_random_left = ~0u;
enum stop_reason fake_stop;
u32 fake_log_lines;
char fake_log_line[200];
struct platform_devices fake_devices;
u8 fake_memory[FAKE_MEMORY];
u64 fake_readonly = FAKE_MEMORY;
u32 tsc_khz = 3000000;
u8 *host_arena; /* physical addresses are pointers */

bool tsc_stable(void)
{
	return fake_tsc_stable;
}

bool dev_has_random(void)
{
	return fake_random_left;
}

bool dev_random(u64 *value)
{
	static u64 last;

	if (!fake_random_left)
		return false;
	fake_random_left--;
	*value = ++last;
	return true;
}
u64 fake_cr4;

u64 rdtsc(void)
{
	return fake_now;
}

/* Interrupts are off, and nobody else is there. */
void irq_disable(void)
{
}

void irq_enable(void)
{
}

u64 read_flags(void)
{
	return 0;
}

static struct vcpu *fake_loaded;

static struct fake_vcpu *fake_of(struct vcpu *v)
{
	return container_of(v, struct fake_vcpu, v);
}

/* Devices read these two: as the test has them, until somebody sets them. */
static u64 get_reg(struct vcpu *v, enum vreg reg)
{
	u64 value = fake_of(v)->reg[reg];

	if (reg == VR_CR4 && !value)
		return fake_cr4;
	if (reg == VR_TSC_OFFSET && !value)
		return fake_tsc_moved - v->vm->tsc_base;
	return value;
}

static void set_reg(struct vcpu *v, enum vreg reg, u64 value)
{
	assert_ptr_equal(fake_loaded, v);
	fake_of(v)->reg[reg] = value;
}

static void get_seg(struct vcpu *v, enum vseg seg, struct segment *out)
{
	*out = fake_of(v)->seg[seg];
}

static void set_seg(struct vcpu *v, enum vseg seg, const struct segment *in)
{
	assert_ptr_equal(fake_loaded, v);
	fake_of(v)->seg[seg] = *in;
}

static void vcpu_load(struct vcpu *v)
{
	assert_null(fake_loaded);
	fake_loaded = v;
}

static void vcpu_put(struct vcpu *v)
{
	assert_ptr_equal(fake_loaded, v);
	fake_loaded = NULL;
}

bool fake_busy; /* vCPUs are not at rest */

bool debug_begin(struct vcpu *v)
{
	if (!fake_busy)
		vcpu_load(v);
	return !fake_busy;
}

void debug_end(struct vcpu *v)
{
	vcpu_put(v);
}

/* TSC_AUX is all that is read. */
int rdmsr_safe(u32 msr, u64 *value)
{
	assert_int_equal(msr, MSR_TSC_AUX);
	*value = fake_of(fake_loaded)->tsc_aux;
	return 0;
}

int wrmsr_safe(u32 msr, u64 value)
{
	assert_int_equal(msr, MSR_TSC_AUX);
	fake_of(fake_loaded)->tsc_aux = value;
	return 0;
}

/* APIC virtualization: what the CPU was told. */
struct fake_apicv fake_apicv;

static void apicv(struct vcpu *v, const void *page, const void *posted, u8 in_service)
{
	v->apicv = page;
	fake_apicv = (struct fake_apicv){ .page = (u32 *)page,
					  .posted = posted,
					  .in_service = in_service };
}

static void apicv_requested(struct vcpu *v, u8 requested)
{
	assert_true(v->apicv);
	fake_apicv.requested = requested;
}

static const struct virt_ops ops = { .get_reg = get_reg,
				     .set_reg = set_reg,
				     .get_seg = get_seg,
				     .set_seg = set_seg,
				     .vcpu_load = vcpu_load,
				     .vcpu_put = vcpu_put,
				     .apicv = apicv,
				     .apicv_requested = apicv_requested };
const struct virt_ops *virt_ops = &ops;

void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	assert_false(has_error || error);
	v->event = (struct event){ .valid = true, .type = EVENT_EXCEPTION, .vector = vector };
}

u64 dev_tsc(void)
{
	return fake_now;
}

u64 tsc_to_ns(u64 ticks)
{
	return (u64)((unsigned __int128)ticks * 1000000 / tsc_khz);
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	t->fire = fire;
	t->armed = false;
}

void timer_arm(struct timer *t, u64 deadline)
{
	t->deadline = deadline;
	t->armed = true;
}

void timer_cancel(struct timer *t)
{
	t->armed = false;
}

pfn_t frame_alloc_order(u32 order, enum frame_kind kind, u16 vm)
{
	(void)kind, (void)vm;
	if (fake_frames_left != ~0u && fake_frames_left-- == 0) {
		fake_frames_left = 0;
		return PFN_NONE;
	}
	void *p = aligned_alloc(PAGE_SIZE << order, PAGE_SIZE << order);
	memset(p, 0xa5, PAGE_SIZE << order);
	fake_frames += 1u << order;
	return hpa_pfn(ptr_hpa(p));
}

pfn_t frame_alloc(enum frame_kind kind, u16 vm)
{
	return frame_alloc_order(0, kind, vm);
}

void *frame_alloc_zero(enum frame_kind kind, u16 vm)
{
	pfn_t f = frame_alloc_order(0, kind, vm);
	return pfn_valid(f) ? memset(pfn_ptr(f), 0, PAGE_SIZE) : NULL;
}

int frame_free_order(pfn_t f, u32 order, enum frame_kind kind, u16 vm)
{
	(void)kind, (void)vm;
	fake_freed = *(u8 *)pfn_ptr(f);
	free(pfn_ptr(f));
	fake_frames -= 1u << order;
	return 0;
}

int frame_free(pfn_t f, enum frame_kind kind, u16 vm)
{
	return frame_free_order(f, 0, kind, vm);
}

/* Disks have no extents, and nothing of them is mapped. */
pfn_t extent_alloc(u64 count, u64 align, enum frame_kind kind, u16 vm)
{
	(void)count, (void)align, (void)kind, (void)vm;
	return PFN_NONE;
}

u64 extent_quarantine(pfn_t f, u16 vm)
{
	(void)f, (void)vm;
	return 0;
}

struct frame_owner frame_owner_peek(pfn_t f)
{
	(void)f;
	return (struct frame_owner){ FRAME_GUEST, VM_NONE };
}

u64 frames_end(void)
{
	return 5 * GIB;
}

bool audit_unmapped(pfn_t extent)
{
	(void)extent;
	return true;
}

u64 rmap_count(pfn_t f)
{
	(void)f;
	return 0;
}

u64 fake_missing, fake_missing_size;

const struct slot_map no_slots = { .slot = { { .size = 0 } } };

/* What guest_read and guest_write say of a range that ends below `limit`. */
static int usable(gpa_t gpa, size_t len, u64 limit)
{
	if (gpa.v >= limit || len > limit - gpa.v)
		return -EFAULT;
	if (fake_missing_size && gpa.v < fake_missing + fake_missing_size &&
	    fake_missing < gpa.v + len)
		return -EAGAIN;
	return 0;
}

int guest_read(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
	int err = usable(gpa, len, FAKE_MEMORY);

	(void)vm;
	if (!err)
		memcpy(dst, fake_memory + gpa.v, len);
	return err;
}

int guest_touch(struct vm *vm, gpa_t gpa, size_t len)
{
	(void)vm;
	return usable(gpa, len, fake_readonly);
}

int guest_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
	int err = usable(gpa, len, fake_readonly);

	(void)vm;
	if (!err)
		memcpy(fake_memory + gpa.v, src, len);
	return err;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	__atomic_fetch_or(&v->requests, requests, __ATOMIC_SEQ_CST);
}

void vcpu_post(struct vcpu *v)
{
	vcpu_request(v, REQ_EVENT);
}

void vcpu_send_init(struct vcpu *v)
{
	vcpu_request(v, REQ_INIT);
}

void vcpu_send_sipi(struct vcpu *v, u8 vector)
{
	v->sipi_vector = vector;
	vcpu_request(v, REQ_SIPI);
}

void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	(void)vm, (void)fmt;
	fake_stop = why;
}

void log_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	(void)level;
	fake_log_lines++;
	va_start(ap, fmt);
	fmt_vsnprintf(fake_log_line, sizeof(fake_log_line), fmt, ap);
	va_end(ap);
}

void spin_lock(struct spinlock *l)
{
	assert_int_equal(l->next, l->owner); /* one thread: never taken twice */
	l->next++;
}

void spin_unlock(struct spinlock *l)
{
	l->owner++;
	assert_int_equal(l->next, l->owner);
}

void spin_wait(void)
{
	fail_msg("one thread waits for ever");
}

int io_register(struct vm *vm, enum io_space space, const struct io_region *region)
{
	u32 n = vm->bus.count[space];
	if (n == IO_MAX_REGIONS)
		return -ENOSPC;
	for (u32 i = 0; i < n; i++) {
		const struct io_region *r = &vm->bus.region[space][i];
		if (region->base < r->base + r->size && r->base < region->base + region->size)
			return -EEXIST;
	}
	vm->bus.region[space][n] = *region;
	vm->bus.count[space]++;
	return 0;
}

static struct io_region *find(struct vcpu *v, enum io_space space, u64 addr)
{
	for (u32 i = 0; i < v->vm->bus.count[space]; i++) {
		struct io_region *r = &v->vm->bus.region[space][i];
		if (addr - r->base < r->size)
			return r;
	}
	return NULL;
}

int io_read(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 *value)
{
	struct io_region *r = find(v, space, addr);
	return r && r->read ? r->read(v, r->dev, addr - r->base, size, value) : -ENXIO;
}

int io_write(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 value)
{
	struct io_region *r = find(v, space, addr);
	return r && r->write ? r->write(v, r->dev, addr - r->base, size, value) : -ENXIO;
}

struct vm *fake_vm(u32 vcpus)
{
	return fake_vm_with(vcpus, NULL);
}

struct vm *fake_vm_with(u32 vcpus, struct cpuid_policy *policy)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	vm->id = 1;
	strcpy(vm->name, "test");
	vm->cpuid = policy;
	vm->nr_vcpus = vcpus;
	vm->slots = &no_slots;
	for (u32 i = 0; i < vcpus; i++) {
		struct fake_vcpu *f = calloc(1, sizeof(*f));

		vm->vcpus[i] = &f->v;
		f->v.fpu = aligned_alloc(PAGE_SIZE, PAGE_SIZE << FPU_ORDER);
		fpu_reset(f->v.fpu);
		f->v.xcr0 = 1;
		vm->vcpus[i]->vm = vm;
		vm->vcpus[i]->index = i;
	}
	fake_stop = STOP_NONE;
	if (!platform_create(vm, &fake_devices))
		return vm;
	fake_vm_free(vm);
	return NULL;
}

void fake_vm_free(struct vm *vm)
{
	platform_destroy(vm);
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		free(vm->vcpus[i]->fpu);
		free(fake_of(vm->vcpus[i]));
	}
	free(vm);
}

static struct timer *next_timer(struct vm *vm, u64 until)
{
	struct timer *next = NULL;
	for (u32 i = 0; i < 2 * vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i / 2];
		struct timer *t = i % 2 ? &v->device_timer : &v->timer;
		if (t->armed && t->deadline <= until && (!next || t->deadline < next->deadline))
			next = t;
	}
	return next;
}

void fake_advance(struct vm *vm, u64 ticks)
{
	u64 until = fake_now + ticks;
	struct timer *t;
	while ((t = next_timer(vm, until)) != NULL) {
		fake_now = MAX(fake_now, t->deadline);
		t->armed = false;
		t->fire(t);
	}
	fake_now = until;
}

bool fake_requested(struct vcpu *v, u32 request)
{
	return __atomic_fetch_and(&v->requests, ~request, __ATOMIC_SEQ_CST) & request;
}

int fake_take(struct vcpu *v)
{
	if (fake_requested(v, REQ_TIMER))
		v->vm->irqchip->timer(v);
	if (!fake_requested(v, REQ_EVENT))
		return -1; /* nobody asked: the run loop would not look */
	int vector = v->vm->irqchip->pending(v);
	return vector < 0 ? vector : v->vm->irqchip->ack(v, vector);
}

int fake_take_eoi(struct vcpu *v)
{
	int vector = fake_take(v);
	if (vector >= 0 && lapic_x2(lapic_of(v)))
		assert_int_equal(msr_set(v, 0x80b, 0), 0);
	else if (vector >= 0)
		apic_set(v, APIC_EOI, 0);
	return vector;
}

u64 in(struct vcpu *v, u16 port)
{
	u64 value;
	return io_read(v, IO_PORT, port, 1, &value) ? 0xff : value;
}

void out(struct vcpu *v, u16 port, u8 value)
{
	(void)io_write(v, IO_PORT, port, 1, value);
}

u64 mmio_get(struct vcpu *v, u64 gpa, u32 size)
{
	u64 value;
	return io_read(v, IO_MMIO, gpa, size, &value) ? MASK(size * 8 - 1, 0) : value;
}

void mmio_set(struct vcpu *v, u64 gpa, u32 size, u64 value)
{
	(void)io_write(v, IO_MMIO, gpa, size, value);
}

u32 apic_get(struct vcpu *v, u32 offset)
{
	return (u32)mmio_get(v, APIC_BASE_GPA + offset, 4);
}

void apic_set(struct vcpu *v, u32 offset, u32 value)
{
	mmio_set(v, APIC_BASE_GPA + offset, 4, value);
}

int msr_set(struct vcpu *v, u32 msr, u64 value)
{
	return io_write(v, IO_MSR, msr, 8, value);
}

int msr_get(struct vcpu *v, u32 msr, u64 *value)
{
	return io_read(v, IO_MSR, msr, 8, value);
}
