/* SPDX-License-Identifier: MIT */
/*
 * Decoding in two steps: scan() cuts the bytes into prefixes, opcode, ModRM, SIB, displacement and
 * immediate, for every instruction but vector ones; decode_mem() gives them a meaning, for the few
 * of decode_tables.c.
 *
 * SDM volume 2, "Instruction Format"; APM volume 3, "Instruction Encoding".
 */
#include "virt/decode.h"
#include "virt/decode_tables.h"

enum opcode_map { MAP_ONE_BYTE, MAP_0F, MAP_OTHER };

#define REX_W BIT(3)
#define REX_R BIT(2)
#define REX_X BIT(1)
#define REX_B BIT(0)

#define RBX 3
#define RSP 4
#define RBP 5
#define RSI 6
#define RDI 7

#define NO_SEG 0xff

/* The cut-up instruction. */
struct scan {
	const u8 *bytes;
	size_t avail;
	enum insn_mode mode;
	u8 pos; /* bytes taken so far */
	u8 rex; /* 0: none in effect */
	u8 seg; /* override, or NO_SEG */
	u8 rep; /* enum insn_rep of the last F2 or F3 */
	bool opsize_prefix, addrsize_prefix, lock;
	u8 map; /* enum opcode_map */
	u8 opcode;
	bool has_modrm;
	u8 mod, reg, rm; /* without the REX bits */
	bool has_sib;
	u8 scale, index, base; /* of the SIB byte, without the REX bits */
	s64 disp, imm;
};

/*
 * Take n <= 8 bytes as a little-endian number, sign-extended. The byte that is missing decides:
 * what lies past the 15th is an error, even if it can't be fetched.
 */
static int take(struct scan *s, u32 n, s64 *value)
{
	size_t end = s->pos + n;
	if (s->avail < MIN(end, INSN_MAX_LEN))
		return -EAGAIN;
	if (end > INSN_MAX_LEN)
		return -EINVAL;

	u64 v = 0;
	for (u32 i = 0; i < n; i++)
		v |= (u64)s->bytes[s->pos + i] << (8 * i);
	if (n > 0 && n < 8 && (v >> (8 * n - 1)))
		v |= ~0ull << (8 * n);
	s->pos = (u8)end;
	*value = (s64)v;
	return 0;
}

static int take_byte(struct scan *s, u8 *byte)
{
	s64 v;
	int err = take(s, 1, &v);
	if (!err)
		*byte = (u8)v;
	return err;
}

static u8 operand_size(const struct scan *s)
{
	if (s->rex & REX_W)
		return 8;
	return (s->mode == INSN_16) != s->opsize_prefix ? 2 : 4;
}

static u8 address_size(const struct scan *s)
{
	if (s->mode == INSN_64)
		return s->addrsize_prefix ? 4 : 8;
	return (s->mode == INSN_16) != s->addrsize_prefix ? 2 : 4;
}

static bool legacy_prefix(struct scan *s, u8 byte)
{
	u8 seg = (byte & 0xfe) == 0x64 ? INSN_FS + (byte & 1) : (byte >> 3) & 3;

	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
		/*
		 * APM "Segment-Override Prefixes": 64-bit mode ignores ES, CS, SS, DS, which don't
		 * even undo an FS.
		 */
		if (s->mode != INSN_64 || seg >= INSN_FS)
			s->seg = seg;
		return true;
	case 0x66:
		s->opsize_prefix = true;
		return true;
	case 0x67:
		s->addrsize_prefix = true;
		return true;
	case 0xf0:
		s->lock = true;
		return true;
	case 0xf2:
		s->rep = INSN_REPNE;
		return true;
	case 0xf3:
		s->rep = INSN_REPE;
		return true;
	default:
		return false;
	}
}

/* Any order and number; REX counts only right before the opcode. *byte is what follows them. */
static int scan_prefixes(struct scan *s, u8 *byte)
{
	for (;;) {
		int err = take_byte(s, byte);
		if (err)
			return err;
		if (legacy_prefix(s, *byte))
			s->rex = 0;
		else if (s->mode == INSN_64 && (*byte & 0xf0) == 0x40)
			s->rex = *byte;
		else
			return 0;
	}
}

