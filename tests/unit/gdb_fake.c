/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/acpi.h"
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "debug/commands.h"
#include "debug/gdb_packet.h"
#include "debug/postmortem.h"
#include "tests/unit/gdb_fake.h"
#include "tests/unit/host.h"
#include "virt/enable.h"
#include "virt/exits.h"
#include "virt/guestmem.h"
#include "virt/sched.h"
#include "virt/slots.h"

struct vm gdb_other;
struct fake_vcpu gdb_second;
static struct fake_vcpu other_vcpu;
char gdb_sent[GDB_FAKE_SENT + 1];
size_t gdb_sent_len;
u64 gdb_dr[4];
bool gdb_lazy, gdb_virt_off;
DEFINE_PERCPU(u32, cpu_id);
u32 gdb_exceptions;
bool gdb_crashed;
u32 gdb_resets;
struct cpu cpus[MAX_CPUS];
u32 nr_cpus;
struct cpumask cpus_online;
static u8 fpu[2][4 * PAGE_SIZE];

/* ---- What the server stands on ---- */

struct vm *command_nth_vm(u32 i)
{
	return i == 0 ? &fake_vm : i == 1 ? &gdb_other : NULL;
}

struct vm *vm_find(const char *name)
{
	return !strcmp(name, "vm") ? &fake_vm : !strcmp(name, "other") ? &gdb_other : NULL;
}

struct vm *command_vm(const char *command, const char *name)
{
	(void)command;
	return vm_find(name);
}

void monitor_printf(const char *fmt, ...)
{
	(void)fmt;
}

void monitor_run_for(char *line, void (*output)(const char *text, size_t n))
{
	if (!strcmp(line, "long")) {
		for (u32 i = 0; i < 1000; i++)
			output("a line that is said a thousand times\n", 37);
		return;
	}
	output("ran: ", 5);
	output(line, strlen(line));
}

void vm_stop(struct vm *vm, enum stop_reason why, const char *fmt, ...)
{
	(void)fmt;
	vm->state = VM_STOPPED;
	vm->stop_reason = (u8)why;
}

static void set_state(struct vcpu *v)
{
	if (v->vm->state == VM_RUNNING)
		v->state = v->debug.hold ? VCPU_PAUSED : VCPU_RUNNABLE;
}

void gdb_rest(void)
{
	set_state(&fake_vcpu.v);
	set_state(&gdb_second.v);
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
	if (!gdb_lazy)
		set_state(v);
}

void sched_resume(struct vcpu *v)
{
	set_state(v);
}

bool sched_claim(struct vcpu *v)
{
	return v->vm->state != VM_RUNNING || v->state == VCPU_PAUSED;
}

void sched_unclaim(struct vcpu *v)
{
	(void)v;
}

enum insn_mode vcpu_mode(struct vcpu *v)
{
	(void)v;
	return INSN_32;
}

u8 vcpu_cpl(struct vcpu *v)
{
	(void)v;
	return 0;
}

u64 vcpu_gpr(struct vcpu *v, enum gpr n)
{
	return n == RSP ? virt_ops->get_reg(v, VR_RSP) : v->gpr[n];
}

void vcpu_set_gpr(struct vcpu *v, enum gpr n, u64 value)
{
	if (n == RSP)
		virt_ops->set_reg(v, VR_RSP, value);
	else
		v->gpr[n] = value;
}

void vcpu_skip_len(struct vcpu *v, u32 len)
{
	v->rip += len;
}

void vcpu_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	(void)has_error, (void)error;
	v->event.valid = true;
	v->event.vector = vector;
	gdb_exceptions++;
}

#define GUEST_SET(name, reg)                            \
	int guest_set_##name(struct vcpu *v, u64 value) \
	{                                               \
		if (value >> 32)                        \
			return -EINVAL;                 \
		virt_ops->set_reg(v, reg, value);       \
		return 0;                               \
	}
GUEST_SET(cr0, VR_CR0)
GUEST_SET(cr4, VR_CR4)
GUEST_SET(efer, VR_EFER)

#define WRITE_DR(n)             \
	void write_dr##n(u64 x) \
	{                       \
		gdb_dr[n] = x;  \
	}
WRITE_DR(0)
WRITE_DR(1)
WRITE_DR(2)
WRITE_DR(3)

void irq_disable(void)
{
}

void irq_enable(void)
{
}

u64 read_flags(void)
{
	return 0;
}

const struct virt_cpu *virt_cpu(u32 cpu)
{
	static struct virt_cpu here;

	(void)cpu;
	here.state.enabled = !gdb_virt_off;
	return &here;
}

const struct vcpu *sched_current(u32 cpu)
{
	return cpu == 1 ? &gdb_second.v : NULL;
}

/* Addresses 0x1000 to 0x1fff, which read as their low byte. */
size_t peek(void *dst, u64 address, size_t n)
{
	size_t done;

	for (done = 0; done < n && (address + done) >> 12 == 1; done++)
		((u8 *)dst)[done] = (u8)(address + done);
	return n - done;
}

static jmp_buf off;

void machine_reset(void)
{
	gdb_resets++;
	longjmp(off, 1);
}

