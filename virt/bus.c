/* SPDX-License-Identifier: MIT */
/*
 * Who answers an access: sorted regions, and per vCPU the region of its last access in each space.
 * A guest that prints, or that takes interrupts, stays in one region for long runs, so that most
 * look-ups are two comparisons.
 *
 * The hint is only where the search starts: every hit is checked against the region's bounds, so
 * nothing has to be invalidated when regions are inserted. Unused regions have size 0 and never
 * match.
 */
#include "virt/bus.h"
#include "lib/error.h"
#include "virt/vm.h"

static u64 space_limit(enum io_space space)
{
	switch (space) {
	case IO_PORT:
		return BIT(16);
	case IO_MSR:
		return BIT(32);
	default:
		return BIT(52); /* the architecture's physical address space */
	}
}

/* Index of the first region whose end lies above addr: the only one that can contain it. */
static u32 bus_search(const struct io_bus *bus, enum io_space space, u64 addr)
{
	u32 low = 0, high = bus->count[space];

	while (low < high) {
		u32 mid = (low + high) / 2;
		const struct io_region *r = &bus->region[space][mid];

		if (r->base + r->size <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* In place of handlers that a device doesn't have. */
static int no_read(struct vcpu *v, void *dev, u64 offset, u32 size, u64 *value)
{
	(void)v, (void)dev, (void)offset, (void)size, (void)value;
	return -ENXIO;
}

static int no_write(struct vcpu *v, void *dev, u64 offset, u32 size, u64 value)
{
	(void)v, (void)dev, (void)offset, (void)size, (void)value;
	return -ENXIO;
}

int io_register(struct vm *vm, enum io_space space, const struct io_region *region)
{
	struct io_bus *bus = &vm->bus;
	u64 limit = space_limit(space);
	u32 n = bus->count[space], at;

	if (!region->size || region->base >= limit || region->size > limit - region->base)
		return trace_error(-EINVAL);
	if (n >= IO_MAX_REGIONS)
		return trace_error(-ENOSPC);
	at = bus_search(bus, space, region->base);
	if (at < n && bus->region[space][at].base < region->base + region->size)
		return trace_error(-EEXIST);
	for (u32 i = n; i > at; i--)
		bus->region[space][i] = bus->region[space][i - 1];
	bus->region[space][at] = *region;
	if (!region->read)
		bus->region[space][at].read = no_read;
	if (!region->write)
		bus->region[space][at].write = no_write;
	bus->count[space] = n + 1;
	return 0;
}

/* Does the whole access lie in the region? (addr - base) wraps to something huge below the base. */
static inline bool region_has(const struct io_region *r, u64 addr, u64 width)
{
	u64 offset = addr - r->base;

	return offset < r->size && width <= r->size - offset;
}

static const struct io_region *search(struct vcpu *v, enum io_space space, u64 addr, u64 width)
{
	const struct io_bus *bus = &v->vm->bus;
	u32 i = bus_search(bus, space, addr);

	if (i >= bus->count[space] || !region_has(&bus->region[space][i], addr, width))
		return NULL;
	v->io_last[space] = &bus->region[space][i];
	return v->io_last[space];
}

/*
 * Not in the region of the last access. An MSR takes one address, whatever it holds. Errors aren't
 * traced: guests probe for devices. An access that no region has as a whole is one of single bytes,
 * as a bus makes it for narrow devices; of no use to an MSR, whose first byte has been tried.
 */
static NOINLINE int read_elsewhere(struct vcpu *v, enum io_space space, u64 addr, u32 size,
				   u64 *value)
{
	const struct io_region *r = search(v, space, addr, space == IO_MSR ? 1 : size);
	int answered = -ENXIO;
	u64 byte;

	if (r)
		return r->read(v, r->dev, addr - r->base, size, value);
	*value = 0;
	for (u32 i = 0; size > 1 && space != IO_MSR && i < size; i++) {
		if (read_elsewhere(v, space, addr + i, 1, &byte))
			byte = 0xff;
		else
			answered = 0;
		*value |= byte << (8 * i);
	}
	return answered;
}

static NOINLINE int write_elsewhere(struct vcpu *v, enum io_space space, u64 addr, u32 size,
				    u64 value)
{
	const struct io_region *r = search(v, space, addr, space == IO_MSR ? 1 : size);
	int answered = -ENXIO;

	if (r)
		return r->write(v, r->dev, addr - r->base, size, value);
	for (u32 i = 0; size > 1 && space != IO_MSR && i < size; i++)
		if (!write_elsewhere(v, space, addr + i, 1, value >> (8 * i) & 0xff))
			answered = 0;
	return answered;
}

int io_read(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 *value)
{
	const struct io_region *r = v->io_last[space];

	if (unlikely(!r || !region_has(r, addr, size)))
		return read_elsewhere(v, space, addr, size, value);
	return r->read(v, r->dev, addr - r->base, size, value);
}

int io_write(struct vcpu *v, enum io_space space, u64 addr, u32 size, u64 value)
{
	const struct io_region *r = v->io_last[space];

	if (unlikely(!r || !region_has(r, addr, size)))
		return write_elsewhere(v, space, addr, size, value);
	return r->write(v, r->dev, addr - r->base, size, value);
}

int io_read_msr(struct vcpu *v, u32 msr, u64 *value)
{
	return read_elsewhere(v, IO_MSR, msr, 8, value);
}

int io_write_msr(struct vcpu *v, u32 msr, u64 value)
{
	return write_elsewhere(v, IO_MSR, msr, 8, value);
}
