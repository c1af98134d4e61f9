/* SPDX-License-Identifier: MIT */
/*
 * Sequences of operations on the stage-2 tables of two VMs that share frames, and on the frames'
 * reverse map, against a model: what each guest frame translates to. After each operation the
 * translations are the model's; now and then, and at the end, the audit finds nothing.
 *
 * Input: a byte for the format, then 5 bytes an operation.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "mm/audit.h"
#include "mm/extent.h"
#include "mm/mappers.h"
#include "svm/npt.h"
#include "tests/unit/host.h"
#include "tests/unit/stage2_host.h"
#include "vmx/ept.h"

#define VMS	2
#define WINDOW	(3 * 512ull) /* gfns of a VM */
#define EXTENTS 2
#define MEMORY	(16 * MIB)
#define DEBTS	4

#define CHECK(cond)                       \
	do {                              \
		if (!(cond))              \
			__builtin_trap(); \
	} while (0)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const struct stage2_env env = {
	.table_alloc = table_pool_alloc,
	.table_free = table_pool_free,
	.table_ptr = table_pool_ptr,
	.table_desc = table_pool_desc,
};

static struct guest {
	struct stage2 s;
	struct {
		u16 pfn; /* of `shared`, plus 1; 0: not mapped */
		u8 prot;
	} now[WINDOW];
} guests[VMS];
static pfn_t shared;
static struct flush_debt debts[DEBTS];
static pfn_t hoard[MEMORY / PAGE_SIZE];
static u32 hoarded;

static void pay(struct flush_debt *debt)
{
	stage2_debt_paid(debt);
	*debt = (struct flush_debt){ 0 };
}

static void pay_all(void)
{
	for (u32 i = 0; i < DEBTS; i++)
		pay(&debts[i]);
}

static void pay_many(struct flush_debt *some, u32 n)
{
	for (u32 i = 0; i < n; i++)
		pay(&some[i]);
}

/* All memory is taken, except n frames; or all is there again. */
static void starve(u32 n)
{
	while (pfn_valid(hoard[hoarded] = frame_alloc(FRAME_HEAP, VM_NONE)))
		hoarded++;
	while (n-- && hoarded)
		frame_free(hoard[--hoarded], FRAME_HEAP, VM_NONE);
}

static void feed(void)
{
	while (hoarded)
		frame_free(hoard[--hoarded], FRAME_HEAP, VM_NONE);
}

static void check_gfn(struct guest *g, u64 gfn)
{
	struct stage2_leaf leaf;
	bool mapped = stage2_lookup(&g->s, GFN(gfn), &leaf);

	CHECK(mapped == (g->now[gfn].pfn != 0));
	CHECK(!mapped || (stage2_leaf_pfn(&leaf, GFN(gfn)).v - shared.v + 1 == g->now[gfn].pfn &&
			  leaf.prot == g->now[gfn].prot));
}

static void complain(void *arg, const struct audit_finding *f)
{
	(void)arg;
	(void)f;
	__builtin_trap();
}

static void check_all(void)
{
	struct audit a = { .report = complain };

	for (u32 i = 0; i < VMS; i++) {
		for (u64 gfn = 0; gfn < WINDOW; gfn++)
			check_gfn(&guests[i], gfn);
		CHECK(!guests[i].s.corruptions);
	}
	audit_run(&a);
	CHECK(!host_warnings);
}

/* Up to the first frame where something else stands, or for which no memory was left. */
static void map(struct guest *g, u64 gfn, u64 pfn, u64 count, u8 prot, u8 largest)
{
	int err;

	count = MIN(count, EXTENTS * 512 - pfn);
	err = map_either(&g->s, GFN(gfn), PFN(shared.v + pfn), count, prot, S2_WB, largest);
	for (u64 i = 0; i < count; i++, gfn++) {
		struct stage2_leaf leaf;

		if (g->now[gfn].pfn &&
		    (g->now[gfn].pfn != pfn + i + 1 || g->now[gfn].prot != prot)) {
			CHECK(err == -EEXIST);
			return;
		}
		if (err == -ENOMEM && !stage2_lookup(&g->s, GFN(gfn), &leaf))
			return;
		g->now[gfn].pfn = (u16)(pfn + i + 1);
		g->now[gfn].prot = prot;
	}
	CHECK(!err || err == -ENOMEM);
}

static void change(struct guest *g, u64 gfn, u64 count, u8 prot, struct flush_debt *debt)
{
	int err = prot ? stage2_protect(&g->s, GFN(gfn), count, prot, debt)
		       : stage2_unmap(&g->s, GFN(gfn), count, debt);

	CHECK(!err || (err == -ENOMEM && hoarded));
	for (u64 i = gfn; !err && i < gfn + count; i++) {
		if (!prot)
			g->now[i].pfn = 0;
		g->now[i].prot = prot;
	}
}

