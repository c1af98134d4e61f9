#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""split_lock.py SOURCES: teach QEMU's TCG split-lock detection, in the unpacked sources of QEMU 7.2.

The x86 CPU gets MSR_TEST_CTRL (0x33), one register for all threads of a core, with bits 28, 29 and 31; all others are
#GP. IA32_CORE_CAPABILITIES (0xcf) says so by its bit 5, and CPUID.7.0:EDX[30] that it is there. While bit 29 is set, a
locked access that crosses a cache line is #AC(0), whatever CR0.AM, EFLAGS.AC and CPL are. That needs several CPUs and
-accel tcg,thread=multi: otherwise TCG's locked accesses are plain ones.

A guest under SVM whose VMCB asks for it exits instead of such an access once its bus-lock counter is used up (CPUID
8000_000A:EDX[29], exit code 0xa5); -cpu MODEL,bus-lock-threshold=off takes that away. DEBUGCTL is a register of each
CPU, of 16 bits that do nothing; the environment's DEBUGCTL is what the firmware left there.

-cpu MODEL,core-capability=off or ,split-lock-detect=off takes it away again. With -d guest_errors each write of the
register is logged: "TEST_CTRL cpu 1 core 0 20000000 rip ffffffff80001234"; of DEBUGCTL: "DEBUGCTL cpu 1 0". The
environment's TEST_CTRL (a number) is what the firmware left in the register of each core.

Exit status 1 if the sources look different.
"""
import sys


# File, text that must stand there once, what is put behind it (or, with "replace", in its place).
EDITS = (
    ("accel/tcg/cputlb.c", '#include "tcg/tcg-ldst.h"\n', "behind", """
#ifdef TARGET_I386
/* Split-lock detection: a locked access across cache lines, while the core's MSR_TEST_CTRL has bit 29 set. */
uint64_t *x86_test_ctrl(CPUState *cs);
G_NORETURN void raise_exception_err_ra(CPUX86State *env, int vector, int error, uintptr_t retaddr);

G_NORETURN void cpu_vmexit(CPUX86State *env, uint32_t exit_code, uint64_t exit_info_1, uintptr_t retaddr);

/* The VMCB's intercept 0x14, bit 5, and its counter at 0x120; an attempt before which an interrupt comes counts too. */
static void x86_count_bus_lock(CPUX86State *env, uintptr_t retaddr)
{
    CPUState *cs = env_cpu(env);
    uint16_t left;

    if (!(x86_ldl_phys(cs, env->vm_vmcb + 0x14) >> 5 & 1)) {
        return;
    }
    left = x86_lduw_phys(cs, env->vm_vmcb + 0x120);
    if (!left) {
        cpu_vmexit(env, 0xa5, 0, retaddr);
    }
    x86_stw_phys(cs, env->vm_vmcb + 0x120, left - 1);
}

