# SPDX-License-Identifier: MIT
"""What can go wrong while virtualization is turned on, each message provoked: FAULTS builds (docs/TESTING.md).

A message is expected in `has`, as plain text with * for what may vary. uncovered() holds that against the sources, so
that a new message without a case is noticed.
"""
import os
import re

from tests import Test, tiny

EFI = "faults/corbel.efi"
GUEST = "prefixed-cpuid"
GOES_ON = f"vm {GUEST}: ended: *"
AS_FOUND = "fault injection: CPU {}: CR4, EFER, VM_HSAVE_PA are as found*"
NO_VIRT = {"qemu": "cpuid:0x80000001.ecx=-0x4", "bochs": "cpuid:1.ecx=-0x20"}
NO_NESTING = {"qemu": "cpuid:0x8000000a.edx=-0x1", "bochs": "rdmsr:0x48b=-0x200000000"}
NO_AVX2 = "cpuid:7.ebx=-0x20"


def case(name, on, cpus, faults, has, failed=None, corbel="", script="", by_shell=False):
    """One boot. `faults` are words; each must have fired. `failed`: no VM may run, for that reason, and all CPUs that
    this names (all: True) must be as they were; None: the guest runs on the CPUs that are left."""
    # That a CPU does not stop shows after the faults were counted.
    has = [*has, *(re.compile(re.escape(f"{word} fired ") + "[1-9]") for word in faults if ":halt=" not in word)]
    if failed is None:
        has += [GOES_ON]
    else:
        why, restored = failed
        has += [f"virtualization: no VM can run: {why}", f"vm {GUEST}: not made: {why}",
                *(AS_FOUND.format(cpu) for cpu in restored)]
    setting = "" if by_shell else f"faults = {' '.join(faults)}\n"
    text = tiny(GUEST, corbel=corbel + setting)
    if script:
        text["conf"] = text["conf"].replace("when_idle = poweroff", "when_idle = monitor")
    return Test(f"fault-{name}-{on}", on, **text, efi=EFI, has=has, status=0 if failed is None else 1,
                script=script, emu=["--cpus", str(cpus)],
                options=f"faults={','.join(faults)}" if by_shell else "")


def left_out(cpu, why, apic_id="*"):
    return f"CPU {cpu} (APIC id {apic_id}): {why}: left out"


def bring_up(on):
    """CPUs that do not come up, or too late: left out, each with its reason; the rest go on."""
    # CPU 7 delays the boot, so that the late ones come in the middle of it. Without x2APIC no id is above 254.
    yield case("start", on, 8, ["cpu1:start=never", "cpu2:finish=never", "cpu3:start=1200", "cpu4:finish=1200",
                                "cpu5:stack=none", "cpu6:apic-id=300", "cpu0:cpuid:1.ecx=-0x200000", "cpu7:caps=500"],
               [left_out(1, "no answer to SIPI"), left_out(2, "started, but did not finish"),
                left_out(3, "no answer to SIPI"), left_out(4, "started, but did not finish"),
                left_out(5, "no memory for it"),
                left_out(6, "its APIC id needs x2APIC mode, which this machine doesn't have", 300),
                "CPUs: 2 of 8 online, xAPIC", "cpu=3 * state=dead *", "cpu=4 * state=dead *"],
               script=f"wait {GUEST}: ended\nsend cpus\nsend poweroff\n")
    # A CPU that can't do what the machine was set up to do says so by itself.
    refuses = [("rdmsr:0x1b=+0x400", "the firmware left it in x2APIC mode, the others use xAPIC")]
    if on == "bochs":
        refuses = [("cpuid:1.ecx=-0x200000", "it has no x2APIC mode, and the others use it"),
                   ("cpuid:1.ecx=-0x1000000", "its timer has no TSC-deadline mode, and the others use it")]
    yield case("refuses", on, 3, [f"cpu{cpu}:{word}" for cpu, (word, _) in enumerate(refuses, 1)],
               [left_out(cpu, f"refuses itself: {why}") for cpu, (_, why) in enumerate(refuses, 1)])
    yield case("no-memory", on, 2, ["cpu0:trampoline=none", "cpu0:region=none"],
               [left_out(1, "no page below 640 KiB to start it from"),
                "virtualization: CPU 0: no memory for its VMXON region or host save area"],
               ("CPU 0: no memory for its VMXON region or host save area", [0]))


