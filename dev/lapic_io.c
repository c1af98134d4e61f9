/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's registers as the guest reaches them: the xAPIC page, the x2APIC MSRs,
 * IA32_APIC_BASE.
 */
#include "dev/lapic.h"

#include <asm-generic/errno.h>
#include "virt/state.h"

#define APIC_BASE_MODE (APIC_BASE_ENABLE | APIC_BASE_X2APIC)

enum {
	XR = 1,
	XW = 2,
	X2R = 4,
	X2W = 8,
	RO = XR | X2R,
	RW = XR | XW | X2R | X2W,
	WO = XW | X2W,
	LVT = RW
};

/*
 * Every register that exists. Writing other bits than these is #GP in x2APIC mode, ignored in xAPIC
 * mode.
 */
static const struct {
	u8 access;
	u32 writable;
	u32 read_only; /* bits that may be written, without effect */
} regs[APIC_REGS] = {
	[APIC_ID / 16] = { RO, 0, 0 },
	[APIC_VERSION / 16] = { RO, 0, 0 },
	[APIC_TPR / 16] = { RW, 0xff, 0 },
	[APIC_APR / 16] = { XR, 0, 0 },
	[APIC_PPR / 16] = { RO, 0, 0 },
	[APIC_EOI / 16] = { WO, 0, 0 },
	[APIC_RRD / 16] = { XR, 0, 0 },
	[APIC_LDR / 16] = { XR | XW | X2R, 0xff000000, 0 },
	[APIC_DFR / 16] = { XR | XW, 0xf0000000, 0 },
	[APIC_SVR / 16] = { RW, 0x3ff | APIC_SVR_NO_BROADCAST, 0 },
	[APIC_ISR / 16 ... APIC_IRR / 16 + 7] = { RO, 0, 0 },
	[APIC_ESR / 16] = { RW, 0, 0 },
	[APIC_ICR / 16] = { RW, 0xccfff & ~APIC_STATUS, APIC_STATUS },
	[APIC_ICR_HIGH / 16] = { XR | XW, 0xff000000, 0 },
	[APIC_LVT_TIMER / 16] = { LVT, 0x700ff, APIC_LVT_STATUS },
	[APIC_LVT_THERMAL / 16] = { LVT, 0x107ff, APIC_LVT_STATUS },
	[APIC_LVT_PERF / 16] = { LVT, 0x107ff, APIC_LVT_STATUS },
	[APIC_LVT_LINT0 / 16] = { LVT, 0x1a7ff, APIC_LVT_STATUS | APIC_LVT_REMOTE_IRR },
	[APIC_LVT_LINT1 / 16] = { LVT, 0x1a7ff, APIC_LVT_STATUS | APIC_LVT_REMOTE_IRR },
	[APIC_LVT_ERROR / 16] = { LVT, 0x100ff, APIC_LVT_STATUS },
	[APIC_TMICT / 16] = { RW, ~0u, 0 },
	[APIC_TMCCT / 16] = { RO, 0, 0 },
	[APIC_TDCR / 16] = { RW, 0xb, 0 },
	[APIC_SELF_IPI / 16] = { X2W, 0xff, 0 },
};

static void write_lvt(struct lapic *l, u32 offset, u32 value)
{
	if (!(*lapic_reg(l, APIC_SVR) & APIC_SVR_ENABLE))
		value |= APIC_LVT_MASKED;
	if (offset == APIC_LVT_TIMER)
		lapic_timer_settle(l);
	WRITE_ONCE(*lapic_reg(l, offset), value);
	if (offset == APIC_LVT_TIMER)
		lapic_timer_lvt(l);
	else if (offset == APIC_LVT_LINT0 && lapic_takes_extint(l)) /* the PIC may wait for it */
		vcpu_request(l->v, REQ_EVENT);
}

/*
 * SDM "Local APIC State After It Has Been Software Disabled": the masks of all LVT entries are set,
 * and stay set.
 */
static void write_svr(struct lapic *l, u32 value)
{
	WRITE_ONCE(*lapic_reg(l, APIC_SVR), value);
	lapic_follow_mode(l);
	if (value & APIC_SVR_ENABLE)
		return;
	for (u32 lvt = APIC_LVT_TIMER; lvt <= APIC_LVT_ERROR; lvt += 16)
		write_lvt(l, lvt, *lapic_reg(l, lvt));
}