static void x86_check_split_lock(CPUArchState *env, target_ulong addr, int size, uintptr_t retaddr)
{
    if ((addr & 63) + size > 64 && qatomic_read(x86_test_ctrl(env_cpu(env))) >> 29 & 1) {
        raise_exception_err_ra(env, EXCP11_ALGN, 0, retaddr);
    }
    if ((addr & 63) + size > 64 && env->hflags & HF_GUEST_MASK) {
        x86_count_bus_lock(env, retaddr);
    }
}
#else
#define x86_check_split_lock(env, addr, size, retaddr) ((void)0)
#endif
"""),
    ("accel/tcg/cputlb.c", "    if (unlikely(addr & (size - 1))) {\n        /* We get here if guest alignment was not",
     "replace", """    if (unlikely(addr & (size - 1))) {
        x86_check_split_lock(env, addr, size, retaddr);
        /* We get here if guest alignment was not"""),
    ("target/i386/cpu.c", "#define TCG_7_0_EDX_FEATURES 0\n", "replace",
     "#define TCG_7_0_EDX_FEATURES CPUID_7_0_EDX_CORE_CAPABILITY\n"),
    ("target/i386/cpu.c", "          CPUID_SVM_SVME_ADDR_CHK)\n", "replace",
     "          CPUID_SVM_SVME_ADDR_CHK | 1u << 29)\n"),
    ("target/i386/cpu.c", '            "svme-addr-chk", NULL, NULL, NULL,\n', "replace",
     '            "svme-addr-chk", "bus-lock-threshold", NULL, NULL,\n'),
    ("target/i386/cpu.c", """            .index = MSR_IA32_CORE_CAPABILITY,
        },
""", "behind", "        .tcg_features = 1u << 5,\n"),
    ("target/i386/tcg/sysemu/misc_helper.c", "void helper_wrmsr(CPUX86State *env)\n", "before", """
#define MSR_TEST_CTRL 0x33
#define MSR_DEBUGCTL 0x1d9
#define TEST_CTRL_BITS (1ull << 28 | 1ull << 29 | 1ull << 31)

/* What a register holds at first comes from the environment. */
static void from_environment(const char *name, uint64_t *registers)
{
    const char *initial = getenv(name);

    for (unsigned i = 0; initial && i < 1024; i++) {
        registers[i] = strtoull(initial, NULL, 0);
    }
}

static uint64_t *x86_debugctl(CPUState *cs)
{
    static uint64_t registers[1024];
    static bool ready;

    if (!qatomic_load_acquire(&ready)) {
        from_environment("DEBUGCTL", registers);
        qatomic_store_release(&ready, true);
    }
    return &registers[cs->cpu_index % 1024];
}

/* One for each core. */
uint64_t *x86_test_ctrl(CPUState *cs);
uint64_t *x86_test_ctrl(CPUState *cs)
{
    static uint64_t registers[1024];
    static bool ready;

    if (!qatomic_load_acquire(&ready)) {
        from_environment("TEST_CTRL", registers);
        qatomic_store_release(&ready, true);
    }
    return &registers[cs->cpu_index / MAX(cs->nr_threads, 1) % ARRAY_SIZE(registers)];
}

static bool has_split_lock(CPUX86State *env)
{
    return env->features[FEAT_CORE_CAPABILITY] & (1u << 5);
}

"""),
    ("target/i386/tcg/sysemu/misc_helper.c", """    case MSR_IA32_SYSENTER_CS:
        env->sysenter_cs = val & 0xffff;
""", "before", """    case MSR_TEST_CTRL:
        if (!has_split_lock(env) || val & ~TEST_CTRL_BITS) {
            goto error;
        }
        qatomic_set(x86_test_ctrl(cs), val);
        qemu_log_mask(LOG_GUEST_ERROR, "TEST_CTRL cpu %d core %d %" PRIx64 " rip %" PRIx64 "\\n", cs->cpu_index,
                      cs->cpu_index / MAX(cs->nr_threads, 1), val, (uint64_t)env->eip);
        break;
    case MSR_DEBUGCTL:
        if (val >> 16) {
            goto error;
        }
        *x86_debugctl(cs) = val;
        qemu_log_mask(LOG_GUEST_ERROR, "DEBUGCTL cpu %d %" PRIx64 "\\n", cs->cpu_index, val);
        break;
"""),
    ("target/i386/tcg/sysemu/misc_helper.c", """    case MSR_IA32_SYSENTER_CS:
        val = env->sysenter_cs;
""", "before", """    case MSR_TEST_CTRL:
        if (!has_split_lock(env)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, GETPC());
        }
        val = qatomic_read(x86_test_ctrl(env_cpu(env)));
        break;
    case MSR_DEBUGCTL:
        val = *x86_debugctl(env_cpu(env));
        break;
    case MSR_IA32_CORE_CAPABILITY:
        if (!(env->features[FEAT_7_0_EDX] & CPUID_7_0_EDX_CORE_CAPABILITY)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, GETPC());
        }
        val = env->features[FEAT_CORE_CAPABILITY];
        break;
"""),
    ("target/i386/tcg/sysemu/misc_helper.c", '#include "qemu/osdep.h"\n', "behind", '#include "qemu/log.h"\n'),
    # The mends of tools/get-qemu.
    ("target/i386/tcg/sysemu/fpu_helper.c", "    env->hflags2 &= ~HF2_IGNNE_MASK;\n", "replace",
     "    qatomic_and(&env->hflags2, ~HF2_IGNNE_MASK);\n"),
    ("target/i386/tcg/sysemu/svm_helper.c", "    env->hflags2 &= ~(HF2_HIF_MASK | HF2_VINTR_MASK);\n    if (",
     "before", """
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    if (x86_ldl_phys(cs, addr + offsetof(struct vmcb, control.int_state)) & SVM_INTERRUPT_SHADOW_MASK) {
        env->hflags |= HF_INHIBIT_IRQ_MASK;
    }
"""),
    ("target/i386/tcg/sysemu/svm_helper.c", "            do_interrupt_x86_hardirq(env, vector, 1);\n", "behind",
     "            cs->exception_index = -1;\n"),
    ("target/i386/tcg/sysemu/svm_helper.c", "cs->interrupt_request |= CPU_INTERRUPT_VIRQ;", "replace",
     "qatomic_or(&cs->interrupt_request, CPU_INTERRUPT_VIRQ);"),
    ("target/i386/tcg/sysemu/svm_helper.c", "cs->interrupt_request &= ~CPU_INTERRUPT_VIRQ;", "replace",
     "qatomic_and(&cs->interrupt_request, ~CPU_INTERRUPT_VIRQ);"),
    ("target/i386/tcg/cc_helper.c", "    return helper_cc_compute_all(CC_DST, CC_SRC, CC_SRC2, op);\n", "replace",
     "    return helper_cc_compute_all(CC_DST, CC_SRC, CC_SRC2, op) & (CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C);\n"),
    ("target/i386/tcg/translate.c", "        tcg_temp_free_i32(t);\n        s->flags &= ~mask;\n", "replace",
     "        tcg_temp_free_i32(t);\n"),
    # The firmware's images are Debian's own packages; they are not built again.
    ("pc-bios/meson.build", "if unpack_edk2_blobs\n", "replace", "if false\n"),
)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: split_lock.py SOURCES")
    for name, anchor, where, text in EDITS:
        path = f"{sys.argv[1]}/{name}"
        with open(path, encoding="utf-8") as file:
            source = file.read()
        if source.count(anchor) != 1:
            sys.exit(f"split_lock.py: {name}: {anchor.strip()!r} stands there {source.count(anchor)} times, not once")
        new = {"behind": anchor + text, "before": text + anchor, "replace": text}[where]
        with open(path, "w", encoding="utf-8") as file:
            file.write(source.replace(anchor, new))


main()
