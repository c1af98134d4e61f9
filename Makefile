# SPDX-License-Identifier: MIT
# make help says what there is. Everything that is made goes to build/.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:

.DEFAULT_GOAL := all

# 1: a Corbel that misbehaves as its command line says (docs/TESTING.md).
FAULTS ?= 0
# 1: checks that cost time, and an audit of each VM that ends.
PROVE_MMU ?= 0
B := build$(if $(filter 1,$(PROVE_MMU)),/prove)$(if $(filter 1,$(FAULTS)),/faults)
# make Q= shows the commands.
Q := @
# 1: count what exits cost (tests/bench).
EXIT_COST ?= 0

CC := gcc
NASM := nasm
PYTHON := python3

WARN := -Wall -Wextra -Werror -Wundef -Wstrict-prototypes -Wmissing-prototypes
CFLAGS := -std=gnu17 -g -ffreestanding -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fno-pic -fno-pie \
	-fno-stack-protector -fno-omit-frame-pointer -fno-asynchronous-unwind-tables -fcf-protection=none \
	-fno-strict-aliasing -ffunction-sections -fdata-sections \
	-DPROVE_MMU=$(PROVE_MMU) -DEXIT_COST=$(EXIT_COST) -DFAULTS=$(FAULTS) -I. -I$(B) $(WARN)
LDFLAGS := -n -nostdlib -static --gc-sections -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments -T linker.ld

# The hypervisor proper, by layer.
CONFIG := boot/config.c boot/config_files.c boot/config_keys.c boot/config_text.c
OBJS := boot/entry.asm boot/trampoline.asm $(CONFIG) boot/machine.c boot/main.c \
	boot/vms.c \
	debug/backtrace.c debug/commands.c debug/commands_cpu.c debug/commands_ipi.c debug/commands_irq.c \
	debug/commands_memory.c debug/commands_sched.c debug/commands_slots.c debug/commands_split.c \
	debug/commands_system.c debug/commands_trace.c debug/commands_vcpu.c debug/commands_vm.c debug/console.c \
	debug/crash.c debug/dump.c debug/escape.c debug/fields.c debug/gdb.c debug/gdb_line.c debug/gdb_memory.c \
	debug/gdb_packet.c debug/gdb_regs.c debug/inspect.c debug/keyboard.c debug/lineedit.c debug/monitor.c \
	debug/postmortem.c debug/print.c debug/screen.c debug/status.c debug/terminal.c debug/vmconsole.c \
	debug/watchdog.c \
	dev/acpi.c dev/ioapic.c dev/kvmclock.c dev/lapic.c dev/lapic_io.c dev/lapic_ipi.c dev/lapic_timer.c \
	dev/mce.c dev/pic.c dev/pit.c dev/platform.c dev/pm_timer.c dev/power.c dev/rtc.c dev/testdev.c \
	dev/uart16550.c \
	dev/virtio.c dev/virtio_blk.c dev/virtio_console.c dev/virtio_net.c dev/virtio_rng.c dev/virtq.c \
	svm/caps.c svm/cpu.c svm/entry.asm svm/exit.c svm/npt.c svm/ops.c svm/regs.c svm/run.c svm/step.c svm/tlb.c \
	svm/vcpu.c \
	vmx/apicv.c vmx/caps.c vmx/cpu.c vmx/dump.c vmx/entry.asm vmx/ept.c vmx/exit.c vmx/ops.c vmx/regs.c vmx/run.c \
	vmx/switched.c vmx/tlb.c vmx/vcpu.c \
	virt/bus.c virt/caps.c virt/corruption.c virt/cpuid.c virt/cpuid_allow.c virt/cr.c virt/debug.c virt/decode.c \
	virt/decode_tables.c virt/elf.c virt/emulate.c virt/enable.c virt/exits.c virt/fpu.c virt/guestlinear.c \
	virt/guestmem.c virt/guestwalk.c virt/hotplug.c virt/linux.c virt/loader.c virt/mmio.c virt/msr.c \
	virt/memfault.c virt/multiboot.c virt/pvh.c virt/sched.c virt/share.c virt/slots.c virt/split_policy.c \
	virt/request.c virt/start.c virt/state.c virt/task_switch.c virt/vcpu.c virt/vcpu_reset.c virt/vcpu_state.c \
	virt/vm.c \
	mm/audit.c mm/backing.c mm/corruption.c mm/frames.c mm/frames_init.c mm/hostmap.c mm/lazy.c mm/mappers.c \
	mm/rmap.c mm/rmap_set.c \
	mm/stage2.c mm/stage2_entry.c mm/stage2_spaces.c mm/tables.c \
	arch/x86/acpi.c arch/x86/apic.c arch/x86/clock.c arch/x86/cpu.c arch/x86/desc.c arch/x86/ioapic.c \
	arch/x86/ipi.c arch/x86/power.c arch/x86/serial.c arch/x86/smp.c arch/x86/split_lock.c arch/x86/timer.c \
	arch/x86/topology.c arch/x86/trace.c arch/x86/traps.asm arch/x86/traps.c arch/x86/tsc.c \
	lib/assert.c lib/error.c lib/grace.c lib/log.c lib/lz4.c lib/memory.c lib/pieces.c lib/printf.c lib/spinlock.c \
	lib/string.c lib/xxh64.c
