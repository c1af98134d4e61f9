/* SPDX-License-Identifier: MIT */
/*
 * poke, a command of the monitor in FAULTS builds: damages what describes the memory of a VM while
 * it runs, each time the mapping of one guest address (docs/TESTING.md has the list). What it does
 * beside that, to change how the address is mapped, it does by the engine, as anybody would.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/clock.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "debug/commands.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "lib/string.h"
#include "mm/extent.h"
#include "mm/phys.h"
#include "mm/stage2_entry.h"
#include "virt/corruption.h"
#include "virt/guestmem.h"
#include "virt/sched.h"
#include "virt/slots.h"

bool fault_flush_loses;

/* The leaf that maps a guest address, as it stands. */
struct leaf {
	struct vm *vm;
	struct stage2 *s;
	u64 wanted; /* this gfn */
	u64 gfn;    /* the first that it covers */
	u64 *slot;
	u64 entry;
	u8 level;
	pfn_t pfn;
	u64 key;
};

static bool find_leaf(struct vm *vm, u64 gfn, struct leaf *l)
{
	struct stage2 *s = &vm->stage2;
	const struct pt_format *fmt = s->fmt;
	u64 *table = hpa_ptr(s->root);

	*l = (struct leaf){ .vm = vm, .s = s, .wanted = gfn };
	grace_enter();
	for (l->level = fmt->levels;; l->level--) {
		l->slot = &table[gfn >> (9 * (l->level - 1)) & (ENTRIES - 1)];
		l->entry = entry_read(l->slot);
		if (!s2_is_table(fmt, l->entry, l->level))
			break;
		table = hpa_ptr(s2_entry_hpa(fmt, l->entry));
	}
	grace_leave();
	l->gfn = ALIGN_DOWN(gfn, s2_level_frames(l->level));
	l->pfn = entry_pfn(fmt, l->entry);
	l->key = leaf_key(s, gfn, l->level);
	return s2_is_leaf(fmt, l->entry, l->level);
}

/* --- changes by the engine --- */

static int pay(struct vm *vm, int err, struct flush_debt *debt)
{
	vm_pay_flush(vm, debt);
	return err;
}

static int unmap(struct leaf *l)
{
	struct flush_debt debt;
	int err = stage2_unmap(l->s, GFN(l->gfn), s2_level_frames(l->level), &debt);

	return pay(l->vm, err, &debt);
}

static int split(struct vm *vm, u64 gfn, u8 level)
{
	struct flush_debt debt;
	int err = stage2_split(&vm->stage2, GFN(gfn), level, &debt);

	return pay(vm, err, &debt);
}

static int merge(struct vm *vm, u64 gfn, u8 level)
{
	struct flush_debt debt;
	int err = stage2_merge(&vm->stage2, GFN(gfn), level, &debt);

	return pay(vm, err, &debt);
}

/*
 * All of a GiB that the guest does not use, as one leaf; its memory is not cleared for that. The
 * slot has it in one piece, or else -EINVAL.
 */
static int map_gib(struct vm *vm, u64 gfn)
{
	const struct memslot *slot = vm_slot(vm, GPA(gfn << PAGE_SHIFT));
	u64 first = ALIGN_DOWN(gfn, s2_level_frames(3));
	u64 gpa = first << PAGE_SHIFT, word;
	u8 level;

	if (!slot || slot->gpa.v > gpa || slot->gpa.v + slot->size < gpa + GIB)
		return -EINVAL;
	word = *backing_word(slot->backing, slot->offset + gpa - slot->gpa.v, &level);
	return stage2_map(&vm->stage2, GFN(first), hpa_pfn(ptr_hpa(backing_memory(word))),
			  s2_level_frames(3), slot->prot, S2_WB, 3);
}

static int change_size(struct vm *vm, u64 gfn, u8 level)
{
	u64 first = ALIGN_DOWN(gfn, EXTENT_FRAMES);
	struct guest_frame f;
	struct leaf l;
	int err;

	if (level == 3)
		return map_gib(vm, gfn);
	if (guest_frame(vm, GPA(gfn << PAGE_SHIFT), ACCESS_R, &f) || f.level < level)
		return -EINVAL;
	if (!find_leaf(vm, gfn, &l))
		return stage2_map(&vm->stage2, GFN(first), PFN(ALIGN_DOWN(f.pfn.v, EXTENT_FRAMES)),
				  EXTENT_FRAMES, f.prot, S2_WB, level);
	if (l.level > level)
		return split(vm, gfn, level);
	if (l.level == level)
		return 0;
	/* what is missing in it since an unmap */
	err = stage2_map(&vm->stage2, GFN(first), PFN(ALIGN_DOWN(f.pfn.v, EXTENT_FRAMES)),
			 EXTENT_FRAMES, f.prot, S2_WB, 1);
	return err ? err : merge(vm, gfn, level);
}

/* --- damage --- */

static int take_key(struct leaf *l, pfn_t pfn)
{
	struct rmap_op op;
	int err;

	if (!rmap_lock(&op, pfn, l->level))
		return -EINVAL;
	err = rmap_delete(&op, l->key);
	rmap_unlock(&op);
	return err;
}

