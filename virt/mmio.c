/* SPDX-License-Identifier: MIT */
/*
 * Executing one instruction on behalf of a guest: it touched guest-physical space where a device,
 * or nothing, is. Its other operand may be ordinary memory. Nothing visible happens before all that
 * can fail has been looked at: on a fault the guest's own exception is queued and the instruction
 * is as if it had not begun. String instructions do one element at a time and count in the guest's
 * own registers, so they can be interrupted anywhere.
 */
#include <asm/processor-flags.h>
#include "lib/error.h"
#include "virt/emulate.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/ops.h"
#include "virt/slots.h"

struct job {
	struct vcpu *v;
	struct mem_insn insn;
	enum insn_mode mode;
	u64 gprs[GPRS];
	u8 cpl;
};

u8 vcpu_cpl(struct vcpu *v)
{
	struct segment ss;

	if (v->rflags & X86_EFLAGS_VM)
		return 3;
	if (!(virt_ops->get_reg(v, VR_CR0) & X86_CR0_PE))
		return 0;
	virt_ops->get_seg(v, SEG_SS, &ss);
	return ss.attr >> SEG_ATTR_DPL_SHIFT & 3;
}

void vcpu_walk_fault(struct vcpu *v, const struct walk_fault *f)
{
	if (f->stage2 && f->kind != MEMORY_NO_MEMORY) {
		const struct memory_fault fault = { .gpa = f->gpa,
						    .access = f->access,
						    .kind = f->kind,
						    .gva = f->gva,
						    .gva_valid = true,
						    .walk = f->walk };
		memory_fault(v, &fault);
	} else if (f->stage2) {
		vm_stop(v->vm, STOP_MEMORY_FAULT,
			"has page tables at gpa %#lx (rip %#lx), where no memory is", f->gpa.v,
			v->rip);
	} else if (f->noncanonical) {
		vcpu_gp(v);
	} else {
		virt_ops->set_reg(v, VR_CR2, f->gva);
		vcpu_exception(v, 14, true, f->error);
	}
}

static bool linear(struct job *j, const struct mem_operand *op, u64 offset, u64 *out)
{
	struct segment s = { 0 };

	if (j->mode == INSN_64 && op->seg < INSN_FS) {
		*out = offset;
		return true;
	}
	virt_ops->get_seg(j->v, (enum vseg)op->seg, &s); /* the same order in both */
	*out = s.base + offset;
	if (j->mode != INSN_64) {
		*out = (u32)*out;
		/*
		 * Limits matter to real kernels only where they make wrap-around a fault;
		 * expand-down ones are not decoded.
		 */
		if (s.unusable || (offset > s.limit && !(s.attr & 4))) {
			vcpu_exception(j->v, op->seg == INSN_SS ? 12 : 13, true, 0);
			return false;
		}
	}
	return true;
}

/* Where an operand lies: all pages that it touches are looked at first. */
static bool translate(struct job *j, u64 at, u32 size, u8 access, gpa_t *gpa)
{
	struct walk_fault fault;
	gpa_t last;

	if (guest_walk(j->v, at, access, j->cpl, gpa, &fault)) {
		vcpu_walk_fault(j->v, &fault);
		return false;
	}
	if ((at & (PAGE_SIZE - 1)) + size <= PAGE_SIZE)
		return true;
	if (guest_walk(j->v, (at | (PAGE_SIZE - 1)) + 1, access, j->cpl, &last, &fault)) {
		vcpu_walk_fault(j->v, &fault);
		return false;
	}
	return true;
}

/*
 * The memory that an operand is to be written to is there: before a value is taken from a device,
 * because it could not be taken again.
 */
static bool destination(struct job *j, u64 at, u32 size)
{
	for (u32 n, done = 0; done < size; done += n) {
		gpa_t gpa;

		n = MIN(size - done, (u32)(PAGE_SIZE - (at + done) % PAGE_SIZE));
		if (!translate(j, at + done, n, ACCESS_W, &gpa))
			return false;
		if (vm_slot(j->v->vm, gpa) && guest_touch(j->v->vm, gpa, n) == -EAGAIN)
			return false;
	}
	return true;
}

/* False: it waits, or stops, for what can't be used. True: nothing is there, or a ROM. */
static bool no_memory(struct job *j, const struct walk_fault *f)
{
	const struct memslot *s = vm_slot(j->v->vm, f->gpa);

	if (!f->stage2 || (s && f->kind == MEMORY_READONLY && s->flags & SLOT_READONLY))
		return true;
	if (s)
		vcpu_walk_fault(j->v, f);
	return !s;
}

