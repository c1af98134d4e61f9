/* SPDX-License-Identifier: MIT */
#include "arch/x86/acpi.h"
#include "lib/printf.h"
#include "lib/string.h"

#define APIC_ID_ALL 0xffffffffu

struct acpi_info acpi;

struct PACKED sdt {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
};

/* The tables are read through this, for the time of one acpi_read(). */
struct reader {
	const void *(*map)(u64 hpa, u64 size);
	void (*warn)(const char *line);
	struct acpi_info *info;
};

static void warnf(const struct reader *r, const char *fmt, ...) PRINTF(2, 3);
static void warnf(const struct reader *r, const char *fmt, ...)
{
	char line[160];
	va_list ap;

	va_start(ap, fmt);
	fmt_vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->warn(line);
}

static u64 get(const void *base, u32 offset, u32 bytes)
{
	u64 v = 0;

	memcpy(&v, (const u8 *)base + offset, bytes);
	return v;
}

static u8 sum(const void *p, u32 n)
{
	u8 s = 0;

	for (u32 i = 0; i < n; i++)
		s = (u8)(s + ((const u8 *)p)[i]);
	return s;
}

/*
 * A whole table, or NULL with a line. A bad checksum is only a line: firmware in the field has
 * them.
 */
static const struct sdt *table_at(const struct reader *r, u64 address)
{
	const struct sdt *t = address ? r->map(address, sizeof(*t)) : NULL;

	if (!t)
		return NULL;
	if (t->length < sizeof(*t) || t->length > 4 * MIB) {
		warnf(r, "ACPI: table %.4s at %#lx has length %u: ignored", t->signature, address,
		      t->length);
		return NULL;
	}
	t = r->map(address, t->length);
	if (t && sum(t, t->length))
		warnf(r, "ACPI: table %.4s at %#lx has a bad checksum: used all the same",
		      t->signature, address);
	return t;
}

static void read_gas(const void *p, u32 offset, struct acpi_gas *gas)
{
	memcpy(gas, (const u8 *)p + offset, sizeof(*gas));
}

static void add_cpu(const struct reader *r, u32 apic_id, u32 flags)
{
	struct acpi_info *info = r->info;

	if (apic_id == APIC_ID_ALL) /* would be every CPU: an empty entry */
		return;
	if (!(flags & 1)) { /* enabled; "online capable" is for hot-plug, which Corbel doesn't do */
		info->cpus_disabled++;
		return;
	}
	for (u32 i = 0; i < info->cpu_count; i++) {
		if (info->cpu_apic_id[i] == apic_id) {
			info->cpus_duplicate++;
			return;
		}
	}
	if (info->cpu_count == MAX_CPUS) {
		info->cpus_ignored++;
		return;
	}
	info->cpu_apic_id[info->cpu_count++] = apic_id;
}

static void madt_entry(const struct reader *r, const u8 *e, u8 type, u8 len)
{
	struct acpi_info *info = r->info;

	if (type == 0 && len >= 8 && e[3] != 0xff) { /* 0xff: a hole, its CPU has an x2APIC entry */
		add_cpu(r, e[3], (u32)get(e, 4, 4));
	} else if (type == 9 && len >= 16) { /* some firmware lists small ids here as well */
		add_cpu(r, (u32)get(e, 4, 4), (u32)get(e, 8, 4));
	} else if (type == 1 && len >= 12 && info->ioapic_count < ACPI_MAX_IOAPICS) {
		info->ioapic[info->ioapic_count].address = get(e, 4, 4);
		info->ioapic[info->ioapic_count++].gsi_base = (u32)get(e, 8, 4);
	} else if (type == 2 && len >= 10 && info->override_count < ACPI_MAX_OVERRIDES) {
		info->override[info->override_count].irq = e[3];
		info->override[info->override_count].gsi = (u32)get(e, 4, 4);
		info->override[info->override_count++].flags = (u16)get(e, 8, 2);
	} else if (type == 5 && len >= 12) {
		info->lapic_base = get(e, 4, 8);
	}
}

static void read_madt(const struct reader *r, const struct sdt *t)
{
	const u8 *p = (const u8 *)t;

	if (t->length < 44)
		return warnf(r, "ACPI: MADT has only %u bytes: ignored", t->length);
	r->info->lapic_base = get(p, 36, 4);
	r->info->pic = get(p, 40, 4) & 1;
	for (u32 at = 44; at + 2 <= t->length; at += p[at + 1]) {
		if (p[at + 1] < 2 || at + p[at + 1] > t->length)
			return warnf(
				r,
				"ACPI: MADT entry at offset %u has length %u: the rest is ignored",
				at, p[at + 1]);
		madt_entry(r, p + at, p[at], p[at + 1]);
	}
}

/*
 * AML of `Name (_S5_, Package () {a, b, ...})`: 08 _S5_ 12 PkgLength NumElements then integers (0,
 * 1, or 0a byte).
 */
