/* SPDX-License-Identifier: MIT */
/* Addresses and arithmetic of emulated instructions. SDM volume 1, "EFLAGS Register: Status Flags".
 */
#include <asm/processor-flags.h>
#include "virt/emulate.h"

#define FLAGS_STATUS                                                                     \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF | \
	 X86_EFLAGS_OF)

static u64 size_mask(u32 size)
{
	return ~0ull >> (64 - 8 * size);
}

static u64 sign_extend(u64 value, u32 size)
{
	u64 sign = BIT(8 * size - 1);
	return ((value & size_mask(size)) ^ sign) - sign;
}

u64 mem_operand_offset(const struct mem_insn *insn, const struct mem_operand *operand,
		       const u64 gprs[INSN_GPRS], u64 next_rip)
{
	u64 offset = (u64)operand->disp;

	if (operand->rip_relative)
		offset += next_rip;
	if (operand->base != INSN_NO_REG)
		offset += gprs[operand->base];
	if (operand->index != INSN_NO_REG)
		offset += gprs[operand->index] * operand->scale;
	return offset & size_mask(insn->addr_size);
}

u64 mem_insn_offset(const struct mem_insn *insn, const u64 gprs[INSN_GPRS], u64 next_rip)
{
	u64 offset = mem_operand_offset(insn, &insn->mem, gprs, next_rip);

	if (insn->bit_in_reg) {
		/*
		 * SDM "BT", "Bit(BitBase, BitOffset)": the offset is signed, of the operand's size,
		 * and rounds down
		 */
		s64 bit = (s64)sign_extend(gprs[insn->reg], insn->opsize);
		s64 unit = (bit - (bit & (8 * insn->opsize - 1))) / 8;
		offset = (offset + (u64)unit) & size_mask(insn->addr_size);
	}
	return offset;
}

/* The register operand as a number of reg_size bytes. */
static u64 reg_get(const struct mem_insn *insn, const struct insn_values *v)
{
	return (insn->reg_high8 ? v->reg >> 8 : v->reg) & size_mask(insn->reg_size);
}

/*
 * A write of 32 bits clears the upper half, shorter ones keep the rest (SDM "General-Purpose
 * Registers in 64-Bit Mode").
 */
static u64 merge(u64 old, u64 value, u32 size, u32 shift)
{
	u64 mask = (size == 4 ? ~0ull : size_mask(size)) << shift;
	return (old & ~mask) | ((value & size_mask(size)) << shift);
}

static void reg_set(const struct mem_insn *insn, struct insn_values *v, u64 value)
{
	v->reg = merge(v->reg, value, insn->reg_size, insn->reg_high8 ? 8 : 0);
}

static void set_flags(struct insn_values *v, u64 affected, u64 values)
{
	v->rflags = (v->rflags & ~affected) | (values & affected);
}

static u64 result_flags(u64 result, u32 size)
{
	result &= size_mask(size);
	return (result == 0 ? X86_EFLAGS_ZF : 0) | (result >> (8 * size - 1) ? X86_EFLAGS_SF : 0) |
	       (__builtin_parity(result & 0xff) ? 0 : X86_EFLAGS_PF);
}

/*
 * carries: bit n is set if there is a carry or borrow out of bit n. The overflow flag is the carry
 * into the top bit, not equal to the carry out of it.
 */
static u64 carry_flags(u64 carries, u32 size)
{
	u64 out = (carries >> (8 * size - 1)) & 1;
	u64 in = (carries >> (8 * size - 2)) & 1;
	return (out ? X86_EFLAGS_CF : 0) | (in != out ? X86_EFLAGS_OF : 0) |
	       (carries & BIT(3) ? X86_EFLAGS_AF : 0);
}

static u64 add(u64 a, u64 b, u64 carry, u64 *carries)
{
	u64 result = a + b + carry;

	*carries = (a & b) | ((a | b) & ~result);
	return result;
}

static u64 sub(u64 a, u64 b, u64 borrow, u64 *carries)
{
	u64 result = a - b - borrow;

	*carries = (~a & b) | ((~a | b) & result);
	return result;
}

