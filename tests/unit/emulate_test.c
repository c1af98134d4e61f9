/* SPDX-License-Identifier: MIT */
/*
 * virt/emulate.c against the CPU: random instructions of each kind are run natively (the build host
 * is an x86-64) and emulated; registers, memory, defined flags and addresses must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <cmocka.h>
#include <asm/processor-flags.h>

#include "lib/string.h"
#include "virt/emulate.h"

#define STATUS                                                                           \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF | \
	 X86_EFLAGS_OF)

#define RAX 0
#define RSP 4
#define RSI 6
#define RDI 7

/* Registers and flags around a native instruction; rSP is only read. Not static: asm names them. */
u64 native_gprs[INSN_GPRS];
u64 native_flags;
u8 *native_code;
void native_run(void);

asm(".text\n"
    "native_run:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	push native_flags(%rip); popfq\n"
    "	mov native_gprs+0(%rip), %rax\n"
    "	mov native_gprs+8(%rip), %rcx\n"
    "	mov native_gprs+16(%rip), %rdx\n"
    "	mov native_gprs+24(%rip), %rbx\n"
    "	mov native_gprs+40(%rip), %rbp\n"
    "	mov native_gprs+48(%rip), %rsi\n"
    "	mov native_gprs+56(%rip), %rdi\n"
    "	.irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	mov native_gprs+8*\\n(%rip), %r\\n\n"
    "	.endr\n"
    "	call *native_code(%rip)\n"
    "	mov %rax, native_gprs+0(%rip)\n"
    "	mov %rcx, native_gprs+8(%rip)\n"
    "	mov %rdx, native_gprs+16(%rip)\n"
    "	mov %rbx, native_gprs+24(%rip)\n"
    "	mov %rsp, native_gprs+32(%rip)\n"
    "	mov %rbp, native_gprs+40(%rip)\n"
    "	mov %rsi, native_gprs+48(%rip)\n"
    "	mov %rdi, native_gprs+56(%rip)\n"
    "	.irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	mov %r\\n, native_gprs+8*\\n(%rip)\n"
    "	.endr\n"
    "	pushfq; pop native_flags(%rip)\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n");

static u64 random_state = 88172645463325252ull;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 2685821657736338717ull;
}

/* Half of the values are ends of ranges, where carries and signs happen. */
static u64 random_value(void)
{
	static const u64 ends[] = { 0,
				    1,
				    ~0ull,
				    0x7f,
				    0x80,
				    0x7fff,
				    0x8000,
				    0x7fffffff,
				    0x80000000,
				    0x7fffffffffffffff,
				    0x8000000000000000,
				    0xffffffff };
	u64 r = random_u64();
	return r & 1 ? random_u64() : ends[(r >> 1) % ARRAY_SIZE(ends)];
}

/*
 * One instruction to try: opcode bytes and what follows. All memory operands are [rdi + disp8]
 * unless by string or address.
 */
struct form {
	const char *name;
	u8 map, opcode;
	u8 ext; /* /digit, or ANY */
	u8 imm; /* bytes; 4: 2 or 4 by operand size */
	u64 undefined;
};
#define ANY   8
#define LOGIC X86_EFLAGS_AF
#define BITS  (X86_EFLAGS_OF | X86_EFLAGS_SF | X86_EFLAGS_AF | X86_EFLAGS_PF)

