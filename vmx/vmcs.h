/* SPDX-License-Identifier: MIT */
/*
 * The VMCS: encodings of the fields that Corbel uses, and the bits of its control fields. Constants
 * only. Exit reasons come from asm/vmx.h of linux-libc-dev; those that it lacks are at the end.
 */
#pragma once

#include <asm/vmx.h>
#include "lib/types.h"

/*
 * SDM vol. 3 app. B "Field Encoding in VMCS": bits 14:13 of an encoding are the width, 11:10 the
 * kind.
 */
enum vmcs_field {
	/* 16-bit control field, guest-state fields, host-state fields */
	VMCS_VPID = 0x0000,
	VMCS_NOTIFY_VECTOR = 0x0002,
	VMCS_GUEST_ES_SEL = 0x0800, /* then CS, SS, DS, FS, GS, LDTR, TR at steps of 2 */
	VMCS_GUEST_INTR_STATUS = 0x0810,
	VMCS_HOST_ES_SEL = 0x0c00,
	VMCS_HOST_CS_SEL = 0x0c02,
	VMCS_HOST_SS_SEL = 0x0c04,
	VMCS_HOST_DS_SEL = 0x0c06,
	VMCS_HOST_FS_SEL = 0x0c08,
	VMCS_HOST_GS_SEL = 0x0c0a,
	VMCS_HOST_TR_SEL = 0x0c0c,

	/* 64-bit control fields, read-only field, guest-state fields, host-state fields */
	VMCS_MSR_BITMAP = 0x2004,
	VMCS_TSC_OFFSET = 0x2010,
	VMCS_VIRTUAL_APIC = 0x2012,
	VMCS_POSTED_DESCRIPTOR = 0x2016,
	VMCS_EPT_POINTER = 0x201a,
	VMCS_EOI_EXIT0 = 0x201c, /* then 1, 2, 3 at steps of 2 */
	VMCS_GUEST_PHYS_ADDR = 0x2400,
	VMCS_LINK_POINTER = 0x2800,
	VMCS_GUEST_DEBUGCTL = 0x2802,
	VMCS_GUEST_PAT = 0x2804,
	VMCS_GUEST_EFER = 0x2806,
	VMCS_GUEST_PDPTE0 = 0x280a, /* then 1, 2, 3 at steps of 2 */
	VMCS_HOST_PAT = 0x2c00,
	VMCS_HOST_EFER = 0x2c02,

	/* 32-bit control fields */
	VMCS_PIN_CONTROLS = 0x4000,
	VMCS_PROC_CONTROLS = 0x4002,
	VMCS_EXCEPTION_BITMAP = 0x4004,
	VMCS_PF_ERROR_MASK = 0x4006,
	VMCS_PF_ERROR_MATCH = 0x4008,
	VMCS_CR3_TARGET_COUNT = 0x400a,
	VMCS_EXIT_CONTROLS = 0x400c,
	VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
	VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
	VMCS_ENTRY_CONTROLS = 0x4012,
	VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
	VMCS_ENTRY_INTR_INFO = 0x4016,
	VMCS_ENTRY_ERROR_CODE = 0x4018,
	VMCS_ENTRY_INSN_LEN = 0x401a,
	VMCS_TPR_THRESHOLD = 0x401c,
	VMCS_PROC_CONTROLS2 = 0x401e,
	VMCS_PAUSE_GAP = 0x4020,
	VMCS_PAUSE_WINDOW = 0x4022,

	/* 32-bit read-only fields */
	VMCS_INSN_ERROR = 0x4400,
	VMCS_EXIT_REASON = 0x4402,
	VMCS_EXIT_INTR_INFO = 0x4404,
	VMCS_EXIT_INTR_ERROR = 0x4406,
	VMCS_IDT_VECTORING_INFO = 0x4408,
	VMCS_IDT_VECTORING_ERROR = 0x440a,
	VMCS_EXIT_INSN_LEN = 0x440c,

	/* 32-bit guest-state fields */
	VMCS_GUEST_ES_LIMIT = 0x4800, /* then CS .. TR, GDTR, IDTR at steps of 2 */
	VMCS_GUEST_IDTR_LIMIT = 0x4812,
	VMCS_GUEST_ES_AR = 0x4814, /* then CS .. TR at steps of 2 */
	VMCS_GUEST_INTERRUPTIBILITY = 0x4824,
	VMCS_GUEST_ACTIVITY = 0x4826,
	VMCS_GUEST_SYSENTER_CS = 0x482a,
	VMCS_HOST_SYSENTER_CS = 0x4c00,

