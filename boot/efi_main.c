/* SPDX-License-Identifier: MIT */
/*
 * The UEFI application: reads the configuration and the files that it names, collects what the
 * hypervisor needs to know, leaves boot services and jumps to the hypervisor proper, which is
 * embedded here as an ELF image with a fixed link address.
 *
 * UEFI maps all memory one to one while we run; pages that must outlive us are EfiLoaderData.
 * Errors before ExitBootServices go to the firmware's console and back to the firmware.
 */
#include <efi.h>
#include <linux/elf.h>

#include "boot/bootinfo.h"
#include "boot/config.h"
#include "boot/handover.h"
#include "lib/log.h"
#include "lib/printf.h"
#include "lib/string.h"

extern const UINT8 corbel_elf[], corbel_elf_end[];

static EFI_SYSTEM_TABLE *st;
static EFI_BOOT_SERVICES *bs;
static struct bootinfo *info;

static EFI_STATUS fail(const char *what, EFI_STATUS status)
{
	char text[80];
	CHAR16 wide[80];
	UINTN n = 0;

	fmt_snprintf(text, sizeof(text), "corbel: %s: UEFI error %lu\r\n", what,
		     status & ~EFI_ERROR_MASK);
	do
		wide[n] = (UINT8)text[n];
	while (text[n++]);
	st->ConOut->OutputString(st->ConOut, wide);
	bs->Stall(3000000);
	return status;
}

/* Pages that stay, below `below`; 0 if there are none. */
static UINT64 keep_pages(UINTN bytes, UINT64 below)
{
	EFI_PHYSICAL_ADDRESS address = below - 1;
	UINTN pages = EFI_SIZE_TO_PAGES(bytes);

	if (EFI_ERROR(bs->AllocatePages(AllocateMaxAddress, EfiLoaderData, pages, &address)))
		return 0;
	memset((void *)address, 0, pages * EFI_PAGE_SIZE);
	return address;
}

#define ANYWHERE   (1ull << 36) /* what handover.c maps on every CPU */
#define BELOW_4G   (1ull << 32)
#define BELOW_640K 0xa0000ull

/*
 * Where the log is kept, to be found by the next boot: at the same address in every boot, so at one
 * of few, and not cleared. Firmware uses the low megabytes and the top; in between a warm reset
 * leaves memory alone on most machines.
 */
static UINT64 take_log_area(void)
{
	static const UINT8 at_mib[] = { 48, 64, 96, 128, 160, 192 };

	for (UINTN i = 0; i < sizeof(at_mib); i++) {
		EFI_PHYSICAL_ADDRESS address = at_mib[i] * MIB;

		if (!EFI_ERROR(bs->AllocatePages(AllocateAddress, EfiLoaderData,
						 EFI_SIZE_TO_PAGES(sizeof(struct log_area)),
						 &address)))
			return address;
	}
	return 0;
}

/* Size of an open file; it fails for a folder. */
static EFI_STATUS file_size(EFI_FILE_HANDLE file, UINT64 *size)
{
	EFI_GUID id = EFI_FILE_INFO_ID;
	union {
		EFI_FILE_INFO head;
		UINT8 bytes[SIZE_OF_EFI_FILE_INFO + 256 * sizeof(CHAR16)]; /* FAT's longest name */
	} buf;
	UINTN length = sizeof(buf);
	EFI_STATUS status = file->GetInfo(file, &id, &length, &buf);

	if (EFI_ERROR(status))
		return status;
	*size = buf.head.FileSize;
	return buf.head.Attribute & EFI_FILE_DIRECTORY ? EFI_NOT_FOUND : EFI_SUCCESS;
}

static EFI_STATUS read_open_file(EFI_FILE_HANDLE file, UINT64 *base, UINT64 *size)
{
	EFI_STATUS status = file_size(file, size);

	if (EFI_ERROR(status))
		return status;
	*base = keep_pages(*size ? *size : 1, ANYWHERE);
	if (!*base)
		return EFI_OUT_OF_RESOURCES;
	for (UINTN done = 0, chunk; done < *size; done += chunk) {
		chunk = *size - done;
		status = file->Read(file, &chunk, (void *)(*base + done));
		if (EFI_ERROR(status) || !chunk) { /* a short file is no file */
			bs->FreePages(*base, EFI_SIZE_TO_PAGES(*size));
			*base = 0;
			return EFI_ERROR(status) ? status : EFI_END_OF_FILE;
		}
	}
	return EFI_SUCCESS;
}

