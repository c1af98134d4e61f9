/* SPDX-License-Identifier: MIT */
/* ACPI 6.4, "ACPI Software Programming Model", "System Description Table Format". */
#include "dev/acpi.h"

#include <asm-generic/errno.h>
#include "dev/ioapic.h"
#include "dev/lapic_regs.h"
#include "dev/pit.h"
#include "dev/pm_timer.h"
#include "dev/power.h"
#include "lib/assert.h"
#include "lib/string.h"

struct PACKED rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum;
	u8 reserved[3];
};

struct PACKED header {
	char signature[4];
	u32 length;
	u8 revision;
	u8 checksum;
	char oem_id[6];
	char oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
};

struct PACKED xsdt {
	struct header h;
	u64 table[3];
};

/* "Generic Address Structure" */
struct PACKED gas {
	u8 space, width, offset, access;
	u64 address;
};
#define GAS_IO	  1
#define GAS_BYTE  1
#define GAS_DWORD 3

/* "Fixed ACPI Description Table (FADT)": what a hardware-reduced platform uses, the rest is zero.
 */
struct PACKED fadt {
	struct header h;
	u32 firmware_ctrl;
	u32 dsdt;
	u8 unused1[76 - 44];
	u32 pm_timer;
	u8 unused2[91 - 80];
	u8 pm_timer_length;
	u8 unused3[109 - 92];
	u16 boot_arch;
	u8 reserved;
	u32 flags;
	struct gas reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_firmware_ctrl;
	u64 x_dsdt;
	struct gas unused4[5];
	struct gas x_pm_timer;
	struct gas unused5[2];
	struct gas sleep_control;
	struct gas sleep_status;
	u64 hypervisor;
};
_Static_assert(offsetof(struct fadt, flags) == 112, "FADT layout");
_Static_assert(offsetof(struct fadt, x_pm_timer) == 208, "FADT layout");
_Static_assert(sizeof(struct fadt) == 276, "FADT layout");

#define FADT_WBINVD	  BIT(0)
#define FADT_PWR_BUTTON	  BIT(4) /* no fixed power button */
#define FADT_SLP_BUTTON	  BIT(5) /* nor a sleep button: both are in the DSDT */
#define FADT_PM_TIMER_32  BIT(8)
#define FADT_RESET_REG	  BIT(10)
#define FADT_HW_REDUCED	  BIT(20)
#define BOOT_ARCH_NO_VGA  BIT(2)
#define BOOT_ARCH_NO_ASPM BIT(4)
#define BOOT_ARCH_NO_RTC  BIT(5) /* nobody needs it for booting: kvmclock has the date */

/* "Multiple APIC Description Table (MADT)" */
struct PACKED madt {
	struct header h;
	u32 lapic_address;
	u32 flags;
};

struct PACKED madt_lapic {
	u8 type, length, uid, apic_id;
	u32 flags;
};

struct PACKED madt_x2apic {
	u8 type, length;
	u16 reserved;
	u32 apic_id, flags, uid;
};

struct PACKED madt_ioapic {
	u8 type, length, id, reserved;
	u32 address, gsi_base;
};

struct PACKED madt_override {
	u8 type, length, bus, irq;
	u32 gsi;
	u16 flags;
};
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_X2APIC = 9 };
#define MADT_PCAT_COMPAT 1 /* there are 8259As */
#define MADT_ENABLED	 1
#define LAPIC_MAX_ID	 254

/*
 * One CPU in AML: Device (CXXX) { Name (_HID, "ACPI0007") Name (_UID, n) }, ACPI "AML
 * Specification".
 */
struct PACKED aml_cpu {
	u8 device[2], length;
	char name[4];
	u8 hid[15];
	u8 uid[6];
	u32 n;
};

struct PACKED aml_scope {
	u8 op, length[2];
	char name[5];
};

/*
 * Scope (\\_SB) { Device (MXXX) { Name (_HID, "CRBL0001") Name (_UID, n) Name (_DDN, "...") and,
 * behind that string: Name (_CRS, ResourceTemplate () { QWordMemory (...) }) } }
 */
struct PACKED aml_memory {
	struct aml_scope scope;
	u8 device[2], length[2];
	char name[4];
	u8 hid[15];
	u8 uid[6];
	u32 n;
	u8 ddn[6];
};

/* "QWord Address Space Descriptor", "End Tag" */
struct PACKED aml_crs {
	u8 crs[5], buffer[4];
	u8 type, length[2], resource, flags, memory_flags;
	u64 granularity, min, max, translation, size;
	u8 end[2];
};
#define CRS_RESOURCE (offsetof(struct aml_crs, end) + 2 - offsetof(struct aml_crs, type))
_Static_assert(CRS_RESOURCE == 48, "a QWord descriptor and an end tag");

struct blob {
	u8 *buf;
	size_t size, used;
	u64 gpa;
	bool full;
};

