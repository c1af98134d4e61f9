/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "arch/x86/serial.h"
#include "arch/x86/tsc.h"
#include "debug/commands.h"
#include "debug/console.h"
#include "debug/keyboard.h"
#include "lib/error.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "tests/unit/debug_fake.h"
#include "tests/unit/host.h"
#include "mm/audit.h"
#include "svm/npt.h"
#include "virt/corruption.h"
#include "virt/enable.h"
#include "virt/hotplug.h"
#include "virt/sched.h"
#include "virt/slots.h"

struct fake_output fake_serial, fake_screen;
struct vm fake_linux, fake_lab;
struct uart fake_uart;
struct topology fake_topology;
u8 fake_typed[4096];
size_t fake_typed_len, fake_uart_room;
u32 fake_task_wakes;
u32 fake_serial_room;
u32 fake_frames_left;
s32 fake_frames_out;
char fake_called[256];
int fake_error;

u32 fake_cpu_stuck, fake_ipi_calls;

struct cpu cpus[MAX_CPUS];
struct cpumask cpus_online;
DEFINE_PERCPU(u32, cpu_id);
u32 tsc_khz = 100;
u32 nr_cpus;
struct list vm_list = LIST_INIT(vm_list);
struct spinlock vm_list_lock = SPINLOCK_INIT(RANK_VM_LIST);
const struct virt_ops *virt_ops;

static struct virt_cpu virt_cpus_fake[4];
static struct vcpu vcpus[2];
static struct task *tasks[8];
static u64 next_frame;

bool cmd_gdb(u32 argc, char **argv)
{
	(void)argv;
	return argc <= 2;
}

/* ---- Output ---- */

static void see(struct fake_output *o, char c)
{
	if (o->sequence) {
		if (o->sequence == 2 && c == 'K')
			o->line_len = o->column;
		if (o->sequence == 2 && c == 'J')
			o->line_len = o->column = 0;
		o->sequence =
			o->sequence == 1 && c == '[' ? 2 : (o->sequence == 2 && c < '@' ? 2 : 0);
	} else if (c == 0x1b) {
		o->sequence = 1;
	} else if (c == '\r') {
		o->column = 0;
	} else if (c == '\n') {
		o->line_len = o->column =
			0; /* a terminal keeps the column: none of our lines relies on it */
		o->lines++;
	} else if (c == '\b') {
		o->column -= o->column > 0;
	} else if (c >= ' ' && o->column < sizeof(o->line) - 1) {
		o->line[o->column++] = c;
		if (o->column > o->line_len)
			o->line_len = o->column;
	}
	o->line[o->line_len] = '\0';
}

static void record(struct fake_output *o, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (o->len < FAKE_WRITTEN)
			o->text[o->len++] = bytes[i];
		see(o, bytes[i]);
	}
	o->text[o->len] = '\0';
}

u32 serial_room(void)
{
	return MIN(fake_serial_room, 32768u);
}

void serial_write(const char *bytes, size_t n)
{
	if (fake_serial_room != ~0u && n > fake_serial_room)
		abort(); /* the CPU would wait for the line */
	if (fake_serial_room != ~0u)
		fake_serial_room -= (u32)n;
	record(&fake_serial, bytes, n);
}

void screen_write(const char *bytes, size_t n)
{
	record(&fake_screen, bytes, n);
}

#define ROWS 40
static char rows[SCREEN_PAGES][ROWS][256];
enum screen_page fake_page;

void screen_show(enum screen_page page)
{
	fake_page = page;
}

void screen_status(u32 y, const char *text, size_t n)
{
	if (y < ROWS)
		snprintf(rows[SCREEN_STATUS][y], sizeof(rows[0][0]), "%.*s", (int)n, text);
}

u32 screen_row(u32 y, const char **text)
{
	if (y >= ROWS)
		return SCREEN_NO_ROW;
	*text = rows[fake_page][y];
	return (u32)strlen(*text);
}

void fake_clear(void)
{
	fake_serial.len = fake_screen.len = 0;
	fake_serial.text[0] = fake_screen.text[0] = '\0';
	fake_called[0] = '\0';
}

bool fake_said(const char *text)
{
	return strstr(fake_serial.text, text) != NULL;
}

void fake_guest(const char *text)
{
	fake_uart.output(fake_uart.arg, (const u8 *)text, strlen(text));
}

