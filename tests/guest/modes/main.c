/* SPDX-License-Identifier: MIT */
/* Every mode of the CPU, and all ways between them, with exits in each. */
#include "tests/guest/modes/modes.h"

struct gate32 idt32[256];
struct tss_a tss32;
struct tss32 tss_b;

void run(struct step *steps, u32 n)
{
	extern const u8 trap32_stubs[];

	for (u32 i = 0; i < 256; i++) {
		u32 at = (u32)(u64)trap32_stubs + i * 16;

		if (!idt32[i].type)
			idt32[i] = (struct gate32){ .low = (u16)at,
						    .selector = SEL_CODE32,
						    .type = 0xee,
						    .high = (u16)(at >> 16) };
	}
	for (u32 i = 0; i < n; i++)
		steps[i].fault = NO_FAULT;
	steps[n - 1].op = OP_END;
	modes_run(steps);
	memset(idt32, 0, sizeof(idt32));
	/* TR is that of another mode */
	gdt[SEL_TSS / 8] &= ~BIT(41);
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
}

static u32 ebx_of_0(void)
{
	return cpuid(0, 0).ebx;
}

static u32 apic_version(void)
{
	return apic_read(APIC_VERSION);
}

/* Memory below 64 KiB for 16-bit code. */
static u8 *low(void)
{
	u8 *p = (u8 *)0x6000;

	memset(p, 0, 64);
	memcpy(p, "abcd", 4);
	return p;
}

/* After REP OUTSB of 4 bytes and REP INSB: the last one four times. */
static void check_string(const u8 *p)
{
	EXPECT(*(const u32 *)p, 0x64636261);
	EXPECT(*(const u32 *)(p + 4), 0x64646464);
	EXPECT(p[8], 0);
}

TEST(no_paging, "32-bit protected mode without paging: memory, devices, control registers")
{
	u32 *p = pages(1);
	struct step s[] = {
		STEP(OP_WRITE, (u32)(u64)p, 0x1234),
		STEP(OP_READ, (u32)(u64)p),
		STEP(OP_READ, 0xfee00030),
		STEP(OP_GET_CR0),
		STEP(OP_GET_CR4),
		STEP(OP_GET_EFER),
		STEP(OP_OUTS, (u32)(u64)p),
		STEP(OP_INS, (u32)(u64)p + 8),
		STEP(OP_END),
	};

	RUN(s);
	EXPECT(s[1].value, 0x1234);
	EXPECT(s[2].value, apic_version());
	EXPECT(s[3].value, CR0_FLAT);
	EXPECT(s[4].value, 0);
	EXPECT(s[5].value & (EFER_LME | EFER_LMA), 0);
	EXPECT(p[2] & 0xff, 0x34);
}

TEST(code32, "32-bit code: CPUID, ports, string I/O, MMIO, MSRs, MOV to CR0")
{
	u8 *p = low();
	struct step s[] = {
		STEP(OP_CALL, ROUTINE(r32_cpuid), 0),
		STEP(OP_CALL, ROUTINE(r32_inc_cpuid), ~0u),
		STEP(OP_CALL, ROUTINE(r32_port), 0x5a),
		STEP(OP_CALL, ROUTINE(r32_apic), 0),
		STEP(OP_CALL, ROUTINE(r32_string), (u32)(u64)p),
		STEP(OP_CALL, ROUTINE(r32_toggle_cd), 0),
		STEP(OP_CALL, ROUTINE(r32_msr), MSR_APIC_BASE),
		STEP(OP_CALL, ROUTINE(r32_msr), 0x12345),
		STEP(OP_END),
	};

	RUN(s);
	EXPECT(s[0].value, ebx_of_0());
	EXPECT(s[1].value, ebx_of_0());
	EXPECT(s[2].value, 0x5a);
	EXPECT(s[3].value, apic_version());
	EXPECT(s[4].value, 0);
	check_string(p);
	EXPECT(s[5].value, CR0_FLAT | BIT(30));
	EXPECT(s[6].value, (u32)rdmsr(MSR_APIC_BASE));
	EXPECT(s[7].fault, GP);
	for (u32 i = 0; i < 7; i++)
		EXPECT(s[i].fault, NO_FAULT);
}

/* What 16-bit code does everywhere. */
static void code16(u32 op)
{
	u8 *p = low();
	struct step s[] = {
		STEP(op, ROUTINE(r16_cpuid), 0),
		STEP(op, ROUTINE(r16_port), 0xa5),
		STEP(op, ROUTINE(r16_string), (u32)(u64)p),
		STEP(op, ROUTINE(r16_msr), MSR_APIC_BASE),
		STEP(op, ROUTINE(r16_toggle_cd), 0),
		STEP(OP_GET_CR0),
		STEP(OP_END),
	};

	RUN(s);
	EXPECT(s[0].value, ebx_of_0());
	EXPECT(s[1].value, 0xa5);
	EXPECT(s[2].value, 0);
	check_string(p);
	EXPECT(s[3].value, (u32)rdmsr(MSR_APIC_BASE));
	EXPECT(s[4].value & ~1u, (CR0_FLAT & ~1u) | BIT(30));
	EXPECT(s[4].value & 1, op == OP_CODE16);
	EXPECT(s[5].value, CR0_FLAT);
	for (u32 i = 0; i < 6; i++)
		EXPECT(s[i].fault, NO_FAULT);
}

