/* SPDX-License-Identifier: MIT */
/*
 * The faults of FAULTS builds: their words, when they fire, and how often they did. A word is
 * cpuN[@enable|@disable]:POINT[:INDEX]=EFFECT; docs/TESTING.md lists the points and effects.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/clock.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "arch/x86/topology.h"
#include "lib/log.h"
#include "lib/string.h"

#define FAULTS_MAX 32
#define WORD_MAX   63

enum effect_kind { EFFECT_NUMBER, EFFECT_SET, EFFECT_CLEAR, EFFECT_DELAY, EFFECT_FAIL };

struct fault {
	char word[WORD_MAX + 1];
	u32 cpu;
	u8 phase; /* enum fault_phase */
	u8 point;
	u64 index;
	u8 effect; /* enum effect_kind */
	u64 value; /* number, bits, milliseconds, or what the hook returns */
	u32 fired; /* atomic */
};

/* How a point's effect may be given. */
enum { TAKES_WORDS, TAKES_VALUE, TAKES_DELAY };
static const struct point {
	const char *name;
	u8 point;
	enum { INDEX_NONE, INDEX_NUMBER, INDEX_CPUID } index;
	u8 fixed; /* the index where the word has none */
	u8 takes;
	const char *words[3]; /* in the order of what the hook returns, from 1 */
} points[] = {
	{ "rdmsr", FAULT_RDMSR, INDEX_NUMBER, 0, TAKES_VALUE, { "gp" } },
	{ "wrmsr", FAULT_WRMSR, INDEX_NUMBER, 0, TAKES_WORDS, { "gp", "ignored" } },
	{ "cpuid", FAULT_CPUID, INDEX_CPUID, 0, TAKES_VALUE, { 0 } },
	{ "vmxon", FAULT_VMXON, INDEX_NONE, 0, TAKES_WORDS, { "invalid", "valid", "fault" } },
	{ "vmxoff", FAULT_VMXOFF, INDEX_NONE, 0, TAKES_WORDS, { "invalid", "valid" } },
	{ "invept", FAULT_INVEPT, INDEX_NONE, 0, TAKES_WORDS, { "invalid", "valid" } },
	{ "invvpid", FAULT_INVVPID, INDEX_NONE, 0, TAKES_WORDS, { "invalid", "valid" } },
	{ "start", FAULT_START, INDEX_NONE, 0, TAKES_DELAY, { "never" } },
	{ "finish", FAULT_FINISH, INDEX_NONE, 0, TAKES_DELAY, { "never" } },
	{ "caps", FAULT_CALL, INDEX_NONE, IPI_CAPS, TAKES_DELAY, { "never" } },
	{ "compare", FAULT_CALL, INDEX_NONE, IPI_COMPARE, TAKES_DELAY, { "never" } },
	{ "enable", FAULT_CALL, INDEX_NONE, IPI_VIRT_ENABLE, TAKES_DELAY, { "never" } },
	{ "disable", FAULT_CALL, INDEX_NONE, IPI_VIRT_DISABLE, TAKES_DELAY, { "never" } },
	{ "halt", FAULT_CALL, INDEX_NONE, IPI_HALT, TAKES_DELAY, { "never" } },
	{ "ping", FAULT_CALL, INDEX_NONE, IPI_PING, TAKES_DELAY, { "never" } },
	{ "compare-tsc", FAULT_CALL, INDEX_NONE, IPI_TSC, TAKES_DELAY, { "never" } },
	{ "tsc", FAULT_TSC, INDEX_NONE, 0, TAKES_VALUE, { 0 } },
	{ "apic-id", FAULT_APIC_ID, INDEX_NONE, 0, TAKES_VALUE, { 0 } },
	{ "stack", FAULT_STACK, INDEX_NONE, 0, TAKES_WORDS, { "none" } },
	{ "region", FAULT_REGION, INDEX_NONE, 0, TAKES_WORDS, { "none" } },
	{ "test-ctrl", FAULT_TEST_CTRL, INDEX_NONE, 0, TAKES_VALUE, { 0 } },
	{ "own-split-lock", FAULT_OWN_SPLIT, INDEX_NONE, 0, TAKES_VALUE, { 0 } },
	{ "marked-ac", FAULT_MARKED_AC, INDEX_NONE, 0, TAKES_WORDS, { "split", "bus-lock" } },
	{ "trampoline", FAULT_TRAMPOLINE, INDEX_NONE, 0, TAKES_WORDS, { "none" } },
};