/* The model follows what stands there: whole leaves go. Nobody may reach the frame then. */
static void drop_frame(u64 pfn)
{
	pay_all();
	if (frame_unmap(PFN(shared.v + pfn), pay_many)) {
		CHECK(hoarded);
	} else {
		CHECK(!rmap_count(PFN(shared.v + pfn)));
	}
	for (u32 i = 0; i < VMS; i++) {
		for (u64 gfn = 0; gfn < WINDOW; gfn++) {
			struct stage2_leaf leaf;

			if (!stage2_lookup(&guests[i].s, GFN(gfn), &leaf))
				guests[i].now[gfn].pfn = 0;
		}
	}
}

static void write_protect_frame(u64 pfn)
{
	frame_write_protect(PFN(shared.v + pfn), pay_many);
	for (u32 i = 0; i < VMS; i++) {
		for (u64 gfn = 0; gfn < WINDOW; gfn++) {
			struct stage2_leaf leaf;

			if (!stage2_lookup(&guests[i].s, GFN(gfn), &leaf))
				continue;
			CHECK(guests[i].now[gfn].pfn != pfn + 1 || !(leaf.prot & S2_W));
			guests[i].now[gfn].prot = leaf.prot;
		}
	}
}

static void step(const u8 *in)
{
	static const u8 prots[] = { S2_RWX, S2_RWX, S2_R, S2_R | S2_X };
	struct guest *g = &guests[in[0] >> 4 & 1];
	u64 gfn = (in[1] | (u64)in[2] << 8) % WINDOW, pfn = (in[3] | (u64)in[2] << 4) % 1024;
	u64 count = in[4] & 0x80 ? 512 : in[4] % 16 + 1;
	struct flush_debt debt = { .stage2 = &g->s }, *owed = &debts[in[0] >> 5 & 3];
	u8 prot = prots[in[4] >> 4 & 3];
	int err;

	if (in[0] & 0x80 || count == 512) {
		gfn &= ~511ull;
		pfn &= ~511ull;
	}
	count = MIN(count, WINDOW - gfn);
	switch (in[0] % 16) {
	case 0:
	case 1:
	case 2:
	case 3:
		map(g, gfn, pfn, count, prot, in[0] & 1 ? 2 : 1);
		break;
	case 4:
	case 5:
		change(g, gfn, count, 0, &debt);
		break;
	case 6:
		change(g, gfn, count, prot, &debt);
		break;
	case 7:
		err = stage2_split(&g->s, GFN(gfn), 1, &debt);
		CHECK(!err || (err == -ENOMEM && hoarded));
		break;
	case 8:
	case 9:
		err = stage2_merge(&g->s, GFN(gfn), 2, &debt);
		CHECK(!err || err == -EAGAIN);
		break;
	case 10:
		drop_frame(pfn);
		break;
	case 11:
		write_protect_frame(pfn);
		break;
	case 12:
		(void)frame_age(PFN(shared.v + pfn), pay_many);
		break;
	case 13:
		starve(in[4] % 8);
		break;
	case 14:
		feed();
		break;
	default:
		check_all();
	}
	if (debt.generation) {
		pay(owed);
		*owed = debt;
	}
	for (u64 i = gfn ? gfn - 1 : 0; i < MIN(gfn + count + 1, WINDOW); i++)
		check_gfn(g, i);
}

static void open_machine(const struct pt_format *fmt)
{
	struct mem_range map_ = { HPA(0), MEMORY, FRAME_FREE };

	if (!host_arena) {
		host_hooks_open();
		host_arena_open(MEMORY);
	}
	host_warnings = hoarded = 0;
	memset(guests, 0, sizeof(guests));
	memset(debts, 0, sizeof(debts));
	CHECK(!frames_init(&map_, 1, HPA(MEMORY)));
	shared = extent_alloc(EXTENTS, 1, FRAME_GUEST, VM_NONE);
	CHECK(pfn_valid(shared));
	for (u16 i = 0; i < VMS; i++) {
		CHECK(!stage2_init(&guests[i].s, fmt, &env, 3, 1ull << 30, i + 1));
		table_pool_allow(&guests[i].s.pool, WINDOW);
	}
}

static void close_machine(void)
{
	feed();
	pay_all();
	check_all();
	for (u32 i = 0; i < VMS; i++) {
		struct flush_debt debt;

		CHECK(!stage2_unmap(&guests[i].s, GFN(0), 1ull << 30, &debt));
		pay(&debt);
		CHECK(guests[i].s.tables == 1 && !guests[i].s.unpaid);
		stage2_destroy(&guests[i].s);
		table_pool_destroy(&guests[i].s);
		CHECK(!guests[i].s.corruptions);
	}
	CHECK(!rmap_set_memory() && !host_warnings);
	CHECK(!extent_free(shared, EXTENTS, FRAME_GUEST, VM_NONE));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	if (!size || size > 2000)
		return -1;
	open_machine(data[0] & 1 ? &ept_format : &npt_format);
	for (size_t at = 1; at + 5 <= size; at += 5)
		step(&data[at]);
	close_machine();
	return 0;
}
