/* SPDX-License-Identifier: MIT */
#include "arch/x86/cpu.h"
#include "arch/x86/insn.h"
#include "boot/vms.h"
#include "debug/console.h"
#include "debug/monitor.h"
#include "dev/acpi.h"
#include "dev/platform.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"
#include "mm/frames.h"
#include "mm/lazy.h"
#include "mm/phys.h"
#include "virt/corruption.h"
#include "virt/debug.h"
#include "virt/enable.h"
#include "virt/loader.h"
#include "virt/memfault.h"
#include "virt/ops.h"
#include "virt/sched.h"
#include "virt/slots.h"
#include "virt/state.h"

/*
 * The guest's memory map: [0, ACPI_GPA) RAM, the ACPI tables, a hole up to 1 MiB, RAM to the PCI
 * hole, the rest above 4 GiB.
 */
#define HIGH_START MIB
#define PCI_HOLE   0xc0000000ull
#define HIGH_4G	   (4 * GIB)

_Static_assert(CONFIG_VCPUS_MAX <= VM_MAX_VCPUS, "the configuration may ask for as many");

static const struct bootinfo *boot;
static const struct config *config;
static const struct config_sink *errors;
static u32 failed;

/*
 * What is loaded by need, by the VM's place in the configuration; no backing: nothing. The second
 * is for the memory above 4 GiB of a VM that is started from its saved state.
 */
#define VM_IMAGES 2
static struct lazy_image images[CONFIG_MAX_VMS][VM_IMAGES];
static const struct state_header *saved[CONFIG_MAX_VMS]; /* NULL: none */
static struct task ahead_task;

#define DESTROY_US 50 /* of work at a time */
static struct task destroy_task;
static struct vm *dying; /* one at a time */
static char dying_name[VM_NAME_MAX];
static u64 dying_since;
static bool poweroff_wanted;

static struct task clone_task;
static struct vm *cloned;   /* one at a time */
static struct vm *replaced; /* by it; NULL: none */
static u64 fork_ticks;	    /* of it: to fork the memory */
static char clone_name[VM_NAME_MAX];
static bool clone_runs; /* else it is a snapshot */
#define SNAPSHOT_NAME (VM_NAME_MAX + sizeof("-snapshot"))

u32 vms_failed(void)
{
	return failed;
}

bool vms_want_poweroff(void)
{
	return poweroff_wanted;
}

static const struct boot_module *module(const char *name)
{
	for (u32 i = 0; i < boot->module_count; i++)
		if (config_same_file(boot->modules[i].name, name))
			return &boot->modules[i];
	return NULL;
}

static u64 memory_below_hole(const struct config_vm *c)
{
	return MIN(c->memory, PCI_HOLE);
}

static u32 fill_e820(const struct config_vm *c, struct boot_e820_entry map[4])
{
	u64 low = memory_below_hole(c);

	map[0] = (struct boot_e820_entry){ 0, ACPI_GPA, E820_RAM };
	map[1] = (struct boot_e820_entry){ ACPI_GPA, ACPI_GPA_SIZE, E820_ACPI };
	map[2] = (struct boot_e820_entry){ HIGH_START, low - HIGH_START, E820_RAM };
	if (low == c->memory)
		return 3;
	map[3] = (struct boot_e820_entry){ HIGH_4G, c->memory - low, E820_RAM };
	return 4;
}

/*
 * The hole that the map shows below 1 MiB is memory all the same: kernels search it for what a BIOS
 * leaves there, word by word, and each look would be an exit (64,000 of them while Linux boots).
 */
static int add_memory(struct vm *vm, const struct config_vm *c)
{
	u64 low = memory_below_hole(c);
	u8 flags = c->pager == CONFIG_PAGER_NONE ? SLOT_EXIT_ON_MISSING : 0;
	int err = vm_add_memory(vm, GPA(0), low, flags);

	if (!err && low < c->memory)
		err = vm_add_memory(vm, GPA(HIGH_4G), c->memory - low, flags);
	return err;
}

static u64 place_of(const struct vm *vm)
{
	return (u64)((const struct config_vm *)vm->config - config->vms);
}

static struct lazy_image *image_of(const struct vm *vm)
{
	return images[place_of(vm)];
}

/* Has it a packed initrd? That is the image, at the end of what kernels take: 2 GiB. */
static bool is_packed(const struct config_vm *c)
{
	const struct boot_module *m = c->initrd[0] ? module(c->initrd) : NULL;

	return m && pieces_detect(hpa_ptr(HPA(m->base)), m->size);
}

