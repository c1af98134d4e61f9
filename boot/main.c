/* SPDX-License-Identifier: MIT */
/*
 * The composition root: the order in which the machine is taken over, and the only file that names
 * both backends. Each step stands on those before it; what can fail without taking the machine down
 * says so and goes on.
 */
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/desc.h"
#include "arch/x86/fault.h"
#include "arch/x86/insn.h"
#include "arch/x86/ioapic.h"
#include "arch/x86/ipi.h"
#include "arch/x86/serial.h"
#include "arch/x86/smp.h"
#include "arch/x86/split_lock.h"
#include "arch/x86/topology.h"
#include "arch/x86/tsc.h"
#include "boot/machine.h"
#include "boot/version.h"
#include "boot/vms.h"
#include "debug/backtrace.h"
#include "debug/console.h"
#include "debug/crash.h"
#include "debug/dump.h"
#include "debug/gdb_line.h"
#include "debug/monitor.h"
#include "debug/screen.h"
#include "debug/status.h"
#include "debug/watchdog.h"
#include "dev/clock.h"
#include "lib/assert.h"
#include "lib/grace.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/hostmap.h"
#include "mm/phys.h"
#include "svm/ops.h"
#include "virt/corruption.h"
#include "virt/enable.h"
#include "virt/exits.h"
#include "virt/hotplug.h"
#include "virt/sched.h"
#include "vmx/ops.h"

#define STOP_MS	 500
#define GDB_BAUD 115200

void corbel_main(struct bootinfo *info);

/* entry.asm's first stack, until the CPU has its own. */
u8 boot_stack[STACK_SIZE] ALIGNED(16);
/* Before the CPU has its own: all IST stacks in one. Its top word, 0, is the early GS base. */
static u8 early_ist[IST_SIZE] ALIGNED(IST_SIZE);

static struct bootinfo *boot;
static struct config config;
static struct task start_task, serial_task, vm_task;
static const struct virt_ops *const backends[] = { &vmx_ops, &svm_ops };

DEFINE_PERCPU(u32, lock_ranks_held);

static u32 *held_ranks(void)
{
	return this_cpu_ptr(u32, lock_ranks_held);
}

static u32 cpu_number(void)
{
	return this_cpu(cpu_id);
}

static void early_cpu(void)
{
	u64 top = (u64)early_ist + IST_SIZE - 16;
	const u64 ist[IST_COUNT + 1] = { 0, top, top, top };

	cpus[0].percpu_offset = 0;
	cpu_set_percpu(0);
	cpu_init_control();
	trap_nmi_hook = crash_nmi;
	trap_crash_hook = crash_trap;
	desc_load(ist);
	log_cpu = cpu_number;
	log_irq_save_hook = irq_save;
	log_irq_restore_hook = irq_restore;
	panic_hook = crash_message;
	backtrace_hook = backtrace_here;
	vcpu_dump_hook = dump_vcpu;
}

static void config_report(void *arg, const char *line)
{
	(void)arg;
	log_err("%s", line);
}

static const struct config_sink config_errors = { "corbel.conf", config_report, NULL };
static const struct config_sink option_errors = { "LoadOptions", config_report, NULL };

static void fault_error(const char *word, const char *why)
{
	config_error_at(config.faults_line ? &config_errors : &option_errors, config.faults_line,
			"faults", "'%.48s' %s", word, why);
}

static void read_config(void)
{
	if (boot->config)
		config_parse(&config, hpa_ptr(HPA(boot->config)), boot->config_size,
			     &config_errors);
	else
		config_parse(&config, "", 0, &config_errors);
	if (boot->options[0])
		config_override(&config, boot->options, &option_errors);
	fault_configure(config.faults, fault_error);
}

/* Before Corbel's own tables: the loader maps all of this. */
static const void *early_map(u64 hpa, u64 size)
{
	return hpa < 64 * GIB && size < 64 * GIB - hpa ? hpa_ptr(HPA(hpa)) : NULL;
}

static void acpi_warning(const char *line)
{
	log_warn("%s", line);
}

static void open_serial(void)
{
	u16 port = config.serial_port;

	if (config.serial == CONFIG_SERIAL_NONE)
		return;
	if (config.serial == CONFIG_SERIAL_AUTO)
		port = acpi.serial.space == 1 && acpi.serial.address ? (u16)acpi.serial.address
								     : 0x3f8;
	if (serial_init(SERIAL_CONSOLE, port, config.baud))
		log_warn("serial: no UART at port %#x", port);
}

#define PREVIOUS_LINES 24 /* of a boot that ended without a report */
#define REPORT_LINES   150