static int give_key(struct leaf *l, pfn_t pfn)
{
	struct rmap_op op;
	int err;

	if (!rmap_lock(&op, pfn, l->level))
		return -EINVAL;
	do {
		err = rmap_insert(&op, l->key);
	} while (err == -EAGAIN && !(err = rmap_refill(&op)) && (err = -EAGAIN));
	rmap_unlock(&op);
	return err;
}

static int flip(struct leaf *l, u32 argc, char **argv)
{
	u32 bit;

	if (argc != 1 || !command_number(argv[0], 64, &bit))
		return -EINVAL;
	__atomic_fetch_xor(l->slot, BIT(bit), __ATOMIC_SEQ_CST);
	return 0;
}

static int drop(struct leaf *l, u32 argc, char **argv)
{
	(void)argc;
	(void)argv;
	return take_key(l, l->pfn);
}

static int twice(struct leaf *l, u32 argc, char **argv)
{
	(void)argc;
	(void)argv;
	return give_key(l, l->pfn);
}

/* alias NAME GPA OTHER GPA: the leaf maps what is OTHER's, and nothing but the owner tells. */
static int alias(struct leaf *l, u32 argc, char **argv)
{
	struct vm *other = argc == 2 ? command_vm("poke", argv[0]) : NULL;
	struct leaf to;
	u64 gpa;
	int err;

	if (!other || !command_hex(argv[1], &gpa) || !find_leaf(other, gpa >> PAGE_SHIFT, &to) ||
	    to.level != l->level)
		return -EINVAL;
	err = take_key(l, l->pfn);
	if (err)
		return err;
	__atomic_store_n(l->slot, (l->entry & ~l->s->fmt->addr_mask) | pfn_hpa(to.pfn).v,
			 __ATOMIC_SEQ_CST);
	return give_key(l, to.pfn);
}

static int stale(struct leaf *l, u32 argc, char **argv)
{
	int err = unmap(l);

	(void)argc;
	(void)argv;
	if (!err)
		__atomic_store_n(l->slot, l->entry, __ATOMIC_SEQ_CST);
	return err;
}

/* desc NAME GPA FIELD, of the table that the leaf is in. */
static int desc(struct leaf *l, u32 argc, char **argv)
{
	struct s2_table *t = table_pool_desc(l->s, l->slot);

	if (argc != 1)
		return -EINVAL;
	if (!strcmp(argv[0], "canary"))
		t->canary ^= BIT(40);
	else if (!strcmp(argv[0], "base"))
		t->base += s2_level_frames(l->level + 1);
	else if (!strcmp(argv[0], "level"))
		t->level ^= 1;
	else if (!strcmp(argv[0], "vm"))
		t->vm ^= 1;
	else if (!strcmp(argv[0], "live"))
		__atomic_fetch_add(&t->live, 1, __ATOMIC_SEQ_CST);
	else
		return -EINVAL;
	return 0;
}

/* The flush is not done, and its debt paid all the same. */
static int flush(struct leaf *l, u32 argc, char **argv)
{
	int err;

	(void)argc;
	(void)argv;
	fault_flush_loses = true;
	err = unmap(l);
	fault_flush_loses = false;
	return err;
}

/* The debt is never paid. */
static int debt(struct leaf *l, u32 argc, char **argv)
{
	struct flush_debt lost;

	(void)argc;
	(void)argv;
	return stage2_unmap(l->s, GFN(l->gfn), s2_level_frames(l->level), &lost);
}

static struct extent *lock_extent(struct leaf *l, struct rmap_op *op)
{
	return rmap_lock(op, l->pfn, l->level) ? op->e : NULL;
}

/* key NAME GPA BIT: of the stored key. */
static int key(struct leaf *l, u32 argc, char **argv)
{
	struct rmap_op op;
	u32 bit;
	int err;

	if (argc != 1 || !command_number(argv[0], 64, &bit) || !lock_extent(l, &op))
		return -EINVAL;
	err = rmap_replace(&op, l->key, l->key ^ BIT(bit));
	rmap_unlock(&op);
	return err;
}

/* How many keys of small leaves the extent has. */
static int count(struct leaf *l, u32 argc, char **argv)
{
	struct rmap_op op;
	struct extent *e = lock_extent(l, &op);

	(void)argc;
	(void)argv;
	if (!e)
		return -EINVAL;
	e->small_keys++;
	rmap_unlock(&op);
	return 0;
}

static int size(struct leaf *l, u32 argc, char **argv)
{
	u32 level;

	if (argc != 1 || !command_number(argv[0], 4, &level) || !level)
		return -EINVAL;
	return change_size(l->vm, l->wanted, (u8)level);
}

static int remove(struct leaf *l, u32 argc, char **argv)
{
	(void)argc;
	(void)argv;
	return unmap(l);
}