/* Behind the VM's saved state are the contents of its memory. */
static const char *open_saved(struct vm *vm, const char *name, const struct boot_module *m)
{
	const struct state_header *h = hpa_ptr(HPA(m->base));
	const struct slot_map *slots = vm_slots(vm);
	const char *wrong = state_check(h, m->size);

	saved[place_of(vm)] = h;
	for (u32 i = 0; !wrong && i < slots->nr; i++) {
		struct lazy_image *image = &image_of(vm)[i];
		u64 at = i < STATE_OBJECTS ? h->memory[i] : 0;

		if (at < h->size || at >= m->size || at % sizeof(u64))
			return "it has no memory for this VM";
		wrong = lazy_open(image, name, (const u8 *)h + at, m->size - at);
		if (!wrong && image->pieces.size != slots->slot[i].size)
			wrong = "its memory is not as large as the VM's";
		if (!wrong)
			lazy_attach(image, slots->slot[i].backing, 0);
	}
	return wrong;
}

static const char *open_image(struct vm *vm, const struct config_vm *c, const char *name)
{
	struct lazy_image *image = image_of(vm);
	const struct boot_module *m = module(name);
	u64 end = memory_below_hole(c), size;
	const char *wrong;

	if (c->pager == CONFIG_PAGER_NONE)
		return "pager = none leaves it to the operator what memory there is";
	if (c->image[0] && is_packed(c))
		return "only one file can be loaded by need, and the initrd is packed, too";
	if (c->image[0] && m->size >= 8 && !memcmp(hpa_ptr(HPA(m->base)), STATE_MAGIC, 8))
		return open_saved(vm, name, m);
	wrong = lazy_open(image, name, hpa_ptr(HPA(m->base)), m->size);
	if (wrong)
		return wrong;
	size = image->pieces.nr * PIECE_SIZE;
	if (!c->image[0])
		end = MIN(end, 2 * GIB);
	if (size > end)
		return "it is larger than the VM's memory below 3 GiB";
	lazy_attach(image, vm_slot(vm, GPA(0))->backing,
		    c->image[0] ? 0 : ALIGN_DOWN(end - size, PIECE_SIZE));
	return NULL;
}

/* Before the first start: what is loaded by need. */
static int add_image(struct vm *vm, const struct config_vm *c, const struct config_sink *sink)
{
	bool initrd = !c->image[0];
	const char *name = initrd ? c->initrd : c->image, *wrong;

	memset(image_of(vm), 0, sizeof(images[0]));
	saved[place_of(vm)] = NULL;
	wrong = initrd && !is_packed(c) ? NULL : open_image(vm, c, name);
	if (wrong)
		config_error_at(sink, initrd ? c->initrd_line : c->image_line,
				initrd ? "initrd" : "image", "'%s': %s", name, wrong);
	return wrong ? -EINVAL : 0;
}

/* A slice of each hot set; then vCPUs that wait for this CPU have their turn. */
static void ahead_run(struct task *t)
{
	list_for_each(n, &vm_list) {
		struct vm *vm = list_entry(n, struct vm, node);

		for (u32 i = 0; i < VM_IMAGES && READ_ONCE(vm->state) == VM_RUNNING; i++) {
			struct lazy_image *image = &image_of(vm)[i];

			if (!image->backing || !lazy_ahead(image))
				continue;
			memory_resolved(image->backing, image->fetch.offset, image->fetch.size);
			task_wake(t);
		}
	}
}

static void restart_images(struct vm *vm)
{
	for (u32 i = 0; i < VM_IMAGES; i++)
		lazy_restart(&image_of(vm)[i]);
}

/* The file of that name; args go with it. */
static struct boot_file boot_file(const char *name, const char *args)
{
	const struct boot_module *m = module(name);

	return (struct boot_file){ hpa_ptr(HPA(m->base)), m->size, args, 0 };
}

/* The initrd first, then the modules that its section names. */
static u32 find_modules(const struct vm *vm, struct boot_file files[1 + CONFIG_MODULES_MAX])
{
	const struct config_vm *c = vm->config;
	const struct lazy_image *image = image_of(vm);
	u32 n = 0;

	if (c->initrd[0] && !c->image[0] && image->backing)
		files[n++] = (struct boot_file){ NULL, image->pieces.size, "", image->source.from };
	else if (c->initrd[0])
		files[n++] = boot_file(c->initrd, "");
	for (u32 i = 0; i < config->nr_modules; i++) {
		const struct config_module *m = &config->modules[i];

		if (m->vm == c->section)
			files[n++] = boot_file(m->name, m->args);
	}
	return n;
}