/* Room for size bytes. Once something did not fit, nothing more is written: `full` stays set. */
static size_t reserve(struct blob *b, size_t size, size_t align)
{
	size_t at = ALIGN_UP(b->used, align);
	if (at + size > b->size) {
		b->full = true;
		return 0;
	}
	b->used = at + size;
	return at;
}

static size_t append(struct blob *b, const void *data, size_t size, size_t align)
{
	size_t at = reserve(b, size, align);
	if (!b->full)
		memcpy(b->buf + at, data, size);
	return at;
}

static u8 checksum(const u8 *p, size_t n)
{
	u8 sum = 0;
	while (n--)
		sum += *p++;
	return (u8)-sum;
}

static struct header header_make(const char signature[4], u8 revision)
{
	struct header h = { .revision = revision, .oem_revision = 1, .creator_revision = 1 };
	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_id, "CORBEL", sizeof(h.oem_id));
	memcpy(h.oem_table_id, "CORBELVM", sizeof(h.oem_table_id));
	memcpy(h.creator_id, "CRBL", sizeof(h.creator_id));
	return h;
}

/* A table that began at `at` ends here: its length and checksum. Returns its gpa. */
static u64 finish(struct blob *b, size_t at)
{
	if (b->full)
		return 0;
	u32 length = (u32)(b->used - at);
	memcpy(b->buf + at + offsetof(struct header, length), &length, sizeof(length));
	b->buf[at + offsetof(struct header, checksum)] = 0;
	b->buf[at + offsetof(struct header, checksum)] = checksum(b->buf + at, length);
	return b->gpa + at;
}

static struct gas port(u16 address)
{
	return (struct gas){ .space = GAS_IO, .width = 8, .access = GAS_BYTE, .address = address };
}

static u64 build_fadt(struct blob *b, u64 dsdt, bool pm_timer)
{
	struct fadt fadt = {
		.h = header_make("FACP", 6),
		.dsdt = (u32)dsdt,
		.boot_arch = BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM | BOOT_ARCH_NO_RTC,
		.flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG |
			 FADT_HW_REDUCED,
		.reset_reg = port(POWER_RESET),
		.reset_value = POWER_RESET_VALUE,
		.minor = 4,
		.x_dsdt = dsdt,
		.sleep_control = port(POWER_SLEEP_CONTROL),
		.sleep_status = port(POWER_SLEEP_STATUS),
	};

	/*
	 * Fixed hardware, which such a platform need not have; who wants a clock looks for it all
	 * the same, in the field for a 32-bit address or in the other one.
	 */
	if (pm_timer) {
		fadt.flags |= FADT_PM_TIMER_32;
		fadt.pm_timer = PM_TIMER_PORT;
		fadt.pm_timer_length = 4;
		fadt.x_pm_timer = (struct gas){
			.space = GAS_IO, .width = 32, .access = GAS_DWORD, .address = PM_TIMER_PORT
		};
	}
	return finish(b, append(b, &fadt, sizeof(fadt), 16));
}

static void add_madt_cpu(struct blob *b, u32 id)
{
	const struct madt_lapic lapic = { .type = MADT_LAPIC,
					  .length = sizeof(lapic),
					  .uid = (u8)id,
					  .apic_id = (u8)id,
					  .flags = MADT_ENABLED };
	const struct madt_x2apic x2apic = { .type = MADT_X2APIC,
					    .length = sizeof(x2apic),
					    .apic_id = id,
					    .flags = MADT_ENABLED,
					    .uid = id };
	if (id <= LAPIC_MAX_ID)
		append(b, &lapic, sizeof(lapic), 1);
	else
		append(b, &x2apic, sizeof(x2apic), 1);
}

static u64 build_madt(struct blob *b, u32 cpus)
{
	const struct madt madt = { .h = header_make("APIC", 5),
				   .lapic_address = (u32)APIC_BASE_GPA,
				   .flags = MADT_PCAT_COMPAT };
	const struct madt_ioapic ioapic = { .type = MADT_IOAPIC,
					    .length = sizeof(ioapic),
					    .address = (u32)IOAPIC_GPA };
	const struct madt_override timer = {
		.type = MADT_OVERRIDE, .length = sizeof(timer), .irq = 0, .gsi = PIT_GSI
	};
	size_t at = append(b, &madt, sizeof(madt), 16);
	for (u32 i = 0; i < cpus; i++)
		add_madt_cpu(b, i);
	append(b, &ioapic, sizeof(ioapic), 1);
	append(b, &timer, sizeof(timer), 1);
	return finish(b, at);
}

/* A package's length, itself included, in two bytes. */
static void set_length(u8 bytes[2], size_t length)
{
	bytes[0] = 0x40 | (length & 0xf);
	bytes[1] = (u8)(length >> 4);
}

