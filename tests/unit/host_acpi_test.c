/* SPDX-License-Identifier: MIT */
/* arch/x86/acpi.c on tables made by hand, good and broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "arch/x86/acpi.h"

#define RSDP 0x1000
#define RSDT 0x2000
#define XSDT 0x3000
#define MADT 0x8000 /* the last: it grows beyond a page */
#define FADT 0x5000
#define DSDT 0x6000
#define SPCR 0x7000
#define SIZE 0xa000

static u8 memory[SIZE];
static struct acpi_info info;
static char warnings[1024];

#define NO_S5 "ACPI: no _S5_ in DSDT or SSDT: power-off is a guess\n"

/* Each mapping is a block of its own, so that ASan sees a look past its end. */
static void *maps[64];
static u32 nr_maps;

static const void *map(u64 hpa, u64 size)
{
	if (hpa >= SIZE || size > SIZE - hpa || nr_maps == ARRAY_SIZE(maps))
		return NULL;
	maps[nr_maps] = malloc(size);
	memcpy(maps[nr_maps], memory + hpa, size);
	return maps[nr_maps++];
}

static void warn(const char *line)
{
	size_t len = strlen(warnings);

	snprintf(warnings + len, sizeof(warnings) - len, "%s\n", line);
}

static void read_all(void)
{
	warnings[0] = '\0';
	memset(&info, 0xa5, sizeof(info));
	acpi_read(RSDP, map, warn, &info);
	while (nr_maps)
		free(maps[--nr_maps]);
}

static void put(u32 at, u64 value, u32 bytes)
{
	memcpy(memory + at, &value, bytes);
}

static void checksum(u32 at, u32 size, u32 where)
{
	u8 sum = 0;

	memory[at + where] = 0;
	for (u32 i = 0; i < size; i++)
		sum = (u8)(sum + memory[at + i]);
	memory[at + where] = (u8)-sum;
}

static void seal(u32 at)
{
	u32 length;

	memcpy(&length, memory + at + 4, 4);
	checksum(at, length, 9);
}

static void table(u32 at, const char *signature, u32 length)
{
	memset(memory + at, 0, 0x1000);
	memcpy(memory + at, signature, 4);
	put(at + 4, length, 4);
	seal(at);
}

/* Add bytes to a table's end. */
static void append(u32 at, const void *bytes, u32 count)
{
	u32 length;

	memcpy(&length, memory + at + 4, 4);
	memcpy(memory + at + length, bytes, count);
	put(at + 4, length + count, 4);
	seal(at);
}

#define APPEND(at, ...) append(at, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

static void rsdp(u8 revision)
{
	memset(memory + RSDP, 0, 36);
	memcpy(memory + RSDP, "RSD PTR ", 8);
	memory[RSDP + 15] = revision;
	put(RSDP + 16, RSDT, 4);
	if (revision >= 2) {
		put(RSDP + 20, 36, 4);
		put(RSDP + 24, XSDT, 8);
	}
	checksum(RSDP, 20, 8);
	if (revision >= 2)
		checksum(RSDP, 36, 32);
}

static void madt(void)
{
	table(MADT, "APIC", 44);
	put(MADT + 36, 0xfee00000, 4);
	put(MADT + 40, 1, 4);
	seal(MADT);
}

/*
 * A FADT of the size of revision 6, with a reset register, pointing at a DSDT with the usual _S5_.
 */
static void fadt(void)
{
	table(FADT, "FACP", 276);
	put(FADT + 40, DSDT, 4);
	put(FADT + 64, 0x604, 4);
	put(FADT + 76, 0x608, 4);
	memory[FADT + 91] = 4;
	put(FADT + 112, BIT(8) | BIT(10), 4);
	memory[FADT + 116] = 1;
	memory[FADT + 117] = 8;
	put(FADT + 120, 0xcf9, 8);
	memory[FADT + 128] = 6;
	seal(FADT);
	table(DSDT, "DSDT", 36);
	APPEND(DSDT, 0x10, 0x20, 0x08, '_', 'S', '5', '_', 0x12, 0x0a, 0x04, 0x0a, 5, 0x0a, 7, 0, 0,
	       0, 0, 0, 0, 0, 0, 0, 0);
}

static void root(u32 address)
{
	put(RSDT + 0x800, address, 8); /* scratch */
	append(RSDT, memory + RSDT + 0x800, 4);
	append(XSDT, memory + RSDT + 0x800, 8);
}

