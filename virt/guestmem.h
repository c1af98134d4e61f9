/* SPDX-License-Identifier: MIT */
/*
 * The one way to touch guest memory: checked, and copied once. Nothing outside guestmem.c keeps a
 * pointer into a guest. Functions run on any CPU; those that take a vCPU run on its runner.
 */
#pragma once

#include "virt/memfault.h"
#include "virt/vm.h"

/*
 * Copy from or to guest physical memory. 0; -EFAULT: some byte has no memory, or may not be written
 * (nothing was written); -EAGAIN: some of it is missing (nothing was written). The vCPU that runs
 * on this CPU then waits for it, if it is the VM's: whoever gets this leaves everything so that the
 * same instruction can be executed again. Two aligned bytes move at once, whatever the guest's CPUs
 * do meanwhile. What is missing when the VM does not run is supplied by who writes it: a loader.
 */
int guest_read(struct vm *vm, gpa_t gpa, void *dst, size_t len) MUST_CHECK;
int guest_write(struct vm *vm, gpa_t gpa, const void *src, size_t len) MUST_CHECK;
/* The range is there, and may be written; errors as guest_write. Nothing changes. */
int guest_touch(struct vm *vm, gpa_t gpa, size_t len) MUST_CHECK;
int guest_fill(struct vm *vm, gpa_t gpa, u8 byte, size_t len) MUST_CHECK;
/* guest_read() for who only looks: nobody waits. MEMORY_OK, or why some of it can't be read. */
enum memory_fault_kind guest_peek(struct vm *vm, gpa_t gpa, void *dst, size_t len);

/* What a stage-2 fault is to map. */
struct guest_frame {
	pfn_t pfn; /* of the 4 KiB page */
	u8 prot;   /* enum s2_prot */
	u8 level;  /* of the contiguous piece around it that is there: 1 (4 KiB) to 3 (1 GiB) */
	bool inherited; /* a parent's: guest_map_inherited() */
	bool logged; /* the leaf gets its right to write by this: guest_logged() when it is there */
};
/*
 * For an access (enum access). MEMORY_OK, or why the memory can't be used as it is. By its vCPU: a
 * write to what is inherited copies it.
 */
enum memory_fault_kind guest_frame(struct vm *vm, gpa_t gpa, u8 access, struct guest_frame *out);
/*
 * stage2_map_leaf() for what was inherited just now. If it is not any more, because somebody wrote
 * meanwhile, nothing is mapped, and 0 comes back: the guest faults again.
 */
int guest_map_inherited(struct vm *vm, gpa_t gpa, pfn_t pfn, u8 prot, u8 level);
/*
 * The page is dirty. After a leaf became writable, before the guest goes on: who clears the log in
 * between takes the right away again, or sees this at the next look.
 */
void guest_logged(struct vm *vm, gpa_t gpa);

/*
 * Exactly one of: stage2 (no memory behind gpa that can be used), noncanonical (#GP, or #SS for a
 * stack access), else #PF with error.
 */
struct walk_fault {
	bool stage2;
	bool noncanonical;
	gpa_t gpa; /* stage2: of the table entry or of the operand */
	u8 kind;   /* stage2: enum memory_fault_kind */
	u8 access; /* stage2: enum access */
	bool walk; /* stage2: it is a table entry */
	/*
	 * linear address of the page that failed, for CR2: within an access, its first byte in that
	 * page
	 */
	u64 gva;
	u32 error; /* page-fault error code */
};

/*
 * The guest's own page tables: linear address to gpa, for an access (enum access) by CPL `cpl`.
 * Walks as the CPU would in the current mode (none, 32-bit, PAE, 4 and 5 levels), and sets accessed
 * and dirty bits as it does: in tables that can't be written, that is a fault (fault->walk). With
 * WALK_QUIET beside the access it sets none: for who only looks, and for what the CPU has done.
 * 0, or -EFAULT with *fault. There may be no memory at *gpa (a device). cpl below the current
 * one is an implicit supervisor access: SMAP holds regardless of EFLAGS.AC. PAE: the four PDPTEs
 * are read from memory, not from the CPU's copies that MOV CR3 made.
 */
#define WALK_QUIET 8
int guest_walk(struct vcpu *v, u64 linear, u8 access, u8 cpl, gpa_t *gpa,
	       struct walk_fault *fault) MUST_CHECK;
/*
 * The four PDPTEs that PAE paging loads from this CR3. 0, or -EINVAL: a present one has a reserved
 * bit, or there is no memory, which reads as ones on a bus; or -EAGAIN (guest_read).
 */
int guest_read_pdptes(struct vcpu *v, u64 cr3, u64 pdptes[4]) MUST_CHECK;
/*
 * Copy from or to linear addresses, with the current CPL's rights, page by page. 0, or -EFAULT with
 * *fault, also where there is no memory (fault->stage2). A write that crosses pages looks at all of
 * them before it changes the first.
 */
int guest_read_linear(struct vcpu *v, u64 linear, void *dst, size_t len,
		      struct walk_fault *fault) MUST_CHECK;
int guest_write_linear(struct vcpu *v, u64 linear, const void *src, size_t len,
		       struct walk_fault *fault) MUST_CHECK;
/*
 * Instruction bytes at RIP, up to 15, fewer if the next page is missing. Returns the count, or
 * -EFAULT with *fault for none.
 */
int guest_fetch(struct vcpu *v, u8 bytes[15], struct walk_fault *fault);
/*
 * If the bytes at RIP (low byte first) begin as this, v->exit.insn_len becomes its length. For the
 * one case that is hot and that the caller knows to be there: 64-bit code, 4-level paging by cr3.
 * Nothing happens if four bytes are in two pages, and whenever something is odd: guest_fetch tells.
 * Rights are not checked: for the instruction that has just exited, the CPU did that. No
 * translation is remembered from call to call.
 */
struct insn_pattern {
	u32 bytes, mask;
	u8 len;
};
void guest_confirm_insn(struct vcpu *v, u64 cr3, const struct insn_pattern *insn);