static bool can_step(void)
{
	return true;
}

static void debug_exits(struct vcpu *v, bool breakpoints, bool debug_registers)
{
	(void)v, (void)breakpoints, (void)debug_registers;
}

static void load_or_put(struct vcpu *v)
{
	(void)v;
}

/* ---- The line ---- */

static void sent(const char *bytes, size_t n)
{
	if (n > GDB_FAKE_SENT - gdb_sent_len)
		abort();
	memcpy(gdb_sent + gdb_sent_len, bytes, n);
	gdb_sent_len += n;
	gdb_sent[gdb_sent_len] = '\0';
}

static void input(u8 c)
{
	if (!gdb_crashed)
		gdb_input(c);
	else if (!setjmp(off))
		postmortem_input(c);
}

void gdb_type(const void *bytes, size_t n)
{
	const u8 *b = bytes;

	while (n--)
		input(*b++);
	gdb_poll();
}

void gdb_say(const void *payload, size_t n)
{
	const u8 *p = payload;
	char end[4];
	u8 sum = 0;

	gdb_type("$", 1);
	for (size_t i = 0; i < n; i++) {
		u8 c = p[i];

		if (c == '$' || c == '#' || c == '}' || c == '*') {
			gdb_type("}", 1);
			sum = (u8)(sum + '}');
			c ^= 0x20;
		}
		sum = (u8)(sum + c);
		gdb_type(&c, 1);
	}
	snprintf(end, sizeof(end), "#%02x", sum);
	gdb_type(end, 3);
}

/* Decode one packet at *s, which moves behind it. Aborts if it is malformed. */
static const char *decode(const char **s)
{
	static char out[2 * GDB_PACKET + 1];
	const char *at = *s + 1;
	size_t n = 0;
	u8 sum = 0, expected;

	for (; *at != '#'; at++) {
		u8 c = (u8)*at;

		sum = (u8)(sum + c);
		if (!c || c == '$' || n > GDB_PACKET)
			abort();
		if (c == '}') {
			sum = (u8)(sum + (u8) * ++at);
			out[n++] = (char)(*at ^ 0x20);
		} else if (c == '*') {
			u8 count = (u8) * ++at;

			sum = (u8)(sum + count);
			if (count < 32 || count > 126 || !n)
				abort();
			for (u32 i = 0; i < count - 29u; i++, n++)
				out[n] = out[n - 1];
		} else {
			out[n++] = (char)c;
		}
	}
	if (gdb_get_hex(at + 1, &expected, 1) != 1 || expected != sum)
		abort();
	out[n] = '\0';
	*s = at + 3;
	return out;
}

const char *gdb_last(void)
{
	const char *s = gdb_sent, *last = "(none)";

	while (*s) {
		if (*s == '$')
			last = decode(&s);
		else
			s++;
	}
	return last;
}

const char *gdb_ask(const char *payload)
{
	gdb_sent_len = 0;
	gdb_sent[0] = '\0';
	gdb_say(payload, strlen(payload));
	return gdb_last();
}

static void make_vcpu(struct vm *vm, struct fake_vcpu *f, u32 index)
{
	memset(f, 0, sizeof(*f));
	f->v.vm = vm;
	f->v.index = index;
	f->v.slot_hint = vm->slots->slot;
	f->v.rflags = 2;
	f->v.fpu = fpu[index];
	f->reg[VR_CR0] = 1;
	vm->vcpus[index] = &f->v;
	set_state(&f->v);
}

void gdb_fake_open(void)
{
	static struct virt_ops ops;

	fake_vm_open(64 * MIB);
	ops = *virt_ops;
	ops.can_step = can_step;
	ops.debug_exits = debug_exits;
	ops.vcpu_load = ops.vcpu_put = load_or_put;
	virt_ops = &ops;
	fake_use_get_mmu(false);
	if (vm_add_memory(&fake_vm, GPA(0), 16 * MIB, 0))
		abort();
	gdb_crashed = false;
	gdb_resets = 0;
	nr_cpus = 4;
	cpus_online = (struct cpumask){ { 7 } };
	cpus[2].percpu_offset = 0x123456789a;
	postmortem_init(2, sent);
	memset(&gdb_other, 0, sizeof(gdb_other));
	memset(fpu, 0, sizeof(fpu));
	gdb_other.id = 9;
	gdb_other.slots = &no_slots;
	gdb_other.cpuid = &fake_policy;
	strcpy(gdb_other.name, "other");
	strcpy(fake_vm.name, "vm");
	fake_vm.state = VM_RUNNING;
	fake_vm.starts = 1;
	fake_vm.nr_vcpus = 2;
	gdb_other.nr_vcpus = 1;
	gdb_lazy = gdb_virt_off = false;
	gdb_exceptions = 0;
	make_vcpu(&fake_vm, &fake_vcpu, 0);
	make_vcpu(&fake_vm, &gdb_second, 1);
	make_vcpu(&gdb_other, &other_vcpu, 0);
	gdb_sent_len = 0;
	gdb_sent[0] = '\0';
	gdb_init(sent);
}