def calls(on):
    """CPUs that stop answering at a step, or answer too late."""
    yield case("silent-tsc", on, 2, ["cpu1:compare-tsc=never"],
               ["CPU 1: its TSC can't be compared: no answer", "CPU 1 does not answer a call of CPU 0: compare TSCs"])
    yield case("silent", on, 4, ["cpu1:caps=never", "cpu2:compare=never", "cpu3:disable=never", "cpu3:halt=never"],
               ["CPU 1 does not answer a call of CPU 0: read capabilities",
                "CPU 2 does not answer a call of CPU 0: compare capabilities",
                "CPU 3 does not answer a call of CPU 0: virtualization off",
                "CPU 1 did not answer: CPU 0 is the reference instead", "CPU 2 is excluded: it did not answer",
                "virtualization: CPU 3 did not answer: it may stay on there", "cpu=3 * virt=on *", "virt=on",
                "1 of 3 other CPUs did not stop"],
               corbel="setup_cpu = 1\n",
               script=f"wait {GUEST}: ended\nsend virt off\nwait virt=off\nsend cpus\nsend virt on\nwait virt=on\\r\n"
                      "send poweroff\n")
    # CPU 2 has turned it on after everybody gave up: it turns it off again by itself.
    why = "CPU 1: did not answer the call to turn virtualization on"
    yield case("enable-silent", on, 4, ["cpu1:enable=never", "cpu2:enable=4500"],
               ["setup_cpu = 9: no such CPU is online, CPU 0 is used", f"virtualization: {why}",
                "CPU 1 does not answer a call of CPU 0: virtualization on",
                "virtualization: CPU 2: did not answer the call to turn virtualization on",
                "virtualization: CPU 2 did not answer: it may stay on there",
                "CPU 2 turned virtualization on too late: off again",
                f"vm {GUEST}: no such VM (see vms); no VM can run: {why}"],
               (why, range(4)), corbel="setup_cpu = 9\n",
               script=f"wait corbel>\nsend vm {GUEST} start\nwait no such VM\nsend poweroff\n")


def differing(on):
    """CPUs that differ, where an emulator has but one kind."""
    yield case("refuse", on, 2, [f"cpu1:{NO_AVX2}"], ["CPU 1 differs: CPUID.7.0:EBX: expected * (CPU 0), seen *",
                                                     "CPU 1 is excluded: 1 fields differ from CPU 0"],
               ("the CPUs differ and mixed_cpus = refuse (see cpu N diff)", [0, 1]), corbel="mixed_cpus = refuse\n",
               by_shell=True)
    yield case("common", on, 2, [f"cpu1:{NO_AVX2}"],
               ["virtualization: the CPUs differ; what they have in common is used",
                "virtualization: * is on, on 2 of 2 CPUs"], corbel="mixed_cpus = common\n")
    lacks = {"qemu": "no nested paging (NPT)", "bochs": "EPT"}[on]
    yield case("common-not-enough", on, 2, [f"cpu1:{NO_NESTING[on]}"],
               [f"virtualization: CPU 0: {lacks}", "virtualization: what the CPUs have in common is not enough"],
               (f"CPU 0: {lacks}", [0, 1]), corbel="mixed_cpus = common\n")
    # XCR0 of the reference has a bit that the boot CPU lacks.
    yield case("setup", on, 2, ["cpu1:cpuid:0xd.eax=+0x8000000"], ["virtualization: CPU 1: setup failed"],
               ("CPU 1: setup failed", [0, 1]), corbel="setup_cpu = 1\n")
    yield case("no-virt", on, 1, [f"cpu0:{NO_VIRT[on]}"], ["virtualization: CPU 0: the CPU has neither VMX nor SVM"],
               ("CPU 0: the CPU has neither VMX nor SVM", [0]))


def all_differ(cpu, fields):
    return [f"CPU {cpu} differs: {field}: expected * (CPU 0), seen *" for field in fields]


