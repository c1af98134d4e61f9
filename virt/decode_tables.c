/* SPDX-License-Identifier: MIT */
/* SDM volume 2, "Opcode Map"; APM volume 3, "Opcode and Operand Encodings". */
#include "virt/decode_tables.h"

/* One-letter names keep the maps in the shape that the manuals print: sixteen to a row. */
#define N  0	     /* nothing follows */
#define M  FMT_MODRM /* ModRM */
#define MB (M | FMT_IMM8)
#define MZ (M | FMT_IMMZ)
#define MR (M | FMT_REGS)
#define MX (M | FMT_SSE4A)
#define G3 (M | FMT_GROUP3)
#define B  FMT_IMM8
#define W  FMT_IMM16
#define Z  FMT_IMMZ
#define V  FMT_IMMV
#define J  FMT_BRANCH
#define A  FMT_MOFFS
#define F  (FMT_IMMZ | FMT_IMM16 | FMT_NO64) /* far pointer */
#define E  (FMT_IMM16 | FMT_IMM8)	     /* ENTER */
#define X  FMT_NO64
#define XB (B | FMT_NO64)
#define XM (MB | FMT_NO64)
#define U  FMT_UNDEF
#define P  FMT_UNDEF /* prefix or escape: taken before the map is asked */

/* clang-format off */
const u16 opcode_formats[256] = {
	/*	0   1   2   3   4   5   6   7   8   9   A   B   C   D   E   F */
	/* 0 */ M,  M,  M,  M,  B,  Z,  X,  X,  M,  M,  M,  M,  B,  Z,  X,  P,
	/* 1 */ M,  M,  M,  M,  B,  Z,  X,  X,  M,  M,  M,  M,  B,  Z,  X,  X,
	/* 2 */ M,  M,  M,  M,  B,  Z,  P,  X,  M,  M,  M,  M,  B,  Z,  P,  X,
	/* 3 */ M,  M,  M,  M,  B,  Z,  P,  X,  M,  M,  M,  M,  B,  Z,  P,  X,
	/* 4 */ N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
	/* 5 */ N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  N,
	/* 6 */ X,  X,  M,  M,  P,  P,  P,  P,  Z,  MZ, B,  MB, N,  N,  N,  N,
	/* 7 */ B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,  B,
	/* 8 */ MB, MZ, XM, MB, M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 9 */ N,  N,  N,  N,  N,  N,  N,  N,  N,  N,  F,  N,  N,  N,  N,  N,
	/* A */ A,  A,  A,  A,  N,  N,  N,  N,  B,  Z,  N,  N,  N,  N,  N,  N,
	/* B */ B,  B,  B,  B,  B,  B,  B,  B,  V,  V,  V,  V,  V,  V,  V,  V,
	/* C */ MB, MB, W,  N,  M,  M,  MB, MZ, E,  N,  W,  N,  N,  B,  X,  N,
	/* D */ M,  M,  M,  M,  XB, XB, X,  N,  M,  M,  M,  M,  M,  M,  M,  M,
	/* E */ B,  B,  B,  B,  B,  B,  B,  B,  J,  J,  F,  B,  N,  N,  N,  N,
	/* F */ P,  N,  P,  P,  N,  N,  G3, G3, N,  N,  N,  N,  N,  N,  M,  M,
};

const u16 opcode_formats_0f[256] = {
	/*	0   1   2   3   4   5   6   7   8   9   A   B   C   D   E   F */
	/* 0 */ M,  M,  M,  M,  U,  N,  N,  N,  N,  N,  U,  N,  U,  M,  N,  MB,
	/* 1 */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 2 */ MR, MR, MR, MR, U,  U,  U,  U,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 3 */ N,  N,  N,  N,  N,  N,  U,  N,  P,  U,  P,  U,  U,  U,  U,  U,
	/* 4 */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 5 */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 6 */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* 7 */ MB, MB, MB, MB, M,  M,  M,  N,  MX, M,  U,  U,  M,  M,  M,  M,
	/* 8 */ J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,  J,
	/* 9 */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* A */ N,  N,  N,  M,  MB, M,  M,  M,  N,  N,  N,  M,  MB, M,  M,  M,
	/* B */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  MB, M,  M,  M,  M,  M,
	/* C */ M,  M,  MB, M,  MB, MB, MB, M,  N,  N,  N,  N,  N,  N,  N,  N,
	/* D */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* E */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
	/* F */ M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,  M,
};

#define RMW  (ROW_READ | ROW_WRITE | ROW_LOCK)
#define LOAD (ROW_READ | ROW_TO_REG | ROW_WRITE_REG)
#define BYTE ROW_BYTE_OP
#define STR  (ROW_STRING | ROW_BYTE_OP)
#define CR   (ROW_SYSREG | ROW_REG_OK)

