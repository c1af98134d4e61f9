/* SPDX-License-Identifier: MIT */
/* The VMCB (APM vol. 2, appendix B "Layout of VMCB"). Exit codes: asm/svm.h of linux-libc-dev. */
#pragma once

#include "lib/addr.h"
#include "virt/vcpu.h"

/* Intercepts, by vector word: bit numbers within the two 32-bit words at 0x00c and 0x010. */
#define INTERCEPT_INTR		BIT(0)
#define INTERCEPT_NMI		BIT(1)
#define INTERCEPT_SMI		BIT(2)
#define INTERCEPT_INIT		BIT(3)
#define INTERCEPT_VINTR		BIT(4)
#define INTERCEPT_CR0_SEL_WRITE BIT(5)
#define INTERCEPT_RDPMC		BIT(15)
#define INTERCEPT_CPUID		BIT(18)
#define INTERCEPT_RSM		BIT(19)
#define INTERCEPT_IRET		BIT(20)
#define INTERCEPT_SWINT		BIT(21) /* INT n */
#define INTERCEPT_INVD		BIT(22)
#define INTERCEPT_PAUSE		BIT(23)
#define INTERCEPT_HLT		BIT(24)
#define INTERCEPT_INVLPGA	BIT(26)
#define INTERCEPT_IOIO		BIT(27)
#define INTERCEPT_MSR		BIT(28)
#define INTERCEPT_TASK_SWITCH	BIT(29)
#define INTERCEPT_FERR_FREEZE	BIT(30)
#define INTERCEPT_SHUTDOWN	BIT(31)
#define INTERCEPT2_VMRUN	BIT(0)
#define INTERCEPT2_VMMCALL	BIT(1)
#define INTERCEPT2_VMLOAD	BIT(2)
#define INTERCEPT2_VMSAVE	BIT(3)
#define INTERCEPT2_STGI		BIT(4)
#define INTERCEPT2_CLGI		BIT(5)
#define INTERCEPT2_SKINIT	BIT(6)
#define INTERCEPT2_WBINVD	BIT(9)
#define INTERCEPT2_MONITOR	BIT(10)
#define INTERCEPT2_MWAIT	BIT(11)
#define INTERCEPT2_MWAIT_ARMED	BIT(12)
#define INTERCEPT2_XSETBV	BIT(13)
#define INTERCEPT2_RDPRU	BIT(14)
#define INTERCEPT3_BUS_LOCK	BIT(5) /* once bus_lock_count is used up */

#define INTERCEPT_CR_READ(n)  BIT(n)
#define INTERCEPT_CR_WRITE(n) BIT(16 + (n))

#define TLB_FLUSH_ALL 1 /* tlb_control: the whole TLB, all ASIDs; every CPU has it */

#define V_IRQ	       BIT(8)
#define V_INTR_PRIO(n) ((u64)(n) << 16)
#define V_IGN_TPR      BIT(20)
#define V_INTR_MASKING BIT(24)

#define INT_STATE_SHADOW BIT(0)
#define NP_ENABLE	 BIT(0)

/* EVENTINJ and EXITINTINFO. */
#define EVENT_VECTOR	  0xff
#define EVENT_TYPE_SHIFT  8
#define EVENT_HAS_ERROR	  BIT(11)
#define EVENT_VALID	  BIT(31)
#define EVENT_ERROR_SHIFT 32

/* EXITINFO1 of a nested page fault. */
#define NPF_PRESENT BIT(0)
#define NPF_WRITE   BIT(1)
#define NPF_FETCH   BIT(4)
#define NPF_WALK    BIT(33) /* while translating the guest's own page tables */

/* EXITINFO2 of a task switch. */
#define TASK_SWITCH_IRET BIT(36)
#define TASK_SWITCH_JMP	 BIT(38)

/* EXITINFO1 of IOIO. */
#define IOIO_IN		BIT(0)
#define IOIO_STRING	BIT(2)
#define IOIO_REP	BIT(3)
#define IOIO_SIZE_SHIFT 4
#define IOIO_PORT_SHIFT 16

struct vmcb_seg {
	u16 selector, attr; /* attr: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11 */
	u32 limit;
	u64 base;
};

struct vmcb {
	/* Control area */
	u32 intercept_cr, intercept_dr, intercept_exceptions, intercept1, intercept2, intercept3;
	u8 reserved1[0x3c - 0x18];
	u16 pause_threshold, pause_count;
	u64 iopm, msrpm, tsc_offset;
	u32 asid;
	u8 tlb_control, reserved2[3];
	u64 int_ctl, int_state;
	u64 exit_code, exit_info1, exit_info2, exit_int_info;
	u64 np_control, avic_bar, ghcb;
	u64 event_inj, nested_cr3, virt_ext;
	u32 clean, reserved3;
	u64 next_rip;
	u8 fetched_count, fetched[15];
	u8 reserved4[0x120 - 0xe0];
	u16 bus_lock_count; /* so many may still be */
	u8 reserved11[0x400 - 0x122];
	/* State save area */
	struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 reserved5[0x4cb - 0x4a0];
	u8 cpl;
	u32 reserved6;
	u64 efer;
	u8 reserved7[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 reserved8[0x5d8 - 0x580];
	u64 rsp, s_cet, ssp, isst;
	u64 rax, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp,
		sysenter_eip, cr2;
	u8 reserved9[0x668 - 0x648];
	u64 g_pat, dbgctl, br_from, br_to, lastexcp_from, lastexcp_to;
	u8 reserved10[0x1000 - 0x698];
};
_Static_assert(sizeof(struct vmcb) == 4096 && offsetof(struct vmcb, exit_code) == 0x70 &&
		       offsetof(struct vmcb, event_inj) == 0xa8 &&
		       offsetof(struct vmcb, next_rip) == 0xc8 &&
		       offsetof(struct vmcb, bus_lock_count) == 0x120 &&
		       offsetof(struct vmcb, efer) == 0x4d0 &&
		       offsetof(struct vmcb, rip) == 0x578 && offsetof(struct vmcb, rsp) == 0x5d8 &&
		       offsetof(struct vmcb, rax) == 0x5f8 && offsetof(struct vmcb, cr2) == 0x640 &&
		       offsetof(struct vmcb, g_pat) == 0x668,
	       "the VMCB is torn");