static int machine(void **state)
{
	(void)state;
	memset(memory, 0, sizeof(memory));
	rsdp(2);
	table(RSDT, "RSDT", 36);
	table(XSDT, "XSDT", 36);
	madt();
	APPEND(MADT, 0, 8, 0, 0, 1, 0, 0, 0);
	APPEND(MADT, 0, 8, 1, 2, 1, 0, 0, 0);
	APPEND(MADT, 1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0);
	APPEND(MADT, 2, 10, 0, 0, 2, 0, 0, 0, 5, 0);
	fadt();
	root(MADT);
	root(FADT);
	return 0;
}

static void is_good(void)
{
	assert_string_equal(warnings, "");
	assert_int_equal(info.lapic_base, 0xfee00000);
	assert_int_equal(info.cpu_count, 2);
	assert_int_equal(info.cpu_apic_id[0], 0);
	assert_int_equal(info.cpu_apic_id[1], 2);
	assert_int_equal(info.ioapic_count, 1);
	assert_int_equal(info.ioapic[0].address, 0xfec00000);
	assert_int_equal(info.override_count, 1);
	assert_int_equal(info.override[0].gsi, 2);
	assert_int_equal(info.override[0].flags, 5);
	assert_true(info.pic);
	assert_int_equal(info.pm1a, 0x604);
	assert_int_equal(info.pm_timer.address, 0x608);
	assert_true(info.pm_timer_32bit);
	assert_int_equal(info.reset.address, 0xcf9);
	assert_int_equal(info.reset_value, 6);
	assert_true(info.s5_known);
	assert_int_equal(info.s5_a, 5);
	assert_int_equal(info.s5_b, 7);
	assert_int_equal(info.serial.address, 0);
}

/* By the XSDT of version 2, by the RSDT of version 1, and of a version 2 without an XSDT. */
static void good(void **state)
{
	(void)state;
	read_all();
	is_good();
	rsdp(0);
	put(XSDT, 0, 8); /* not to be looked at */
	read_all();
	is_good();
	rsdp(2);
	put(RSDP + 24, 0, 8);
	checksum(RSDP, 36, 32);
	read_all();
	is_good();
}

static void is_nothing(const char *line)
{
	static const struct acpi_info nothing;

	read_all();
	assert_string_equal(warnings, line);
	assert_memory_equal(&info, &nothing, sizeof(info));
}

static void no_root(void **state)
{
	(void)state;
	memory[RSDP + 10] ^= 1; /* checksum */
	is_nothing("ACPI: no valid RSDP at 0x1000: one CPU, no power-off\n");
	machine(NULL);
	memory[RSDP] = 'r';
	is_nothing("ACPI: no valid RSDP at 0x1000: one CPU, no power-off\n");
	machine(NULL);
	put(RSDP + 24, SIZE + 0x1000, 8);
	checksum(RSDP, 36, 32);
	is_nothing("ACPI: no XSDT at 0xb000: one CPU, no power-off\n");
	machine(NULL);
	put(XSDT + 4, 35, 4);
	is_nothing("ACPI: table XSDT at 0x3000 has length 35: ignored\n"
		   "ACPI: no XSDT at 0x3000: one CPU, no power-off\n");
	acpi_read(0, map, warn, &info);
	assert_int_equal(info.cpu_count, 0);
}

static void broken_tables(void **state)
{
	(void)state;
	memory[MADT + 9] ^= 0x55; /* firmware in the field has bad checksums: said, and used */
	read_all();
	assert_string_equal(warnings,
			    "ACPI: table APIC at 0x8000 has a bad checksum: used all the same\n");
	assert_int_equal(info.cpu_count, 2);

	machine(NULL);
	put(MADT + 4, 0xffffffff, 4);
	read_all();
	assert_string_equal(warnings,
			    "ACPI: table APIC at 0x8000 has length 4294967295: ignored\n");
	assert_int_equal(info.cpu_count, 0);
	assert_true(info.s5_known); /* the others are not lost */

	machine(NULL);
	root(0);
	root(0xfffffff0); /* not there */
	append(XSDT, "torn", 4);
	read_all();
	is_good();
}

#define LAPIC(uid, id, flags)	APPEND(MADT, 0, 8, uid, id, flags, 0, 0, 0)
#define X2APIC(id_0, id_1, ...) APPEND(MADT, 9, 16, 0, 0, id_0, id_1, 0, 0, __VA_ARGS__)
#define ENABLED			1, 0, 0, 0, 9, 0, 0, 0

