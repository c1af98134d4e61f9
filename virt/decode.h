/* SPDX-License-Identifier: MIT */
/*
 * The x86 instruction decoder: lengths of all instructions that can exit, operands of those that a
 * hypervisor has to emulate.
 *
 * Pure: nothing but the arguments is touched, no state, callable on any CPU in any context. The
 * bytes are the caller's copy of what it fetched at this very exit (never guest memory itself,
 * which may change between two looks).
 *
 * Results are handed out untraced, because guests choose them:
 *   -EAGAIN      goes on behind the bytes at hand: fetch more (the next page may fault)
 *   -EINVAL      undefined, or longer than 15 bytes: the CPU would raise #UD or #GP
 *   -EOPNOTSUPP  VEX and EVEX encodings; for decode_mem also what it doesn't cover, with
 *                mem_insn.len valid
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define INSN_MAX_LEN 15 /* SDM "Limits and exceptions": a longer one raises #GP */

/* The code segment: what CS.L and CS.D say. Real and virtual-8086 mode are INSN_16. */
enum insn_mode { INSN_16, INSN_32, INSN_64 };

/*
 * Length of the instruction at bytes: 1..15, or an error as above.
 *
 * Right for all else that the CPU executes; not every encoding that it refuses is recognized
 * (opcode groups with holes, LOCK where it isn't allowed), those get the length of their format. A
 * near branch with prefix 66 in 64-bit mode has the length that Intel gives it; AMD reads a 16-bit
 * offset there.
 */
int insn_length(const u8 *bytes, size_t avail, enum insn_mode mode);

enum mem_op {
	/* The order of these eight is the encoding's. */
	MEM_OP_ADD,
	MEM_OP_OR,
	MEM_OP_ADC,
	MEM_OP_SBB,
	MEM_OP_AND,
	MEM_OP_SUB,
	MEM_OP_XOR,
	MEM_OP_CMP,
	MEM_OP_MOV, /* also MOVZX, MOVSX, MOVSXD, MOVNTI */
	MEM_OP_TEST,
	MEM_OP_INC,
	MEM_OP_DEC,
	MEM_OP_NOT,
	MEM_OP_NEG,
	MEM_OP_XCHG,
	MEM_OP_CMPXCHG,
	MEM_OP_XADD,
	/* The order of these four is the encoding's, too. */
	MEM_OP_BT,
	MEM_OP_BTS,
	MEM_OP_BTR,
	MEM_OP_BTC,
	/* String instructions: mem is at rDI (LODS: rSI), src at rSI for MOVS and CMPS. */
	MEM_OP_MOVS,
	MEM_OP_CMPS,
	MEM_OP_STOS,
	MEM_OP_LODS,
	MEM_OP_SCAS,
	MEM_OP_INS, /* mem is at rDI (OUTS: rSI), the port is not looked at */
	MEM_OP_OUTS,
	/* Privileged: reg is the general register, sysreg the number of the control register. */
	MEM_OP_READ_CR,
	MEM_OP_WRITE_CR,
	/* Mem, or reg without has_mem (SMSW stores reg_size bytes of CR0 there). */
	MEM_OP_SMSW,
	MEM_OP_LMSW,
	MEM_OP_CLTS,
};

/* Prefix F3 or F2. MOVS, STOS, LODS repeat under both; the condition is that of CMPS and SCAS. */
enum insn_rep { INSN_REP_NONE, INSN_REPE, INSN_REPNE };

/* In the order of the encoding (SDM "MOV": Sreg). */
enum insn_seg { INSN_ES, INSN_CS, INSN_SS, INSN_DS, INSN_FS, INSN_GS };

#define INSN_NO_REG 0xff

/*
 * seg:[base + index * scale + disp], or seg:[next RIP + disp].
 * Registers count as in the encoding: rAX 0, rCX 1, .. r15.
 */
struct mem_operand {
	s64 disp;	   /* sign-extended; for MOV AL, moffs the whole address */
	u8 base, index;	   /* 0..15 or INSN_NO_REG */
	u8 scale;	   /* 1, 2, 4, 8 */
	u8 seg;		   /* enum insn_seg: override, or SS for a base of rBP or rSP, or DS */
	bool rip_relative; /* base and index are INSN_NO_REG */
};

/*
 * One decoded instruction.
 *
 * Access contract: what reads_mem and writes_mem both is a read-modify-write. If locked is set
 * (LOCK prefix, and XCHG always: SDM "Bus Locking") it must be one atomic access, in plain memory a
 * compare-and-swap loop; without it a plain read and write will do. LOCK where it raises #UD never
 * gets this far. CMPXCHG writes in any case: the old value when the comparison fails.
 */
struct mem_insn {
	u8 len;	      /* also valid with -EOPNOTSUPP */
	u8 op;	      /* enum mem_op */
	u8 opsize;    /* 1, 2, 4, 8: bytes accessed in memory (0: CLTS) */
	u8 addr_size; /* 2, 4, 8 */
	u8 rep;	      /* enum insn_rep, string instructions only (else a hint or ignored) */
	u8 reg;	      /* 0..15: the register operand; rAX for STOS, LODS, SCAS */
	u8 reg_size;  /* 1, 2, 4, 8: differs from opsize in MOVZX, MOVSX, MOVSXD */
	u8 sysreg;    /* CR number */
	bool has_mem;
	bool has_lock;	  /* LOCK prefix */
	bool locked;	  /* needs an atomic access: see above */
	bool reads_mem;	  /* mem is read (MOVS: src is, mem is written) */
	bool writes_mem;  /* mem is written */
	bool has_imm;	  /* the source operand is imm, not reg */
	bool to_reg;	  /* the first operand is the register: reg = reg op mem */
	bool writes_reg;  /* reg changes (CMPXCHG: it doesn't, but rAX may) */
	bool reg_high8;	  /* reg 0..3 stands for AH, CH, DH, BH */
	bool sign_extend; /* MOVSX, MOVSXD: from opsize to reg_size; else zero extension */
	bool bit_in_reg;  /* BT..BTC r/m, r: reg moves the address too, see mem_insn_offset */
	s64 imm; /* sign-extended from its encoded size; a bit number counts modulo 8 * opsize */
	struct mem_operand mem;
	struct mem_operand src; /* MOVS, CMPS */
};

/*
 * Decode the operands. 0, or an error as above; after -EOPNOTSUPP only out->len means something
 * (0: VEX or EVEX), after the others nothing does.
 */
int decode_mem(const u8 *bytes, size_t avail, enum insn_mode mode, struct mem_insn *out) MUST_CHECK;
