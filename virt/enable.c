/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ipi.h"
#include "lib/assert.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/phys.h"
#include "virt/enable.h"
#include "virt/fpu.h"

static struct virt_cpu virt_cpus_[MAX_CPUS];
static struct virt_caps reference_record; /* written in virt_setup() only */
static struct virt_caps *reference;
static struct cpumask usable;
static u32 users;
static bool set_up; /* virt_setup() went well */
static char obstacle[160] = "virtualization was not set up";
static enum virt_mixed policy;
static const struct virt_ops *const *backend_list;
static u32 backend_count;

const struct virt_caps *virt_reference(void)
{
	return reference;
}

const struct virt_cpu *virt_cpu(u32 cpu)
{
	return &virt_cpus_[cpu];
}

const struct cpumask *virt_cpus(void)
{
	return &usable;
}

bool virt_enabled(void)
{
	return users > 0;
}

const char *virt_obstacle(void)
{
	return obstacle;
}

static const struct virt_ops *backend_here(void)
{
	for (u32 i = 0; i < backend_count; i++)
		if (backend_list[i]->present())
			return backend_list[i];
	return NULL;
}

/*
 * In the IPI, on each CPU: its own record from scratch. A CPU without the extension has the common
 * part only.
 */
static int read_caps(void *arg)
{
	struct virt_cpu *c = &virt_cpus_[this_cpu(cpu_id)];
	const struct virt_ops *ops = backend_here();

	(void)arg;
	memset(&c->caps, 0, sizeof(c->caps));
	c->caps.cpu = this_cpu(cpu_id);
	caps_read_common(&c->caps);
	if (ops)
		ops->caps_read(&c->caps);
	/* Wholly read here: nothing migrates with interrupts off. */
	ASSERT(!irqs_enabled() && c->caps.cpu == this_cpu(cpu_id));
	c->read = true;
	return ops ? 0 : -ENODEV;
}

static void log_difference(void *arg, u32 field)
{
	const struct virt_cpu *c = arg;
	const struct cap_field *f = cap_field(virt_ops->caps, field);

	log_warn("CPU %u differs: %s: expected %#lx (CPU %u), seen %#lx", c->caps.cpu, f->name,
		 reference->value[field], reference->cpu, c->caps.value[field]);
}

static void complain(u32 cpu, const char *why)
{
	log_err("virtualization: CPU %u: %s", cpu, why);
}

/* The first of them is why no VM can run. */
static void cannot(u32 cpu, const char *why)
{
	complain(cpu, why);
	if (!obstacle[0])
		fmt_snprintf(obstacle, sizeof(obstacle), "CPU %u: %s", cpu, why);
}

static void missing(const char *what)
{
	cannot(reference->cpu, what);
}

/*
 * In the IPI, on each CPU: its own record once more from scratch, against the reference. Whoever
 * changed between the two readings is caught here.
 */
static int compare_here(void *arg)
{
	struct virt_cpu *c = &virt_cpus_[this_cpu(cpu_id)];

	(void)read_caps(arg);
	c->differences = caps_compare(virt_ops->caps, reference, &c->caps, NULL, NULL);
	return c->differences ? -EINVAL : 0;
}

/* What comparing said of a CPU: one that differs is said, and not usable. */
static bool judge(u32 cpu, int result)
{
	struct virt_cpu *c = &virt_cpus_[cpu];

	c->excluded = result != 0;
	if (!c->excluded)
		return true;
	if (result == -ETIMEDOUT) {
		log_warn("CPU %u is excluded: it did not answer", cpu);
		return false;
	}
	(void)caps_compare(virt_ops->caps, reference, &c->caps, log_difference, c);
	log_warn("CPU %u is excluded: %u fields differ from CPU %u", cpu, c->differences,
		 reference->cpu);
	return false;
}

/* Every CPU compares itself. Returns how many differ. */
static u32 compare_all(void)
{
	static int results[MAX_CPUS];
	u32 odd = 0;

	usable = (struct cpumask){ 0 };
	ipi_call(IPI_COMPARE, &cpus_online, NULL, results);
	for_each_cpu(cpu, &cpus_online) {
		if (judge(cpu, results[cpu]))
			bitmap_set(usable.bits, cpu);
		else
			odd++;
	}
	return odd;
}