/* Read \corbel\NAME whole into pages that stay. */
static EFI_STATUS read_file(EFI_FILE_HANDLE root, const char *name, UINT64 *base, UINT64 *size)
{
	CHAR16 path[BOOT_NAME_MAX + 16] = L"\\corbel\\";
	EFI_FILE_HANDLE file;
	EFI_STATUS status;

	for (UINTN n = 8; *name && n < BOOT_NAME_MAX + 15; n++, name++)
		path[n] = *name == '/' ? L'\\' : (UINT8)*name;
	status = root->Open(root, &file, path, EFI_FILE_MODE_READ, 0);
	if (EFI_ERROR(status))
		return status;
	status = read_open_file(file, base, size);
	file->Close(file);
	return status;
}

static void no_report(void *arg, const char *line)
{
	(void)arg, (void)line; /* the hypervisor parses again and reports to its log */
}

/*
 * The configuration, and every file that it names once. A file that can't be read is the
 * hypervisor's to report.
 */
static void read_files(EFI_HANDLE device)
{
	EFI_GUID guid = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
	EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *volume;
	EFI_FILE_HANDLE root;
	struct config *config; /* 40 KiB: not in the file, and not for longer than this */
	struct config_sink sink = { "corbel.conf", no_report, NULL };
	struct config_file file;
	struct boot_module *m;
	u32 pos = 0;

	if (EFI_ERROR(bs->HandleProtocol(device, &guid, (VOID **)&volume)) ||
	    EFI_ERROR(volume->OpenVolume(volume, &root)) ||
	    EFI_ERROR(bs->AllocatePool(EfiBootServicesData, sizeof(*config), (VOID **)&config)))
		return;
	if (EFI_ERROR(read_file(root, "corbel.conf", &info->config, &info->config_size)))
		info->config = info->config_size = 0;
	config_parse(config, (const char *)info->config, info->config_size, &sink);
	while (config_next_file(config, &pos, &file)) {
		if (file.again)
			continue;
		m = &info->modules[info->module_count++];
		memcpy(m->name, file.name, strnlen(file.name, BOOT_NAME_MAX - 1));
		m->status = read_file(root, file.name, &m->base, &m->size) & ~EFI_ERROR_MASK;
	}
}

/* LoadOptions are UCS-2; what isn't ASCII can't be a setting. */
static void read_options(EFI_LOADED_IMAGE *loaded)
{
	CONST CHAR16 *text = loaded->LoadOptions;
	UINTN n = loaded->LoadOptionsSize / sizeof(CHAR16);

	for (UINTN i = 0; text && i < n && i < sizeof(info->options) - 1 && text[i]; i++)
		info->options[i] = text[i] < 0x7f && text[i] >= 0x20 ? (char)text[i] : ' ';
}

/* The table with this GUID that the firmware left, or 0. */
static UINT64 find_table(EFI_GUID guid)
{
	for (UINTN i = 0; i < st->NumberOfTableEntries; i++)
		if (!memcmp(&st->ConfigurationTable[i].VendorGuid, &guid, sizeof(guid)))
			return (UINT64)st->ConfigurationTable[i].VendorTable;
	return 0;
}

static void find_tables(void)
{
	info->rsdp = find_table((EFI_GUID)ACPI_20_TABLE_GUID);
	if (!info->rsdp)
		info->rsdp = find_table((EFI_GUID)ACPI_TABLE_GUID);
	info->smbios = find_table((EFI_GUID)SMBIOS_TABLE_GUID);
}

static void find_framebuffer(void)
{
	EFI_GUID guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
	EFI_GRAPHICS_OUTPUT_PROTOCOL *gop;
	EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode;

	if (EFI_ERROR(bs->LocateProtocol(&guid, NULL, (VOID **)&gop)) || !gop->Mode ||
	    !gop->Mode->Info)
		return;
	mode = gop->Mode->Info;
	if (mode->PixelFormat != PixelBlueGreenRedReserved8BitPerColor &&
	    mode->PixelFormat != PixelRedGreenBlueReserved8BitPerColor)
		return;
	info->fb.base = gop->Mode->FrameBufferBase;
	info->fb.size = gop->Mode->FrameBufferSize;
	info->fb.width = mode->HorizontalResolution;
	info->fb.height = mode->VerticalResolution;
	info->fb.stride = mode->PixelsPerScanLine;
	info->fb.bgr = mode->PixelFormat == PixelBlueGreenRedReserved8BitPerColor;
}

