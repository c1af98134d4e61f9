# SPDX-License-Identifier: MIT
"""System tests of split locks: on a QEMU that detects them (tools/get-split-qemu), and on Bochs with faults."""
import os
import re

from tests import Test, conf, on_both, tiny

WRITE = re.compile(r"^TEST_CTRL cpu (\d+) core (\d+) ([0-9a-f]+) rip ([0-9a-f]+)$", re.M)
DETECT = 1 << 29
GUEST = {"split-lock": "tiny/split-lock"}


def judge(folder, found):
    """What is wrong with the writes of MSR_TEST_CTRL, in which there was `found` at first; and no remark."""
    with open(os.path.join(folder, "registers.log"), encoding="utf-8") as file:
        writes = [(int(cpu), int(core), int(value, 16), rip) for cpu, core, value, rip in WRITE.findall(file.read())]
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
    return problems, ""


def vm(name, mode, *more):
    lines = ("kernel = split-lock", "memory = 64M", "devices = test", f"cmdline = {mode}", *more)
    return f"[vm {name}]\n" + "".join(f"{line}\n" for line in lines)


def on_qemu(name, text, topology="1:2:2", found=0, **more):
    return Test(f"split-lock-{name}-qemu", "qemu", "[corbel]\nwhen_idle = poweroff\n" + text,
                files={**GUEST, **more.pop("files", {})}, emu=["--topology", topology], test_ctrl=found, soak=True,
                judge=lambda folder, _text: judge(folder, found), **more)


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
                        "vm=f policy=fatal offered=1 seen=1 injected=0 passed=0 delayed=0 fatal=1",
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
    # Corbel splits one itself.
    yield on_qemu("own", "faults = cpu3:own-split-lock=1\n" + vm("s", "l", "cpus = 0") +
                  vm("o", "u", "cpus = 3", "autostart = no"), efi="faults/corbel.efi",
                  script="wait corbel>\nsleep 2\nsend vm o start\nwait split lock in Corbel\nwait vm o: ended\n"
                         "send split-lock\nwait vm=o\nsend split-lock on\nwait split_lock=on\nsend split-lock\n"
                         "wait vm=o\nsend vm s stop\n",
                  says=["split lock in Corbel itself, on CPU 3 at [0-9a-f]+: a bug", "vcpu_run",
                        "split_lock=off-by-corbel cpu=3 rip=0x[0-9a-f]+ at=\"fault_inject",
                        CORE.format("off-by-corbel", 0),
                        CORE.format("off-by-corbel", 0), "split_lock=on", CORE.format("on", DETECT),
                        CORE.format("on", DETECT), "vm s: ended: operator"])
    # The same guest on CPUs without, where its locked accesses are what they are.
    yield from on_both("split-lock-none", **tiny("split-lock", cmdline="n"),
                       says=["split locks: not supported: the CPUs don't have it", "split-lock: all is well"])
    # Two VMs: legacy #AC, all of it the guest's; and marked ones, which Corbel takes for split locks: the pass by MTF.
    faults = ("faults = cpu0:cpuid:7.edx=+0x40000000 cpu0:rdmsr:0xcf=0x20 cpu0:test-ctrl=0xb0000000 "
              "cpu0:marked-ac=split\n")
    yield Test("split-marked-bochs", "bochs", "[corbel]\nwhen_idle = poweroff\n" + faults + vm("m", "m") +
               vm("k", "k"), files=GUEST, efi="faults/corbel.efi",
               says=["detection is on, which was on, and LOCK# was suppressed"],
               has=["vm m: ended: power-off: *", "vm k: ended: power-off: *",
                    re.compile("marked-ac=split fired [1-9][0-9]{3} times")])
