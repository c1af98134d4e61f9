/* SPDX-License-Identifier: MIT */
/*
 * virt/decode.c: chosen encodings with their meaning, and random ones against a second opinion,
 * Zydis.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "lib/string.h"
#include "virt/decode.h"

#define NONE INSN_NO_REG

/* ---- Chosen encodings ---- */

struct length_case {
	int length; /* or the error */
	enum insn_mode mode;
	const char *bytes;
	size_t size;
};
#define L(mode, length, bytes)                         \
	{                                              \
		length, mode, bytes, sizeof(bytes) - 1 \
	}

static const struct length_case lengths[] = {
	L(INSN_64, 2, "\x0f\xa2"), /* CPUID, bare and with prefixes that don't matter */
	L(INSN_64, 3, "\x66\x0f\xa2"),
	L(INSN_64, 3, "\xf3\x0f\xa2"),
	L(INSN_64, 3, "\x48\x0f\xa2"),
	L(INSN_64, 4, "\x48\x66\x0f\xa2"),
	L(INSN_64, 5, "\x26\x67\x4f\x0f\xa2"),
	L(INSN_32, 1, "\x48"), /* DEC EAX, no REX */
	L(INSN_16, 3, "\x66\x0f\xa2"),
	L(INSN_64, 2, "\x0f\x32"),
	L(INSN_64, 2, "\x0f\x30"),
	L(INSN_64, 3, "\x0f\x01\xd9"),
	L(INSN_64, 3, "\x0f\x01\xc1"),
	L(INSN_64, 1, "\xf4"),
	L(INSN_64, 2, "\xf3\x90"),
	L(INSN_64, 15, "\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x0f\xa2"),
	L(INSN_64, -EINVAL, "\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x0f\xa2"),
	L(INSN_64, -EINVAL, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"),
	/* the same with no more than the 15 bytes at hand: the 16th need not be fetched */
	L(INSN_64, -EINVAL, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"),
	L(INSN_64, -EINVAL, "\x64\x64\x64\x64\x64\xc7\x84\x88\x01\x02\x03\x04\x05\x06\x07"),
	L(INSN_64, 15, "\x64\x64\x64\x64\xc7\x84\x88\x01\x02\x03\x04\x05\x06\x07\x08"),
	L(INSN_64, -EINVAL, "\x64\x64\x64\x64\x64\xc7\x84\x88\x01\x02\x03\x04\x05\x06\x07\x08"),
	L(INSN_64, 10, "\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08"), /* MOV r64, imm64 */
	L(INSN_64, 4, "\x66\xb8\x01\x02"),
	L(INSN_64, 11, "\x66\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08"), /* REX.W beats 66 */
	L(INSN_64, 5, "\x48\x66\xb8\x01\x02"),		       /* ... but not when it isn't last */
	L(INSN_64, 9, "\xa1\x01\x02\x03\x04\x05\x06\x07\x08"), /* moffs: address size */
	L(INSN_64, 6, "\x67\xa1\x01\x02\x03\x04"),
	L(INSN_32, 5, "\xa1\x01\x02\x03\x04"),
	L(INSN_32, 4, "\x67\xa1\x01\x02"),
	L(INSN_16, 3, "\xa1\x01\x02"),
	L(INSN_64, 4, "\xc8\x01\x02\x03"), /* ENTER */
	L(INSN_64, 3, "\xc2\x01\x02"),
	L(INSN_32, 7, "\x9a\x01\x02\x03\x04\x05\x06"), /* far call */
	L(INSN_16, 5, "\x9a\x01\x02\x03\x04"),
	L(INSN_64, -EINVAL, "\x9a\x01\x02\x03\x04\x05\x06"),
	L(INSN_64, 5, "\xe8\x01\x02\x03\x04"),
	L(INSN_64, 6, "\x66\xe8\x01\x02\x03\x04"), /* Intel's length */
	L(INSN_32, 4, "\x66\xe8\x01\x02"),
	L(INSN_64, 6, "\xf7\x00\x01\x02\x03\x04"), /* TEST has an immediate, NOT doesn't */
	L(INSN_64, 2, "\xf7\x10"),
	L(INSN_64, 3, "\xf6\x00\x01"),
	L(INSN_64, 3, "\x0f\x20\x04"),		   /* MOV CR: mod is ignored, no SIB */
	L(INSN_64, 6, "\x66\x0f\x78\xc0\x01\x02"), /* EXTRQ */
	L(INSN_64, 3, "\x0f\x78\xc0"),		   /* VMREAD */
	L(INSN_64, 4, "\x0f\x0f\xc0\xb4"),	   /* 3DNow */
	L(INSN_64, 6, "\x66\x0f\x3a\x0f\xc1\x04"),
	L(INSN_64, 5, "\x66\x0f\x38\x00\xc1"),
	L(INSN_64, -EOPNOTSUPP, "\xc5\xf8\x77"), /* VZEROUPPER */
	L(INSN_64, -EOPNOTSUPP, "\xc4\xe3\x79\x0f\xc1\x04"),
	L(INSN_64, -EOPNOTSUPP, "\x62\xf1\x7c\x48\x28\xc1"),
	L(INSN_64, -EOPNOTSUPP, "\xc5\x00"),
	L(INSN_32, -EOPNOTSUPP, "\xc5\xf8\x28\xc1"),
	L(INSN_64, -EAGAIN, "\xc5"),
	L(INSN_32, 2, "\xc5\x00"), /* LDS */
	L(INSN_32, 2, "\x62\x00"), /* BOUND */
	L(INSN_16, 4, "\x8b\x86\x01\x02"),
	L(INSN_16, 4, "\x8b\x06\x01\x02"),
	L(INSN_16, 4, "\x67\x8b\x04\x24"),
	L(INSN_64, -EINVAL, "\x0f\x04"),
	L(INSN_64, -EINVAL, "\x06"),
	L(INSN_32, 1, "\x06"),
	L(INSN_64, 2, "\x0f\x0b"),
};

/* Bytes in a block of their own size, so that ASan sees a look past the end. */
static int length_of(const void *bytes, size_t size, enum insn_mode mode)
{
	u8 *copy = malloc(size + !size);
	memcpy(copy, bytes, size);
	int length = insn_length(copy, size, mode);
	free(copy);
	return length;
}

static void test_lengths(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(lengths); i++) {
		const struct length_case *c = &lengths[i];
		int want = c->length, size = (int)c->size;
		if (length_of(c->bytes, c->size, c->mode) != want)
			fail_msg("case %u: %d, expected %d", i,
				 length_of(c->bytes, c->size, c->mode), want);
		/* the end of a page: every piece of a good instruction asks for more */
		for (int n = 0; n < want && want <= size; n++)
			assert_int_equal(length_of(c->bytes, (size_t)n, c->mode), -EAGAIN);
	}
}

struct mem_case {
	const char *name;
	enum insn_mode mode;
	int result;
	const char *bytes;
	size_t size;
	struct mem_insn want; /* only the fields that compare_case looks at */
};
#define C(name, mode, result, bytes, ...)                     \
	{                                                     \
		name, mode, result, bytes, sizeof(bytes) - 1, \
		{                                             \
			__VA_ARGS__                           \
		}                                             \
	}
#define AT(b, i, s, d, sg) \
	.has_mem = true, .mem = { .base = b, .index = i, .scale = s, .disp = d, .seg = sg }

static const struct mem_case mem_cases[] = {
	C("mov [rax], ecx", INSN_64, 0, "\x89\x08", .op = MEM_OP_MOV, .opsize = 4, .reg_size = 4,
	  .reg = 1, .writes_mem = true, AT(0, NONE, 1, 0, INSN_DS)),
	C("mov ah, [rbp-1]", INSN_64, 0, "\x8a\x65\xff", .op = MEM_OP_MOV, .opsize = 1,
	  .reg_size = 1, .reg = 0, .reg_high8 = true, .reads_mem = true, .to_reg = true,
	  .writes_reg = true, AT(5, NONE, 1, -1, INSN_SS)),
	C("rex mov spl, [r13]", INSN_64, 0, "\x41\x8a\x65\x00", .op = MEM_OP_MOV, .opsize = 1,
	  .reg_size = 1, .reg = 4, .reads_mem = true, .to_reg = true, .writes_reg = true,
	  AT(13, NONE, 1, 0, INSN_DS)),
	C("movzx eax, word [rdi+rcx*4]", INSN_64, 0, "\x0f\xb7\x04\x8f", .op = MEM_OP_MOV,
	  .opsize = 2, .reg_size = 4, .reads_mem = true, .to_reg = true, .writes_reg = true,
	  AT(7, 1, 4, 0, INSN_DS)),
	C("movsx rax, byte [rsp]", INSN_64, 0, "\x48\x0f\xbe\x04\x24", .op = MEM_OP_MOV,
	  .opsize = 1, .reg_size = 8, .reads_mem = true, .to_reg = true, .writes_reg = true,
	  .sign_extend = true, AT(4, NONE, 1, 0, INSN_SS)),
	C("mov qword [rax], -2", INSN_64, 0, "\x48\xc7\x00\xfe\xff\xff\xff", .op = MEM_OP_MOV,
	  .opsize = 8, .reg_size = 8, .writes_mem = true, .has_imm = true, .imm = -2,
	  AT(0, NONE, 1, 0, INSN_DS)),
	C("mov eax, fs:[moffs64]", INSN_64, 0, "\x64\xa1\x08\x07\x06\x05\x04\x03\x02\x81",
	  .op = MEM_OP_MOV, .opsize = 4, .reg_size = 4, .reads_mem = true, .to_reg = true,
	  .writes_reg = true, AT(NONE, NONE, 1, (s64)0x8102030405060708, INSN_FS)),
	C("FS isn't undone by DS", INSN_64, 0, "\x64\x3e\x89\x08", .op = MEM_OP_MOV, .opsize = 4,
	  .reg_size = 4, .reg = 1, .writes_mem = true, AT(0, NONE, 1, 0, INSN_FS)),
	C("but in 32-bit code it is", INSN_32, 0, "\x64\x3e\x89\x08", .op = MEM_OP_MOV, .opsize = 4,
	  .reg_size = 4, .reg = 1, .writes_mem = true, AT(0, NONE, 1, 0, INSN_DS)),
	C("mov ax, [bp+si-2]", INSN_16, 0, "\x8b\x42\xfe", .op = MEM_OP_MOV, .opsize = 2,
	  .reg_size = 2, .reads_mem = true, .to_reg = true, .writes_reg = true,
	  AT(5, 6, 1, -2, INSN_SS)),
	C("lock or dword [rip+1], 2", INSN_64, 0, "\xf0\x83\x0d\x01\x00\x00\x00\x02",
	  .op = MEM_OP_OR, .opsize = 4, .reg_size = 4, .has_lock = true, .locked = true,
	  .reads_mem = true, .writes_mem = true, .has_imm = true, .imm = 2, .has_mem = true,
	  .mem = { .base = NONE,
		   .index = NONE,
		   .scale = 1,
		   .disp = 1,
		   .seg = INSN_DS,
		   .rip_relative = true }),
	C("xchg [rax], ecx", INSN_64, 0, "\x87\x08", .op = MEM_OP_XCHG, .opsize = 4, .reg_size = 4,
	  .reg = 1, .locked = true, .reads_mem = true, .writes_mem = true, .writes_reg = true,
	  AT(0, NONE, 1, 0, INSN_DS)),
	C("bt [rax], rcx", INSN_64, 0, "\x48\x0f\xa3\x08", .op = MEM_OP_BT, .opsize = 8,
	  .reg_size = 8, .reg = 1, .reads_mem = true, .bit_in_reg = true,
	  AT(0, NONE, 1, 0, INSN_DS)),
	C("cmp [rax], cl", INSN_64, 0, "\x38\x08", .op = MEM_OP_CMP, .opsize = 1, .reg_size = 1,
	  .reg = 1, .reads_mem = true, AT(0, NONE, 1, 0, INSN_DS)),
	C("rep stosd es:[edi]", INSN_64, 0, "\x67\x64\xf3\xab", .op = MEM_OP_STOS, .opsize = 4,
	  .reg_size = 4, .rep = INSN_REPE, .writes_mem = true, AT(7, NONE, 1, 0, INSN_ES)),
	C("lods fs:[rsi]", INSN_64, 0, "\x64\x48\xad", .op = MEM_OP_LODS, .opsize = 8,
	  .reg_size = 8, .reads_mem = true, .to_reg = true, .writes_reg = true,
	  AT(6, NONE, 1, 0, INSN_FS)),
	C("rep insw", INSN_64, 0, "\x66\xf3\x6d", .op = MEM_OP_INS, .opsize = 2, .reg_size = 2,
	  .rep = INSN_REPE, .writes_mem = true, AT(7, NONE, 1, 0, INSN_ES)),
	C("outs fs:[esi]", INSN_64, 0, "\x67\x64\x48\x6f", .op = MEM_OP_OUTS, .opsize = 4,
	  .reg_size = 4, .reads_mem = true, AT(6, NONE, 1, 0, INSN_FS)),
	C("push [rax]", INSN_64, -EOPNOTSUPP, "\xff\x30", 0),
	C("mov cr8, r9", INSN_64, 0, "\x45\x0f\x22\xc1", .op = MEM_OP_WRITE_CR, .opsize = 8,
	  .reg_size = 8, .reg = 9, .sysreg = 8),
	C("lock mov eax, cr0", INSN_32, 0, "\xf0\x0f\x20\xc0", .op = MEM_OP_READ_CR, .opsize = 4,
	  .reg_size = 4, .sysreg = 8, .has_lock = true, .writes_reg = true),
	C("mov eax, cr1", INSN_64, -EINVAL, "\x0f\x20\xc8", 0),
	C("mov dr7, rax", INSN_64, -EOPNOTSUPP, "\x0f\x23\xf8", 0),
	C("lmsw ax", INSN_16, 0, "\x0f\x01\xf0", .op = MEM_OP_LMSW, .opsize = 2, .reg_size = 2),
	C("smsw r9", INSN_64, 0, "\x49\x0f\x01\xe1", .op = MEM_OP_SMSW, .opsize = 8, .reg_size = 8,
	  .reg = 9, .writes_reg = true),
	C("invlpg [rax]", INSN_64, -EOPNOTSUPP, "\x0f\x01\x38", 0),
	C("clts", INSN_64, 0, "\x0f\x06", .op = MEM_OP_CLTS),
	C("lock mov [rax], ecx", INSN_64, -EINVAL, "\xf0\x89\x08", 0),
	C("lock add ecx, [rax]", INSN_64, -EINVAL, "\xf0\x03\x08", 0),
	C("lock cmp [rax], ecx", INSN_64, -EINVAL, "\xf0\x39\x08", 0),
	C("lock bt [rax], ecx", INSN_64, -EINVAL, "\xf0\x0f\xa3\x08", 0),
	C("swapgs", INSN_64, -EOPNOTSUPP, "\x0f\x01\xf8", 0),
	C("add eax, ecx", INSN_64, -EOPNOTSUPP, "\x01\xc8", 0),
	C("movups [rax], xmm0", INSN_64, -EOPNOTSUPP, "\x0f\x11\x00", 0),
	C("arpl [eax], cx", INSN_32, -EOPNOTSUPP, "\x63\x08", 0),
};

static bool same_operand(const struct mem_operand *a, const struct mem_operand *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale &&
	       a->disp == b->disp && a->seg == b->seg && a->rip_relative == b->rip_relative;
}

static bool same_insn(const struct mem_insn *a, const struct mem_insn *b)
{
	return a->op == b->op && a->opsize == b->opsize && a->reg_size == b->reg_size &&
	       a->rep == b->rep && a->reg == b->reg && a->sysreg == b->sysreg &&
	       a->has_mem == b->has_mem && a->has_lock == b->has_lock && a->locked == b->locked &&
	       a->reads_mem == b->reads_mem && a->writes_mem == b->writes_mem &&
	       a->has_imm == b->has_imm && a->to_reg == b->to_reg &&
	       a->writes_reg == b->writes_reg && a->reg_high8 == b->reg_high8 &&
	       a->sign_extend == b->sign_extend && a->bit_in_reg == b->bit_in_reg &&
	       a->imm == b->imm && (!a->has_mem || same_operand(&a->mem, &b->mem));
}

static void test_operands(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(mem_cases); i++) {
		const struct mem_case *c = &mem_cases[i];
		struct mem_insn insn;
		int result = decode_mem((const u8 *)c->bytes, c->size, c->mode, &insn);
		if (result != c->result || (!result && !same_insn(&insn, &c->want)))
			fail_msg("%s: result %d", c->name, result);
		if (result != -EINVAL)
			assert_int_equal(insn.len, c->size);
		for (size_t n = 0; n < c->size; n++)
			assert_int_equal(decode_mem((const u8 *)c->bytes, n, c->mode, &insn),
					 -EAGAIN);
	}
}

