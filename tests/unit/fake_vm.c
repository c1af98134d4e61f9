/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tests/unit/fake_vm.h"
#include "tests/unit/host.h"
#include "arch/x86/cpu.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/sched.h"
#include "virt/slots.h"

struct vm fake_vm;
struct fake_vcpu fake_vcpu;
struct cpuid_policy fake_policy;
u32 fake_bugs;

static u64 get_reg(struct vcpu *v, enum vreg reg)
{
	return ((struct fake_vcpu *)v)->reg[reg];
}

static void set_reg(struct vcpu *v, enum vreg reg, u64 value)
{
	((struct fake_vcpu *)v)->reg[reg] = value;
}

static void get_seg(struct vcpu *v, enum vseg seg, struct segment *out)
{
	*out = ((struct fake_vcpu *)v)->seg[seg];
}

static void set_seg(struct vcpu *v, enum vseg seg, const struct segment *in)
{
	((struct fake_vcpu *)v)->seg[seg] = *in;
}

static void get_mmu(struct vcpu *v, struct guest_mmu *out)
{
	struct fake_vcpu *f = (struct fake_vcpu *)v;

	out->cr0 = f->reg[VR_CR0];
	out->cr3 = f->reg[VR_CR3];
	out->cr4 = f->reg[VR_CR4];
	out->efer = f->reg[VR_EFER];
	out->cs_attr = f->seg[SEG_CS].attr;
	out->cpl = (f->seg[SEG_SS].attr >> SEG_ATTR_DPL_SHIFT) & 3;
}

bool fake_bus_locks_exit;
enum bus_locks fake_bus_locks;

static bool bus_locks(struct vcpu *v, enum bus_locks what)
{
	if (v && fake_bus_locks_exit)
		fake_bus_locks = what;
	return fake_bus_locks_exit;
}

static struct virt_ops ops = { .name = "fake",
			       .get_reg = get_reg,
			       .set_reg = set_reg,
			       .get_seg = get_seg,
			       .set_seg = set_seg,
			       .bus_locks = bus_locks };
const struct virt_ops *virt_ops = &ops;

void fake_use_get_mmu(bool use)
{
	ops.get_mmu = use ? get_mmu : NULL;
}

void vm_bugged(struct vm *vm, const char *cond, const char *file, int line)
{
	(void)cond, (void)file, (void)line;
	vm->dead = true;
	fake_bugs++;
}

/* What a test can have its own of. */
#define WEAK __attribute__((weak))

WEAK DEFINE_PERCPU(u32, cpu_id);
struct list vm_list = LIST_INIT(vm_list);
struct spinlock vm_list_lock = SPINLOCK_INIT(RANK_VM_LIST);
__thread struct vcpu *fake_current;
char fake_stop_text[160];

WEAK const struct vcpu *sched_current(u32 cpu)
{
	(void)cpu;
	return fake_current;
}

WEAK void vcpu_request(struct vcpu *v, u32 requests)
{
	__atomic_fetch_or(&v->requests, requests, __ATOMIC_SEQ_CST);
}

WEAK void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	va_list ap;

	vm->stop_reason = (u8)why;
	va_start(ap, fmt);
	vsnprintf(fake_stop_text, sizeof(fake_stop_text), fmt, ap);
	va_end(ap);
}

void vm_pay_flush(struct vm *vm, struct flush_debt *debt)
{
	(void)vm;
	stage2_debt_paid(debt);
}

static const struct stage2_env env = { .table_alloc = table_pool_alloc,
				       .table_free = table_pool_free,
				       .table_ptr = table_pool_ptr,
				       .table_desc = table_pool_desc,
				       .private_frames = true };

/* The shape of NPT: present, write, user, NX. */
static const struct pt_format format = {
	.name = "fake",
	.levels = 4,
	.present_mask = BIT(0),
	.addr_mask = MASK(51, 12),
	.large_bit = BIT(7),
	.table_bits = 7,
	.prot_mask = BIT(63) | 7,
	.prot_bits = { [S2_R] = BIT(63) | 5,
		       [S2_R | S2_W] = BIT(63) | 7,
		       [S2_R | S2_X] = 5,
		       [S2_RWX] = 7 },
	.accessed = BIT(5),
	.dirty = BIT(6),
};

void fake_vm_open(u64 memory)
{
	struct mem_range map = { .base = HPA(0), .size = memory, .kind = FRAME_FREE };

	if (fake_vm.stage2.root.v)
		stage2_destroy(&fake_vm.stage2);
	host_arena_open(memory);
	assert(!frames_init(&map, 1, HPA(memory)));
	memset(&fake_vm, 0, sizeof(fake_vm));
	memset(&fake_vcpu, 0, sizeof(fake_vcpu));
	fake_vm.slots = &no_slots;
	list_init(&fake_vm.own_memory);
	fake_vcpu.v.slot_hint = no_slots.slot;
	fake_current = NULL;
	fake_stop_text[0] = 0;
	memset(&fake_policy, 0, sizeof(fake_policy));
	fake_policy.phys_bits = 40;
	fake_policy.has_gib_pages = true;
	fake_bugs = 0;
	fake_vm.id = 7;
	frames_set_shared(fake_vm.id, false);
	fake_vm.cpuid = &fake_policy;
	fake_vm.nr_vcpus = 1;
	fake_vm.vcpus[0] = &fake_vcpu.v;
	fake_vcpu.v.vm = &fake_vm;
	assert(!stage2_init(&fake_vm.stage2, &format, &env, 3, BIT(40 - 12), fake_vm.id));
}

u16 vm_new_id(void)
{
	static u16 last = 1000;

	return ++last;
}

void fake_vm_add(struct vm *vm, u16 id)
{
	static struct vcpu vcpus[16]; /* for who asks something of its vCPUs */

	if (vm->stage2.root.v) /* of an earlier test */
		stage2_forget(&vm->stage2);
	memset(vm, 0, sizeof(*vm));
	vm->slots = &no_slots;
	list_init(&vm->own_memory);
	vm->id = id;
	vm->nr_vcpus = 1;
	vm->vcpus[0] = &vcpus[id % ARRAY_SIZE(vcpus)];
	*vm->vcpus[0] = (struct vcpu){ .vm = vm };
	assert(!stage2_init(&vm->stage2, &format, &env, 3, BIT(40 - 12), id));
}

u64 fake_free_extents(void)
{
	struct frame_stats stats;

	frames_stats(&stats);
	return stats.whole_free_extents;
}

DEFINE_PERCPU(struct trace_ring, trace_ring); /* no class is on, at first */

u32 fake_traced[TRACE_TYPES];

void trace_event(u64 who, u64 a, u64 b)
{
	(void)a, (void)b;
	fake_traced[who & 0xff]++;
}
