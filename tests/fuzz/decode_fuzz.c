/* SPDX-License-Identifier: MIT */
/*
 * virt/decode.c on any bytes: lengths against Zydis, and what must hold between the two services.
 * Byte 0 is the mode.
 */
#include <stdio.h>
#include <stdlib.h>
#include <Zydis/Zydis.h>

#include "lib/string.h"
#include "virt/emulate.h"

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static void compare_zydis(const u8 *bytes, size_t size, enum insn_mode mode, int length)
{
	static const ZydisMachineMode machine[] = { ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
						    ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
						    ZYDIS_MACHINE_MODE_LONG_64 };
	static const ZydisStackWidth stack[] = { ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
						 ZYDIS_STACK_WIDTH_64 };
	ZydisDecoder decoder;
	ZydisDecodedInstruction z;

	CHECK(ZYAN_SUCCESS(ZydisDecoderInit(&decoder, machine[mode], stack[mode])));
	ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, NULL, bytes, size, &z);
	if (!ZYAN_SUCCESS(status))
		return;
	if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP) /* left out on purpose */
		return;
	if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
	    z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	    z.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
		CHECK(length == -EOPNOTSUPP);
	else
		CHECK(length == z.length);
}

static void check_operand(const struct mem_operand *m)
{
	CHECK(m->base < INSN_GPRS || m->base == INSN_NO_REG);
	CHECK(m->index < INSN_GPRS || m->index == INSN_NO_REG);
	CHECK(m->scale == 1 || m->scale == 2 || m->scale == 4 || m->scale == 8);
	CHECK(m->seg <= INSN_GS);
}

/* Whatever is accepted can be executed: ranges that the code behind it relies on. */
static void check_insn(const struct mem_insn *insn)
{
	static const u64 gprs[INSN_GPRS];
	struct insn_values v = { 0 };

	CHECK(insn->op <= MEM_OP_CLTS && insn->reg < INSN_GPRS && insn->sysreg < INSN_GPRS);
	CHECK(insn->opsize <= 8 && insn->reg_size <= 8);
	if (insn->has_mem) {
		check_operand(&insn->mem);
		(void)mem_insn_offset(insn, gprs, 0);
	}
	CHECK(!insn->locked || (insn->reads_mem && insn->writes_mem));
	int result = mem_insn_execute(insn, &v);
	CHECK(result == (insn->op <= MEM_OP_SCAS ? 0 : -EOPNOTSUPP));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	if (!size)
		return 0;
	enum insn_mode mode = data[0] % 3;
	size_t n = size - 1;
	/* a block of its own size: a look past the end is seen */
	u8 *bytes = malloc(n + !n);
	memcpy(bytes, data + 1, n);

	struct mem_insn insn;
	int length = insn_length(bytes, n, mode);
	int result = decode_mem(bytes, n, mode, &insn);
	CHECK(length == -EAGAIN || length == -EINVAL || length == -EOPNOTSUPP ||
	      (length > 0 && length <= INSN_MAX_LEN));
	CHECK(length > 0 ? result != -EAGAIN && insn.len == length : result == length);
	if (length > 0)
		CHECK(insn_length(bytes, (size_t)length - 1, mode) == -EAGAIN);
	if (!result)
		check_insn(&insn);
	compare_zydis(bytes, n, mode, length);
	free(bytes);
	return 0;
}
