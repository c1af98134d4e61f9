/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/fault.h"
#include "arch/x86/trace.h"
#include "boot/machine.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/hostmap.h"
#include "mm/phys.h"

#define MAX_RANGES 1024
/* left alone: real-mode data, the trampoline; and no frame number is ever 0 */
#define LOW_MEMORY MIB
#define MAX_HPA	   (1ull << 46)

/*
 * Stacks of one CPU, with guard pages below each: [guard | stack | guard | IST 1 | guard | IST 2 |
 * ...].
 */
#define CPU_STACKS 0x20000ull
#define STACK_AT   0x4000ull
#define IST_AT(n)  (0x8000ull + 0x4000ull * (u64)(n) + IST_SIZE)
_Static_assert(STACK_AT + STACK_SIZE <= IST_AT(1) - IST_SIZE, "stacks overlap");
_Static_assert(IST_AT(IST_COUNT) + IST_SIZE <= CPU_STACKS, "stacks of two CPUs overlap");

extern u8 percpu_start[], percpu_end[];

static struct mem_range ranges[MAX_RANGES];
static u64 ist_tops[MAX_CPUS][IST_COUNT + 1];
static u64 ram_bytes;

u64 machine_ram(void)
{
	return ram_bytes;
}

static const struct boot_memory *descriptor(const struct bootinfo *info, u64 i)
{
	return hpa_ptr(HPA(info->memory_map + i * info->memory_descriptor_size));
}

static u64 descriptors(const struct bootinfo *info)
{
	return info->memory_descriptor_size ? info->memory_map_size / info->memory_descriptor_size
					    : 0;
}

static bool is_firmware_boot(u32 type)
{
	return type == BOOT_MEM_BS_CODE || type == BOOT_MEM_BS_DATA || type == BOOT_MEM_LOADER_CODE;
}

static enum frame_kind kind_of(u32 type)
{
	if (type == BOOT_MEM_CONVENTIONAL)
		return FRAME_FREE;
	if (is_firmware_boot(type))
		return FRAME_IMAGE; /* until machine_release_firmware() */
	if (type == BOOT_MEM_LOADER_DATA)
		return FRAME_MODULE;
	return FRAME_NONE;
}

static bool is_ram(u32 type)
{
	return kind_of(type) != FRAME_NONE || type == BOOT_MEM_ACPI_RECLAIM ||
	       type == BOOT_MEM_ACPI_NVS;
}

/* The part of a descriptor that Corbel looks at. False: none. */
static bool clip(const struct boot_memory *d, u64 *base, u64 *end)
{
	*base = MAX(d->base, LOW_MEMORY);
	*end = MIN(d->base + d->pages * PAGE_SIZE, MAX_HPA);
	return *base < *end;
}

static size_t collect(const struct bootinfo *info)
{
	size_t n = 0;
	u64 base, end;

	for (u64 i = 0; i < descriptors(info); i++) {
		const struct boot_memory *d = descriptor(info, i);

		if (!is_ram(d->type))
			continue;
		ram_bytes += d->pages * PAGE_SIZE;
		if (kind_of(d->type) == FRAME_NONE || !clip(d, &base, &end))
			continue;
		if (n == MAX_RANGES) {
			log_warn("memory map: more than %u ranges, the rest is not used",
				 MAX_RANGES);
			break;
		}
		ranges[n++] = (struct mem_range){ HPA(base), end - base, (u8)kind_of(d->type) };
	}
	return n;
}

static int map_ram(const struct bootinfo *info)
{
	u64 base, end;
	int err = 0;

	for (u64 i = 0; !err && i < descriptors(info); i++) {
		const struct boot_memory *d = descriptor(info, i);

		if (is_ram(d->type) && clip(d, &base, &end))
			err = hostmap_add_ram(HPA(base), end - base);
	}
	if (!err && info->trampoline)
		err = hostmap_add_ram(HPA(info->trampoline), PAGE_SIZE);
	if (!err && info->trampoline)
		err = hostmap_add_trampoline(HPA(info->trampoline));
	return err;
}

int machine_take_memory(const struct bootinfo *info)
{
	int err = frames_init(ranges, collect(info), HPA(MAX_HPA));

	if (!err)
		err = hostmap_init(info->image_base);
	if (!err)
		err = map_ram(info);
	if (err) {
		log_err("memory: cannot build the page tables: %s", error_name(err));
		return err;
	}
	hostmap_activate();
	return 0;
}

void machine_release_firmware(const struct bootinfo *info)
{
	u64 base, end, frames = 0;

	for (u64 i = 0; i < descriptors(info); i++) {
		const struct boot_memory *d = descriptor(info, i);

		if (is_firmware_boot(d->type) && clip(d, &base, &end))
			frames += frames_release(HPA(base), end - base, FRAME_IMAGE);
	}
	log_debug("memory: %lu KiB of boot-services memory are free now", frames * 4);
}

const u64 *machine_ist(u32 id)
{
	return ist_tops[id];
}

/* Without memory for it that CPU is not traced. */
static void add_trace(u32 id)
{
	pfn_t ring = frame_alloc_order(TRACE_ORDER, FRAME_HEAP, VM_NONE);

	if (pfn_valid(ring))
		trace_give_memory(id, memset(pfn_ptr(ring), 0, TRACE_BYTES));
}

int machine_cpu_memory(u32 id)
{
	u64 size = (u64)(percpu_end - percpu_start), base = id * CPU_STACKS;
	pfn_t area = frame_alloc_order(1, FRAME_HEAP, VM_NONE);
	u8 *stack = hostmap_add_stack(base + STACK_AT, STACK_SIZE);

	if (!pfn_valid(area) || !stack || fault_of(id, FAULT_STACK, NULL))
		return trace_error(-ENOMEM);
	memcpy(pfn_ptr(area), percpu_start, size);
	cpus[id].percpu_offset = (u64)pfn_ptr(area) - (u64)percpu_start;
	for (u32 i = 1; i <= IST_COUNT; i++) {
		u8 *top = hostmap_add_stack(base + IST_AT(i), IST_SIZE);

		if (!top)
			return trace_error(-ENOMEM);
		((u64 *)top)[-1] = cpus[id].percpu_offset; /* for the paranoid entries */
		ist_tops[id][i] = (u64)top - 16;
	}
	add_trace(id);
	cpus[id].stack_top = stack;
	return 0;
}
