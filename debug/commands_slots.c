/* SPDX-License-Identifier: MIT */
/* slot: change what a VM sees where. populate: memory that it waits for. And what `vm NAME info`
 * says of its memory. */
#include "debug/commands.h"
#include "lib/error.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "mm/lazy.h"
#include "virt/slots.h"

static const char *const flag_names[] = { "read-only", "no-exec", "shared", "log-dirty",
					  "exit-on-missing" };

static void print_flags(u8 flags)
{
	monitor_printf(" flags=");
	for (u32 i = 0; i < ARRAY_SIZE(flag_names); i++)
		if (flags & BIT(i))
			monitor_printf("%s%s", flags & (BIT(i) - 1) ? "," : "", flag_names[i]);
	monitor_printf("%s\n", flags ? "" : "none");
}

static void print_fault(const struct vcpu *v)
{
	const struct memory_fault f = v->wait.fault;

	if (!f.sequence)
		return;
	monitor_printf("vm=%s vcpu=%u memory_fault=%lu waits=%s kind=%s gpa=0x%lx size=0x%lx "
		       "access=%c slot=",
		       v->vm->name, v->index, f.sequence, READ_ONCE(v->wait.backing) ? "yes" : "no",
		       memory_fault_name(f.kind), f.gpa.v, f.size, "-rw-x"[f.access]);
	if (f.slot == MEMORY_NO_SLOT)
		monitor_printf("none");
	else
		monitor_printf("%u generation=%u", f.slot, f.generation);
	if (f.gva_valid)
		monitor_printf(" gva=0x%lx", f.gva);
	monitor_printf(" walk=%s rip=0x%lx again=%u\n", f.walk ? "yes" : "no", f.rip, f.again);
}

/* What its object is loaded from by need, and which pieces came so far, as a hot set. */
static void print_image(const struct vm *vm, const struct memslot *s)
{
	const struct lazy_image *image = lazy_image_of(s->backing);
	u32 fetched = image ? READ_ONCE(image->fetched) : 0;

	if (!image)
		return;
	monitor_printf("vm=%s slot=%u image=%s gpa=0x%lx pieces=%u fetched=%u ahead=%u damaged=%u "
		       "hot=",
		       vm->name, s->id, image->source.name,
		       s->gpa.v + image->source.from - s->offset, image->pieces.nr, fetched,
		       image->ahead, image->damaged);
	for (u32 i = 0; i < MIN(fetched, (u32)LAZY_ORDER); i++)
		monitor_printf("%s%u", i ? "," : "", image->order[i]);
	monitor_printf("\n");
}

void print_vm_memory(const struct vm *vm)
{
	const struct slot_map *m = vm_slots(vm);

	for (u32 i = 0; i < m->nr; i++) {
		const struct memslot *s = &m->slot[i];

		print_image(vm, s);
		monitor_printf("vm=%s slot=%u gpa=0x%lx size=0x%lx object=%s offset=0x%lx "
			       "generation=%u",
			       vm->name, s->id, s->gpa.v, s->size,
			       s->backing->name[0] ? s->backing->name : "own", s->offset,
			       s->generation);
		print_flags(s->flags);
	}
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		print_fault(vm->vcpus[i]);
}

/* --- slot --- */

const char *monitor_slot_error(int err)
{
	switch (err) {
	case -ENOENT:
		return "it has no such slot";
	case -EINVAL:
		return "the address is not a multiple of 4 KiB";
	case -EDOM:
		return "address and offset in the object differ within 2 MiB";
	case -ERANGE:
		return "beyond what the CPUs' physical addresses reach";
	case -EEXIST:
		return "overlaps another slot";
	case -EADDRINUSE:
		return "overlaps a device";
	case -EOPNOTSUPP:
		return "its writes are not logged (flag log-dirty)";
	default:
		return error_name(err);
	}
}

static void slot_report(char **argv, int err)
{
	if (err)
		monitor_printf("slot %s: %s: %s\n", argv[1], argv[2], monitor_slot_error(err));
	else
		monitor_printf("vm=%s slot=%s %s=ok\n", argv[1], argv[3], argv[2]);
}

static bool slot_add(struct vm *vm, u32 argc, char **argv)
{
	struct backing *b = shared_memory_find(argv[3]);
	bool readonly = argc == 6 && !strcmp(argv[5], "read-only");
	char number[12];
	u64 gpa;
	u16 id;
	int err;

	if (argc < 5 || (argc == 6 && !readonly) || !command_hex(argv[4], &gpa))
		return false;
	if (!b) {
		monitor_printf("slot %s: no [memory] is called %s\n", argv[1], argv[3]);
		return true;
	}
	err = vm_slot_add(vm, GPA(gpa), b->size, b, 0, SLOT_SHARED | (readonly ? SLOT_READONLY : 0),
			  &id);
	fmt_snprintf(number, sizeof(number), "%u", id);
	argv[3] = number;
	slot_report(argv, err);
	return true;
}

/* Names with commas between them, or none. */
static bool parse_flags(char *text, u8 *flags)
{
	char *next;

	*flags = 0;
	if (!strcmp(text, "none"))
		return true;
	for (; text; text = next) {
		u32 i = 0;

		next = strchr(text, ',');
		if (next)
			*next++ = 0;
		while (i < ARRAY_SIZE(flag_names) && strcmp(flag_names[i], text))
			i++;
		if (i == ARRAY_SIZE(flag_names))
			return false;
		*flags |= (u8)BIT(i);
	}
	return true;
}