/* a op b for everything that computes one result, which CMP and TEST drop. */
static u64 compute(enum mem_op op, u64 a, u64 b, u32 size, struct insn_values *v)
{
	u64 carry = v->rflags & X86_EFLAGS_CF ? 1 : 0;
	u64 affected = FLAGS_STATUS;
	u64 carries = 0, result;

	if (op == MEM_OP_INC || op == MEM_OP_DEC) {
		b = 1;
		affected &= ~(u64)X86_EFLAGS_CF;
	}
	switch (op) {
	case MEM_OP_ADD:
	case MEM_OP_XADD:
	case MEM_OP_INC:
		result = add(a, b, 0, &carries);
		break;
	case MEM_OP_ADC:
		result = add(a, b, carry, &carries);
		break;
	case MEM_OP_SBB:
		result = sub(a, b, carry, &carries);
		break;
	case MEM_OP_NEG:
		result = sub(0, a, 0, &carries);
		break;
	case MEM_OP_AND:
	case MEM_OP_TEST:
		result = a & b;
		break;
	case MEM_OP_OR:
		result = a | b;
		break;
	case MEM_OP_XOR:
		result = a ^ b;
		break;
	default: /* SUB, DEC, CMP, CMPXCHG, CMPS, SCAS */
		result = sub(a, b, 0, &carries);
		break;
	}
	set_flags(v, affected, result_flags(result, size) | carry_flags(carries, size));
	return result;
}

static u64 bit_op(enum mem_op op, u64 value, u64 bit, struct insn_values *v)
{
	set_flags(v, X86_EFLAGS_CF, (value >> bit) & 1 ? X86_EFLAGS_CF : 0);
	switch (op) {
	case MEM_OP_BTS:
		return value | BIT(bit);
	case MEM_OP_BTR:
		return value & ~BIT(bit);
	case MEM_OP_BTC:
		return value ^ BIT(bit);
	default:
		return value;
	}
}

static void cmpxchg(const struct mem_insn *insn, struct insn_values *v, u64 mem, u64 replacement)
{
	u64 acc = v->acc & size_mask(insn->opsize);

	compute(MEM_OP_CMP, acc, mem, insn->opsize, v);
	if (acc == mem) {
		v->mem = replacement;
		return;
	}
	v->mem = mem;
	v->acc = merge(v->acc, mem, insn->opsize, 0);
}

int mem_insn_execute(const struct mem_insn *insn, struct insn_values *v)
{
	if (insn->op > MEM_OP_SCAS) /* port and privileged ones stand behind it */
		return -EOPNOTSUPP;

	u64 mem = v->mem & size_mask(insn->opsize);
	u64 other = insn->has_imm ? (u64)insn->imm : reg_get(insn, v);
	u64 result;

	other &= size_mask(insn->opsize);
	switch (insn->op) {
	case MEM_OP_MOV:
	case MEM_OP_MOVS:
	case MEM_OP_STOS:
	case MEM_OP_LODS:
		result = !insn->to_reg	     ? other
			 : insn->sign_extend ? sign_extend(mem, insn->opsize)
					     : mem;
		break;
	case MEM_OP_NOT:
		result = ~mem;
		break;
	case MEM_OP_XCHG:
		reg_set(insn, v, mem);
		result = other;
		break;
	case MEM_OP_XADD:
		result = compute(insn->op, mem, other, insn->opsize, v);
		reg_set(insn, v, mem);
		break;
	case MEM_OP_CMPXCHG:
		cmpxchg(insn, v, mem, other);
		return 0;
	case MEM_OP_BT ... MEM_OP_BTC:
		result = bit_op(insn->op, mem, other & (8 * insn->opsize - 1), v);
		break;
	default:
		result = compute(insn->op, insn->to_reg ? other : mem, insn->to_reg ? mem : other,
				 insn->opsize, v);
		break;
	}

	if (insn->writes_mem)
		v->mem = result & size_mask(insn->opsize);
	else if (insn->writes_reg)
		reg_set(insn, v, result);
	return 0;
}