/* What is read where nobody answers. */
static u64 ones(u32 size)
{
	return size < sizeof(u64) ? BIT(size * 8) - 1 : ~0ull;
}

/* Memory first, then devices; where nothing is, reads give ones and writes vanish, as on a bus. */
static bool load(struct job *j, u64 at, u32 size, u64 *value)
{
	struct walk_fault fault;
	gpa_t gpa;

	*value = 0;
	if (!translate(j, at, size, ACCESS_R, &gpa))
		return false;
	if (vm_slot(j->v->vm, gpa)) {
		if (!guest_read_linear(j->v, at, value, size, &fault))
			return true;
		if (!no_memory(j, &fault))
			return false;
	} else if (!io_read(j->v, IO_MMIO, gpa.v, size, value)) {
		return true;
	}
	*value = ones(size);
	return true;
}

static bool store(struct job *j, u64 at, u32 size, u64 value)
{
	struct walk_fault fault;
	gpa_t gpa;

	if (!translate(j, at, size, ACCESS_W, &gpa))
		return false;
	if (vm_slot(j->v->vm, gpa)) /* Read-only memory: dropped. */
		return !guest_write_linear(j->v, at, &value, size, &fault) || no_memory(j, &fault);
	/* A device that has more to do than fits into one exit: the same instruction again. */
	return io_write(j->v, IO_MMIO, gpa.v, size, value) != -EAGAIN;
}

static bool fetch(struct vcpu *v, struct job *j)
{
	struct walk_fault fault;
	u8 bytes[INSN_MAX_LEN];
	int n, err;

	j->v = v;
	j->mode = vcpu_mode(v);
	j->cpl = vcpu_cpl(v);
	n = guest_fetch(v, bytes, &fault);
	if (n <= 0) {
		vcpu_walk_fault(j->v, &fault);
		return false;
	}
	err = decode_mem(bytes, (size_t)n, j->mode, &j->insn);
	if (err == -EINVAL) {
		vcpu_ud(v);
		return false;
	}
	if (err) {
		vm_stop(v->vm, STOP_INTERNAL,
			"cannot emulate the instruction %02x %02x %02x %02x at rip %#lx, "
			"which touches gpa %#lx",
			bytes[0], bytes[1], bytes[2], bytes[3], v->rip, v->exit.fault.gpa.v);
		return false;
	}
	for (u32 i = 0; i < GPRS; i++)
		j->gprs[i] = vcpu_gpr(v, (enum gpr)i);
	return true;
}

static void commit(struct job *j)
{
	for (u32 i = 0; i < GPRS; i++)
		if (i == RSP ? j->gprs[i] != vcpu_gpr(j->v, RSP) : true)
			vcpu_set_gpr(j->v, (enum gpr)i, j->gprs[i]);
}

static u64 addr_mask(const struct mem_insn *insn)
{
	return MASK(insn->addr_size * 8 - 1, 0);
}

/* rSI, rDI, rCX keep their upper halves for 16-bit addresses and lose them for 32-bit ones. */
static void add_reg(struct job *j, enum gpr r, s64 delta)
{
	u64 mask = addr_mask(&j->insn), next = (j->gprs[r] + (u64)delta) & mask;

	j->gprs[r] = j->insn.addr_size == 2 ? (j->gprs[r] & ~mask) | next : next;
}

static bool is_string(u8 op)
{
	return op >= MEM_OP_MOVS && op <= MEM_OP_OUTS;
}

/* A repeated instruction whose count is 0 is done before it begins. */
static bool nothing_to_do(struct job *j)
{
	if (!is_string(j->insn.op) || j->insn.rep == INSN_REP_NONE ||
	    j->gprs[RCX] & addr_mask(&j->insn))
		return false;
	vcpu_skip_len(j->v, j->insn.len);
	return true;
}

/* After an element: pointers and count move on. True if the whole instruction is done. */
static bool string_advance(struct job *j, u64 rflags)
{
	const struct mem_insn *insn = &j->insn;
	s64 step = j->v->rflags & X86_EFLAGS_DF ? -(s64)insn->opsize : insn->opsize;
	bool compares = insn->op == MEM_OP_CMPS || insn->op == MEM_OP_SCAS;
	bool from_only = insn->op == MEM_OP_LODS || insn->op == MEM_OP_OUTS;

	if (!from_only)
		add_reg(j, RDI, step);
	if (from_only || insn->op == MEM_OP_MOVS || insn->op == MEM_OP_CMPS)
		add_reg(j, RSI, step);
	if (insn->rep == INSN_REP_NONE)
		return true;
	add_reg(j, RCX, -1);
	if (!(j->gprs[RCX] & addr_mask(insn)))
		return true;
	return compares && !!(rflags & X86_EFLAGS_ZF) != (insn->rep == INSN_REPE);
}

