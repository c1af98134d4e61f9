# SPDX-License-Identifier: MIT
"""Damage to what describes a VM's memory, done by `poke` in FAULTS builds while other VMs run (docs/TESTING.md): it is
found, by an audit or by the operation that meets it; the message names its kind and place; the VM ends, is destroyed
and made again; nobody else notices, and what they have in memory is what they wrote.
"""
from tests import CMDLINE, Test

EFI = "faults/corbel.efi"
GPA = 0x1c00000  # of the guest checksum: touched, and not used again
GIB = 0x40000000  # the second GiB of a VM that has two
SIZE = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}


def vm(name, memory, autostart=True):
    return (f"[vm {name}]\nkernel = checksum\nmemory = {memory}\nrng = off\ncpus = {'0' if autostart else '1'}\n"
            + ("" if autostart else "autostart = no\n"))


def place(level):
    gpa = GIB if level == 3 else GPA
    return f"{gpa:x}", f"{gpa >> 12:#x}"


# Kind: what poke is told, by level of the leaf; what an audit then finds; what meets it otherwise, and says what.
# {name} {gpa} {gfn} {level} are filled in.
UNMAP = "send poke unmap {name} {gpa}\n"
END = "send vm {name} stop\nsleep 1\nsend vm {name} destroy\n"
KEY_MISSING = "key_missing, gfn {gfn}"
NOT_THE_TABLE = "not_the_table, gfn 0x"  # of the gfn or of the range's end
FREED = "key-(?:of-freed-memory|twice)"  # the second by the audit at its end, in a PROVE_MMU build
KINDS = {
    "flip": (lambda level: f"flip {{name}} {{gpa}} {3 + 9 * level}", "leaf-without-key", UNMAP, KEY_MISSING),
    "flip-entry": (lambda level: "flip {name} {gpa} 52", "bad-entry", None, None),
    "drop": (lambda level: "drop {name} {gpa}", "leaf-without-key", UNMAP, KEY_MISSING),
    "twice": (lambda level: "twice {name} {gpa}", "key-twice", END, FREED),
    "alias": (lambda level: "alias {name} {gpa} {other} {gpa}", "leaf-of-foreign-frame", None, None),
    "stale": (lambda level: "stale {name} {gpa}", "leaf-without-key", UNMAP, KEY_MISSING),
    "desc": (lambda level: "desc {name} {gpa} base", "table-in-wrong-role", UNMAP, NOT_THE_TABLE),
    "desc-live": (lambda level: "desc {name} {gpa} live", "table-count", None, None),
    "flush": (lambda level: "flush {name} {gpa}", None, "", "flush_lost"),
    "debt": (lambda level: "debt {name} {gpa}", None, END, FREED),
    "key": (lambda level: "key {name} {gpa} 35", "leaf-without-key", UNMAP, KEY_MISSING),
    "count": (lambda level: "count {name} {gpa}", "key-count", None, None),  # of the extent; it names nobody
}


def damaged(kind, level, by_audit, name="victim"):
    """The script of one damage, from a VM that is there and does not run; None: there is no such case."""
    poke, finding, meets, says = KINDS[kind]
    if (finding if by_audit else says) is None:
        return None
    gpa, gfn = place(level)
    words = {"name": name, "gpa": gpa, "gfn": gfn, "other": "b"}
    lines = (f"send echo {kind} of {SIZE[level]}\n"
             f"send vm {name} start\nwait start=ok\nsend console {name}\nwait checksum: ready\nkey ctrl-]\n"
             f"send poke size {name} {gpa} {level}\nwait level={level} gfn={gfn} \nwait done\n")
    if kind == "alias":
        lines += f"send poke size b {gpa} {level}\nwait level={level} gfn={gfn} \nwait done\n"
    lines += f"send poke {poke(level).format(**words)}\n"
    if by_audit or meets:  # otherwise it is met before poke says what it did
        lines += f"wait vm={name} level={level} gfn={gfn}\n"
    if by_audit:
        lines += (f"send audit\nmatch finding={finding} vm=(?:{name}|\\?) level=[1-4] gfn=0x\n"
                  f"wait this should not be: {finding}\n")
    else:
        lines += meets.format(**words)
        lines += f"match this should not be: {says.format(**words)}\n"
    # one that was stopped before it was found is being destroyed
    return lines + (f"wait vm {name}: stopped: bugged\n" if by_audit or meets != END else "")


def again(by_end, name="victim"):
    """It is destroyed, and made again; nothing is found any more."""
    return (("" if by_end else f"send vm {name} destroy\n") +
            f"wait vm {name}: destroyed\nsend vm {name} create\nwait create=ok\nsend audit\nwait findings=0\n")


LAST_WORDS = "".join(f"send console {name}\nsend-raw q\nwait checksum: every round was right\n"
                     f"wait vm {name}: ended: power-off\n" for name in "ab")


def one_by_one(cases):
    """Beside two VMs that check their memory; at the end each has its last word."""
    script = "wait corbel>\n"
    for kind, level, by_audit in cases:
        lines = damaged(kind, level, by_audit)
        if lines:
            script += lines + again(not by_audit and KINDS[kind][2] == END)
    return script + LAST_WORDS + "send mem\nsend poweroff\n"