def svm():
    on = "qemu"
    yield case("fields", on, 3, [f"cpu1:{NO_VIRT[on]}", "cpu2:rdmsr:0xc0010114=+0x10"],
               ["CPU 1 has neither VMX nor SVM: CPU 0 is the reference instead", *all_differ(1, ["SVM revision",
                "SVM ASIDs", "SVM features"]), *all_differ(2, ["VM_CR"])], corbel="setup_cpu = 1\n")
    lacks = ["SVM is disabled by the firmware (VM_CR.SVMDIS, locked)", "no nested paging (NPT)", "no ASIDs"]
    yield case("missing", on, 1, ["cpu0:rdmsr:0xc0010114=+0x18", "cpu0:cpuid:0x8000000a.edx=-0x1",
                                  "cpu0:cpuid:0x8000000a.ebx=1"],
               [f"virtualization: CPU 0: {what}" for what in lacks], (f"CPU 0: {lacks[0]}", [0]))
    yield case("svmdis", on, 1, ["cpu0:rdmsr:0xc0010114=+0x10"],
               ["virtualization: CPU 0: SVM is disabled (VM_CR.SVMDIS)"],
               ("CPU 0: SVM is disabled (VM_CR.SVMDIS)", [0]))
    # Eight CPUs fail at eight steps, CPU 0 succeeds; what each did is undone.
    yield case("enable", on, 9, [f"cpu1@enable:{NO_VIRT[on]}", "cpu2@enable:rdmsr:0xc0010114=+0x10",
                                 "cpu3@enable:rdmsr:0xc0000080=+0x1000", "cpu4@enable:wrmsr:0xc0000080=gp",
                                 "cpu5@enable:wrmsr:0xc0000080=ignored", "cpu6@enable:wrmsr:0xc0010117=gp",
                                 "cpu7@enable:wrmsr:0xc0010117=ignored", "cpu8@enable:rdmsr:0x1d9=4",
                                 "cpu8@enable:wrmsr:0x1d9=gp"],
               ["virtualization: CPU 1: CPUID shows no SVM",
                "virtualization: CPU 2: SVM is disabled by the firmware (VM_CR.SVMDIS)",
                "virtualization: CPU 3: EFER.SVME is set already: another hypervisor is active",
                "virtualization: CPU 4: writing EFER.SVME faults",
                "virtualization: CPU 5: EFER.SVME does not stay set",
                "virtualization: CPU 6: VM_HSAVE_PA can't be written",
                "virtualization: CPU 7: VM_HSAVE_PA does not keep its value",
                "virtualization: CPU 8: DEBUGCTL can't be written"],
               ("CPU 1: CPUID shows no SVM", range(9)))
    yield case("disable", on, 3, ["cpu0@enable:rdmsr:0x1d9=4", "cpu0@disable:wrmsr:0x1d9=gp",
                                  "cpu1@disable:wrmsr:0xc0010117=gp", "cpu2@disable:wrmsr:0xc0000080=ignored"],
               ["CPU 0: DEBUGCTL can't be put back", "CPU 1: VM_HSAVE_PA can't be put back",
                "CPU 2: EFER.SVME can't be cleared, SVM stays on",
                "cpu=0 * virt=off *", "cpu=1 * virt=off *", "cpu=2 * virt=on *", AS_FOUND.format(0)],
               script=f"wait {GUEST}: ended\nsend virt off\nwait virt=off\nsend cpus\nsend poweroff\n")


VMX_FIELDS = ["CPUID.1:ECX.VMX", "VMX not locked off by firmware", "IA32_VMX_BASIC (revision, size, memory type)",
              "IA32_VMX_BASIC (features)", "pin-based controls (may be 1 : may be 0)",
              "processor-based controls (may be 1 : may be 0)", "secondary controls (may be 1 : may be 0)",
              "tertiary controls (may be 1)", "exit controls (may be 1 : may be 0)",
              "secondary exit controls (may be 1)", "entry controls (may be 1 : may be 0)", "IA32_VMX_MISC (features)",
              "CR0 bits that may be 0",
              "CR0 bits that may be 1", "CR4 bits that may be 0", "CR4 bits that may be 1", "IA32_VMX_VMCS_ENUM",
              "IA32_VMX_EPT_VPID_CAP", "IA32_VMX_VMFUNC"]
VMX_MISSING = ["exits on interrupts and NMIs", "virtual NMIs", "exits on HLT, I/O, MWAIT, MONITOR, RDPMC",
               "exits on CR8", "MSR bitmaps", "TSC offsetting", "secondary processor-based controls",
               "interrupt and NMI windows", "CR3, INVLPG, RDTSC, MOV DR without exits", "EPT", "unrestricted guest",
               "exits on WBINVD", "64-bit host after exits", "EFER and PAT saved and loaded by exits",
               "debug controls saved by exits", "64-bit guests", "guests without long mode",
               "EFER and PAT loaded by entries", "debug controls loaded by entries", "VMX with TRUE control MSRs",
               "VMX regions above 4 GiB", "EPT with 4 levels", "EPT tables in write-back memory", "INVEPT",
               "RDTSCP in guests", "INVPCID in guests"]