static void write_icr(struct lapic *l, u32 value)
{
	u32 high = *lapic_reg(l, APIC_ICR_HIGH);
	*lapic_reg(l, APIC_ICR) = value;
	if (lapic_x2(l))
		lapic_icr(l, value, high, false);
	else
		lapic_icr(l, value, high >> 24, true);
}

/* value has only bits that the register has. */
static NOINLINE void write_reg(struct lapic *l, u32 offset, u32 value)
{
	switch (offset) {
	case APIC_EOI:
		lapic_eoi(l);
		break;
	case APIC_TPR:
		lapic_set_tpr(l->v, (u8)value);
		break;
	case APIC_DFR:
		WRITE_ONCE(*lapic_reg(l, offset), value | 0x0fffffff);
		break;
	case APIC_LDR:
	case APIC_ICR_HIGH:
		WRITE_ONCE(*lapic_reg(l, offset), value);
		break;
	case APIC_SVR:
		write_svr(l, value);
		break;
	case APIC_ESR:
		*lapic_reg(l, offset) = __atomic_exchange_n(&l->errors, 0, __ATOMIC_SEQ_CST);
		break;
	case APIC_ICR:
		write_icr(l, value);
		break;
	case APIC_TMICT:
		lapic_timer_count(l, value);
		break;
	case APIC_TDCR:
		lapic_timer_divide(l, value);
		break;
	default:
		write_lvt(l, offset, value);
		break;
	}
}

/* What is left of a write that the CPU has virtualized: a self-IPI that it does not send. */
void lapic_written(struct vcpu *v, u32 offset)
{
	struct lapic *l = lapic_of(v);

	if (offset == APIC_SELF_IPI)
		lapic_self_ipi(l, (u8)*lapic_reg(l, offset));
}

static u32 read_reg(struct lapic *l, u32 offset)
{
	if (offset == APIC_TMCCT)
		return lapic_timer_current(l);
	if (offset - APIC_IRR < 8 * 16)
		lapic_collect(l);
	return lapic_peek(l, offset);
}

static bool exists(u64 index, u8 access)
{
	return index < APIC_REGS && regs[index].access & access;
}

/*
 * Registers are 32 bits wide at multiples of 16; the SDM leaves other accesses undefined ("Local
 * APIC Register Address Map"). Here: a read inside the 32 bits gives these bytes, one beyond them
 * 0; such writes do nothing.
 */
static int mmio_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)dev;
	struct lapic *l = lapic_of(v);
	if (!lapic_on(l) || lapic_x2(l))
		return -ENXIO;
	*value = 0;
	if ((offset & 0xf) + size > 4)
		return 0;
	if (!exists(offset / 16, XR)) {
		if (!exists(offset / 16, XW))
			lapic_error(l, APIC_ESR_REGISTER);
		return 0;
	}
	u32 word = read_reg(l, (u32)offset & ~0xfu) >> (offset & 3) * 8;
	*value = size == 4 ? word : word & MASK(size * 8 - 1, 0);
	return 0;
}

static int mmio_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev;
	struct lapic *l = lapic_of(v);
	if (!lapic_on(l) || lapic_x2(l))
		return -ENXIO;
	if (size != 4 || offset & 0xf)
		return 0;
	if (exists(offset / 16, XW))
		write_reg(l, (u32)offset, (u32)value & regs[offset / 16].writable);
	else if (!exists(offset / 16, XR))
		lapic_error(l, APIC_ESR_REGISTER);
	return 0;
}

static int msr_read(struct vcpu *v, void *dev, u64 index, u32 size, u64 *value)
{
	(void)dev, (void)size;
	struct lapic *l = lapic_of(v);
	if (!lapic_x2(l) || !exists(index, X2R))
		return -EINVAL;
	*value = read_reg(l, (u32)index * 16);
	if (index == APIC_ICR / 16)
		*value |= (u64)*lapic_reg(l, APIC_ICR_HIGH) << 32;
	return 0;
}