static void finish_element(struct job *j, u64 rflags)
{
	bool done = !is_string(j->insn.op) || string_advance(j, rflags);

	commit(j);
	j->v->rflags = rflags;
	if (done) {
		vcpu_skip_len(j->v, j->insn.len);
		return;
	}
	/* SDM "Repeat String Operation Prefix", "Single-Step Exception": after each iteration */
	j->v->exit.done = true;
	if (rflags & X86_EFLAGS_TF)
		vcpu_step_trap(j->v);
}

/*
 * Read, compute, write. False: an event is queued, the VM stops, or the instruction is to be
 * executed again; nothing that the guest sees of it has changed.
 */
static bool element(struct job *j, struct insn_values *val)
{
	const struct mem_insn *insn = &j->insn;
	u64 next = j->v->rip + insn->len, at, src;
	bool two = insn->op == MEM_OP_MOVS || insn->op == MEM_OP_CMPS;

	insn_values_load(insn, val, j->gprs);
	val->rflags = j->v->rflags;
	val->mem = 0;
	if (!linear(j, &insn->mem, mem_insn_offset(insn, j->gprs, next), &at))
		return false;
	if (insn->op == MEM_OP_MOVS && !destination(j, at, insn->opsize))
		return false;
	if (two &&
	    (!linear(j, &insn->src, mem_operand_offset(insn, &insn->src, j->gprs, next), &src) ||
	     !load(j, src, insn->opsize, &val->reg)))
		return false;
	if (insn->reads_mem && insn->op != MEM_OP_MOVS && !load(j, at, insn->opsize, &val->mem))
		return false;
	if (mem_insn_execute(insn, val)) {
		vm_stop(j->v->vm, STOP_INTERNAL,
			"cannot emulate the instruction at rip %#lx on a device", j->v->rip);
		return false;
	}
	return !insn->writes_mem || store(j, at, insn->opsize, val->mem);
}

void mmio_execute(struct vcpu *v)
{
	struct job j;
	struct insn_values val;

	/* It was no instruction that made the access: the one at RIP must not be executed for it.
	 */
	if (v->event.valid) {
		vm_stop(v->vm, STOP_MEMORY_FAULT,
			"cannot deliver vector %u (rip %#lx): IDT, GDT or stack lie at gpa %#lx, "
			"where no writable memory is",
			v->event.vector, v->rip, v->exit.fault.gpa.v);
		return;
	}
	if (!fetch(v, &j) || nothing_to_do(&j) || !element(&j, &val))
		return;
	if (!is_string(j.insn.op) || j.insn.op == MEM_OP_LODS)
		insn_values_store(&j.insn, &val, j.gprs);
	finish_element(&j, val.rflags);
}

bool msw_operand(struct vcpu *v, u16 *word)
{
	u64 at, value = *word;
	struct job j;
	bool ok;

	if (!fetch(v, &j) ||
	    !linear(&j, &j.insn.mem, mem_insn_offset(&j.insn, j.gprs, v->rip + j.insn.len), &at))
		return false;
	if (j.insn.writes_mem)
		return store(&j, at, sizeof(*word), value);
	ok = load(&j, at, sizeof(*word), &value);
	*word = (u16)value;
	return ok;
}

/* SDM "INS", "OUTS": one element; the instruction runs again until rCX is 0. */
void string_io_execute(struct vcpu *v)
{
	bool in = v->exit.io.in;
	u32 size = v->exit.io.size;
	u64 at, value = 0;
	struct job j;

	if (!fetch(v, &j) || nothing_to_do(&j))
		return;
	if (j.insn.op != (in ? MEM_OP_INS : MEM_OP_OUTS)) {
		vm_stop(v->vm, STOP_INTERNAL, "cannot read the string I/O instruction at rip %#lx",
			v->rip);
		return;
	}
	j.insn.opsize = (u8)size;
	if (!linear(&j, &j.insn.mem, j.gprs[in ? RDI : RSI] & addr_mask(&j.insn), &at))
		return;
	if (in) {
		/* A port's value must not be taken and lost: the destination is looked at first. */
		if (!destination(&j, at, size))
			return;
		if (io_read(v, IO_PORT, v->exit.io.port, size, &value))
			value = ones(size);
		if (!store(&j, at, size, value))
			return;
	} else {
		if (!load(&j, at, size, &value))
			return;
		io_write(v, IO_PORT, v->exit.io.port, size, value);
	}
	finish_element(&j, v->rflags);
}