/* Right behind the stamp: a line that only quotes a report of the boot before it is none. */
static bool begins_report(const char *line, size_t len)
{
	static const char mark[] = "] corbel: PANIC:";
	size_t i = 0;

	while (i < len && line[i] != ']')
		i++;
	return len - i >= sizeof(mark) - 1 && !memcmp(line + i, mark, sizeof(mark) - 1);
}

/*
 * A boot that ended without a word: its log survived, if this is a warm boot. Shown from its crash
 * report on, or its last lines.
 */
static void report_previous_boot(void)
{
	u32 left = 0 /* still to come, this one included */, report = 0;
	bool ended;

	if (!log_previous(&ended))
		return;
	for_each_log_line(l, true) left++;
	log_at(ended ? LOG_INFO : LOG_WARN, "log: %u lines of the boot before are kept (log -p)%s",
	       left, ended ? "" : "; it was not ended on purpose:");
	for_each_log_line(l, true)
	{
		if (ended)
			break;
		if (report || begins_report(l.text, l.len))
			report++;
		if (report ? report <= REPORT_LINES : left <= PREVIOUS_LINES)
			log_warn("  before: %.*s", (int)l.len, l.text);
		left--;
	}
}

/* By default the second port, if there is one and the console has not got it. */
static void open_gdb(void)
{
	u16 port = config.gdb == CONFIG_SERIAL_PORT ? config.gdb_port : 0x2f8;

	if (config.gdb == CONFIG_SERIAL_NONE)
		return;
	if (port != serial_port(SERIAL_CONSOLE) && !serial_init(SERIAL_GDB, port, GDB_BAUD))
		log_info("gdb: guests can be debugged at port %#x", port);
	else if (config.gdb == CONFIG_SERIAL_PORT)
		log_warn("gdb: no UART at port %#x, or the console's", port);
}

static void crash_output(void)
{
	serial_crash_mode();
	console_crash_mode();
}

static void *map_for_arch(u64 hpa, u64 size, bool cached)
{
	return host_map(HPA(hpa), size, cached ? HOST_WB : HOST_UC);
}

static void open_screen(void)
{
	struct screen_mode mode = { .width = boot->fb.width,
				    .height = boot->fb.height,
				    .stride = boot->fb.stride,
				    .bgr = boot->fb.bgr };

	if (!boot->fb.width)
		return;
	/* what is drawn to, not what the firmware says is there: some say too little */
	mode.base = host_map(HPA(boot->fb.base), (u64)mode.stride * mode.height * 4, HOST_WC);
	if (!mode.base)
		return;
	screen_init(&mode);
	for_each_log_line(l, false)
	{
		screen_write(l.text, l.len);
		screen_write("\n", 1);
	}
}

/* The boot CPU is CPU 0, the others follow in MADT order. */
static void list_cpus(void)
{
	acpi_boot_cpu_first(&acpi, apic_id());
	nr_cpus = acpi.cpu_count;
	for (u32 i = 0; i < nr_cpus; i++) {
		u64 listed = acpi.cpu_apic_id[i];

		(void)fault_of(i, FAULT_APIC_ID, &listed);
		cpus[i].id = i;
		cpus[i].apic_id = (u32)listed;
	}
	if (acpi.cpus_disabled || acpi.cpus_duplicate || acpi.cpus_ignored)
		log_info("MADT: %u CPUs disabled, %u listed twice, %u more than Corbel can use",
			 acpi.cpus_disabled, acpi.cpus_duplicate, acpi.cpus_ignored);
	for (u32 i = 1; i < nr_cpus; i++)
		if (machine_cpu_memory(i))
			cpus[i].stack_top = NULL; /* smp_start() says so */
}

static u32 halted; /* atomic: CPUs that have stopped for good */

static int halt_here(void *arg)
{
	(void)arg;
	virt_disable_here();
	split_lock_leave();
	__atomic_add_fetch(&halted, 1, __ATOMIC_SEQ_CST);
	halt_forever();
}

/*
 * INIT and reset are blocked in VMX operation: every CPU leaves it first. One that hangs is not
 * waited for.
 */
static void stop_cpus(void)
{
	struct cpumask others = cpus_online;
	u64 deadline = rdtsc() + (u64)STOP_MS * tsc_khz;
	u32 count;

	irq_disable();
	watchdog_stop();
	bitmap_clear(others.bits, this_cpu(cpu_id));
	count = bitmap_weight(others.bits, MAX_CPUS);
	ipi_post(IPI_HALT, &others, NULL);
	while (__atomic_load_n(&halted, __ATOMIC_SEQ_CST) < count && rdtsc() < deadline)
		cpu_pause();
	if (halted < count) {
		log_warn("%u of %u other CPUs did not stop", count - halted, count);
		serial_drain();
	}
	virt_disable_here();
	split_lock_leave();
}

