/* SPDX-License-Identifier: MIT */
#include <asm/processor-flags.h>
#include "arch/x86/cpu.h"
#include "arch/x86/debugreg.h"
#include "arch/x86/insn.h"
#include "lib/error.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/debug.h"
#include "virt/decode.h"
#include "virt/enable.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/ops.h"
#include "virt/sched.h"

#define VECTOR_DB 1
#define VECTOR_BP 3

#define DR7_FIXED BIT(10)
#define DR7_VALID (MASK(31, 16) | DR7_GD | MASK(9, 0))

_Static_assert(sizeof(struct vm_debug) <= PAGE_SIZE, "struct vm_debug outgrew its frame");

void (*debug_rest_hook)(void);

/* ---- Hold and resume ---- */

int debug_attach(struct vm *vm)
{
	if (!vm->debug)
		vm->debug = frame_alloc_zero(FRAME_HEAP, vm->id);
	if (!vm->debug)
		return trace_error(-ENOMEM);
	vm->debug->attached = true;
	vm->debug->life = 0;
	return 0;
}

void debug_free(struct vm *vm)
{
	if (vm->debug)
		frame_free(hpa_pfn(ptr_hpa(vm->debug)), FRAME_HEAP, vm->id);
	vm->debug = NULL;
}

void debug_hold(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		__atomic_store_n(&vm->vcpus[i]->debug.hold, true, __ATOMIC_SEQ_CST);
		vcpu_request(vm->vcpus[i], REQ_DEBUG);
	}
}

bool debug_at_rest(const struct vm *vm)
{
	if (__atomic_load_n(&vm->state, __ATOMIC_SEQ_CST) != VM_RUNNING)
		return true;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (READ_ONCE(vm->vcpus[i]->state) != VCPU_PAUSED)
			return false;
	return true;
}

void debug_resume(struct vcpu *v, bool step)
{
	v->debug.stop = DEBUG_NONE;
	v->want_step &= (u8)~STEP_DEBUG; /* it may have stopped without having made its step */
	if (step)
		v->want_step |= STEP_DEBUG;
	/* Interrupts that waited for the end of a step; or they wait from now on. */
	__atomic_fetch_or(&v->requests, REQ_EVENT, __ATOMIC_SEQ_CST);
	v->vm->debug->life = READ_ONCE(v->vm->state) == VM_RUNNING ? v->vm->starts : 0;
	__atomic_store_n(&v->debug.hold, false, __ATOMIC_SEQ_CST);
	sched_resume(v);
}

bool debug_has_ended(const struct vm *vm)
{
	const struct vm_debug *d = vm->debug;

	return d->life && (READ_ONCE(vm->state) != VM_RUNNING || d->life != vm->starts);
}

bool debug_begin(struct vcpu *v)
{
	u64 flags = irq_save();

	/* Of a VM that does not run: then virtualization may be off. */
	if (virt_cpu(this_cpu(cpu_id))->state.enabled && sched_claim(v)) {
		v->debug.irq_flags = flags;
		virt_ops->vcpu_load(v);
		return true;
	}
	irq_restore(flags);
	return false;
}

void debug_end(struct vcpu *v)
{
	virt_ops->vcpu_put(v);
	sched_unclaim(v);
	irq_restore(v->debug.irq_flags);
}

/* The vCPU holds by itself; the debugger will see it at rest. On the runner. */
static void stop(struct vcpu *v, u32 why, u64 address)
{
	if (v->debug.stop)
		return;
	v->debug.stop = (u8)why;
	v->debug.address = address;
	v->want_step &= (u8)~STEP_DEBUG;
	__atomic_store_n(&v->debug.hold, true, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&v->requests, REQ_DEBUG, __ATOMIC_SEQ_CST);
}

void debug_detach(struct vm *vm)
{
	vm->debug->attached = false;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		debug_resume(vm->vcpus[i], false);
}

/* ---- Debug registers, on the runner ---- */

static bool has_hard(const struct vm_debug *d)
{
	return d->hard[0].len | d->hard[1].len | d->hard[2].len | d->hard[3].len;
}