/*
 * VEX (C5, C4) and EVEX (62) instructions are neither emulated nor a cause of exits. Outside 64-bit
 * mode these bytes are also LDS, LES and BOUND, which never have a register operand (SDM "Vector
 * Extension (VEX)").
 */
static int refuse_vector(const struct scan *s, u8 byte)
{
	struct scan ahead = *s;
	u8 next;
	int err;

	if (byte != 0xc5 && byte != 0xc4 && byte != 0x62)
		return 0;
	err = take_byte(&ahead, &next);
	if (!err && (s->mode == INSN_64 || next >= 0xc0))
		err = -EOPNOTSUPP;
	return err;
}

static int scan_0f(struct scan *s, u16 *format)
{
	int err = take_byte(s, &s->opcode);
	if (err)
		return err;
	if (s->opcode == 0x38 || s->opcode == 0x3a) {
		*format = s->opcode == 0x38 ? FMT_MODRM : FMT_MODRM | FMT_IMM8;
		s->map = MAP_OTHER;
		return take_byte(s, &s->opcode);
	}
	s->map = MAP_0F;
	*format = opcode_formats_0f[s->opcode];
	return 0;
}

static int scan_opcode(struct scan *s, u16 *format)
{
	u8 byte = 0;
	int err = scan_prefixes(s, &byte);
	err = err ? err : refuse_vector(s, byte);
	if (err)
		return err;
	if (byte == 0x0f)
		return scan_0f(s, format);
	s->map = MAP_ONE_BYTE;
	s->opcode = byte;
	*format = opcode_formats[byte];
	return 0;
}

/* SDM "Addressing-Mode Encoding of ModR/M and SIB Bytes": size of the displacement. */
static u32 disp_size(const struct scan *s)
{
	u32 full = address_size(s) == 2 ? 2 : 4;
	u8 absolute = full == 2 ? 6 : 5; /* with mod 0: no base, a full displacement */

	if (s->mod == 0)
		return (s->has_sib ? s->base : s->rm) == absolute ? full : 0;
	return s->mod == 1 ? 1 : s->mod == 2 ? full : 0;
}

static int scan_modrm(struct scan *s, u16 format)
{
	u8 byte;
	int err = take_byte(s, &byte);
	if (err)
		return err;
	s->has_modrm = true;
	s->mod = format & FMT_REGS ? 3 : byte >> 6;
	s->reg = (byte >> 3) & 7;
	s->rm = byte & 7;
	if (s->mod == 3)
		return 0;
	if (s->rm == 4 && address_size(s) != 2) {
		err = take_byte(s, &byte);
		if (err)
			return err;
		s->has_sib = true;
		s->scale = byte >> 6;
		s->index = (byte >> 3) & 7;
		s->base = byte & 7;
	}
	return take(s, disp_size(s), &s->disp);
}

static u32 imm_size(const struct scan *s, u16 format)
{
	u32 opsize = operand_size(s);
	u32 immz = MIN(opsize, 4u); /* a REX.W doesn't make it longer */
	u32 n = 0;

	if (format & FMT_IMM8)
		n += 1;
	if (format & FMT_IMM16)
		n += 2;
	if (format & FMT_IMMZ)
		n += immz;
	if (format & FMT_IMMV)
		n += opsize;
	if (format & FMT_BRANCH)
		n += s->mode == INSN_64 ? 4 : immz;
	if (format & FMT_MOFFS)
		n += address_size(s);
	if (format & FMT_GROUP3 && s->reg < 2)
		n += s->opcode & 1 ? immz : 1;
	if (format & FMT_SSE4A &&
	    (s->rep == INSN_REPNE || (s->opsize_prefix && s->rep == INSN_REP_NONE)))
		n += 2;
	return n;
}

static int scan(struct scan *s, const u8 *bytes, size_t avail, enum insn_mode mode)
{
	u16 format;

	*s = (struct scan){ .bytes = bytes, .avail = avail, .mode = mode, .seg = NO_SEG };
	int err = scan_opcode(s, &format);
	if (err)
		return err;
	if (format & FMT_UNDEF || (format & FMT_NO64 && mode == INSN_64))
		return -EINVAL;
	if (format & FMT_MODRM)
		err = scan_modrm(s, format);
	return err ? err : take(s, imm_size(s, format), &s->imm);
}

