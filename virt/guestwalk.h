/* SPDX-License-Identifier: MIT */
/* Page walks with the registers at hand. Private to guestwalk.c and guestlinear.c. */
#pragma once

#include "virt/guestmem.h"
#include "virt/ops.h"

/* Bits that the entries of all paging modes share. */
#define PTE_P	 BIT(0)
#define PTE_PS	 BIT(7)
#define PTE_ADDR MASK(51, 12)

/* Compose *m of get_reg and get_seg. */
void guest_mmu_ask(struct vcpu *v, struct guest_mmu *m);

static inline void guest_mmu_read(struct vcpu *v, struct guest_mmu *m)
{
	if (likely(virt_ops->get_mmu))
		virt_ops->get_mmu(v, m);
	else
		guest_mmu_ask(v, m);
}

/* guest_walk() with these registers. */
int guest_walk_mmu(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 access, u8 cpl,
		   gpa_t *gpa, struct walk_fault *fault) MUST_CHECK;
