# SPDX-License-Identifier: MIT
"""The table of system tests: what is in the image, how it is run, what must come of it."""
import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
import xml.dom.minidom
from dataclasses import dataclass, field, replace

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CMDLINE = "console=ttyS0 quiet cryptomgr.notests reboot=a"
GUEST = {"vmlinuz": "guest/vmlinuz", "initrd.gz": "guest/initrd.gz"}


@dataclass
class Test:
    """One boot of one image."""
    name: str
    on: str  # qemu (SVM) or bochs (VMX)
    conf: str
    # name: path below the build folder, or bytes, or what makes them from the path of that folder
    files: dict = field(default_factory=lambda: dict(GUEST))
    emu: list = field(default_factory=list)  # more arguments of tools/emu
    script: str = ""
    status: int = 0
    says: list = field(default_factory=list)  # patterns that must appear, in this order
    has: list = field(default_factory=list)  # lines that must be there: text with * for anything, or a re.Pattern
    never_says: list = field(default_factory=lambda: ["corbel: PANIC", "WARNING: CPU", "this should not be"])
    timeout: int = 0  # seconds; 0: as usual for the emulator
    soak: bool = False  # not for every day
    by_name: bool = False  # part of another test: only if --only says its name
    judge: object = None  # of (folder, serial output): a list of problems, and a remark for the "ok" line
    qemu_min: int = 0  # the test is skipped where QEMU's major version is below
    efi: str = "corbel.efi"  # below the build folder
    options: str = ""  # Corbel's LoadOptions: started by the firmware's shell
    test_ctrl: int | None = None  # on the QEMU of tools/get-split-qemu, with that in MSR_TEST_CTRL at first
    debugctl: int = 0  # ... and that in DEBUGCTL
    force: bool = False  # mkusb is to make the image although the configuration has errors


def conf(vm="", corbel="", name="linux", **keys):
    """A configuration with one Linux VM; keys replace its values, None leaves one out."""
    values = {"kernel": "vmlinuz", "initrd": "initrd.gz", "cmdline": CMDLINE, "memory": "128M", **keys}
    lines = "".join(f"{key} = {value}\n" for key, value in values.items() if value is not None)
    return f"[corbel]\nwhen_idle = poweroff\nattach = {name}\n{corbel}[vm {name}]\n{lines}{vm}"


COMPLAINTS = "WARNING: CPU|BUG:|rcu: INFO|soft lockup|check_tsc_sync|timekeeping watchdog|Oops|not responding"
SHELL = r"""
wait corbel-guest: ready
wait guest#
send echo he''llo-$((40+2))
wait hello-42
send poweroff
"""


def boot_matrix():
    """The guest's shell answers and its power-off ends the machine, whatever the number of CPUs and the memory. Every
    day each number of CPUs and each size once; all combinations in make soak."""
    daily = {("pc", 1, 512), ("q35", 2, 4096), ("pc", 4, 2048), ("q35", 8, 512), ("pc", 8, 4096),
             ("bochs", 1, 512), ("bochs", 2, 1024), ("bochs", 4, 512), ("bochs", 8, 2048)}
    for cpus in 1, 2, 4, 8:
        for memory in 512, 2048, 4096:
            for machine in "pc", "q35":
                yield Test(f"boot-qemu-{machine}-{cpus}cpu-{memory}M", "qemu", conf(), script=SHELL,
                           emu=["--machine", machine, "--cpus", str(cpus), "--memory", str(memory)],
                           soak=(machine, cpus, memory) not in daily)
        for memory in 512, 1024, 2048:
            yield Test(f"boot-bochs-{cpus}cpu-{memory}M", "bochs", conf(), script=SHELL,
                       emu=["--cpus", str(cpus), "--memory", str(memory)], soak=("bochs", cpus, memory) not in daily)
    for cpus in 1, 2:  # a second implementation of SVM
        yield Test(f"boot-ryzen-{cpus}cpu-bochs", "bochs", conf(), script=SHELL, soak=True,
                   emu=["--cpu", "ryzen", "--cpus", str(cpus), "--memory", "512"], says=["svm is on, on"])


def on_both(name, *args, **more):
    for on in "qemu", "bochs":
        yield Test(f"{name}-{on}", on, *args, **more)


# A VM that cannot start is one clear line, and the machine goes on: here it powers off, as no VM runs.
def bad_guests():
    yield from on_both("kernel-no-bzimage", conf(), files={**GUEST, "vmlinuz": b"MZ this is no kernel\n" * 500},
                       status=1, says=[r"vm linux: .*not a kernel"])
    yield from on_both("kernel-empty", conf(), files={**GUEST, "vmlinuz": b""}, status=1,
                       says=[r"vm linux: .*not a kernel"])
    yield from on_both("initrd-too-big", conf(memory="96M"), files={**GUEST, "initrd.gz": bytes(48 << 20)}, status=1,
                       says=[r"vm linux: .*initrd"])
    yield from on_both("memory-not-there", conf(memory="8G"), status=1,
                       says=[r"corbel.conf:\d+: memory: 8192 MiB, but this machine has only \d+ MiB free"])


# What the configuration says wrong is reported with file and line; the VM concerned does not start, others do.
def bad_configurations():
    good = f"[vm good]\nkernel = vmlinuz\ninitrd = initrd.gz\nmemory = 128M\ncmdline = {CMDLINE}\n"

    def bad(name, vm, says):
        text = f"[corbel]\nwhen_idle = poweroff\nattach = good\n[vm bad]\nkernel = vmlinuz\n{vm}\n{good}"
        return on_both(name, text, script=SHELL, status=1, says=[says], force=True)

    yield from bad("config-bad-size", "memory = 25M6", r"corbel\.conf:6: memory: '25M6' is not a size")
    yield from bad("config-unknown-key", "dusk = x", r"corbel\.conf:6: 'dusk' is not a key of \[vm\]")
    yield from bad("config-no-file", "initrd = absent", r"corbel\.conf:6: initrd: no file 'absent'")
    yield Test("config-unreadable-file-qemu", "qemu", conf(initrd="big"), files={**GUEST, "big": bytes(96 << 20)},
               emu=["--memory", "128"], status=1, says=[r"corbel\.conf:6: initrd: 'big' can't be read: EFI error 9"])
    yield from on_both("config-empty", "", files={}, script="wait corbel>\nsend poweroff\n")
    yield from on_both("config-no-vm-poweroff", "[corbel]\nwhen_idle = poweroff\n", files={})


# The console: Ctrl-] leaves the guest, the monitor knows its commands. Its buttons reach the guest, which switches
# itself off.
def monitor():
    script = """
wait guest#
key ctrl-]
wait corbel>
send vms
wait linux
send help
wait console
send console linux
send echo ba''ck
wait back
send insmod /lib/modules/button.ko; insmod /lib/modules/evdev.ko; cd /dev/input; exec 3<event0 4<event1
send pressed() { head -c 24 >/dev/null; cat /sys/class/input/event$1/device/name; }
send { pressed 1 <&4; pressed 0 <&3; poweroff -f; } & echo list''ening
wait listening
key ctrl-]
send vm linux sleepbutton
wait sleepbutton=ok
send console linux
wait Sleep Button
key ctrl-]
send vm linux powerbutton
wait powerbutton=ok
"""
    yield from on_both("monitor-and-back", conf(), script=script, says=["sleepbutton=ok", "ended: power-off"])


def corbelctl(command, to="answers"):
    """A line of a script: what tools/corbelctl prints is added to that file of the test's folder."""
    return f"run {ROOT}/tools/corbelctl $LINE {command} >>$FOLDER/{to}"


# What the monitor sees of a guest that runs: registers, memory by both kinds of address, tables, exits, interrupts,
# the vendor's structure, the trace; through tools/corbelctl, while the guest writes to its console as fast as it can.
def looking(on):
    fields = "vmcs" if on == "bochs" else "vmcb"
    script = f"""
wait guest#
send echo fill''ed-1; while :; do echo noise; done &
wait filled-1
{corbelctl("vms -j")}
{corbelctl("regs linux -j")}
{corbelctl("regs linux/1")}
{corbelctl("x linux p:1000000 32")}
{corbelctl("walk linux ffffffff81000000")}
{corbelctl("x linux ffffffff81000000 16")}
send console linux
wait noise
{corbelctl("irq linux")}
send console linux
wait noise
{corbelctl(fields + " linux")}
{corbelctl("msr 0 c0000080")}
{corbelctl("msr 0 4000ffff")}
{corbelctl("exits linux -r")}
{corbelctl("version")}
{corbelctl("log")}
{corbelctl("rmap 100")}
{corbelctl("top")}
{corbelctl("trace")}
{corbelctl("trace dump 600", "trace")}
{corbelctl("sched")}
send top
wait any key ends
wait any key ends
send-raw q
send trace dump 2
wait trace=end
wait corbel>
send vm linux stop
wait ended
send poweroff
"""
    return script


