/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/topology.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"

#define LEVEL_SMT  1
#define LEAF_1_HTT BIT(28)

static struct topo_record records[MAX_CPUS];
static struct topology current;

/* What one CPU's record says. */
struct shape {
	u32 smt_shift, threads, package_shift;
};

static bool no(char why[120], const char *fmt, ...) PRINTF(2, 3);
static bool no(char why[120], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fmt_vsnprintf(why, 120, fmt, ap);
	va_end(ap);
	return false;
}

static u32 level_type(const struct cpuid_regs *level)
{
	return (level->ecx >> 8) & 0xff;
}

static u32 level_shift(const struct cpuid_regs *level)
{
	return level->eax & 0x1f;
}

static u32 level_cpus(const struct cpuid_regs *level)
{
	return level->ebx & 0xffff;
}

/* False: this CPU is a package of its own. */
static bool has_many(const struct topo_record *r)
{
	return r->leaf_1.edx & LEAF_1_HTT;
}

/* Of leaf 1, which has 8 bits for it. */
static u32 package_cpus(const struct topo_record *r)
{
	return (r->leaf_1.ebx >> 16) & 0xff;
}

/* Levels above the threads: the highest one's shift is the package's, if they make sense. */
static bool package_known(const struct topo_record *r, u32 package_shift)
{
	for (u32 i = 1; i < r->levels; i++) {
		const struct cpuid_regs *l = &r->level[i], *below = l - 1;

		if (level_type(l) <= level_type(below) || level_shift(l) < level_shift(below) ||
		    level_cpus(l) < level_cpus(below) || id_bits(level_cpus(l)) > level_shift(l))
			return false;
	}
	return r->levels < TOPO_LEVELS &&
	       !(has_many(r) && id_bits(package_cpus(r)) > package_shift);
}

static bool shape_of(u32 cpu, const struct topo_record *r, struct shape *s, char *why)
{
	const struct cpuid_regs *smt = &r->level[0];

	*s = (struct shape){ 0, 1, 0 };
	if (!r->levels)
		return !has_many(r) || no(why, "CPU %u: it has neither leaf 0x1f nor 0xb", cpu);
	*s = (struct shape){ level_shift(smt), level_cpus(smt),
			     level_shift(&r->level[r->levels - 1]) };
	if (level_type(smt) != LEVEL_SMT)
		return no(why, "CPU %u: leaf %#x begins with level type %u, not with threads", cpu,
			  r->leaf, level_type(smt));
	/*
	 * Cores with one thread, of hybrid processors or with SMT switched off, keep the shift that
	 * the others need. Otherwise a shift that does not fit would tear cores apart or join them.
	 */
	if (!s->threads || (s->threads > 1 && id_bits(s->threads) != s->smt_shift))
		return no(why, "CPU %u: leaf %#x: %u threads in a core, but shift %u", cpu, r->leaf,
			  s->threads, s->smt_shift);
	if (level_type(&r->leaf_b) == LEVEL_SMT && level_shift(&r->leaf_b) != s->smt_shift)
		return no(why, "CPU %u: the threads' shift is %u in leaf %#x, %u in leaf 0xb", cpu,
			  s->smt_shift, r->leaf, level_shift(&r->leaf_b));
	for (u32 i = 0; i < r->levels; i++) {
		if (r->level[i].edx != r->apic_id)
			return no(why, "CPU %u: its APIC id is %u, but %u in leaf %#x", cpu,
				  r->apic_id, r->level[i].edx, r->leaf);
		if (level_shift(&r->level[i]) < s->smt_shift)
			return no(why, "CPU %u: leaf %#x: shift %u is above shift %u", cpu, r->leaf,
				  level_shift(&r->level[i]), s->smt_shift);
	}
	return true;
}

/* Every CPU on its own, and all alike. */
static bool read_shapes(const struct topo_record *r, u32 n, struct topology *t)
{
	u32 first = n;
	struct shape s;

	for (u32 i = 0; i < n; i++) {
		if (!r[i].read)
			continue;
		if (!shape_of(i, &r[i], &s, t->why))
			return false;
		if (first == n) {
			first = i;
			t->smt_shift = s.smt_shift;
			t->package_shift = s.package_shift;
		}
		t->cpu[i].threads = (u16)s.threads;
		if (s.smt_shift != t->smt_shift)
			return no(t->why, "the threads' shift is %u on CPU %u, but %u on CPU %u",
				  t->smt_shift, first, s.smt_shift, i);
		t->packages_known &= s.package_shift == t->package_shift &&
				     package_known(&r[i], s.package_shift);
	}
	return first < n || no(t->why, "no CPU has read it");
}