/* vm->load: a kernel at its entry, or what was saved. */
static int load_kernel(struct vm *vm, char *why, size_t why_len)
{
	const struct config_vm *c = vm->config;
	struct boot_file modules[1 + CONFIG_MODULES_MAX];
	struct boot_e820_entry map[4];
	struct boot_image img = {
		.protocol = c->protocol,
		.kernel = boot_file(c->kernel, c->cmdline),
		.modules = modules,
		.nr_modules = find_modules(vm, modules),
		.address = c->address,
		.e820 = map,
		.e820_count = fill_e820(c, map),
		.rsdp = GPA(ACPI_GPA),
	};
	struct boot_entry entry;
	u64 flags;
	int err;

	restart_images(vm);
	task_wake(&ahead_task);
	/* One that the guest restarts boots. */
	if (saved[place_of(vm)] && vm->stop_reason != STOP_RESET)
		return vm_load_state(vm, saved[place_of(vm)], why, why_len);
	err = boot_load(vm, &img, &entry, why, why_len);
	if (!err)
		err = platform_write_firmware(vm);
	if (err)
		return err;
	flags = irq_save();
	virt_ops->vcpu_load(vm->vcpus[0]);
	boot_start(vm->vcpus[0], &entry);
	virt_ops->vcpu_put(vm->vcpus[0]);
	irq_restore(flags);
	return 0;
}

/* A file that the configuration names and the loader could not read. */
static bool file_there(const struct config_sink *sink, const struct config_file *file)
{
	const struct boot_module *m = module(file->name);

	if (m && m->base)
		return true;
	if (m && m->status != BOOT_NOT_FOUND)
		config_error_at(sink, file->line, file->key, "'%s' can't be read: EFI error %lu",
				file->name, m->status);
	else
		config_error_at(sink, file->line, file->key, "no file '%s' in \\corbel",
				file->name);
	return false;
}

static bool files_there(const struct config_vm *c, const struct config_sink *sink)
{
	struct config_file file;
	u32 pos = 0;
	bool all = true;

	while (config_next_file(config, &pos, &file))
		if (file.vm == c->section)
			all &= file_there(sink, &file);
	return all;
}

static u64 free_mib(void)
{
	struct frame_stats stats;

	frames_stats(&stats);
	return stats.frames[FRAME_FREE] * PAGE_SIZE / MIB;
}

/* The devices before the VM: they live in its memory. */
static bool destroy_step(struct vm *vm)
{
	if (vm->snapshot)
		state_free(vm->snapshot);
	vm->snapshot = NULL;
	return platform_destroy_step(vm) || vm_destroy_step(vm);
}

static void forget(struct vm *vm)
{
	console_vm_remove(vm);
	vm_unlist(vm);
}

/* What the configuration says of the VM's devices; false: reported. */
static bool devices_of(const struct config_vm *c, const struct config_sink *sink,
		       struct platform_devices *devices)
{
	const struct boot_module *disk;

	*devices =
		(struct platform_devices){ .rng = c->rng, .pm_timer = c->pm_timer, .mce = c->mce };
	if (c->net[0])
		devices->network.name = c->net;
	memcpy(devices->network.mac, c->mac, sizeof(c->mac));
	if (!c->disk[0])
		return true;
	disk = module(c->disk);
	if (disk->size % VIRTIO_BLK_SECTOR || disk->size > VIRTIO_BLK_SIZE_MAX) {
		config_error_at(sink, c->disk_line, "disk",
				"'%s' has %lu bytes: not whole sectors of %u, or over %lu GiB",
				c->disk, disk->size, VIRTIO_BLK_SECTOR, VIRTIO_BLK_SIZE_MAX / GIB);
		return false;
	}
	devices->disk = (struct virtio_disk){ .base = hpa_ptr(HPA(disk->base)),
					      .size = disk->size,
					      .id = c->disk,
					      .readonly = c->disk_readonly };
	return true;
}

/*
 * Locally administered ("CB"), with the VM's place in the configuration, if that has none: the same
 * for one that is created again.
 */
static void set_default_mac(u8 mac[VIRTIO_NET_MAC], u16 n)
{
	const u8 by_place[VIRTIO_NET_MAC] = { 0x02, 'C', 'B', 0, (u8)(n >> 8), (u8)n };

	if (!mac[0] && !mac[1] && !mac[2] && !mac[3] && !mac[4] && !mac[5])
		memcpy(mac, by_place, sizeof(by_place));
}