def vmx():
    on = "bochs"
    # QEMU's TSC can't be set.
    yield case("tsc", on, 3, ["cpu1:tsc=0x10000000000", "cpu2:tsc=0x100000", "cpu2:wrmsr:0x3b=ignored"],
               ["CPU 1: its TSC was 10995* ticks off: set right",
                "CPU 2: its TSC was 10* ticks off: it can't be set right",
                "cpu=1 tsc_skew_min=* tsc_agrees=1", "cpu=2 tsc_skew_min=1* tsc_agrees=0"],
               script=f"wait {GUEST}: ended\nsend cpus -v\nwait cpu=2 cap\nwait corbel>\nsend poweroff\n")
    # The reference gets what this CPU model lacks (tertiary and secondary exit controls, VMFUNC), so that it can be
    # missing elsewhere. CPU 3 has another VMCS revision.
    yield case("fields", on, 4, [f"cpu1:{NO_VIRT[on]}", "cpu0:rdmsr:0x48e=+0x2000000000000", "cpu0:rdmsr:0x492=1",
                                 "cpu0:rdmsr:0x48f=+0x8000000000000000", "cpu0:rdmsr:0x493=1",
                                 "cpu0:rdmsr:0x48b=+0x200000000000", "cpu0:rdmsr:0x491=+0x1",
                                 "cpu2:rdmsr:0x485=+0x5", "cpu3:rdmsr:0x480=+0x40000000"],
               ["CPU 1 has neither VMX nor SVM: CPU 0 is the reference instead", *all_differ(1, VMX_FIELDS),
                *all_differ(2, ["IA32_VMX_MISC (preemption timer rate)"]),
                *all_differ(3, ["IA32_VMX_BASIC (revision, size, memory type)"])], corbel="setup_cpu = 1\n")
    yield case("missing", on, 1, ["cpu0:rdmsr:0x480=-0x80000000000000", "cpu0:rdmsr:0x480=+0x1000000000000",
                                  "cpu0:rdmsr:0x481=0", "cpu0:rdmsr:0x482=0xffffffff", "cpu0:rdmsr:0x483=0",
                                  "cpu0:rdmsr:0x484=0xffffffff"],
               [f"virtualization: CPU 0: {what}" for what in VMX_MISSING], (f"CPU 0: {VMX_MISSING[0]}", [0]))
    yield case("locked-off", on, 1, ["cpu0:rdmsr:0x3a=1"], ["virtualization: CPU 0: VMX is locked off by the firmware"],
               ("CPU 0: VMX is locked off by the firmware", [0]))
    # CPUs fail at each step, CPU 0 succeeds; what each did is undone.
    yield case("enable", on, 8, [f"cpu1@enable:{NO_VIRT[on]}", "cpu2@enable:rdmsr:0x3a=gp",
                                 "cpu3@enable:rdmsr:0x3a=-0x5", "cpu3@enable:wrmsr:0x3a=gp",
                                 "cpu4@enable:rdmsr:0x3a=-0x5", "cpu4@enable:wrmsr:0x3a=ignored",
                                 "cpu5@enable:rdmsr:0x486=+0x40000000",
                                 "cpu6@enable:rdmsr:0x489=-0x2000", "cpu7@enable:vmxon=fault"],
               ["virtualization: CPU 1: this CPU has no VMX",
                "virtualization: CPU 2: IA32_FEATURE_CONTROL can't be read",
                "virtualization: CPU 3: IA32_FEATURE_CONTROL is open (0x*) but refuses to be written",
                "virtualization: CPU 4: VMX is locked off by the firmware (IA32_FEATURE_CONTROL is 0x*)",
                "virtualization: CPU 5: CR0 is 0x*, VMX wants 0x40000000 set, 0x0 clear",
                "virtualization: CPU 6: CR4 is 0x*, VMX wants 0x0 set, 0x2000 clear",
                "virtualization: CPU 7: VMXON faulted: locked off, or CR0, CR4 or A20M mode don't allow it"],
               ("CPU 1: this CPU has no VMX", range(8)))
    yield case("vmxon", on, 5, ["cpu1:vmxon=invalid", "cpu2:vmxon=valid", "cpu3:invept=valid", "cpu4:invvpid=invalid"],
               ["virtualization: CPU 1: VMXON refused its region, or VMX is on already",
                "virtualization: CPU 2: VMXON failed: this CPU is in VMX operation already",
                "virtualization: CPU 3: INVEPT or INVVPID of everything failed",
                "virtualization: CPU 4: INVEPT or INVVPID of everything failed"],
               ("CPU 1: VMXON refused its region, or VMX is on already", range(5)))
    yield case("disable", on, 2, ["cpu1:vmxoff=valid"],
               ["CPU 1: VMXOFF failed (2), VMX stays on", "cpu=0 * virt=off *", "cpu=1 * virt=on *",
                AS_FOUND.format(0)],
               script=f"wait {GUEST}: ended\nsend virt off\nwait virt=off\nsend cpus\nsend poweroff\n")