static int msr_write(struct vcpu *v, void *dev, u64 index, u32 size, u64 value)
{
	(void)dev, (void)size;
	struct lapic *l = lapic_of(v);
	if (!lapic_x2(l))
		return -EINVAL;
	/* Two that are most of what running kernels do. */
	if (index == APIC_EOI / 16 && !value) {
		lapic_eoi(l);
		return 0;
	}
	if (index == APIC_SELF_IPI / 16 && value <= APIC_VECTOR) {
		lapic_self_ipi(l, (u8)value);
		return 0;
	}
	if (!exists(index, X2W))
		return -EINVAL;
	if ((u32)value & ~(regs[index].writable | regs[index].read_only))
		return -EINVAL;
	if (index == APIC_ICR / 16)
		*lapic_reg(l, APIC_ICR_HIGH) = (u32)(value >> 32);
	else if (value >> 32)
		return -EINVAL;
	write_reg(l, (u32)index * 16, (u32)value & regs[index].writable);
	return 0;
}

/* SDM "x2APIC State Transitions": but for id and LDR, registers stay. */
static void enter_x2apic(struct lapic *l)
{
	lapic_set_id(l);
	*lapic_reg(l, APIC_ICR_HIGH) = 0;
}

static int base_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)dev, (void)offset, (void)size;
	*value = lapic_of(v)->base;
	return 0;
}

/* The page can't be moved: other bits than BSP, EXTD and EN stay as they are. */
static bool base_valid(u64 value)
{
	return (value & ~(APIC_BASE_MODE | APIC_BASE_BSP)) == APIC_BASE_GPA &&
	       (value & APIC_BASE_MODE) != APIC_BASE_X2APIC;
}

static int base_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev, (void)offset, (void)size;
	struct lapic *l = lapic_of(v);
	const u64 mode = APIC_BASE_MODE;
	u64 from = l->base & mode, to = value & mode;
	if (!base_valid(value) || (from == 0 && to == mode) ||
	    (from == mode && to == APIC_BASE_ENABLE))
		return -EINVAL;
	WRITE_ONCE(l->base, value);
	if (from != to && to == mode)
		enter_x2apic(l);
	else if (from != to && to == 0)
		lapic_reset_regs(l);
	lapic_follow_mode(l);
	if (lapic_takes_extint(l))
		vcpu_request(v, REQ_EVENT);
	return 0;
}

/* Those of 8 bits and more that a CPU's own writes can't have. */
bool lapic_check(struct lapic *l, struct state *s)
{
	for (u32 i = APIC_LVT_TIMER / 16; i <= APIC_TDCR / 16; i++)
		if (l->regs[(size_t)i * 4] & ~(regs[i].writable | regs[i].read_only))
			return state_refuse(s, "a register", (u64)i * 16);
	return base_valid(l->base) || state_refuse(s, "base", l->base);
}

static int deadline_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)dev, (void)offset, (void)size;
	lapic_timer_settle(lapic_of(v));
	*value = lapic_of(v)->timer.guest_deadline;
	return 0;
}

static int deadline_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)dev, (void)offset, (void)size;
	lapic_timer_set_deadline(lapic_of(v), value);
	return 0;
}

int lapic_register(struct vm *vm)
{
	const struct io_region mmio = { .name = "lapic",
					.base = APIC_BASE_GPA,
					.size = PAGE_SIZE,
					.read = mmio_read,
					.write = mmio_write };
	const struct io_region msrs[] = {
		{ .name = "apic base",
		  .base = MSR_APIC_BASE,
		  .size = 1,
		  .read = base_read,
		  .write = base_write },
		{ .name = "x2apic",
		  .base = MSR_X2APIC_BASE,
		  .size = APIC_REGS,
		  .read = msr_read,
		  .write = msr_write },
		{ .name = "tsc deadline",
		  .base = MSR_TSC_DEADLINE,
		  .size = 1,
		  .read = deadline_read,
		  .write = deadline_write },
	};
	int err = io_register(vm, IO_MMIO, &mmio);
	for (u32 i = 0; !err && i < ARRAY_SIZE(msrs); i++)
		err = io_register(vm, IO_MSR, &msrs[i]);
	return err;
}
