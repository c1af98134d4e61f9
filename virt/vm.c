/* SPDX-License-Identifier: MIT */
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/tsc.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/corruption.h"
#include "virt/cpuid.h"
#include "virt/debug.h"
#include "virt/enable.h"
#include "virt/fpu.h"
#include "virt/ops.h"
#include "virt/sched.h"
#include "virt/slots.h"
#include "virt/vm.h"

#define FLUSH_MS 500 /* a vCPU that was asked clears the request, and flushes at once */
#define VM_ORDER 4   /* 64 KiB: slots and bus are inside */
_Static_assert(sizeof(struct vm) <= PAGE_SIZE << VM_ORDER, "struct vm outgrew its frames");

struct list vm_list = LIST_INIT(vm_list);
struct spinlock vm_list_lock = SPINLOCK_INIT(RANK_VM_LIST);
void (*vm_stopped_hook)(struct vm *vm);
const struct virt_ops *virt_ops;

/* Each in turn, so that one is used again as late as can be. */
u16 vm_new_id(void)
{
	static u16 last;
	static bool again;

	for (u32 i = 0; i < 0xffff; i++) {
		again |= ++last == 0; /* VM_NONE */
		if (last && (!again || !frames_of_vm(last))) {
			frames_set_shared(last, false);
			return last;
		}
	}
	return 0;
}

static const char *const reason_names[STOP_REASONS] = {
	[STOP_NONE] = "none",
	[STOP_POWEROFF] = "power-off",
	[STOP_EXIT] = "exit",
	[STOP_FAILURE] = "exit",
	[STOP_RESET] = "reset",
	[STOP_OPERATOR] = "operator",
	[STOP_TRIPLE_FAULT] = "triple fault",
	[STOP_MEMORY_FAULT] = "memory fault",
	[STOP_ENTRY_FAILED] = "entry failed",
	[STOP_INTERNAL] = "internal error",
	[STOP_BUGGED] = "bugged",
	[STOP_NO_CPU] = "no CPU",
	[STOP_SPLIT_LOCK] = "split lock",
};

const char *stop_reason_name(enum stop_reason why)
{
	return why < STOP_REASONS ? reason_names[why] : "?";
}

static const struct stage2_env stage2_frames = {
	.table_alloc = table_pool_alloc,
	.table_free = table_pool_free,
	.table_ptr = table_pool_ptr,
	.table_desc = table_pool_desc,
	.corrupted = vm_corrupted,
	.private_frames = true,
};

/* vCPUs that may still use what the debt is about, and the CPUs where they do. */
struct behind {
	struct cpumask in_guest;
	u32 running; /* in the guest */
	u32 unasked; /* not in the guest, but would enter it without a flush, or are just at it */
};

static struct behind vcpus_behind(const struct vm *vm, u64 generation)
{
	struct behind b = { 0 };

	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		const struct vcpu *v = vm->vcpus[i];
		bool asked = __atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) & REQ_FLUSH;

		if (__atomic_load_n(&v->flushed, __ATOMIC_SEQ_CST) >= generation)
			continue;
		if (__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST)) {
			bitmap_set(b.in_guest.bits, v->cpu);
			b.running++;
		}
		b.unasked += !asked;
	}
	return b;
}

/*
 * Each vCPU flushes before it enters again. Those that are in the guest right now are taken out by
 * a call that every CPU answers: once it has, no CPU uses a translation that is older than the
 * debt. A CPU that does not answer is asked again: memory that it may still use is not given away.
 * Nor is it if a vCPU does not know that it has to flush.
 */
void vm_pay_flush(struct vm *vm, struct flush_debt *debt)
{
	u64 deadline = rdtsc() + (u64)FLUSH_MS * tsc_khz;
	struct behind b;

	if (!debt->generation)
		return;
	for (u32 i = 0; i < fault_flush_told(vm->nr_vcpus); i++)
		__atomic_fetch_or(&vm->vcpus[i]->requests, REQ_FLUSH, __ATOMIC_SEQ_CST);
	while (b = vcpus_behind(vm, debt->generation), b.running || b.unasked) {
		bool flush_lost = b.unasked && rdtsc() > deadline;

		if (DATA_CORRUPTION_ON(&vm->stage2, NO_GFN, flush_lost))
			return;
		if (b.running)
			(void)ipi_call(IPI_PING, &b.in_guest, NULL, NULL);
		else if (spin_poll_hook)
			spin_poll_hook();
	}
	stage2_debt_paid(debt);
}

static void vcpu_free(struct vcpu *v)
{
	u16 id = v->vm->id;

	sched_forget(v);
	virt_ops->vcpu_destroy(v);
	if (v->fpu)
		frame_free_order(hpa_pfn(ptr_hpa(v->fpu)), FPU_ORDER, FRAME_HEAP, id);
	frame_free(hpa_pfn(ptr_hpa(v)), FRAME_HEAP, id);
}