static const struct form forms[] = {
	{ "mov8 store", 0, 0x88, ANY, 0, 0 },
	{ "mov store", 0, 0x89, ANY, 0, 0 },
	{ "mov8 load", 0, 0x8a, ANY, 0, 0 },
	{ "mov load", 0, 0x8b, ANY, 0, 0 },
	{ "mov8 imm", 0, 0xc6, 0, 1, 0 },
	{ "mov imm", 0, 0xc7, 0, 4, 0 },
	{ "movzx8", 1, 0xb6, ANY, 0, 0 },
	{ "movzx16", 1, 0xb7, ANY, 0, 0 },
	{ "movsx8", 1, 0xbe, ANY, 0, 0 },
	{ "movsx16", 1, 0xbf, ANY, 0, 0 },
	{ "movsxd", 0, 0x63, ANY, 0, 0 },
	{ "movnti", 1, 0xc3, ANY, 0, 0 },
	{ "moffs load8", 0, 0xa0, ANY, 8, 0 },
	{ "moffs load", 0, 0xa1, ANY, 8, 0 },
	{ "moffs store8", 0, 0xa2, ANY, 8, 0 },
	{ "moffs store", 0, 0xa3, ANY, 8, 0 },
#define ALU(name, n, undefined)                                     \
	{ name " m8,r8", 0, 8 * n, ANY, 0, undefined },             \
		{ name " m,r", 0, 8 * n + 1, ANY, 0, undefined },   \
		{ name " r8,m8", 0, 8 * n + 2, ANY, 0, undefined }, \
		{ name " r,m", 0, 8 * n + 3, ANY, 0, undefined },   \
		{ name " m8,imm8", 0, 0x80, n, 1, undefined },      \
		{ name " m,imm", 0, 0x81, n, 4, undefined },        \
	{                                                           \
		name " m,imm8", 0, 0x83, n, 1, undefined            \
	}
	ALU("add", 0, 0),
	ALU("or", 1, LOGIC),
	ALU("adc", 2, 0),
	ALU("sbb", 3, 0),
	ALU("and", 4, LOGIC),
	ALU("sub", 5, 0),
	ALU("xor", 6, LOGIC),
	ALU("cmp", 7, 0),
	{ "test8", 0, 0x84, ANY, 0, LOGIC },
	{ "test", 0, 0x85, ANY, 0, LOGIC },
	{ "test8 imm", 0, 0xf6, 0, 1, LOGIC },
	{ "test imm", 0, 0xf7, 0, 4, LOGIC },
	{ "test imm /1", 0, 0xf7, 1, 4, LOGIC },
	{ "not8", 0, 0xf6, 2, 0, 0 },
	{ "not", 0, 0xf7, 2, 0, 0 },
	{ "neg8", 0, 0xf6, 3, 0, 0 },
	{ "neg", 0, 0xf7, 3, 0, 0 },
	{ "inc8", 0, 0xfe, 0, 0, 0 },
	{ "inc", 0, 0xff, 0, 0, 0 },
	{ "dec8", 0, 0xfe, 1, 0, 0 },
	{ "dec", 0, 0xff, 1, 0, 0 },
	{ "xchg8", 0, 0x86, ANY, 0, 0 },
	{ "xchg", 0, 0x87, ANY, 0, 0 },
	{ "cmpxchg8", 1, 0xb0, ANY, 0, 0 },
	{ "cmpxchg", 1, 0xb1, ANY, 0, 0 },
	{ "xadd8", 1, 0xc0, ANY, 0, 0 },
	{ "xadd", 1, 0xc1, ANY, 0, 0 },
	{ "bt imm", 1, 0xba, 4, 1, BITS },
	{ "bts imm", 1, 0xba, 5, 1, BITS },
	{ "btr imm", 1, 0xba, 6, 1, BITS },
	{ "btc imm", 1, 0xba, 7, 1, BITS },
	{ "bt reg", 1, 0xa3, ANY, 0, BITS },
	{ "bts reg", 1, 0xab, ANY, 0, BITS },
	{ "btr reg", 1, 0xb3, ANY, 0, BITS },
	{ "btc reg", 1, 0xbb, ANY, 0, BITS },
	{ "movsb", 0, 0xa4, ANY, 0, 0 },
	{ "movs", 0, 0xa5, ANY, 0, 0 },
	{ "cmpsb", 0, 0xa6, ANY, 0, 0 },
	{ "cmps", 0, 0xa7, ANY, 0, 0 },
	{ "stosb", 0, 0xaa, ANY, 0, 0 },
	{ "stos", 0, 0xab, ANY, 0, 0 },
	{ "lodsb", 0, 0xac, ANY, 0, 0 },
	{ "lods", 0, 0xad, ANY, 0, 0 },
	{ "scasb", 0, 0xae, ANY, 0, 0 },
	{ "scas", 0, 0xaf, ANY, 0, 0 },
};

static u8 buffer[512] ALIGNED(64);

static bool has_modrm(const struct form *f)
{
	bool moffs = !f->map && f->opcode >= 0xa0 && f->opcode <= 0xa3;
	bool string = !f->map && f->opcode >= 0xa4 && f->opcode <= 0xaf;
	return !moffs && !string;
}

/* Bytes of the form with random prefixes, register and immediate. */
static u32 assemble(const struct form *f, u8 *b)
{
	u64 r = random_u64();
	u8 rex = r & 1 ? 0x40 | ((r >> 1) & 0xc) : 0; /* W and R */
	bool word = (r >> 4 & 3) == 0;
	u64 imm = random_value();
	u32 n = 0;

	if (word)
		b[n++] = 0x66;
	if ((r >> 6 & 3) == 0)
		b[n++] = 0xf0;
	if (rex)
		b[n++] = rex;
	if (f->map)
		b[n++] = 0x0f;
	b[n++] = f->opcode;
	if (has_modrm(f)) {
		u8 reg = f->ext == ANY ? (r >> 8) & 7 : f->ext;
		b[n++] = (u8)(0x40 | reg << 3 | RDI);
		b[n++] = (u8)((r >> 16) & 7);
	} else if (f->imm) {
		imm = (u64)&buffer[256 + (r >> 16 & 7)];
	}
	u32 size = f->imm == 4 && word && !(rex & 8) ? 2 : f->imm;
	memcpy(b + n, &imm, 8);
	return n + size;
}

