/* SPDX-License-Identifier: MIT */
/* Page walks and copies with the registers at hand, which may be others than the vCPU has. */
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
/*
 * guest_read_linear() and guest_write_linear() with these registers, but a write that crosses pages
 * may change the first and then fail. COPY_CHECK changes nothing, and fails where COPY_WRITE would.
 */
enum copy { COPY_CHECK, COPY_READ, COPY_WRITE };
int guest_copy_mmu(struct vcpu *v, const struct guest_mmu *m, u64 linear, u8 *buf, size_t len,
		   enum copy what, struct walk_fault *fault) MUST_CHECK;