static void cpus_are(u32 disabled, u32 duplicate, u32 count, const u32 *ids)
{
	read_all();
	assert_string_equal(warnings, "");
	assert_int_equal(info.cpus_disabled, disabled);
	assert_int_equal(info.cpus_duplicate, duplicate);
	assert_int_equal(info.cpu_count, count);
	assert_memory_equal(info.cpu_apic_id, ids, count * sizeof(u32));
}

#define CPUS_ARE(disabled, duplicate, ...)                                      \
	cpus_are(disabled, duplicate, sizeof((const u32[]){ __VA_ARGS__ }) / 4, \
		 (const u32[]){ __VA_ARGS__ })

/* In the order of the table, however mixed up; the boot CPU comes first afterwards. */
static void madt_order(void **state)
{
	(void)state;
	madt(); /* empty */
	X2APIC(0x02, 1, ENABLED);
	LAPIC(0, 250, 1);
	LAPIC(1, 4, 1);
	X2APIC(0x00, 1, ENABLED);
	LAPIC(2, 0, 1);
	CPUS_ARE(0, 0, 0x102, 250, 4, 0x100, 0);
	acpi_boot_cpu_first(&info, 0); /* the last one */
	assert_memory_equal(info.cpu_apic_id, ((const u32[]){ 0, 0x102, 250, 4, 0x100 }), 20);
	acpi_boot_cpu_first(&info, 4); /* from the middle */
	assert_memory_equal(info.cpu_apic_id, ((const u32[]){ 4, 0, 0x102, 250, 0x100 }), 20);
	acpi_boot_cpu_first(&info, 4); /* there already */
	assert_memory_equal(info.cpu_apic_id, ((const u32[]){ 4, 0, 0x102, 250, 0x100 }), 20);
	assert_int_equal(info.cpu_count, 5);
	acpi_boot_cpu_first(&info, 7); /* not in the table at all */
	assert_memory_equal(info.cpu_apic_id, ((const u32[]){ 7, 4, 0, 0x102, 250, 0x100 }), 24);
	assert_int_equal(info.cpu_count, 6);
	madt();
	CPUS_ARE(0, 0);
	acpi_boot_cpu_first(&info, 3); /* no MADT, or an empty one */
	assert_int_equal(info.cpu_count, 1);
	assert_int_equal(info.cpu_apic_id[0], 3);
}

/* One CPU in several entries is one CPU, whatever their types and flags. */
static void madt_duplicates(void **state)
{
	(void)state;
	madt();
	X2APIC(5, 0, ENABLED); /* an id below 255 */
	LAPIC(0, 5, 1);
	LAPIC(0, 5, 1);
	LAPIC(1, 6, 0); /* disabled in one entry, enabled in another */
	LAPIC(2, 6, 1);
	LAPIC(1, 6, 0);
	X2APIC(6, 0, ENABLED);
	X2APIC(5, 1, ENABLED); /* 0x105 is not 5 */
	X2APIC(5, 1, ENABLED);
	CPUS_ARE(2, 4, 5, 6, 0x105);
}

/* Flags: bit 0 is enabled; bit 1, online capable, is a promise for later. */
static void madt_flags(void **state)
{
	(void)state;
	madt();
	LAPIC(0, 0, 0);
	LAPIC(1, 1, 2);
	LAPIC(2, 2, 3);
	LAPIC(3, 3, 0xfd);
	X2APIC(4, 1, 0, 0, 0, 0, 9, 0, 0, 0);
	X2APIC(5, 1, 2, 0, 0, 0, 9, 0, 0, 0);
	X2APIC(6, 1, 3, 0, 0, 0, 9, 0, 0, 0);
	CPUS_ARE(4, 0, 2, 3, 0x106);
}

/* No xAPIC entry at all; id 255 is a CPU here, and only here. 0xffffffff would be all of them. */
static void madt_x2apic_only(void **state)
{
	(void)state;
	madt();
	X2APIC(0, 0, ENABLED);
	X2APIC(254, 0, ENABLED);
	X2APIC(255, 0, ENABLED);
	X2APIC(0, 1, ENABLED);
	LAPIC(4, 255, 1); /* no CPU */
	APPEND(MADT, 9, 16, 0, 0, 0xff, 0xff, 0xff, 0xff, ENABLED);
	APPEND(MADT, 9, 16, 0, 0, 0xfe, 0xff, 0xff, 0xff, ENABLED);
	APPEND(MADT, 9, 15, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0); /* too short */
	CPUS_ARE(0, 0, 0, 254, 255, 256, 0xfffffffe);
}

