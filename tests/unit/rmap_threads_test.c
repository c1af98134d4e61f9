/* SPDX-License-Identifier: MIT */
/*
 * The reverse map under threads: eight vCPUs of two VMs that map the same frames, and an auditor
 * beside them, who must not find anything. Built with -fsanitize=thread.
 *
 * Every other debt is paid at once, in the middle of the others' walks and of the audit: the tables
 * are poisoned and used again. The rest is paid when all have come out of the engine.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/error.h"
#include "mm/audit.h"
#include "mm/extent.h"
#include "mm/mappers.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"

#define THREADS 8
#define ROUNDS	20
#define STEPS	30
#define WINDOW	(3 * FRAMES_2M)
#define MEMORY	(128 * MIB)

static struct stage2 vms[2];
static pfn_t guest;
static pthread_barrier_t barrier;
static u64 splits, merges, audits;
static bool again; /* another round: ROUNDS of them, and until all has happened */

static const struct stage2_env pool_env = {
	.table_alloc = table_pool_alloc,
	.table_free = table_pool_free,
	.table_ptr = table_pool_ptr,
	.table_desc = table_pool_desc,
};

struct thread {
	pthread_t id;
	u64 seed;
	struct flush_debt debts[STEPS];
	u32 owed;
};
static struct thread threads[THREADS];

static void pay_at_once(struct flush_debt *debts_, u32 n)
{
	for (u32 i = 0; i < n; i++)
		stage2_debt_paid(&debts_[i]);
}

static void step(struct thread *t, struct stage2 *s)
{
	u64 r = host_random(&t->seed), gfn = (r >> 8) % WINDOW, count = (r >> 24) % 4 + 1;
	u64 pfn;
	struct flush_debt *debt = &t->debts[t->owed];
	int err = 0;

	debt->generation = 0;
	if ((r >> 32) % 4 == 0) {
		gfn &= ~511ull;
		count = 512;
	}
	count = MIN(count, WINDOW - gfn);
	switch (r % 8) {
	case 0:
	case 1:
	case 2: /* both VMs, the same frames; the second one shifted, so that a frame is at two gfns
		 */
		pfn = (gfn + (r >> 63) * 512) % WINDOW;
		err = map_either(s, GFN(gfn), PFN(guest.v + pfn), MIN(count, WINDOW - pfn), S2_RWX,
				 S2_WB, r >> 60 & 1 ? 2 : 1);
		HOST_CHECK(err == 0 || err == -EEXIST);
		break;
	case 3:
		err = stage2_merge(s, GFN(gfn), 2, debt);
		HOST_CHECK(err == 0 || err == -EAGAIN);
		__atomic_fetch_add(&merges, debt->generation != 0, __ATOMIC_RELAXED);
		break;
	case 4:
		HOST_CHECK(stage2_split(s, GFN(gfn), 1, debt) == 0);
		__atomic_fetch_add(&splits, debt->generation != 0, __ATOMIC_RELAXED);
		break;
	case 5:
		HOST_CHECK(stage2_protect(s, GFN(gfn), count, r >> 62 ? S2_RWX : S2_R, debt) == 0);
		break;
	case 6:
		(void)frame_age(PFN(guest.v + gfn), pay_at_once);
		break;
	default:
		HOST_CHECK(stage2_unmap(s, GFN(gfn), count, debt) == 0);
	}
	if (r >> 61 & 1)
		stage2_debt_paid(debt);
	t->owed += debt->generation != 0;
}

static void *vcpu_main(void *arg)
{
	struct thread *t = arg;
	struct stage2 *s = &vms[(t - threads) % 2];

	do {
		t->owed = 0;
		for (u32 i = 0; i < STEPS; i++)
			step(t, s);
		pthread_barrier_wait(&barrier);
		for (u32 i = 0; i < t->owed; i++)
			stage2_debt_paid(&t->debts[i]);
		pthread_barrier_wait(&barrier);
	} while (again);
	return NULL;
}

static void complain(void *arg, const struct audit_finding *f)
{
	(void)arg;
	print_message("%s vm %u level %u gfn %#lx pfn %#lx: %#lx, %#lx\n", audit_kind_name(f->kind),
		      f->stage2 ? f->stage2->vm : 0, f->level, f->gfn.v, f->pfn.v, f->seen,
		      f->expected);
	HOST_CHECK(!"a finding");
}

static void audit(struct stage2 *only)
{
	struct audit a = { .only = only, .report = complain };

	audit_run(&a);
	audits += a.leaves != 0;
}

static void *auditor_main(void *arg)
{
	u32 rounds = getenv("CORBEL_TEST_LONG") ? 50 * ROUNDS : ROUNDS, round = 0;

	(void)arg;
	do {
		audit(NULL);
		audit(&vms[1]);
		pthread_barrier_wait(&barrier);
		round++;
		again = round < rounds || (round < 20 * rounds && !(splits && merges && audits));
		pthread_barrier_wait(&barrier);
	} while (again);
	return NULL;
}