static void find_s5(const struct reader *r, const struct sdt *dsdt)
{
	const u8 *p = (const u8 *)dsdt;
	u8 value[2] = { 0 };

	if (r->info->s5_known)
		return;
	for (u32 i = sizeof(*dsdt); i + 16 <= dsdt->length; i++) {
		u32 at = i + 4;

		if (memcmp(p + i, "_S5_", 4) || p[at] != 0x12)
			continue;
		at += 2 + (p[at + 1] >> 6); /* package operator, length bytes */
		at++;			    /* number of elements */
		for (u32 n = 0; n < 2 && at < dsdt->length - 1; n++) {
			if (p[at] == 0x0a)
				at++;
			value[n] = p[at++];
		}
		r->info->s5_known = true;
		r->info->s5_a = value[0];
		r->info->s5_b = value[1];
		return;
	}
}

static void read_fadt(const struct reader *r, const struct sdt *t)
{
	struct acpi_info *info = r->info;
	const struct sdt *dsdt;
	u32 flags;

	if (t->length < 116)
		return warnf(r, "ACPI: FADT has only %u bytes: no power-off", t->length);
	flags = (u32)get(t, 112, 4);
	info->pm1a = (u16)get(t, 64, 4);
	info->pm1b = (u16)get(t, 68, 4);
	info->pm_timer_32bit = flags & BIT(8);
	info->hw_reduced = flags & BIT(20);
	if (get(t, 76, 4) && get(t, 91, 1) == 4)
		info->pm_timer =
			(struct acpi_gas){ .space = 1, .bits = 32, .address = get(t, 76, 4) };
	if (t->length >= 129 && (flags & BIT(10))) {
		read_gas(t, 116, &info->reset);
		info->reset_value = (u8)get(t, 128, 1);
	}
	if (t->length >= 220 && get(t, 212, 8))
		read_gas(t, 208, &info->pm_timer);
	if (t->length >= 268)
		read_gas(t, 244, &info->sleep_control);
	dsdt = table_at(r, t->length >= 148 && get(t, 140, 8) ? get(t, 140, 8) : get(t, 40, 4));
	if (dsdt)
		find_s5(r, dsdt);
}

static void read_spcr(const struct reader *r, const struct sdt *t)
{
	if (t->length < 68 || get(t, 36, 1) > 1) /* only the 16550 types */
		return;
	read_gas(t, 40, &r->info->serial);
	if (get(t, 52, 1) & 2)
		r->info->serial_gsi = (u32)get(t, 54, 4);
}

static void read_table(const struct reader *r, const struct sdt *t)
{
	if (!memcmp(t->signature, "APIC", 4))
		read_madt(r, t);
	else if (!memcmp(t->signature, "FACP", 4))
		read_fadt(r, t);
	else if (!memcmp(t->signature, "SPCR", 4))
		read_spcr(r, t);
	else if (!memcmp(t->signature, "SSDT", 4))
		find_s5(r, t); /* some firmwares (Bochs) keep the sleep states there */
	else if (!memcmp(t->signature, "HPET", 4) && t->length >= 52)
		r->info->hpet = get(t, 44, 8);
	else if (!memcmp(t->signature, "MCFG", 4) && t->length >= 60)
		r->info->mcfg = get(t, 44, 8);
}

void acpi_read(u64 rsdp, const void *(*map)(u64 hpa, u64 size), void (*warn)(const char *line),
	       struct acpi_info *info)
{
	struct reader r = { map, warn, info };
	const u8 *root = rsdp ? map(rsdp, 20) : NULL;
	const struct sdt *xsdt, *t;
	u32 width = 4;
	u64 at;

	*info = (struct acpi_info){ 0 };
	if (!root || memcmp(root, "RSD PTR ", 8) || sum(root, 20))
		return warnf(&r, "ACPI: no valid RSDP at %#lx: one CPU, no power-off", rsdp);
	at = get(root, 16, 4);
	if (root[15] >= 2 && (root = map(rsdp, 36)) && get(root, 24, 8)) {
		at = get(root, 24, 8);
		width = 8;
	}
	xsdt = table_at(&r, at);
	if (!xsdt)
		return warnf(&r, "ACPI: no %cSDT at %#lx: one CPU, no power-off",
			     width == 8 ? 'X' : 'R', at);
	for (u32 i = sizeof(*xsdt); i + width <= xsdt->length; i += width) {
		t = table_at(&r, get(xsdt, i, width));
		if (t)
			read_table(&r, t);
	}
	if (!info->s5_known)
		warnf(&r, "ACPI: no _S5_ in DSDT or SSDT: power-off is a guess");
}

void acpi_boot_cpu_first(struct acpi_info *info, u32 apic_id)
{
	u32 at = 0;

	while (at < info->cpu_count && info->cpu_apic_id[at] != apic_id)
		at++;
	if (at == MAX_CPUS) { /* it takes the place of the last one */
		at--;
		info->cpus_ignored++;
	} else if (at == info->cpu_count) {
		info->cpu_count++;
	}
	memmove(info->cpu_apic_id + 1, info->cpu_apic_id, at * sizeof(info->cpu_apic_id[0]));
	info->cpu_apic_id[0] = apic_id;
}