/* ---- Random bytes against Zydis ---- */

static const char *const mode_names[] = { "16", "32", "64" };
static ZydisDecoder decoders[3];

static int setup(void **state)
{
	(void)state;
	ZydisDecoderInit(&decoders[INSN_16], ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
			 ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&decoders[INSN_32], ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&decoders[INSN_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	return 0;
}

static u64 random_state = 88172645463325252ull;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 2685821657736338717ull;
}

/* Half of them plain noise, half with some prefixes and an escape first. */
static void random_insn(u8 *b)
{
	static const u8 prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e,
				       0x26, 0x64, 0x65, 0x48, 0x41, 0x44, 0x40, 0x4f };
	static const u8 escapes[][2] = { { 0x0f }, { 0x0f, 0x38 }, { 0x0f, 0x3a },
					 { 0xc5 }, { 0xc4 },	   { 0x62 } };
	u64 r = random_u64();
	u32 n = 0;

	for (u32 i = 0; i < 24; i += 8) {
		u64 noise = random_u64();
		memcpy(b + i, &noise, 8);
	}
	if (r & 1)
		return;
	for (u64 k = (r >> 1) & 3; k; k--, r >>= 4)
		b[n++] = prefixes[(r >> 8) & 15];
	u32 which = (r >> 48) & 15;
	if (which < ARRAY_SIZE(escapes)) {
		b[n] = escapes[which][0];
		if (escapes[which][1])
			b[n + 1] = escapes[which][1];
	}
}