static const struct kind {
	const char *name;
	int (*poke)(struct leaf *l, u32 argc, char **argv);
} kinds[] = {
	{ "flip", flip },   { "drop", drop },	{ "twice", twice }, { "alias", alias },
	{ "stale", stale }, { "desc", desc },	{ "flush", flush }, { "debt", debt },
	{ "key", key },	    { "count", count }, { "size", size },   { "unmap", remove },
};

/* --- churn: another CPU changes how a VM's memory is mapped, all the time --- */

#define CHURN_US 500 /* at a time; then the CPU's vCPUs have their turn */

static struct churn {
	struct task task;
	struct vm *vm; /* NULL: it rests */
	bool busy;
	u64 seed;
	u64 splits, merges, unmaps, failed;
} churns[MAX_CPUS];

static void churn_once(struct churn *c, struct vm *vm)
{
	const struct slot_map *slots;
	const struct memslot *slot;
	struct leaf l;
	int err = 0;
	u64 gfn;

	grace_enter();
	slots = vm_slots(vm);
	slot = &slots->slot[c->seed % slots->nr];
	gfn = (slot->gpa.v + (c->seed >> 16) % slot->size) >> PAGE_SHIFT;
	grace_leave();
	c->seed = c->seed * 6364136223846793005ull + 1442695040888963407ull;
	if (!find_leaf(vm, gfn, &l))
		return;
	switch (c->seed >> 60) {
	case 0:
		err = unmap(&l);
		c->unmaps++;
		break;
	case 1: /* with the table that it is in */
		l.gfn = ALIGN_DOWN(gfn, EXTENT_FRAMES);
		l.level = 2;
		err = unmap(&l);
		c->unmaps++;
		break;
	default:
		if (l.level == 2) {
			err = split(vm, gfn, 1);
			c->splits++;
		} else {
			err = change_size(vm, gfn, 2);
			c->merges += !err;
		}
	}
	c->failed += err && err != -EAGAIN && err != -EEXIST;
}

static void churn_run(struct task *t)
{
	struct churn *c = container_of(t, struct churn, task);
	u64 began = rdtsc();
	struct vm *vm;

	__atomic_store_n(&c->busy, true, __ATOMIC_SEQ_CST);
	vm = __atomic_load_n(&c->vm, __ATOMIC_SEQ_CST);
	while (vm && READ_ONCE(vm->state) == VM_RUNNING &&
	       rdtsc() - began < (u64)CHURN_US * tsc_khz / 1000)
		churn_once(c, vm);
	__atomic_store_n(&c->busy, false, __ATOMIC_SEQ_CST);
	if (vm)
		task_wake(t);
}

/* churn NAME CPU: that CPU begins; NAME off: all rest, and say what they did. */
static void churn(struct vm *vm, const char *what)
{
	u32 cpu;

	if (command_number(what, nr_cpus, &cpu)) {
		churns[cpu].seed = cpu + 1;
		__atomic_store_n(&churns[cpu].vm, vm, __ATOMIC_SEQ_CST);
		task_wake(&churns[cpu].task);
		monitor_printf("poke=churn vm=%s cpu=%u\n", vm->name, cpu);
		return;
	}
	for (cpu = 0; cpu < nr_cpus; cpu++) {
		struct churn *c = &churns[cpu];

		if (c->vm != vm)
			continue;
		__atomic_store_n(&c->vm, NULL, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&c->busy, __ATOMIC_SEQ_CST))
			cpu_pause();
		monitor_printf("poke=churn vm=%s cpu=%u splits=%lu merges=%lu unmaps=%lu "
			       "failed=%lu\n",
			       vm->name, cpu, c->splits, c->merges, c->unmaps, c->failed);
	}
}

void poke_init(void)
{
	for (u32 cpu = 0; cpu < nr_cpus; cpu++)
		task_add(&churns[cpu].task, cpu, churn_run);
}

static const struct kind *find_kind(const char *name)
{
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	}
	return NULL;
}

/* poke KIND NAME GPA [...] */
void cmd_poke(u32 argc, char **argv)
{
	const struct kind *kind = argc > 3 ? find_kind(argv[1]) : NULL;
	struct vm *vm = argc > 3 ? command_vm("poke", argv[2]) : NULL;
	struct leaf l;
	bool mapped;
	u64 gpa;
	int err;

	if (vm && !strcmp(argv[1], "churn")) {
		churn(vm, argv[3]);
		return;
	}
	if (!vm || !kind || !command_hex(argv[3], &gpa)) {
		monitor_printf("poke: see docs/TESTING.md\n");
		return;
	}
	mapped = find_leaf(vm, gpa >> PAGE_SHIFT, &l);
	err = mapped || kind->poke == size ? kind->poke(&l, argc - 4, argv + 4) : -ENOENT;
	if (kind->poke == size)
		find_leaf(vm, gpa >> PAGE_SHIFT, &l);
	monitor_printf("poke=%s vm=%s level=%u gfn=0x%lx pfn=0x%lx %s\n", kind->name, vm->name,
		       l.level, l.gfn, l.pfn.v, err ? error_name(err) : "done");
}