OBJS += $(if $(filter 1,$(FAULTS)),tests/faults/inject.c tests/faults/poke.c)
GENERATED := $(B)/font.o $(B)/dsdt_aml.o
OBJECTS := $(patsubst %,$(B)/%.o,$(OBJS)) $(GENERATED)

ON ?= qemu
CPUS ?= 2
MEMORY ?= 1024
KERNEL ?= $(B)/guest/vmlinuz
INITRD ?= $(B)/guest/initrd.gz
CMDLINE ?= console=ttyS0 quiet cryptomgr.notests reboot=a
JOBS ?= $(shell nproc)

# Making the tools available comes first, by an own make: what they make possible can't be known before.
DEPS_WANTED := $(strip $(if $(filter run usb bench,$(MAKECMDGOALS)),build run) \
	$(if $(filter test system prove unit soak fuzz,$(MAKECMDGOALS)),build \
	test check) $(if $(filter check,$(MAKECMDGOALS)),build check) $(if $(filter gdb,$(MAKECMDGOALS)),debug) \
	$(if $(filter mkpieces bench,$(MAKECMDGOALS)),pieces) \
	$(if $(MAKECMDGOALS),$(if $(filter all,$(MAKECMDGOALS)),build),build))
ifneq ($(DEPS_WANTED),)
DEPS_DONE := $(shell tools/deps $(sort $(DEPS_WANTED)) >&2 && echo ok)
ifneq ($(DEPS_DONE),ok)
$(error packages are missing: see above)
endif
endif

.PHONY: help
help:
	@echo 'make run      build, get a Debian kernel and busybox, boot them on Corbel in an emulator'
	@echo '              ON=qemu|bochs CPUS=n MEMORY=MiB KERNEL=file INITRD=file CMDLINE=text'
	@echo 'make test     everything: check, unit, system; ends with "N passed, M failed"'
	@echo 'make usb      build/corbel.img, to be written to a USB stick with dd'
	@echo 'make          build/corbel.efi and build/corbel.elf'
	@echo 'make check    format, layers, ownership, static analysis'
	@echo 'make unit     host tests with sanitizers        make system  images on the emulators (ONLY=pattern)'
	@echo 'make bench    build/bench.json                  make soak    long runs'
	@echo 'make prove    as make system, with PROVE_MMU=1: every VM is audited when it ends'
	@echo 'make gdb      gdb on the QEMU of a "make run GDB=1"'
	@echo 'make clean'

.PHONY: all clean
all: $(B)/corbel.efi