void fake_type(const char *text)
{
	while (*text)
		console_input((u8)*text++);
}

/* ---- The guest's UART, tasks, frames ---- */

size_t uart_receive(struct uart *u, const u8 *bytes, size_t n)
{
	size_t take = MIN(n, fake_uart_room);

	(void)u;
	take = MIN(take, sizeof(fake_typed) - fake_typed_len);
	memcpy(fake_typed + fake_typed_len, bytes, take);
	fake_typed_len += take;
	fake_uart_room -= take;
	return take;
}

void power_press(struct power *p, enum power_button button)
{
	(void)p;
	snprintf(fake_called, sizeof(fake_called), "press %u", button);
}

void task_add(struct task *t, u32 cpu, void (*run)(struct task *t))
{
	t->cpu = cpu;
	t->run = run;
	t->pending = false;
	for (u32 i = 0; i < ARRAY_SIZE(tasks); i++) {
		if (tasks[i] && tasks[i] != t)
			continue;
		tasks[i] = t;
		return;
	}
	abort();
}

void task_wake(struct task *t)
{
	t->pending = true;
	fake_task_wakes++;
}

void fake_run_tasks(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(tasks) && tasks[i]; i++) {
		struct task *t = tasks[i];

		if (t->cpu == fake_cpu_stuck || !t->pending)
			continue;
		t->pending = false;
		this_cpu(cpu_id) = t->cpu;
		t->run(t);
		this_cpu(cpu_id) = 0;
	}
}

/* ---- Other CPUs: they run while this one looks at the clock ---- */

u64 fake_now;

u64 rdtsc(void)
{
	if (!this_cpu(cpu_id))
		fake_run_tasks();
	return fake_now += 100;
}

u64 read_flags(void)
{
	return 0;
}

void irq_disable(void)
{
}

void irq_enable(void)
{
}

u64 clock_ns(void)
{
	return tsc_to_ns(fake_now);
}

struct timer *fake_timer;

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
	*t = (struct timer){ .fire = fire };
}

void timer_arm(struct timer *t, u64 deadline)
{
	t->deadline = deadline;
	fake_timer = t;
}

void (*fake_key)(enum screen_page page);

bool keyboard_init(void (*pressed)(enum screen_page page))
{
	fake_key = pressed;
	return true;
}

static int (*handlers[IPI_KINDS])(void *arg);

void ipi_set_handler(enum ipi_kind kind, int (*handler)(void *arg))
{
	handlers[kind] = handler;
}

int ipi_call(enum ipi_kind kind, const struct cpumask *mask, void *arg, int results[MAX_CPUS])
{
	u32 me = this_cpu(cpu_id);
	int err = 0;

	(void)results;
	if (kind == IPI_LOOK || kind == IPI_MSR) {
		for_each_cpu(cpu, mask) {
			this_cpu(cpu_id) = cpu;
			err = handlers[kind](arg);
		}
		this_cpu(cpu_id) = me;
		return err;
	}
	fake_ipi_calls++;
	return this_cpu(cpu_id) == 2 && fake_ipi_calls % 2 ? -ETIMEDOUT : 0;
}

pfn_t frame_alloc_order(u32 order, enum frame_kind kind, u16 vm)
{
	pfn_t f = PFN(next_frame);

	(void)kind, (void)vm;
	if (!fake_frames_left)
		return PFN_NONE;
	fake_frames_left--;
	next_frame += 1ull << order;
	fake_frames_out += 1 << order;
	return f;
}

void *frame_alloc_zero(enum frame_kind kind, u16 vm)
{
	pfn_t f = frame_alloc_order(0, kind, vm);

	return pfn_valid(f) ? memset(pfn_ptr(f), 0, PAGE_SIZE) : NULL;
}

int frame_free_order(pfn_t f, u32 order, enum frame_kind kind, u16 vm)
{
	(void)f, (void)kind, (void)vm;
	fake_frames_out -= 1 << order;
	return 0;
}

int frame_free(pfn_t f, enum frame_kind kind, u16 vm)
{
	return frame_free_order(f, 0, kind, vm);
}

enum on_corruption on_corruption;
u64 corruptions;

u64 rmap_set_memory(void)
{
	return 8 * KIB;
}

