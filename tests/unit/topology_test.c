/* SPDX-License-Identifier: MIT */
/*
 * Grouping CPUs into cores, on machines made by hand: those that emulators and processors really
 * show, those that contradict themselves, and thousands of random ones with one bit wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/topology.h"
#include "lib/log.h"

enum { SMT = 1, CORE, MODULE, TILE, DIE };

#define HTT (1u << 28)

struct cpu cpus[MAX_CPUS];
u32 nr_cpus;

static struct topo_record r[MAX_CPUS];
static u32 n;
static struct topology t;

/* This machine's own CPUID is not what is tested. */
u32 apic_id(void)
{
	return 0;
}

static int nothing(void **state)
{
	(void)state;
	memset(r, 0, sizeof(r));
	n = 0;
	return 0;
}

static struct topo_record *add(u32 id, u32 package_cpus)
{
	struct topo_record *c = &r[n++];

	*c = (struct topo_record){ .read = true, .apic_id = id };
	c->leaf_1.ebx = (id & 0xff) << 24 | package_cpus << 16;
	c->leaf_1.edx = package_cpus > 1 ? HTT : 0;
	return c;
}

static void level(struct topo_record *c, u32 leaf, u32 type, u32 shift, u32 count)
{
	c->leaf = leaf;
	c->level[c->levels] = (struct cpuid_regs){
		.eax = shift, .ebx = count, .ecx = type << 8 | c->levels, .edx = c->apic_id
	};
	if (!c->levels)
		c->leaf_b = c->level[0];
	c->levels++;
}

/* A CPU with SMT and core level. */
static struct topo_record *two_levels(u32 id, u32 smt_shift, u32 threads, u32 shift, u32 count)
{
	struct topo_record *c = add(id, count);

	level(c, 0xb, SMT, smt_shift, threads);
	level(c, 0xb, CORE, shift, count);
	return c;
}

/* 1 package, 4 cores with 2 threads each: what QEMU shows for 1:4:2, and Intel's processors. */
static void four_cores(void)
{
	nothing(NULL);
	for (u32 i = 0; i < 8; i++)
		two_levels(i, 1, 2, 3, 8);
}

/* As numbers of cores, each the lowest CPU in it: "0 0 2 2". */
static void cores_are(const char *expected)
{
	char text[MAX_CPUS * 4] = "";
	size_t len = 0;

	topo_group(r, n, &t);
	assert_string_equal(t.why, "");
	for (u32 i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, i ? " %u" : "%u",
					t.cpu[i].core);
	assert_string_equal(text, expected);
}

static void sums_are(u32 packages, u32 cores, u32 threads_min, u32 threads_max)
{
	assert_true(t.packages_known);
	assert_int_equal(t.packages, packages);
	assert_int_equal(t.cores, cores);
	assert_int_equal(t.threads_min, threads_min);
	assert_int_equal(t.threads_max, threads_max);
}

static void unknown(const char *why)
{
	topo_group(r, n, &t);
	assert_string_equal(t.why, why);
}

static void packages_unknown(const char *cores)
{
	cores_are(cores);
	assert_false(t.packages_known);
}

/* ---- Machines that are right ---- */

static void by_leaf_b(void **state)
{
	(void)state;
	four_cores();
	cores_are("0 0 2 2 4 4 6 6");
	sums_are(1, 4, 2, 2);
	assert_int_equal(t.smt_shift, 1);
	assert_int_equal(t.package_shift, 3);

	/* QEMU 2:4:1 */
	nothing(NULL);
	for (u32 i = 0; i < 8; i++)
		two_levels(i, 0, 1, 2, 4);
	cores_are("0 1 2 3 4 5 6 7");
	sums_are(2, 8, 1, 1);
}

/* QEMU 1:3:2, and 2:3:3, whose ids have holes: 3 is no power of two. */
static void holes(void **state)
{
	(void)state;
	for (u32 i = 0; i < 6; i++)
		two_levels(i, 1, 2, 3, 6);
	cores_are("0 0 2 2 4 4");
	sums_are(1, 3, 2, 2);

	nothing(NULL);
	for (u32 i = 0; i < 18; i++)
		two_levels(i / 9 << 4 | i / 3 % 3 << 2 | i % 3, 2, 3, 4, 9);
	cores_are("0 0 0 3 3 3 6 6 6 9 9 9 12 12 12 15 15 15");
	sums_are(2, 6, 3, 3);
}

