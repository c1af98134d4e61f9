/* SPDX-License-Identifier: MIT */
/*
 * SVM instructions (APM vol. 3). The only other place that has some is svm/entry.asm. They report
 * no status: what they refuse they refuse by a fault, or, VMRUN, by the exit code VMEXIT_INVALID.
 */
#pragma once

#include "lib/addr.h"

struct vcpu;

/*
 * Save FS, GS, TR, LDTR (hidden parts included), KernelGSBase, STAR, LSTAR, CSTAR, SFMASK,
 * SYSENTER_*.
 */
static inline void svm_vmsave(hpa_t vmcb)
{
	asm volatile("vmsave %%rax" : : "a"(vmcb.v) : "memory");
}

static inline void svm_stgi(void)
{
	asm volatile("stgi" : : : "memory");
}

/*
 * entry.asm: run the guest once. Its RAX and RSP are in the VMCB. Interrupts off, GIF set, before
 * and after. Returns v.
 */
struct vcpu *svm_enter(struct vcpu *v, hpa_t vmcb, hpa_t host_vmcb);
