/* SPDX-License-Identifier: MIT */
/*
 * What the CPU caches of translations, and forgetting it (SDM "Caching Translation Information").
 *
 * Combined mappings carry VPID and EPT root, guest-physical mappings the EPT root only. A vCPU that
 * comes to a CPU may meet mappings of its own from an earlier stay (the guest's INVLPG acted
 * elsewhere meanwhile), or those of an older VM whose root frame or VPID was used again. INVEPT of
 * its root removes both kinds for every VPID, so it is done at each change of CPU.
 */
#include "lib/assert.h"
#include "lib/bitmap.h"
#include "vmx/insn.h"
#include "vmx/vmx.h"

#define VPIDS 4096 /* more vCPUs than that run without, which is slower and right */
static u64 vpids[BITMAP_WORDS(VPIDS)] = { 1 };

/* A VPID that no other vCPU has, or 0. Any CPU. */
u16 vmx_vpid_alloc(void)
{
	for (u32 i = 1; i < VPIDS; i++)
		if (!bitmap_test(vpids, i) && !bitmap_test_and_set_atomic(vpids, i))
			return (u16)i;
	return 0;
}

void vmx_vpid_free(u16 vpid)
{
	if (vpid)
		WARN_ON(!bitmap_test_and_clear_atomic(vpids, vpid));
}

bool vmx_flush_all(void)
{
	if (invept(INVEPT_ALL, 0) != VMX_OK)
		return false;
	return !vmx_controls.vpid || invvpid(INVVPID_ALL, 0) == VMX_OK;
}

/* ops->flush: guest-physical and combined mappings of the VM, on this CPU. */
void vmx_flush_stage2(struct vcpu *v)
{
	struct vmx_vcpu *x = to_vmx(v);

	VM_BUG_ON(v->vm, invept(INVEPT_SINGLE, x->eptp) != VMX_OK);
}

/*
 * The guest's own translations, as its MOV to CR3 would, global ones too. Without a VPID each entry
 * does that.
 */
void vmx_flush_guest(struct vmx_vcpu *x)
{
	if (x->vpid)
		VM_BUG_ON(x->v.vm, invvpid(vmx_controls.invvpid_type, x->vpid) != VMX_OK);
}