/* Ids above 255, the boot CPU in the middle, siblings that do not follow each other. */
static void large_ids(void **state)
{
	static const u32 ids[] = { 0x4ae, 0x100000, 0, 0x4af, 1, 0x100001, 0x4ac };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(ids); i++)
		two_levels(ids[i], 1, 2, 2, 4);
	cores_are("0 1 2 0 2 1 6");
	sums_are(3, 4, 1, 2);
}

/* Cores with two threads, and others with one, whose ids are as far apart (Intel, since 2021). */
static void hybrid(void **state)
{
	(void)state;
	for (u32 i = 0; i < 12; i++) {
		u32 p = i < 4, id = p ? i : 8 + 2 * (i - 4);
		struct topo_record *c = add(id, 128);

		level(c, 0x1f, SMT, 1, p ? 2 : 1);
		level(c, 0x1f, CORE, 7, 12);
	}
	cores_are("0 0 2 2 4 5 6 7 8 9 10 11");
	sums_are(1, 10, 1, 2);

	/* the same with SMT switched off: the shift stays */
	nothing(NULL);
	for (u32 i = 0; i < 4; i++) {
		struct topo_record *c = add(2 * i, 128);

		level(c, 0x1f, SMT, 1, 1);
		level(c, 0x1f, CORE, 7, 4);
	}
	cores_are("0 1 2 3");
	sums_are(1, 4, 1, 1);
}

/* Leaf 0x1f with modules, tiles and dies; the package is above all of them. Leaf 0xb is shorter. */
static void many_levels(void **state)
{
	(void)state;
	for (u32 i = 0; i < 8; i++) {
		struct topo_record *c = add((i / 2) << 3 | (i & 1), 64);

		level(c, 0x1f, SMT, 1, 2);
		level(c, 0x1f, CORE, 3, 4);
		level(c, 0x1f, MODULE, 3, 4);
		level(c, 0x1f, TILE, 4, 4);
		level(c, 0x1f, DIE, 6, 8);
	}
	cores_are("0 0 2 2 4 4 6 6");
	sums_are(1, 4, 2, 2);
	assert_int_equal(t.package_shift, 6);
	r[3].leaf_b = (struct cpuid_regs){ 0 }; /* not there is no contradiction */
	cores_are("0 0 2 2 4 4 6 6");
}

/* A CPU that never came up: its id, from the MADT, counts against its core. */
static void absent(void **state)
{
	(void)state;
	four_cores();
	r[2] = (struct topo_record){ .apic_id = 2 };
	r[6] = (struct topo_record){ .apic_id = 6 };
	r[7] = (struct topo_record){ .apic_id = 7 };
	cores_are("0 0 2 2 4 4 6 6");
	sums_are(1, 3, 1, 2);
	assert_int_equal(t.cpu[2].threads, 0);
	assert_int_equal(t.cpu[3].threads, 2);

	for (u32 i = 0; i < 8; i++)
		r[i].read = false;
	unknown("no CPU has read it");
}

/* Neither leaf: known where each CPU is alone in its package. */
static void by_neither(void **state)
{
	(void)state;
	for (u32 i = 0; i < 4; i++)
		add(i, 1);
	cores_are("0 1 2 3");
	sums_are(4, 4, 1, 1);

	r[2].leaf_1.edx = HTT;
	unknown("CPU 2: it has neither leaf 0x1f nor 0xb");

	nothing(NULL); /* the leaf is there, but empty or has no levels */
	add(0, 2)->leaf = 0xb;
	unknown("CPU 0: it has neither leaf 0x1f nor 0xb");

	nothing(NULL); /* some have it, others not */
	two_levels(0, 1, 2, 1, 2);
	two_levels(1, 1, 2, 1, 2);
	add(2, 1);
	unknown("the threads' shift is 1 on CPU 0, but 0 on CPU 2");
}

/* ---- Machines that contradict themselves ---- */

/* Bochs' leaf 0xb: EAX of a level has only that level's bits, type 3 is the package. */
static void bochs(u32 packages, u32 cores, u32 threads, u32 core_bits, u32 smt_bits)
{
	nothing(NULL);
	for (u32 i = 0; i < packages * cores * threads; i++) {
		struct topo_record *c = add(i, cores * threads);

		level(c, 0xb, SMT, smt_bits, threads);
		level(c, 0xb, CORE, core_bits, cores * threads);
		if (packages > 1)
			level(c, 0xb, MODULE, 1, packages * cores * threads);
	}
}