const struct mem_row mem_rows[] = {
	/* MOV and its relatives: the bulk of all accesses to devices, so they stand first */
	{ 0, 0x88, 0xfe, ROW_ANY, MEM_OP_MOV,      BYTE | ROW_WRITE },
	{ 0, 0x8a, 0xfe, ROW_ANY, MEM_OP_MOV,      BYTE | LOAD },
	{ 0, 0xc6, 0xfe, 0,       MEM_OP_MOV,      BYTE | ROW_WRITE | ROW_IMM },
	{ 1, 0xb6, 0xfe, ROW_ANY, MEM_OP_MOV,      ROW_EXTEND | LOAD },
	{ 1, 0xbe, 0xfe, ROW_ANY, MEM_OP_MOV,      ROW_EXTEND | ROW_SIGNED | LOAD },
	{ 0, 0x63, 0xff, ROW_ANY, MEM_OP_MOV,      ROW_SIGNED | LOAD }, /* MOVSXD */
	{ 0, 0xa0, 0xfe, ROW_ANY, MEM_OP_MOV,      BYTE | ROW_MOFFS | LOAD },
	{ 0, 0xa2, 0xfe, ROW_ANY, MEM_OP_MOV,      BYTE | ROW_MOFFS | ROW_WRITE },
	{ 1, 0xc3, 0xff, ROW_ANY, MEM_OP_MOV,      ROW_WRITE | ROW_NO_PREFIX }, /* MOVNTI */
	/* ADD OR ADC SBB AND SUB XOR CMP */
	{ 0, 0x00, 0xc6, ROW_ANY, MEM_OP_ADD,      BYTE | RMW | ROW_ALU_OPCODE },
	{ 0, 0x02, 0xc6, ROW_ANY, MEM_OP_ADD,      BYTE | LOAD | ROW_ALU_OPCODE },
	{ 0, 0x80, 0xfc, ROW_ANY, MEM_OP_ADD,      BYTE | RMW | ROW_IMM | ROW_ALU_REG },
	{ 0, 0x84, 0xfe, ROW_ANY, MEM_OP_TEST,     BYTE | ROW_READ },
	{ 0, 0xf6, 0xfe, 0,       MEM_OP_TEST,     BYTE | ROW_READ | ROW_IMM },
	{ 0, 0xf6, 0xfe, 1,       MEM_OP_TEST,     BYTE | ROW_READ | ROW_IMM }, /* an alias of /0 */
	{ 0, 0xf6, 0xfe, 2,       MEM_OP_NOT,      BYTE | RMW },
	{ 0, 0xf6, 0xfe, 3,       MEM_OP_NEG,      BYTE | RMW },
	{ 0, 0xfe, 0xfe, 0,       MEM_OP_INC,      BYTE | RMW },
	{ 0, 0xfe, 0xfe, 1,       MEM_OP_DEC,      BYTE | RMW },
	{ 0, 0x86, 0xfe, ROW_ANY, MEM_OP_XCHG,     BYTE | RMW | ROW_WRITE_REG },
	{ 1, 0xb0, 0xfe, ROW_ANY, MEM_OP_CMPXCHG,  BYTE | RMW },
	{ 1, 0xc0, 0xfe, ROW_ANY, MEM_OP_XADD,     BYTE | RMW | ROW_WRITE_REG },
	{ 1, 0xa3, 0xff, ROW_ANY, MEM_OP_BT,       ROW_READ | ROW_BIT_REG },
	{ 1, 0xab, 0xff, ROW_ANY, MEM_OP_BTS,      RMW | ROW_BIT_REG },
	{ 1, 0xb3, 0xff, ROW_ANY, MEM_OP_BTR,      RMW | ROW_BIT_REG },
	{ 1, 0xbb, 0xff, ROW_ANY, MEM_OP_BTC,      RMW | ROW_BIT_REG },
	{ 1, 0xba, 0xff, 4,       MEM_OP_BT,       ROW_READ | ROW_IMM },
	{ 1, 0xba, 0xff, 5,       MEM_OP_BTS,      RMW | ROW_IMM },
	{ 1, 0xba, 0xff, 6,       MEM_OP_BTR,      RMW | ROW_IMM },
	{ 1, 0xba, 0xff, 7,       MEM_OP_BTC,      RMW | ROW_IMM },
	/* String instructions, where CMPS and SCAS subtract what is at rDI */
	{ 0, 0xa4, 0xfe, ROW_ANY, MEM_OP_MOVS,     STR | ROW_WRITE },
	{ 0, 0xa6, 0xfe, ROW_ANY, MEM_OP_CMPS,     STR | ROW_READ | ROW_TO_REG },
	{ 0, 0xaa, 0xfe, ROW_ANY, MEM_OP_STOS,     STR | ROW_WRITE },
	{ 0, 0xac, 0xfe, ROW_ANY, MEM_OP_LODS,     STR | LOAD },
	{ 0, 0xae, 0xfe, ROW_ANY, MEM_OP_SCAS,     STR | ROW_READ | ROW_TO_REG },
	{ 0, 0x6c, 0xfe, ROW_ANY, MEM_OP_INS,      STR | ROW_WRITE },
	{ 0, 0x6e, 0xfe, ROW_ANY, MEM_OP_OUTS,     STR | ROW_READ },
	/* Privileged */
	{ 1, 0x20, 0xff, ROW_ANY, MEM_OP_READ_CR,  CR | ROW_WRITE_REG },
	{ 1, 0x22, 0xff, ROW_ANY, MEM_OP_WRITE_CR, CR },
	{ 1, 0x01, 0xff, 4,       MEM_OP_SMSW,     ROW_WRITE | ROW_WORD | ROW_REG_OK },
	{ 1, 0x01, 0xff, 6,       MEM_OP_LMSW,     ROW_READ | ROW_WORD | ROW_REG_OK },
	{ 1, 0x06, 0xff, ROW_ANY, MEM_OP_CLTS,     ROW_NO_SIZE | ROW_REG_OK },
};
/* clang-format on */
const u32 mem_row_count = ARRAY_SIZE(mem_rows);
