/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "arch/x86/msr.h"
#include "debug/inspect.h"
#include "lib/error.h"
#include "virt/enable.h"
#include "virt/ops.h"
#include "virt/sched.h"

#define TRIES 10 /* a vCPU that goes from CPU to CPU */

struct look {
	struct vcpu *v;
	void (*f)(struct vcpu *v, void *arg);
	void *arg;
};

/*
 * Whoever is v->cpu is the only one who may load v, or give it away; and that does neither
 * meanwhile. A debugger that loads a vCPU it holds is a task of the CPU whose command this is.
 */
static int look_here(void *arg)
{
	const struct look *l = arg;
	u32 me = this_cpu(cpu_id);
	struct vcpu *v = l->v, *other = (struct vcpu *)sched_current(me);

	if (READ_ONCE(v->cpu) != me)
		return -EAGAIN;
	if (v->loaded_cpu == me) {
		l->f(v, l->arg);
		return 0;
	}
	if (!virt_cpu(me)->state.enabled)
		return -ENODEV;
	if (other && other->loaded_cpu != me)
		other = NULL;
	if (other)
		virt_ops->vcpu_put(other);
	virt_ops->vcpu_load(v);
	l->f(v, l->arg);
	virt_ops->vcpu_put(v);
	if (other) {
		virt_ops->vcpu_load(other);
		other->loaded_cpu = me;
	}
	return 0;
}

static int call(u32 cpu, enum ipi_kind kind, void *arg)
{
	struct cpumask only = { 0 };

	if (cpu >= nr_cpus || !bitmap_test(cpus_online.bits, cpu))
		return -ENODEV;
	bitmap_set(only.bits, cpu);
	return ipi_call(kind, &only, arg, NULL);
}

int inspect_vcpu(struct vcpu *v, void (*f)(struct vcpu *v, void *arg), void *arg)
{
	struct look l = { .v = v, .f = f, .arg = arg };
	int err = virt_enable_get(); /* it may be the only VM, and stopped */

	if (err)
		return err;
	err = -EAGAIN;
	for (u32 i = 0; err == -EAGAIN && i < TRIES; i++)
		err = call(READ_ONCE(v->cpu), IPI_LOOK, &l);
	virt_enable_put();
	return err;
}

struct msr_read {
	u32 msr;
	u64 value;
};

static int read_here(void *arg)
{
	struct msr_read *m = arg;

	return rdmsr_safe(m->msr, &m->value);
}

int inspect_msr(u32 cpu, u32 msr, u64 *value)
{
	struct msr_read m = { .msr = msr };
	int err = call(cpu, IPI_MSR, &m);

	*value = m.value;
	return err;
}

void inspect_init(void)
{
	ipi_set_handler(IPI_LOOK, look_here);
	ipi_set_handler(IPI_MSR, read_here);
}
