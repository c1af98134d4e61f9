/* SPDX-License-Identifier: MIT */
#include "virt/state.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "lib/xxh64.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/cpuid.h"
#include "virt/fpu.h"
#include "virt/ops.h"
#include "virt/slots.h"

#define VM_ROOM	  (16 * KIB) /* what all parts need that are there once, or for each device */
#define VCPU_ROOM (4 * KIB)  /* beside the FPU's */
#define SLOT_ROOM 128

bool state_refuse(struct state *s, const char *what, u64 value)
{
	if (!s->why[0])
		fmt_snprintf(s->why, sizeof(s->why), "%s %u: %s: %#lx", s->part.name, s->part.index,
			     what, value);
	return false;
}

static bool allowed(const struct state_field *f, u64 value, u64 own)
{
	return f->rule == STATE_BITS	  ? !(value & ~f->limit)
	       : f->rule == STATE_MAX	  ? value <= f->limit
	       : f->rule == STATE_ADDRESS ? (s64)(value << 16) >> 16 == (s64)value
					  : f->rule != STATE_SAME || value == own;
}

/* A moment's distance from now, and back; 0, "never", is none, and no distance is 0. */
static u64 convert(u8 rule, u64 value, u64 now)
{
	if (rule == STATE_OFFSET)
		return value - now;
	if (rule == STATE_TIME && value)
		return value + now ? value + now : 1;
	return value;
}

/* No look at each value: any will do, they are Corbel's own, or as they have to be. */
static bool all_good(const struct state *s, const struct state_field *f, const u8 *live)
{
	if (s->own)
		return f->rule < STATE_TIME;
	return f->limit == ~0ull || (f->rule == STATE_SAME && !memcmp(s->at, live, f->size));
}

static void move_value(struct state *s, const struct state_field *f, u8 *live)
{
	u8 *to = s->loading ? live : s->at, *from = s->loading ? s->at : live;
	u64 value = 0, own = 0;

	memcpy(&own, live, f->each);
	memcpy(&value, from, f->each);
	if (s->loading && !allowed(f, value, own)) {
		state_refuse(s, f->name, value);
		return;
	}
	value = convert(f->rule, value, s->loading ? s->now : 0 - s->now);
	memcpy(to, &value, f->each);
	s->at += f->each;
}

static void move(struct state *s, const struct state_field *f, u8 *live)
{
	if (f->size > s->end - s->at) {
		state_refuse(s, "cut short", (u64)(s->end - s->at));
	} else if (all_good(s, f, live)) {
		memcpy(s->loading ? live : s->at, s->loading ? s->at : live, f->size);
		s->at += f->size;
	} else {
		for (u32 i = 0; i < f->size && !s->why[0]; i += f->each)
			move_value(s, f, live + i);
	}
}

bool state_fields(struct state *s, const char *name, u32 index, void *base,
		  const struct state_field *fields, u32 nr)
{
	const struct state_field tag = { "its place", 0, sizeof(s->part), 8, STATE_SAME, 0 };

	s->part = (struct state_part){ .index = index, .fields = nr };
	memcpy(s->part.name, name, strlen(name));
	if (!s->why[0])
		move(s, &tag, (u8 *)&s->part);
	for (u32 i = 0; !s->why[0] && i < nr; i++)
		move(s, &fields[i], (u8 *)base + fields[i].offset);
	return !s->why[0];
}

bool state_bytes(struct state *s, const char *name, u32 index, void *bytes, u32 size)
{
	const struct state_field field = { "bytes", 0, (u16)size, 1, STATE_ANY };

	return state_fields(s, name, index, bytes, &field, 1);
}

/* --- what belongs to no vCPU --- */

/* The guest knows which CPU it runs on. How fast its clocks are it was told, and is kept so. */
#define CPUID(from, to, ...) STATE_RUN(struct cpuid_policy, from, to, __VA_ARGS__)
static const struct state_field cpuid_fields[] = {
	CPUID(basic[0].eax, basic[0x14].edx, STATE_SAME),
	CPUID(ext[0].eax, hv[0xf].edx, STATE_SAME),
	CPUID(cache[0].eax, xsave[CPUID_XSAVE_SUBS - 1].edx, STATE_SAME),
	CPUID(basic[0x15], basic[0x16], STATE_ANY),
	CPUID(hv[0x10], hv[0x10], STATE_ANY),
	CPUID(tsc_khz, apic_khz, STATE_ANY),
};

static const struct state_field vm_fields[] = {
	STATE_FIELD(struct vm, nr_vcpus, STATE_SAME),
	STATE_FIELD(struct vm, tsc_base, STATE_TIME),
};