static void madt_cpus(void **state)
{
	(void)state;
	APPEND(MADT, 0, 8, 2, 3, 0, 0, 0, 0);	 /* disabled */
	APPEND(MADT, 0, 8, 2, 4, 2, 0, 0, 0);	 /* only online capable */
	APPEND(MADT, 0, 8, 3, 2, 1, 0, 0, 0);	 /* duplicate */
	APPEND(MADT, 0, 8, 4, 0xff, 1, 0, 0, 0); /* a hole for the next */
	APPEND(MADT, 9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0);
	APPEND(MADT, 9, 16, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0); /* duplicate of an xAPIC */
	APPEND(MADT, 0, 6, 9, 9, 1, 0);				       /* too short for its type */
	APPEND(MADT, 0x7f, 3, 1);				       /* unknown */
	APPEND(MADT, 5, 12, 0, 0, 0, 0, 0xe0, 0xfe, 1, 0, 0, 0);
	read_all();
	assert_string_equal(warnings, "");
	assert_int_equal(info.cpu_count, 3);
	assert_int_equal(info.cpu_apic_id[2], 0x100);
	assert_int_equal(info.cpus_disabled, 2);
	assert_int_equal(info.cpus_duplicate, 2);
	assert_int_equal(info.lapic_base, 0x1fee00000ull);
}

