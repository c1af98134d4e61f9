/* SPDX-License-Identifier: MIT */
/* The guest's ACPI tables: read back by hand, and by ACPICA's own tools. */
#include "tests/unit/dev_fake.h"

#include <asm-generic/errno.h>
#include <stdio.h>
#include "dev/acpi.h"
#include "dev/pm_timer.h"
#include "dev/power.h"

#define VIRTIO_DEVICES 0x05 /* the first and the third */

static u8 buf[16384];

static u32 get32(const u8 *p)
{
	u32 x;
	memcpy(&x, p, sizeof(x));
	return x;
}

static u64 get64(const u8 *p)
{
	u64 x;
	memcpy(&x, p, sizeof(x));
	return x;
}

static u8 sum(const u8 *p, u32 n)
{
	u8 s = 0;
	while (n--)
		s += *p++;
	return s;
}

/* The table at a gpa, checked: inside of what was built, signature, checksum. */
static const u8 *table(u64 gpa, int used, const char *signature)
{
	assert_in_range(gpa, ACPI_GPA, ACPI_GPA + (u64)used - 36);
	const u8 *t = buf + (gpa - ACPI_GPA);
	assert_memory_equal(t, signature, 4);
	assert_in_range(get32(t + 4), 36, ACPI_GPA + (u64)used - gpa);
	assert_int_equal(sum(t, get32(t + 4)), 0);
	return t;
}

#define PM_TIMER_CPUS 2 /* a VM with so many has one */

static const struct acpi_memory memory[] = {
	{ .name = "mailbox", .gpa = 0x100000000, .size = 0x200000 },
	{ .name = "a-name-of-31-characters-is-long",
	  .gpa = 0x4000000000,
	  .size = 0x40000000,
	  .readonly = true },
};

static int build(u32 cpus)
{
	memset(buf, 0, sizeof(buf));
	int used = acpi_build(buf, sizeof(buf), ACPI_GPA, cpus, VIRTIO_DEVICES,
			      cpus == PM_TIMER_CPUS, memory, ARRAY_SIZE(memory));
	assert_in_range(used, 500, sizeof(buf));
	return used;
}

static void test_structure(void **state)
{
	(void)state;
	int used = build(3);
	assert_memory_equal(buf, "RSD PTR ", 8);
	assert_int_equal(sum(buf, 20), 0);
	assert_int_equal(sum(buf, 36), 0);
	assert_int_equal(buf[15], 2);
	const u8 *xsdt = table(get64(buf + 24), used, "XSDT");
	assert_int_equal(get32(xsdt + 4), 36 + 3 * 8);
	const u8 *fadt = table(get64(xsdt + 36), used, "FACP");
	assert_int_equal(fadt[8], 6);
	assert_int_equal(get32(fadt + 4), 276);
	assert_int_equal(get32(fadt + 112), 1 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20);
	assert_int_equal(fadt[109] | fadt[110] << 8, 0x34);
	assert_int_equal(get64(fadt + 120), POWER_RESET);
	assert_int_equal(fadt[128], POWER_RESET_VALUE);
	assert_int_equal(fadt[244], 1);
	assert_int_equal(get64(fadt + 248), POWER_SLEEP_CONTROL);
	assert_int_equal(get64(fadt + 260), POWER_SLEEP_STATUS);
	assert_int_equal(get32(fadt + 40), get64(fadt + 140));
	table(get64(fadt + 140), used, "DSDT");
	table(get64(xsdt + 52), used, "SSDT");
}

static const u8 *fadt_of(u32 cpus)
{
	int used = build(cpus);
	const u8 *xsdt = table(get64(buf + 24), used, "XSDT");

	return table(get64(xsdt + 36), used, "FACP");
}

static void test_pm_timer(void **state)
{
	(void)state;
	const u8 *fadt = fadt_of(1);
	assert_true(!get32(fadt + 76) && !fadt[91] && !get64(fadt + 212));
	fadt = fadt_of(PM_TIMER_CPUS);
	assert_int_equal(get32(fadt + 112), 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 20);
	assert_int_equal(get32(fadt + 76), PM_TIMER_PORT);
	assert_int_equal(fadt[91], 4);
	assert_memory_equal(fadt + 208, "\x01\x20\x00\x03", 4);
	assert_int_equal(get64(fadt + 212), PM_TIMER_PORT);
}

static void test_madt(void **state)
{
	(void)state;
	int used = build(300);
	const u8 *xsdt = table(get64(buf + 24), used, "XSDT");
	const u8 *madt = table(get64(xsdt + 44), used, "APIC");
	assert_int_equal(get32(madt + 36), 0xfee00000);
	assert_int_equal(get32(madt + 40), 1); /* there are 8259As */
	u32 cpus = 0, ioapics = 0, overrides = 0;
	const u8 *end = madt + get32(madt + 4), *p = madt + 44;
	for (; p < end; p += p[1]) {
		if (p[0] == 0) {
			assert_int_equal(p[1], 8);
			assert_int_equal(p[3], cpus++);
			assert_int_equal(get32(p + 4), 1);
		} else if (p[0] == 9) {
			assert_true(cpus > 254);
			assert_int_equal(p[1], 16);
			assert_int_equal(get32(p + 4), cpus++);
		} else if (p[0] == 2) { /* IRQ 0 is GSI 2, edge-triggered as on ISA */
			assert_memory_equal(p, "\2\12\0\0\2\0\0\0\0\0", 10);
			overrides++;
		} else {
			assert_int_equal(p[0], 1);
			assert_int_equal(get32(p + 4), 0xfec00000);
			ioapics++;
		}
	}
	assert_ptr_equal(p, end);
	assert_int_equal(cpus, 300);
	assert_int_equal(ioapics, 1);
	assert_int_equal(overrides, 1);
}