/* Its own, or the machine's, whose "off" is about detection and says nothing of VMs. */
static void set_split_policy(struct vm *vm, const struct config_vm *c)
{
	const struct config_split *s = c->split_lock.policy ? &c->split_lock : &config->split_lock;

	_Static_assert(CONFIG_SPLIT_RATELIMIT - 1 == (u32)SPLIT_RATELIMIT &&
			       CONFIG_SPLIT_RATE_MAX == SPLIT_RATE_MAX,
		       "config.h and split_policy.h");
	if (s->policy && (s != &config->split_lock || s->policy != CONFIG_SPLIT_OFF))
		split_set_policy(vm, (enum split_policy)(s->policy - 1), s->rate);
}

/* The objects of [memory] sections that the VM sees. */
static int add_shares(struct vm *vm, const struct config_vm *c, const struct config_sink *sink)
{
	for (u32 i = 0; i < config->nr_shares; i++) {
		const struct config_share *s = &config->shares[i];
		struct backing *b = shared_memory_find(s->name);
		int err;

		if (s->vm != c->section)
			continue;
		err = !b ? -ENOENT
			 : vm_slot_add(vm, GPA(s->address), b->size, b, 0,
				       SLOT_SHARED | (s->readonly ? SLOT_READONLY : 0), NULL);
		if (!err)
			continue;
		config_error_at(sink, s->line, "share", "'%s' at %#lx: %s", s->name, s->address,
				b ? monitor_slot_error(err) : "there was no memory for it");
		return err;
	}
	return 0;
}

/* A clone (of a VM of that section) gets its memory later, and a name and a MAC of its own. */
static int build(const struct config_vm *c, const char *clone, const struct config_sink *sink,
		 struct vm **vm)
{
	struct platform_devices devices;
	int err;

	if (!files_there(c, sink) || !devices_of(c, sink, &devices))
		return -ENOENT;
	err = vm_create(clone ? clone : c->name, c->vcpus, &c->cpus, c->pin, c->weight, vm);
	if (err) {
		log_err("vm %s: not made: %s", c->name,
			virt_obstacle()[0] ? virt_obstacle() : error_name(err));
		return err;
	}
	(*vm)->config = c;
	(*vm)->apicv = c->apicv;
	(*vm)->posted = c->posted;
	(*vm)->load = load_kernel;
	set_split_policy(*vm, c);
	err = clone ? 0 : add_memory(*vm, c);
	if (err == -ENOMEM)
		config_error_at(sink, c->memory_line, "memory",
				"%lu MiB, but this machine has only %lu MiB free", c->memory / MIB,
				free_mib());
	else if (err)
		config_error_at(sink, c->memory_line, "memory", "%lu MiB: %s", c->memory / MIB,
				error_name(err));
	if (!err && !clone)
		err = add_image(*vm, c, sink);
	if (!err) {
		if (clone)
			memset(devices.network.mac, 0, sizeof(devices.network.mac));
		set_default_mac(devices.network.mac,
				clone ? (*vm)->id | BIT(15) : (u16)(c - config->vms + 1));
		err = platform_create(*vm, &devices);
	}
	if (!err && !clone)
		err = add_shares(*vm, c, sink);
	if (!err && c->test_devices)
		err = testdev_create(&platform_of(*vm)->testdev, *vm, c->memory, c->cmdline);
	if (!err && console_vm_add(*vm, platform_uart(*vm)))
		log_warn("vm %s: no memory for its console", c->name);
	if (err) {
		forget(*vm);
		while (destroy_step(*vm))
			;
	}
	return err;
}

void vms_create(const struct bootinfo *info, const struct config *conf,
		const struct config_sink *sink)
{
	struct vm *vm;

	boot = info;
	config = conf;
	errors = sink;
	for (u32 i = 0; i < config->nr_memories; i++) {
		const struct config_memory *m = &config->memories[i];
		int err = m->broken ? 0 : shared_memory_add(m->name, m->size);

		if (err)
			config_error_at(sink, m->line, "memory", "%s: %s", m->name,
					error_name(err));
	}
	for (u32 i = 0; i < config->nr_vms; i++) {
		const struct config_vm *c = &config->vms[i];

		if (c->broken) {
			log_err("vm %s: not started, its configuration has errors", c->name);
			failed++;
		} else if (build(c, NULL, sink, &vm)) {
			failed++;
		} else if (c->autostart && vm_start(vm)) {
			failed++;
		}
	}
}