static u32 choose_reference(u32 wanted, const int results[MAX_CPUS])
{
	if (wanted >= MAX_CPUS || !bitmap_test(cpus_online.bits, wanted)) {
		log_warn("setup_cpu = %u: no such CPU is online, CPU 0 is used", wanted);
		wanted = 0;
	}
	if (!results[wanted])
		return wanted;
	for_each_cpu(cpu, &cpus_online) {
		if (!results[cpu]) {
			log_warn("CPU %u %s: CPU %u is the reference instead", wanted,
				 results[wanted] == -ETIMEDOUT ? "did not answer"
							       : "has neither VMX nor SVM",
				 cpu);
			return cpu;
		}
	}
	return wanted;
}

static int virt_cpu_on(void *arg);
static int virt_cpu_off(void *arg);

/* The backend whose vendor's bit the reference CPU's record shows. */
static const struct virt_ops *backend_of(u32 cpu)
{
	for (u32 i = 0; i < backend_count; i++)
		if (virt_cpus_[cpu].caps.count == (u32)CAP_VENDOR + backend_list[i]->caps->count)
			return backend_list[i];
	return NULL;
}

/* Control words and FPU components, from the reference record alone. */
static int decide(void)
{
	int err = virt_ops->setup(reference, missing);

	if (!err)
		err = fpu_init(reference->value[CAP_XCR0]);
	if (err && !obstacle[0])
		missing("setup failed");
	return err;
}

/*
 * mixed_cpus = common: cut the reference to what every CPU of this backend has, all or nothing on
 * what is required, and compare again: whoever still differs (another VMCS revision, say) stays
 * excluded.
 */
static int decide_on_common(void)
{
	int err;

	for_each_cpu(cpu, &cpus_online)
		if (virt_cpus_[cpu].caps.count == reference->count)
			caps_intersect(virt_ops->caps, reference, &virt_cpus_[cpu].caps);
	err = decide();
	set_up = !err;
	if (err) {
		log_err("virtualization: what the CPUs have in common is not enough");
		return err;
	}
	log_info("virtualization: the CPUs differ; what they have in common is used");
	compare_all();
	return 0;
}

/* mixed_cpus = refuse: no VM starts. */
static bool refuse_if_mixed(void)
{
	if (policy != VIRT_MIXED_REFUSE)
		return false;
	fmt_snprintf(obstacle, sizeof(obstacle),
		     "the CPUs differ and mixed_cpus = refuse (see cpu N diff)");
	log_err("virtualization: %s", obstacle);
	set_up = false;
	return true;
}

int virt_setup(const struct virt_ops *const backends[], u32 count, u32 setup_cpu,
	       enum virt_mixed mixed)
{
	static int results[MAX_CPUS];
	int err;

	backend_list = backends;
	backend_count = count;
	policy = mixed;
	obstacle[0] = '\0';
	ipi_set_handler(IPI_CAPS, read_caps);
	ipi_set_handler(IPI_COMPARE, compare_here);
	ipi_set_handler(IPI_VIRT_ENABLE, virt_cpu_on);
	ipi_set_handler(IPI_VIRT_DISABLE, virt_cpu_off);
	ipi_call(IPI_CAPS, &cpus_online, NULL, results);
	setup_cpu = choose_reference(setup_cpu, results);
	reference_record = virt_cpus_[setup_cpu].caps;
	reference = &reference_record;
	ASSERT(reference->cpu == setup_cpu);
	virt_ops = results[setup_cpu] ? NULL : backend_of(setup_cpu);
	if (!virt_ops) {
		missing("the CPU has neither VMX nor SVM");
		return trace_error(-EOPNOTSUPP);
	}
	err = decide();
	set_up = !err;
	if (err || !compare_all())
		return err;
	if (mixed == VIRT_MIXED_COMMON)
		return decide_on_common();
	return refuse_if_mixed() ? trace_error(-EOPNOTSUPP) : 0;
}

static int virt_cpu_on(void *arg)
{
	struct virt_cpu_state *s = &virt_cpus_[this_cpu(cpu_id)].state;

	(void)arg;
	if (s->enabled)
		return 0; /* it did not hear that it was to be turned off */
	s->steps = 0;
	s->why[0] = '\0';
	fault_phase(FAULT_ENABLING);
	s->error = virt_ops->cpu_enable(s);
	fault_phase(FAULT_ANY_TIME);
	s->enabled = !s->error;
	/* After the work: whoever gave up on us has said so before it asked us to turn it off. */
	if (s->enabled && !READ_ONCE(virt_cpus_[this_cpu(cpu_id)].wanted)) {
		log_warn("CPU %u turned virtualization on too late: off again", this_cpu(cpu_id));
		virt_disable_here();
	}
	return s->error;
}