# Small by default, fast where a guest waits: the exit path, the page tables, the devices that it meets there.
HOT := $(filter svm/% vmx/% mm/% dev/lapic% dev/ioapic.c dev/platform.c dev/uart16550.c dev/virtq.c lib/grace.c \
	lib/spinlock.c arch/x86/timer.c arch/x86/apic.c arch/x86/trace.c virt/bus.c virt/cpuid.c virt/exits.c \
	virt/guestwalk.c virt/guestlinear.c virt/guestmem.c virt/memfault.c virt/msr.c virt/request.c virt/sched.c \
	virt/vcpu.c, \
	$(filter-out %/caps.c %/cpu.c %/dump.c %/step.c %_init.c mm/hostmap.c mm/audit.c mm/corruption.c \
	mm/frames.c mm/rmap_set.c mm/tables.c,$(OBJS)))
$(patsubst %,$(B)/%.o,$(HOT)): OPT := -O2
OPT := -Os

$(B)/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$Q$(CC) $(CFLAGS) $(OPT) -MMD -MP -c $< -o $@
$(B)/%.asm.o: %.asm
	@mkdir -p $(@D)
	@echo "  NASM    $<"
	$Q$(NASM) -f elf64 -g -F dwarf $< -o $@

# The DSDT of guests.
$(B)/dsdt_aml.c: dev/dsdt.asl
	@mkdir -p $(B)
	$Qcd $(B) && iasl -ve -tc -p dsdt $(CURDIR)/$< >iasl.log 2>&1 || { cat iasl.log; exit 1; }
	$Qsed 's/^unsigned char/const unsigned char/' $(B)/dsdt.hex >$@
$(B)/dsdt_aml.o: $(B)/dsdt_aml.c
	$Q$(CC) $(CFLAGS) -c $< -o $@

# The screen's font.
FONT ?= /usr/share/consolefonts/Lat15-VGA16.psf.gz
$(B)/font.c: tools/psf2c $(FONT)
	@mkdir -p $(B)
	$Q$(PYTHON) tools/psf2c $(FONT) >$@
$(B)/font.o: $(B)/font.c
	$Q$(CC) $(CFLAGS) -c $< -o $@

# Linked twice: the symbols of the first make the second's table for backtraces, and no address moves (linker.ld).
$(B)/corbel1.elf: $(OBJECTS) linker.ld
	$Qld $(LDFLAGS) -o $@ $(OBJECTS)
$(B)/ksyms.S: $(B)/corbel1.elf tools/ksyms
	$Q$(PYTHON) tools/ksyms $< >$@
$(B)/ksyms.o: $(B)/ksyms.S
	$Q$(CC) -c $< -o $@
$(B)/corbel.elf: $(B)/ksyms.o
	@echo "  LD      $@"
	$Qld $(LDFLAGS) -o $@ $(OBJECTS) $<
	@nm $(B)/corbel1.elf | grep -i ' [td] ' | grep -v ksyms_ >$(B)/corbel1.nm
	@nm $@ | grep -i ' [td] ' | grep -v ksyms_ | cmp - $(B)/corbel1.nm || \
		{ echo "the second link moved symbols"; exit 1; }
$(B)/corbel.stripped: $(B)/corbel.elf
	$Qobjcopy --strip-all $< $@

# The UEFI application.
EFI_INC := /usr/include/efi
EFI_CFLAGS := -std=gnu17 -Os -fpic -fvisibility=hidden -fno-asynchronous-unwind-tables -fshort-wchar -ffreestanding \
	-fno-stack-protector -mno-red-zone -maccumulate-outgoing-args -fcf-protection=none -fno-strict-aliasing \
	-DGNU_EFI_USE_MS_ABI -DPROVE_MMU=0 -I. \
	-isystem $(EFI_INC) -isystem $(EFI_INC)/x86_64 -Wall -Wextra -Werror
EFI_OBJS := $(patsubst %,$(B)/efi/%.o,boot/efi_main.c boot/handover.c $(CONFIG) \
	lib/memory.c lib/printf.c lib/string.c)
$(B)/efi/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $< (loader)"
	$Q$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@
$(B)/efi/blob.o: $(B)/corbel.stripped
	@mkdir -p $(@D)
	$Qprintf '%s\n' '.section .rodata' '.globl corbel_elf, corbel_elf_end' '.balign 16' \
		'corbel_elf: .incbin "$<"' 'corbel_elf_end:' | $(CC) -x assembler - -c -o $@
