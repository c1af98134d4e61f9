/* SPDX-License-Identifier: MIT */
#include "virt/slots.h"
#include "lib/error.h"
#include "lib/grace.h"
#include "lib/string.h"
#include "virt/corruption.h"
#include "virt/sched.h"
#include "virt/slotmem.h"

/* A kernel boots in less; about 25 ms of one CPU. */
#define CLEAR_AHEAD (256 * MIB)

/* Of a VM that has none; a hint points at a slot that contains nothing. */
const struct slot_map no_slots = { .slot = { { .size = 0 } } };

/* Index of the first slot that ends above gpa: the only one that can contain it. */
static u32 slot_search(const struct slot_map *m, u64 gpa)
{
	u32 low = 0, high = m->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (m->slot[mid].gpa.v + m->slot[mid].size <= gpa)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct memslot *slot_find(const struct slot_map *m, u64 gpa)
{
	u32 i = slot_search(m, gpa);

	return i < m->nr && slot_has(&m->slot[i], gpa) ? &m->slot[i] : NULL;
}

const struct memslot *vm_slot(const struct vm *vm, gpa_t gpa)
{
	return slot_find(vm_slots(vm), gpa.v);
}

/* --- memory behind a slot --- */

/* What nobody has brought yet reads as zero. */
static bool slot_is_zero(const struct memslot *s)
{
	return !(s->flags & SLOT_EXIT_ON_MISSING) && !s->backing->source;
}

void slot_memory_slow(const struct memslot *s, u64 gpa, u8 access, struct slot_memory *m)
{
	u64 offset = s->offset + (gpa - s->gpa.v), word;
	struct backing *b;
	u64 *at;
	u8 level;

	*m = (struct slot_memory){ .kind = access == ACCESS_X ? MEMORY_NOEXEC : MEMORY_READONLY };
	if (!(s->prot & access))
		return;
again:
	b = s->backing;
	at = backing_find(&b, offset, &level, &m->level);
	word = backing_touch(at, level, slot_is_zero(s));
	m->inherited = b != s->backing || backing_state(word) == BACKING_COPIED;
	switch (backing_state(word)) {
	case BACKING_TABLE: /* just now */
	case BACKING_INHERITED:
		goto again;
	case BACKING_ZERO: /* in a sparse object */
	case BACKING_COPIED:
	case BACKING_PRESENT:
		m->writable = !m->inherited;
		if (m->inherited && access == ACCESS_W) {
			m->kind = MEMORY_INHERITED;
			return;
		}
		if (backing_memory(word))
			break;
		m->kind = MEMORY_EXHAUSTED;
		if (backing_own(b, offset))
			return;
		goto again;
	case BACKING_READONLY:
		if (access == ACCESS_W)
			return;
		break;
	case BACKING_POISON:
		m->kind = MEMORY_POISONED;
		return;
	default:
		m->kind = MEMORY_MISSING;
		return;
	}
	m->kind = MEMORY_OK;
	m->ptr = backing_memory(word) + gpa % (level == 2 ? EXTENT_SIZE : PAGE_SIZE);
	if (m->level == 2 && m->writable)
		__atomic_store_n(&s->bias[slot_part(s, gpa)], (u64)(uintptr_t)m->ptr - gpa,
				 __ATOMIC_RELEASE);
}

void vm_clear_ahead(struct vm *vm)
{
	const struct slot_map *map = vm_slots(vm);
	u64 left = CLEAR_AHEAD;

	for (u32 i = 0; i < map->nr; i++) {
		const struct memslot *s = &map->slot[i];
		u64 end = s->gpa.v + s->size, gpa = s->gpa.v;
		struct slot_memory m;

		if (s->backing->parent) /* it is there, or else it comes by need */
			continue;
		for (; gpa < end && left;
		     gpa = ALIGN_DOWN(gpa, EXTENT_SIZE) + EXTENT_SIZE, left -= EXTENT_SIZE)
			if (!slot_bias(s, slot_part(s, gpa)))
				slot_memory(s, gpa, ACCESS_R, &m);
	}
}

/* --- the arrays --- */

/* With those at `from`, or cleared. */
static void *array_alloc(struct vm *vm, u64 bytes, const void *from)
{
	pfn_t f = frame_order(bytes) <= 9
			  ? frame_alloc_order(frame_order(bytes), FRAME_HEAP, vm->id)
			  : PFN_NONE;

	if (!pfn_valid(f))
		return NULL;
	return from ? memcpy(pfn_ptr(f), from, bytes) : memset(pfn_ptr(f), 0, bytes);
}

static void array_free(struct vm *vm, const void *array, u64 bytes)
{
	if (array)
		frame_free_order(hpa_pfn(ptr_hpa(array)), frame_order(bytes), FRAME_HEAP, vm->id);
}

static struct slot_map *map_alloc(struct vm *vm, u32 nr)
{
	u64 bytes = sizeof(struct slot_map) + (nr + 1) * sizeof(struct memslot);
	struct slot_map *map = array_alloc(vm, bytes, NULL);

	if (map)
		*map = (struct slot_map){ .nr = nr, .order = frame_order(bytes) };
	return map;
}

static void map_free(struct vm *vm, const struct slot_map *map)
{
	if (map != &no_slots)
		frame_free_order(hpa_pfn(ptr_hpa(map)), map->order, FRAME_HEAP, vm->id);
}

static u64 bias_bytes(const struct memslot *s)
{
	return (slot_part(s, s->gpa.v + s->size - 1) + 1) * sizeof(u64);
}

static u64 dirty_bytes(const struct memslot *s)
{
	return BITMAP_WORDS(s->size >> PAGE_SHIFT) * sizeof(u64);
}

static int slot_bias_array(struct vm *vm, struct memslot *s)
{
	s->bias = array_alloc(vm, bias_bytes(s), NULL);
	s->gpa_bias = (const u64 *)((uintptr_t)s->bias - (s->gpa.v >> EXTENT_SHIFT) * sizeof(u64));
	return s->bias ? 0 : trace_error(-ENOMEM);
}

/* What belongs to the slot at this place, with these flags; its log of writes begins as `log`. */
static int slot_arrays(struct vm *vm, struct memslot *s, const u64 *log)
{
	int err = slot_bias_array(vm, s);

	s->dirty = s->flags & SLOT_LOG_DIRTY ? array_alloc(vm, dirty_bytes(s), log) : NULL;
	if (err || (s->flags & SLOT_LOG_DIRTY && !s->dirty)) {
		array_free(vm, s->bias, bias_bytes(s));
		array_free(vm, s->dirty, dirty_bytes(s));
		s->bias = s->dirty = NULL;
		return trace_error(-ENOMEM);
	}
	s->prot = (u8)(S2_R | (s->flags & SLOT_READONLY ? 0 : S2_W) |
		       (s->flags & SLOT_NOEXEC ? 0 : S2_X));
	return 0;
}

static void slot_arrays_free(struct vm *vm, const struct memslot *s)
{
	array_free(vm, s->bias, bias_bytes(s));
	array_free(vm, s->dirty, dirty_bytes(s));
}

/* --- changes --- */

/*
 * Nobody knows the old array when this is over: neither vCPUs (one that does not run gets the new
 * hint from us; if it runs by now, so it would), nor who is in a read section. The caller frees it.
 */
static void publish(struct vm *vm, const struct slot_map *map)
{
	__atomic_store_n(&vm->slots, map, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vcpu_request(vm->vcpus[i], REQ_SLOTS);
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i];

		while (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) & REQ_SLOTS &&
		       __atomic_load_n(&v->state, __ATOMIC_SEQ_CST) == VCPU_RUNNING)
			spin_wait();
		if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) & REQ_SLOTS)
			v->slot_hint = map->slot;
	}
	grace_wait();
}