def judge_looking(folder, _text):
    """What corbelctl printed; and what tools/trace makes of the dump."""
    with open(os.path.join(folder, "answers"), encoding="utf-8") as file:
        text = file.read()
    problems = [f"corbelctl did not print {pattern!r}" for pattern in (
        r'^\{"vm":"linux","id":1,"state":"running",', r'^\{"vm":"linux","vcpu":0,"rip":"0x[0-9a-f]{16}",',
        r"^vm=linux vcpu=1 .*cr3=0x0{8}\w{8}", r"^addr=0x1000000 hex=\"(\w\w ){15}\w\w\" ",
        r"^vm=linux guest_level=4 at=0x\w+ entry=0x\w+ kind=table ", r"^vm=linux guest_level=2 .* kind=leaf .*\n"
        r"vm=linux level=4 table=.* kind=table ", r"^vm=linux gva=0xffffffff81000000 gpa=0x1000000$",
        r"^addr=0xffffffff81000000 ", r"^vm=linux vcpu=1 apic=x2 enabled=1 ", r"^vm=linux pin=4 vector=0x[2-9a-f]\w ",
        r"field=(GUEST_RIP|rip) value=0x", r"field=(PROC_CONTROLS|intercept1) value=0x\w+ bits=\".*\bhlt\b.*\"$",
        r"field=(EXCEPTION_BITMAP|intercept_exceptions) .* bits=\"(\w\w )*AC\b",
        r"field=(ENTRY_INTR_INFO|event_inj) value=0x\w+ (type=none|vector=\d+ type=interrupt error_code=0)$",
        r"^cpu=0 msr=0xc0000080 value=0x\w*d01$",
        r"^version=\d", r"\d I\] virtualization: (svm|vmx) is on", r"^cpu=1 vcpus=.* runs=\d+ ", r"^pfn=0x100 owner=",
        r"exit=io count=\d+ traced=\d+ ticks_avg=\d+", r"^linux +running +2 ", r"^class=exit on=1 events=[1-9]",
    ) if not re.search(pattern, text, re.M)]
    # A dump of 72 KB at 115200 baud, which only Bochs has, kept nobody from the monitor's CPU.
    waits = [int(us) for us in re.findall(r"^cpu=.* wakeup_max_us=(\d+)", text, re.M)]
    if len(waits) != 2 or folder.endswith("bochs") and max(waits) > 500000:
        problems.append(f"longest times from a wake-up to the run: {waits} us")
    if "noise" in text:
        problems.append("corbelctl printed what the guest wrote")
    tool = [os.path.join(ROOT, "tools/trace"), os.path.join(folder, "trace")]
    table = subprocess.run(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    done = subprocess.run([*tool, "--json", os.path.join(folder, "trace.json"),
                           "--svg", os.path.join(folder, "trace.svg")], check=False)
    if table.returncode or done.returncode:
        problems.append(f"tools/trace: {table.stdout[-200:]}")
    for pattern in (r" linux/\d +exit +io +guest_ticks=\d+ rip=0x\w+", r" sched +run ",
                    r" linux/\d +exit +(hlt|irq|wrmsr) "):
        if not re.search(pattern, table.stdout):
            problems.append(f"tools/trace has no {pattern!r}")
    with open(os.path.join(folder, "trace.json"), encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    if not any(e["ph"] == "X" and e["name"].startswith("guest linux/") and e["dur"] > 0 for e in events):
        problems.append("the timeline has no time in the guest")
    with open(os.path.join(folder, "trace.svg"), encoding="utf-8") as file:
        picture = xml.dom.minidom.parse(file)
    texts = {text.firstChild.data for text in picture.getElementsByTagName("text")}
    if not {"CPU 0", "CPU 1", "guest", "io"} <= texts or not texts & {"linux/0", "linux/1"}:
        problems.append(f"the picture has only {texts}")
    return problems, f"{len(events)} in the timeline"


def looking_tests():
    for on in "qemu", "bochs":
        yield Test(f"looking-{on}", on,
                   conf(vcpus="2", cmdline=CMDLINE + " nokaslr nopti").replace("= poweroff", "= monitor"),
                   script=looking(on), judge=judge_looking, emu=["--cpus", "2"], says=["trace=end lines="])


# The ways in which a guest restarts itself: ACPI reset register, deliberate triple fault, jump to the reset vector.
# Each time it comes back to its shell; that is no end of the VM.
def guest_restarts():
    for route, how in ("a", "reset register"), ("t", "deliberate triple fault"), ("b", "reset register"):
        yield from on_both(f"guest-reboot-{route}",
                           conf(cmdline=f"console=ttyS0 quiet cryptomgr.notests reboot={route}"),
                           script="wait corbel-guest: ready\nwait guest#\nsend reboot\n" + SHELL)


DISK = bytes(i * i >> 7 & 0xff for i in range(3 << 20))
DISK_SUM = hashlib.md5(DISK).hexdigest()


# virtio-blk: the guest reads what is in the file, writes and reads back, also after a reboot; the file's other user
# does not see that. Read-only refuses. A file that is no disk is refused.
def disks():
    files = {**GUEST, "disk.img": DISK}
    half = len(DISK) // 2
    script = f"""
wait guest#
send md5sum /dev/vda; cat /sys/block/vda/serial; echo re''ad
wait read
send dd if=/dev/vda of=/dev/vda bs=64k count=24 seek=24 conv=notrunc 2>/dev/null; sync; reboot
wait corbel-guest: ready
wait guest#
send dd if=/dev/vda bs=64k skip=24 2>/dev/null | md5sum; echo writ''ten
wait written
key ctrl-]
send vm linux info
wait vm=linux device=virtio-blk
send console linux
send poweroff
"""
    other = (f"[vm other]\nkernel = vmlinuz\ninitrd = initrd.gz\ncmdline = {CMDLINE}\nmemory = 128M\n"
             "disk = DISK.IMG,readonly\nautostart = no\n")
    yield from on_both("disk", monitor_conf("attach = linux\n", vm="disk = disk.img\n" + other), files=files,
                       script=script + """
wait ended: power-off
send vm other start
wait start=ok
send console other
wait guest#
send cat /sys/block/vda/ro; md5sum /dev/vda; dd if=/dev/zero of=/dev/vda count=1; echo tri''ed
wait tried
send poweroff
wait ended: power-off
send poweroff
""", says=[DISK_SUM, "disk.img", hashlib.md5(DISK[:half]).hexdigest(), "device=virtio-blk requests=.*errors=0",
           "^1$", DISK_SUM, "(?i)dd: .*(read-only|not permitted|error)"])
    yield Test("disk-odd-size-qemu", "qemu", conf("disk = disk.img\n"), files={**GUEST, "disk.img": bytes(1000)},
               status=1, says=["corbel.conf:\\d+: disk: 'disk.img' has 1000 bytes: not whole sectors of 512"])


# Newer kernels of Debian: they find their disk, and have nothing to complain about.
def newer_kernels():
    script = f"""
wait corbel-guest: ready
wait guest#
send uname -r; test $(nproc) = 2 && echo nproc-o''k; md5sum /dev/vda
wait nproc-ok
wait /dev/vda
wait guest#
send reboot
{SHELL}"""
    text = conf("disk = disk.img\n", memory="256M", vcpus=2, cmdline=CMDLINE.replace("quiet", ""))
    for kernel in "6.12", "6.18", "newest":
        files = {"vmlinuz": f"guest/vmlinuz-{kernel}", "initrd.gz": f"guest/initrd-{kernel}.gz", "disk.img": DISK}
        yield from on_both(f"kernel-{kernel}", text, files=files, emu=["--cpus", "2"], script=script, soak=True,
                           says=["Linux version", "nproc-ok", DISK_SUM],
                           never_says=["corbel: PANIC", "this should not be", COMPLAINTS, "unchecked MSR"])


# virtio-net: two VMs on one switch ping each other and move 256 KiB; a third on another switch hears nothing.
def networks():
    one = f"kernel = vmlinuz\ninitrd = initrd.gz\nmemory = 96M\ncmdline = {CMDLINE}\n"
    text = (f"[corbel]\nwhen_idle = poweroff\n[vm a]\n{one}net = lab\n[vm b]\n{one}net = lab\nmac = 02:00:00:00:00:0b\n"
            f"[vm c]\n{one}net = other\n")
    script = """
wait corbel>
send console b
wait -- b:
wait guest#
send ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; cat /sys/class/net/eth0/address; echo up''-b
wait up-b
send nc -l -p 7 | md5sum; echo recei''ved
key ctrl-]
send console c
wait -- c:
wait guest#
send ip addr add 10.0.0.3/24 dev eth0; ip link set eth0 up; ping -c 1 -w 2 10.0.0.2; echo alo''ne
wait alone
key ctrl-]
send console a
wait -- a:
wait guest#
send ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; cat /sys/class/net/eth0/address; ping -c 2 10.0.0.2
wait packets received
send yes corbel | head -c 262144 >/data; nc -w 20 10.0.0.2 7 </data; echo se''nt
wait sent
key ctrl-]
send console b
wait -- b:
wait received
key ctrl-]
send vm a info
send vm c stop
send vm b stop
send vm a stop
"""
    yield from on_both("network", text, script=script, emu=["--cpus", "2"], says=[
        "02:00:00:00:00:0b", "1 packets transmitted, 0 packets received", "02:43:42:00:00:01",
        "2 packets transmitted, 2 packets received",
        hashlib.md5((b"corbel\n" * 40000)[:1 << 18]).hexdigest(), "device=virtio-net requests=.*errors=0 broken=0"])


# virtio-rng gives bytes, and they differ. hvc0 prints, and what is typed goes to the shell on it while that wrote last.
def consoles():
    script = """
wait guest#
send virtio rng console; cat /sys/class/misc/hw_random/rng_current
wait virtio_rng
send head -c 8192 /dev/hwrng >/a; head -c 8192 /dev/hwrng >/b; cmp -s /a /b || wc -c /a /b
wait 16384 total
send PS1='h''vc# ' sh -i </dev/hvc0 >/dev/hvc0 2>&1
wait hvc#
send echo from''-hvc; tty; exit
wait from-hvc
wait /dev/hvc0
wait guest#
send echo from''-tty
wait from-tty
key ctrl-]
send vm linux info
wait virtio-console
send console linux
send poweroff
"""
    yield from on_both("rng-and-hvc", conf(), script=script, says=["device=virtio-rng requests=[1-9].*errors=0",
                                                                   "device=virtio-console requests=[1-9].*errors=0"])
    yield Test("rng-off-qemu", "qemu", conf("rng = off\n"), script="wait guest#\nsend virtio rng; cat "
               "/sys/class/misc/hw_random/rng_current; echo do''ne\nwait done\nsend poweroff\n",
               says=["^none"])
# Several vCPUs: all come up by INIT and SIPI, take turns, go off and on again; each has its own timer and gets IPIs.
# The kernel has nothing to complain about.


def smp_script(vcpus, loops):
    """What is typed: the guest counts its CPUs, keeps all busy, hot-plugs, looks at its interrupts, restarts."""
    last = vcpus - 1
    commands = [
        f"test $(nproc) = {vcpus} && echo nproc-o''k",
        f"for i in $(seq 0 {last}); do taskset -c $i sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done' & done; "
        "wait; echo busy-o''k",
        f"for n in $(seq {loops}); do for i in $(seq {last}); do o=/sys/devices/system/cpu/cpu$i/online; "
        "echo 0 >$o && echo 1 >$o && [ $(cat $o) = 1 ] || echo hotplug-fai''led; done; done; echo hotplug-o''k",
        f"test $(nproc) = {vcpus} && echo again-o''k",
        f"awk '/^ *(LOC|RES|CAL):/ {{ for (i = 2; i < 2 + {vcpus}; i++) n[i] += ($1 != \"LOC:\") * $i; "
        f"for (i = 2; i < 2 + {vcpus}; i++) if ($1 == \"LOC:\" && !$i) print \"no-\" \"timer\" }} "
        f"END {{ for (i = 2; i < 2 + {vcpus}; i++) if (!n[i]) print \"no-\" \"ipi\"; print \"irqs-\" \"ok\" }}' "
        "/proc/interrupts",
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource | sed 's/^/clock-is-/'",
        f"dmesg | grep -E '{COMPLAINTS}' | sed 's/^/complai''nt: /'; echo dmesg-o''k",
    ]
    waits = ["nproc-ok", "busy-ok", "hotplug-ok", "again-ok", "irqs-ok", "clock-is-", "dmesg-ok"]
    lines = ["wait corbel-guest: ready", "wait guest#", "send exec sh"]
    for command, text in zip(commands, waits):
        lines += ["wait guest#", f"send {command}", f"wait {text}"]
    lines += ["wait guest#", "send reboot -f", "wait corbel-guest: ready", "wait guest#",
              f"send test $(nproc) = {vcpus} && echo reborn-o''k", "wait reborn-ok", "wait guest#", "send poweroff -f"]
    return "\n".join(lines) + "\n"


def smp():
    for on, vcpus, cpus, x2apic, soak in (
            ("qemu", 2, 2, True, False), ("qemu", 4, 4, True, True), ("qemu", 4, 2, False, False),
            ("qemu", 8, 4, True, False), ("qemu", 16, 4, True, True), ("qemu", 2, 1, True, False),
            ("bochs", 2, 2, True, False), ("bochs", 4, 4, True, True), ("bochs", 4, 2, False, False),
            ("bochs", 16, 4, True, True)):
        line = CMDLINE if x2apic else CMDLINE + " nox2apic"
        yield Test(f"smp-{on}-{vcpus}on{cpus}{'' if x2apic else '-xapic'}", on,
                   conf(cmdline=line, memory="256M", vcpus=vcpus), emu=["--cpus", str(cpus)],
                   script=smp_script(vcpus, 2 if vcpus > 4 else 5), soak=soak, timeout=900,
                   never_says=["corbel: PANIC", "this should not be", "no-timer", "no-ipi", "complaint:",
                               "hotplug-failed"])


# Linux under load on 4 vCPUs (tools/guest/load): two VMs that talk to each other, each with a disk, on 2 CPUs.
# The short form runs every day; ten minutes of it in make soak, on Bochs three, each of which takes it several.
def loads():
    one = ("kernel = vmlinuz\ninitrd = initrd.gz\nmemory = 160M\nvcpus = 4\n"
           f"cmdline = {CMDLINE}\nnet = lab\ndisk = disk.img\n")
    text = f"[corbel]\nwhen_idle = poweroff\n[vm a]\n{one}[vm b]\n{one}"
    for on, name, seconds, soak in (("qemu", "load", 15, False), ("bochs", "load", 5, False),
                                    ("qemu", "load-long", 600, True), ("bochs", "load-long", 180, True)):
        starts = "".join(f"wait corbel>\nsend console {vm}\nwait -- {vm}:\nwait guest#\n"
                         f"send load {seconds} 10.0.0.{me} 10.0.0.{3 - me}\nwait load {seconds}\nkey ctrl-]\n"
                         for vm, me in (("a", 1), ("b", 2)))
        ends = "".join(f"send console {vm}\nwait -- {vm}:\nwait load: ended:\nwait guest#\nkey ctrl-]\n" for vm in "ab")
        ends += "send vm a stop\nsend vm b stop\n"
        yield Test(f"{name}-{on}", on, text, files={**GUEST, "disk.img": bytes(8 << 20)}, emu=["--cpus", "2"],
                   script=starts + ends, soak=soak, timeout=3600 if soak else 900,
                   says=["load: ended: all is well"] * 2, never_says=["corbel: PANIC", "FAILED"])


def tiny(guest, **keys):
    """A configuration for a guest of tests/guest."""
    keys = {"cmdline": None, **keys}
    return {"conf": conf(kernel="tiny", initrd=None, memory="32M", name=guest, **keys),
            "files": {"tiny": f"tiny/{guest}"}}


def gdb(script, program="", before="", line="extended-remote :$GDB_PORT"):
    """A line of a script: a gdb at the machine's second port does what tests/system/gdb/SCRIPT says."""
    return (f"run {before} timeout 400 gdb -nx -q -batch -ex \"target {line}\" "
            f"-x {os.path.join(HERE, 'gdb', script)} {program}\n")


# gdb debugs guests: breakpoints, steps, watchpoints that a guest does not see; one of two VMs; what happens to a VM
# meanwhile; Linux, which then goes on.
def debuggers():
    line = ["--gdb", "0"]
    symbols = "$BUILD/tiny/gdb"
    keys = "devices = test\n"
    for on, steps, soak in ("qemu", 1000, False), ("bochs", 200, False), ("bochs", 1000, True):
        yield Test(f"gdb-{steps}-steps-{on}", on, **tiny("gdb", vm=keys), emu=line, soak=soak,
                   script="wait gdb: ready\n" + gdb("steps.py", symbols, f"STEPS={steps}"),
                   says=["well: one instruction at a time", "well: and no others"])
    two = tiny("gdb", vm=keys + "[vm chatter]\nkernel = chatter\nmemory = 32M\n")
    two["files"]["chatter"] = "tiny/chatter"
    yield from on_both("gdb-two-vms", **two, emu=line, script="wait gdb: ready\n" + gdb("two.py", symbols),
                       says=["well: the other talks on", "well: the other runs again"])
    lives = tiny("chatter", vm="[vm gdb]\nkernel = gdb\nmemory = 32M\n" + keys)
    lives["files"]["gdb"] = "tiny/gdb"
    lives["conf"] = lives["conf"].replace("attach = chatter", "attach = gdb")
    yield from on_both("gdb-lives", **lives, emu=line + ["--cpus", "2"],
                       script="wait gdb: ready\nkey ctrl-]\nsend gdb gdb\nwait next=gdb\n" +
                       gdb("lives.py", symbols + "; test $? = 137") + gdb("last.py", symbols),
                       says=["well: held, it gets another CPU", "well: all is well so far", "well: and none was seen"],
                       has=["vm gdb: ended: exit: status 0"])
    yield from on_both("gdb-linux", conf("vcpus = 2\n"), emu=line + ["--cpus", "2"],
                       script="wait corbel-guest: ready\nwait guest#\n" + gdb("linux.py") + SHELL.split("\n", 3)[3],
                       says=["well: both vCPUs", "well: Ctrl-C again"])


# Guests that break, and what is said of each: one line, with the reason. The machine goes on and powers itself off.
def guest_ends():
    for guest, line in (("triple-fault", "triple fault: triple fault at rip 0x1000[0-9a-f]+"),
                        ("jump-nowhere", "memory fault: executes at gpa 0xd0000000 .*where no memory is"),
                        ("idt-nowhere", "memory fault: cannot deliver vector 64 "),
                        ("tables-nowhere", "memory fault: has page tables at gpa 0xd000[0-9a-f]+ .*no memory is")):
        yield from on_both(guest, **tiny(guest), status=1, says=[f"{guest}: now", f"vm {guest}: stopped: {line}"])
    yield from on_both("spin-masked", **tiny("spin-masked"), says=["ended: operator"],
                       script="wait spin-masked: now\nkey ctrl-]\nsend vm spin-masked stop\n")
    # 2,000 self-IPIs and EOIs are as many exits, or none.
    script = "wait x2apic: all is well\nkey ctrl-]\nsend exits x2apic\nwait exit=wrmsr\nsend vm x2apic stop\n"
    yield from on_both("x2apic", **tiny("x2apic", apicv="off"), script=script,
                       says=["x2apic: all is well", r"exit=wrmsr count=\d{4}\s"])
    yield Test("x2apic-apicv-bochs", "bochs", **tiny("x2apic"), script=script,
               says=["x2apic: all is well", r"exit=wrmsr count=\d\d\s"])
    # As the daily boots, and then: how many of a group's IPIs were posted to the CPU.
    group = next(group for group in guests.groups() if group.name == "posted")
    for name, keys, notified in ("posted", [], r"\d{4}"), ("posted-off", ["posted = off"], "0"):
        group = replace(group, vm=group.vm + keys)
        yield Test(f"{name}-bochs", "bochs", guests.configuration([group]), files={"posted": "tiny/posted"},
                   emu=["--cpus", "2"],
                   script=guests.script([group], "send irq posted\nsend exits posted\nwait exit=irq\n"),
                   says=[rf"vcpu=1 .*notified={notified}\b"],
                   judge=lambda folder, text, group=group: guests.judge([group], folder, text)[:2])
    yield from on_both("idle-forever", **tiny("idle-forever"), says=["ended: operator"],
                       script="wait idle-forever: now\nkey ctrl-]\nsend vm idle-forever info\nwait state=running\n"
                              "send vm idle-forever stop\n")
    # x_split: where the guest executes, leaves have 4 KiB
    yield from on_both("audit", **tiny("idle-forever", corbel="x_split = on\n"),
                       says=[r"level=1 \S+ \S+ \S+ kind=leaf \S+ prot=rwx ", "ended: operator"],
                       script="wait idle-forever: now\nkey ctrl-]\nsend audit\nwait findings=0\n"
                              "send ept idle-forever 1000000\nwait kind=leaf pfn=\nwait prot=rwx\n"
                              "send audit idle-forever\nwait findings=0\nsend mem\nwait corruptions=0\n"
                              "send vm idle-forever stop\n")
    # A guest writes to this page. Where the CPU has no A and D bits in EPT, they stay clear.
    written = {**tiny("checksum", corbel="x_split = off\n"),
               "script": "wait checksum: ready\nkey ctrl-]\nsend ept checksum 1c00000\nwait kind=leaf pfn=\n"
                         "send vm checksum stop\n"}
    yield from on_both("dirty", **written, says=["kind=leaf .* accessed=1 dirty=1", "ended: operator"])
    yield Test("dirty-old-bochs", "bochs", **written, emu=["--cpu", "corei7_ivy_bridge_3770k"],
               says=["kind=leaf .* accessed=0 dirty=0", "ended: operator"])


# A guest's first GiB becomes one leaf when the last of it has been touched.
def large_leaves():
    test = tiny("large-leaf", corbel="x_split = off\n")  # otherwise leaves are small where the guest executes
    test["conf"] = test["conf"].replace("32M", "1G")
    for on in "qemu", "bochs":
        yield Test(f"large-leaf-{on}", on, **test, emu=["--memory", "4096"], status=0, soak=on == "bochs",
                   script="wait large-leaf: all is well\nkey ctrl-]\nsend ept large-leaf 2001000\nwait kind=leaf pfn=\n"
                          "send audit\nwait findings=0\nsend vm large-leaf stop\n",
                   says=[r"level=3 \S+ \S+ \S+ kind=leaf \S+ prot=rwx ", "leaves=1 keys=1 findings=0",
                         "ended: operator"])


# 8259A and 8254, as kernels without paravirtual help use them; and with vCPU 0 on another CPU than the boot CPU.
def legacy_timers():
    for cpus in 1, 2:
        yield from on_both(f"legacy-timer-{cpus}cpu", **tiny("legacy-timer", cpus=cpus - 1), emu=["--cpus", str(cpus)],
                           says=["legacy-timer: all is well"])


def start_ipis():
    # Stopped and restarted while vCPUs wait for their SIPI.
    yield from on_both("waiting-vcpus", **tiny("idle-forever", vcpus=3), emu=["--cpus", "2"], says=["ended: operator"],
                       script="wait idle-forever: now\nkey ctrl-]\nsend vm idle-forever info\nwait vcpu=1\n"
                              "wait state=wait-for-sipi\nsend vm idle-forever reset\n"
                              "wait by the operator\nsend vm idle-forever info\nwait resets=1\n"
                              "wait state=wait-for-sipi\nsend vm idle-forever stop\n")
    for vcpus, cpus in (4, 4), (5, 2), (3, 1):
        yield from on_both(f"start-ipis-{vcpus}on{cpus}", **tiny("start-ipis", vcpus=vcpus), emu=["--cpus", str(cpus)],
                           says=["start-ipis: first life", "start-ipis: all is well"])


# The boot protocols other than Linux's: each guest prints what it was told, and ends by the debug-exit port.
MAP_32M = [rf"map 00000000 {base} 00000000 {size} 0000000{kind} " for base, size, kind in
           (("00000000", "00090000", 1), ("00090000", "00010000", 3), ("00100000", "01f00000", 1))]


# [memory] sections: what one VM writes the other reads; slots that change under a VM that runs.
def memories():
    mailbox = "\n[memory m]\nsize = 2M\n"
    text = "[corbel]\nwhen_idle = poweroff\n" + mailbox + "".join(
        f"[vm {name}]\nkernel = tiny\nmemory = 32M\nshare = m, 0x80000000\n" for name in ("one", "two"))
    yield from on_both("shared-memory", text, files={"tiny": "tiny/mailbox"}, emu=["--cpus", "2"],
                       says=["vm (one|two): ended: power-off", "vm (one|two): ended: power-off"])

    # The counter, and on SVM the page tables, which walks write. A vCPU on the monitor's CPU needs its turn between.
    dirty = "match dirty=0x1000000 size=0x1000\\s\nmatch dirty_pages=[1-9]\\D"
    lines = [("flags 1 log-dirty", "wait flags=ok\nsleep 1"), ("dirty 1", f"{dirty}\nsleep 1"), ("dirty 1", dirty),
             ("flags 1 none", "wait flags=ok"), ("dirty 1", "wait not logged"), ("move 2 0xa0000000", "wait move=ok"),
             ("add m 0xa0000000", "wait overlaps another slot"), ("add m 0xfee00000", "wait overlaps a device"),
             ("add m 0xb0001000", "wait within 2 MiB"), ("add m 0x1000000000000", "wait physical addresses"),
             ("add m 0xb0000000 read-only", "wait slot=3 add=ok"), ("remove 3", "wait remove=ok"),
             ("move 2 0x80000000", "wait move=ok"), ("remove 2", "wait remove=ok"), ("remove 2", "wait no such slot")]
    test = tiny("mailbox", vm="share = m, 0x80000000\n")
    script = "wait mailbox: now\nkey ctrl-]\nwait corbel>\n" + "".join(
        f"send slot mailbox {what}\n{answer}\n" for what, answer in lines)
    script += "send audit\nwait findings=0\nsend slot mailbox remove 1\n"
    test["conf"] += mailbox
    yield from on_both("slots", **test, script=script, status=1, emu=["--cpus", "2"],
                       says=["stopped: memory fault: has page tables at gpa 0x8000 .*where no memory is"])


def packed(contents, hot="", damage=None):
    """What makes a file of packed pieces of a function's bytes; with one wrong byte in the piece `damage`."""
    def make(build):
        with tempfile.TemporaryDirectory() as folder:
            plain, lines, out = (os.path.join(folder, name) for name in ("plain", "hot", "out"))
            with open(plain, "wb") as file:
                file.write(contents(build))
            with open(lines, "w", encoding="ascii") as file:
                file.write(hot)
            subprocess.run([os.path.join(build, "host/mkpieces"), "-H", lines, plain, out], check=True,
                           stdout=subprocess.DEVNULL)
            with open(out, "rb") as file:
                data = bytearray(file.read())
        if damage is not None:
            offset, length = struct.unpack_from("<QQ", data, 32 + 16 * damage)
            data[offset + length // 3] ^= 0x10
        return bytes(data)
    return make


def plain_initrd(build):
    with gzip.open(os.path.join(build, "guest/initrd.gz")) as file:
        return file.read()


# Memory that is loaded by need. Of the guest's 16 pieces its loader needs 0 and 8, it reads 2 to 5 (and finds in each
# word what it should), 12 and 13 are fetched ahead, and 6, for which it asks then, is damaged. Linux has its initrd so.
def lazy():
    golden = 0x9e3779b97f4a7c15
    memory = packed(lambda build: b"".join(struct.pack("<Q", at * golden & (1 << 64) - 1)
                                           for at in range(0, 16 << 21, 8)), hot="12\n13\n", damage=6)
    text = ("[vm lazy]\nkernel = lazy\nimage = memory.lz\nmemory = 32M\n"
            "[vm linux]\nkernel = vmlinuz\ninitrd = initrd.lz\nvcpus = 2\nautostart = no\n"
            f"memory = 128M\ncmdline = {CMDLINE}\n"
            "[vm bad]\nkernel = lazy\nimage = lazy\n[vm small]\nkernel = lazy\nimage = memory.lz\nmemory = 16M\n")
    script = """
wait corbel>
send console lazy
wait lazy: every word is right
key ctrl-]
wait corbel>
send vm lazy info
match image=memory.lz gpa=0x0 pieces=16 fetched=8 ahead=2 damaged=0 hot=0,8,[0-9,]+\s
send clone lazy c
wait vm c: not started: vm lazy can't be cloned: its memory comes by need
send console lazy
send-raw d
match vm lazy: stopped: .*\n
send vm linux start
send console linux
""" + SHELL.replace("send poweroff", """key ctrl-]
wait corbel>
send vm linux info
match image=initrd.lz gpa=0x7c00000 pieces=2 fetched=2 ahead=0 damaged=0 hot=(0,1|1,0)\\s
send console linux
send poweroff
match vm linux: ended: .*\n
send poweroff""")
    yield from on_both("lazy", text, script=script, emu=["--cpus", "2", "--memory", "1024"], status=1, says=[
        r"corbel\.conf:\d+: image: 'lazy': no file of packed pieces",
        r"corbel\.conf:\d+: image: 'memory\.lz': it is larger than the VM's memory below 3 GiB",
        r"memory\.lz: piece 6: a block's checksum is wrong",
        r"vm lazy: stopped: memory fault: vCPU 0 reads gpa 0xc00000 .*: memory\.lz", "vm linux: ended: power-off"],
        files={"lazy": "tiny/lazy", "vmlinuz": "guest/vmlinuz", "memory.lz": memory,
               "initrd.lz": packed(plain_initrd)})


# A Linux is forked ten times; each clone has what it had, in memory and on its disk, writes, ends and goes, and the
# first one sees none of that. Then back to a snapshot, twice. When all are gone, the machine has what it had before.
def clones():
    hold = "head -c 1500000 /dev/urandom >/tmp/{0}; md5sum /tmp/{0} >/tmp/{0}.sum"
    store = "dd if=/tmp/{0} of=/dev/vda bs=64k conv=notrunc 2>/dev/null; sync"
    stored = "echo 3 >/proc/sys/vm/drop_caches; head -c 1500000 /dev/vda | cmp - /tmp/{0}"
    owners = r"owner=\"guest\" kib=(\d+)"

    def same(folder, text):
        kib = re.findall(owners, text)
        return ([] if len(kib) == 2 and kib[0] == kib[1] else [f"guest memory before and after: {kib}"]), ""

    script = f"""
wait corbel>
send mem
match owner=total.*\\n
send vm linux start
send console linux
wait guest#
send {hold.format("x")}; {store.format("x")}; echo kep''t
wait kept
key ctrl-]
wait corbel>
"""
    for n in range(1, 11):
        script += f"send clone linux c{n}\nmatch vm c{n}: a clone of linux.*\\n\n"
    for n in range(1, 11):
        script += f"""send console c{n}
send {stored.format("x")} && md5sum -c /tmp/x.sum && {hold.format("y")}; {store.format("y")}; echo c{n} wro''te
wait c{n} wrote
send {stored.format("y")} && md5sum -c /tmp/x.sum /tmp/y.sum && echo c{n} is we''ll
wait c{n} is well
send poweroff
match vm c{n}: ended: power-off.*\\n
send vm c{n} destroy
match vm c{n}: destroyed.*\\n
"""
    script += """send snapshot linux
match vm linux-snapshot: a snapshot of linux.*\\n
send vm linux-snapshot start
wait a snapshot
"""
    for n in 1, 2:
        script += f"""send console linux
send ls /tmp; echo over >/tmp/x; {store.format("x")}; rm /tmp/x; touch /tmp/gone{n}; echo chan''ged
wait changed
key ctrl-]
wait corbel>
send restore linux
match vm linux: a clone of linux-snapshot.*\\n
send console linux
send {stored.format("x")} && md5sum -c /tmp/x.sum && ls /tmp/gone* ; echo loo''ked
match /tmp/x: OK[^$]*No such file[^$]*looked
key ctrl-]
wait corbel>
"""
    script += """send audit
wait findings=0
send vm linux stop
match vm linux: ended.*\\n
send vm linux-snapshot destroy
match vm linux-snapshot: destroyed.*\\n
send vm linux destroy
match vm linux: destroyed.*\\n
send vm linux create
wait create=ok
send mem
match owner=total.*\\n
send poweroff
"""
    # A small guest on both every day: what was written before, by each of them, and after going back, is right.
    small = """
wait corbel>
send mem
match owner=total.*\\n
send vm a start
send console a
wait checksum: ready
key ctrl-]
send clone a b
match vm b: a clone of a .*\\n
send snapshot a
match vm a-snapshot: a snapshot of a .*\\n
send restore a
match vm a: a clone of a-snapshot.*\\n
send clone a-snapshot c
match vm c: a clone of a-snapshot.*\\n
send audit
wait findings=0
send vm a-snapshot destroy
match vm a-snapshot: destroyed.*\\n
"""
    for name in "bac":
        small += f"""send console {name}
send-raw tq
wait checksum: every round was right
match vm {name}: ended: .*\\n
send vm {name} destroy
match vm {name}: destroyed.*\\n
"""
    small += "send vm a create\nwait create=ok\nsend mem\nmatch owner=total.*\\n\nsend poweroff\n"
    # As many generations as there may be, and then no more (one in which the VM had written nothing is none).
    many = "wait corbel>\nsend vm a start\n"
    refused = "not started: vm a can't be cloned: 32 generations of its clones live"
    for n in range(34):
        many += f"""send console a
{"send-raw t" if n else ""}
wait checksum: ready
key ctrl-]
send clone a c{n}
match vm c{n}: ({refused if n == 33 else "a clone of a" if n < 32 else f"a clone of a|{refused}"})
""" + (f"send vm c{n} stop\nmatch vm c{n}: ended\n" if n < 32 else "")
    for on in "qemu", "bochs":
        for name, script_of, more in (("small", small, {"judge": same}),
                                      ("many", many + "send poweroff\n", {"soak": True})):
            yield Test(f"clone-{name}-{on}", on,
                       "[corbel]\nx_split = on\n[vm a]\nkernel = checksum\nmemory = 64M\nautostart = no\n",
                       script=script_of, files={"checksum": "tiny/checksum"}, never_says=["WRONG", "PANIC"], **more)

    text = conf(autostart="no", vcpus=2, net="lan", disk="disk.img").replace(
        "when_idle = poweroff\nattach = linux\n", "")
    for on in "qemu", "bochs":
        yield Test(f"clone-{on}", on, text, script=script, judge=same, files={**GUEST, "disk.img": DISK},
                   emu=["--cpus", "2", "--memory", "1024"], timeout=900, soak=on == "bochs")


# A task switch that meets missing memory at every step: the guest has the picture, and checks what came of it. The
# pieces come in the order of the steps, each for an exit at the same instruction. QEMU's CPU does it all alone (it has
# no exit for task switches), and what comes after it has saved the old task it can't do again: there that memory is
# touched before.
def task_missing():
    gdt, tss_a, tss_b, ldt, directory, table, stack = (0x21ff000, *range(0x2400000, 0x3000000, 0x200000))

    def descriptor(base, limit, attr):
        return struct.pack("<HHBBBB", limit & 0xffff, base & 0xffff, base >> 16 & 0xff, attr & 0xff,
                           limit >> 16 | attr >> 8, base >> 24)

    def memory(late):
        def words(build):
            data = bytearray(48 << 20)
            tss = dict.fromkeys(range(26), 0) | {7: directory, 8: 0x3a0000, 9: 2, 10: 0x777, 14: stack + 0x800,
                                                 18: 0x10, 19: 0x08, 20: 0x10, 21: 0x10, 23: 0x0c, 24: 0x1008}
            for at, content in (
                    (gdt + 0x08, descriptor(0, 0xfffff, 0xc09b)), (gdt + 0x10, descriptor(0, 0xfffff, 0xc093)),
                    (gdt + 0x18, descriptor(tss_a, 0x67, 0x8b)), (gdt + 0x1000, descriptor(tss_b, 0x67, 0x89)),
                    (gdt + 0x1008, descriptor(ldt, 15, 0x82)), (ldt + 8, descriptor(0x123000, 0xfff, 0x92)),
                    (tss_a + 0x1c, struct.pack("<I", 0x390000)), (tss_b, struct.pack("<26I", *tss.values())),
                    (directory, struct.pack("<12I", *(table | 3 if i == 10 else i << 22 | 0x83 for i in range(12)))),
                    (table, struct.pack("<1024I", *(0x2800000 + i * 0x1000 | 3 for i in range(1024)))),
                    (0x3b0000, bytes([late]))):
                data[at:at + len(content)] = content
            return bytes(data)
        return packed(words)

    steps = "17,16,19,18,21,22,20,23"
    for name, on, emu, late, order in (("bochs", "bochs", [], 0, steps), ("qemu", "qemu", [], 1, "17,19,18"),
                                       ("ryzen-bochs", "bochs", ["--cpu", "ryzen"], 0, steps)):
        test = tiny("task-missing", vm="protocol = flat\naddress = 0x300000\nimage = memory.lz\n")
        test["conf"] = test["conf"].replace("memory = 32M", "memory = 48M")
        test["files"]["memory.lz"] = memory(late)
        yield Test(f"task-missing-{name}", on, **test, emu=emu,
                   script="wait task-missing: it is over\nkey ctrl-]\nwait corbel>\nsend vm task-missing info\n"
                          "wait memory_fault=\nsend vm task-missing stop\n",
                   says=["task-missing: it is over", rf"hot=[0-9,]*,{order}\s", r"memory_fault=8 .*rip=0x300800 "],
                   never_says=["WRONG"])


# A snapshot is taken out of the machine's memory and becomes an image; on a second machine, the same as the first, a VM
# starts from that, where it was, before it has any of its memory. Others can't: with other memory, with a vCPU more, or
# from an image that is damaged.
def images():
    boot = """[corbel]
[vm {0}]
kernel = kernel
image = vm.image
{1}
"""
    misfits = """[vm small]
kernel = kernel
memory = 16M
image = vm.image
[vm more]
kernel = kernel
image = vm.image
{1}vcpus = 3
[vm damaged]
kernel = kernel
{0}image = damaged.image
"""
    second = """wait corbel>
send vm {0} info
match pieces=\\d+ fetched=\\d+
send console {0}
{1}
match vm {0}: ended: power-off.*\\n
send poweroff
"""
    steps = r"""
key ctrl-]
wait corbel>
send snapshot {0}
wait a snapshot of {0}
{2}
run cd $FOLDER && PATH=$BUILD/host:$PATH && mkpieces -s {0} {3} vm.image && mkpieces -l vm.image && rm -f dump
run cd $FOLDER && cp vm.image damaged.image && printf X | dd of=damaged.image bs=1 seek=4000 conv=notrunc
run $TOOLS/mkusb --efi $BUILD/corbel.efi -c $FOLDER/second.conf -o $FOLDER/second $FILES
run $TOOLS/emu --on {1} $EMU --timeout 600 --script $FOLDER/second.script $FOLDER/second || test $? = 1
run cd $FOLDER && rm vm.image damaged.image second
send vm {0} stop
wait ended
send poweroff
"""

    def test(name, on, first, rest, files, conf, ram="", **more):
        vm, high = name.split("-")[0], "high" in name
        run = steps.format(vm, on, "sleep 0" if ram else "dump $FOLDER/dump", ram or "dump")
        text = boot.format(vm, conf) + ("" if high else misfits.format(conf, conf.replace("vcpus = 2\n", "")))
        for word, value in (("TOOLS", os.path.join(ROOT, "tools")),
                            ("FILES", " ".join(f"{file}=$BUILD/{path}" for file, path in files.items()) +
                             " vm.image=$FOLDER/vm.image damaged.image=$FOLDER/damaged.image"),
                            ("EMU", f"--qemu $({ROOT}/tools/get-qemu $BUILD/qemu)" if on == "qemu" else
                             "--bochs $BUILD/bochs")):
            run = run.replace("$" + word, value + (" --memory 4608" if high and word == "EMU" else ""))
        return Test(f"image-{name}-{on}", on, f"[corbel]\nattach = {vm}\n[vm {vm}]\nkernel = kernel\n{conf}",
                    script=first + run, files={**files, "second.conf": text.encode(),
                                               "second.script": second.format(vm, rest).encode()},
                    says=[rf"vm {vm}-snapshot: a snapshot of {vm}", *([] if high else [
                        r"corbel.conf:\d+: image: 'vm.image': its memory is not as large as the VM's",
                        r"vm more: not started: its saved state: vm 0: nr_vcpus: ",
                        r"corbel.conf:\d+: image: 'damaged.image': its saved state is damaged"]),
                          rf"vm {vm}: ended: power-off"], **more)

    share = [f"--qemu-arg={arg}" for arg in (
        "-machine", "memory-backend=ram", "-object",
        "memory-backend-file,id=ram,size=4608M,share=on,mem-path=$FOLDER/dump")]
    for on in "qemu", "bochs":
        yield test("checksum", on, "wait checksum: ready\n", "send-raw q\nwait every round was right",
                   {"kernel": "tiny/checksum"}, "memory = 32M\n")
        for name, memory, more in (("linux", "128M", {}), *([("linux-high", "3300M", {
                "ram": "-r dump", "emu": ["--memory", "4608", *share]})] if on == "qemu" else [])):
            yield test(name, on, """wait guest#
send virtio rng console; head -c 1500000 /dev/urandom >/tmp/x; md5sum /tmp/x >/tmp/x.sum; n=1; echo kep''t
wait kept
""", r"""send md5sum -c /tmp/x.sum && echo n is $n, $(nproc) CPUs, a se''cond; sleep 1; date; md5sum -c /tmp/x.sum
wait n is 1, 2 CPUs, a second
wait x: OK
send poweroff""", {"kernel": "guest/vmlinuz", "initrd.gz": "guest/initrd.gz"},
                       f"initrd = initrd.gz\ncmdline = {CMDLINE}\nmemory = {memory}\nvcpus = 2\nnet = lan\n",
                       soak=True, timeout=1200, **more)


def boot_protocols():
    modules = {"one.txt": b"content of one", "two.txt": b"content of two\n" * 600}
    keys = "devices = test\nmodule = one.txt first  words\nmodule = two.txt\n"

    def told(modules, end):
        return [*MAP_32M, *(rf"module {start:08x} {end_of:08x} {words}: content of {which}"
                            for start, end_of, words, which in modules), "bss 00000000", end]

    for guest, top in ("multiboot", 0x204000), ("multiboot-elf", 0x404000):
        test = tiny(guest, vm=keys, cmdline="a b=c  d")
        test["files"].update(modules)
        yield from on_both(guest, **test, says=[
            "multiboot: flags 0000024d lower 00000240 upper 00007c00", "loader Corbel", "cmdline <a b=c  d>",
            *told(((top, top + 14, "first  words", "one"), (top + 0x1000, top + 0x1000 + 9000, "", "two")),
                  f"vm {guest}: ended: exit: status 0")])
    test = tiny("pvh", vm=keys, cmdline="a b=c  d")
    test["files"].update(modules)
    yield from on_both("pvh", **test, says=[
        "pvh: version 00000001", "rsdp <RSD PTR >", "cmdline <a b=c  d>",
        *told(((0x1004000, 14, "first  words", "one"), (0x1005000, 9000, "", "two")), "vm pvh: ended: exit: status 0")])
    yield from on_both("flat", **tiny("flat", vm="protocol = flat\naddress = 0x300000\ndevices = test\n",
                                      cmdline="some words"), status=1,
                       says=["flat: signature QEMU", "ram 00000000 02000000", "cpus 00000001", "cmdline size 0000000b",
                             "cmdline <some words>", "behind an item 00000000", "files 00000000",
                             "vm flat: stopped: exit: status 3", "power off: 1 VM failed"])
    yield from on_both("flat-real", **tiny("flat-real", vm="protocol = flat\naddress = 0x7c00\ndevices = test\n"),
                       says=["flat-real: real mode", "vm flat-real: ended: exit: status 0"])
    # Without devices = test the ports are not there.
    yield from on_both("no-test-devices", **tiny("flat", vm="protocol = flat\naddress = 0x300000\n"),
                       says=["ram ffffffff ffffffff", "ended: operator"],
                       script="wait cmdline size ffffffff\nkey ctrl-]\nsend vm flat stop\n")


# Kernels that others wrote. GNU Mach comes packed, and mkusb unpacks it.
def others_kernels():
    yield from on_both("gnumach", conf(name="mach", kernel="gnumach.gz", initrd=None, cmdline="console=com0",
                                       memory="64M"),
                       files={"gnumach.gz": "guest/gnumach.gz"},
                       script="wait No bootstrap code loaded\nkey ctrl-]\nsend vm mach stop\n",
                       says=["GNU Mach 1.8", "00000000000090000, available", "00000000000a0000, ACPI",
                             "000000000004000000, available", "ended: operator"])
    # A first pass, in which it waits for 80 seconds to see bits fade.
    for on in "qemu", "bochs":
        yield Test(f"memtest-{on}", on, conf(name="memtest", kernel="memtest.bin", initrd=None, memory="16M",
                                             cmdline="console=ttyS0,115200", pm_timer="on"),
                   files={"memtest.bin": "guest/memtest.bin"}, soak=True, timeout=1800,
                   script="wait Pass:  1        Errors: 0\nkey ctrl-]\nsend vm memtest stop\n",
                   says=["ended: operator"], never_says=["corbel: PANIC", "this should not be", "Errors: [1-9]"])


# A Linux whose clock is the PM timer: a second of sleep is one on it.
def pm_timer():
    clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    yield from on_both("pm-timer", conf(pm_timer="on", cmdline=f"{CMDLINE} clocksource=acpi_pm"), soak=True,
                       script=f"wait corbel-guest: ready\nwait guest#\nsend cat {clock}\nwait acpi_pm\n"
                              "send sleep 1; echo sl''ept\nwait slept\nsend poweroff\n",
                       says=[r"acpi_pm\s*$", "slept"])


# Broken kernels of all kinds in one boot: each VM has its line, and the machine goes on.
def broken_kernels():
    def multiboot(flags=0, *addresses):
        header = struct.pack("<3I", 0x1badb002, flags, -(0x1badb002 + flags) & 0xffffffff)
        return header + struct.pack(f"<{len(addresses)}I", *addresses)

    def elf(entry=0x200000, segments=((1, 0, 0x200000, 64, 4096),), machine=3, tail=bytes(64)):
        head = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<2H5I6H", 2, machine, 1, entry, 52, 0, 0, 52, 32,
                                                         len(segments), 0, 0, 0)
        return head + b"".join(struct.pack("<8I", kind, offset, at, at, size, memory, 7, 4096)
                               for kind, offset, at, size, memory in segments) + tail

    note = struct.pack("<3I", 4, 4, 18) + b"Xen\0" + struct.pack("<I", 0x900000)
    kernels = {
        "text": (b"just some text\n" * 40, "", "neither bzImage, Multiboot nor ELF"),
        "mb-none": (b"x" * 100, "protocol = multiboot\n", "no Multiboot header"),
        "mb-flags": (multiboot(8), "", "Multiboot flags 0x8"),
        "mb-short": (multiboot(1 << 16), "", "bad Multiboot header: cut short"),
        "mb-before": (multiboot(1 << 16, 0x200000, 0x300000, 0, 0, 0x200000), "", "bad Multiboot header: it is at"),
        "mb-high": (multiboot(1 << 16, 0x90000000, 0x90000000, 0, 0, 0x90000000), "",
                    "needs 32 bytes of memory at 0x90000000"),
        "mb-end": (multiboot(1 << 16, 0x200000, 0x200000, 0x300000, 0, 0x200000), "",
                   "1048576 bytes at 0 of a file of 32,"),
        "mb-entry": (multiboot(1 << 16, 0x200000, 0x200000, 0, 0, 0x100000), "", "its entry 0x100000 is outside"),
        "mb-no-elf": (multiboot(), "", "Multiboot without addresses, and bad ELF: no ELF signature"),
        "elf-no-note": (elf(), "", "ELF without a PVH entry"),
        "elf-machine": (elf(machine=40), "", "bad ELF: not for x86"),
        "elf-cut": (elf()[:40], "", "bad ELF: its header is cut short"),
        "elf-overlap": (elf(segments=((4, 148, 0, 20, 20), (1, 0, 0x200000, 64, 4096), (1, 0, 0x200fff, 64, 4096)),
                            tail=note), "", r"its pieces at 0x200000\.\.0x201000 and 0x200fff\.\.0x201fff overlap"),
        "elf-entry": (elf(segments=((4, 116, 0, 20, 20), (1, 0, 0x200000, 64, 4096)), tail=note), "",
                      "its entry 0x900000 is outside"),
        "flat-nowhere": (b"x" * 100, "protocol = flat\naddress = 0x8ffff\n", "needs 100 bytes of memory at 0x8ffff"),
        "flat-empty": (b"", "protocol = flat\n", "the image is empty"),
    }
    text = "[corbel]\nwhen_idle = poweroff\n" + "".join(
        f"[vm {name}]\nkernel = {name}.img\nmemory = 16M\n{keys}" for name, (_, keys, _) in kernels.items())
    yield from on_both("broken-kernels", text, files={f"{name}.img": data for name, (data, _, _) in kernels.items()},
                       status=1, emu=["--memory", "1024"],
                       says=[f"vm {name}: not started: .*{line}" for name, (_, _, line) in kernels.items()] +
                       [f"power off: {len(kernels)} VMs failed"])


def cpu_device(number, features, core=0, thread=0):
    return ["--qemu-arg", "-device", "--qemu-arg",
            f"EPYC-x86_64-cpu,socket-id={number},core-id={core},thread-id={thread},{features}"]


DIFFERENT = ["--cpu", "EPYC,svm=on,npt=on", "--qemu-arg", "-smp", "--qemu-arg",
             "1,maxcpus=3,sockets=3,cores=1,threads=1"]
NO_IDLE = "when_idle = monitor\n"


def monitor_conf(extra="", **keys):
    """The prompt first, and it stays when no VM runs."""
    return conf(**keys).replace("when_idle = poweroff\nattach = linux\n", NO_IDLE + extra)


# Machines that can't run VMs, or not on every CPU: the prompt is there, and says exactly what is missing.
def cpus():
    ask = "wait corbel>\nsend virt\nsend poweroff\n"
    for name, cpu, line in (("no-svm", "max,svm=off", "CPU 0: the CPU has neither VMX nor SVM"),
                            ("no-npt", "max,svm=on,npt=off", r"CPU 0: no nested paging \(NPT\)")):
        yield Test(f"cpu-{name}-qemu", "qemu", monitor_conf(), emu=["--cpu", cpu], script=ask, status=1,
                   says=["virtualization: no VM can run: " + line, 'obstacle="' + line])
    for name, cpu, line in (("no-vmx", "athlon64_clawhammer", "neither VMX nor SVM"),
                            ("no-ept", "core2_penryn_t9600", "EPT")):
        yield Test(f"cpu-{name}-bochs", "bochs", monitor_conf(), emu=["--cpu", cpu], script=ask, status=1,
                   says=["virtualization: CPU 0: .*" + line, "no VM can run"])
    # A second CPU without SVM and a third without NPT.
    three = [*DIFFERENT, *cpu_device(1, "svm=off"), *cpu_device(2, "npt=off")]
    diff = "wait corbel>\nsend cpu 1 diff\nsend cpu 2 diff\nsend cpus\n"
    yield Test("cpu-mixed-exclude-qemu", "qemu", monitor_conf("mixed_cpus = exclude\n"), emu=three,
               script=diff + "send console linux\nwait guest#\nsend poweroff\nwait ended\nsend poweroff\n",
               says=["CPU 1 is excluded", "CPU 2 is excluded", 'cpu=1 .*field="SVM features"',
                     'cpu=2 .*field="SVM features".*', "cpu=1 .*virt=excluded", "cpu=2 .*virt=excluded"])
    yield Test("cpu-mixed-refuse-qemu", "qemu", monitor_conf("mixed_cpus = refuse\n"), emu=three, script=ask, status=1,
               says=["the CPUs differ and mixed_cpus = refuse", "vm linux: not made: the CPUs differ"])
    # AVX2 on one CPU only: common takes it away from the guest, and both CPUs are used.
    yield Test("cpu-mixed-common-qemu", "qemu", conf("cpus = 1\n", "mixed_cpus = common\n"),
               emu=[*DIFFERENT, *cpu_device(1, "avx2=off"), *cpu_device(2, "svm=off")],
               script="wait guest#\nsend grep -c avx2 /proc/cpuinfo; echo a''vx2-counted\nwait avx2-counted\n"
                      "send poweroff\n",
               says=["CPU 1 differs", "what they have in common is used", "svm is on, on 2 of 3 CPUs",
                     "\\n0\\s+avx2-counted"])
    # The reference need not be the boot CPU.
    yield Test("cpu-setup-cpu-qemu", "qemu", conf("cpus = 1\n", "setup_cpu = 1\n"),
               emu=[*DIFFERENT, *cpu_device(1, "avx2=off")], script=SHELL,
               says=["svm is on, on [12] of 2 CPUs"])
    for on in "qemu", "bochs":
        yield Test(f"virt-off-on-{on}", on, monitor_conf(autostart="no"), emu=["--cpus", "2"],
                   script="wait corbel>\nsend virt off\nwait virt=off\nsend vm linux start\nwait vm linux start:\n"
                          "send virt on\nwait virt=on\nsend vm linux start\nwait start=ok\nsend virt off\n"
                          "wait a VM runs\n"
                          "send console linux\nwait guest#\nsend poweroff\nwait ended\nsend virt off\nwait virt=off\n"
                          "send poweroff\n")


# CPUs 1 and 2 go offline and come back in turn, under a guest that computes and sleeps: it moves each time and notices
# nothing. Then its last CPU goes: it stops with that reason, and starts again once there is a CPU.
OFFLINE = r"""
wait guest#
send (while :; do i=$((i+1)); done) & (while :; do sleep 0.2; n=$((n+1)); echo $n >/tmp/n; done) & echo bu''sy
wait busy
key ctrl-]
wait corbel>
send cpu 0 offline
wait boot CPU
send cpu 1 online
wait it is online
send mem
wait owner=total
TURNS
send cpu 1 offline 20
wait CPU 1: offline
send cpu 1 online
wait CPU 1: online
send mem
wait owner=total
send console linux
send a=$(cat /tmp/n); sleep 1; b=$(cat /tmp/n); echo ti''cks $((b>a))
wait ticks 1
key ctrl-]
wait corbel>
send cpu 1 offline
wait CPU 1: offline
send cpu 2 offline
wait vm linux: stopped: no CPU
wait CPU 2: offline
send vm linux start
wait none of the CPUs that it may use is online
send cpu 2 online
wait CPU 2: online
send vm linux start
wait start=ok
send console linux
wait corbel-guest: ready
wait guest#
send poweroff
wait ended
send poweroff
"""


def offline():
    def turns(rounds):
        return "\n".join(f"send cpu {cpu} {way}\nwait CPU {cpu}: {way}" for _ in range(rounds) for cpu in (1, 2)
                         for way in ("offline", "online"))

    text = conf("cpus = 1-2\n").replace("when_idle = poweroff\n", "")
    for on, daily in ("qemu", 8), ("bochs", 2):
        for rounds in daily, 500:
            yield Test(f"cpu-offline-{rounds * 2}-{on}", on, text, emu=["--cpus", "3"], status=1,
                       script=OFFLINE.replace("TURNS", turns(rounds)),
                       # what is free is the same before and after
                       says=[r'owner="free" kib=(\d+)[\s\S]*owner="free" kib=\1 ',
                             "vm linux: stopped: no CPU: vCPU 0 may run on CPU 2 only, which goes offline"],
                       soak=rounds == 500, timeout=3000 if rounds == 500 else 0)


# All CPUs call each other at once while Linux runs on them; nobody may be left without an answer.
def ipis():
    script = """
wait guest#
send while :; do grep -c . /proc/interrupts >/dev/null; done &
send echo bu''sy
wait busy
key ctrl-]
wait corbel>
send ipi 2000
wait alone=0
send console linux
send echo st''ill-here
wait still-here
key ctrl-]
wait corbel>
send poweroff
"""
    # The command stops after 10 s: a loaded machine does fewer rounds than it was asked for, but some.
    each = r"rounds=\d\d+ failures=0 ticks_avg=\d+ ticks_min=\d+ ticks_max=\d+"
    yield from on_both("ipi", monitor_conf("attach = linux\n", cpus=2), emu=["--cpus", "4"], script=script,
                       says=[*(f"cpu={cpu} {each}" for cpu in range(4)), "rounds=2000 failures=0 unfinished=",
                             f"alone=0 {each}"],
                       never_says=["corbel: PANIC", "WARNING: CPU", "this should not be", "does not answer"])


# Which CPUs are threads of one core: right, or unknown with a reason.
def topology():
    pairs = [r"cpu=0 apic_hex=0x0 .*siblings=0-1\n", r"cpu=1 .*thread=1 siblings=0-1\n", r"cpu=2 .*siblings=2-3\n",
             r"cpu=3 apic_hex=0x3 .*siblings=2-3\n"]

    def test(name, on, *emu, says):
        return Test(f"topology-{name}-{on}", on, "[corbel]\nwhen_idle = monitor\n", files={},
                    script="wait corbel>\nsend cpus -v\nwait cpu=3 cap=\nsend poweroff\n",
                    emu=["--topology", "1:2:2", *emu], says=says)

    yield test("leaf-b", "qemu", says=["topology: 1 packages, 2 cores, up to 2 threads each", *pairs])
    # Neither leaf 0x1f nor 0xb: known only where a CPU is alone in its package, whatever leaf 4 or 0x8000001e says.
    yield test("alone", "qemu", "--cpu", "Skylake-Client,cpuid-0xb=off", "--topology", "4:1:1",
               says=["topology: 4 packages, 4 cores, up to 1 threads each", "cpu=3 .*siblings=3\n"])
    for name, cpu, shape in (("leaf-4", "Skylake-Client", "1:4:1"), ("nothing", "EPYC", "1:2:2")):
        yield test(name, "qemu", "--cpu", f"{cpu},cpuid-0xb=off", "--topology", shape,
                   says=["topology unknown: CPU 0: it has neither leaf 0x1f nor 0xb",
                         'cpu=3 .*topology_unknown="CPU 0: it has neither'])
    # Bochs' shifts above the threads are wrong. Without threads the threads' shift is, too; with four, it is above.
    yield test("threads", "bochs", says=["topology: 2 cores, up to 2 threads each; packages unknown", *pairs])
    yield test("no-threads", "bochs", "--topology", "1:4:1",
               says=["topology unknown: CPU 0: 2 CPUs have ids in its core, which has 1 threads"])
    yield test("four-threads", "bochs", "--topology", "1:2:4",
               says=["topology unknown: CPU 0: leaf 0xb: shift 1 is above shift 2"])
    # APIC ids above 255, with holes, and hundreds of entries of the MADT that are disabled. A guest runs up there.
    epyc = "svm=on,npt=on,x2apic=on"
    yield Test("topology-high-ids-qemu", "qemu", monitor_conf(vm="cpus = 4\n"), qemu_min=9, timeout=400,
               emu=["--machine", "q35", "--cpu", f"EPYC,{epyc}", "--qemu-arg", "-smp", "--qemu-arg",
                    "1,maxcpus=400,sockets=100,cores=2,threads=2", *cpu_device(0, epyc, thread=1),
                    *cpu_device(99, epyc, core=1), *cpu_device(99, epyc, core=1, thread=1), *cpu_device(64, epyc)],
               script="wait corbel>\nsend cpus -v\nwait cpu=4 cap=\nsend console linux\nwait guest#\nsend poweroff\n"
                      "wait ended\nsend poweroff\n",
               says=["MADT: 395 CPUs disabled", "CPUs: 5 of 5 online, x2APIC",
                     "topology: 3 packages, 3 cores, up to 2 threads", "svm is on, on 5 of 5 CPUs",
                     "cpu=2 apic_hex=0x100 package=64 core=0 thread=0 siblings=2", "cpu=3 apic=398 .*vcpus=0",
                     "cpu=3 apic_hex=0x18e package=99 core=1 thread=0 siblings=3-4", "cpu=4 apic=399 .*vcpus=1"])


# ---- Scheduler ----

def scheds(text):
    """What each `sched` said: run times by VM in microseconds, and how many wake-ups took less than 2^n us."""
    answers = []
    for part in text.split("> sched")[1:]:
        part = part.split("> ")[0]
        ran = {name: int(us) for name, us in re.findall(r"^vm=(\S+) vcpu=0 .*ran_us=(\d+)", part, re.M)}
        answers.append((ran, {int(us): int(n) for us, n in re.findall(r"wakeup_below_us=(\d+) count=(\d+)", part)}))
    return answers


def judge_shares(_folder, text):
    """
    Between the last two looks: the busy ones get what their weights say, the sleeper wakes in time. A slice that the
    build host has made long is made up for later: if it was just before the first look, the times since the start
    are the ones to look at.
    """
    looks = scheds(text)
    if len(looks) < 2:
        return [f"sched answers {len(looks)} times, not twice"], ""
    (before, wakes_before), (after, wakes) = looks[-2:]
    problems = []
    weights = {**{f"busy-{i}": 100 for i in range(1, 5)}, "heavy": 400}
    ran = {name: after[name] - before[name] for name in weights}
    since_start = {name: after[name] for name in weights}
    for name, weight in weights.items():
        due = weight / sum(weights.values())
        shares = [times[name] / sum(times.values()) for times in (ran, since_start)]
        if min(abs(share - due) for share in shares) > 0.05 * due:
            problems.append(f"{name} has {shares[0]:.4f} of the CPU, {shares[1]:.4f} since start; is due {due:.4f}: "
                            f"{ran}, {since_start}")
    asleep = after["ticker"] - before["ticker"]
    if asleep * 3 > sum(ran.values()):
        problems.append(f"the sleeper ran for {asleep} us")
    woken = {us: n - wakes_before.get(us, 0) for us, n in wakes.items()}
    if sum(woken.values()) < 20 or sum(n for us, n in woken.items() if us <= 4096) * 2 < sum(woken.values()):
        problems.append(f"wake-ups by duration: {woken}")
    return problems, ""


# Four busy VMs, one with the weight of four, and one that sleeps and wakes all the time, on one CPU. One that spins on
# PAUSE gives way where the CPU tells. Where a CPU is idle, it gets a vCPU that waits for another one.
def shares():
    files = {name: f"tiny/{name}" for name in ("busy", "ticker", "spin-masked")}
    vm = "[vm {}]\nkernel = {}\nmemory = 32M\n"
    text = ("[corbel]\nwhen_idle = monitor\n" + vm.format("busy", "busy") + "copies = 4\n" +
            vm.format("heavy", "busy") + "weight = 400\n" + vm.format("ticker", "ticker") +
            vm.format("spin", "spin-masked") + "autostart = no\n")
    for on, seconds in ("qemu", 8), ("bochs", 10):
        yield Test(f"shares-{on}", on, text, files=files, judge=judge_shares, emu=["--memory", "1024"],
                   script=f"wait corbel>\nsleep 2\nsend sched\nsleep {seconds}\nsend sched\nwait vm=spin\n" +
                   ("send vm spin start\nsleep 2\nsend exits spin\nwait exit=pause\n" if on == "bochs" else "") +
                   "send poweroff\n")
    text = "[corbel]\nwhen_idle = monitor\n" + vm.format("busy", "busy") + "copies = 4\n"
    yield from on_both("idle-cpu", text, files=files, emu=["--cpus", "2", "--memory", "1024"],
                       script="wait corbel>\nsend sched\nwait vm=busy-4\nsend vm busy-2 stop\nsend vm busy-4 stop\n"
                              "wait busy-4: ended\nsleep 1\nsend sched\nwait vm=busy-4\nsend poweroff\n",
                       says=["vm=busy-1 vcpu=0 cpu=0", "vm=busy-2 vcpu=0 cpu=1", "vm=busy-3 vcpu=0 cpu=0",
                             "vm=busy-4 vcpu=0 cpu=1", "busy-4: ended", "cpu=0 vcpus=1 waiting=[01] .* given=[1-9]",
                             "cpu=1 vcpus=3 waiting=0 current=busy-[13]/0"])
    # A vCPU that is pinned waits, although another CPU is idle; the VM's other one is free to go there.
    text = "[corbel]\nwhen_idle = monitor\n" + vm.format("busy", "busy") + "copies = 3\nvcpus = 2\npin = 0:1\n"
    yield from on_both("pin", text, files=files, emu=["--cpus", "2", "--memory", "1024"],
                       script="wait corbel>\nsleep 1\nsend sched\nwait vm=busy-3\nsend vm busy-3 info\n"
                              "wait vcpu=1\nsend poweroff\n", never_says=["given=[1-9]"],
                       says=[f"vm=busy-{i} vcpu=0 cpu=1 " for i in (1, 2, 3)] +
                       ["vm=busy-3 vcpu=0 cpu=1 pinned=yes state=run", "vm=busy-3 vcpu=1 cpu=[01] state=wait-for-sipi"])


# ---- The screen ----

def screens():
    """The status page and the keys that choose it. Under Bochs the firmware offers no screen."""
    text = ("[corbel]\nwhen_idle = monitor\n[vm busy]\nkernel = busy\nmemory = 32M\ncpus = 1\n"
            "[vm bad]\nkernel = none\nautostart = no\n")
    files = {"busy": "tiny/busy", "none": b"no kernel"}
    yield Test("screen-qemu", "qemu", text, files=files, emu=["--cpus", "2"],
               script="wait corbel>\nsend vm bad start\nwait not a kernel\nsend screen\nwait page=log\npress f2\n"
                      "sleep 4\nsend screen\nwait Last warnings\npress f1\nsleep 1\nsend screen\nwait page=log\n"
                      "send screen status\nsend screen\nwait page=status\nsend screen log\nsend screen\n"
                      "wait page=log\nsend poweroff\n",
               says=["F1 shows the log", 'page=status row=0 text="Corbel .* up 0:00:', "CPUs: 2 of 2 online",
                     "CPU 1 .* vCPUs, .*busy/0",
                     r"busy +running +1 +32 +\d+ +(9\d|100)\"", "bad +stopped",
                     "Last warnings", " [WE]\\] .*not a kernel"])
    yield Test("screen-bochs", "bochs", text, files=files, emu=["--cpus", "2"],
               script="wait corbel>\nsend screen status\nwait there is none\nsend poweroff\n",
               says=["screen: there is none"])


# ---- Corbel's own crash ----

def source_lines(folder, _):
    """tools/lines knows who called."""
    done = subprocess.run([os.path.join(ROOT, "tools/lines"), "--elf", os.path.join(folder, "../../corbel.elf"),
                           os.path.join(folder, "serial.log")], capture_output=True, text=True, check=False)
    if re.search(r"cmd_crash\+.*\n(?: +.*\n)*? +cmd_crash at debug/commands_system\.c:\d+", done.stdout):
        return [], ""
    return [f"tools/lines does not find cmd_crash {done.stderr[-200:]}"], ""


def crashes():
    """on_panic = reboot: the next boot has the report; a reset on purpose is not one."""
    first = {"frame": "a second fault .*: #PF page fault at backtrace_from", "assert": r"#2 .* assert_failed\+"}
    conf_text = "[corbel]\nwhen_idle = monitor\non_panic = reboot\n[vm busy]\nkernel = busy\nmemory = 32M\n"
    for how, text in (("assert", "debug/.*: assertion failed: "), ("trap", "#UD invalid opcode"),
                      ("hang", "it hangs here"), ("frame", "#UD invalid opcode")):
        yield from on_both(
            f"crash-{how}", conf_text, files={"busy": "tiny/busy"}, emu=["--cpus", "2", "--resets"],
            never_says=["this should not be"], judge=source_lines,
            script=f"wait corbel>\nsend crash {how}\nwait corbel: reset in\nwait before: \nwait corbel>\n"
                   "send log -p\nwait corbel: reset in\nwait corbel>\n" +
                   ("send reboot\nwait boot before are kept\nwait corbel>\n" if how == "assert" else "") +
                   "send poweroff\n",
            says=[f"corbel: PANIC: {text}", "rsp ffff", first.get(how, "#1 "),
                  r"\d+ us before: (run|rest|irq) vm 1/0 0x", "CPU 1 was at .*, (with no vCPU|for busy/0)", "#1 ",
                  "vm busy: running",
                  "vCPU 0: on CPU [01], runn", "reset in 5 seconds", "it was not ended on purpose",
                  f"  before: .*corbel: PANIC: {text}", "  before: .*reset in 5 seconds",
                  rf"\n\[[ 0-9.]+ \d E\] corbel: PANIC: {text}",
                  *([r"boot before are kept \(log -p\)\r?\n"] if how == "assert" else []), "every VM ended well"])


def postmortem():
    """on_panic = halt: gdb, on the line that had the report, shows all CPUs; its kill resets the machine."""
    conf_text = "[corbel]\nwhen_idle = monitor\n[vm busy]\nkernel = busy\nmemory = 32M\n"
    for how in "panic", "trap", "hang":
        yield from on_both(
            f"postmortem-{how}", conf_text, files={"busy": "tiny/busy"}, emu=["--cpus", "2", "--resets"],
            never_says=["this should not be"], soak=how == "hang",
            script=f"wait corbel>\nsend crash {how}\nwait with corbel.elf: target remote\n" +
                   gdb("postmortem.py", "$ELF", f"HOW={how}", "remote $LINE") +
                   "wait gdb wants it\nwait before: \nwait corbel>\nsend poweroff\n",
            says=["halted: press the reset button", "well: who crashed", "well: what the other CPU did",
                  "well: bad addresses", "it was not ended on purpose", "every VM ended well"])


# ---- VMs come and go ----

def cycles():
    """Made, started, ended, destroyed, N times beside a busy VM; memory is as it was, to the last frame."""
    text = ("[corbel]\nwhen_idle = monitor\n[vm busy]\nkernel = busy\nmemory = 32M\ncpus = 0\n"
            "[vm t]\nkernel = multi\ncopies = 2\nmemory = 40M\nvcpus = 3\nautostart = no\ncpus = 0-1\n"
            "disk = disk.img\nnet = lab\n")
    files = {"busy": "tiny/busy", "multi": "tiny/prefixed-cpuid", "disk.img": bytes(1 << 20)}
    ask, end = "send mem\nwait vm=busy\n", "send vm busy info\nwait last_line\nsend poweroff\n"
    once = ("send vm t-1 create\nwait create=ok\nsend vm t-1 start\nwait vm t-1: ended: power-off\n"
            "send vm t-1 destroy\nwait vm t-1: destroyed\n")
    begin = ("wait corbel>\nsend vm busy destroy\nwait it is running\nsend vm busy create\nwait it is there\n"
             "send vm absent create\nwait no such VM\n"
             "send vm t-1 destroy\nwait t-1: destroyed\nsend vm t-2 destroy\nwait t-2: destroyed\n")
    for rounds in 20, 1000:
        yield from on_both(f"vm-cycles-{rounds}", text, files=files, emu=["--cpus", "2"], soak=rounds == 1000,
                           timeout=6000 if rounds == 1000 else 0,
                           script=begin + ask + once * rounds + ask + end,
                           says=[r'(owner="free"[\s\S]*?owner=total[^\n]*\nfree_2mib[^\n]*\n)[\s\S]*\1',
                                 "vm=busy .*state=running"])


# It needs what is above.
import damage  # noqa: E402  pylint: disable=wrong-import-position
import faults  # noqa: E402  pylint: disable=wrong-import-position
import guests  # noqa: E402  pylint: disable=wrong-import-position
import split_lock  # noqa: E402  pylint: disable=wrong-import-position


# Longer than half a minute, and what they see is seen daily in another way: the other emulator, fewer CPUs.
LONG = {"network-bochs", "idle-cpu-bochs", "smp-bochs-4on2-xapic", "smp-qemu-2on1", "smp-qemu-8on4",
        "start-ipis-4on4-bochs", "start-ipis-3on1-bochs", "start-ipis-4on4-qemu", "start-ipis-3on1-qemu",
        "crash-trap-qemu", "crash-trap-bochs", "crash-frame-bochs", "postmortem-trap-qemu", "postmortem-panic-bochs",
        "crash-hang-bochs", "gdb-linux-bochs", "disk-bochs", "boot-bochs-8cpu-2048M", "guest-reboot-a-bochs",
        "guest-reboot-b-bochs", "guest-reboot-t-bochs", "config-bad-size-bochs", "config-no-file-bochs",
        "config-unknown-key-bochs"}
TESTS = [
    *boot_matrix(),
    *bad_guests(),
    *bad_configurations(),
    *monitor(),
    *looking_tests(),
    *guest_restarts(),
    *disks(),
    *newer_kernels(),
    *screens(),
    *crashes(),
    *postmortem(),
    *networks(),
    *consoles(),
    *guest_ends(),
    *large_leaves(),
    *cpus(),
    *offline(),
    *ipis(),
    *topology(),
    *faults.tests(),
    *damage.tests(),
    *split_lock.tests(),
    *boot_protocols(),
    *memories(), *lazy(), *clones(), *images(), *task_missing(),
    *broken_kernels(),
    *pm_timer(),
    *others_kernels(),
    *smp(),
    *loads(),
    *start_ipis(),
    *legacy_timers(),
    *shares(),
    *cycles(),
    *guests.tests(Test),
    *debuggers(),
]
for long_test in TESTS:
    long_test.soak |= long_test.name in LONG