/* What enabling changes and must put back. */
struct registers {
	bool known;
	u64 cr4, efer, hsave, feature_control;
};

static struct fault faults[FAULTS_MAX];
static u32 nr_faults; /* set before other CPUs run */
static u8 phases[MAX_CPUS];
static struct registers found[MAX_CPUS], now[MAX_CPUS];

/* ---- The words ---- */

static bool parse_number(const char **s, u64 *out)
{
	const char *p = *s;
	u32 base = 10;
	u64 value = 0;

	if (p[0] == '0' && p[1] == 'x') {
		base = 16;
		p += 2;
	}
	for (*s = p;; p++) {
		u32 digit = *p >= '0' && *p <= '9'   ? (u32)(*p - '0')
			    : *p >= 'a' && *p <= 'f' ? (u32)(*p - 'a' + 10)
						     : 16;

		if (digit >= base)
			break;
		if (value > (~0ull - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	if (p == *s)
		return false;
	*s = p;
	return true;
}

/* Moves *s past `word` if it begins with that. */
static bool take(const char **s, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(*s, word, n))
		return false;
	*s += n;
	return true;
}

static const char *parse_cpu(struct fault *f, const char **s)
{
	u64 cpu;

	if (!take(s, "cpu") || !parse_number(s, &cpu) || cpu >= MAX_CPUS)
		return "does not begin with cpuN";
	f->cpu = (u32)cpu;
	f->phase = take(s, "@enable")	 ? FAULT_ENABLING
		   : take(s, "@disable") ? FAULT_DISABLING
					 : FAULT_ANY_TIME;
	return take(s, ":") ? NULL : "has no : after its CPU";
}

static const struct point *parse_point(struct fault *f, const char **s)
{
	for (u32 i = 0; i < ARRAY_SIZE(points); i++) {
		const struct point *p = &points[i];
		const char *rest = *s;

		if (!take(&rest, p->name) || (*rest != ':' && *rest != '='))
			continue;
		*s = rest;
		f->point = p->point;
		f->index = p->fixed;
		return p;
	}
	return NULL;
}

/* ":0x480", ":7.ebx" */
static const char *parse_index(struct fault *f, const struct point *p, const char **s)
{
	static const char *const registers[] = { ".eax", ".ebx", ".ecx", ".edx" };

	if (p->index == INDEX_NONE)
		return *s[0] == '=' ? NULL : "has an index, but its point takes none";
	if (!take(s, ":") || !parse_number(s, &f->index))
		return "has no index, or one that is no number";
	if (p->index == INDEX_NUMBER)
		return NULL;
	for (u32 i = 0; i < ARRAY_SIZE(registers); i++) {
		if (take(s, registers[i])) {
			f->index = f->index << 2 | i;
			return NULL;
		}
	}
	return "names no register (cpuid:LEAF.eax to .edx)";
}

static const char *parse_effect(struct fault *f, const struct point *p, const char *s)
{
	if (!take(&s, "="))
		return "has no =EFFECT";
	for (u32 i = 0; i < ARRAY_SIZE(p->words) && p->words[i]; i++) {
		if (strcmp(s, p->words[i]))
			continue;
		f->effect = EFFECT_FAIL;
		f->value = i + 1;
		return NULL;
	}
	if (p->takes == TAKES_WORDS)
		return "has an effect that its point does not know";
	f->effect = p->takes == TAKES_DELAY ? EFFECT_DELAY
		    : take(&s, "+")	    ? EFFECT_SET
		    : take(&s, "-")	    ? EFFECT_CLEAR
					    : EFFECT_NUMBER;
	if (!parse_number(&s, &f->value) || *s)
		return "has an effect that its point does not know";
	return NULL;
}

/* What is wrong with the word, or NULL: *f is complete. */
static const char *parse_word(struct fault *f)
{
	const char *s = f->word, *why = parse_cpu(f, &s);
	const struct point *p;

	if (why)
		return why;
	p = parse_point(f, &s);
	if (!p)
		return "names no point where a fault can be";
	why = parse_index(f, p, &s);
	return why ? why : parse_effect(f, p, s);
}

/* Copies the next word; false at the end. What does not fit is cut off: it is no fault anyway. */
static bool next_word(const char **s, char word[WORD_MAX + 1])
{
	u32 n = 0;

	while (**s && strchr(" \t,", **s))
		(*s)++;
	for (; **s && !strchr(" \t,", **s); (*s)++)
		if (n < WORD_MAX)
			word[n++] = **s;
	word[n] = '\0';
	return n;
}

void fault_parse(const char *words, void (*report)(const char *word, const char *why))
{
	struct fault f = { 0 };

	while (next_word(&words, f.word)) {
		const char *why = parse_word(&f);

		if (!why && nr_faults == FAULTS_MAX)
			why = "is one too many: at most 32";
		if (why) {
			report(f.word, why);
			continue;
		}
		log_warn("fault injection: %s", f.word);
		faults[nr_faults++] = f;
	}
}

/* ---- The hooks ---- */

static void wait_ms(u64 ms)
{
	u64 until = rdtsc() + ms * tsc_khz;

	while (rdtsc() < until)
		cpu_pause();
}

/* What the fault does; returns what the hook returns. */
static u32 apply(struct fault *f, u64 *value)
{
	__atomic_add_fetch(&f->fired, 1, __ATOMIC_RELAXED);
	switch (f->effect) {
	case EFFECT_FAIL:
		return (u32)f->value;
	case EFFECT_DELAY:
		wait_ms(f->value);
		return 0;
	case EFFECT_SET:
		*value |= f->value;
		return 0;
	case EFFECT_CLEAR:
		*value &= ~f->value;
		return 0;
	default:
		*value = f->value;
		return FAULT_VALUE;
	}
}

/*
 * cpuN:test-ctrl=FOUND: MSR_TEST_CTRL, shared by the threads of a core, for a CPU that has none;
 * what is written there is logged by nobody, but counted.
 */
static u32 test_ctrl(struct fault *f, bool write, u64 *value)
{
	static u64 registers[MAX_CPUS];
	static bool known[MAX_CPUS];
	u32 core = topo_core(f->cpu);

	__atomic_add_fetch(&f->fired, 1, __ATOMIC_RELAXED);
	if (core == CPU_ID_NONE)
		return FAULT_GP;
	if (!__atomic_exchange_n(&known[core], true, __ATOMIC_RELAXED))
		registers[core] = f->value;
	if (!write)
		*value = registers[core];
	else if (*value & ~(BIT(28) | BIT(29) | BIT(31)))
		return FAULT_GP;
	else
		registers[core] = *value;
	return write ? FAULT_IGNORED : FAULT_VALUE;
}

/* cpuN:own-split-lock=K: the Kth time. */
static void split_a_lock(struct fault *f)
{
	static struct {
		u8 line[64 - 2];
		u32 counter; /* across the line's end */
	} PACKED ALIGNED(64) split;
	u8 *p = (u8 *)&split + offsetof(typeof(split), counter);

	if (__atomic_add_fetch(&f->fired, 1, __ATOMIC_RELAXED) == f->value)
		asm volatile("lock incl (%0)" : : "r"(p) : "memory");
}

u32 fault_inject(u32 cpu, enum fault_point point, u64 index, u64 *value)
{
	u32 result = 0;
	bool is_msr = point == FAULT_RDMSR || point == FAULT_WRMSR;

	for (u32 i = 0; i < nr_faults && !result; i++) {
		struct fault *f = &faults[i];

		if (f->cpu == cpu && f->point == FAULT_TEST_CTRL && is_msr &&
		    index == MSR_TEST_CTRL)
			result = test_ctrl(f, point == FAULT_WRMSR, value);
		else if (f->cpu == cpu && f->point == point && point == FAULT_OWN_SPLIT)
			split_a_lock(f);
		else if (f->cpu == cpu && f->point == point && f->index == index &&
			 (f->phase == FAULT_ANY_TIME || f->phase == READ_ONCE(phases[cpu])))
			result = apply(f, value);
	}
	return result;
}

u32 fault_inject_here(enum fault_point point, u64 index, u64 *value)
{
	return nr_faults ? fault_inject(this_cpu(cpu_id), point, index, value) : 0;
}

void fault_inject_cpuid(u32 leaf, u32 subleaf, struct cpuid_regs *regs)
{
	u32 *const reg[] = { &regs->eax, &regs->ebx, &regs->ecx, &regs->edx };

	for (u32 i = 0; i < ARRAY_SIZE(reg) && nr_faults && !subleaf; i++) {
		u64 value = *reg[i];

		(void)fault_inject_here(FAULT_CPUID, (u64)leaf << 2 | i, &value);
		*reg[i] = (u32)value;
	}
}

void fault_set_phase(enum fault_phase phase)
{
	WRITE_ONCE(phases[this_cpu(cpu_id)], phase);
}

/* ---- What is left of it ---- */

/* Past the hooks: what is really there. */
static u64 raw_rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return lo | (u64)hi << 32;
}

static bool raw_cpuid_ecx(u32 leaf, u32 bit)
{
	u32 a = leaf, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c >> bit & 1;
}

/* The handler of IPI_PING: VMs only use that it is answered. */
static int read_registers(void *arg)
{
	struct registers *r = &now[this_cpu(cpu_id)];

	(void)arg;
	r->cr4 = read_cr4();
	r->efer = raw_rdmsr(MSR_EFER);
	if (raw_cpuid_ecx(1, 5))
		r->feature_control = raw_rdmsr(MSR_FEATURE_CONTROL);
	if (raw_cpuid_ecx(0x80000001, 2))
		r->hsave = raw_rdmsr(MSR_VM_HSAVE_PA);
	r->known = true;
	return 0;
}

void fault_note_registers(void)
{
	ipi_set_handler(IPI_PING, read_registers);
	ipi_call(IPI_PING, &cpus_online, NULL, NULL);
	memcpy(found, now, sizeof(found));
}

static void log_registers(u32 cpu)
{
	const struct registers *a = &found[cpu], *b = &now[cpu];

	if (!a->known || !b->known)
		log_info("fault injection: CPU %u: its registers were not read", cpu);
	else if (a->cr4 == b->cr4 && a->efer == b->efer && a->hsave == b->hsave)
		log_info("fault injection: CPU %u: CR4, EFER, VM_HSAVE_PA are as found%s", cpu,
			 a->feature_control == b->feature_control
				 ? ""
				 : ", IA32_FEATURE_CONTROL is locked");
	else
		log_info("fault injection: CPU %u: CR4 %#lx was %#lx, EFER %#lx was %#lx, "
			 "VM_HSAVE_PA %#lx was %#lx",
			 cpu, b->cr4, a->cr4, b->efer, a->efer, b->hsave, a->hsave);
}

void fault_log(void)
{
	memset(now, 0, sizeof(now));
	ipi_call(IPI_PING, &cpus_online, NULL, NULL);
	for_each_cpu(cpu, &cpus_online)
		log_registers(cpu);
	for (u32 i = 0; i < nr_faults; i++)
		log_info("fault injection: %s fired %u times", faults[i].word, faults[i].fired);
}