/* The present array without `gone` and with `more` (either may be NULL) takes its place. */
static int change(struct vm *vm, const struct memslot *gone, const struct memslot *more)
{
	const struct slot_map *old = vm->slots;
	u32 nr = old->nr - !!gone + !!more, n = 0;
	struct slot_map *map = map_alloc(vm, nr);

	if (!map)
		return trace_error(-ENOMEM);
	for (u32 i = 0; i <= old->nr; i++) {
		if (more && (i == old->nr || old->slot[i].gpa.v > more->gpa.v)) {
			map->slot[n++] = *more;
			more = NULL;
		}
		if (i < old->nr && &old->slot[i] != gone)
			map->slot[n++] = old->slot[i];
	}
	publish(vm, map);
	map_free(vm, old);
	return 0;
}

/* A part may need memory, for what waits for the flush; the whole space needs none. */
static bool unmap(struct vm *vm, u64 from, u64 to)
{
	struct flush_debt debt = { 0 };
	int err = stage2_unmap(&vm->stage2, GFN(from >> PAGE_SHIFT), (to - from) >> PAGE_SHIFT,
			       &debt);

	if (err == -ENOMEM) {
		vm_pay_flush(vm, &debt);
		err = stage2_unmap(&vm->stage2, GFN(0), vm->stage2.max_gfn, &debt);
	}
	if (VM_BUG_ON(vm, err))
		return false;
	vm_pay_flush(vm, &debt);
	return !vm_is_corrupt(vm);
}