static void poweroff(void)
{
	console_attach_monitor(); /* the last word is for everybody */
	fault_report();
	vm_prove_report();
	if (vms_failed())
		log_info("corbel: power off: %u VM%s failed", vms_failed(),
			 vms_failed() == 1 ? "" : "s");
	else
		log_info("corbel: power off: every VM ended well");
	log_ended();
	serial_drain();
	stop_cpus();
	acpi_poweroff();
	serial_drain();
	halt_forever();
}

static void reboot(void)
{
	console_attach_monitor();
	log_info("corbel: reset");
	log_ended();
	serial_drain();
	stop_cpus();
	machine_reset();
}

static void serial_received(void)
{
	task_wake(&serial_task);
}

/* The port's interrupt: COM1 to COM4 as on every PC, another one as SPCR says; 0: it is polled. */
static u32 serial_gsi(enum serial_line line, u16 *flags)
{
	u16 port = serial_port(line);

	*flags = 0;
	if (port == 0x3f8 || port == 0x3e8)
		return ioapic_isa_gsi(4, flags);
	if (port == 0x2f8 || port == 0x2e8)
		return ioapic_isa_gsi(3, flags);
	return acpi.serial.address == port ? acpi.serial_gsi : 0;
}

static void serial_run(struct task *t)
{
	int c;

	(void)t;
	while ((c = serial_read(SERIAL_CONSOLE)) >= 0)
		console_input((u8)c);
}

static void vm_stopped(struct vm *vm)
{
	(void)vm;
	gdb_line_wake(); /* first: it sees the end of this life */
	task_wake(&vm_task);
}

/*
 * A VM has come to rest: what its configuration says, then what Corbel's says once none runs. Each
 * VM once: one that ends again wakes the task again, and the monitor gets its turn in between.
 */
static void vm_run(struct task *t)
{
	bool idle = true;

	(void)t;
	list_for_each_safe(n, &vm_list) {
		struct vm *vm = list_entry(n, struct vm, node);

		if (!vms_has_ended(vm))
			continue;
		vm->ends_seen = vm->starts;
		vms_ended(vm);
	}
	list_for_each(n, &vm_list) {
		const struct vm *vm = list_entry(n, struct vm, node);

		/* In this order: one that stops in between is seen by the second look. */
		idle &= READ_ONCE(vm->state) != VM_RUNNING && !vms_has_ended(vm);
	}
	if (vms_want_poweroff() ||
	    (config.when_idle == CONFIG_IDLE_POWEROFF && idle && !vms_cloning()))
		poweroff();
}

static void enable_virtualization(void)
{
	u32 setup = config.setup_cpu == CONFIG_SETUP_BOOT ? 0 : (u32)config.setup_cpu;
	u64 began = rdtsc(), decided;
	int err;

	x_split = (enum x_split)config.x_split;
	err = virt_setup(backends, ARRAY_SIZE(backends), setup, (enum virt_mixed)config.mixed_cpus);
	on_corruption = (enum on_corruption)config.on_corruption;
	decided = rdtsc();
	if (!err && virt_ops->can_step())
		split_lock_init(config.split_lock.policy != CONFIG_SPLIT_OFF);
	if (!err)
		err = virt_enable_get();
	log_debug("virtualization: %lu ticks to read, compare and decide, %lu to enable",
		  decided - began, rdtsc() - decided);
	if (!err)
		log_info("virtualization: %s is on, on %u of %u CPUs", virt_ops->name,
			 bitmap_weight(virt_cpus()->bits, MAX_CPUS),
			 bitmap_weight(cpus_online.bits, MAX_CPUS));
	else
		log_err("virtualization: no VM can run: %s", virt_obstacle());
}

/* attach = NAME, if it came up: a console that stays silent would be no help. */
static void attach_first(void)
{
	struct vm *vm = config.attach[0] ? vm_find(config.attach) : NULL;

	if (vm && vm->state == VM_RUNNING)
		console_attach(vm);
}

static const struct monitor_actions actions = {
	.version = CORBEL_VERSION,
	.poweroff = poweroff,
	.reboot = reboot,
	.vm_reset = vms_reset,
	.vm_create = vms_make,
	.vm_destroy = vms_destroy,
	.vm_clone = vms_clone,
	.vm_snapshot = vms_snapshot,
	.vm_restore = vms_restore,
};

static void ap_main(void)
{
	watchdog_start();
	sched_loop();
}