static void test_no_space(void **state)
{
	(void)state;
	int used = build(64);
	for (int size = 0; size < used; size++) {
		u8 *small = malloc((size_t)size + 1); /* the sanitizer watches the end */
		assert_int_equal(acpi_build(small, (size_t)size, ACPI_GPA, 64, 0, true, memory,
					    ARRAY_SIZE(memory)),
				 -ENOSPC);
		free(small);
	}
}

static void test_written_to_the_guest(void **state)
{
	(void)state;
	struct vm *vm = fake_vm(4);
	memset(buf, 0, sizeof(buf));
	int used =
		acpi_build(buf, sizeof(buf), ACPI_GPA, 4, BIT(VIRTIO_SLOT_CONSOLE), false, NULL, 0);
	assert_int_equal(platform_write_firmware(vm), 0);
	assert_memory_equal(fake_memory + ACPI_GPA, buf, (size_t)used);
	fake_frames_left = 0;
	assert_int_equal(platform_write_firmware(vm), -ENOMEM);
	fake_frames_left = ~0u;
	fake_vm_free(vm);
	assert_int_equal(fake_frames, 0);
}

static char dir[] = "/tmp/corbel-acpi-XXXXXX";

static void save(const char *name, const u8 *t)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(t, 1, get32(t + 4), f), get32(t + 4));
	fclose(f);
}

/* Runs a command in dir; its status. What it says is in dir/said. */
static int run(const char *command)
{
	char line[256];
	snprintf(line, sizeof(line), "cd %s && %s >said 2>&1", dir, command);
	int status = system(line);
	if (status) {
		snprintf(line, sizeof(line), "cat %s/said", dir);
		(void)!system(line);
	}
	return status;
}

/*
 * iasl reads all tables without a complaint, and its own output compiles again; acpiexec loads them
 * and finds the devices.
 */
static void test_acpica(void **state)
{
	(void)state;
	if (system("command -v iasl >/dev/null && command -v acpiexec >/dev/null"))
		skip();
	assert_non_null(mkdtemp(dir));
	int used = build(64);
	const u8 *xsdt = table(get64(buf + 24), used, "XSDT");
	const u8 *fadt = table(get64(xsdt + 36), used, "FACP");
	save("xsdt", xsdt);
	save("facp", fadt);
	save("apic", table(get64(xsdt + 44), used, "APIC"));
	save("ssdt", table(get64(xsdt + 52), used, "SSDT"));
	save("dsdt", table(get64(fadt + 140), used, "DSDT"));
	assert_int_equal(
		run("for t in xsdt facp apic ssdt dsdt; do iasl -d $t.aml || exit 1; done"), 0);
	assert_int_equal(run("! grep -iE 'error|warning|invalid|incorrect|could not' *.dsl said"),
			 0);
	assert_int_equal(run("mkdir again && for t in xsdt facp apic ssdt dsdt; do"
			     " iasl -we -p again/$t $t.dsl || exit 1; done"),
			 0);
	assert_int_equal(
		run("for t in apic facp; do cmp -i 36 $t.aml again/$t.aml || exit 1; done"), 0);
	assert_int_equal(run("acpiexec -b 'namespace; evaluate \\_S5; quit' dsdt.aml ssdt.aml"), 0);
	assert_int_equal(
		run("cp said out; test $(grep -cE '^ 1 +C0[0-3][0-9A-F] Device' out) = 64"), 0);
	assert_int_equal(run("grep -qE '^ 1 +COM1 Device' out"), 0);
	assert_int_equal(run("! grep -E 'Exception|AE_' out"), 0);
	assert_int_equal(run("test $(grep -cE '\\[Integer\\] = 0+5$' out) = 2"),
			 0); /* \\_S5: 5, 5, 0, 0 */
	for (u32 i = 0; i < VIRTIO_SLOTS; i++) {
		static const char *const names[] = { "VBLK", "VNET", "VRNG", "VCON" };
		char command[160];
		snprintf(command, sizeof(command),
			 "acpiexec -b 'evaluate \\_SB.%s._STA; quit' dsdt.aml >sta && "
			 "grep -qE '\\[Integer\\] = 0+%c$' sta",
			 names[i], VIRTIO_DEVICES >> i & 1 ? 'F' : '0');
		assert_int_equal(run(command), 0);
		snprintf(command, sizeof(command), "grep -q '0x%08X, .*// Address Base' dsdt.dsl",
			 (u32)VIRTIO_GPA(i));
		assert_int_equal(run(command), 0);
		snprintf(command, sizeof(command), "grep -qi '^ *0x%08x,$' dsdt.dsl",
			 VIRTIO_GSI(i));
		assert_int_equal(run(command), 0);
	}
	char line[64];
	snprintf(line, sizeof(line), "rm -r %s", dir);
	assert_int_equal(system(line), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structure),
		cmocka_unit_test(test_pm_timer),
		cmocka_unit_test(test_madt),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_written_to_the_guest),
		cmocka_unit_test(test_acpica),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