int vm_own_page(struct vm *vm, gpa_t gpa)
{
	const struct memslot *s = vm_slot(vm, gpa);
	u64 page = ALIGN_DOWN(gpa.v, PAGE_SIZE), offset;
	int err;

	if (!s || !s->backing->parent)
		return 0;
	offset = s->offset + (page - s->gpa.v);
	err = backing_own(s->backing, offset);
	if (err <= 0)
		return err;
	unmap(vm, page, page + PAGE_SIZE);
	backing_owned(s->backing, offset);
	return 0;
}

static void wake_waiting(struct vm *vm, const struct memslot *s)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (v->wait.backing == s->backing && v->wait.fault.slot == s->id)
			vcpu_request(v, REQ_MEMORY);
	}
}

/* One user less. What has a name stays without any. */
static void put(struct backing *b)
{
	if (b && !b->vm && !b->frozen)
		__atomic_sub_fetch(&b->users, 1, __ATOMIC_SEQ_CST);
	else
		while (backing_put_step(&b))
			;
}

/* The object of a slot that is gone. */
static void release(struct vm *vm, struct backing *b)
{
	if (vm_is_corrupt(vm))
		b->lost = true;
	put(b);
}

/* A slot that is in no array any more, and nobody looks at. */
static void retire(struct vm *vm, const struct memslot *s)
{
	if (!unmap(vm, s->gpa.v, s->gpa.v + s->size))
		s->backing->lost = true;
	wake_waiting(vm, s);
	slot_arrays_free(vm, s);
}

const struct memslot *vm_slot_by_id(const struct vm *vm, u16 id)
{
	const struct slot_map *m = vm->slots;

	for (u32 i = 0; i < m->nr; i++)
		if (m->slot[i].id == id)
			return &m->slot[i];
	return NULL;
}

static bool on_device(const struct vm *vm, u64 gpa, u64 size)
{
	const struct io_bus *bus = &vm->bus;

	for (u32 i = 0; i < bus->count[IO_MMIO]; i++) {
		const struct io_region *r = &bus->region[IO_MMIO][i];

		if (r->base < gpa + size && gpa < r->base + r->size)
			return true;
	}
	return false;
}