/* UEFI time to seconds since 1970 (civil-from-days, proleptic Gregorian). */
static void read_clock(void)
{
	EFI_TIME t;
	INT64 y, era, day;

	if (EFI_ERROR(st->RuntimeServices->GetTime(&t, NULL)) || t.Year < 1998 || t.Month < 1 ||
	    t.Month > 12)
		return;
	y = t.Month <= 2 ? t.Year - 1 : t.Year;
	era = y / 400;
	day = (153 * (t.Month + (t.Month > 2 ? -3 : 9)) + 2) / 5 + t.Day - 1;
	day += (y - era * 400) * 365 + (y - era * 400) / 4 - (y - era * 400) / 100 + era * 146097 -
	       719468;
	info->wall_seconds = (((UINT64)day * 24 + t.Hour) * 60 + t.Minute) * 60 + t.Second;
	if (t.TimeZone != EFI_UNSPECIFIED_TIMEZONE)
		info->wall_seconds += (UINT64)((INT64)t.TimeZone * 60);
}

/*
 * Copy the PT_LOAD segments to one piece of memory below 4 GiB (its root page table must be
 * reachable from 32-bit code).
 */
static EFI_STATUS load_image(UINT64 *entry, UINT64 *link_base)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)corbel_elf;
	const Elf64_Phdr *ph = (const Elf64_Phdr *)(corbel_elf + eh->e_phoff);
	UINT64 low = ~0ull, high = 0;

	for (int i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type != PT_LOAD)
			continue;
		low = ph[i].p_vaddr < low ? ph[i].p_vaddr : low;
		high = ph[i].p_vaddr + ph[i].p_memsz > high ? ph[i].p_vaddr + ph[i].p_memsz : high;
	}
	info->image_size = high - low;
	info->image_base = keep_pages(info->image_size, BELOW_4G);
	if (!info->image_base)
		return EFI_OUT_OF_RESOURCES;
	for (int i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD)
			memcpy((void *)(info->image_base + ph[i].p_vaddr - low),
			       corbel_elf + ph[i].p_offset, ph[i].p_filesz);
	*entry = eh->e_entry;
	*link_base = low;
	return EFI_SUCCESS;
}

/*
 * Leave boot services. The map may change between reading it and leaving (an event of the
 * firmware): read it again and retry, as the specification asks; nothing else may be called in
 * between.
 */
static EFI_STATUS leave_firmware(EFI_HANDLE image)
{
	UINTN capacity = 64 * KIB, size, key, descriptor;
	UINT32 version;
	EFI_STATUS status;

	info->memory_map = keep_pages(capacity, ANYWHERE);
	if (!info->memory_map)
		return fail("no memory for the memory map", EFI_OUT_OF_RESOURCES);
	for (int tries = 0; tries < 8; tries++) {
		size = capacity;
		status = bs->GetMemoryMap(&size, (EFI_MEMORY_DESCRIPTOR *)info->memory_map, &key,
					  &descriptor, &version);
		if (EFI_ERROR(status))
			break;
		info->memory_map_size = size;
		info->memory_descriptor_size = descriptor;
		status = bs->ExitBootServices(image, key);
		if (!EFI_ERROR(status))
			return EFI_SUCCESS;
	}
	return fail("ExitBootServices", status);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
	UINT64 start = handover_tsc(), entry = 0, link_base = 0, root;
	EFI_GUID loaded_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
	EFI_LOADED_IMAGE *loaded;
	EFI_STATUS status;

	st = system;
	bs = system->BootServices;
	bs->SetWatchdogTimer(0, 0, 0, NULL);
	info = (struct bootinfo *)keep_pages(sizeof(*info), ANYWHERE);
	if (!info)
		return fail("no memory", EFI_OUT_OF_RESOURCES);
	info->magic = BOOTINFO_MAGIC;
	info->size = sizeof(*info);
	info->tsc_start = start;
	info->log_area = take_log_area();
	status = bs->HandleProtocol(image, &loaded_guid, (VOID **)&loaded);
	if (EFI_ERROR(status))
		return fail("LoadedImage protocol", status);
	read_options(loaded);
	read_files(loaded->DeviceHandle);
	find_tables();
	find_framebuffer();
	read_clock();
	status = load_image(&entry, &link_base);
	if (EFI_ERROR(status))
		return fail("no memory below 4 GiB for the hypervisor", status);
	info->trampoline = keep_pages(EFI_PAGE_SIZE, BELOW_640K);
	root = handover_tables(keep_pages, link_base, info->image_base, info->image_size);
	if (!root)
		return fail("no memory for page tables", EFI_OUT_OF_RESOURCES);
	status = leave_firmware(image);
	if (EFI_ERROR(status))
		return status;
	handover_jump(root, entry, HANDOVER_DIRECTMAP + (UINTN)info);
}
