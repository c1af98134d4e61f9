/* SPDX-License-Identifier: MIT */
/*
 * The configuration \corbel\corbel.conf: INI text in, struct config out.
 *
 * The same code is linked into the UEFI loader (which files to load), into the hypervisor (what to
 * run) and into the host tool confcheck (is it right), so it allocates nothing and touches no
 * hardware. docs/CONFIGURATION.md describes the keys.
 *
 * Whatever is wrong is reported with file and line and never stops the parsing: a bad key of
 * [corbel] keeps its default, a VM with an error is marked broken and must not be started, the
 * other VMs are not affected.
 */
#pragma once

#include "lib/bitmap.h"
#include "lib/types.h"

#define CONFIG_MAX_VMS	    16
#define CONFIG_NAME_MAX	    31	 /* characters of a VM's name */
#define CONFIG_WORD_MAX	    15	 /* characters of a word that is kept as it is */
#define CONFIG_FILE_MAX	    127	 /* characters of a file name */
#define CONFIG_CMDLINE_MAX  2047 /* what Linux takes */
#define CONFIG_FAULTS_MAX   1023
#define CONFIG_LINE_MAX	    2560 /* bytes of a line, without its end */
#define CONFIG_ERRORS_MAX   40	 /* reported in one call; more are only counted */
#define CONFIG_VCPUS_MAX    64
#define CONFIG_WEIGHT_MAX   1000
#define CONFIG_MODULES_MAX  32 /* of all VMs together */
#define CONFIG_MEMORIES_MAX 16
#define CONFIG_SHARES_MAX   64	/* of all VMs together */
#define CONFIG_ARGS_MAX	    255 /* characters behind a module's file name */
#define CONFIG_VM_FILES	    4	/* kernel, initrd, disk, image */
#define CONFIG_FILES_MAX    (CONFIG_VM_FILES * CONFIG_MAX_VMS + CONFIG_MODULES_MAX)
#define CONFIG_MEMORY_MIN   (16 * MIB)
#define CONFIG_MEMORY_MAX   (16 * KIB * GIB)
#define CONFIG_SETUP_BOOT   (-1) /* setup_cpu: the CPU that booted */

enum config_serial { CONFIG_SERIAL_AUTO, CONFIG_SERIAL_PORT, CONFIG_SERIAL_NONE };
enum config_idle { CONFIG_IDLE_MONITOR, CONFIG_IDLE_POWEROFF };
enum config_panic { CONFIG_PANIC_HALT, CONFIG_PANIC_REBOOT };
/* in the order of enum on_corruption */
enum config_corruption { CONFIG_CORRUPTION_KILL, CONFIG_CORRUPTION_PANIC };
/* in the order of enum virt_mixed */
enum config_mixed { CONFIG_MIXED_EXCLUDE, CONFIG_MIXED_REFUSE, CONFIG_MIXED_COMMON };
/* in the order of enum x_split */
enum config_x_split { CONFIG_X_SPLIT_AUTO, CONFIG_X_SPLIT_ON, CONFIG_X_SPLIT_OFF };
/* Who brings a VM's memory: it reads as zero, or whoever touches it waits for the operator. */
enum config_pager { CONFIG_PAGER_ZERO, CONFIG_PAGER_NONE };
enum config_exit { CONFIG_EXIT_STOP, CONFIG_EXIT_RESTART, CONFIG_EXIT_POWEROFF };

/* What is done about split locks. */
enum config_split_policy {
	CONFIG_SPLIT_DEFAULT, /* not given */
	/* then in the order of enum split_policy */
	CONFIG_SPLIT_SILENT,
	CONFIG_SPLIT_WARN,
	CONFIG_SPLIT_FATAL,
	CONFIG_SPLIT_OFF,
	CONFIG_SPLIT_RATELIMIT,
};
struct config_split {
	u8 policy; /* enum config_split_policy */
	u32 rate;  /* per second, with CONFIG_SPLIT_RATELIMIT */
};
#define CONFIG_SPLIT_RATE_MAX 1000000