static int virt_cpu_off(void *arg)
{
	(void)arg;
	virt_disable_here();
	return 0;
}

void virt_disable_here(void)
{
	struct virt_cpu_state *s = &virt_cpus_[this_cpu(cpu_id)].state;

	if (!s->enabled)
		return;
	fault_phase(FAULT_DISABLING);
	virt_ops->cpu_disable(s);
	fault_phase(FAULT_ANY_TIME);
}

/* Regions are allocated here: the IPI handlers allocate nothing. */
static int prepare_regions(const struct cpumask *cpus_, void (*report)(u32 cpu, const char *why))
{
	for_each_cpu(cpu, cpus_) {
		struct virt_cpu_state *s = &virt_cpus_[cpu].state;

		pfn_t f;

		if (s->region)
			continue;
		f = fault_of(cpu, FAULT_REGION, NULL) ? PFN_NONE
						      : frame_alloc_order(1, FRAME_HW, VM_NONE);
		if (!pfn_valid(f)) {
			report(cpu, "no memory for its VMXON region or host save area");
			return trace_error(-ENOMEM);
		}
		s->region = pfn_ptr(f);
		memset(s->region, 0, 2 * PAGE_SIZE);
	}
	return 0;
}

static void turn_off(const struct cpumask *mask)
{
	static int results[MAX_CPUS];

	for_each_cpu(cpu, mask)
		WRITE_ONCE(virt_cpus_[cpu].wanted, false);
	ipi_call(IPI_VIRT_DISABLE, mask, NULL, results);
	for_each_cpu(cpu, mask)
		if (results[cpu])
			log_err("virtualization: CPU %u did not answer: it may stay on there", cpu);
}

/* All of them or none. */
static int turn_on(const struct cpumask *mask, void (*report)(u32 cpu, const char *why))
{
	static int results[MAX_CPUS];
	int err = prepare_regions(mask, report);

	if (err)
		return err;
	for_each_cpu(cpu, mask)
		WRITE_ONCE(virt_cpus_[cpu].wanted, true);
	err = ipi_call(IPI_VIRT_ENABLE, mask, NULL, results);
	if (!err)
		return 0;
	for_each_cpu(cpu, mask)
		if (results[cpu])
			report(cpu, results[cpu] == -ETIMEDOUT
					    ? "did not answer the call to turn virtualization on"
					    : virt_cpus_[cpu].state.why);
	turn_off(mask);
	return err;
}

int virt_enable_get(void)
{
	int err = 0;

	if (!set_up)
		return trace_error(-ENODEV);
	if (!users) {
		obstacle[0] = '\0'; /* another try may do better than the last one */
		err = turn_on(&usable, cannot);
	}
	if (!err)
		users++;
	return err;
}

void virt_enable_put(void)
{
	if (WARN_ON(!users) || --users)
		return;
	turn_off(&usable);
}

void virt_cpu_retire(u32 cpu)
{
	bitmap_test_and_clear_atomic(usable.bits, cpu);
}

int virt_cpu_join(u32 cpu)
{
	struct cpumask one = { 0 };
	int err;

	if (!virt_ops)
		return 0;
	bitmap_set(one.bits, cpu);
	if (!judge(cpu, ipi_call(IPI_COMPARE, &one, NULL, NULL))) {
		refuse_if_mixed();
		return trace_error(-EINVAL);
	}
	err = users ? turn_on(&one, complain) : 0;
	if (!err)
		bitmap_test_and_set_atomic(usable.bits, cpu);
	return err;
}

struct diff_emit {
	u32 cpu;
	void (*emit)(void *arg, const char *field, const char *rule, u64 expected, u64 seen);
	void *arg;
};

static void emit_difference(void *arg, u32 field)
{
	static const char *const rules[] = { "equal", "superset", "at-least", "info" };
	const struct diff_emit *d = arg;
	const struct cap_field *f = cap_field(virt_ops->caps, field);

	d->emit(d->arg, f->name, rules[f->rule], reference->value[field],
		virt_cpus_[d->cpu].caps.value[field]);
}

u32 virt_diff(u32 cpu,
	      void (*emit)(void *arg, const char *field, const char *rule, u64 expected, u64 seen),
	      void *arg)
{
	struct diff_emit d = { cpu, emit, arg };

	if (!virt_ops || !reference || cpu >= MAX_CPUS || !virt_cpus_[cpu].read)
		return 0;
	return caps_compare(virt_ops->caps, reference, &virt_cpus_[cpu].caps, emit_difference, &d);
}