/* A start that fails counts, and has been reported. */
static void vm_restart(struct vm *vm)
{
	if (!vm_start(vm))
		return;
	failed++;
	if (console_attached() == vm)
		console_attach_monitor();
}

void vms_ended(struct vm *vm)
{
	const struct config_vm *c = vm->config;
	bool again;

	vm_prove(vm);
	vm_quarantine(vm);
	if (vm->stop_reason == STOP_RESET) { /* the guest restarts itself: no end */
		vm->resets++;
		log_info("vm %s: reset by the guest: %s", vm->name, vm->stop_text);
		vm_restart(vm);
		return;
	}
	/* Nothing more will come from it: the operator gets the monitor, and sees why. */
	again = vm->stop_reason != STOP_OPERATOR && c->on_exit == CONFIG_EXIT_RESTART && !vm->dead;
	if (!again && console_attached() == vm)
		console_attach_monitor();
	if (stop_reason_good(vm->stop_reason)) {
		log_info("vm %s: ended: %s%s%s", vm->name, stop_reason_name(vm->stop_reason),
			 vm->stop_text[0] ? ": " : "", vm->stop_text);
	} else {
		log_err("vm %s: stopped: %s: %s", vm->name, stop_reason_name(vm->stop_reason),
			vm->stop_text);
		failed++;
	}
	if (again)
		vm_restart(vm);
	else if (vm->stop_reason != STOP_OPERATOR && c->on_exit == CONFIG_EXIT_POWEROFF)
		poweroff_wanted = true;
}

int vms_reset(struct vm *vm)
{
	if (vm->state != VM_RUNNING)
		return vm_start(vm);
	vm_stop(vm, STOP_RESET, "by the operator");
	return 0;
}

bool vms_any_running(void)
{
	bool any = false;

	spin_lock(&vm_list_lock);
	list_for_each(n, &vm_list)
		any |= list_entry(n, struct vm, node)->state == VM_RUNNING;
	spin_unlock(&vm_list_lock);
	return any;
}

bool vms_has_ended(const struct vm *vm)
{
	return READ_ONCE(vm->state) == VM_STOPPED && vm->ends_seen != vm->starts;
}

const char *vms_make(const char *name)
{
	struct vm *vm;

	if (vm_find(name))
		return "it is there";
	if (dying)
		return "another VM is being destroyed";
	for (u32 i = 0; i < config->nr_vms; i++) {
		const struct config_vm *c = &config->vms[i];

		if (strcmp(c->name, name))
			continue;
		if (c->broken)
			return "its configuration has errors";
		return build(c, NULL, errors, &vm) ? "not made: see the log" : NULL;
	}
	return "the configuration has no such VM";
}

/* --- clones --- */

/* vm->load of a clone's first start. */
static int load_clone(struct vm *vm, char *why, size_t why_len)
{
	struct state_header *record = cloned->snapshot;
	u64 began = rdtsc();
	int err;

	platform_hold(cloned, true);
	err = vm_fork_memory(cloned, vm);
	fork_ticks = rdtsc() - began;
	if (!err)
		err = platform_fork(cloned, vm);
	if (err == -EOPNOTSUPP || err == -ENOSPC)
		fmt_snprintf(why, why_len, "vm %s can't be cloned: %s", cloned->name,
			     err == -ENOSPC ? "32 generations of its clones live: destroy some"
					    : "its memory comes by need");
	if (!err && !record) {
		record = vm_save(cloned, vm, why, why_len);
		err = record ? 0 : -EOPNOTSUPP;
	}
	if (!err)
		err = vm_load_state(vm, record, why, why_len);
	platform_hold(cloned, false);
	if (!err && !clone_runs)
		vm->snapshot = record;
	else if (record && !cloned->snapshot)
		state_free(record);
	if (vm->snapshot || cloned->snapshot) /* who finds it in a dump looks there */
		state_set_memory(record, vm->snapshot ? vm : cloned);
	return err;
}

/* All vCPUs of it are at rest. NULL: reported. */
static struct vm *make_clone(const struct vm *from)
{
	struct vm *vm;

	if ((from->state != VM_RUNNING && !from->snapshot) ||
	    build(from->config, clone_name, errors, &vm)) {
		log_err("vm %s: not cloned as %s", from->name, clone_name);
		return NULL;
	}
	vm->load = load_clone;
	if (vm_start(vm)) {
		forget(vm);
		while (destroy_step(vm))
			;
		return NULL;
	}
	vm->load = load_kernel; /* from its next start on */
	return vm;
}