/* VMs and the monitor, on the CPU whose tasks they are. */
static void start_run(struct task *t)
{
	u16 flags;
	u32 gsi;

	(void)t;
	vms_create(boot, &config, &config_errors);
	monitor_init(&actions);
	status_init();
	attach_first();
	gsi = serial_gsi(SERIAL_CONSOLE, &flags);
	serial_start_input(SERIAL_CONSOLE, gsi, flags, serial_received);
	gsi = serial_gsi(SERIAL_GDB, &flags);
	gdb_line_start(gsi, flags);
	if (!vms_any_running())
		task_wake(&vm_task);
}

/*
 * Where VMs are set up, which needs virtualization, and the monitor runs: the boot CPU, if it is
 * like the others.
 */
static void add_tasks(void)
{
	u32 cpu = bitmap_next(virt_cpus()->bits, MAX_CPUS, 0);

	if (cpu == MAX_CPUS)
		cpu = 0;
	if (cpu)
		log_info("the monitor runs on CPU %u", cpu);
	hotplug_init(cpu);
	vms_init(cpu);
	task_add(&serial_task, cpu, serial_run);
	gdb_line_init(cpu);
	task_add(&vm_task, cpu, vm_run);
	task_add(&start_task, cpu, start_run);
	task_wake(&start_task);
}

/* On the boot CPU's own stack, with Corbel's tables: the rest of the way. */
static void main_on_stack(void)
{
	static struct smp_boot smp = { .ap_main = ap_main, .ist = machine_ist };
	u32 online;

	cpu_set_percpu(0);
	desc_load(machine_ist(0));
	machine_release_firmware(boot);
	open_screen();
	if (apic_init())
		panic("this CPU has no local APIC");
	clock_calibrate();
	log_clock_ns = clock_ns;
	if (boot->wall_seconds)
		dev_time.wall_base_ns =
			boot->wall_seconds * 1000000000ull - tsc_to_ns(boot->tsc_start);
	timer_init_cpu();
	ioapic_init();
	ipi_init();
	ipi_set_handler(IPI_HALT, halt_here);
	tsc_init();
	topo_read(0);
	smp_boot_cpu_online();
	sched_init();
	list_cpus();
	smp.trampoline = fault_of(0, FAULT_TRAMPOLINE, NULL) ? 0 : boot->trampoline;
	smp.trampoline_ptr = hpa_ptr(HPA(boot->trampoline));
	smp.cr3 = host_cr3();
	smp_prepare(&smp);
	WARN_ON(!hostmap_seal(HPA(boot->trampoline)));
	online = smp_start();
	log_info("CPUs: %u of %u online, %s", online, nr_cpus, apic_x2 ? "x2APIC" : "xAPIC");
	topo_evaluate();
	for_each_cpu(id, &cpus_online)
		if (id)
			(void)tsc_sync(id); /* it has reported; no guest was told yet */
	fault_ready();
	enable_virtualization();
	console_init();
	vm_stopped_hook = vm_stopped;
	add_tasks();
	watchdog_start();
	sched_loop();
}

static void NORETURN switch_stack(void *top, void (*next)(void))
{
	asm volatile("mov %0, %%rsp\n\txor %%ebp, %%ebp\n\tpush %%rbp\n\tjmp *%1"
		     :
		     : "r"(top), "r"(next)
		     : "memory");
	__builtin_unreachable();
}

void corbel_main(struct bootinfo *info)
{
	u64 entered = rdtsc();

	boot = info;
	early_cpu();
	if (info->magic != BOOTINFO_MAGIC || info->size != sizeof(*info))
		panic("the loader and the hypervisor are not of the same build");
	if (info->log_area)
		log_keep(hpa_ptr(HPA(info->log_area)));
	read_config();
	crash_reboots = config.on_panic == CONFIG_PANIC_REBOOT;
	acpi_read(info->rsdp, early_map, acpi_warning, &acpi);
	open_serial();
	open_gdb();
	for_each_log_line(l, false) /* what was said before there was a port */
		console_log(LOG_INFO, l.text, l.len);
	log_sink = console_log;
	crash_output_hook = crash_output;
	log_info("Corbel %s", CORBEL_VERSION);
	report_previous_boot();
	log_debug("entered at TSC %lu, the loader at %lu", entered, info->tsc_start);
	arch_map = map_for_arch;
	if (machine_take_memory(info) || machine_cpu_memory(0))
		panic("no memory to run in");
	log_info("memory: %lu MiB", machine_ram() / MIB);
	spin_held_hook = held_ranks;
	grace_cpu_hook = cpu_number;
	switch_stack(cpus[0].stack_top, main_on_stack);
}