# What only the other VM's end shows: its memory is still mapped. The VM that maps it ends; the rest of it is freed.
ALIAS_FREED = (damaged("alias", 2, True).partition("send audit")[0] +
               "send vm b stop\nwait vm b: ended\nsend vm b destroy\nwait this should not be: key-of-freed-memory\n"
               "wait memory is still mapped by another\nwait vm b: destroyed\nsleep 1\n" + again(False) +
               "send vm b create\nwait create=ok\nsend vm b start\nwait start=ok\n")
# It dies in the exit handler of a vCPU, whose fault meets the damage; what is dead does not start again.
FAULT = (damaged("desc", 1, True).partition("send poke desc")[0] +
         "send poke unmap victim 1c00000\nwait done\nsend poke desc victim 1c01000 base\nwait done\n"
         "send console victim\nsend-raw t\nwait this should not be: not_the_table, gfn 0x1c00\n"
         "wait vm victim: stopped: bugged\nsend vm victim start\nwait it is dead\n" + again(False))


def test(name, on, script, memory="32M", other=None, machine=2048, **more):
    corbel = "on_corruption = panic\n" if "panic" in name else ""
    # leaves of 2 MiB are to stay: on Bochs x_split would be on
    conf = (f"[corbel]\nwhen_idle = monitor\nx_split = off\n{corbel}" + vm("a", "32M") + vm("b", other or memory) +
            vm("victim", memory, autostart=False))
    return Test(f"{name}-{on}", on, conf, files={"checksum": "tiny/checksum"}, efi=EFI, script=script,
                emu=["--cpus", "2", "--memory", str(machine)],
                never_says=["checksum: WRONG", "vm [ab]: (?:dead|stopped)", "corbel: PANIC: (?!vm victim:)"], **more)


def panics(on):
    """on_corruption = panic: the last words name the same kind and place."""
    for kind, (_, finding, meets, says) in KINDS.items():
        by_audit = kind in ("drop", "key", "alias", "flip-entry", "desc-live", "count")
        what = finding if by_audit else says
        script = "wait corbel>\n" + damaged(kind, 1, by_audit).partition("match finding" if by_audit else
                                                                         "wait this should not be")[0]
        yield test(f"damage-panic-{kind}", on, script, status=3, soak=kind != "drop", timeout=120,
                   says=["corbel: PANIC: vm victim: .*: data corruption: " +
                         what.format(gfn=place(1)[1]) + (", [gp]fn 0x" if by_audit else "")])


# Without APIC virtualization: when the delivery of a virtual interrupt meets a page that is not mapped, Bochs says that
# the event was the last one before it. The guest then gets an old page fault for its interrupt.
LINUX = f"kernel = vmlinuz\ninitrd = initrd.gz\nmemory = 160M\nvcpus = 2\napicv = off\ncmdline = {CMDLINE}\n"


def churn(on, seconds):
    """A Linux guest under load, while another CPU splits, merges and removes its mappings, and the monitor looks."""
    look = ("send audit\nwait findings=0\nsend ept linux 5000000\nwait level=4\nsend rmap 6000\nwait mappers=\n"
            "sleep 0.3\n")
    script = (f"wait guest#\nsend load {seconds}\nwait load {seconds}\nkey ctrl-]\nsend poke churn linux 0\n" +
              look * 2 * seconds + "send poke churn linux off\nwait failed=\nsend console linux\n"
              "wait load: ended:\nwait guest#\nsend poweroff\n")
    return Test(f"damage-none-{on}", on, f"[corbel]\nwhen_idle = poweroff\nattach = linux\n[vm linux]\n{LINUX}",
                efi=EFI, script=script, emu=["--cpus", "2"], timeout=600, soak=on == "bochs",
                says=["merges=[1-9].* unmaps=[1-9].* failed=0", "load: ended: all is well"],
                never_says=["corbel: PANIC", "this should not be", "FAILED", "finding="])


def tests():
    for on in "qemu", "bochs":
        cases = [(kind, level, by_audit) for level in (1, 2) for kind in KINDS for by_audit in (True, False)]
        script = one_by_one(cases).replace(LAST_WORDS, FAULT + ALIAS_FREED + LAST_WORDS)
        yield test("damage", on, script, status=1, timeout=600)
        yield from panics(on)
        yield churn(on, 5)
    # What is in quarantine stays there: 2 GiB for each. Bochs, with 4 GiB, has room for one, and then no second victim.
    cases = [("flip", 3, True), ("drop", 3, True), ("twice", 3, False), ("alias", 3, True), ("stale", 3, False),
             ("desc", 3, True), ("flush", 3, False)]
    yield test("damage-1g", "qemu", one_by_one(cases), memory="2G", machine=19456, status=1, soak=True)
    yield test("damage-1g", "bochs", "wait corbel>\n" + damaged("drop", 3, True) + "send vm victim destroy\n"
               "wait vm victim: destroyed\nsend audit\nwait findings=0\n" + LAST_WORDS + "send poweroff\n",
               memory="2G", other="32M", machine=4096, status=1, soak=True)