static int vcpu_add(struct vm *vm, u32 index, u16 pin)
{
	struct vcpu *v = frame_alloc_zero(FRAME_HEAP, vm->id);
	pfn_t fpu;
	int err;

	ASSERT(virt_ops->vcpu_size <= PAGE_SIZE);
	if (!v)
		return trace_error(-ENOMEM);
	v->vm = vm;
	v->index = index;
	v->pin = pin;
	v->trace.who = (u32)TRACE_WHO(vm->id, index);
	v->slot_hint = vm->slots->slot;
	v->cpu = v->loaded_cpu = CPU_NONE;
	share_init(&v->share, vm->weight);
	err = virt_ops->vcpu_create(v);
	if (err) {
		frame_free(hpa_pfn(ptr_hpa(v)), FRAME_HEAP, vm->id);
		return err;
	}
	vm->vcpus[vm->nr_vcpus++] = v;
	fpu = frame_alloc_order(FPU_ORDER, FRAME_HEAP, vm->id);
	if (!pfn_valid(fpu))
		return trace_error(-ENOMEM);
	v->fpu = pfn_ptr(fpu);
	return sched_place(v);
}

static void cpuid_init(struct vm *vm)
{
	struct cpuid_params params = {
		.caps = virt_reference(),
		.nr_vcpus = vm->nr_vcpus,
		.tsc_khz = tsc_khz,
		.kvmclock_stable = tsc_stable(),
		.tsc_deadline = true,
	};

	cpuid_policy_init(vm->cpuid, &params);
}

/* Everything but the name on the list; what was done stays in *vm for vm_destroy_step. */
static int build(struct vm *vm, u32 vcpus, const u16 *pin)
{
	const struct pt_format *fmt;
	u8 max_leaf;
	int err;

	_Static_assert(sizeof(struct cpuid_policy) <= PAGE_SIZE,
		       "struct cpuid_policy outgrew its frame");
	vm->cpuid = frame_alloc_zero(FRAME_HEAP, vm->id);
	if (!vm->cpuid)
		return trace_error(-ENOMEM);
	fmt = virt_ops->pt_format(&max_leaf);
	err = stage2_init(&vm->stage2, fmt, &stage2_frames, max_leaf,
			  1ull << (MIN(virt_reference()->value[CAP_PHYS_BITS], 48) - PAGE_SHIFT),
			  vm->id);
	for (u32 i = 0; !err && i < vcpus; i++)
		err = vcpu_add(vm, i, pin[i]);
	if (!err)
		cpuid_init(vm);
	return err;
}

/* A vCPU is created and loaded on the CPU that asks; that one may be excluded (it differs). */
static bool virt_on_here(void)
{
	if (!virt_ops || !virt_enabled() || virt_obstacle()[0])
		return false;
	if (virt_cpu(this_cpu(cpu_id))->state.enabled)
		return true;
	log_err("CPU %u sets up VMs, but virtualization is off on it: see cpus", this_cpu(cpu_id));
	return false;
}

int vm_create(const char *name, u32 vcpus, const struct cpumask *cpus, const u16 *pin, u32 weight,
	      struct vm **out)
{
	pfn_t f;
	struct vm *vm;
	u16 id;
	int err;

	if (!virt_on_here())
		return trace_error(-ENODEV);
	if (!vcpus || vcpus > VM_MAX_VCPUS || strlen(name) >= VM_NAME_MAX || vm_find(name))
		return trace_error(-EINVAL);
	id = vm_new_id();
	f = id ? frame_alloc_order(VM_ORDER, FRAME_HEAP, id) : PFN_NONE;
	if (!pfn_valid(f))
		return trace_error(-ENOMEM);
	vm = pfn_ptr(f);
	memset(vm, 0, sizeof(*vm));
	vm->id = id;
	memcpy(vm->name, name, strlen(name) + 1);
	vm->cpus = *cpus;
	vm->weight = weight;
	spin_init(&vm->lock, RANK_VM);
	list_init(&vm->node);
	list_init(&vm->own_memory);
	vm->slots = &no_slots;
	err = build(vm, vcpus, pin);
	if (err) {
		while (vm_destroy_step(vm))
			;
		return err;
	}
	spin_lock(&vm_list_lock);
	list_add_tail(&vm_list, &vm->node);
	spin_unlock(&vm_list_lock);
	*out = vm;
	return 0;
}

void vm_unlist(struct vm *vm)
{
	spin_lock(&vm_list_lock);
	list_del(&vm->node);
	spin_unlock(&vm_list_lock);
}