$(B)/corbel.so: $(EFI_OBJS) $(B)/efi/blob.o
	$Qld -nostdlib -znocombreloc -shared -Bsymbolic -z noexecstack -T /usr/lib/elf_x86_64_efi.lds \
		/usr/lib/crt0-efi-x86_64.o $^ -o $@ -L/usr/lib -lgnuefi
	@! nm -u $@ | grep .
$(B)/corbel.efi: $(B)/corbel.so
	@echo "  EFI     $@"
	$Qobjcopy --strip-all -j .text -j .sdata -j .data -j .rodata -j .dynamic -j .dynsym -j .rel -j .rela \
		-j '.rel.*' -j '.rela.*' -j .reloc --target efi-app-x86_64 --subsystem=10 $< $@

# Host programs: the same sources with sanitizers.
HOST_CFLAGS := -std=gnu17 -O1 -g -DCORBEL_HOST -DPROVE_MMU=1 -I. -I$(B) -Wall -Wextra -Werror
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=all
TSAN := -fsanitize=thread
$(B)/host/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  HOSTCC  $<"
	$Q$(CC) $(HOST_CFLAGS) $(ASAN) -MMD -MP -c $< -o $@
$(B)/host/$(B)/%.c.o: $(B)/%.c
	@mkdir -p $(@D)
	@echo "  HOSTCC  $<"
	$Q$(CC) $(HOST_CFLAGS) $(ASAN) -c $< -o $@
$(B)/tsan/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  HOSTCC  $<"
	$Q$(CC) $(HOST_CFLAGS) $(TSAN) -MMD -MP -c $< -o $@
CONFCHECK := $(patsubst %,$(B)/host/%.o,tools/confcheck.c $(CONFIG) lib/printf.c)
$(B)/host/confcheck: $(CONFCHECK)
	$Q$(CC) $(ASAN) $^ -o $@
.PHONY: mkpieces
mkpieces: $(B)/host/mkpieces
$(B)/host/mkpieces: $(patsubst %,$(B)/host/%.o,tools/mkpieces.c lib/lz4.c lib/pieces.c lib/xxh64.c)
	$Q$(CC) $(ASAN) $^ -o $@ -llz4

# Unit tests.
include tests/unit/tests.mk
define unit_test
$(B)/unit/$(1): $(patsubst %,$(B)/$(2)/%.o,tests/unit/$(1)_test.c $(test_$(1)))
	@mkdir -p $$(@D)
	$Q$$(CC) $(3) $$^ -o $$@ $$(test_libs)
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call unit_test,$(t),host,$(ASAN))))
$(foreach t,$(TSAN_TESTS),$(eval $(call unit_test,$(t),tsan,$(TSAN))))
.PHONY: unit
unit: $(patsubst %,$(B)/unit/%,$(UNIT_TESTS) $(TSAN_TESTS))
	tests/unit/run $(B)/unit $(UNIT_TESTS) $(TSAN_TESTS)
include tests/fuzz/fuzz.mk

# What the sources and the image have to satisfy.
.PHONY: check
check: $(B)/corbel.efi
	@tests/check/run --build $(B) --cflags '$(CFLAGS)' -j $(JOBS) --results $(B)/check.results

# Images and emulators.
.PHONY: guest guest-kernels bochs usb run gdb system test
guest:
	@tools/get-guest $(B)/guest
guest-kernels: guest
	@tools/get-guest --kernel newest $(B)/guest
	@tools/get-guest --kernel 6.12 $(B)/guest
	-@tools/get-guest --kernel 6.18 $(B)/guest
bochs:
	@tools/get-bochs $(B)/bochs
$(B)/run.conf: FORCE
	@mkdir -p $(B)
	@printf '%s\n' '# Made by make usb and make run.' '[corbel]' 'when_idle = monitor' 'attach = linux' \
		'[vm linux]' 'kernel = $(notdir $(KERNEL))' $(if $(INITRD),'initrd = $(notdir $(INITRD))') \
		'cmdline = $(CMDLINE)' 'memory = 256M' >$@.new
	@cmp -s $@ $@.new && rm $@.new || mv $@.new $@