int insn_length(const u8 *bytes, size_t avail, enum insn_mode mode)
{
	struct scan s;
	int err = scan(&s, bytes, avail, mode);
	return err ? err : s.pos;
}

static bool row_matches(const struct mem_row *row, const struct scan *s)
{
	return row->map == s->map && row->opcode == (s->opcode & row->mask) &&
	       (row->ext == ROW_ANY || row->ext == s->reg);
}

static const struct mem_row *find_row(const struct scan *s)
{
	for (u32 i = 0; i < mem_row_count; i++)
		if (row_matches(&mem_rows[i], s))
			return &mem_rows[i];
	return NULL;
}

static u8 rex_bit(const struct scan *s, u8 bit)
{
	return s->rex & bit ? 8 : 0;
}

static void set_mem(const struct scan *s, struct mem_operand *m, u8 base, u8 index)
{
	/* SDM "Default Segment Selection Rules" */
	u8 seg = base == RSP || base == RBP ? INSN_SS : INSN_DS;

	*m = (struct mem_operand){
		.base = base,
		.index = index,
		.scale = 1,
		.disp = s->disp,
		.seg = s->seg != NO_SEG ? s->seg : seg,
	};
}

/* SDM "16-Bit Addressing Forms with the ModR/M Byte" */
static void decode_rm16(const struct scan *s, struct mem_operand *m)
{
	static const u8 base[8] = { RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX };
	static const u8 index[4] = { RSI, RDI, RSI, RDI };

	if (s->mod == 0 && s->rm == 6)
		set_mem(s, m, INSN_NO_REG, INSN_NO_REG);
	else
		set_mem(s, m, base[s->rm], s->rm < 4 ? index[s->rm] : INSN_NO_REG);
}

/* SDM "32-Bit Addressing Forms with the SIB Byte", "RIP-Relative Addressing" */
static void decode_rm(const struct scan *s, struct mem_operand *m)
{
	u8 base = s->has_sib ? s->base : s->rm;
	u8 index = INSN_NO_REG;
	bool absolute = s->mod == 0 && base == RBP;

	if (s->has_sib && (s->index | rex_bit(s, REX_X)) != RSP)
		index = s->index | rex_bit(s, REX_X);
	set_mem(s, m, absolute ? INSN_NO_REG : base | rex_bit(s, REX_B), index);
	m->scale = (u8)(1 << s->scale);
	m->rip_relative = absolute && !s->has_sib && s->mode == INSN_64;
}

static void decode_string(const struct scan *s, struct mem_insn *out)
{
	struct mem_operand from, to;

	set_mem(s, &from, RSI, INSN_NO_REG);
	set_mem(s, &to, RDI, INSN_NO_REG);
	to.seg = INSN_ES; /* can't be overridden: SDM "Segment Override Prefixes" */
	out->mem = out->op == MEM_OP_LODS || out->op == MEM_OP_OUTS ? from : to;
	out->src = from;
	out->rep = s->rep;
	out->has_mem = true;
}

/* Only CR0, 2, 3, 4 and 8 exist. LOCK MOV CR0 is AMD's way to CR8 (APM "CR8 Register"). */
static int decode_sysreg(const struct scan *s, struct mem_insn *out)
{
	const u32 valid = BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(8);

	out->reg = s->rm | rex_bit(s, REX_B);
	out->sysreg = s->reg | rex_bit(s, REX_R);
	out->locked = false;
	out->opsize = out->reg_size = s->mode == INSN_64 ? 8 : 4;
	if (s->lock && out->sysreg)
		return -EINVAL;
	if (s->lock)
		out->sysreg = 8;
	return valid & BIT(out->sysreg) ? 0 : -EINVAL;
}

static void decode_sizes(const struct scan *s, const struct mem_row *row, struct mem_insn *out)
{
	u8 size = operand_size(s);

	if (row->flags & ROW_NO_PREFIX && size == 2)
		size = 4; /* MOVNTI knows no 16 bits, in 16-bit code neither */
	if (row->op >= MEM_OP_INS && row->op <= MEM_OP_OUTS && size == 8)
		size = 4; /* ports are not wider */
	if (row->flags & ROW_BYTE_OP && !(s->opcode & 1))
		size = 1;
	out->reg_size = out->opsize = size;
	if (row->flags & ROW_EXTEND)
		out->opsize = s->opcode & 1 ? 2 : 1;
	if (row->op == MEM_OP_MOV && s->opcode == 0x63)
		out->opsize = 4; /* MOVSXD */
	if (row->flags & ROW_WORD && s->mod != 3)
		out->opsize = out->reg_size = 2;
	if (row->flags & ROW_NO_SIZE)
		out->opsize = out->reg_size = 0;
}

