/* SPDX-License-Identifier: MIT */
#include "svm/ops.h"
#include "svm/svm.h"

/* By TF. */
static bool can_step(void)
{
	return true;
}

const struct virt_ops svm_ops = {
	.name = "svm",
	.caps = &svm_cap_table,
	.vcpu_size = sizeof(struct svm_vcpu),
	.present = svm_present,
	.caps_read = svm_caps_read,
	.setup = svm_setup,
	.pt_format = svm_pt_format,
	.can_step = can_step,
	.cpu_enable = svm_cpu_enable,
	.cpu_disable = svm_cpu_disable,
	.vcpu_create = svm_vcpu_create,
	.vcpu_destroy = svm_vcpu_destroy,
	.vcpu_reset = svm_vcpu_reset,
	.vcpu_load = svm_vcpu_load,
	.vcpu_put = svm_vcpu_put,
	.run = svm_run,
	.get_reg = svm_get_reg,
	.set_reg = svm_set_reg,
	.get_seg = svm_get_seg,
	.set_seg = svm_set_seg,
	.get_mmu = svm_get_mmu,
	.debug_exits = svm_debug_exits,
	.pause_exits = svm_pause_exits,
	.bus_locks = svm_bus_locks,
	.flush = svm_flush,
	.fields = svm_list_fields,
	.fields_name = "vmcb",
	.dump = svm_dump,
};