/* May [gpa, gpa + size) be a slot, when `gone` is none any more? */
static int check_place(const struct vm *vm, u64 gpa, u64 size, u64 offset,
		       const struct memslot *gone)
{
	const struct slot_map *m = vm->slots;
	u64 top = vm->stage2.max_gfn << PAGE_SHIFT;

	if (!size || (gpa | size | offset) & ~PAGE_MASK)
		return trace_error(-EINVAL);
	if (gpa >= top || size > top - gpa)
		return trace_error(-ERANGE);
	if ((gpa ^ offset) % EXTENT_SIZE)
		return trace_error(-EDOM);
	for (u32 i = slot_search(m, gpa); i < m->nr && m->slot[i].gpa.v < gpa + size; i++)
		if (&m->slot[i] != gone)
			return trace_error(-EEXIST);
	return on_device(vm, gpa, size) ? trace_error(-EADDRINUSE) : 0;
}

static u16 new_slot_id(struct vm *vm)
{
	do
		vm->last_slot = (u16)((vm->last_slot + 1) % MEMORY_NO_SLOT);
	while (vm_slot_by_id(vm, vm->last_slot));
	return vm->last_slot;
}

int vm_slot_add(struct vm *vm, gpa_t gpa, u64 size, struct backing *b, u64 offset, u8 flags,
		u16 *id)
{
	struct memslot s = { .gpa = gpa,
			     .size = size,
			     .backing = b,
			     .offset = offset,
			     .generation = ++vm->slot_changes,
			     .flags = flags };
	int err = check_place(vm, gpa.v, size, offset, NULL);

	if (err)
		return err;
	if (flags & ~SLOT_FLAGS)
		return trace_error(-EINVAL);
	if (offset > b->size || size > b->size - offset)
		return trace_error(-EFBIG);
	if (vm->slots->nr >= VM_MAX_SLOTS)
		return trace_error(-ENOSPC);
	err = slot_arrays(vm, &s, NULL);
	if (err)
		return err;
	s.id = new_slot_id(vm);
	__atomic_fetch_add(&b->users, 1, __ATOMIC_SEQ_CST);
	table_pool_allow(&vm->stage2.pool, size >> PAGE_SHIFT);
	err = change(vm, NULL, &s);
	if (err) {
		__atomic_fetch_sub(&b->users, 1, __ATOMIC_SEQ_CST);
		slot_arrays_free(vm, &s);
	} else if (id) {
		*id = s.id;
	}
	return err;
}

int vm_slot_remove(struct vm *vm, u16 id)
{
	const struct memslot *at = vm_slot_by_id(vm, id);
	struct memslot s;
	int err;

	if (!at)
		return trace_error(-ENOENT);
	s = *at;
	err = change(vm, at, NULL);
	if (err)
		return err;
	retire(vm, &s);
	release(vm, s.backing);
	return 0;
}

/* The slot with another place or other flags; nothing of it stays mapped. */
static int replace(struct vm *vm, const struct memslot *at, gpa_t gpa, u8 flags)
{
	struct memslot old = *at, new = old;
	int err;

	new.gpa = gpa;
	new.flags = flags;
	new.generation = ++vm->slot_changes;
	err = slot_arrays(vm, &new, NULL);
	if (err)
		return err;
	err = change(vm, at, &new);
	if (err)
		slot_arrays_free(vm, &new);
	else
		retire(vm, &old);
	return err;
}

int vm_slot_move(struct vm *vm, u16 id, gpa_t gpa)
{
	const struct memslot *s = vm_slot_by_id(vm, id);
	int err;

	if (!s)
		return trace_error(-ENOENT);
	err = check_place(vm, gpa.v, s->size, s->offset, s);
	return err ? err : replace(vm, s, gpa, s->flags);
}

int vm_slot_flags(struct vm *vm, u16 id, u8 flags)
{
	const struct memslot *s = vm_slot_by_id(vm, id);

	if (!s)
		return trace_error(-ENOENT);
	if (flags & ~SLOT_FLAGS)
		return trace_error(-EINVAL);
	return replace(vm, s, s->gpa, flags);
}

/* --- the log of writes --- */