	/* Natural-width control fields, read-only fields */
	VMCS_CR0_MASK = 0x6000,
	VMCS_CR4_MASK = 0x6002,
	VMCS_CR0_SHADOW = 0x6004,
	VMCS_CR4_SHADOW = 0x6006,
	VMCS_EXIT_QUALIFICATION = 0x6400,
	VMCS_GUEST_LINEAR_ADDR = 0x640a,

	/* Natural-width guest-state fields */
	VMCS_GUEST_CR0 = 0x6800,
	VMCS_GUEST_CR3 = 0x6802,
	VMCS_GUEST_CR4 = 0x6804,
	VMCS_GUEST_ES_BASE = 0x6806, /* then CS .. TR, GDTR, IDTR at steps of 2 */
	VMCS_GUEST_GDTR_BASE = 0x6816,
	VMCS_GUEST_DR7 = 0x681a,
	VMCS_GUEST_RSP = 0x681c,
	VMCS_GUEST_RIP = 0x681e,
	VMCS_GUEST_RFLAGS = 0x6820,
	VMCS_GUEST_PENDING_DEBUG = 0x6822,
	VMCS_GUEST_SYSENTER_ESP = 0x6824,
	VMCS_GUEST_SYSENTER_EIP = 0x6826,

	/* Natural-width host-state fields */
	VMCS_HOST_CR0 = 0x6c00,
	VMCS_HOST_CR3 = 0x6c02,
	VMCS_HOST_CR4 = 0x6c04,
	VMCS_HOST_FS_BASE = 0x6c06,
	VMCS_HOST_GS_BASE = 0x6c08,
	VMCS_HOST_TR_BASE = 0x6c0a,
	VMCS_HOST_GDTR_BASE = 0x6c0c,
	VMCS_HOST_IDTR_BASE = 0x6c0e,
	VMCS_HOST_SYSENTER_ESP = 0x6c10,
	VMCS_HOST_SYSENTER_EIP = 0x6c12,
	VMCS_HOST_RSP = 0x6c14,
	VMCS_HOST_RIP = 0x6c16,
};

/* SDM "Pin-Based VM-Execution Controls" */
#define PIN_EXT_INTR	BIT(0)
#define PIN_NMI		BIT(3)
#define PIN_VIRTUAL_NMI BIT(5)
#define PIN_POSTED	BIT(7)

/* SDM "Processor-Based VM-Execution Controls", primary */
#define PROC_INTR_WINDOW_BIT 2
#define PROC_INTR_WINDOW     BIT(PROC_INTR_WINDOW_BIT)
#define PROC_TSC_OFFSET	     BIT(3)
#define PROC_HLT	     BIT(7)
#define PROC_INVLPG	     BIT(9)
#define PROC_MWAIT	     BIT(10)
#define PROC_RDPMC	     BIT(11)
#define PROC_RDTSC	     BIT(12)
#define PROC_CR3_LOAD	     BIT(15)
#define PROC_CR3_STORE	     BIT(16)
#define PROC_TERTIARY	     BIT(17)
#define PROC_CR8_LOAD	     BIT(19)
#define PROC_CR8_STORE	     BIT(20)
#define PROC_TPR_SHADOW	     BIT(21)
#define PROC_NMI_WINDOW_BIT  22
#define PROC_NMI_WINDOW	     BIT(PROC_NMI_WINDOW_BIT)
#define PROC_MOV_DR	     BIT(23)
#define PROC_IO		     BIT(24)
#define PROC_MTF_BIT	     27
#define PROC_MTF	     BIT(PROC_MTF_BIT)
#define PROC_MSR_BITMAP	     BIT(28)
#define PROC_MONITOR	     BIT(29)
#define PROC_SECONDARY	     BIT(31)

/* ... secondary */
#define PROC2_EPT		 BIT(1)
#define PROC2_RDTSCP		 BIT(3)
#define PROC2_X2APIC		 BIT(4)
#define PROC2_VPID		 BIT(5)
#define PROC2_WBINVD		 BIT(6)
#define PROC2_UNRESTRICTED_GUEST BIT(7)
#define PROC2_APIC_REGS		 BIT(8)
#define PROC2_VIRTUAL_INTR	 BIT(9)
#define PROC2_PAUSE_LOOP	 BIT(10)
#define PROC2_INVPCID		 BIT(12)
#define PROC2_VMFUNC		 BIT(13)
#define PROC2_BUS_LOCK		 BIT(30)

