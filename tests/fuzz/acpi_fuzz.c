/* SPDX-License-Identifier: MIT */
/*
 * Arbitrary physical memory to the reader of the host's ACPI tables: the input is an RSDP at
 * address 16 and whatever follows. What is short of a good machine is filled in from one, by XOR:
 * an input of zeros is a good machine, so that a few bytes reach every table.
 */
#include <stdlib.h>
#include <string.h>

#include "arch/x86/acpi.h"

#define SIZE 2048
#define BASE 16 /* address of memory[0]: 0 is "no table" */
#define XSDT 64
#define MADT 256
#define FADT 512
#define DSDT 1024
#define SSDT 1280
#define SPCR 1536
#define HPET 1792

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u8 good[SIZE], memory[SIZE];
static size_t memory_size;
static void *maps[1024];
static u32 nr_maps;

/* A block of its own for each mapping: a look past its end is seen. */
static const void *map(u64 hpa, u64 size)
{
	if (hpa < BASE || hpa - BASE >= memory_size || size > memory_size - (hpa - BASE) ||
	    nr_maps == ARRAY_SIZE(maps))
		return NULL;
	maps[nr_maps] = malloc(size);
	memcpy(maps[nr_maps], memory + hpa - BASE, size);
	return maps[nr_maps++];
}

static void warn(const char *line)
{
	if (!*line || strlen(line) >= 160)
		abort();
}

static void put(u32 at, u64 value, u32 bytes)
{
	memcpy(good + at, &value, bytes);
}

static void table(u32 at, const char *signature, u32 length)
{
	static u32 nr;

	memcpy(good + at, signature, 4);
	put(at + 4, length, 4);
	if (at != DSDT && at != XSDT)
		put(XSDT + 36 + 8 * nr++, at + BASE, 8);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const u8 madt[] = { 0, 8, 0, 0,	1,    0,    0, 0, 0, 8, 1, 1,  1, 0, 0, 0, 1, 12,
				   0, 0, 0, 0,	0xc0, 0xfe, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0,
				   5, 0, 9, 16, 0,    0,    2, 0, 0, 0, 1, 0,  0, 0, 2, 0, 0, 0 };
	static const u8 s5[] = { 8, '_', 'S', '5', '_', 0x12, 6, 4, 0x0a, 5, 0x0a, 7, 0, 0 };

	(void)argc, (void)argv;
	memcpy(good, "RSD PTR ", 8);
	good[15] = 2;
	put(24, XSDT + BASE, 8);
	for (u32 i = 0; i < 20; i++)
		good[8] = (u8)(good[8] - (i == 8 ? 0 : good[i]));
	table(MADT, "APIC", 44 + sizeof(madt));
	memcpy(good + MADT + 44, madt, sizeof(madt));
	table(FADT, "FACP", 276);
	put(FADT + 40, DSDT + BASE, 4);
	put(FADT + 112, BIT(10), 4);
	table(DSDT, "DSDT", 64);
	table(SSDT, "SSDT", 100);
	memcpy(good + SSDT + 40, s5, sizeof(s5));
	table(SPCR, "SPCR", 80);
	table(HPET, "HPET", 56);
	table(XSDT, "XSDT", 36 + 5 * 8);
	return 0;
}

static void check(const struct acpi_info *info)
{
	if (info->cpu_count > MAX_CPUS || info->ioapic_count > ACPI_MAX_IOAPICS ||
	    info->override_count > ACPI_MAX_OVERRIDES)
		abort();
	for (u32 i = 0; i < info->cpu_count; i++) {
		for (u32 j = 0; j < i; j++) {
			if (info->cpu_apic_id[i] == info->cpu_apic_id[j])
				abort();
		}
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct acpi_info info;
	u8 sum = 0;

	memory_size = MIN(MAX(size, sizeof(good)), sizeof(memory));
	for (size_t i = 0; i < memory_size; i++)
		memory[i] = (u8)(good[i] ^ (i < size ? data[i] : 0));
	/*
	 * One bad checksum would hide all the rest; without it the checksum of the RSDP is right.
	 */
	for (u32 i = 0; i < 20; i++)
		sum = (u8)(sum + memory[i]);
	if (!size || data[0] != 'c')
		memory[8] = (u8)(memory[8] - sum);
	memset(&info, 0xa5, sizeof(info));
	acpi_read(BASE, map, warn, &info);
	check(&info);
	while (nr_maps)
		free(maps[--nr_maps]);
	return 0;
}
