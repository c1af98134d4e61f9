# SPDX-License-Identifier: MIT
"""System tests of split locks: on a QEMU that detects them (tools/get-split-qemu), and on Bochs with faults."""
import math
import os
import re
import struct
from dataclasses import replace

import guests
from tests import CMDLINE, Test, conf, on_both, tiny

WRITE = re.compile(r"^TEST_CTRL cpu (\d+) core (\d+) ([0-9a-f]+) rip ([0-9a-f]+)$", re.M)
DEBUGCTL = re.compile(r"^DEBUGCTL cpu (\d+) ([0-9a-f]+)$", re.M)
DETECT = 1 << 29
INTEL = "max,+svm,+npt,vendor=GenuineIntel,family=6,model=106"
NO_DETECTION = "max,+svm,+npt,split-lock-detect=off"  # but bus locks exit
# Of the guest's 20,007, those between its interrupts aside.
COUNTED = "bus_locks=2[0-9]{4} injected=0 passed=2[0-9]{4}"
GUEST = {"split-lock": "tiny/split-lock"}


def judge_test_ctrl(log, found):
    """What is wrong with the writes of MSR_TEST_CTRL, in which there was `found` at first."""
    writes = [(int(cpu), int(core), int(value, 16), rip) for cpu, core, value, rip in WRITE.findall(log)]
    problems, value = [], {}
    for n, (cpu, core, new, _rip) in enumerate(writes):
        old = value.get(core, found)
        if new == old:
            problems.append(f"write {n} of MSR_TEST_CTRL, by CPU {cpu}, changes nothing: {new:#x}")
        if (new ^ old) & ~(DETECT | 1 << 31):
            problems.append(f"write {n} of MSR_TEST_CTRL, by CPU {cpu}, changes other bits: {old:#x} to {new:#x}")
        value[core] = new
    if not value:
        problems.append("nobody wrote MSR_TEST_CTRL")
    if any(new != found for new in value.values()):
        left = ", ".join(f"{new:#x}" for new in value.values())
        problems.append(f"MSR_TEST_CTRL was {found:#x} and is left at {left}")
    if len({rip for *_, rip in writes}) > 1:
        problems.append("more than one place writes MSR_TEST_CTRL")
    return problems


def judge(folder, found, debugctl, cpus):
    """What is wrong with the writes of the registers. found, debugctl: what was in them at first; found None: no CPU
    has MSR_TEST_CTRL."""
    with open(os.path.join(folder, "registers.log"), encoding="utf-8") as file:
        log = file.read()
    seen = [(int(cpu), int(value, 16)) for cpu, value in DEBUGCTL.findall(log)]
    wanted = [(cpu, value) for value in (0, debugctl) for cpu in range(cpus)] if debugctl else []
    problems = [] if sorted(seen) == sorted(wanted) else [f"DEBUGCTL was {debugctl:#x}, and written: {seen}"]
    if found is not None:
        return problems + judge_test_ctrl(log, found)
    return problems + [f"MSR_TEST_CTRL was written: {write[0]}" for write in WRITE.finditer(log)]


def vm(name, mode, *more):
    lines = ("kernel = split-lock", "memory = 64M", "devices = test", f"cmdline = {mode}", *more)
    return f"[vm {name}]\n" + "".join(f"{line}\n" for line in lines)


def linux_program(count):
    """A program of x86-64 Linux that splits so many locks, one word across the end of a cache line; exit status 0 if
    they add up."""
    code = (bytes.fromhex("4883e4c0 c74424fe00000000 b9") + struct.pack("<I", count) +  # and rsp, -64; [rsp - 2] = 0
            bytes.fromhex("f0ff4424fe e2f9") +  # lock inc dword [rsp - 2], in a loop
            bytes.fromhex("8b7c24fe 81ef") + struct.pack("<I", count) + bytes.fromhex("6a3c58 0f05"))  # exit(0)
    start, size = 0x400078, 0x78 + len(code)
    return (b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0) +
            struct.pack("<2I6Q", 1, 5, 0, 0x400000, 0, size, size, 4096) + code)