static void bochs_shifts(void **state)
{
	(void)state;
	bochs(1, 2, 2, 1, 1);
	packages_unknown("0 0 2 2");
	bochs(1, 4, 2, 2, 1);
	packages_unknown("0 0 2 2 4 4 6 6");
	bochs(2, 2, 2, 1, 1);
	packages_unknown("0 0 2 2 4 4 6 6");
	bochs(1, 2, 4, 1, 2);
	unknown("CPU 0: leaf 0xb: shift 1 is above shift 2");
	bochs(1, 2, 3, 1, 2); /* ids without holes would put CPU 3 into the first core */
	unknown("CPU 0: leaf 0xb: shift 1 is above shift 2");
	for (u32 i = 0; i < n; i++)
		r[i].level[1].eax = 3;
	unknown("CPU 0: 4 CPUs have ids in its core, which has 3 threads");
	r[3].read = false; /* even if it is not there */
	unknown("CPU 0: 4 CPUs have ids in its core, which has 3 threads");
}

static void wrong_threads(void **state)
{
	(void)state;
	four_cores();
	r[1].level[0].eax = 0; /* would tear the core apart */
	unknown("CPU 1: leaf 0xb: 2 threads in a core, but shift 0");
	r[1].level[0].eax = 2; /* would join two cores */
	unknown("CPU 1: leaf 0xb: 2 threads in a core, but shift 2");
	r[1].level[0] = r[0].level[0];
	r[1].level[0].edx = 1;
	r[1].level[0].ebx = 0;
	unknown("CPU 1: leaf 0xb: 0 threads in a core, but shift 1");
	r[1].level[0].ebx = 1;
	unknown("CPU 1: 2 CPUs have ids in its core, which has 1 threads");
	r[1].level[0].ebx = 4;
	unknown("CPU 1: leaf 0xb: 4 threads in a core, but shift 1");
	four_cores();
	for (u32 i = 0; i < 8; i++) /* all alike, and all wrong */
		r[i].level[0].eax = r[i].leaf_b.eax = 2;
	unknown("CPU 0: leaf 0xb: 2 threads in a core, but shift 2");
	for (u32 i = 0; i < 8; i++)
		r[i].level[0].ebx = 1;
	unknown("CPU 0: 4 CPUs have ids in its core, which has 1 threads");
}

static void wrong_levels(void **state)
{
	(void)state;
	four_cores();
	r[5].level[0].ecx = CORE << 8; /* as Bochs without threads */
	unknown("CPU 5: leaf 0xb begins with level type 2, not with threads");
	four_cores();
	r[5].level[1].eax = 0;
	unknown("CPU 5: leaf 0xb: shift 0 is above shift 1");
	four_cores();
	r[5].level[1].ecx = SMT << 8;
	packages_unknown("0 0 2 2 4 4 6 6");
	four_cores();
	r[5].level[1].ebx = 1;
	packages_unknown("0 0 2 2 4 4 6 6");
	four_cores();
	level(&r[5], 0xb, MODULE, 2, 8); /* decreases above the threads */
	packages_unknown("0 0 2 2 4 4 6 6");
	four_cores();
	for (u32 type = MODULE; r[5].levels < TOPO_LEVELS; type++)
		level(&r[5], 0xb, type, 3, 8);
	packages_unknown("0 0 2 2 4 4 6 6");
	four_cores();
	r[0].leaf_1.ebx |= 16u << 16;
	packages_unknown("0 0 2 2 4 4 6 6");
	four_cores();
	r[6].leaf = 0x1f;
	r[6].leaf_b.eax = 2;
	unknown("CPU 6: the threads' shift is 1 in leaf 0x1f, 2 in leaf 0xb");
}

static void wrong_ids(void **state)
{
	(void)state;
	four_cores();
	r[3].level[0].edx = 2;
	unknown("CPU 3: its APIC id is 3, but 2 in leaf 0xb");
	four_cores();
	r[3].level[1].edx = 7;
	unknown("CPU 3: its APIC id is 3, but 7 in leaf 0xb");
	four_cores();
	r[3].apic_id = r[3].level[0].edx = r[3].level[1].edx = 2;
	unknown("CPUs 2 and 3 have the same APIC id 2");
}

static void disagree(void **state)
{
	(void)state;
	four_cores();
	nothing(NULL);
	two_levels(0, 1, 1, 3, 4);
	two_levels(2, 1, 1, 3, 4);
	two_levels(4, 0, 1, 3, 4);
	unknown("the threads' shift is 1 on CPU 0, but 0 on CPU 2");
	four_cores();
	r[7].level[1].eax = 4;
	packages_unknown("0 0 2 2 4 4 6 6");
}