/* One VM's 4 KiB leaf at gfn 0x11 and a 2 MiB leaf of the other, over frames from 0x400 on. */
void rmap_for_each(pfn_t pfn, bool (*visit)(void *arg, u64 key, pfn_t first), void *arg)
{
	if (pfn.v >> 9 != 2)
		return;
	if (pfn.v == 0x412)
		visit(arg, rmap_key(fake_linux.id, 0, 1, 0x11) | RMAP_OLD, pfn);
	visit(arg, rmap_key(fake_lab.id, 0, 2, 0x800), PFN(0x400));
}

u64 rmap_count(pfn_t pfn)
{
	return pfn.v >> 9 == 2 ? 1 + (pfn.v == 0x412) : 0;
}

struct frame_owner frame_owner(pfn_t f)
{
	return (struct frame_owner){ .kind = f.v >> 9 == 2 ? FRAME_GUEST : FRAME_FREE,
				     .vm = f.v >> 9 == 2 ? fake_lab.id : VM_NONE };
}

const char *audit_kind_name(enum audit_kind kind)
{
	return kind == AUDIT_LEAF_NO_KEY ? "leaf-without-key" : "other";
}

/* Nothing, or for one VM a finding. */
void audit_run(struct audit *a)
{
	struct audit_finding f = { .kind = AUDIT_LEAF_NO_KEY,
				   .stage2 = &fake_lab.stage2,
				   .level = 1,
				   .gfn = GFN(5),
				   .pfn = PFN(0x405),
				   .seen = 0x405007,
				   .expected = 0x51 };

	a->tables = 4;
	a->leaves = a->keys = 3;
	if (a->only == &fake_lab.stage2) {
		a->findings++;
		a->report(a->arg, &f);
	}
}

void stage2_walk(struct stage2 *s, gfn_t gfn,
		 void (*visit)(void *arg, u8 level, hpa_t table, u32 index, u64 entry), void *arg)
{
	(void)s;
	visit(arg, 4, HPA(0x1000), 0, 0x2007);
	visit(arg, 3, HPA(0x2000), 1, 0x3007);
	visit(arg, 2, HPA(0x3000), 2, gfn.v & 512 ? 0 : 0x4000e7);
}

void frames_stats(struct frame_stats *out)
{
	for (u32 i = 0; i < FRAME_KINDS; i++)
		out->frames[i] = i * 256;
	out->whole_free_extents = 17;
}

bool frames_shared(u16 owner)
{
	return owner == VM_NONE;
}

u64 frames_of_vm(u16 vm)
{
	return vm * 65536ull;
}

const char *frame_kind_name(enum frame_kind kind)
{
	return kind == FRAME_FREE ? "free" : (kind == FRAME_GUEST ? "guest memory" : "other");
}

/* ---- virt ---- */

struct vm *vm_find(const char *name)
{
	list_for_each(node, &vm_list) {
		struct vm *vm = list_entry(node, struct vm, node);

		if (!strcmp(vm->name, name))
			return vm;
	}
	return NULL;
}

int vm_start(struct vm *vm)
{
	snprintf(fake_called, sizeof(fake_called), "start %s", vm->name);
	return fake_error;
}

void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	(void)fmt;
	snprintf(fake_called, sizeof(fake_called), "stop %s %d", vm->name, why);
}

const char *stop_reason_name(enum stop_reason why)
{
	return why == STOP_NONE ? "none" : "triple fault";
}

const char *exit_kind_name(enum exit_kind kind)
{
	static const char *const names[EXIT_KINDS] = {
		[EXIT_IRQ] = "irq", [EXIT_CPUID] = "cpuid", [EXIT_IO] = "io"
	};

	return names[kind] ? names[kind] : "other";
}

const struct tsc_skew *tsc_skew(u32 id)
{
	static const struct tsc_skew skew = { .min = -7, .max = 5, .known = true, .agrees = true };

	(void)id;
	return &skew;
}

const struct topology *topo_current(void)
{
	return &fake_topology;
}

struct split_lock_core fake_core;
enum split_lock_state fake_split_lock;
u32 fake_renewed;

u32 topo_core(u32 cpu)
{
	return fake_topology.why[0] ? CPU_ID_NONE : cpu & ~1u;
}

enum split_lock_state split_lock_state(void)
{
	return fake_split_lock;
}

