# SPDX-License-Identifier: MIT
# Host tests: which sources each one links, besides itself. All run under AddressSanitizer and UBSan; those in
# TSAN_TESTS under ThreadSanitizer. The runner fails if one of them did not run.

U := tests/unit
T_LIB := lib/assert.c lib/error.c lib/grace.c lib/log.c lib/printf.c lib/spinlock.c
T_FRAMES := mm/frames.c mm/frames_init.c $(U)/host.c $(T_LIB)
T_STAGE2 := mm/audit.c mm/corruption.c mm/mappers.c mm/rmap.c mm/rmap_set.c \
	mm/stage2.c mm/stage2_entry.c mm/stage2_spaces.c mm/tables.c $(T_FRAMES)
T_VM := $(U)/fake_vm.c mm/backing.c $(patsubst %,virt/%.c,slots memfault guestmem guestwalk guestlinear) $(T_STAGE2)

T_DEV := $(U)/dev_fake.c $(patsubst %,dev/%.c,acpi ioapic kvmclock lapic lapic_io lapic_ipi lapic_timer mce pic pit \
	platform pm_timer power rtc testdev uart16550 \
	virtio virtio_blk virtio_console virtio_net virtio_rng virtq) $(B)/dsdt_aml.c \
	mm/backing.c virt/fpu.c virt/state.c virt/vcpu_state.c lib/error.c lib/printf.c lib/assert.c lib/xxh64.c

test_acpi := $(T_DEV)
T_DEBUG := $(patsubst %,debug/%.c,commands commands_cpu commands_ipi commands_irq commands_memory \
	commands_sched commands_slots commands_split commands_system commands_trace commands_vcpu commands_vm console \
	escape fields inspect lineedit monitor print status terminal vmconsole) arch/x86/trace.c svm/npt.c \
	mm/lazy.c lib/lz4.c lib/pieces.c lib/xxh64.c $(U)/debug_fake.c $(U)/host.c $(T_LIB)

test_bus := virt/bus.c $(U)/host.c $(T_LIB)
test_caps := virt/caps.c
test_config := $(CONFIG) lib/printf.c
test_console := $(T_DEBUG)
test_cpuid := virt/caps.c virt/cpuid.c virt/cpuid_allow.c $(U)/host.c $(T_LIB)
test_decode := virt/decode.c virt/decode_tables.c
test_emulate := virt/emulate.c virt/decode.c virt/decode_tables.c
test_fpu := $(U)/host.c $(T_LIB)
test_frames := $(T_FRAMES)
test_gdb := $(U)/gdb_fake.c $(patsubst %,debug/%.c,gdb gdb_memory gdb_packet gdb_regs postmortem) virt/debug.c \
	virt/decode.c virt/decode_tables.c $(T_VM)
test_guestmem := $(T_VM)
test_host_acpi := arch/x86/acpi.c lib/printf.c
test_ioapic := $(T_DEV)
test_ipi := arch/x86/ipi.c arch/x86/trace.c $(U)/host.c $(T_LIB)
test_kvmclock := $(T_DEV)
test_lapic := $(T_DEV)
T_PIECES := lib/lz4.c lib/pieces.c lib/xxh64.c
test_lazy := mm/lazy.c $(T_PIECES) $(T_VM)
test_fork := $(T_VM)
test_fork_threads := $(T_VM)
test_lib := $(U)/host.c $(T_LIB)
test_linux := $(patsubst %,virt/%.c,elf linux loader multiboot pvh start) $(T_VM)
test_loader := $(test_linux)
test_look := $(T_DEBUG)
test_mce := $(T_DEV)
test_memfault := $(T_VM)
test_memfault_threads := $(T_VM)
test_monitor := $(T_DEBUG)
test_pic := $(T_DEV)
test_mkpieces := $(T_PIECES)
test_pieces := $(T_PIECES) $(U)/host.c $(T_LIB)
test_pit := $(T_DEV)
test_posted_threads := dev/lapic.c virt/request.c $(U)/host.c $(T_LIB)
test_pic_threads := dev/pic.c $(U)/host.c $(T_LIB)
test_screen := debug/screen.c debug/escape.c $(B)/font.c
test_share := virt/share.c $(U)/host.c $(T_LIB)
test_spinlock := $(U)/host.c $(T_LIB)
test_split_lock := arch/x86/split_lock.c $(U)/split_lock_fake.c $(U)/host.c $(T_LIB)
test_split_policy := virt/split_policy.c $(T_VM)
test_split_lock_threads := $(test_split_lock)
test_stage2 := $(U)/stage2_host.c svm/npt.c vmx/ept.c $(T_STAGE2)
test_rmap := $(U)/rmap_host.c $(test_stage2)
test_audit := $(test_rmap)
test_rmap_threads := $(test_stage2)
test_mappers := $(test_stage2)
test_rmap_set := mm/rmap_set.c $(T_FRAMES)
test_stage2_model := $(test_stage2)
test_stage2_threads := $(test_stage2)
test_trace := arch/x86/trace.c $(U)/host.c $(T_LIB)
test_topology := arch/x86/topology.c $(U)/host.c $(T_LIB)
test_tsc := $(U)/host.c $(T_LIB)
test_uart := $(T_DEV)
test_task_switch := virt/task_switch.c $(T_VM)
test_vcpu_reset := virt/vcpu_reset.c $(T_VM)
test_virtio := $(U)/virtio_fake.c $(T_DEV)
test_state := $(test_virtio)
test_virtio_devices := $(test_virtio)

UNIT_TESTS := acpi audit bus caps config console cpuid decode emulate fork fpu frames gdb guestmem host_acpi \
	ioapic kvmclock lapic lazy lib linux loader look mappers mce memfault mkpieces monitor pic pieces pit rmap \
	rmap_set screen share split_policy stage2 stage2_model state task_switch topology trace uart vcpu_reset \
	virtio virtio_devices
TSAN_TESTS := fork_threads ipi memfault_threads pic_threads posted_threads rmap_threads spinlock split_lock \
	split_lock_threads stage2_threads tsc
# With CORBEL_TEST_LONG=1 these take minutes (make soak).
LONG_TESTS := rmap rmap_threads split_lock_threads stage2_model
test_libs := -lcmocka -llz4 -lxxhash -lpthread -lZydis -lZycore
$(B)/unit/memfault_threads $(B)/unit/mappers: test_libs += -Wl,--wrap=spin_lock