static void add_memory(struct blob *b, const struct acpi_memory *m, u32 n)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t name = strlen(m->name) + 1;
	struct aml_memory aml = { .scope = { .op = 0x10 },
				  .device = { 0x5b, 0x82 },
				  .name = { 'M', '0', hex[n >> 4 & 0xf], hex[n & 0xf] },
				  .n = n };
	const struct aml_crs crs = { .crs = { 0x08, '_', 'C', 'R', 'S' },
				     .buffer = { 0x11, 3 + CRS_RESOURCE, 0x0a, CRS_RESOURCE },
				     .type = 0x8a,
				     .length = { 0x2b },
				     .flags = 0x0d,			  /* fixed; consumed here */
				     .memory_flags = m->readonly ? 2 : 3, /* cacheable, writable */
				     .min = m->gpa,
				     .max = m->gpa + m->size - 1,
				     .size = m->size,
				     .end = { 0x79 } };

	set_length(aml.scope.length, sizeof(aml) + name + sizeof(crs) - 1);
	memcpy(aml.scope.name, "\\_SB_", sizeof(aml.scope.name));
	set_length(aml.length,
		   sizeof(aml) + name + sizeof(crs) - offsetof(struct aml_memory, length));
	memcpy(aml.hid,
	       "\x08_HID\x0d"
	       "CRBL0001",
	       sizeof(aml.hid));
	memcpy(aml.uid, "\x08_UID\x0c", sizeof(aml.uid));
	memcpy(aml.ddn, "\x08_DDN\x0d", sizeof(aml.ddn));
	append(b, &aml, sizeof(aml), 1);
	append(b, m->name, name, 1);
	append(b, &crs, sizeof(crs), 1);
}

static u64 build_ssdt(struct blob *b, u32 cpus, const struct acpi_memory *memory, u32 nr_memory)
{
	static const char hex[] = "0123456789ABCDEF";
	const struct header h = header_make("SSDT", 2);
	u32 length = (u32)(sizeof(struct aml_scope) - 1 + cpus * sizeof(struct aml_cpu));
	struct aml_scope scope = { .op = 0x10 };
	struct aml_cpu cpu = { .device = { 0x5b, 0x82 }, .length = sizeof(cpu) - 2, .name = "C" };

	set_length(scope.length, length);
	memcpy(scope.name, "\\_SB_", sizeof(scope.name));
	memcpy(cpu.hid,
	       "\x08_HID\x0d"
	       "ACPI0007",
	       sizeof(cpu.hid)); /* with the string's end */
	memcpy(cpu.uid, "\x08_UID\x0c", sizeof(cpu.uid));
	size_t at = append(b, &h, sizeof(h), 16);
	append(b, &scope, sizeof(scope), 1);
	for (u32 i = 0; i < cpus; i++) {
		cpu.name[1] = hex[i >> 8 & 0xf];
		cpu.name[2] = hex[i >> 4 & 0xf];
		cpu.name[3] = hex[i & 0xf];
		cpu.n = i;
		append(b, &cpu, sizeof(cpu), 1);
	}
	for (u32 i = 0; i < nr_memory; i++)
		add_memory(b, &memory[i], i);
	return finish(b, at);
}

/* The byte in the DSDT that says which virtio devices there are: Name (VDEV, 0xff). */
static const u8 virtio_name[] = { 0x08, 'V', 'D', 'E', 'V', 0x0a };

static u64 add_dsdt(struct blob *b, u8 virtio)
{
	struct header h;
	memcpy(&h, dsdt_aml_code, sizeof(h));
	size_t at = append(b, dsdt_aml_code, h.length, 16);
	u8 *p = b->buf + at, *end = p + h.length - sizeof(virtio_name);

	if (b->full)
		return 0;
	while (p < end && memcmp(p, virtio_name, sizeof(virtio_name)))
		p++;
	ASSERT(p < end);
	p[sizeof(virtio_name)] = virtio;
	return finish(b, at);
}

static void build_rsdp(struct blob *b, u64 xsdt)
{
	struct rsdp rsdp = { .revision = 2, .length = sizeof(rsdp), .xsdt = xsdt };
	memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
	memcpy(rsdp.oem_id, "CORBEL", sizeof(rsdp.oem_id));
	rsdp.checksum = checksum((u8 *)&rsdp, offsetof(struct rsdp, length));
	rsdp.extended_checksum = checksum((u8 *)&rsdp, sizeof(rsdp));
	memcpy(b->buf, &rsdp, sizeof(rsdp));
}

int acpi_build(u8 *buf, size_t size, u64 gpa, u32 cpus, u8 virtio, bool pm_timer,
	       const struct acpi_memory *memory, u32 nr_memory)
{
	struct blob b = { .buf = buf, .size = size, .gpa = gpa };
	struct xsdt xsdt = { .h = header_make("XSDT", 1) };

	reserve(&b, sizeof(struct rsdp), 16);
	xsdt.table[0] = build_fadt(&b, add_dsdt(&b, virtio), pm_timer);
	xsdt.table[1] = build_madt(&b, cpus);
	xsdt.table[2] = build_ssdt(&b, cpus, memory, nr_memory);
	u64 root = finish(&b, append(&b, &xsdt, sizeof(xsdt), 16));
	if (b.full)
		return -ENOSPC;
	build_rsdp(&b, root);
	return (int)b.used;
}
