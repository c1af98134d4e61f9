/* SPDX-License-Identifier: MIT */
/*
 * Machine checks of a guest whose memory is poisoned: SDM "Machine-Check Architecture", APM
 * "Machine Check Architecture". One bank per vCPU, errors that software can recover from, each told
 * only to the vCPU that made the access. Only for VMs that ask for it (mce = on): what the kernel
 * knows of the page it can kill a process for, everything else it panics for by itself.
 */
#pragma once

#include "lib/addr.h"

struct vm;
struct mce;

/*
 * CPUID bits, MSRs, and vm->machine_check for a VM whose vCPUs exist and do not run. 0 and *out,
 * -ENOMEM, or io_register's error.
 */
int mce_create(struct vm *vm, struct mce **out);
void mce_destroy(struct vm *vm, struct mce *m);
/* Power-on state. No vCPU runs. */
void mce_reset(struct mce *m);