static void madt_too_many(void **state)
{
	(void)state;
	for (u32 i = 0; i < MAX_CPUS; i++)
		APPEND(MADT, 9, 16, 0, 0, (u8)i, (u8)(1 + (i >> 8)), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
	for (u32 i = 0; i < ACPI_MAX_IOAPICS; i++)
		APPEND(MADT, 1, 12, 0, 0, 0, 0, 0xc0, 0xfe, (u8)i, 0, 0, 0);
	for (u32 i = 0; i < ACPI_MAX_OVERRIDES; i++)
		APPEND(MADT, 2, 10, 0, (u8)i, 2, 0, 0, 0, 5, 0);
	read_all();
	assert_int_equal(info.cpu_count, MAX_CPUS);
	assert_int_equal(info.cpus_ignored, 2);
	assert_int_equal(info.cpu_apic_id[MAX_CPUS - 1], 0x1fd);
	acpi_boot_cpu_first(&info, 0x1fe); /* one of those that found no room */
	assert_int_equal(info.cpu_count, MAX_CPUS);
	assert_int_equal(info.cpus_ignored, 3);
	assert_int_equal(info.cpu_apic_id[0], 0x1fe);
	assert_int_equal(info.cpu_apic_id[1], 0);
	assert_int_equal(info.cpu_apic_id[MAX_CPUS - 1], 0x1fc);
	assert_int_equal(info.ioapic_count, ACPI_MAX_IOAPICS);
	assert_int_equal(info.override_count, ACPI_MAX_OVERRIDES);
	assert_true(info.s5_known); /* nothing was written past an array's end */
}

static void madt_lengths(void **state)
{
	(void)state;
	APPEND(MADT, 0, 0); /* would stand still */
	APPEND(MADT, 0, 8, 5, 5, 1, 0, 0, 0);
	read_all();
	assert_string_equal(warnings,
			    "ACPI: MADT entry at offset 82 has length 0: the rest is ignored\n");
	assert_int_equal(info.cpu_count, 2);

	machine(NULL);
	APPEND(MADT, 0, 200, 5, 5, 1, 0, 0, 0); /* longer than the table */
	read_all();
	assert_string_equal(warnings,
			    "ACPI: MADT entry at offset 82 has length 200: the rest is ignored\n");
	assert_int_equal(info.cpu_count, 2);

	machine(NULL);
	APPEND(MADT, 0); /* a type without a length */
	read_all();
	is_good();

	machine(NULL);
	table(MADT, "APIC", 43);
	read_all();
	assert_string_equal(warnings, "ACPI: MADT has only 43 bytes: ignored\n");
	assert_int_equal(info.cpu_count, 0);
}

static void short_fadt(void **state)
{
	(void)state;
	put(FADT + 4, 115, 4);
	seal(FADT);
	read_all();
	assert_string_equal(warnings, "ACPI: FADT has only 115 bytes: no power-off\n" NO_S5);
	assert_int_equal(info.pm1a, 0);
	put(FADT + 4, 116, 4); /* of ACPI 1: no reset register, no 64-bit addresses */
	seal(FADT);
	read_all();
	assert_string_equal(warnings, "");
	assert_int_equal(info.pm1a, 0x604);
	assert_int_equal(info.reset.address, 0);
	assert_true(info.s5_known);
	machine(NULL);
	put(FADT + 112, 0, 4); /* the flag says that the reset register is not there */
	seal(FADT);
	read_all();
	assert_int_equal(info.reset.address, 0);
	assert_false(info.pm_timer_32bit);
}

static void fadt_64bit(void **state)
{
	(void)state;
	put(FADT + 40, 0xdead0000, 4); /* X_DSDT wins */
	put(FADT + 140, DSDT, 8);
	put(FADT + 112, BIT(20), 4);
	memory[FADT + 208] = 1;
	put(FADT + 212, 0x708, 8);
	put(FADT + 248, 0xfed40000, 8);
	seal(FADT);
	read_all();
	assert_true(info.s5_known && info.hw_reduced);
	assert_int_equal(info.pm_timer.address, 0x708);
	assert_int_equal(info.sleep_control.address, 0xfed40000);
	put(FADT + 140, 0xdead0000, 8); /* no DSDT there */
	seal(FADT);
	read_all();
	assert_false(info.s5_known);
	assert_int_equal(info.pm1a, 0x604);
}

static void s5(bool known, u8 a, u8 b)
{
	read_all();
	assert_string_equal(warnings, known ? "" : NO_S5);
	assert_int_equal(info.s5_known, known);
	assert_int_equal(info.s5_a, a);
	assert_int_equal(info.s5_b, b);
}

#define PAD 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0

static void s5_variants(void **state)
{
	(void)state;
	table(DSDT, "DSDT", 36); /* ZeroOp and OneOp instead of bytes */
	APPEND(DSDT, 8, '_', 'S', '5', '_', 0x12, 6, 4, 0, 1, 0, 0, PAD);
	s5(true, 0, 1);
	table(DSDT, "DSDT", 36); /* a two-byte package length, a root prefix */
	APPEND(DSDT, 8, '\\', '_', 'S', '5', '_', 0x12, 0x46, 0, 2, 0x0a, 6, 0x0a, 3, PAD);
	s5(true, 6, 3);
	table(DSDT, "DSDT", 36); /* named elsewhere first: only a package counts */
	APPEND(DSDT, '_', 'S', '5', '_', 0x70, 8, '_', 'S', '5', '_', 0x12, 6, 2, 0x0a, 5, 0, PAD);
	s5(true, 5, 0);
	table(DSDT, "DSDT", 36); /* a method */
	APPEND(DSDT, 0x14, 8, '_', 'S', '5', '_', 0, 0xa4, PAD);
	s5(false, 0, 0);
	table(DSDT, "DSDT", 36);
	s5(false, 0, 0);
	APPEND(DSDT, '_', 'S', '5', '_', 0x12); /* cut off */
	s5(false, 0, 0);
}

static void s5_in_ssdt(void **state)
{
	(void)state;
	table(DSDT, "DSDT", 36);
	table(SPCR, "SSDT", 36);
	root(SPCR);
	s5(false, 0, 0);
	APPEND(SPCR, 8, '_', 'S', '5', '_', 0x12, 6, 4, 0x0a, 1, 1, 0, PAD);
	s5(true, 1, 1);
	fadt(); /* the first one found counts */
	s5(true, 5, 7);
}

static void spcr(void **state)
{
	(void)state;
	table(SPCR, "SPCR", 80);
	root(SPCR);
	put(SPCR + 40, 1, 1);
	put(SPCR + 44, 0x2f8, 8);
	put(SPCR + 52, 3, 1);
	put(SPCR + 53, 3, 1);
	put(SPCR + 54, 35, 4);
	seal(SPCR);
	read_all();
	assert_int_equal(info.serial.space, 1);
	assert_int_equal(info.serial.address, 0x2f8);
	assert_int_equal(info.serial_gsi, 35);
	put(SPCR + 52, 1, 1); /* no interrupt by an I/O APIC */
	seal(SPCR);
	read_all();
	assert_int_equal(info.serial_gsi, 0);
	put(SPCR + 36, 3, 1); /* an ARM PL011 */
	seal(SPCR);
	read_all();
	is_good();
	put(SPCR + 36, 0, 1);
	put(SPCR + 4, 67, 4);
	seal(SPCR);
	read_all();
	is_good();
}

#define TEST(name) cmocka_unit_test_setup(name, machine)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(good),	    TEST(no_root),	    TEST(broken_tables),
		TEST(madt_cpus),    TEST(madt_order),	    TEST(madt_duplicates),
		TEST(madt_flags),   TEST(madt_x2apic_only), TEST(madt_too_many),
		TEST(madt_lengths), TEST(short_fadt),	    TEST(fadt_64bit),
		TEST(s5_variants),  TEST(s5_in_ssdt),	    TEST(spcr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
