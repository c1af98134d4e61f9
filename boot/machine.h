/* SPDX-License-Identifier: MIT */
/* Taking the machine over: memory, page tables, per-CPU areas. Boot CPU only. */
#pragma once

#include "boot/bootinfo.h"
#include "lib/addr.h"

/*
 * Frames from the firmware's map, the hypervisor's own tables, and the switch to them. 0 or an
 * error after a line in the log.
 */
int machine_take_memory(const struct bootinfo *info);
/* Boot-services memory becomes free: nothing of the firmware's is in use any more. */
void machine_release_firmware(const struct bootinfo *info);
/*
 * Stack, IST stacks and per-CPU area for CPU id: sets cpus[id]. On -ENOMEM the CPU has no stack and
 * can't be started.
 */
int machine_cpu_memory(u32 id);
/* Tops of a CPU's IST stacks for desc_load(). */
const u64 *machine_ist(u32 id);
/* Sum of what the firmware's map calls RAM, in bytes. */
u64 machine_ram(void);
