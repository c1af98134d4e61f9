/* SPDX-License-Identifier: MIT */
/* Linux, Documentation/virt/kvm/x86/msr.rst: MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW. */
#include "dev/kvmclock.h"

#include <asm/kvm_para.h>
#include <asm-generic/errno-base.h>
#include "dev/clock.h"
#include "virt/guestmem.h"

/* The interface's structures are not in the headers that Linux exports. */
struct PACKED pvclock_vcpu_time_info {
	u32 version; /* odd while it changes */
	u32 pad0;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad[2];
};
#define PVCLOCK_TSC_STABLE_BIT BIT(0)

struct PACKED pvclock_wall_clock {
	u32 version;
	u32 sec;
	u32 nsec;
};

#define ADDRESS_ALIGNMENT 4
_Static_assert(sizeof(struct pvclock_vcpu_time_info) == 32, "layout of the interface");

/*
 * Write a structure that begins with its version: odd, the rest, even. One that isn't aligned,
 * crosses a page, or has no memory is refused (HAZARDS row 39); the caller's #GP. -EAGAIN: it is
 * missing, and the instruction is executed again.
 */
static int publish(struct vm *vm, u64 gpa, void *data, u32 size)
{
	u32 *version = data, old;
	int err;

	if (gpa % ADDRESS_ALIGNMENT || gpa % PAGE_SIZE + size > PAGE_SIZE)
		return -EINVAL;
	/* In one page: what is there now stays. */
	err = guest_touch(vm, GPA(gpa), size);
	if (err)
		return err;
	if (guest_read(vm, GPA(gpa), &old, sizeof(old)))
		return -EINVAL;
	*version = old | 1;
	if (guest_write(vm, GPA(gpa), version, sizeof(*version)) ||
	    guest_write(vm, GPA(gpa + sizeof(*version)), version + 1, size - sizeof(*version)))
		return -EINVAL;
	*version += 1;
	return guest_write(vm, GPA(gpa), version, sizeof(*version)) ? -EINVAL : 0;
}

static int write_system_time(struct vcpu *v, struct kvmclock *k, u64 value)
{
	if (value & KVM_MSR_ENABLED) {
		struct pvclock_vcpu_time_info info = {
			.tsc_to_system_mul = k->mul,
			.tsc_shift = k->shift,
			.flags = k->stable ? PVCLOCK_TSC_STABLE_BIT : 0,
		};
		int err = publish(v->vm, value & ~(u64)KVM_MSR_ENABLED, &info, sizeof(info));
		if (err)
			return err;
	}
	v->kvmclock_msr = value;
	return 0;
}

/* The wall clock is UTC at the moment that system time 0 stands for. */
static int write_wall_clock(struct vcpu *v, struct kvmclock *k, u64 gpa)
{
	u64 ns = k->wall_base_ns + tsc_to_ns(v->vm->tsc_base);
	struct pvclock_wall_clock wall = { .sec = (u32)(ns / 1000000000),
					   .nsec = (u32)(ns % 1000000000) };
	return publish(v->vm, gpa, &wall, sizeof(wall));
}

static int msr_read(struct vcpu *v, void *dev, u64 index, u32 size, u64 *value)
{
	(void)dev, (void)size;
	*value = index == MSR_KVM_SYSTEM_TIME_NEW - MSR_KVM_WALL_CLOCK_NEW ? v->kvmclock_msr : 0;
	return 0;
}

static int msr_write(struct vcpu *v, void *dev, u64 index, u32 size, u64 value)
{
	(void)size;
	if (index == MSR_KVM_SYSTEM_TIME_NEW - MSR_KVM_WALL_CLOCK_NEW)
		return write_system_time(v, dev, value);
	return write_wall_clock(v, dev, value);
}

/*
 * ns = (ticks << shift) * mul >> 32, with mul as large as it can be: its error is then below 2^-31
 * of the time.
 */
static void set_scale(struct kvmclock *k)
{
	u64 num = 1000000, den = tsc_khz;
	k->shift = 0;
	for (; num >= den; k->shift++)
		den <<= 1;
	for (; num * 2 < den; k->shift--)
		num <<= 1;
	k->mul = (u32)((num << 32) / den);
}

int kvmclock_create(struct kvmclock *k, struct vm *vm, u64 wall_base_ns, bool stable)
{
	const struct io_region region = { .name = "kvmclock",
					  .base = MSR_KVM_WALL_CLOCK_NEW,
					  .size = 2,
					  .read = msr_read,
					  .write = msr_write,
					  .dev = k };
	k->wall_base_ns = wall_base_ns;
	k->stable = stable;
	set_scale(k);
	return io_register(vm, IO_MSR, &region);
}