/* Pages [from, to) of the slot lose their right to be written. */
static int protect_pages(struct vm *vm, const struct memslot *s, u64 from, u64 to)
{
	struct flush_debt debt;
	int err = stage2_protect(&vm->stage2, GFN((s->gpa.v >> PAGE_SHIFT) + from), to - from,
				 s->prot & (u8)~S2_W, &debt);

	if (debt.generation)
		vm_pay_flush(vm, &debt);
	return err;
}

/*
 * A fault first makes a page writable and then logs it: one that comes between our two steps is
 * protected again by us, or stays writable and in the log.
 */
int vm_slot_dirty(struct vm *vm, u16 id, u64 first, u64 count, u64 *bits, u64 *dirty)
{
	const struct memslot *s = vm_slot_by_id(vm, id);
	u64 pages = s ? s->size >> PAGE_SHIFT : 0, from = ~0ull, to = 0;
	int err;

	*dirty = 0;
	if (!s)
		return trace_error(-ENOENT);
	if (!s->dirty)
		return trace_error(-EOPNOTSUPP);
	if (first % 64 || first > pages || count > pages - first)
		return trace_error(-EINVAL);
	for (u64 i = 0; i < BITMAP_WORDS(count); i++) {
		u64 mask = count - i * 64 < 64 ? BIT(count - i * 64) - 1 : ~0ull;
		u64 *word = &s->dirty[first / 64 + i];

		bits[i] = !READ_ONCE(*word)
				  ? 0
				  : __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST) & mask;
		if (!bits[i])
			continue;
		from = MIN(from, first + i * 64);
		to = MIN(first + i * 64 + 64, pages);
		*dirty += bitmap_weight(&bits[i], 64);
	}
	err = *dirty ? protect_pages(vm, s, from, to) : 0;
	for (u64 i = 0; err && i < BITMAP_WORDS(count); i++)
		__atomic_fetch_or(&s->dirty[first / 64 + i], bits[i], __ATOMIC_SEQ_CST);
	return err;
}

/* --- shared objects --- */

struct list shared_memory = LIST_INIT(shared_memory);

int shared_memory_add(const char *name, u64 size)
{
	struct backing *b;
	int err = backing_create(size, VM_NONE, true, &b);

	if (err)
		return err;
	memcpy(b->name, name, strnlen(name, sizeof(b->name) - 1));
	list_add_tail(&shared_memory, &b->node);
	return 0;
}

struct backing *shared_memory_find(const char *name)
{
	list_for_each(n, &shared_memory) {
		struct backing *b = list_entry(n, struct backing, node);

		if (!strcmp(b->name, name))
			return b;
	}
	return NULL;
}

/* --- resolving --- */

struct resolution {
	enum backing_fill how;
	const u8 *from;
	bool give_up;
	u32 waited;
	bool changed;
};

/* Of n bytes in one slot. */
static int resolve_piece(struct vm *vm, const struct memslot *s, u64 gpa, u64 n,
			 struct resolution *r)
{
	u64 offset = s->offset + (gpa - s->gpa.v);
	int err;

	if (r->give_up) {
		r->waited += memory_give_up(s->backing, offset, n);
		return 0;
	}
	if (r->how == FILL_WRITABLE && !s->backing->vm)
		return -EOPNOTSUPP;
	err = backing_fill(s->backing, offset, n, r->how, r->from);
	if (r->from)
		r->from += n;
	if (err == -EEXIST)
		return 0;
	r->changed = true;
	if (r->how == FILL_WRITABLE)
		unmap(vm, gpa, gpa + n);
	r->waited += memory_resolved(s->backing, offset, n);
	return err;
}

static int resolve(struct vm *vm, gpa_t gpa, u64 size, struct resolution *r)
{
	const struct slot_map *m = vm->slots;
	u64 end = gpa.v + size, at = gpa.v, n;
	int err = 0;

	if (!size || (gpa.v | size) & ~PAGE_MASK || end < gpa.v)
		return -EINVAL;
	for (; at < end; at += n) {
		const struct memslot *s = slot_find(m, at);

		if (!s)
			return -EFAULT;
		n = MIN(end, s->gpa.v + s->size) - at;
	}
	for (at = gpa.v; at < end && !err; at += n) {
		const struct memslot *s = slot_find(m, at);

		n = MIN(end, s->gpa.v + s->size) - at;
		err = resolve_piece(vm, s, at, n, r);
	}
	return err;
}