static const char *hex(const u8 *b, size_t n)
{
	static char text[64];
	for (size_t i = 0; i < n; i++)
		snprintf(text + 3 * i, sizeof(text) - 3 * i, "%02x ", b[i]);
	return text;
}

/* Zydis' name of our operation; INVALID: no such instruction is covered. */
static bool mnemonic_fits(ZydisMnemonic m, const struct mem_insn *insn)
{
	static const u16 names[][5] = {
		[MEM_OP_ADD] = { ZYDIS_MNEMONIC_ADD },
		[MEM_OP_OR] = { ZYDIS_MNEMONIC_OR },
		[MEM_OP_ADC] = { ZYDIS_MNEMONIC_ADC },
		[MEM_OP_SBB] = { ZYDIS_MNEMONIC_SBB },
		[MEM_OP_AND] = { ZYDIS_MNEMONIC_AND },
		[MEM_OP_SUB] = { ZYDIS_MNEMONIC_SUB },
		[MEM_OP_XOR] = { ZYDIS_MNEMONIC_XOR },
		[MEM_OP_CMP] = { ZYDIS_MNEMONIC_CMP },
		[MEM_OP_MOV] = { ZYDIS_MNEMONIC_MOV, ZYDIS_MNEMONIC_MOVZX, ZYDIS_MNEMONIC_MOVSX,
				 ZYDIS_MNEMONIC_MOVSXD, ZYDIS_MNEMONIC_MOVNTI },
		[MEM_OP_TEST] = { ZYDIS_MNEMONIC_TEST },
		[MEM_OP_INC] = { ZYDIS_MNEMONIC_INC },
		[MEM_OP_DEC] = { ZYDIS_MNEMONIC_DEC },
		[MEM_OP_NOT] = { ZYDIS_MNEMONIC_NOT },
		[MEM_OP_NEG] = { ZYDIS_MNEMONIC_NEG },
		[MEM_OP_XCHG] = { ZYDIS_MNEMONIC_XCHG },
		[MEM_OP_CMPXCHG] = { ZYDIS_MNEMONIC_CMPXCHG },
		[MEM_OP_XADD] = { ZYDIS_MNEMONIC_XADD },
		[MEM_OP_BT] = { ZYDIS_MNEMONIC_BT },
		[MEM_OP_BTS] = { ZYDIS_MNEMONIC_BTS },
		[MEM_OP_BTR] = { ZYDIS_MNEMONIC_BTR },
		[MEM_OP_BTC] = { ZYDIS_MNEMONIC_BTC },
		[MEM_OP_MOVS] = { ZYDIS_MNEMONIC_MOVSB, ZYDIS_MNEMONIC_MOVSW, ZYDIS_MNEMONIC_MOVSD,
				  ZYDIS_MNEMONIC_MOVSQ },
		[MEM_OP_CMPS] = { ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW, ZYDIS_MNEMONIC_CMPSD,
				  ZYDIS_MNEMONIC_CMPSQ },
		[MEM_OP_STOS] = { ZYDIS_MNEMONIC_STOSB, ZYDIS_MNEMONIC_STOSW, ZYDIS_MNEMONIC_STOSD,
				  ZYDIS_MNEMONIC_STOSQ },
		[MEM_OP_LODS] = { ZYDIS_MNEMONIC_LODSB, ZYDIS_MNEMONIC_LODSW, ZYDIS_MNEMONIC_LODSD,
				  ZYDIS_MNEMONIC_LODSQ },
		[MEM_OP_SCAS] = { ZYDIS_MNEMONIC_SCASB, ZYDIS_MNEMONIC_SCASW, ZYDIS_MNEMONIC_SCASD,
				  ZYDIS_MNEMONIC_SCASQ },
		[MEM_OP_INS] = { ZYDIS_MNEMONIC_INSB, ZYDIS_MNEMONIC_INSW, ZYDIS_MNEMONIC_INSD },
		[MEM_OP_OUTS] = { ZYDIS_MNEMONIC_OUTSB, ZYDIS_MNEMONIC_OUTSW,
				  ZYDIS_MNEMONIC_OUTSD },
		[MEM_OP_READ_CR] = { ZYDIS_MNEMONIC_MOV },
		[MEM_OP_WRITE_CR] = { ZYDIS_MNEMONIC_MOV },
		[MEM_OP_SMSW] = { ZYDIS_MNEMONIC_SMSW },
		[MEM_OP_LMSW] = { ZYDIS_MNEMONIC_LMSW },
		[MEM_OP_CLTS] = { ZYDIS_MNEMONIC_CLTS },
	};
	for (u32 i = 0; i < 5; i++)
		if (m == names[insn->op][i] && m)
			return true;
	return false;
}

