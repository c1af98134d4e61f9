/* SPDX-License-Identifier: MIT */
/*
 * CPUs offline and online again while VMs run. One operation at a time; it goes on by itself, in
 * steps of a task, so that neither a VM nor the monitor waits for it, and ends with a line in the
 * log: "CPU N: offline", "CPU N: online", or why not. Each wait is bounded.
 */
#pragma once

#include "lib/types.h"

/* Boot, once; `cpu` is where the steps run. It stays online, and so does CPU 0. */
void hotplug_init(u32 cpu);

enum hotplug_goal { HOTPLUG_OFFLINE, HOTPLUG_ONLINE };
/*
 * Begin. Offline: vCPUs move to other CPUs, or their VM stops with STOP_NO_CPU if they may run
 * nowhere else; virtualization off; parked. Online: INIT-SIPI, record, comparison, enabling.
 * rounds: how often that is done again, after going the other way in between; the last line has the
 * time. NULL, or one line that says why not. On a task of hotplug_init()'s CPU.
 */
const char *hotplug_begin(u32 cpu, enum hotplug_goal goal, u32 rounds);