def passed_what_they_saw(_folder, text):
    """Of each VM: a split lock is seen again only where its pass ended before the vCPU ran. Counters can be read while
    they change: they only grow."""
    problems = []
    cut = sum(int(n) for counts in re.findall(r"expired=(\d+) cancelled=(\d+)", text) for n in counts)
    for name in "abcd":
        counts = [[int(seen) + int(bus_locks), int(passed)] for seen, bus_locks, passed in
                  re.findall(rf"vm={name} .* seen=(\d+) bus_locks=(\d+) .* passed=(\d+)", text)]
        seen, passed = counts[-1] if counts else (0, 1)
        if passed > seen or seen - passed > cut + seen // 10:
            problems.append(f"vm {name}: {seen} seen, {passed} passed, {cut} passes cut short")
        if any(before > after for pair in zip(counts, counts[1:]) for before, after in zip(*pair)):
            problems.append(f"vm {name}: counters that fall: {counts}")
    return problems


def on_qemu(name, text, topology="1:2:2", found=0, debugctl=0, cpu=(), also=None, **more):
    """also(folder, text): what is wrong besides the registers."""
    cpus = math.prod(map(int, topology.split(":")))
    has = None if NO_DETECTION in cpu else found
    return Test(f"split-lock-{name}-qemu", "qemu", "[corbel]\nwhen_idle = poweroff\n" + text,
                files={**GUEST, **more.pop("files", {})}, emu=["--topology", topology, *cpu], test_ctrl=found,
                debugctl=debugctl, soak=True,
                judge=lambda folder, text: (judge(folder, has, debugctl, cpus) +
                                            (also(folder, text) if also else []), ""), **more)


CORE = r"core=\d cpus=.* follows={} current=1 .*hardware=0x{:x} "