const char *split_lock_why(void)
{
	return "the CPUs don't have it";
}

void split_lock_place(u32 *cpu, u64 *rip)
{
	*cpu = 1;
	*rip = 0x1234;
}

int split_lock_switch(bool on)
{
	if (fake_split_lock == SPLIT_LOCK_UNSUPPORTED)
		return -EOPNOTSUPP;
	if (on == (fake_split_lock == SPLIT_LOCK_ON))
		return -EALREADY;
	fake_split_lock = on ? SPLIT_LOCK_ON : SPLIT_LOCK_OFF;
	return 0;
}

int split_lock_read_cpu(u32 cpu, struct split_lock_core *out)
{
	*out = fake_core;
	return cpu == 2 ? -ETIMEDOUT : 0;
}

const char *split_policy_name(enum split_policy policy)
{
	return (const char *[]){ "silent", "warn", "fatal", "off", "ratelimit" }[policy];
}

void split_renew(struct vm *vm)
{
	(void)vm;
	fake_renewed++;
}

void split_set_policy(struct vm *vm, enum split_policy policy, u32 rate)
{
	vm->split.policy = (u8)policy;
	vm->split.rate = rate;
}

void symbol_format(u64 address, char *buf, size_t size)
{
	snprintf(buf, size, "somewhere+%#lx", address);
}

bool topo_siblings(u32 cpu, struct cpumask *mask)
{
	*mask = (struct cpumask){ { cpu < 2 ? 3 : BIT(cpu) } };
	return !fake_topology.why[0] && cpu < 3;
}

const struct virt_cpu *virt_cpu(u32 cpu)
{
	return &virt_cpus_fake[cpu];
}

u32 virt_diff(u32 cpu,
	      void (*emit)(void *arg, const char *field, const char *rule, u64 expected, u64 seen),
	      void *arg)
{
	if (cpu == 2)
		emit(arg, "7_ebx", "superset", 0xff, 0x7f);
	return cpu == 2;
}

static u32 virt_users = 1;

bool virt_enabled(void)
{
	return virt_users;
}

int virt_enable_get(void)
{
	virt_users++;
	return 0;
}

void virt_enable_put(void)
{
	virt_users--;
}

/* ---- vCPUs, and what they see ---- */

static u64 fake_reg(struct vcpu *v, enum vreg reg)
{
	return v->loaded_cpu == this_cpu(cpu_id) ? fake_regs[reg] : ~0ull;
}

static void fake_seg(struct vcpu *v, enum vseg seg, struct segment *out)
{
	(void)v;
	*out = (struct segment){ .base = 0x1000ull * seg, .limit = 0xffff, .selector = 8 };
}

static void fake_load(struct vcpu *v)
{
	v->loaded_cpu = this_cpu(cpu_id);
	fake_loads++;
}

static void fake_put(struct vcpu *v)
{
	v->loaded_cpu = CPU_NONE;
}

static void fake_fields(struct vcpu *v, void (*f)(void *arg, const char *name, u64 value),
			void *arg)
{
	f(arg, "exit_code", 0x72);
	f(arg, "rip", v->rip);
	f(arg, "intercept2", 0x8000000000010005);
	f(arg, "PROC_CONTROLS", 0x80000006);
	f(arg, "np_control", 0);
	f(arg, "event_inj", 0x80000b0e);
	f(arg, "EXIT_INTR_INFO", 0xb0e);
}

const struct virt_ops fake_ops = {
	.vcpu_load = fake_load,
	.vcpu_put = fake_put,
	.get_reg = fake_reg,
	.get_seg = fake_seg,
	.fields = fake_fields,
	.fields_name = "vmcb",
};
u64 fake_regs[VREGS];
u32 fake_loads;
u8 fake_guest_memory[FAKE_GUEST_MEMORY];

u64 vcpu_gpr(struct vcpu *v, enum gpr n)
{
	return v->gpr[n];
}

enum memory_fault_kind guest_peek(struct vm *vm, gpa_t gpa, void *dst, size_t len)
{
	(void)vm;
	if (gpa.v > sizeof(fake_guest_memory) - len)
		return gpa.v >= FAKE_MISSING ? MEMORY_MISSING : MEMORY_NO_MEMORY;
	memcpy(dst, fake_guest_memory + gpa.v, len);
	return MEMORY_OK;
}