static void random_registers(const struct mem_insn *insn)
{
	for (u32 i = 0; i < INSN_GPRS; i++)
		native_gprs[i] = random_value();
	for (u32 i = 0; i < sizeof(buffer); i += 8)
		*(u64 *)(buffer + i) = random_value();
	if (insn->bit_in_reg) { /* about 100 bytes to both sides; rubbish above the operand */
		u64 near = (u64)((s64)(random_u64() % 1600) - 800);
		u64 mask = MASK(8 * insn->opsize - 1, 0);
		native_gprs[insn->reg] = (random_u64() & ~mask) | (near & mask);
	}
	native_gprs[RDI] = (u64)&buffer[256];
	native_gprs[RSI] = (u64)&buffer[128];
	native_flags = 0x202 | (random_u64() & STATUS);
	if (insn->op == MEM_OP_CMPXCHG && random_u64() & 1)
		memcpy(&native_gprs[RAX], &buffer[256 + insn->mem.disp], 8);
}

static void emulate(const struct mem_insn *insn, u64 *gprs, u64 *flags, u8 *memory)
{
	struct insn_values v = { .rflags = *flags };
	u64 at = mem_insn_offset(insn, gprs, 0) - (u64)buffer;

	assert_in_range(at, 0, sizeof(buffer) - 8);
	insn_values_load(insn, &v, gprs);
	memcpy(&v.mem, memory + at, 8); /* more than opsize: the rest must not matter */
	if (insn->op == MEM_OP_MOVS || insn->op == MEM_OP_CMPS)
		memcpy(&v.reg, memory + mem_operand_offset(insn, &insn->src, gprs, 0) - (u64)buffer,
		       8);
	assert_int_equal(mem_insn_execute(insn, &v), 0);
	if (insn->writes_mem)
		memcpy(memory + at, &v.mem, insn->opsize);
	insn_values_store(insn, &v, gprs);
	*flags = v.rflags;
}

static void compare(const struct form *f, const struct mem_insn *insn, const u64 *gprs, u64 flags,
		    const u8 *memory)
{
	bool string = insn->op >= MEM_OP_MOVS && insn->op <= MEM_OP_SCAS;
	u64 wrong_flags = (flags ^ native_flags) & STATUS & ~f->undefined;

	for (u32 i = 0; i < INSN_GPRS; i++)
		if (gprs[i] != native_gprs[i] && i != RSP && !(string && (i == RSI || i == RDI)))
			fail_msg("%s, size %u: register %u is %lx, native %lx", f->name,
				 insn->opsize, i, gprs[i], native_gprs[i]);
	if (wrong_flags)
		fail_msg("%s, size %u: flags differ in %lx", f->name, insn->opsize, wrong_flags);
	if (memcmp(memory, buffer, sizeof(buffer)))
		fail_msg("%s, size %u: memory differs", f->name, insn->opsize);
}

/* False: the encoding made up isn't a legal one. */
static bool one_round(const struct form *f)
{
	struct mem_insn insn;
	u64 gprs[INSN_GPRS], flags;
	u8 memory[sizeof(buffer)];

	u32 n = assemble(f, native_code);
	if (decode_mem(native_code, n, INSN_64, &insn))
		return false;
	assert_int_equal(insn.len, n);
	if (insn.reg == RSP && !insn.has_imm)
		return false; /* the native stack */
	native_code[n] = 0xc3;
	random_registers(&insn);
	if (insn.bit_in_reg && (insn.reg == RDI || insn.reg == RSI))
		return false; /* a pointer is no small bit number */
	if (insn.locked && (mem_insn_offset(&insn, native_gprs, 0) & 63) + insn.opsize > 64)
		return false; /* a split lock: the host may punish it */
	memcpy(gprs, native_gprs, sizeof(gprs));
	memcpy(memory, buffer, sizeof(buffer));
	flags = native_flags;
	emulate(&insn, gprs, &flags, memory);
	native_run();
	compare(f, &insn, gprs, flags, memory);
	return true;
}

static void test_execute(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(forms); i++) {
		u32 done = 0;
		for (u32 k = 0; k < 4000; k++)
			done += one_round(&forms[i]);
		if (done < 1000)
			fail_msg("%s: only %u rounds", forms[i].name, done);
	}
}

/*
 * LEA tells what the CPU makes of ModRM, SIB and 67; for the decoder the opcode becomes that of a
 * load.
 */