static bool same_above(const struct topo_record *a, const struct topo_record *b, u32 shift)
{
	return a->apic_id >> shift == b->apic_id >> shift;
}

/* The core of CPU i: who else is in it, and whether they can be. */
static bool group_cpu(const struct topo_record *r, u32 n, u32 i, struct topology *t)
{
	bool new_core = true, new_package = true;
	u32 threads = 0, online = 0;

	t->cpu[i].core = (u16)i;
	for (u32 j = 0; j < n; j++) {
		if (j < i && r[j].read && same_above(&r[i], &r[j], t->package_shift))
			new_package = false;
		if (!same_above(&r[i], &r[j], t->smt_shift))
			continue;
		threads++;
		online += r[j].read;
		t->cpu[i].core = MIN(t->cpu[i].core, (u16)j);
		if (i != j && r[i].apic_id == r[j].apic_id)
			return no(t->why, "CPUs %u and %u have the same APIC id %u", i, j,
				  r[i].apic_id);
		if (j < i && r[j].read)
			new_core = false;
	}
	if (!r[i].read)
		return true;
	if (threads > t->cpu[i].threads)
		return no(t->why, "CPU %u: %u CPUs have ids in its core, which has %u threads", i,
			  threads, t->cpu[i].threads);
	t->cores += new_core;
	t->packages += new_package;
	t->threads_min = MIN(t->threads_min, online);
	t->threads_max = MAX(t->threads_max, online);
	return true;
}

void topo_group(const struct topo_record *r, u32 n, struct topology *t)
{
	*t = (struct topology){ .packages_known = true, .threads_min = MAX_CPUS };
	if (!read_shapes(r, n, t))
		return;
	for (u32 i = 0; i < n; i++)
		if (!group_cpu(r, n, i, t))
			return;
}

static void read_levels(struct topo_record *r, u32 leaf)
{
	r->leaf = leaf;
	for (r->levels = 0; r->levels < TOPO_LEVELS; r->levels++) {
		r->level[r->levels] = cpuid(leaf, r->levels);
		if (!level_type(&r->level[r->levels]))
			return;
	}
}

void topo_read(u32 cpu)
{
	struct topo_record *r = &records[cpu];
	u32 max = cpuid(0, 0).eax;

	*r = (struct topo_record){ .apic_id = apic_id(), .leaf_1 = cpuid(1, 0) };
	if (max >= 0xb)
		r->leaf_b = cpuid(0xb, 0);
	if (max >= 0x1f)
		read_levels(r, 0x1f);
	if (max >= 0xb && !r->levels)
		read_levels(r, 0xb);
	__atomic_store_n(&r->read, true, __ATOMIC_RELEASE);
}

static void log_topology(const struct topology *t)
{
	static char said[sizeof(t->why) + 32];
	char now[sizeof(said)];

	if (t->why[0])
		fmt_snprintf(now, sizeof(now), "topology unknown: %s", t->why);
	else if (t->packages_known)
		fmt_snprintf(now, sizeof(now),
			     "topology: %u packages, %u cores, up to %u threads each", t->packages,
			     t->cores, t->threads_max);
	else
		fmt_snprintf(now, sizeof(now),
			     "topology: %u cores, up to %u threads each; packages unknown",
			     t->cores, t->threads_max);
	if (!strcmp(now, said))
		return;
	memcpy(said, now, sizeof(said));
	log_at(t->why[0] ? LOG_WARN : LOG_INFO, "%s", said);
}

void topo_evaluate(void)
{
	static struct topo_record seen[MAX_CPUS];

	for (u32 i = 0; i < nr_cpus; i++) {
		seen[i] = (struct topo_record){ .apic_id = cpus[i].apic_id };
		if (__atomic_load_n(&records[i].read, __ATOMIC_ACQUIRE))
			seen[i] = records[i];
	}
	topo_group(seen, nr_cpus, &current);
	log_topology(&current);
}

const struct topology *topo_current(void)
{
	return &current;
}

u32 topo_core(u32 cpu)
{
	return current.why[0] || !current.cpu[cpu].threads ? CPU_ID_NONE : current.cpu[cpu].core;
}

bool topo_siblings(u32 cpu, struct cpumask *mask)
{
	u32 core = topo_core(cpu);

	*mask = (struct cpumask){ 0 };
	for (u32 i = 0; core != CPU_ID_NONE && i < nr_cpus; i++)
		if (topo_core(i) == core)
			bitmap_set(mask->bits, i);
	return core != CPU_ID_NONE;
}
