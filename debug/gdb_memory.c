/* SPDX-License-Identifier: MIT */
#include "debug/gdb_memory.h"
#include "arch/x86/debugreg.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "virt/guestmem.h"
#include "virt/ops.h"
#include "virt/slots.h"

#define INT3 0xcc

/* A gdb says of any error that it can't access memory; the log says what is missing. */
static bool tell_missing(const struct vm *vm, gpa_t gpa, u8 kind)
{
	if (kind == MEMORY_MISSING)
		log_info("vm %s: gdb: the contents of gpa %#lx are missing", vm->name, gpa.v);
	return kind != MEMORY_OK;
}

/*
 * A debugger may look at pages of users and of the kernel: with SMAP no one privilege level may, so
 * both are asked.
 */
static int translate(struct vcpu *v, u64 linear, gpa_t *gpa)
{
	struct walk_fault fault;

	if (!guest_walk(v, linear, ACCESS_R | WALK_QUIET, 0, gpa, &fault) ||
	    !guest_walk(v, linear, ACCESS_R | WALK_QUIET, 3, gpa, &fault))
		return 0;
	if (fault.stage2)
		tell_missing(v->vm, fault.gpa, fault.kind);
	return -EFAULT;
}

static size_t in_page(u64 linear, size_t len)
{
	return MIN(len, PAGE_SIZE - linear % PAGE_SIZE);
}

size_t gdb_memory_read(struct vcpu *v, u64 linear, void *dst, size_t len)
{
	struct vm_debug *d = v->vm->debug;
	size_t done, n;
	u8 *to = dst;
	gpa_t gpa;

	for (done = 0; done < len; done += n) {
		n = in_page(linear + done, len - done);
		if (translate(v, linear + done, &gpa) ||
		    tell_missing(v->vm, gpa, guest_peek(v->vm, gpa, to + done, n)))
			break;
		for (u32 i = 0; i < debug_nr_soft(v->vm); i++)
			if (d->soft[i].gpa.v - gpa.v < n)
				to[done + d->soft[i].gpa.v - gpa.v] = d->soft[i].byte;
	}
	return done;
}

/* In one page. A clone's may still be its parent's. */
static int write_page(struct vm *vm, gpa_t gpa, const void *from, size_t n)
{
	return vm_own_page(vm, gpa) || guest_write(vm, gpa, from, n) ? -EFAULT : 0;
}

/* What lies under a breakpoint changes in its place, and the INT3 stays. */
int gdb_memory_write(struct vcpu *v, u64 linear, const void *src, size_t len)
{
	struct vm_debug *d = v->vm->debug;
	const u8 *from = src, int3 = INT3;
	gpa_t gpa;

	for (size_t n; len; linear += n, from += n, len -= n) {
		n = in_page(linear, len);
		if (translate(v, linear, &gpa) || write_page(v->vm, gpa, from, n))
			return -EFAULT;
		for (u32 i = 0; i < debug_nr_soft(v->vm); i++) {
			if (d->soft[i].gpa.v - gpa.v >= n)
				continue;
			d->soft[i].byte = from[d->soft[i].gpa.v - gpa.v];
			if (guest_write(v->vm, d->soft[i].gpa, &int3, 1))
				return -EFAULT;
		}
	}
	return 0;
}

static int set_soft(struct vcpu *v, u64 linear)
{
	struct vm_debug *d = v->vm->debug;
	u32 n = debug_nr_soft(v->vm);
	u8 byte, int3 = INT3;
	gpa_t gpa;

	if (translate(v, linear, &gpa))
		return -EFAULT;
	for (u32 i = 0; i < n; i++)
		if (d->soft[i].gpa.v == gpa.v)
			return d->soft[i].linear == linear ? 0 : -EINVAL; /* another name of it */
	if (n == DEBUG_SOFT)
		return -ENOSPC;
	if (tell_missing(v->vm, gpa, guest_peek(v->vm, gpa, &byte, 1)) ||
	    write_page(v->vm, gpa, &int3, 1))
		return -EFAULT;
	d->soft_life = v->vm->starts;
	d->soft[n].linear = linear;
	d->soft[n].gpa = gpa;
	d->soft[n].byte = byte;
	d->nr_soft = n + 1;
	return 0;
}

/* If the guest has written something else there meanwhile, that is what stays. */
static void remove_soft(struct vm *vm, u32 i)
{
	struct vm_debug *d = vm->debug;
	u8 now;

	if (!guest_peek(vm, d->soft[i].gpa, &now, 1) && now == INT3 &&
	    write_page(vm, d->soft[i].gpa, &d->soft[i].byte, 1))
		log_warn("vm %s: the breakpoint at %#lx can't be removed", vm->name,
			 d->soft[i].linear);
	d->soft[i] = d->soft[--d->nr_soft];
}

/* One debug register each; if there are some, those that the guest does not use itself. */
static int set_hard(struct vcpu *v, enum debug_break type, u64 linear, u64 len)
{
	struct vm_debug *d = v->vm->debug;
	u64 guest = virt_ops->get_reg(v, VR_DR7);
	u32 slot = DEBUG_HARD;

	if (!len || len > 8 || len & (len - 1) || linear & (len - 1))
		return -EINVAL;
	for (u32 i = 0; i < DEBUG_HARD; i++) {
		if (d->hard[i].len == len && d->hard[i].type == type && d->hard[i].linear == linear)
			return 0;
		if (!d->hard[i].len && (slot == DEBUG_HARD || guest >> 2 * slot & 3))
			slot = i;
	}
	if (slot == DEBUG_HARD)
		return -ENOSPC;
	d->hard[slot].linear = linear;
	d->hard[slot].len = (u8)len;
	d->hard[slot].type = (u8)type;
	return 0;
}

int gdb_break_set(struct vcpu *v, enum debug_break type, u64 linear, u64 len)
{
	switch (type) {
	case BREAK_SOFT:
		return set_soft(v, linear);
	case BREAK_HARD:
		return set_hard(v, type, linear, 1);
	case BREAK_WRITE:
	case BREAK_ACCESS:
		return set_hard(v, type, linear, len);
	default:
		return -EOPNOTSUPP;
	}
}

void gdb_break_clear(struct vcpu *v, enum debug_break type, u64 linear)
{
	struct vm_debug *d = v->vm->debug;

	for (u32 i = debug_nr_soft(v->vm); type == BREAK_SOFT && i--;)
		if (d->soft[i].linear == linear)
			remove_soft(v->vm, i);
	for (u32 i = 0; i < DEBUG_HARD; i++)
		if (d->hard[i].type == type && d->hard[i].linear == linear)
			d->hard[i].len = 0;
}

void gdb_break_clear_all(struct vm *vm)
{
	while (debug_nr_soft(vm))
		remove_soft(vm, debug_nr_soft(vm) - 1);
	if (vm->debug)
		memset(vm->debug->hard, 0, sizeof(vm->debug->hard));
}