/* ---- One bit wrong: known only if it is right all the same ---- */

static u32 random_below(u32 limit)
{
	static u64 seed = 88172645463325252ull;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 16) % limit;
}

static u32 bits(u32 count)
{
	u32 k = 0;

	while (1u << k < count)
		k++;
	return k;
}

struct truth {
	u32 smt_bits, package_bits;
};

static struct truth random_machine(void)
{
	u32 leaf = random_below(2) ? 0xb : 0x1f;
	u32 threads = 1 + random_below(4), cores = 1 + random_below(4);
	u32 packages = 1 + random_below(2), count = threads * cores;
	struct truth truth = { bits(threads), bits(threads) + bits(cores) };

	nothing(NULL);
	for (u32 i = 0; i < packages * count; i++) {
		u32 core = i / threads % cores;
		u32 id = i / count << truth.package_bits | core << truth.smt_bits | i % threads;
		struct topo_record *c = add(id, count);

		level(c, leaf, SMT, truth.smt_bits, threads);
		level(c, leaf, CORE, truth.package_bits, count);
	}
	for (u32 i = 1; i < n; i++)
		if (!random_below(8))
			r[i] = (struct topo_record){ .apic_id = r[i].apic_id };
	return truth;
}

static void flip(struct topo_record *c)
{
	u32 *words[] = { &c->leaf_1.ebx,   &c->leaf_1.edx,   &c->level[0].eax, &c->level[0].ebx,
			 &c->level[0].ecx, &c->level[0].edx, &c->level[1].eax, &c->level[1].ebx,
			 &c->level[1].ecx, &c->level[1].edx, &c->leaf_b.eax,   &c->apic_id };

	*words[random_below(ARRAY_SIZE(words))] ^= 1u << random_below(32);
}

/* Two CPUs share a core, or a package, in the result if and only if they really do. */
static void never_wrong(void **state)
{
	u32 known = 0, not_known = 0;

	(void)state;
	for (u32 round = 0; round < 100000; round++) {
		struct truth truth = random_machine();
		u32 ids[MAX_CPUS], odd = random_below(n), good = round % 16 == 0;

		for (u32 i = 0; i < n; i++)
			ids[i] = r[i].apic_id;
		if (!good && r[odd].read)
			flip(&r[odd]);
		topo_group(r, n, &t);
		known += !t.why[0];
		not_known += !!t.why[0];
		if (t.why[0]) {
			assert_false(good);
			continue;
		}
		for (u32 i = 0; i < n; i++)
			for (u32 j = 0; j < i; j++) {
				if (!r[i].read || !r[j].read)
					continue;
				assert_int_equal(t.cpu[i].core == t.cpu[j].core,
						 ids[i] >> truth.smt_bits ==
							 ids[j] >> truth.smt_bits);
				if (t.packages_known)
					assert_int_equal(ids[i] >> t.package_shift ==
								 ids[j] >> t.package_shift,
							 ids[i] >> truth.package_bits ==
								 ids[j] >> truth.package_bits);
			}
	}
	assert_true(known > 10000 && not_known > 10000);
}

/* ---- What the rest of Corbel asks ---- */

static u32 said;

static void count(enum log_level level, const char *line, size_t len)
{
	(void)level, (void)len;
	said += !!strstr(line, "topology");
}

static void evaluate(void **state)
{
	struct cpumask mask;

	(void)state;
	assert_int_equal(topo_core(0), CPU_ID_NONE); /* before it is evaluated */
	nr_cpus = 2;
	cpus[1].apic_id = 1;
	log_sink = count;
	topo_evaluate();
	assert_int_equal(said, 1);
	topo_evaluate(); /* nothing new */
	assert_int_equal(said, 1);
	assert_string_equal(topo_current()->why, "no CPU has read it");
	assert_false(topo_siblings(0, &mask));
	assert_int_equal(bitmap_weight(mask.bits, MAX_CPUS), 0);
	topo_read(0);
	topo_evaluate(); /* whatever this machine is: something else than before */
	assert_int_equal(said, 2);
	log_sink = NULL;
}

#define TEST(name) cmocka_unit_test_setup(name, nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(by_leaf_b),     TEST(holes),	 TEST(large_ids),  TEST(hybrid),
		TEST(many_levels),   TEST(absent),	 TEST(by_neither), TEST(bochs_shifts),
		TEST(wrong_threads), TEST(wrong_levels), TEST(wrong_ids),  TEST(disagree),
		TEST(never_wrong),   TEST(evaluate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