struct config_vm {
	char name[CONFIG_NAME_MAX + 1];
	char kernel[CONFIG_FILE_MAX + 1]; /* never empty, unless broken */
	char initrd[CONFIG_FILE_MAX + 1]; /* empty: none */
	char image[CONFIG_FILE_MAX + 1];  /* of its memory, packed; empty: none */
	char cmdline[CONFIG_CMDLINE_MAX + 1];
	char protocol[CONFIG_WORD_MAX + 1]; /* a word of that key */
	u64 address;			    /* of a flat image, below 4 GiB */
	bool test_devices;
	bool apicv;			/* APIC virtualization where the CPU has it */
	bool posted;			/* posted interrupts, likewise, and with apicv */
	char disk[CONFIG_FILE_MAX + 1]; /* empty: none */
	bool disk_readonly;
	char net[CONFIG_NAME_MAX + 1]; /* the switch; empty: none */
	u8 mac[6];		       /* all zero: by the VM's id */
	bool rng;
	bool pm_timer;
	bool mce;
	u64 memory; /* bytes, a multiple of 4 KiB */
	u32 vcpus;  /* 1 to CONFIG_VCPUS_MAX */
	struct cpumask
		cpus; /* as written, by CPU number; all bits are set when the key is absent */
	/* by vCPU: 1 + the one CPU of `cpus` that it runs on; 0: as `cpus` says */
	u16 pin[CONFIG_VCPUS_MAX];
	u32 weight; /* 1 to CONFIG_WEIGHT_MAX */
	bool autostart;
	enum config_exit on_exit;
	enum config_pager pager;
	struct config_split split_lock;
	u32 copies;  /* 0: one, with the section's own name */
	u32 section; /* index into vms[] of the first of its section; modules are that one's */
	bool broken; /* has an error: not to be started */
	u32 line;    /* of its section; those below are 0 when the key is absent */
	u32 kernel_line;
	u32 initrd_line;
	u32 disk_line;
	u32 image_line;
	u32 memory_line;
	u32 address_line;
	u32 copies_line;
	u32 pin_line;
};

struct config_module {
	char name[CONFIG_FILE_MAX + 1];
	char args[CONFIG_ARGS_MAX + 1];
	u32 vm; /* index into vms[]: the first of the section */
	u32 line;
};

/* About 60 KiB: not for the stack. */
/* [memory NAME]: memory that several VMs may see. */
struct config_memory {
	char name[CONFIG_NAME_MAX + 1];
	u64 size; /* bytes, a multiple of 4 KiB */
	u32 line;
	bool broken;
};

/* Where a VM sees one. */
struct config_share {
	char name[CONFIG_NAME_MAX + 1];
	u64 address;
	bool readonly;
	u32 vm; /* the section's index in vms[] */
	u32 line;
};

struct config {
	enum config_serial serial;
	u16 serial_port;	/* I/O port, with CONFIG_SERIAL_PORT */
	u32 baud;		/* divides 115200 */
	enum config_serial gdb; /* as serial; CONFIG_SERIAL_AUTO: the second port, if it is there */
	u16 gdb_port;
	enum config_idle when_idle;
	enum config_mixed mixed_cpus;
	enum config_corruption on_corruption;
	enum config_panic on_panic;
	enum config_x_split x_split;
	s32 setup_cpu;			    /* CPU number or CONFIG_SETUP_BOOT */
	struct config_split split_lock;	    /* of VMs that don't say; OFF: detection is off */
	char attach[CONFIG_NAME_MAX + 1];   /* a VM of vms[]; empty: the monitor */
	char faults[CONFIG_FAULTS_MAX + 1]; /* for arch/x86/fault.h */
	u32 faults_line;
	u32 nr_vms;
	struct config_vm vms[CONFIG_MAX_VMS];
	u32 nr_modules;
	struct config_memory memories[CONFIG_MEMORIES_MAX];
	u32 nr_memories;
	struct config_share shares[CONFIG_SHARES_MAX];
	u32 nr_shares;
	struct config_module modules[CONFIG_MODULES_MAX]; /* in the order of the text */
	u32 errors;					  /* so far, the override's included */
};

/* Where errors go: one call per finished line, printable ASCII without newline, valid during the
 * call only. */
struct config_sink {
	const char *file; /* how the text is called in messages, "corbel.conf" */
	void (*report)(void *arg, const char *line);
	void *arg;
};

/* Fill *config, defaults included, from text of length bytes; text need not end in NUL. Never
 * fails: see config->errors. */
void config_parse(struct config *config, const char *text, size_t length,
		  const struct config_sink *sink);

/*
 * Apply LoadOptions, "key=value key=value" for keys of [corbel], to a parsed config. A bad word is
 * reported and has no effect. A first word that ends in .efi is how the firmware's shell passes the
 * program's own name, and is skipped.
 */
void config_override(struct config *config, const char *words, const struct config_sink *sink);

/* Report "FILE:LINE: KEY: MESSAGE", for what only shows later: a file that is not there, memory
 * that is not there. */
void config_error_at(const struct config_sink *sink, u32 line, const char *key, const char *fmt,
		     ...) PRINTF(4, 5);

/* A file that a VM refers to. */
struct config_file {
	const char *name;
	const char *key; /* "kernel", "initrd", "disk", "image" or "module" */
	u32 line;	 /* of that key */
	u32 vm;		 /* index into vms[] */
	bool again;	 /* an earlier reference names the same file */
};

/*
 * Walk the files of all VMs that are not broken: start with *pos = 0; false at the end. Names are
 * compared as FAT does, without regard to case.
 */
bool config_next_file(const struct config *config, u32 *pos, struct config_file *file);

/* Do two file names mean the same file on a FAT volume? */
bool config_same_file(const char *a, const char *b);