static void test_vcpus_and_an_auditor(void **state)
{
	struct mem_range map = { HPA(0), MEMORY, FRAME_FREE };
	pthread_t auditor;

	host_arena_open(MEMORY);
	host_failures = host_warnings = splits = merges = audits = 0;
	assert_int_equal(frames_init(&map, 1, HPA(MEMORY)), 0);
	guest = extent_alloc(WINDOW / 512, 1, FRAME_GUEST, VM_NONE);
	assert_true(pfn_valid(guest));
	for (u16 i = 0; i < 2; i++) {
		assert_int_equal(stage2_init(&vms[i], *state, &pool_env, 3, 1ull << 30, i + 1), 0);
		table_pool_allow(&vms[i].pool, 1ull << 18);
	}
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	assert_int_equal(pthread_create(&auditor, NULL, auditor_main, NULL), 0);
	for (u32 i = 0; i < THREADS; i++) {
		threads[i].seed = host_seed() + i;
		assert_int_equal(pthread_create(&threads[i].id, NULL, vcpu_main, &threads[i]), 0);
	}
	for (u32 i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	pthread_join(auditor, NULL);
	pthread_barrier_destroy(&barrier);
	audit(NULL);
	assert_int_equal(host_failures, 0);
	assert_true(splits > 0 && merges > 0 && audits > 0);
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(vms[i].unpaid, 0);
		stage2_destroy(&vms[i]);
		table_pool_destroy(&vms[i]);
		assert_int_equal(vms[i].corruptions, 0);
	}
	check_no_keys();
	assert_int_equal(host_warnings, 0);
}

/* --- a walk that takes its time --- */

static struct s2_table *table; /* of gfns 0 to 511 */
static bool freed, tried;

/* Takes the table away, under the walk that is in it. */
static void *remover_main(void *arg)
{
	struct flush_debt debt;

	(void)arg;
	HOST_CHECK(stage2_unmap(&vms[0], GFN(0), 512, &debt) == 0);
	stage2_debt_paid(&debt);
	__atomic_store_n(&freed, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static pthread_t remover;

/* In the middle of a walk: the table is unlinked, and its flush paid, but it is not free. */
static void remove_now(void)
{
	if (tried)
		return;
	tried = true;
	assert_int_equal(pthread_create(&remover, NULL, remover_main, NULL), 0);
	while (!__atomic_load_n(&vms[0].unpaid, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&freed, __ATOMIC_SEQ_CST))
		sched_yield();
	usleep(30000);
	HOST_CHECK(!__atomic_load_n(&freed, __ATOMIC_SEQ_CST) && table->canary);
}

static void at_entry(void *arg, u8 level, hpa_t hpa, u32 index, u64 entry)
{
	(void)arg;
	(void)hpa;
	(void)index;
	(void)entry;
	if (level == 1)
		remove_now();
}

static void at_finding(void *arg, const struct audit_finding *f)
{
	(void)arg;
	(void)f;
	remove_now();
}

/* What comes before: a table with one leaf. Afterwards: it is free as soon as the walk is over. */
static void begin_walk(void)
{
	hpa_t hpa = vms[0].root;

	assert_int_equal(map_either(&vms[0], GFN(5), guest, 1, S2_RWX, S2_WB, 1), 0);
	for (u32 level = 4; level > 1; level--)
		hpa = s2_entry_hpa(vms[0].fmt, *table_pool_ptr(&vms[0], hpa));
	table = table_pool_desc(&vms[0], table_pool_ptr(&vms[0], hpa));
	assert_int_not_equal(table->canary, 0);
	freed = tried = false;
}

static void end_walk(void)
{
	assert_true(tried);
	pthread_join(remover, NULL);
	assert_true(freed);
	assert_int_equal(table->canary, 0);
	assert_int_equal(host_failures, 0);
}

static void test_walks_keep_tables(void **state)
{
	struct audit a = { .report = at_finding };
	struct mem_range map = { HPA(0), MEMORY, FRAME_FREE };

	host_arena_open(MEMORY);
	host_failures = host_warnings = 0;
	assert_int_equal(frames_init(&map, 1, HPA(MEMORY)), 0);
	guest = extent_alloc(1, 1, FRAME_GUEST, VM_NONE);
	assert_int_equal(stage2_init(&vms[0], *state, &pool_env, 3, 1ull << 30, 1), 0);

	begin_walk();
	stage2_walk(&vms[0], GFN(5), at_entry, NULL);
	end_walk();
	assert_int_equal(vms[0].corruptions, 0);

	/* An audit that finds that the leaf's key is gone. */
	begin_walk();
	assert_int_equal(rmap_remove(guest, rmap_key(1, 0, 1, 5)), 0);
	audit_run(&a);
	end_walk();
	assert_int_not_equal(vms[0].corruptions, 0);
	stage2_forget(&vms[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_walks_keep_tables),
		BOTH(test_vcpus_and_an_auditor),
	};

	host_hooks_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