static void test_addresses(void **state)
{
	(void)state;
	for (u32 k = 0; k < 300000; k++) {
		u8 *b = native_code;
		u64 noise = random_u64();
		u64 gprs[INSN_GPRS];
		struct mem_insn insn;
		u32 n = 0;

		if (noise & 1)
			b[n++] = 0x67;
		b[n++] = 0x48 | ((noise >> 1) & 3);
		u32 opcode = n;
		b[n++] = 0x8b;
		b[n++] = (noise >> 8 & 0xc0) | (noise >> 8 & 7); /* reg: rax */
		noise = random_u64();
		memcpy(b + n, &noise, 8);
		if (decode_mem(b, 15, INSN_64, &insn))
			continue; /* a register operand */
		b[opcode] = 0x8d;
		b[insn.len] = 0xc3;
		for (u32 i = 0; i < INSN_GPRS; i++)
			native_gprs[i] = random_value();
		memcpy(gprs, native_gprs, sizeof(gprs));
		native_flags = 0x202;
		native_run();
		gprs[RSP] = native_gprs[RSP] - 8; /* inside, the return address lies there */
		u64 ours = mem_insn_offset(&insn, gprs, (u64)b + insn.len);
		if (ours != native_gprs[RAX])
			fail_msg("ModRM %02x SIB %02x: %lx, native %lx", b[opcode + 1],
				 b[opcode + 2], ours, native_gprs[RAX]);
	}
}

static u64 offset_of(const char *bytes, size_t size, enum insn_mode mode, const u64 *gprs, u64 rip)
{
	struct mem_insn insn;
	assert_int_equal(decode_mem((const u8 *)bytes, size, mode, &insn), 0);
	return mem_insn_offset(&insn, gprs, rip);
}
#define OFFSET(mode, bytes, gprs, rip) offset_of(bytes, sizeof(bytes) - 1, mode, gprs, rip)

/*
 * What a 64-bit host can't show: wraps at 16 and 32 bits, and bit offsets that leave the
 * neighbourhood.
 */
static void test_wraps(void **state)
{
	(void)state;
	u64 gprs[INSN_GPRS] = { 0 };

	gprs[3] = 0xdead00000000ffff; /* [bx+si] */
	gprs[RSI] = 2;
	assert_int_equal(OFFSET(INSN_16, "\x89\x00", gprs, 0), 1);
	gprs[RAX] = 0xffffffff; /* [eax+2] */
	assert_int_equal(OFFSET(INSN_32, "\x89\x48\x02", gprs, 0), 1);
	assert_int_equal(OFFSET(INSN_64, "\x67\x89\x48\x02", gprs, 0), 1);
	assert_int_equal(OFFSET(INSN_64, "\x89\x48\x02", gprs, 0), 0x100000001);
	assert_int_equal(OFFSET(INSN_64, "\x89\x0d\xff\xff\xff\xff", gprs, 0), ~0ull); /* [rip-1] */
	assert_int_equal(OFFSET(INSN_64, "\x67\x89\x0d\xff\xff\xff\xff", gprs, 0), 0xffffffff);

	/* XSA-195: bt [rax], rcx with the largest steps */
	gprs[RAX] = 0x1000;
	gprs[1] = 1ull << 63;
	assert_int_equal(OFFSET(INSN_64, "\x48\x0f\xa3\x08", gprs, 0), 0x1000 - (1ull << 60));
	gprs[1] = ~0ull;
	assert_int_equal(OFFSET(INSN_64, "\x48\x0f\xa3\x08", gprs, 0), 0x1000 - 8);
	gprs[1] = 0x80000000; /* 32-bit operand: negative */
	assert_int_equal(OFFSET(INSN_64, "\x0f\xa3\x08", gprs, 0), 0x1000 - 0x10000000ull);
	assert_int_equal(OFFSET(INSN_32, "\x0f\xa3\x08", gprs, 0), 0x1000 + 0xf0000000ull);
	gprs[1] = 0x7fffffff;
	assert_int_equal(OFFSET(INSN_64, "\x0f\xa3\x08", gprs, 0), 0x1000 + 0x0ffffffcull);
	gprs[1] = 0x18000; /* 16-bit operand: only cx */
	assert_int_equal(OFFSET(INSN_64, "\x66\x0f\xa3\x08", gprs, 0), 0x1000 - 0x1000);
}

static void test_refused(void **state)
{
	(void)state;
	static const char *const insns[] = { "\x6c\x00\x00", "\x6f\x00\x00", "\x0f\x20\xc0",
					     "\x0f\x01\x20", "\x0f\x06\x00" };
	for (u32 i = 0; i < ARRAY_SIZE(insns); i++) {
		struct mem_insn insn;
		struct insn_values v = { 0 };
		assert_int_equal(decode_mem((const u8 *)insns[i], 3, INSN_64, &insn), 0);
		assert_int_equal(mem_insn_execute(&insn, &v), -EOPNOTSUPP);
	}
}

static int setup(void **state)
{
	(void)state;
	native_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return native_code == MAP_FAILED;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_execute),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_wraps),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