def settings(on):
    """The setting itself: words that are none, and a Corbel that knows no faults."""
    words = {"bla": "does not begin with cpuN", "cpu300:vmxon=fault": "does not begin with cpuN",
             "cpu1=": "has no : after its CPU", "cpu1:foo=1": "names no point where a fault can be",
             "cpu1:rdmsr=3": "has no index, or one that is no number",
             "cpu1:vmxon:3=fault": "has an index, but its point takes none",
             "cpu1:cpuid:7=3": "names no register (cpuid:LEAF.eax to .edx)", "cpu1:rdmsr:0x3a": "has no =EFFECT",
             "cpu1:vmxon=well": "has an effect that its point does not know"}
    test = case("words", on, 1, [], [f"corbel.conf:4: faults: '{word}' {why}" for word, why in words.items()])
    test.conf = test.conf.replace("faults = ", "faults = " + " ".join(words))
    yield test
    test = case("not-here", on, 1, [], ["LoadOptions: faults: 'cpu0:vmxon=fault' needs a Corbel that was made with "
                                        "make FAULTS=1"])
    test.efi, test.options = "corbel.efi", "faults=cpu0:vmxon=fault"
    yield test


def tests():
    for on in "qemu", "bochs":
        for group in bring_up, calls, differing:
            yield from group(on)
    yield from settings("qemu")  # parsing: no CPU takes part in it
    yield from svm()
    yield from vmx()


# ---- Has every message a case? ----

BOTH = ("qemu", "bochs")
SOURCES = {"virt/enable.c": BOTH, "arch/x86/smp.c": BOTH, "arch/x86/ipi.c": BOTH,
           "vmx/cpu.c": ("bochs",), "vmx/caps.c": ("bochs",), "svm/cpu.c": ("qemu",), "svm/caps.c": ("qemu",)}
# Strings that are no messages of their own, by file; one that is not there any more is an error too.
NO_MESSAGE = {
    "virt/enable.c": {"virtualization was not set up",  # before the boot has come so far: no VM is there yet
                      "equal", "superset", "at-least", "info",  # words of the monitor
                      "virtualization: %s"},  # the refusal of mixed_cpus = refuse, which stands beside it
    "arch/x86/ipi.c": {"ping", "halt",  # parts of a message about time-outs; nobody waits for CPUs that halt
                       "look at a vCPU", "read an MSR",  # the monitor's; a CPU that is late is the unit tests'
                       # no emulator has the feature as it is: tests/unit/split_lock_test.c, "a CPU that is late"
                       "follow the split-lock state", "take part in split-lock detection"},
    "vmx/cpu.c": {"CR0", "CR4", "%s",  # parts of the message about both
                  "IA32_FEATURE_CONTROL was locked by Corbel"},  # no failure; Bochs' firmware locks it
    "svm/cpu.c": {"%s"},
    "vmx/caps.c": {"IA32_FEATURE_CONTROL",  # recorded, not compared
                   "the record is large enough"},  # said by the compiler
    "svm/caps.c": {"a capability without a rule"},
    "arch/x86/smp.c": {"CPUs: %lu ticks to send INIT and SIPIs, %lu from the last to the last answer"},  # make bench
}
COMMENT = re.compile(r"/\*.*?\*/|^#include.*?$", re.S | re.M)
LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"(?:\s*"(?:\\.|[^"\\\n])*")*')
CONVERSION = re.compile(r"%#?l?[usxd]")


def messages(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        text = COMMENT.sub("", file.read())
    return {re.sub(r'"\s*"', "", match[0])[1:-1] for match in LITERAL.finditer(text)}


def uncovered(root, cases):
    """What the sources say and no case of every day expects, one line each."""
    bad = []
    expected = {on: [line for test in cases if test.on == on and not test.soak
                     for line in test.has if isinstance(line, str)] for on in BOTH}
    for path, emulators in SOURCES.items():
        found, exempt = messages(root, path), NO_MESSAGE.get(path, set())
        bad += [f"{path}: {text!r} is exempt in tests/system/faults.py, but is not there" for text in exempt - found]
        for text in sorted(found - exempt):
            parts = [re.escape(part) for part in CONVERSION.split(text)]
            pattern = re.compile(r"(?:^|: |CPU \d+ )" + ".+".join(parts) + r"(?:$|: )")
            bad += [f"{path}: {text!r} is provoked by no test on {on} (tests/system/faults.py)"
                    for on in emulators if not any(pattern.search(line) for line in expected[on])]
    return bad
