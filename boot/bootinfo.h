/* SPDX-License-Identifier: MIT */
/*
 * The only structure that crosses from the UEFI loader (boot/efi_main.c) to the hypervisor. All
 * addresses are physical; the loader's tables map them at DIRECTMAP_BASE + address and one to one.
 */
#pragma once

#include "boot/config.h"
#include "lib/types.h"

#define BOOTINFO_MAGIC 0x6f666e494c425243ull /* "CRBLInfo" */
#define BOOT_NAME_MAX  128

struct boot_module {
	char name[BOOT_NAME_MAX]; /* as the configuration names it */
	u64 base, size;
	u64 status; /* 0, or why base is 0: the firmware's error, as UEFI numbers them */
};
#define BOOT_NOT_FOUND 14

struct boot_framebuffer {
	u64 base, size;
	u32 width, height, stride; /* in pixels; width 0: none */
	u32 bgr;		   /* 1: blue in the lowest byte */
};

struct bootinfo {
	u64 magic;
	u64 size;      /* sizeof(struct bootinfo): loader and hypervisor are of one build */
	u64 tsc_start; /* when the loader began */
	/* physical address of the hypervisor's first byte, page aligned, below 4 GiB */
	u64 image_base;
	u64 image_size;
	u64 trampoline; /* one page below 640 KiB, 0 if there was none */
	u64 rsdp;	/* 0: none */
	u64 smbios;	/* entry point, 0: none */
	u64 memory_map; /* EFI memory descriptors */
	u64 memory_map_size, memory_descriptor_size;
	u64 config; /* text of corbel.conf, 0: there was no file */
	u64 config_size;
	u64 log_area;	  /* struct log_area, with what it had before this boot; 0: none */
	u64 wall_seconds; /* UEFI time at start as seconds since 1970 UTC, 0: unknown */
	struct boot_framebuffer fb;
	char options[512]; /* LoadOptions, ASCII */
	u32 module_count;
	struct boot_module modules[CONFIG_FILES_MAX];
};

/*
 * EFI memory descriptor and types (UEFI "GetMemoryMap"), so that the hypervisor proper needs no
 * UEFI header.
 */
struct boot_memory {
	u32 type, pad;
	u64 base, virt, pages, attribute;
};
enum {
	BOOT_MEM_LOADER_CODE = 1,
	BOOT_MEM_LOADER_DATA = 2,
	BOOT_MEM_BS_CODE = 3,
	BOOT_MEM_BS_DATA = 4,
	BOOT_MEM_RT_CODE = 5,
	BOOT_MEM_RT_DATA = 6,
	BOOT_MEM_CONVENTIONAL = 7,
	BOOT_MEM_ACPI_RECLAIM = 9,
	BOOT_MEM_ACPI_NVS = 10,
};