def tests():
    # One VM for each policy, siblings among them; off and on again; a CPU goes offline and comes back.
    yield on_qemu("policies", "split_lock = warn\n" + vm("s", "l", "cpus = 0", "split_lock = silent") +
                  vm("w", "l", "cpus = 1") + vm("f", "u", "cpus = 2", "split_lock = fatal") +
                  vm("r", "l", "cpus = 2", "split_lock = ratelimit:100") + vm("n", "n", "cpus = 3", "split_lock = off"),
                  status=1, timeout=400,
                  script="wait corbel>\nwait vm n: ended\nsleep 60\nsend split-lock\nwait vm=n\nsend split-lock off\n"
                         "wait split_lock=off\nsleep 1\nsend split-lock\nwait vm=n\nsend split-lock on\nsleep 5\n"
                         "send cpu 1 offline\nwait CPU 1: offline\nsend split-lock\nwait vm=n\nsend cpu 1 online\n"
                         "wait CPU 1: online\nsleep 2\nsend split-lock s fatal\nwait vm s: stopped\nsend vm r stop\n",
                  says=["split locks: detection is on", r"split_lock=on", CORE.format("on", DETECT),
                        "vm=s policy=silent offered=1 seen=[1-9]", "vm=w policy=warn offered=1 seen=[1-9]",
                        "vm=f policy=fatal offered=1 seen=1 bus_locks=0 injected=0 passed=0 delayed=0 fatal=1",
                        r"vm=r policy=ratelimit rate=100 .* delayed=[1-9]", "vm=n policy=off offered=0",
                        "split locks: VMs that were offered detection will not see it any more",
                        CORE.format("off", 0), CORE.format("off", 0), "CPU 1: offline",
                        r"core=0 .*threads=1", "CPU 1: online",
                        "vm s: stopped: split lock: vCPU 0 splits a lock at rip"],
                  has=["vm w: stopped: no CPU: *", "vm w: splits locks: vCPU 0 at rip *",
                       "vm f: stopped: split lock: vCPU 0 splits a lock at rip *",
                       "vm n: ended: power-off: *"])
    # All that needs care, in two VMs on the threads of one core; the firmware left bits 28, 29 and 31.
    yield on_qemu("siblings", vm("x", "u", "cpus = 0") + vm("y", "u", "cpus = 1"), topology="1:1:2",
                  found=0xb0000000, says=["detection is on, which was on, and LOCK# was suppressed"],
                  has=["vm x: ended: power-off: *", "vm y: ended: power-off: *"])
    # A guest that detects them itself; one that is not told; on a machine where it is off.
    yield on_qemu("aware", "attach = x\n" + vm("x", "a"), says=["split-lock: all is well", "vm x: ended: power-off"])
    yield on_qemu("off", "attach = x\nsplit_lock = off\n" + vm("x", "n"), found=DETECT,
                  says=["split locks: detection is off, which was on", "split-lock: all is well",
                        "vm x: ended: power-off"])
    # Linux, with neighbours that split locks all the time.
    yield on_qemu("linux", conf(vcpus=2, vm=vm("s", "l"), corbel="split_lock = ratelimit:1000\n").partition(
                      "when_idle = poweroff\n")[2],
                  files={"vmlinuz": "guest/vmlinuz", "initrd.gz": "guest/initrd.gz"}, timeout=600,
                  script="wait guest#\nkey ctrl-]\nsend split-lock\nwait vm=s\nsend vm s stop\nsend console linux\n"
                         "send poweroff\n",
                  says=["vm=linux policy=ratelimit rate=1000 offered=1 seen=0 ", "vm=s policy=ratelimit .*passed=[1-9]",
                        "vm linux: ended: power-off"])
    # A Linux that takes itself for the machine's owner: it turns its detection on, warns of its own program, and lets
    # that go on with detection off for a while, when it is Corbel's business again.
    program = "".join(f"\\\\{byte:03o}" for byte in linux_program(30000))
    yield on_qemu("aware-linux", conf(vcpus=2, cmdline=f"{CMDLINE} clearcpuid=hypervisor").partition(
                      "when_idle = poweroff\n")[2],
                  files={"vmlinuz": "guest/vmlinuz", "initrd.gz": "guest/initrd.gz"}, timeout=600,
                  cpu=["--cpu", INTEL],
                  script="wait guest#\n" + "".join(
                      f"send printf '{program[at:at + 320]}' >>/tmp/splits\nwait guest#\n"
                      for at in range(0, len(program), 320)) +
                         "send chmod +x /tmp/splits; /tmp/splits; echo sta''tus=$?; dmesg | grep split\nwait status=\n"
                         "wait guest#\nkey ctrl-]\nsend split-lock\nwait vm=linux\nsend console linux\n"
                         "send poweroff\n",
                  says=["status=0", "split lock detection: #AC: crashing the kernel on kernel split_locks",
                        r"split lock detection: #AC: splits/\d+ took a split_lock trap at address: 0x400089",
                        "vm=linux policy=silent offered=1 seen=[1-9].* injected=[1-9]", "vm linux: ended: power-off"])
    # CPUs that detect no split locks, but whose bus locks exit.
    yield on_qemu("bus", "split_lock = warn\n" + vm("s", "u", "cpus = 0", "split_lock = silent") +
                  vm("w", "u", "cpus = 1") + vm("f", "u", "cpus = 2", "split_lock = fatal") +
                  vm("r", "u", "cpus = 2", "split_lock = ratelimit:5000") +
                  vm("n", "n", "cpus = 3", "split_lock = off") + vm("l", "l", "cpus = 3"),
                  cpu=["--cpu", NO_DETECTION], status=1, debugctl=6,
                  script="wait corbel>\nwait vm r: ended\nsend split-lock\nwait vm=l\nsend split-lock l off\n"
                         "sleep 1\nsend split-lock l ratelimit:50\nwait rate=50\nsleep 4\nsend split-lock l fatal\n"
                         "wait vm l: stopped\n",
                  says=["split locks: not supported: the CPUs don't have it", "split_lock=unsupported bus_locks=exit",
                        f"vm=s policy=silent offered=0 seen=0 {COUNTED} delayed=0 ",
                        f"vm=w policy=warn offered=0 seen=0 {COUNTED} ",
                        "vm=f policy=fatal offered=0 seen=0 bus_locks=1 injected=0 passed=0 delayed=0 fatal=1",
                        f"vm=r policy=ratelimit rate=5000 .* {COUNTED} delayed=[1-9]",
                        "vm=n policy=off offered=0 seen=0 bus_locks=0 ", "vm=l policy=warn .*passed=[1-9]",
                        "vm l: stopped: split lock: vCPU 0 splits a lock at rip"],
                  has=["vm s: ended: power-off: *", "vm w: ended: power-off: *", "vm r: ended: power-off: *",
                       "vm n: ended: power-off: *", "vm w: splits locks: vCPU 0 at rip *"])
    # NMIs and split locks: both are single steps.
    nmi = [group for group in guests.groups() if group.name == "nmi"]
    yield replace(on_qemu("nmi", "", files={"nmi": "tiny/nmi"}, topology="1:1:2", script=guests.script(nmi),
                          also=lambda folder, text: guests.judge(nmi, folder, text)[0]), conf=guests.configuration(nmi))
    # vCPUs that wait for their turn are moved to the other thread of the core.
    yield on_qemu("balanced", "".join(vm(name, "l", "cpus = 0-1", "split_lock = ratelimit:500") for name in "abcd") +
                  vm("u", "u", "cpus = 0-1", "split_lock = ratelimit:2000"), topology="1:1:2",
                  script="wait corbel>\nwait vm u: ended\nsend sched\nsend split-lock\nwait vm=u\n" +
                         "".join(f"send vm {name} stop\n" for name in "abcd"),
                  says=["given=[1-9]", *[f"vm={name} .* delayed=[1-9]" for name in "abcdu"]],
                  has=["vm u: ended: power-off: *"])
    # Two minutes of siblings that split locks, in VMs of their own; detection goes off and on again meanwhile, and a
    # thread goes offline and comes back.
    hard = "".join(f"send split-lock off\nwait split_lock=off\nsleep 1\nsend split-lock on\nwait split_lock=on\n"
                   f"sleep 2\nsend cpu {cpu} offline\nwait CPU {cpu}: offline\nsleep 1\nsend cpu {cpu} online\n"
                   f"wait CPU {cpu}: online\nsleep 4\nsend split-lock\nwait vm=u\n" for cpu in (1, 3) * 8)
    yield on_qemu("load", vm("a", "l", "cpus = 0-1") + vm("b", "l", "cpus = 0-1") + vm("c", "l", "cpus = 2-3") +
                  vm("d", "l", "cpus = 2-3", "split_lock = ratelimit:1000") + vm("u", "u", "autostart = no"),
                  timeout=600, script="wait corbel>\n" + hard + "send vm u start\nwait vm u: ended\nsend split-lock\n"
                  "wait vm=u\n" + "".join(f"send vm {name} stop\n" for name in "abcd"),
                  says=[CORE.format("on", DETECT) + ".* joined=[1-9].* cancelled=[0-9]+ uncovered_us=[1-9]",
                        *[f"vm={name} .* passed=[1-9][0-9]{{4}}" for name in "abcd"]],
                  has=["vm u: ended: power-off: *"], also=passed_what_they_saw)
    # Corbel splits one itself; CPUs that come back honour it, also those of a whole core.
    yield on_qemu("own", "faults = cpu3:own-split-lock=1\n" + vm("s", "l", "cpus = 0") +
                  vm("o", "u", "cpus = 3", "autostart = no"), efi="faults/corbel.efi",
                  script="wait corbel>\nsleep 2\nsend vm o start\nwait split lock in Corbel\nwait vm o: ended\n" +
                         "".join(f"send cpu {cpu} {state}\nwait CPU {cpu}: {state}\n" for state in ("offline", "online")
                                 for cpu in (1, 2, 3)) +
                         "send split-lock\nwait vm=o\nsend split-lock on\nwait split_lock=on\nsend split-lock\n"
                         "wait vm=o\nsend vm s stop\n",
                  says=["split lock in Corbel itself, on CPU 3 at [0-9a-f]+: a bug", "vcpu_run",
                        "split_lock=off-by-corbel bus_locks=exit cpu=3 rip=0x[0-9a-f]+ at=\"fault_inject",
                        CORE.format("off-by-corbel", 0),
                        CORE.format("off-by-corbel", 0), "split_lock=on", CORE.format("on", DETECT),
                        CORE.format("on", DETECT), "vm s: ended: operator"],
                  has=["split locks: VMs that were offered detection will not see it any more"])
    # The same guest on CPUs without, where its locked accesses are what they are.
    yield from on_both("split-lock-none", **tiny("split-lock", cmdline="n"),
                       says=["split locks: not supported: the CPUs don't have it", "split-lock: all is well"])
    # VMs on two threads of a core: legacy #AC, all of it the guest's; and marked ones, which Corbel takes for split
    # locks: the pass by MTF. Those that wait for their turn are moved to the other thread. While virtualization is
    # turned on, the register is not touched.
    faults = " ".join(f"cpu{cpu}:{word}" for cpu in (0, 1) for word in (
        "cpuid:7.edx=+0x40000000", "rdmsr:0xcf=0x20", "test-ctrl=0xb0000000", "marked-ac=split"))
    untouched = [f"cpu{cpu}@enable:{access}:0x33=gp" for cpu in (0, 1) for access in ("wrmsr", "rdmsr")]
    both = "cpus = 0-1"
    yield Test("split-marked-bochs", "bochs", "[corbel]\nwhen_idle = monitor\n"
               f"faults = {faults} {' '.join(untouched)}\n" + vm("m", "m", both) + vm("k", "k", both) +
               "".join(vm(name, "m", both, "split_lock = ratelimit:2000") for name in ("r", "s", "t")),
               files=GUEST, efi="faults/corbel.efi", emu=["--topology", "1:1:2"],
               script="wait corbel>\nmatch (?s)" + "".join(f"(?=.*vm {name}: (?:ended|stopped))" for name in "mkrst") +
                      "\nsend split-lock\nwait vm=t\nsend sched\nwait cpu=1\nsend poweroff\n",
               says=["detection is on, which was on, and LOCK# was suppressed",
                     CORE.format("on", 0x30000000) + ".*joined=[1-9]", "given=[1-9]"],
               has=[*(f"vm {name}: ended: power-off: *" for name in "mkrst"),
                    *(f"* {word} fired 0 times*" for word in untouched),
                    *(re.compile(f"cpu{cpu}:marked-ac=split fired [1-9][0-9]{{3,}} times") for cpu in (0, 1))])
    # Marked ones are bus locks, which exit when they have happened: exit reason 74, or bit 26 of that of their step.
    yield Test("bus-lock-marked-bochs", "bochs", "[corbel]\nwhen_idle = monitor\nfaults = cpu0:rdmsr:0x48b="
               "+0x4000000000000000 cpu0:marked-ac=bus-lock\n" + vm("m", "m", "split_lock = ratelimit:500") +
               vm("w", "m", "split_lock = warn") + vm("f", "m", "split_lock = fatal"),
               files=GUEST, efi="faults/corbel.efi", status=1,
               script="wait corbel>\nwait vm m: ended\nsend split-lock\nwait vm=f\nsend exits m\nwait exit=io\n"
                      "send poweroff\n",
               says=["split_lock=unsupported bus_locks=exit",
                     "vm=m .* bus_locks=1[0-9]{3} injected=0 passed=1[0-9]{3} delayed=1[0-9]{3} fatal=0",
                     "vm=w policy=warn .* bus_locks=[1-9][0-9]{3,} injected=0 passed=[1-9][0-9]{3,} delayed=0 ",
                     "vm=f policy=fatal .* bus_locks=1 injected=0 passed=0 delayed=0 fatal=1",
                     "exit=bus-locked count=[1-9][0-9]{2}", "exit=step count=[1-9][0-9]{2}"],
               has=["vm m: ended: power-off: *", "vm w: ended: power-off: *", "vm w: splits locks: vCPU 0 at rip *",
                    "vm f: stopped: split lock: vCPU 0 splits a lock at rip *"])