static const struct state_field memory_fields[] = {
	STATE_RUN(struct state_memory, gpa, flags, STATE_SAME),
};

static void slot_state(struct state *s, u32 index, const struct memslot *slot)
{
	struct state_memory m = { .gpa = slot->gpa.v, .size = slot->size };

	m.flags = slot->flags & (SLOT_READONLY | SLOT_NOEXEC | SLOT_SHARED);
	STATE_PART(s, "memory", index, &m, memory_fields);
}

/* The clock before the vCPUs, whose timers go by it. */
static bool walk(struct state *s, struct vm *vm, const struct vm *memory)
{
	const struct slot_map *slots = vm_slots(memory);
	u32 khz = vm->cpuid->tsc_khz;

	STATE_PART(s, "vm", 0, vm, vm_fields);
	STATE_PART(s, "CPU", 0, vm->cpuid, cpuid_fields);
	if (vm->cpuid->tsc_khz - (khz - khz / 100) > khz / 50)
		state_refuse(s, "its TSC's kHz", vm->cpuid->tsc_khz);
	for (u32 i = 0; i < slots->nr; i++)
		slot_state(s, i, &slots->slot[i]);
	for (u32 i = 0; i < vm->nr_vcpus && !s->why[0]; i++)
		vcpu_state(s, vm->vcpus[i]);
	if (vm->irqchip && !s->why[0])
		vm->irqchip->state(vm, s);
	return !s->why[0];
}

/* --- records --- */

static u64 check_of(const struct state_header *h)
{
	return xxh64(h + 1, h->size - sizeof(*h),
		     xxh64(h, offsetof(struct state_header, check), 0));
}

void state_set_memory(struct state_header *h, const struct vm *vm)
{
	const struct slot_map *slots = vm_slots(vm);

	for (u32 i = 0, n = 0; i < slots->nr && n < STATE_OBJECTS; i++)
		if (slots->slot[i].backing->vm)
			h->memory[n++] = ptr_hpa(slots->slot[i].backing).v;
	h->check = check_of(h);
}

struct state_header *vm_save(struct vm *vm, const struct vm *memory, char *why, size_t why_len)
{
	u64 room = VM_ROOM + (u64)vm_slots(memory)->nr * SLOT_ROOM +
		   (u64)vm->nr_vcpus * (fpu_size() + VCPU_ROOM);
	pfn_t f = frame_alloc_order(frame_order(room), FRAME_HEAP, VM_NONE);
	struct state_header *h = pfn_valid(f) ? pfn_ptr(f) : NULL;
	struct state s = { .own = true, .now = rdtsc() };

	if (!h) {
		fmt_snprintf(why, why_len, "no memory for its state");
		return NULL;
	}
	s.at = (u8 *)(h + 1);
	s.end = (u8 *)h + room;
	*h = (struct state_header){ .magic = STATE_MAGIC,
				    .version = STATE_VERSION,
				    .address = pfn_hpa(f).v,
				    .order = frame_order(room),
				    .end = frames_end() };
	memcpy(h->name, vm->name, sizeof(h->name));
	if (!walk(&s, vm, memory)) {
		fmt_snprintf(why, why_len, "%s", s.why);
		state_free(h);
		return NULL;
	}
	h->size = (u32)(s.at - (u8 *)h);
	h->disk = s.disk;
	return h;
}

void state_free(struct state_header *h)
{
	h->magic[0] = 0; /* nobody is to find it in a dump */
	frame_free_order(hpa_pfn(ptr_hpa(h)), h->order, FRAME_HEAP, VM_NONE);
}

const char *state_check(const void *file, u64 length)
{
	const struct state_header *h = file;

	if (length < sizeof(*h) || h->size < sizeof(*h) || h->size > length)
		return "its saved state is cut short";
	if (h->version != STATE_VERSION)
		return "another version of Corbel saved it";
	return check_of(h) == h->check ? NULL : "its saved state is damaged";
}

int vm_load_state(struct vm *vm, const struct state_header *h, char *why, size_t why_len)
{
	struct state s = {
		.at = (u8 *)(uintptr_t)(h + 1), .loading = true, .own = h->address, .now = rdtsc()
	};
	const struct cpuid_policy own = *vm->cpuid;

	s.end = s.at + h->size - sizeof(*h);
	if (walk(&s, vm, vm) && s.at != s.end)
		state_refuse(&s, "there is more behind it", (u64)(s.end - s.at));
	if (!s.why[0])
		return 0;
	*vm->cpuid = own;
	fmt_snprintf(why, why_len, "its saved state: %s", s.why);
	return -EINVAL;
}