int rdmsr_safe(u32 msr, u64 *value)
{
	*value = msr == 0x10 ? 0x1000 + this_cpu(cpu_id) : 0;
	return msr == 0x10 ? 0 : -EIO;
}

const char *hotplug_begin(u32 cpu, enum hotplug_goal goal, u32 rounds)
{
	snprintf(fake_called, sizeof(fake_called), "%s %u %u",
		 goal == HOTPLUG_OFFLINE ? "offline" : "online", cpu, rounds);
	return cpu ? NULL : "it is the boot CPU";
}

const struct cpumask *virt_cpus(void)
{
	static const struct cpumask mask = { { 3 } };

	return &mask;
}

const char *virt_obstacle(void)
{
	return "";
}

const struct virt_caps *virt_reference(void)
{
	return &virt_cpus_fake[0].caps;
}

const struct cap_field *cap_field(const struct cap_table *vendor, u32 i)
{
	static const struct cap_field field = { .name = "signature" };

	(void)vendor, (void)i;
	return &field;
}

u32 sched_load(u32 cpu)
{
	return cpu == 1;
}

const struct sched_stats *sched_stats(u32 cpu)
{
	static const struct sched_stats stats = { .runs = 7,
						  .slices = 3,
						  .given = 1,
						  .wakeups = 2,
						  .wakeup_ticks = 800,
						  .wakeup_max = 600,
						  .wakeup_us = { [11] = 1, [13] = 1 } };
	static const struct sched_stats none;

	return cpu == 1 ? &stats : &none;
}

const struct vcpu *sched_current(u32 cpu)
{
	return cpu == 1 ? &vcpus[0] : NULL;
}

u32 sched_waiting(u32 cpu)
{
	return cpu == 1;
}

u64 tsc_to_ns(u64 ticks)
{
	return ticks * 1000000 / tsc_khz;
}

u64 sched_ran(const struct vcpu *v)
{
	return v->ran;
}

/* ---- The machine ---- */

static void add_vm(struct vm *vm, u16 id, const char *name)
{
	memset(vm, 0, sizeof(*vm));
	vm->id = id;
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	list_add_tail(&vm_list, &vm->node);
	vm->stage2.vm = id;
	vm->stage2.fmt = &npt_format;
	vm->stage2.max_gfn = 1 << 20;
	vm->slots = &no_slots;
}

/* ---- Memory ---- */

const struct slot_map no_slots = { .slot = { { .size = 0 } } };
int backing_fetch(struct backing *b, u64 offset, struct backing_fetch *f)
{
	(void)b, (void)offset, (void)f;
	return -ENOENT;
}

void backing_fetch_drop(struct backing *b, struct backing_fetch *f)
{
	(void)b, (void)f;
}

static struct backing object = { .size = 256 * MIB };
static const struct slot_map slots = {
	.nr = 1,
	.slot = { { .size = 256 * MIB,
		    .backing = &object,
		    .id = 3,
		    .generation = 7,
		    .flags = SLOT_NOEXEC | SLOT_EXIT_ON_MISSING },
		  { .size = 0 } },
};

const char *memory_fault_name(enum memory_fault_kind kind)
{
	return kind == MEMORY_MISSING ? "missing" : "?";
}

int vm_resolve(struct vm *vm, gpa_t gpa, u64 size, enum backing_fill how, const void *from,
	       u32 *woken)
{
	(void)from;
	snprintf(fake_called, sizeof(fake_called), "resolve %s %lx %lx %u", vm->name, gpa.v, size,
		 how);
	*woken = 2;
	return fake_error;
}

struct backing *shared_memory_find(const char *name)
{
	return strcmp(name, "mailbox") ? NULL : &object;
}

const struct memslot *vm_slot_by_id(const struct vm *vm, u16 id)
{
	for (u32 i = 0; i < vm->slots->nr; i++)
		if (vm->slots->slot[i].id == id)
			return &vm->slots->slot[i];
	return NULL;
}

int vm_slot_add(struct vm *vm, gpa_t gpa, u64 size, struct backing *b, u64 offset, u8 flags,
		u16 *id)
{
	(void)b;
	snprintf(fake_called, sizeof(fake_called), "add %s %lx %lx %lx %x", vm->name, gpa.v, size,
		 offset, flags);
	*id = 12;
	return fake_error;
}