static u64 dr7_of(const struct vm_debug *d, u32 i)
{
	static const u8 conditions[] = { [BREAK_HARD] = 0, [BREAK_WRITE] = 1, [BREAK_ACCESS] = 3 };
	static const u8 lengths[9] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };

	/* G, which lasts; and L, which tells of a task switch: see notice_task_switch() */
	return 3ull << 2 * i | (u64)(conditions[d->hard[i].type] | lengths[d->hard[i].len] << 2)
				       << (16 + 4 * i);
}

/* The CPU's registers: where the debugger has none, the guest's own. The others it misses. */
static void install(struct vcpu *v)
{
	const struct vm_debug *d = v->vm->debug;
	u64 dr[DEBUG_HARD], dr7 = v->debug.dr7 & ~(u64)DR7_GD;

	for (u32 i = 0; i < DEBUG_HARD; i++) {
		dr[i] = v->dr[i];
		if (!d->hard[i].len)
			continue;
		dr[i] = d->hard[i].linear;
		dr7 = (dr7 & ~(3ull << 2 * i | 15ull << (16 + 4 * i))) | dr7_of(d, i);
	}
	write_dr0(dr[0]);
	write_dr1(dr[1]);
	write_dr2(dr[2]);
	write_dr3(dr[3]);
	virt_ops->set_reg(v, VR_DR7, dr7);
}

/*
 * SVM's CPUs switch tasks by themselves (virt/task_switch.c), and clear L bits in the register that
 * they have.
 */
static void notice_task_switch(struct vcpu *v)
{
	u64 dr7 = virt_ops->get_reg(v, VR_DR7);

	for (u32 i = 0; i < DEBUG_HARD; i++)
		if (v->vm->debug->hard[i].len && !(dr7 >> 2 * i & 1))
			v->debug.dr7 &= ~DR7_LOCAL;
}

void debug_vcpu_load(struct vcpu *v)
{
	struct vcpu_debug *b = &v->debug;
	struct vm_debug *d = v->vm->debug;

	b->owns_dr = has_hard(d);
	virt_ops->debug_exits(v, debug_nr_soft(v->vm), b->owns_dr);
	/* A step that can't be made stops where it is. */
	if (v->want_step & STEP_DEBUG && !virt_ops->can_step())
		stop(v, DEBUG_STEP, 0);
	if (!b->owns_dr)
		return;
	b->dr6 = virt_ops->get_reg(v, VR_DR6);
	b->dr7 = virt_ops->get_reg(v, VR_DR7);
	virt_ops->set_reg(v, VR_DR6, DR6_RESET);
	install(v);
}

void debug_vcpu_put(struct vcpu *v)
{
	struct vcpu_debug *b = &v->debug;

	virt_ops->debug_exits(v, false, false);
	if (!b->owns_dr)
		return;
	notice_task_switch(v);
	b->owns_dr = false;
	virt_ops->set_reg(v, VR_DR6, b->dr6);
	virt_ops->set_reg(v, VR_DR7, b->dr7);
}

void debug_after_exit(struct vcpu *v)
{
	/* Done by the CPU, or by us. (An exception is a step into its handler.) */
	if (v->exit.kind == EXIT_STEP || v->exit.kind == EXIT_BUS_LOCKED || v->exit.done ||
	    (v->exit.kind == EXIT_EXCEPTION && v->exit.exception.stepped))
		stop(v, DEBUG_STEP, 0);
}

void debug_guest_dr6(struct vcpu *v, u64 bits)
{
	if (v->debug.owns_dr)
		v->debug.dr6 |= bits;
	else
		virt_ops->set_reg(v, VR_DR6, virt_ops->get_reg(v, VR_DR6) | bits);
}

static void guest_db(struct vcpu *v, u64 dr6)
{
	debug_guest_dr6(v, dr6);
	v->debug.dr7 &= ~DR7_GD; /* SDM "Debug Control Register" */
	vcpu_exception(v, VECTOR_DB, false, 0);
}

