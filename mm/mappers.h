/* SPDX-License-Identifier: MIT */
/*
 * From a host frame: look at, weaken or remove every mapping, of every VM, whatever the size of its
 * leaf. The way there is the reverse map (mm/rmap.h).
 *
 * Any CPU, no lock of rank RANK_MOVES or later held. Nobody destroys a VM meanwhile.
 */
#pragma once

#include "mm/stage2.h"

/* Flush what n debts cover, and stage2_debt_paid() each. May be of several VMs; no lock is held. */
typedef void (*pay_fn)(struct flush_debt *debts, u32 n);

/*
 * No VM can reach the frame afterwards. A large leaf that covers it goes as a whole; guests fault
 * its other frames in again. 0; -EBUSY: mappings come as fast as they go, or a flush of somebody
 * else's is not paid yet; -ENOMEM.
 */
int frame_unmap(pfn_t pfn, pay_fn pay);
/*
 * No VM can write to the frame until it is granted anew: takes the right from every leaf that
 * covers it, large ones as a whole. Holds the lock of the frame's keys as long as it takes.
 */
void frame_write_protect(pfn_t pfn, pay_fn pay);
/*
 * How many leaves that cover the frame were used since the last call. By their A bits, without a
 * flush: a CPU that still knows the translation may use it for a while without being seen. Where
 * the format has none, what is mapped was used, because every call ends with frame_unmap(): who
 * uses the frame again must fault.
 */
u64 frame_age(pfn_t pfn, pay_fn pay);