bool vm_destroy_step(struct vm *vm)
{
	u16 id = vm->id;

	ASSERT(vm->state != VM_RUNNING && list_empty(&vm->node));
	if (vm_free_memory_step(vm))
		return true;
	if (vm->nr_vcpus) {
		vcpu_free(vm->vcpus[--vm->nr_vcpus]);
		return true;
	}
	if (vm->stage2.fmt)
		vm_free_tables(vm);
	debug_free(vm);
	if (vm->cpuid)
		frame_free(hpa_pfn(ptr_hpa(vm->cpuid)), FRAME_HEAP, id);
	frame_free_order(hpa_pfn(ptr_hpa(vm)), VM_ORDER, FRAME_HEAP, id);
	return false;
}

struct vm *vm_find(const char *name)
{
	struct vm *found = NULL;

	spin_lock(&vm_list_lock);
	list_for_each(n, &vm_list) {
		struct vm *vm = list_entry(n, struct vm, node);

		if (!strcmp(vm->name, name))
			found = vm;
	}
	spin_unlock(&vm_list_lock);
	return found;
}

/* vm->load works on a vCPU whose state it can reach: load it for that time. */
static int load_images(struct vm *vm, char *why, size_t why_len)
{
	u64 flags = irq_save();
	int err;

	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		virt_ops->vcpu_load(vm->vcpus[i]);
		vcpu_power_on(vm->vcpus[i]);
		virt_ops->vcpu_put(vm->vcpus[i]);
	}
	irq_restore(flags);
	err = vm->load ? vm->load(vm, why, why_len) : 0;
	return err;
}

/* The CPU of a vCPU may have gone offline, or come to differ, since it ran last. */
static int place_vcpus(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (!bitmap_test(virt_cpus()->bits, v->cpu) && sched_place(v)) {
			log_err("vm %s: not started: none of the CPUs that it may use is online",
				vm->name);
			return -ENODEV;
		}
	}
	return 0;
}

int vm_start(struct vm *vm)
{
	char why[128] = "";
	int err;

	if (vm->dead)
		return trace_error(-EPERM);
	if (vm->snapshot)
		return trace_error(-EROFS);
	if (!virt_on_here())
		return trace_error(-ENODEV);
	if (vm->state == VM_RUNNING)
		return trace_error(-EBUSY);
	if (place_vcpus(vm))
		return -ENODEV;
	if (vm->irqchip)
		vm->irqchip->reset(vm);
	vm_clear_memory(vm);
	if (vm->dead) /* its tables were damaged */
		return trace_error(-EPERM);
	vm->tsc_base = rdtsc();
	split_vm_start(vm);
	err = load_images(vm, why, sizeof(why));
	if (err) {
		vm->stop_reason = STOP_INTERNAL;
		vm->failed = true;
		vm->state = VM_STOPPED;
		fmt_snprintf(vm->stop_text, sizeof(vm->stop_text), "%s",
			     why[0] ? why : error_name(err));
		log_err("vm %s: not started: %s", vm->name, vm->stop_text);
		return err;
	}
	if (vm->snapshot)
		return 0;
	vm_clear_ahead(vm);
	vm->stop_reason = STOP_NONE;
	vm->stop_text[0] = '\0';
	vm->starts++;
	vm->running_vcpus = vm->nr_vcpus;
	__atomic_store_n(&vm->state, VM_RUNNING, __ATOMIC_SEQ_CST);
	trace(TRACE_VM_START, TRACE_WHO(vm->id, 0), 0, 0, 0);
	/* vm_bugged() that came while it was loaded found nothing to stop */
	if (__atomic_load_n(&vm->dead, __ATOMIC_SEQ_CST))
		vm_stop(vm, STOP_BUGGED, "bug in Corbel while it was loaded: see the log");
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		sched_enqueue(vm->vcpus[i]);
	return 0;
}

void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	u8 none = STOP_NONE;
	va_list ap;

	if (vm->state != VM_RUNNING ||
	    !__atomic_compare_exchange_n(&vm->stop_reason, &none, (u8)why, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return;
	va_start(ap, fmt);
	fmt_vsnprintf(vm->stop_text, sizeof(vm->stop_text), fmt, ap);
	va_end(ap);
	if (!stop_reason_good(why))
		vm->failed = true;
	trace(TRACE_VM_STOP, TRACE_WHO(vm->id, 0), why, 0, 0);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_request(vm->vcpus[i], REQ_STOP);
}

void vm_bugged(struct vm *vm, const char *cond, const char *file, int line)
{
	if (__atomic_exchange_n(&vm->dead, true, __ATOMIC_SEQ_CST))
		return;
	log_err("vm %s: dead: %s:%d: this should not be: %s", vm->name, file, line, cond);
	vm_stop(vm, STOP_BUGGED, "bug in Corbel at %s:%d: %s", file, line, cond);
}