/* SDM "VM-Exit Controls" */
#define EXIT_CTL_SAVE_DEBUG BIT(2)
#define EXIT_CTL_HOST_64    BIT(9)
#define EXIT_CTL_ACK	    BIT(15) /* external interrupts are acknowledged */
#define EXIT_CTL_SAVE_PAT   BIT(18)
#define EXIT_CTL_LOAD_PAT   BIT(19)
#define EXIT_CTL_SAVE_EFER  BIT(20)
#define EXIT_CTL_LOAD_EFER  BIT(21)
#define EXIT_CTL_SECONDARY  BIT(31)

/* SDM "VM-Entry Controls" */
#define ENTRY_CTL_LOAD_DEBUG BIT(2)
#define ENTRY_CTL_IA32E	     BIT(9)
#define ENTRY_CTL_LOAD_PAT   BIT(14)
#define ENTRY_CTL_LOAD_EFER  BIT(15)

/*
 * SDM "VM-Entry Controls for Event Injection"; exit interruption and IDT-vectoring information look
 * the same.
 */
#define INTR_VECTOR	 0xffu
#define INTR_TYPE_SHIFT	 8
#define INTR_TYPE(info)	 (((info) >> INTR_TYPE_SHIFT) & 7)
#define INTR_ERROR_VALID (1u << 11)
#define INTR_NMI_UNBLOCK (1u << 12) /* of exits; also in an EPT violation's qualification */
#define INTR_VALID	 (1u << 31)
enum {
	INTR_TYPE_EXT = 0,
	INTR_TYPE_NMI = 2,
	INTR_TYPE_SOFT_INT = 4,
	INTR_TYPE_PRIV_EXCEPTION = 5, /* INT1 */
	INTR_TYPE_SOFT_EXCEPTION = 6, /* INT3, INTO */
};

/* SDM "Guest Non-Register State" */
#define INTERRUPTIBILITY_STI   BIT(0)
#define INTERRUPTIBILITY_MOVSS BIT(1)
#define INTERRUPTIBILITY_NMI   BIT(3)
#define PENDING_DEBUG_BS       BIT(14)
#define ACTIVITY_ACTIVE	       0
#define SEG_AR_UNUSABLE	       BIT(16)
#define SEG_AR_MASK	       0xf0ffu

/* SDM app. A "VMX Capability Reporting Facility" */
#define MSR_VMX_EXIT_CTLS2  0x493
#define VMX_BASIC_REVISION  MASK(30, 0)
#define VMX_BASIC_SIZE	    MASK(44, 32)
#define VMX_BASIC_32BIT	    BIT(48)
#define VMX_BASIC_MEMTYPE   MASK(53, 50)
#define VMX_BASIC_TRUE_CTLS BIT(55)
#define VMX_EPT_4_LEVELS    BIT(6)
#define VMX_EPT_WB	    BIT(14)
#define VMX_EPT_2M	    BIT(16)
#define VMX_EPT_1G	    BIT(17)
#define VMX_EPT_AD	    BIT(21)
#define VMX_INVEPT	    BIT(20)
#define VMX_INVEPT_SINGLE   BIT(25)
#define VMX_INVEPT_ALL	    BIT(26)
#define VMX_INVVPID	    BIT(32)
#define VMX_INVVPID_SINGLE  BIT(41)
#define VMX_INVVPID_ALL	    BIT(42)

/* SDM "Extended-Page-Table Pointer (EPTP)": write-back tables, a walk of 4 levels, A/D bits. */
#define EPTP_WB	      6ull
#define EPTP_4_LEVELS (3ull << 3)
#define EPTP_AD	      BIT(6)

/*
 * SDM app. C "VMX Basic Exit Reasons": what vmx/exit.c names and asm/vmx.h of Linux 6.1 does not.
 */
#define EXIT_REASON_OTHER_SMI 6
#define EXIT_REASON_GETSEC    11
#define EXIT_REASON_RSM	      17
#define EXIT_REASON_SEAMCALL  76
#define EXIT_REASON_TDCALL    77
#define EXIT_REASONS	      82 /* one more than the last */
