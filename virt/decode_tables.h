/* SPDX-License-Identifier: MIT */
/*
 * The opcode maps as data: what follows an opcode, and which instructions decode_mem knows. Private
 * to the decoder.
 */
#pragma once

#include "virt/decode.h"

/* What follows the opcode byte. Sizes of several immediates add up. */
enum opcode_format {
	FMT_MODRM = BIT(0),
	FMT_IMM8 = BIT(1),
	FMT_IMM16 = BIT(2),
	FMT_IMMZ = BIT(3),   /* 2 or 4 bytes, by operand size */
	FMT_IMMV = BIT(4),   /* 2, 4 or 8 bytes: MOV r, imm */
	FMT_BRANCH = BIT(5), /* as IMMZ, but always 4 in 64-bit mode */
	FMT_MOFFS = BIT(6),  /* an address */
	FMT_GROUP3 = BIT(7), /* F6, F7: immediate only for /0 and /1 */
	FMT_NO64 = BIT(8),   /* undefined in 64-bit mode */
	FMT_UNDEF = BIT(9),
	FMT_REGS = BIT(10), /* ModRM.mod is ignored and taken for 3: MOV CR, MOV DR */
	/* 0F 78: two imm8 with prefix 66 or F2 (EXTRQ, INSERTQ), else none (VMREAD) */
	FMT_SSE4A = BIT(11),
};

extern const u16 opcode_formats[256];	 /* the one-byte map */
extern const u16 opcode_formats_0f[256]; /* 0F xx */

/* How decode_mem reads an instruction: kind of operands, and what it does to them. */
enum row_flags {
	ROW_BYTE_OP = BIT(0),	  /* opcode bit 0 clear: bytes */
	ROW_READ = BIT(1),	  /* memory operand is read */
	ROW_WRITE = BIT(2),	  /* memory operand is written */
	ROW_TO_REG = BIT(3),	  /* register is the first operand */
	ROW_WRITE_REG = BIT(4),	  /* register is written */
	ROW_IMM = BIT(5),	  /* source is the immediate */
	ROW_LOCK = BIT(6),	  /* LOCK is allowed */
	ROW_STRING = BIT(7),	  /* operands by rSI, rDI, rAX */
	ROW_MOFFS = BIT(8),	  /* rAX and an address in the instruction */
	ROW_EXTEND = BIT(10),	  /* memory operand is shorter: 1 or 2 bytes by opcode bit 0 */
	ROW_SIGNED = BIT(11),	  /* ... and sign-extended */
	ROW_ALU_OPCODE = BIT(12), /* opcode bits 5:3 select the operation */
	ROW_ALU_REG = BIT(13),	  /* ModRM.reg selects the operation */
	ROW_SYSREG = BIT(14),	  /* a control register, and a general one */
	ROW_REG_OK = BIT(15),	  /* the form without memory is wanted as well */
	ROW_BIT_REG = BIT(16),	  /* bit number in a register */
	ROW_NO_PREFIX = BIT(17),  /* 66, F2, F3 make it another, undefined instruction */
	ROW_NO_SIZE = BIT(18),	  /* nothing is accessed */
	ROW_WORD = BIT(19),	  /* memory operand is 16 bits, whatever the operand size */
};

#define ROW_ANY 8 /* ext: ModRM.reg is an operand, not part of the opcode */

/* Matches when map, opcode under mask, and ext (ModRM.reg) do. */
struct mem_row {
	u8 map; /* 0: one-byte opcodes, 1: 0F xx */
	u8 opcode, mask;
	u8 ext;
	u8 op; /* enum mem_op */
	u32 flags;
};

extern const struct mem_row mem_rows[];
extern const u32 mem_row_count;