/* The general register operand; without any REX the byte registers 4..7 are AH, CH, DH, BH. */
static void decode_reg(const struct scan *s, u8 number, u8 rex_extension, struct mem_insn *out)
{
	out->reg = number | rex_bit(s, rex_extension);
	if (out->reg_size == 1 && !s->rex && number >= 4) {
		out->reg = number - 4;
		out->reg_high8 = true;
	}
}

static void decode_flags(const struct scan *s, const struct mem_row *row, struct mem_insn *out)
{
	u32 flags = row->flags;

	out->op = row->op;
	if (flags & ROW_ALU_OPCODE)
		out->op = (s->opcode >> 3) & 7;
	if (flags & ROW_ALU_REG)
		out->op = s->reg;
	if (out->op == MEM_OP_CMP) /* the only one of its group that stores nothing */
		flags &= ~(ROW_WRITE | ROW_WRITE_REG | ROW_LOCK);
	out->addr_size = address_size(s);
	out->has_lock = s->lock;
	out->locked = s->lock || row->op == MEM_OP_XCHG;
	out->reads_mem = flags & ROW_READ;
	out->writes_mem = flags & ROW_WRITE;
	out->to_reg = flags & ROW_TO_REG;
	out->writes_reg = flags & ROW_WRITE_REG;
	out->has_imm = flags & ROW_IMM;
	out->sign_extend = flags & ROW_SIGNED;
	out->bit_in_reg = flags & ROW_BIT_REG;
	if (out->has_imm)
		out->imm = s->imm;
}

/* mem and reg of an instruction with ModRM or moffs. */
static void decode_operands(const struct scan *s, const struct mem_row *row, struct mem_insn *out)
{
	if (row->flags & ROW_MOFFS) {
		out->has_mem = true;
		set_mem(s, &out->mem, INSN_NO_REG, INSN_NO_REG);
		out->mem.disp = s->imm;
		return; /* reg stays 0, rAX */
	}
	if (!s->has_modrm)
		return;
	if (s->mod == 3) { /* SMSW, LMSW: the register takes the place of memory */
		decode_reg(s, s->rm, REX_B, out);
		out->writes_reg = out->writes_mem;
		out->reads_mem = out->writes_mem = false;
		return;
	}
	out->has_mem = true;
	if (out->addr_size == 2)
		decode_rm16(s, &out->mem);
	else
		decode_rm(s, &out->mem);
	if (row->ext == ROW_ANY && !out->has_imm)
		decode_reg(s, s->reg, REX_R, out);
}

int decode_mem(const u8 *bytes, size_t avail, enum insn_mode mode, struct mem_insn *out)
{
	struct scan s;

	/* all of it: nothing of the caller's stack may get into a guest's registers */
	*out = (struct mem_insn){ 0 };
	int err = scan(&s, bytes, avail, mode);
	if (err)
		return err;
	out->len = s.pos;

	const struct mem_row *row = find_row(&s);
	if (!row || (s.has_modrm && s.mod == 3 && !(row->flags & ROW_REG_OK)))
		return -EOPNOTSUPP;
	/* ARPL; and MOVSXD to 16 bits, where Intel reads 2 bytes and AMD 4 */
	if (s.map == MAP_ONE_BYTE && s.opcode == 0x63 && (mode != INSN_64 || operand_size(&s) == 2))
		return -EOPNOTSUPP;
	decode_flags(&s, row, out);
	if (row->flags & ROW_SYSREG)
		return decode_sysreg(&s, out);
	if (s.lock && !(row->flags & ROW_LOCK && out->writes_mem))
		return -EINVAL;
	if (row->flags & ROW_NO_PREFIX && (s.opsize_prefix || s.rep))
		return -EINVAL;
	decode_sizes(&s, row, out);
	if (row->flags & ROW_STRING)
		decode_string(&s, out);
	else
		decode_operands(&s, row, out);
	return 0;
}