/* Restoring: the VM that is to be replaced has to end, and to be destroyed. False: not yet. */
static bool replaced_is_gone(void)
{
	if (!replaced)
		return true;
	if (replaced->state == VM_RUNNING) {
		vm_stop(replaced, STOP_OPERATOR, "to be restored");
	} else if (!vms_has_ended(replaced) && !dying) {
		struct vm *vm = replaced;

		replaced = NULL;
		(void)vms_destroy(vm);
	}
	return false;
}

static void clone_run(struct task *t)
{
	struct vm *vm = cloned, *clone;
	u64 ticks = rdtsc();

	if (!vm)
		return;
	if (!replaced_is_gone() || dying || !debug_at_rest(vm)) {
		task_wake(t);
		return;
	}
	clone = make_clone(vm);
	debug_detach(vm);
	cloned = replaced = NULL;
	if (!clone)
		return;
	ticks = rdtsc() - ticks; /* both run by now; the serial line takes longer */
	log_info("vm %s: a %s of %s (%lu us)", clone->name, clone_runs ? "clone" : "snapshot",
		 vm->name, tsc_to_ns(ticks) / 1000);
	log_debug("vm %s: %lu ticks, its memory %lu", clone->name, ticks, fork_ticks);
}

/* A VM called `name` is to become as vm is now. */
static const char *begin_clone(struct vm *vm, const char *name, bool runs)
{
	if (cloned)
		return "another VM is being cloned";
	if (!name[0] || strlen(name) >= sizeof(clone_name))
		return "its name would be too long";
	if (vm->state != VM_RUNNING && !vm->snapshot)
		return "it does not run";
	if (debug_attached(vm))
		return "a debugger is attached to it";
	if (debug_attach(vm))
		return "there is no memory for it";
	cloned = vm;
	clone_runs = runs;
	memcpy(clone_name, name, strlen(name) + 1);
	debug_hold(vm);
	task_wake(&clone_task);
	return NULL;
}

const char *vms_clone(struct vm *vm, const char *name)
{
	return vm_find(name) ? "there is a VM of that name" : begin_clone(vm, name, true);
}

bool vms_cloning(void)
{
	return cloned;
}

static void snapshot_name(const struct vm *vm, char name[SNAPSHOT_NAME])
{
	fmt_snprintf(name, SNAPSHOT_NAME, "%s-snapshot", vm->name);
}

const char *vms_snapshot(struct vm *vm)
{
	char name[SNAPSHOT_NAME];

	if (vm->snapshot)
		return "it is one";
	snapshot_name(vm, name);
	return vm_find(name) ? "it has one: destroy that first" : begin_clone(vm, name, false);
}

const char *vms_restore(struct vm *vm)
{
	char name[SNAPSHOT_NAME];
	struct vm *snapshot;
	const char *wrong;

	snapshot_name(vm, name);
	snapshot = vm_find(name);
	if (!snapshot || !snapshot->snapshot)
		return "it has no snapshot";
	wrong = begin_clone(snapshot, vm->name, true);
	if (!wrong)
		replaced = vm;
	return wrong;
}

/* A slice of work; then vCPUs that wait for this CPU have their turn. */
static void destroy_run(struct task *t)
{
	u64 began = rdtsc();

	while (dying && rdtsc() - began < (u64)DESTROY_US * tsc_khz / 1000) {
		if (destroy_step(dying))
			continue;
		dying = NULL;
		log_info("vm %s: destroyed (%lu us)", dying_name,
			 tsc_to_ns(rdtsc() - dying_since) / 1000);
	}
	if (dying)
		task_wake(t);
}

void vms_init(u32 cpu)
{
	task_add(&destroy_task, cpu, destroy_run);
	task_add(&ahead_task, cpu, ahead_run);
	task_add(&clone_task, cpu, clone_run);
}

const char *vms_destroy(struct vm *vm)
{
	if (dying)
		return "another VM is being destroyed";
	if (vm == cloned || vm == replaced)
		return "it is being cloned";
	if (vm->state == VM_RUNNING || vms_has_ended(vm))
		return "it is running: stop it first";
	restart_images(vm);
	forget(vm);
	memcpy(dying_name, vm->name, sizeof(dying_name));
	dying = vm;
	dying_since = rdtsc();
	task_wake(&destroy_task);
	return NULL;
}
