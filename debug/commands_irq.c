/* SPDX-License-Identifier: MIT */
/* irq: a VM's interrupt controllers. Words that others write meanwhile are read one by one. */
#include "debug/commands.h"
#include "dev/lapic.h"
#include "dev/platform.h"

static const char *const delivery_modes[8] = { "fixed", "lowest", "smi",  "reserved",
					       "nmi",	"init",	  "sipi", "extint" };

static void print_vectors(const char *key, struct lapic *l, u32 offset)
{
	const char *separator = "";

	monitor_printf(" %s=", key);
	for (u32 vector = 0; vector < 256; vector++) {
		u32 word = lapic_peek(l, offset + vector / 32 * 0x10);

		for (u32 level = 0; level < 2 && offset == APIC_IRR; level++)
			word |= READ_ONCE(l->posted[level].bits[vector / 32]);

		if (word >> vector % 32 & 1) {
			monitor_printf("%s0x%02x", separator, vector);
			separator = ",";
		}
	}
	monitor_printf("%s", *separator ? "" : "none");
}

static void print_lvt(const struct vcpu *v, struct lapic *l, const char *name, u32 offset)
{
	u32 lvt = lapic_peek(l, offset);

	monitor_printf("vm=%s vcpu=%u lvt=%s vector=0x%02x mode=%s masked=%u\n", v->vm->name,
		       v->index, name, (u32)(lvt & APIC_VECTOR),
		       delivery_modes[lvt >> APIC_MODE_SHIFT & 7], !!(lvt & APIC_LVT_MASKED));
}

static void print_lapic(struct vcpu *v)
{
	static const char *const timer_modes[] = { "oneshot", "periodic", "deadline", "reserved" };
	struct lapic *l = lapic_of(v);

	monitor_printf("vm=%s vcpu=%u apic=%s enabled=%u virtualized=%u id=%u tpr=0x%02x "
		       "ppr=0x%02x svr=0x%03x ldr=0x%08x esr=0x%02x nmi_pending=%u notified=%lu",
		       v->vm->name, v->index,
		       !lapic_on(l)  ? "off"
		       : lapic_x2(l) ? "x2"
				     : "x1",
		       lapic_enabled(l), v->apicv, v->index, lapic_peek(l, APIC_TPR),
		       lapic_peek(l, APIC_PPR), lapic_peek(l, APIC_SVR), lapic_peek(l, APIC_LDR),
		       lapic_peek(l, APIC_ESR), v->nmi_pending, READ_ONCE(v->notified));
	print_vectors("irr", l, APIC_IRR);
	print_vectors("isr", l, APIC_ISR);
	monitor_printf("\nvm=%s vcpu=%u timer=%s running=%u count=%u deadline=0x%lx\n", v->vm->name,
		       v->index, timer_modes[READ_ONCE(l->timer.mode) & 3],
		       READ_ONCE(l->timer.running), lapic_peek(l, APIC_TMICT),
		       READ_ONCE(l->timer.deadline));
	print_lvt(v, l, "timer", APIC_LVT_TIMER);
	print_lvt(v, l, "lint0", APIC_LVT_LINT0);
	print_lvt(v, l, "lint1", APIC_LVT_LINT1);
	print_lvt(v, l, "error", APIC_LVT_ERROR);
}

/* Redirection table entries: the fields of 82093AA. */
static void print_pin(const struct vm *vm, const struct ioapic *io, u32 pin)
{
	u64 entry = READ_ONCE(io->entry[pin]);

	monitor_printf("vm=%s pin=%u vector=0x%02x mode=%s dest=0x%02x logical=%u level=%u "
		       "masked=%u remote_irr=%u line=%u\n",
		       vm->name, pin, (u32)(entry & APIC_VECTOR),
		       delivery_modes[entry >> APIC_MODE_SHIFT & 7], (u32)(entry >> 56),
		       !!(entry & APIC_LOGICAL), !!(entry & APIC_TRIGGER),
		       !!(entry & APIC_LVT_MASKED), !!(entry & APIC_LVT_REMOTE_IRR),
		       READ_ONCE(io->lines) >> pin & 1);
}

bool cmd_irq(u32 argc, char **argv)
{
	struct vm *vm;

	if (argc != 2)
		return false;
	vm = command_vm(argv[0], argv[1]);
	for (u32 i = 0; vm && i < vm->nr_vcpus; i++)
		if (vm->vcpus[i]->lapic)
			print_lapic(vm->vcpus[i]);
	for (u32 pin = 0; vm && vm->platform && pin < IOAPIC_PINS; pin++)
		print_pin(vm, &platform_of(vm)->ioapic, pin);
	return true;
}
