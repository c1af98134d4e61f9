/* SPDX-License-Identifier: MIT */
/*
 * Ticket spin locks with one order for the whole machine: a lock may only be taken while every lock
 * that the CPU holds has a smaller rank. PROVE_MMU builds check that on each lock; others only keep
 * the rank.
 *
 * Locks that interrupt or IPI handlers take must be taken with interrupts off elsewhere (irq_save()
 * in arch/x86/insn.h). No wait for an IPI while holding a lock. NMI context: spin_trylock only.
 */
#pragma once

#include "lib/types.h"

enum lock_rank {
	RANK_VM_LIST = 1,
	RANK_VM,
	RANK_SWITCH, /* of networks, between VMs */
	RANK_VIRTIO, /* a virtio device: it touches guest memory and allocates */
	RANK_SLOTS,
	RANK_BACKING,
	RANK_STAGE2,
	RANK_MOVES,
	RANK_EXTENT,
	RANK_FRAMES,
	RANK_DEVICE,
	RANK_IRQCHIP, /* devices raise their lines under their own locks */
	RANK_RUNQ,
	RANK_LOG,	 /* one may log under any lock above */
	RANK_CONSOLE,	 /* the log's sink takes it; its holder must not log */
	RANK_SERIAL,	 /* the port, inside the console's */
	RANK_SPLIT_LOCK, /* a core's MSR_TEST_CTRL: taken where any other is held */
};

struct spinlock {
	u16 next;  /* the ticket that the next comer draws */
	u16 owner; /* the ticket that holds the lock */
	u8 rank;   /* enum lock_rank */
};

/* clang-format off */
#define SPINLOCK_INIT(r) { .rank = (r) }
/* clang-format on */

static inline void spin_init(struct spinlock *l, enum lock_rank rank)
{
	*l = (struct spinlock)SPINLOCK_INIT((u8)rank);
}

void spin_lock(struct spinlock *l);
bool spin_trylock(struct spinlock *l);
void spin_unlock(struct spinlock *l);

/*
 * Called while a CPU spins with the lock not free, so that it can answer calls from other CPUs.
 * Owned by lib, set by arch/x86; may be NULL.
 */
extern void (*spin_poll_hook)(void);
/* One turn of any other wait for another CPU. No lock of rank RANK_LOG or later held. */
void spin_wait(void);
/* The calling CPU's mask of held ranks, for the order check; set by arch/x86, NULL: no check. */
extern u32 *(*spin_held_hook)(void);