int vm_slot_remove(struct vm *vm, u16 id)
{
	snprintf(fake_called, sizeof(fake_called), "remove %s %u", vm->name, id);
	return fake_error;
}

int vm_slot_move(struct vm *vm, u16 id, gpa_t gpa)
{
	snprintf(fake_called, sizeof(fake_called), "move %s %u %lx", vm->name, id, gpa.v);
	return fake_error;
}

int vm_slot_flags(struct vm *vm, u16 id, u8 flags)
{
	snprintf(fake_called, sizeof(fake_called), "flags %s %u %x", vm->name, id, flags);
	return fake_error;
}

/* Pages 3 to 5 and the last one. */
int vm_slot_dirty(struct vm *vm, u16 id, u64 first, u64 count, u64 *bits, u64 *dirty)
{
	(void)vm, (void)id;
	memset(bits, 0, BITMAP_WORDS(count) * sizeof(u64));
	*dirty = 0;
	if (!first)
		bits[0] = 7 << 3, *dirty = 3;
	if (first + count == 256 * MIB / PAGE_SIZE)
		bitmap_set(bits, (u32)count - 1), *dirty += 1;
	return fake_error;
}

int vm_give_up(struct vm *vm, gpa_t gpa, u64 size, u32 *waited)
{
	snprintf(fake_called, sizeof(fake_called), "give up %s %lx %lx", vm->name, gpa.v, size);
	*waited = 1;
	return fake_error;
}

static void add_linux(void)
{
	add_vm(&fake_linux, 1, "linux");
	fake_linux.state = VM_RUNNING;
	fake_linux.nr_vcpus = 2;
	fake_linux.slots = &slots;
	fake_linux.cpus.bits[0] = 0xb;
	memset(vcpus, 0, sizeof(vcpus));
	for (u32 i = 0; i < 2; i++) {
		vcpus[i].vm = &fake_linux;
		vcpus[i].index = i;
		vcpus[i].state = VCPU_RUNNING;
		vcpus[i].loaded_cpu = CPU_NONE;
		vcpus[i].trace.who = (u32)TRACE_WHO(1, i);
		vcpus[i].exits[EXIT_CPUID] = 5 + i;
		fake_linux.vcpus[i] = &vcpus[i];
	}
	vcpus[0].exits[EXIT_IO] = 700;
	vcpus[0].exits[EXIT_IRQ] = 70;
}

void fake_open(const struct monitor_actions *actions)
{
	host_arena_open(16 * MIB);
	host_hooks_open();
	memset(&fake_serial, 0, sizeof(fake_serial));
	memset(&fake_screen, 0, sizeof(fake_screen));
	list_init(&vm_list);
	add_linux();
	add_vm(&fake_lab, 2, "lab");
	nr_cpus = 4;
	for (u32 i = 0; i < nr_cpus; i++) {
		cpus[i] = (struct cpu){ .id = i,
					.apic_id = i * 2,
					.state = i == 3 ? CPU_DEAD : CPU_ONLINE };
		virt_cpus_fake[i] = (struct virt_cpu){ .read = i != 3,
						       .excluded = i == 2,
						       .differences = i == 2 };
		virt_cpus_fake[i].caps.count = 1;
		virt_cpus_fake[i].caps.value[0] = 0x906ea;
		virt_cpus_fake[i].state.enabled = i < 2;
	}
	cpus[3].why = "no answer to SIPI";
	cpus_online = (struct cpumask){ { 7 } };
	fake_cpu_stuck = CPU_ID_NONE;
	fake_topology =
		(struct topology){ .packages_known = true, .smt_shift = 2, .package_shift = 3 };
	virt_ops = NULL;
	memset(fake_guest_memory, 0, sizeof(fake_guest_memory));
	memset(fake_regs, 0, sizeof(fake_regs));
	memset(&fake_uart, 0, sizeof(fake_uart));
	fake_typed_len = 0;
	fake_uart_room = 4096;
	fake_frames_left = 100;
	fake_frames_out = 0;
	next_frame = 1;
	fake_error = 0;
	fake_task_wakes = 0;
	fake_serial_room = ~0u;
	fake_timer = NULL;
	fake_page = SCREEN_LOG;
	log_sink = console_log;
	console_init();
	monitor_init(actions);
}
