/* SPDX-License-Identifier: MIT */
/*
 * What a decoded instruction computes: addresses, values, flags. Pure functions; memory and the
 * vCPU stay with the caller, who
 *
 *   1. adds the segment base to mem_insn_offset(), checks limit or canonical form, and translates;
 *   2. reads what reads_mem says, fills the values by insn_values_load(), calls mem_insn_execute();
 *      for a locked access to memory in a compare-and-swap loop, each time from fresh values;
 *   3. writes what writes_mem says, then calls insn_values_store(), advances rIP, sets the flags.
 */
#pragma once

#include "virt/decode.h"

/*
 * General registers are always 16, in the order of the encoding: rAX, rCX, rDX, rBX, rSP, rBP, rSI,
 * rDI, r8 .. r15.
 */
#define INSN_GPRS 16

/*
 * Offset of an operand in its segment, truncated to the address size.
 */
u64 mem_operand_offset(const struct mem_insn *insn, const struct mem_operand *operand,
		       const u64 gprs[INSN_GPRS], u64 next_rip);

/*
 * Offset of insn->mem, truncated to the address size. Includes the way that a BT..BTC with its bit
 * number in a register goes from the operand's address: up to 2^60 bytes in both directions, so
 * check the range after this, not before.
 */
u64 mem_insn_offset(const struct mem_insn *insn, const u64 gprs[INSN_GPRS], u64 next_rip);

/*
 * Inputs and outputs of mem_insn_execute. Registers are whole 64-bit registers, partial writes are
 * merged.
 */
struct insn_values {
	u64 mem;    /* opsize bytes at insn->mem; bits above are ignored on input, 0 on output */
	u64 reg;    /* register insn->reg; for MOVS and CMPS the value at insn->src */
	u64 acc;    /* rAX, for CMPXCHG */
	u64 rflags; /* status flags change; undefined ones are cleared (AF), or kept (by BT..BTC) */
};

/*
 * Execute one iteration of the MOV, ALU, bit and string instructions. 0, or -EOPNOTSUPP for INS,
 * OUTS and the privileged ones. rSI, rDI, rCX and the REP condition are the caller's.
 */
int mem_insn_execute(const struct mem_insn *insn, struct insn_values *v) MUST_CHECK;

static inline void insn_values_load(const struct mem_insn *insn, struct insn_values *v,
				    const u64 gprs[INSN_GPRS])
{
	v->reg = gprs[insn->reg];
	v->acc = gprs[0];
}

static inline void insn_values_store(const struct mem_insn *insn, const struct insn_values *v,
				     u64 gprs[INSN_GPRS])
{
	if (insn->op == MEM_OP_CMPXCHG)
		gprs[0] = v->acc;
	else if (insn->writes_reg)
		gprs[insn->reg] = v->reg;
}
