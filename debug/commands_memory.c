/* SPDX-License-Identifier: MIT */
/* audit, rmap, ept: tables and reverse map. */
#include "debug/commands.h"
#include "lib/string.h"
#include "mm/audit.h"
#include "mm/frames.h"
#include "virt/corruption.h"

static const char *vm_name(u16 id)
{
	struct vm *vm;

	for (u32 i = 0; (vm = command_nth_vm(i)); i++) {
		if (vm->id == id || vm->stage2.owner == id)
			return vm->name;
	}
	return "?";
}

static const char *owner_name(struct frame_owner owner)
{
	if (owner.vm == VM_NONE)
		return "none";
	return owner.kind == FRAME_GUEST && frames_shared(owner.vm) ? "shared" : vm_name(owner.vm);
}

static void print_prot(u8 prot)
{
	monitor_printf(" prot=%c%c%c", prot & S2_R ? 'r' : '-', prot & S2_W ? 'w' : '-',
		       prot & S2_X ? 'x' : '-');
}

/* --- audit --- */

static void print_finding(void *arg, const struct audit_finding *f)
{
	(void)arg;
	monitor_printf("finding=%s vm=%s level=%u gfn=0x%lx", audit_kind_name(f->kind),
		       f->stage2 ? vm_name(f->stage2->vm) : "?", f->level, f->gfn.v);
	if (pfn_valid(f->pfn))
		monitor_printf(" pfn=0x%lx", f->pfn.v);
	monitor_printf(" seen=0x%lx expected=0x%lx\n", f->seen, f->expected);
}

bool cmd_audit(u32 argc, char **argv)
{
	struct audit a = { .report = print_finding };
	struct vm *vm = NULL;

	if (argc > 2)
		return false;
	if (argc == 2) {
		vm = command_vm("audit", argv[1]);
		if (!vm)
			return true;
		a.only = &vm->stage2;
	}
	audit_run(&a);
	monitor_printf("audit=%s tables=%lu leaves=%lu keys=%lu findings=%lu\n",
		       vm ? vm->name : "all", a.tables, a.leaves, a.keys, a.findings);
	return true;
}

/* --- rmap --- */

#define KEYS_SHOWN 64

struct keys {
	u64 key[KEYS_SHOWN];
	pfn_t first[KEYS_SHOWN];
	u32 count;
};

static bool note_key(void *arg, u64 key, pfn_t first)
{
	struct keys *keys = arg;

	keys->key[keys->count] = key;
	keys->first[keys->count] = first;
	return ++keys->count < KEYS_SHOWN;
}

bool cmd_rmap(u32 argc, char **argv)
{
	struct keys keys = { .count = 0 };
	struct frame_owner owner;
	u64 pfn;

	if (argc != 2 || !command_hex(argv[1], &pfn))
		return false;
	owner = frame_owner(PFN(pfn));
	rmap_for_each(PFN(pfn), note_key, &keys);
	monitor_printf("pfn=0x%lx owner=\"%s\" vm=%s mappers=%lu\n", pfn,
		       frame_kind_name(owner.kind), owner_name(owner), rmap_count(PFN(pfn)));
	for (u32 i = 0; i < keys.count; i++) {
		u64 key = keys.key[i], gfn = rmap_gfn(key).v + (pfn - keys.first[i].v);

		monitor_printf("pfn=0x%lx mapper=%u vm=%s root=%u level=%u gfn=0x%lx state=%s\n",
			       pfn, i, vm_name(rmap_vm(key)), rmap_root(key), rmap_level(key), gfn,
			       key & RMAP_OLD	? "waits-for-flush"
			       : key & RMAP_NEW ? "new"
						: "mapped");
	}
	return true;
}

/* --- ept --- */

/* Noted during the walk, and printed after it: who frees tables waits for walks. */
struct walk {
	struct vm *vm;
	u64 gfn;
	struct walk_entry {
		u8 level;
		hpa_t table;
		u32 index;
		u64 entry;
	} entries[5];
	u32 count;
};

static void note_entry(void *arg, u8 level, hpa_t table, u32 index, u64 entry)
{
	struct walk *w = arg;

	if (w->count < ARRAY_SIZE(w->entries))
		w->entries[w->count++] = (struct walk_entry){ level, table, index, entry };
}

static void print_entry(const struct walk *w, const struct walk_entry *e)
{
	static const char *const types[] = { [S2_WB] = "wb", [S2_UC] = "uc", [S2_MEMTYPES] = "?" };
	const struct pt_format *fmt = w->vm->stage2.fmt;
	u64 entry = e->entry;
	u8 level = e->level;
	u64 hpa = s2_entry_hpa(fmt, entry).v;

	monitor_printf("vm=%s level=%u table=0x%lx index=%u entry=0x%lx", w->vm->name, level,
		       e->table.v, e->index, entry);
	if (s2_is_table(fmt, entry, level)) {
		monitor_printf(" kind=table next=0x%lx\n", hpa);
	} else if (s2_is_leaf(fmt, entry, level)) {
		u64 offset = w->gfn & (s2_level_frames(level) - 1);

		monitor_printf(" kind=leaf pfn=0x%lx", (hpa >> PAGE_SHIFT) + offset);
		print_prot(s2_leaf_prot(fmt, entry));
		monitor_printf(" memtype=%s accessed=%u dirty=%u\n",
			       types[s2_leaf_memtype(fmt, entry)], !!(entry & fmt->accessed),
			       !!(entry & fmt->dirty));
	} else {
		monitor_printf(" kind=%s\n", entry ? "frozen" : "empty");
	}
}

void command_stage2(struct vm *vm, u64 gpa)
{
	struct walk w = { .vm = vm, .gfn = gpa >> PAGE_SHIFT };

	stage2_walk(&vm->stage2, GFN(w.gfn), note_entry, &w);
	for (u32 i = 0; i < w.count; i++)
		print_entry(&w, &w.entries[i]);
}

bool cmd_ept(u32 argc, char **argv)
{
	struct vm *vm;
	u64 gpa;

	if (argc != 3 || !command_hex(argv[2], &gpa))
		return false;
	vm = command_vm("ept", argv[1]);
	if (!vm)
		return true;
	if (gpa >> PAGE_SHIFT >= vm->stage2.max_gfn) {
		monitor_printf("ept %s: 0x%lx is beyond the VM's address space, which ends at "
			       "0x%lx\n",
			       vm->name, gpa, vm->stage2.max_gfn << PAGE_SHIFT);
		return true;
	}
	if (vm_is_corrupt(vm)) {
		monitor_printf("ept %s: its tables are damaged and not walked\n", vm->name);
		return true;
	}
	command_stage2(vm, gpa);
	return true;
}
