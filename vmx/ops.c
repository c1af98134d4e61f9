/* SPDX-License-Identifier: MIT */
#include "vmx/ept.h"
#include "vmx/vmx.h"

const struct virt_ops vmx_ops = {
	.name = "vmx",
	.pt_format = &ept_format,
	.caps = &vmx_caps,
	.vcpu_size = sizeof(struct vmx_vcpu),
	.loads_pdptes = true,
	.present = vmx_present,
	.caps_read = vmx_caps_read,
	.setup = vmx_setup,
	.max_leaf = vmx_max_leaf,
	.can_step = vmx_can_step,
	.cpu_enable = vmx_cpu_enable,
	.cpu_disable = vmx_cpu_disable,
	.vcpu_create = vmx_vcpu_create,
	.vcpu_destroy = vmx_vcpu_destroy,
	.vcpu_reset = vmx_vcpu_reset,
	.vcpu_load = vmx_vcpu_load,
	.vcpu_put = vmx_vcpu_put,
	.run = vmx_run,
	.get_reg = vmx_get_reg,
	.set_reg = vmx_set_reg,
	.get_seg = vmx_get_seg,
	.set_seg = vmx_set_seg,
	.debug_exits = vmx_debug_exits,
	.pause_exits = vmx_pause_exits,
	.apicv = vmx_apicv,
	.apicv_requested = vmx_apicv_requested,
	.flush = vmx_flush_stage2,
	.dump = vmx_dump,
};