/* Is this one of the instructions that decode_mem promises? Else refusing it is right. */
static bool promised(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	bool mem = false, special = false;

	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	for (u32 i = 0; i < z->operand_count_visible; i++) {
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			mem = true;
		if (o[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		ZydisRegisterClass class = ZydisRegisterGetClass(o[i].reg.value);
		if (class == ZYDIS_REGCLASS_CONTROL)
			special = true;
		else if (class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_DEBUG ||
			 class == ZYDIS_REGCLASS_XMM)
			return false;
	}
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LMSW:
	case ZYDIS_MNEMONIC_CLTS:
		return true;
	case ZYDIS_MNEMONIC_MOVSXD:
		return mem && z->operand_width > 16;
	default:
		break;
	}
	if (special)
		return z->mnemonic == ZYDIS_MNEMONIC_MOV;
	for (int op = 0; op <= MEM_OP_OUTS; op++)
		if (mnemonic_fits(z->mnemonic, &(struct mem_insn){ .op = (u8)op }))
			return mem || (op >= MEM_OP_MOVS && op <= MEM_OP_OUTS);
	return false;
}

static u8 zydis_register(ZydisRegister reg)
{
	return reg == ZYDIS_REGISTER_NONE ? NONE : (u8)ZydisRegisterGetId(reg);
}

static u64 truncate_to(s64 value, u32 size)
{
	return size == 8 ? (u64)value : (u64)value & (BIT(8 * size) - 1);
}

/* NULL: the operands are the same; else the field that isn't. */
static const char *compare_memory(const struct mem_insn *a, const struct mem_operand *m,
				  const ZydisDecodedOperand *o)
{
	bool rip = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;

	if (m->rip_relative != rip)
		return "rip_relative";
	if (!rip && m->base != zydis_register(o->mem.base))
		return "base";
	if (m->index != zydis_register(o->mem.index))
		return "index";
	if (m->index != NONE && m->scale != o->mem.scale)
		return "scale";
	if (truncate_to(m->disp, a->addr_size) != truncate_to(o->mem.disp.value, a->addr_size))
		return "disp";
	if (m->seg != ZydisRegisterGetId(o->mem.segment))
		return "segment";
	if (o->size != 8 * a->opsize)
		return "opsize";
	return NULL;
}

static const char *compare_register(const struct mem_insn *a, const ZydisDecodedOperand *o)
{
	ZydisRegister r = o->reg.value;
	bool high8 = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
	int id = ZydisRegisterGetId(r);

	if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_CONTROL)
		return a->sysreg == id ? NULL : "sysreg";
	if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR8)
		id = high8		     ? r - ZYDIS_REGISTER_AH
		     : r < ZYDIS_REGISTER_AH ? r - ZYDIS_REGISTER_AL
					     : r - ZYDIS_REGISTER_SPL + 4;
	if (a->reg_high8 != high8 || a->reg != id)
		return "register";
	if (a->op != MEM_OP_LMSW && o->size != 8 * a->reg_size)
		return "register size";
	if (a->writes_reg != !!(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && true)
		return "writes_reg";
	return NULL;
}