/* Runs of bits, a line each; page 0 is at gpa. */
static void print_runs(const struct vm *vm, u16 id, u64 gpa, const u64 *bits, u32 n)
{
	for (u32 from = 0, to; (from = bitmap_next(bits, n, from)) < n; from = to) {
		for (to = from; to < n && bitmap_test(bits, to); to++)
			;
		monitor_printf("vm=%s slot=%u dirty=0x%lx size=0x%lx\n", vm->name, id,
			       gpa + from * PAGE_SIZE, (u64)(to - from) * PAGE_SIZE);
	}
}

static int print_dirty(struct vm *vm, const struct memslot *s)
{
	u64 bits[64], pages = s->size >> PAGE_SHIFT, total = 0, dirty;
	const u32 step = 64 * ARRAY_SIZE(bits);
	u16 id = s->id;
	gpa_t gpa = s->gpa;

	for (u64 first = 0; first < pages; first += step) {
		u32 n = (u32)MIN(pages - first, step);
		int err = vm_slot_dirty(vm, id, first, n, bits, &dirty);

		if (err)
			return err;
		total += dirty;
		if (dirty)
			print_runs(vm, id, gpa.v + first * PAGE_SIZE, bits, n);
	}
	monitor_printf("vm=%s slot=%u dirty_pages=%lu\n", vm->name, id, total);
	return 0;
}

bool cmd_slot(u32 argc, char **argv)
{
	struct vm *vm;
	u64 gpa;
	u32 id;
	u8 flags;
	int err;

	if (argc < 4 || argc > 6)
		return false;
	vm = command_vm(argv[0], argv[1]);
	if (!vm)
		return true;
	if (!strcmp(argv[2], "add"))
		return slot_add(vm, argc, argv);
	if (!command_number(argv[3], MEMORY_NO_SLOT, &id))
		return false;
	if (argc == 4 && !strcmp(argv[2], "remove")) {
		err = vm_slot_remove(vm, (u16)id);
	} else if (argc == 5 && !strcmp(argv[2], "move") && command_hex(argv[4], &gpa)) {
		err = vm_slot_move(vm, (u16)id, GPA(gpa));
	} else if (argc == 5 && !strcmp(argv[2], "flags") && parse_flags(argv[4], &flags)) {
		err = vm_slot_flags(vm, (u16)id, flags);
	} else if (argc == 4 && !strcmp(argv[2], "dirty")) {
		const struct memslot *s = vm_slot_by_id(vm, (u16)id);

		err = s ? print_dirty(vm, s) : -ENOENT;
		if (!err)
			return true;
	} else {
		return false;
	}
	slot_report(argv, err);
	return true;
}

/* --- populate --- */

/* Bytes: 0x..., or a decimal number with K, M or G, which is cut off. */
static bool parse_size(char *text, u64 *size)
{
	static const char units[] = "KMG";
	char *last = text + strlen(text) - 1;
	const char *unit;
	u32 number;

	if (text[0] == '0' && text[1] == 'x')
		return command_hex(text, size);
	unit = last < text ? NULL : strchr(units, *last);
	if (!unit)
		return false;
	*last = 0;
	if (!command_number(text, 1u << 24, &number))
		return false;
	*size = (u64)number << 10 * (unit - units + 1);
	return true;
}

/* What resolving failed with, in the user's words. */
static const char *why_not(int err)
{
	switch (err) {
	case -EINVAL:
		return "the range is not a multiple of 4 KiB";
	case -EFAULT:
		return "the VM has no memory in some of that range (see vm NAME info)";
	case -EEXIST:
		return "nothing is missing there";
	case -EBUSY:
		return "it is being fetched";
	case -ESRCH:
		return "no vCPU waits there";
	case -EOPNOTSUPP:
		return "others may see that memory, or its source delivers more at a time";
	default:
		return error_name(err);
	}
}

bool cmd_populate(u32 argc, char **argv)
{
	static const char *const modes[] = { [FILL_ZERO] = "zero",
					     [FILL_READONLY] = "ro",
					     [FILL_POISON] = "poison",
					     [FILL_WRITABLE] = "rw" };
	enum backing_fill how = FILL_ZERO;
	u64 gpa, size = PAGE_SIZE;
	bool give_up = false, known = argc < 5;
	u32 waited = 0;
	struct vm *vm;
	int err;

	if (argc < 3 || argc > 5 || !command_hex(argv[2], &gpa) ||
	    (argc > 3 && !parse_size(argv[3], &size)))
		return false;
	for (u32 i = 0; argc == 5 && i < ARRAY_SIZE(modes); i++) {
		if (modes[i] && !strcmp(argv[4], modes[i])) {
			how = i;
			known = true;
		}
	}
	give_up = argc == 5 && !strcmp(argv[4], "giveup");
	if (!known && !give_up)
		return false;
	vm = command_vm(argv[0], argv[1]);
	if (!vm)
		return true;
	err = give_up ? vm_give_up(vm, GPA(gpa), size, &waited)
		      : vm_resolve(vm, GPA(gpa), size, how, NULL, &waited);
	if (err)
		monitor_printf("populate %s: %s\n", argv[1], why_not(err));
	else
		monitor_printf("vm=%s populate=ok gpa=0x%lx size=0x%lx waited=%u\n", argv[1], gpa,
			       size, waited);
	return true;
}