.PHONY: FORCE
FORCE:
# Tiny guests, a folder each.
TINY_GUESTS := $(patsubst tests/guest/%/main.asm,$(B)/tiny/%,$(wildcard tests/guest/*/main.asm))
$(B)/tiny/%: tests/guest/%/main.asm $(wildcard tests/guest/*.inc tests/guest/*/*.inc)
	@mkdir -p $(@D)
	$Q$(NASM) -f bin -Itests/guest/ $< -o $@
# Guest tests, a folder each: all its .c and .asm files, and tests/guest/lib.
GUEST_CFLAGS := $(filter-out -mcmodel=kernel -DPROVE_MMU=% -DEXIT_COST=% -DFAULTS=%,$(CFLAGS)) -O2 -mcmodel=small \
	-fno-toplevel-reorder -DPROVE_MMU=0 -DFAULTS=0
guest_objects = $(patsubst %,$(B)/guest-tests/%.o,$(wildcard $(1)/*.c $(1)/*.asm))
GUEST_LIB := $(call guest_objects,tests/guest/lib) $(patsubst %,$(B)/guest-tests/%.c.o,lib/printf lib/string lib/memory)
GUEST_TESTS := $(patsubst tests/guest/%/main.c,%,$(wildcard tests/guest/*/main.c))
define guest_test
$(B)/tiny/$(1): $(call guest_objects,tests/guest/$(1)) $(GUEST_LIB) tests/guest/lib/image.ld
	@mkdir -p $$(@D)
	$$Qld -n -nostdlib -static --gc-sections -z max-page-size=4096 --no-warn-rwx-segments \
		-T tests/guest/lib/image.ld $$(sort $$(filter %.o,$$^)) -o $$@
endef
$(foreach t,$(GUEST_TESTS),$(eval $(call guest_test,$(t))))
TINY_GUESTS += $(patsubst %,$(B)/tiny/%,$(GUEST_TESTS))
$(B)/guest-tests/%.c.o: %.c
	@mkdir -p $(@D)
	$Q$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@
$(B)/guest-tests/%.asm.o: %.asm $(wildcard tests/guest/lib/*.inc)
	@mkdir -p $(@D)
	$Q$(NASM) -f elf64 -g -F dwarf -Itests/guest/ $< -o $@
# One with symbols, for gdb: an ELF file with DWARF.
$(B)/tiny/gdb: tests/guest/gdb/main.asm
	@mkdir -p $(@D) $(B)/tiny.o
	$Q$(NASM) -f elf64 -g -F dwarf -w-number-overflow $< -o $(B)/tiny.o/gdb.o
	$Qld -n -Ttext=0x1000000 -z noexecstack --no-warn-rwx-segments -e start -o $@ $(B)/tiny.o/gdb.o
usb: $(B)/corbel.efi $(B)/run.conf guest
	@tools/mkusb -c $(B)/run.conf -o $(B)/corbel.img $(KERNEL) $(INITRD)
	@echo "$(B)/corbel.img is ready: dd if=$(B)/corbel.img of=/dev/sdX bs=1M conv=fsync"
run: usb $(if $(filter bochs,$(ON)),bochs)
	@echo 'Ctrl-] goes from the guest to the monitor (help), Ctrl-A x leaves the emulator.'
	@tools/emu --on $(ON) --cpus $(CPUS) --memory $(MEMORY) \
		$(if $(GDB),--qemu-arg -gdb --qemu-arg tcp:localhost:1234) $(B)/corbel.img
gdb: $(B)/corbel.elf
	gdb -q $(B)/corbel.elf -ex 'target remote localhost:1234'
# The Corbel of tests/system/faults.py.
.PHONY: faults
faults:
	@$(MAKE) B=$(B)/faults FAULTS=1 $(B)/faults/corbel.efi
system: $(B)/corbel.efi $(B)/host/mkpieces faults guest bochs $(TINY_GUESTS)
	@tests/system/run -j $(JOBS) --build $(B) --results $(B)/system.results $(if $(ONLY),--only '$(ONLY)')

# The same with Corbels that check more, and audit each VM when it ends.
.PHONY: prove
prove: guest bochs $(B)/host/mkpieces $(TINY_GUESTS)
	@$(MAKE) B=$(B)/prove PROVE_MMU=1 $(B)/prove/corbel.efi
	@$(MAKE) B=$(B)/prove/faults PROVE_MMU=1 FAULTS=1 $(B)/prove/faults/corbel.efi
	@tests/system/run --prove -j $(JOBS) --build $(B) $(if $(ONLY),--only '$(ONLY)')

# What it costs, in instructions: docs/BENCHMARKS.md. The boot of Linux is measured with a Corbel that counts for it.
STAGE2_BENCH := $(patsubst %,$(B)/bench/host/%.o,tests/bench/stage2_bench.c tests/unit/host.c mm/audit.c \
	mm/corruption.c mm/frames.c mm/frames_init.c mm/rmap.c mm/rmap_set.c mm/stage2.c mm/stage2_entry.c \
	mm/stage2_spaces.c mm/tables.c svm/npt.c vmx/ept.c lib/assert.c lib/error.c lib/grace.c lib/log.c lib/printf.c \
	lib/spinlock.c)
$(B)/bench/host/%.c.o: %.c
	@mkdir -p $(@D)
	$Q$(CC) $(HOST_CFLAGS) -O2 -UPROVE_MMU -DPROVE_MMU=0 -MMD -MP -c $< -o $@
$(B)/bench/stage2: $(STAGE2_BENCH)
	$Q$(CC) -Wl,--wrap=spin_lock $^ -o $@ -lpthread
$(B)/bench/memfault: $(patsubst %,$(B)/bench/host/%.o,tests/bench/memfault_bench.c $(T_VM))
	$Q$(CC) -Wl,--wrap=spin_lock $^ -o $@ -lpthread
$(B)/bench/fork: $(patsubst %,$(B)/bench/host/%.o,tests/bench/fork_bench.c $(T_VM))
	$Q$(CC) $^ -o $@ -lpthread
.PHONY: bench
bench: $(B)/corbel.efi $(B)/bench/stage2 $(B)/bench/memfault $(B)/bench/fork missing $(B)/host/mkpieces \
		$(B)/tiny/large-leaf $(B)/tiny/split-lock $(B)/tiny/busy faults guest bochs split-qemu
	@$(MAKE) B=$(B)/cost EXIT_COST=1 $(B)/cost/corbel.efi
	@tests/bench/run --build $(B)

# The same objects, linked to a pager and to a count of locks.
.PHONY: missing
missing: $(B)/corbel.efi $(B)/tests/bench/pager.c.o
	@$(MAKE) B=$(B)/missing OBJECTS='$(OBJECTS) $(B)/tests/bench/pager.c.o' \
		LDFLAGS='$(LDFLAGS) --wrap=spin_lock --wrap=lazy_attach' $(B)/missing/corbel.efi

# A QEMU that detects split locks, for the tests that need one: docs/SPLIT_LOCK.md. Takes minutes.
.PHONY: split-qemu
split-qemu:
	@tools/get-split-qemu $(B)/split-qemu
soak: $(B)/corbel.efi $(B)/host/mkpieces faults guest guest-kernels bochs split-qemu $(TINY_GUESTS) \
		$(patsubst %,$(B)/unit/%,$(LONG_TESTS)) $(B)/fuzz/stage2
	@for test in $(LONG_TESTS); do CORBEL_TEST_LONG=1 $(B)/unit/$$test || exit 1; done
	@tests/fuzz/run $(B)/fuzz 600 stage2
	@tests/system/run --soak -j $(JOBS) --build $(B) --results $(B)/soak.results
.PHONY: soak

# Everything, whatever fails in between; the last line counts.
test: $(B)/corbel.efi $(B)/host/mkpieces faults guest bochs $(TINY_GUESTS)
	@tests/all $(B) $(JOBS)

clean:
	rm -rf $(B)

-include $(shell find $(B) -path $(B)/bochs -prune -o -path $(B)/guest -prune -o -type f -name '*.d' -print 2>/dev/null)
