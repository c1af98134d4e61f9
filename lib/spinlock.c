/* SPDX-License-Identifier: MIT */
#include "lib/assert.h"
#include "lib/spinlock.h"

void (*spin_poll_hook)(void);
u32 *(*spin_held_hook)(void);

static inline void order_check(const struct spinlock *l)
{
	u32 *held = PROVE_MMU && spin_held_hook ? spin_held_hook() : NULL;

	if (!held)
		return;
	MMU_WARN_ON(*held >> l->rank); /* this rank or a later one is held already */
	*held |= 1u << l->rank;
}

static inline void order_release(const struct spinlock *l)
{
	u32 *held = PROVE_MMU && spin_held_hook ? spin_held_hook() : NULL;

	if (held)
		*held &= ~(1u << l->rank);
}

void spin_wait(void)
{
	if (spin_poll_hook)
		spin_poll_hook();
	__builtin_ia32_pause();
}

static NOINLINE void wait_for(struct spinlock *l, u16 ticket)
{
	while (__atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket) {
		/* What is polled may log: it would wait behind the ticket that this CPU holds. */
		if (l->rank < RANK_LOG)
			spin_wait();
		__builtin_ia32_pause();
	}
}

void spin_lock(struct spinlock *l)
{
	u16 ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

	if (unlikely(__atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket))
		wait_for(l, ticket);
	order_check(l);
}

bool spin_trylock(struct spinlock *l)
{
	/* Acquire: this is what the last unlock wrote, not the ticket that is drawn below. */
	u16 owner = __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE);
	u16 expected = owner;

	if (!__atomic_compare_exchange_n(&l->next, &expected, (u16)(owner + 1), false,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	order_check(l);
	return true;
}

void spin_unlock(struct spinlock *l)
{
	order_release(l);
	__atomic_store_n(&l->owner, (u16)(l->owner + 1), __ATOMIC_RELEASE);
}