static bool trap(struct vcpu *v)
{
	const struct vm_debug *d = v->vm->debug;
	bool stepped = v->exit.exception.stepped;
	u64 dr6 = v->exit.exception.dr6 | virt_ops->get_reg(v, VR_DR6);
	u64 seen = dr6_events(dr6, virt_ops->get_reg(v, VR_DR7), stepped || dr6 & DR6_BS);
	u64 guest = (seen & (DR6_BS | DR6_BD)) | (dr6 & DR6_BT);

	virt_ops->set_reg(v, VR_DR6, DR6_RESET);
	for (u32 i = 0; i < DEBUG_HARD; i++) {
		if (seen & BIT(i) && d->hard[i].len)
			stop(v, DEBUG_BREAK + d->hard[i].type, d->hard[i].linear);
		else
			guest |= seen & BIT(i);
	}
	if (guest || (!v->debug.stop && !stepped)) { /* INT1 sets no bit */
		guest_db(v, guest);
		v->event.insn_len = v->exit.insn_len;
	}
	return true;
}

/* By gpa: another address space may have an INT3 of its own at that linear address. */
static bool hit_soft(struct vcpu *v)
{
	struct walk_fault fault;
	u64 linear = v->rip;
	struct segment cs;
	gpa_t gpa;

	if (vcpu_mode(v) != INSN_64) {
		virt_ops->get_seg(v, SEG_CS, &cs);
		linear = (u32)(cs.base + v->rip);
	}
	if (guest_walk(v, linear, ACCESS_X | WALK_QUIET, vcpu_cpl(v), &gpa, &fault))
		return false;
	for (u32 i = 0; i < debug_nr_soft(v->vm); i++) {
		if (v->vm->debug->soft[i].gpa.v != gpa.v)
			continue;
		stop(v, DEBUG_BREAK + BREAK_SOFT, linear);
		return true;
	}
	return false;
}

bool debug_exception(struct vcpu *v)
{
	if (v->exit.exception.vector == VECTOR_DB)
		return v->debug.owns_dr && trap(v);
	return v->exit.exception.vector == VECTOR_BP && hit_soft(v);
}

/* MOV to DR6 or DR7 in 64-bit mode: #GP if the upper half is not 0. */
static bool write_dr(struct vcpu *v, u32 n, u64 value)
{
	if (n < DEBUG_HARD)
		v->dr[n] = value;
	else if (value >> 32)
		return false;
	else if (n == 6)
		v->debug.dr6 = DR6_RESET | (value & (DR6_TRAPS | DR6_BD | DR6_BS));
	else
		v->debug.dr7 = DR7_FIXED | (value & DR7_VALID);
	install(v);
	return true;
}

/* SDM vol. 2 "MOV - Move to/from Debug Registers": 0F 21 and 0F 23; mod is not looked at. */
void debug_dr_access(struct vcpu *v)
{
	struct walk_fault fault;
	enum insn_mode mode = vcpu_mode(v);
	u8 bytes[INSN_MAX_LEN], rex, modrm;
	int n = guest_fetch(v, bytes, &fault);
	int len = n > 0 ? insn_length(bytes, (size_t)n, mode) : -EAGAIN;
	u32 reg, gpr;
	u64 value;

	if (len < 3 || bytes[len - 3] != 0x0f || !v->debug.owns_dr)
		return; /* it has changed meanwhile: executed again, it tells */
	notice_task_switch(v);
	modrm = bytes[len - 1];
	rex = mode == INSN_64 && len > 3 && (bytes[len - 4] & 0xf0) == 0x40 ? bytes[len - 4] : 0;
	reg = modrm >> 3 & 7;
	gpr = (modrm & 7) | (rex & 1) << 3;
	if (v->debug.dr7 & DR7_GD) {
		guest_db(v, DR6_BD);
		return;
	}
	if (rex & 4 || (reg / 2 == 2 && virt_ops->get_reg(v, VR_CR4) & X86_CR4_DE)) {
		vcpu_ud(v);
		return;
	}
	reg += reg / 2 == 2 ? 2 : 0; /* DR4 and DR5 are other names of DR6 and DR7 */
	if (bytes[len - 2] == 0x21) {
		value = reg == 7 ? v->debug.dr7 : reg == 6 ? v->debug.dr6 : v->dr[reg];
		vcpu_set_gpr(v, gpr, mode == INSN_64 ? value : (u32)value);
	} else {
		value = vcpu_gpr(v, gpr);
		if (!write_dr(v, reg, mode == INSN_64 ? value : (u32)value)) {
			vcpu_gp(v);
			return;
		}
	}
	vcpu_skip_len(v, (u32)len);
}