int vm_resolve(struct vm *vm, gpa_t gpa, u64 size, enum backing_fill how, const void *from,
	       u32 *woken)
{
	struct resolution r = { .how = how, .from = from };
	int err = resolve(vm, gpa, size, &r);

	*woken = r.waited;
	return err || r.changed ? err : -EEXIST;
}

int vm_give_up(struct vm *vm, gpa_t gpa, u64 size, u32 *waited)
{
	struct resolution r = { .give_up = true };
	int err = resolve(vm, gpa, size, &r);

	*waited = r.waited;
	return err || r.waited ? err : -ESRCH;
}

/* --- memory of two VMs --- */

/* What has written nothing since it was forked is no parent: its own is as good. */
static bool becomes_parent(const struct backing *b)
{
	return b->vm && (b->own || !b->parent);
}

/* The first nr slots of an array that is no VM's any more, and the array; with their logs? */
static void drop_slots(struct vm *vm, const struct slot_map *map, u32 nr, bool logs)
{
	for (u32 i = 0; i < nr; i++) {
		struct memslot s = map->slot[i];

		if (!logs)
			s.dirty = NULL;
		slot_arrays_free(vm, &s);
		release(vm, s.backing);
	}
	map_free(vm, map);
}

/*
 * The same slots, for `vm`: of new objects, where one is a VM's own, with frames of that owner. The
 * logs of writes are copies, or the same, if it is the VM that has them.
 */
static int child_slots(const struct slot_map *from, struct vm *vm, u16 owner, struct slot_map **out)
{
	struct slot_map *map = *out = owner ? map_alloc(vm, from->nr) : NULL;
	bool logs = from != vm->slots;
	int err = 0;
	u32 n = 0;

	if (!map)
		return trace_error(-ENOMEM);
	while (n < from->nr && !err) {
		struct memslot *s = &map->slot[n];
		struct backing *b = from->slot[n].backing;

		*s = from->slot[n];
		s->generation = ++vm->slot_changes;
		if (b->vm)
			err = backing_child(becomes_parent(b) ? b : b->parent, owner, &s->backing);
		if (err)
			break;
		if (b->vm) {
			s->backing->vm = vm;
			list_add_tail(&vm->own_memory, &s->backing->node);
		}
		__atomic_fetch_add(&s->backing->users, 1, __ATOMIC_SEQ_CST);
		err = logs ? slot_arrays(vm, s, s->dirty) : slot_bias_array(vm, s);
		n++;
	}
	if (err)
		drop_slots(vm, map, n, logs);
	return err;
}

/* Children take the place of what the VM has, and nobody writes that any more. */
static int inherit(struct vm *vm)
{
	const struct slot_map *old = vm->slots;
	u16 owner = vm_new_id();
	struct slot_map *map;
	int err = child_slots(old, vm, owner, &map);

	if (err)
		return err;
	for (u32 i = 0; i < old->nr; i++) {
		const struct memslot *s = &old->slot[i];
		struct flush_debt debt;

		if (!becomes_parent(s->backing))
			continue;
		VM_BUG_ON(vm, stage2_protect_top(&vm->stage2, gpa_gfn(s->gpa),
						 s->size >> PAGE_SHIFT, &debt));
		vm_pay_flush(vm, &debt);
		backing_freeze(s->backing);
	}
	frames_set_shared(vm->stage2.owner, true);
	vm->stage2.owner = owner;
	publish(vm, map);
	drop_slots(vm, old, old->nr, false);
	return vm->dead ? trace_error(-EUCLEAN) : 0;
}