static const char *compare_operands(const struct mem_insn *a, const ZydisDecodedInstruction *z,
				    const ZydisDecodedOperand *o)
{
	bool string = a->op >= MEM_OP_MOVS && a->op <= MEM_OP_OUTS;
	const char *wrong = NULL;
	u32 memories = 0;

	for (u32 i = 0; i < z->operand_count && !wrong; i++) {
		if (o[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && !string)
			continue;
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			bool src = (a->op == MEM_OP_MOVS && memories == 1) ||
				   (a->op == MEM_OP_CMPS && memories == 0);
			wrong = compare_memory(a, src ? &a->src : &a->mem, &o[i]);
			memories++;
			bool reads = o[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ;
			bool writes = o[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
			if (!src && (a->reads_mem != reads || a->writes_mem != writes))
				wrong = "direction";
		} else if (o[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			   o[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
			wrong = compare_register(a, &o[i]);
		} else if (o[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			u64 imm = o[i].imm.is_signed ? (u64)o[i].imm.value.s : o[i].imm.value.u;
			/* a bit number counts modulo the size, its sign means nothing */
			bool bit = a->op >= MEM_OP_BT && a->op <= MEM_OP_BTC;
			u32 size = bit ? 1 : a->opsize;
			if (!a->has_imm || truncate_to(a->imm, size) != truncate_to((s64)imm, size))
				wrong = "imm";
		}
	}
	return wrong ? wrong : a->has_mem != (memories > 0) ? "has_mem" : NULL;
}

static const char *compare_insn(const struct mem_insn *a, const ZydisDecodedInstruction *z,
				const ZydisDecodedOperand *o)
{
	bool rep = z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
	bool repne = z->attributes & ZYDIS_ATTRIB_HAS_REPNE;

	if (!mnemonic_fits(z->mnemonic, a))
		return "operation";
	if (a->len != z->length)
		return "length";
	if (a->has_lock != !!(z->attributes & ZYDIS_ATTRIB_HAS_LOCK))
		return "lock";
	if (a->addr_size * 8 != z->address_width)
		return "addr_size";
	if (a->op >= MEM_OP_MOVS && a->op <= MEM_OP_OUTS &&
	    (a->rep == INSN_REP_NONE ? rep || repne : !rep && !repne))
		return "rep";
	return compare_operands(a, z, o);
}

struct tally {
	u64 total, both, vector, operands, reserved, refused;
};

/* VEX, EVEX, and what a coprocessor made of them. */
static bool is_vector(const ZydisDecodedInstruction *z)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
	       z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	       z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX;
}

/*
 * [index * scale + disp32] under REX.B and a 32-bit address: Zydis 4.0 takes the absent base for
 * r13d. emulate_test asks the CPU.
 */
static bool zydis_is_wrong(const ZydisDecodedInstruction *z)
{
	return z->address_width == 32 && z->raw.rex.B && z->raw.modrm.mod == 0 &&
	       z->raw.modrm.rm == 4 && z->raw.sib.base == 5;
}

static void one_round(enum insn_mode mode, struct tally *t)
{
	u8 b[24];
	ZydisDecoderContext context;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	struct mem_insn insn;
	const char *wrong = NULL;

	random_insn(b);
	t->total++;
	int ours = insn_length(b, sizeof(b), mode);
	bool valid =
		ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoders[mode], &context, b, 15, &z));
	int result = decode_mem(b, sizeof(b), mode, &insn);
	if (!valid) {
		t->reserved += ours > 0;
		t->refused += ours <= 0;
		return;
	}
	if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP)
		return; /* abandoned by AMD: no CPU that runs this code has it */
	if (is_vector(&z)) {
		t->vector++;
		assert_int_equal(ours, -EOPNOTSUPP);
		assert_int_equal(result, -EOPNOTSUPP);
		return;
	}
	t->both++;
	if (ours != z.length)
		fail_msg("%s-bit: %s: length %d, Zydis %d", mode_names[mode], hex(b, 15), ours,
			 z.length);
	for (int n = 0; n < ours; n++)
		if (insn_length(b, (size_t)n, mode) != -EAGAIN)
			fail_msg("%s-bit: %s: no -EAGAIN at %d", mode_names[mode], hex(b, 15), n);
	ZydisDecoderDecodeOperands(&decoders[mode], &context, &z, o, z.operand_count);
	if (result) {
		if (insn.len != ours || promised(&z, o))
			wrong = "refused";
	} else if (!zydis_is_wrong(&z)) {
		t->operands++;
		wrong = compare_insn(&insn, &z, o);
	}
	if (wrong)
		fail_msg("%s-bit: %s: %s (%s, result %d)", mode_names[mode], hex(b, 15), wrong,
			 ZydisMnemonicGetString(z.mnemonic), result);
}

static void test_random(void **state)
{
	const char *wanted = getenv("DECODE_ROUNDS");
	u64 rounds = wanted ? strtoull(wanted, NULL, 0) : 1000000;

	(void)state;
	for (enum insn_mode mode = INSN_16; mode <= INSN_64; mode++) {
		struct tally t = { 0 };
		for (u64 i = 0; i < rounds; i++)
			one_round(mode, &t);
		print_message(
			"%s-bit: %lu strings, %lu valid, %lu vector, %lu with operands compared; "
			"Zydis refuses %lu that get a length, and %lu that don't\n",
			mode_names[mode], t.total, t.both, t.vector, t.operands, t.reserved,
			t.refused);
		assert_true(t.operands > rounds / 100 && t.vector > rounds / 10000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_operands),
		cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
