/* SPDX-License-Identifier: MIT */
/*
 * The VMX instructions; no other file contains one.
 *
 * Every one of them reports by CF (VMfailInvalid: there is no current VMCS to hold a number) and ZF
 * (VMfailValid: the number is in the VM-instruction error field), SDM "VMX Instructions",
 * Conventions. Both flags are looked at, in release builds too.
 */
#pragma once

#include "arch/x86/fault.h"
#include "lib/addr.h"
#include "vmx/vmcs.h"

enum vmx_result {
	VMX_OK,
	VMX_FAIL_INVALID,
	VMX_FAIL_VALID,
	VMX_FAULT, /* #UD or #GP, caught by the exception table (VMXON only) */
};

/*
 * The one place that turns flags into a result: `op` with its operands, and a path for a fault if
 * `fixup` names one. A test may ask by `inject` for a result without the instruction.
 */
#define VMX_INSN(inject, op, fixup, ...)                                                          \
	({                                                                                        \
		bool invalid_ = false, valid_ = false;                                            \
		enum vmx_result result_ = (enum vmx_result)(inject);                              \
		if (likely(!result_))                                                             \
			asm volatile("1:\t" op "\n"                                               \
				     "2:\n\t" fixup                                               \
				     : [result] "+r"(result_), "=@ccc"(invalid_), "=@ccz"(valid_) \
				     : __VA_ARGS__                                                \
				     : "memory");                                                 \
		if (unlikely(invalid_ && result_ == VMX_OK))                                      \
			result_ = VMX_FAIL_INVALID;                                               \
		else if (unlikely(valid_ && result_ == VMX_OK))                                   \
			result_ = VMX_FAIL_VALID;                                                 \
		result_;                                                                          \
	})

/*
 * A fault at 1: sets the result to VMX_FAULT and goes on at 2:. The flags are then what they were.
 */
#define VMX_FIXUP                               \
	".pushsection .text.unlikely, \"ax\"\n" \
	"3:\tmovl $3, %k[result]\n\t"           \
	"jmp 2b\n\t"                            \
	".popsection\n\t"                       \
	".pushsection .extable, \"a\"\n\t"      \
	".balign 8\n\t"                         \
	".quad 1b, 3b\n\t"                      \
	".popsection"
_Static_assert(VMX_FAULT == 3, "the fixup loads this number");

MUST_CHECK static inline enum vmx_result vmxon(hpa_t region)
{
	return VMX_INSN(fault_here(FAULT_VMXON, 0, NULL), "vmxon %[region]",
			VMX_FIXUP, [region] "m"(region.v));
}

MUST_CHECK static inline enum vmx_result vmxoff(void)
{
	return VMX_INSN(fault_here(FAULT_VMXOFF, 0, NULL), "vmxoff", "");
}

MUST_CHECK static inline enum vmx_result vmclear(hpa_t vmcs)
{
	return VMX_INSN(VMX_OK, "vmclear %[vmcs]", "", [vmcs] "m"(vmcs.v));
}

MUST_CHECK static inline enum vmx_result vmptrld(hpa_t vmcs)
{
	return VMX_INSN(VMX_OK, "vmptrld %[vmcs]", "", [vmcs] "m"(vmcs.v));
}

/* SDM "INVEPT", "INVVPID": types of invalidation */
enum { INVEPT_SINGLE = 1, INVEPT_ALL = 2 };
enum { INVVPID_SINGLE = 1, INVVPID_ALL = 2 };

MUST_CHECK static inline enum vmx_result invept(u64 type, u64 eptp)
{
	u64 descriptor[2] = { eptp, 0 };

	return VMX_INSN(fault_here(FAULT_INVEPT, 0, NULL), "invept %[descriptor], %[type]",
			"", [descriptor] "m"(descriptor), [type] "r"(type));
}

MUST_CHECK static inline enum vmx_result invvpid(u64 type, u16 vpid)
{
	u64 descriptor[2] = { vpid, 0 };

	return VMX_INSN(fault_here(FAULT_INVVPID, 0, NULL), "invvpid %[descriptor], %[type]",
			"", [descriptor] "m"(descriptor), [type] "r"(type));
}

/*
 * VMREAD and VMWRITE of a field that exists, with a current VMCS, can't fail: a failure is a bug in
 * Corbel. JBE catches CF and ZF in one instruction; the report is out of line, in entry.asm's
 * thunks, which keep all registers, so that the compiler needs no spill for it on the hot path. The
 * VM is dead after it (vmx_access_failed), and a failed read yields 0.
 */
#define VMX_REPORT(thunk, after)                \
	"jbe 1f\n"                              \
	"2:\n\t"                                \
	".pushsection .text.unlikely, \"ax\"\n" \
	"1:\tpush %q[field]\n\t"                \
	"call " thunk "\n\t" after "\n\t"       \
	"jmp 2b\n\t"                            \
	".popsection"

static inline u64 vmcs_read(enum vmcs_field field)
{
	u64 value;

	asm volatile("vmread %q[field], %[value]\n\t" VMX_REPORT("vmread_failed",
								 "xorl %k[value], %k[value]")
		     : [value] "=r"(value)
		     : [field] "r"((u64)field)
		     : "cc");
	return value;
}

/* Straight into memory: an instruction less where the value is not needed at once. */
static inline void vmcs_read_to(u64 *value, enum vmcs_field field)
{
	asm volatile(
		"vmread %q[field], %[value]\n\t" VMX_REPORT("vmread_failed", "movq $0, %[value]")
		: [value] "=m"(*value)
		: [field] "r"((u64)field)
		: "cc");
}

static inline void vmcs_write(enum vmcs_field field, u64 value)
{
	asm volatile("vmwrite %[value], %q[field]\n\t" VMX_REPORT("vmwrite_failed", "")
		     :
		     : [value] "rm"(value), [field] "r"((u64)field)
		     : "cc");
}

/* What the thunks call: log the field and bug the VM that is loaded here. */
void vmx_access_failed(u64 field, bool write);