int vm_fork_memory(struct vm *vm, struct vm *to)
{
	struct slot_map *map;
	bool parents = false;
	int err;

	for (u32 i = 0; i < vm->slots->nr; i++) {
		const struct memslot *s = &vm->slots->slot[i];

		if (s->backing->vm && !slot_is_zero(s))
			return -EOPNOTSUPP;
		parents |= becomes_parent(s->backing);
		table_pool_allow(&to->stage2.pool, s->size >> PAGE_SHIFT);
	}
	err = child_slots(vm->slots, to, to->stage2.owner, &map);
	if (err)
		return err;
	publish(to, map);
	return parents ? inherit(vm) : 0;
}

/* --- a VM's own memory --- */

int vm_add_memory(struct vm *vm, gpa_t gpa, u64 size, u8 flags)
{
	u64 offset = gpa.v % EXTENT_SIZE;
	struct backing *b;
	int err = check_place(vm, gpa.v, size, offset, NULL);

	if (!err)
		err = backing_create(offset + size, vm->id, !(flags & SLOT_EXIT_ON_MISSING), &b);
	if (err)
		return err;
	b->vm = vm;
	list_add_tail(&vm->own_memory, &b->node);
	err = vm_slot_add(vm, gpa, size, b, offset, flags, NULL);
	if (err) {
		b->users++;
		release(vm, b);
	}
	return err;
}

void vm_clear_memory(struct vm *vm)
{
	const struct slot_map *m = vm->slots;

	/* The whole space at once: no leaf sticks out, so nothing is split and nothing can be
	 * missing for it. */
	if (!unmap(vm, 0, vm->stage2.max_gfn << PAGE_SHIFT))
		return;
	for (u32 i = 0; i < m->nr; i++) {
		const struct memslot *s = &m->slot[i];

		if (s->backing->vm) {
			struct backing *parent = s->backing->parent;

			backing_reset(s->backing, !(s->flags & SLOT_EXIT_ON_MISSING));
			put(parent);
		}
		memset(s->bias, 0, bias_bytes(s));
		if (s->dirty)
			memset(s->dirty, 0, dirty_bytes(s));
	}
}

/* The last slot goes, at rest. */
static void drop_last(struct vm *vm)
{
	struct slot_map *m = (struct slot_map *)vm->slots;
	const struct memslot *s = &m->slot[m->nr - 1];

	s->backing->lost |= vm_is_corrupt(vm);
	__atomic_fetch_sub(&s->backing->users, 1, __ATOMIC_SEQ_CST);
	slot_arrays_free(vm, s);
	vm->unmapped = 0;
	m->slot[--m->nr] = (struct memslot){ 0 };
	if (m->nr)
		return;
	map_free(vm, m);
	vm->slots = &no_slots;
}

static bool free_own_step(struct vm *vm)
{
	struct backing *b, *parent;

	if (list_empty(&vm->own_memory))
		return false;
	b = list_entry(vm->own_memory.next, struct backing, node);
	parent = b->parent;
	list_del(&b->node);
	b->lost |= vm_is_corrupt(vm);
	if (backing_free_step(b))
		list_add_tail(&vm->own_memory, &b->node);
	else if (parent && !__atomic_sub_fetch(&parent->users, 1, __ATOMIC_SEQ_CST))
		list_add_tail(&vm->own_memory, &parent->node);
	return true;
}

/*
 * The last GiB of the last slot: an aligned one of the guest, so that no leaf of stage 2 sticks
 * out, and nothing is split. Of a corrupt VM nothing is unmapped, and no frame is given back.
 */
bool vm_free_memory_step(struct vm *vm)
{
	const struct memslot *s = &vm->slots->slot[vm->slots->nr - 1];
	u64 from, to;

	if (!vm->slots->nr)
		return free_own_step(vm);
	to = vm->unmapped ? vm->unmapped : s->gpa.v + s->size;
	from = MAX(ALIGN_DOWN(to - 1, GIB), s->gpa.v);
	vm->unmapped = from;
	if (vm_is_corrupt(vm) || !unmap(vm, from, to) || from == s->gpa.v)
		drop_last(vm);
	return true;
}