TEST(protected16, "16-bit protected mode: the same instructions")
{
	code16(OP_CODE16);
}

TEST(real, "real mode: the same, interrupts through the table at 0, #GP without an error code")
{
	struct step s[] = {
		STEP(OP_REAL, ROUTINE(r16_int), 1),
		STEP(OP_REAL, ROUTINE(r16_gp), 0),
		STEP(OP_REAL, ROUTINE(r16_lmsw), 0),
		STEP(OP_REAL, ROUTINE(r16_real_cs), 0x10000),
		STEP(OP_END),
	};

	code16(OP_REAL);
	RUN(s);
	EXPECT(s[0].value, 1001);
	EXPECT(s[1].value, 6);
	EXPECT(s[2].value & 3, 3); /* PE and MP, by LMSW */
	EXPECT(s[3].value, 0);
}

TEST(unreal, "unreal mode: 4 GiB by DS in real mode, up to a device")
{
	struct step s[] = {
		STEP(OP_UNREAL, ROUTINE(r16_apic), 0),
		STEP(OP_UNREAL, ROUTINE(r16_cpuid), 0),
		STEP(OP_END),
	};

	code16(OP_UNREAL);
	RUN(s);
	EXPECT(s[0].value, apic_version());
	EXPECT(s[1].value, ebx_of_0());
}

TEST(compatibility, "compatibility mode, 32 and 16 bits: 40 is INC and no prefix")
{
	u8 *p = low();

	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_cpuid), 0), ebx_of_0());
	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_inc_cpuid), ~0u), ebx_of_0());
	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_apic), 0), apic_version());
	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_port), 0x77), 0x77);
	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_string), (u32)(u64)p), 0);
	check_string(p);
	EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_cr0), 0), (u32)read_cr0());
	EXPECT(compat_call(SEL_CODE16, ROUTINE(c16_cpuid), 0), ebx_of_0());
	EXPECT(compat_call(SEL_CODE16, ROUTINE(c16_apic), 0), apic_version());
}

/* ---- Virtual-8086 mode ---- */

void make_tss(u32 sel, const void *tss, u32 limit, u64 type)
{
	u64 base = (u64)tss;

	gdt[sel / 8] =
		(limit & 0xffff) | (base & 0xffffff) << 16 | type << 40 | (base >> 24 & 0xff) << 56;
}

void v86_tss(u32 closed_byte)
{
	memset(&tss32, 0, sizeof(tss32));
	tss32.t.ss0 = SEL_DATA;
	tss32.t.iomap = sizeof(tss32.t);
	tss32.ports[0x2000] = 0xff;
	tss32.ports[closed_byte] = 0xff;
	make_tss(SEL_TSS_A, &tss32, sizeof(tss32) - 1, 0x89);
}

TEST(v86, "virtual-8086 mode: CPUID, ports, string I/O; HLT, RDMSR and INT are #GP")
{
	u8 *p = low();
	struct step s[] = {
		STEP(OP_V86, ROUTINE(v86_cpuid)),
		STEP(OP_V86, ROUTINE(v86_port), 0x3c),
		STEP(OP_V86, ROUTINE(v86_string), (u32)(u64)p),
		STEP(OP_V86, ROUTINE(v86_hlt)),
		STEP(OP_V86, ROUTINE(v86_msr)),
		STEP(OP_V86, ROUTINE(v86_int)),
		STEP(OP_END),
	};

	v86_tss(0);
	RUN(s);
	EXPECT(s[0].fault, UD);
	EXPECT(s[0].value, ebx_of_0());
	EXPECT(s[1].fault, UD);
	EXPECT(s[1].value, 0x3c);
	EXPECT(s[2].fault, UD);
	check_string(p);
	EXPECT(s[3].fault, GP);
	EXPECT(s[4].fault, GP);
	EXPECT(s[5].fault, GP);
}

TEST(v86_closed_port, "a port that the I/O bitmap closes is #GP, one by one and by string")
{
	struct step s[] = {
		STEP(OP_V86, ROUTINE(v86_port), 0x3c),
		STEP(OP_V86, ROUTINE(v86_string), 0x6000),
		STEP(OP_END),
	};

	v86_tss(0x3ff / 8);
	RUN(s);
	EXPECT(s[0].fault, GP);
	EXPECT(s[1].fault, GP);
}

/* ---- Mode switches ---- */

TEST(hundred_times, "a hundred times through all modes, with exits in each")
{
	struct step s[] = {
		STEP(OP_CALL, ROUTINE(r32_cpuid), 0),
		STEP(OP_REAL, ROUTINE(r16_cpuid), 0),
		STEP(OP_CODE16, ROUTINE(r16_cpuid), 0),
		STEP(OP_UNREAL, ROUTINE(r16_apic), 0),
		STEP(OP_READ, 0xfee00030),
		STEP(OP_GET_CR0),
		STEP(OP_END),
	};

	for (u32 i = 0; i < 100; i++) {
		RUN(s);
		EXPECT(s[0].value, ebx_of_0());
		EXPECT(s[1].value, ebx_of_0());
		EXPECT(s[2].value, ebx_of_0());
		EXPECT(s[3].value, apic_version());
		EXPECT(s[4].value, apic_version());
		EXPECT(s[5].value, CR0_FLAT);
		EXPECT(rdmsr(MSR_EFER) & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA);
		EXPECT(compat_call(SEL_CODE32, ROUTINE(c32_cpuid), 0), ebx_of_0());
	}
}
