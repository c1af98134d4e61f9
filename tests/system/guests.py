# SPDX-License-Identifier: MIT
"""The guest tests: which groups and cases the folders of tests/guest have, how they run, and what came of them.

A folder with a main.c is a group. What its VM needs stands in comments of main.c, in lines of their own:

    vm: vcpus = 4                a key of the VM's section
    copies: 2                    as many VMs at once, on one CPU
    words: a b                   of the command line, behind the VM's name
    operator: r 0x1000008        a vCPU waits for memory, having read there: the monitor supplies it (with pager = none;
                                 such a group runs by itself); a third word says how, if not as zero: rw
                                 is for a page that is there, but read-only
"""
import glob
import os
import re
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VMS_MAX = 16  # in one configuration
CASE = re.compile(r'^TEST(?P<kind>|_ENDS|_RESETS)\((?P<name>\w+), ?\s*(?P<what>"(?:[^"\\]|\\.)*")'
                  r'(?:,\s*"(?P<how>(?:[^"\\]|\\.)*)")?\)', re.M)
KEY = re.compile(r"^ \* (vm|copies|words|operator): (.+)$", re.M)
qemu_major = 0  # of the QEMU that runs; set by the runner
# (group, case) that fails from this major version on: docs/TESTING.md.
QEMU_WRONG = 10
WRONG = {("cr", "cr8"): "MOV from CR8 is not intercepted", ("cr", "smsw_fault"): "CR2 of an injected #PF",
         ("exits", "invd_wbinvd"): "INVD and WBINVD at CPL 3", ("fpu", "xsave"): "XSAVES without CPUID"}
VERDICT = r"^(ok|not ok) (\d+) - {}: (\S+)(?: # (.*))?$"


@dataclass
class Group:
    name: str
    cases: list  # names, in order
    ends: str = ""  # what Corbel says when the last case ends the VM
    vm: list = field(default_factory=list)  # lines of its section
    copies: int = 1
    words: str = ""
    operator: list = field(default_factory=list)  # what it waits for

    def vms(self):
        return [self.name] + [f"{self.name}-{n}" for n in range(2, self.copies + 1)]


def read_group(folder):
    group = Group(os.path.basename(folder), [])
    for path in sorted(glob.glob(os.path.join(folder, "*.c"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for match in CASE.finditer(text):
            group.cases.append(match["name"])
            group.ends = match["how"] or ""
        for key, value in KEY.findall(text):
            if key == "vm":
                group.vm.append(value)
            elif key == "operator":
                group.operator.append(value)
            elif key == "copies":
                group.copies = int(value)
            else:
                group.words = value
    return group


def groups():
    return [read_group(os.path.dirname(path))
            for path in sorted(glob.glob(os.path.join(ROOT, "tests/guest/*/main.c")))]


def boots(all_groups):
    """As few boots as there are VMs for."""
    boot, count = [], 0
    for group in all_groups:
        if count + group.copies > VMS_MAX:
            yield boot
            boot, count = [], 0
        boot.append(group)
        count += group.copies
    yield boot


def section(group, vm):
    words = f"{vm} {group.words}".strip()
    pinned = ["cpus = 1"] if group.copies > 1 else []
    lines = [f"kernel = {group.name}", f"cmdline = {words}", "devices = test", "autostart = no",
             *pinned, *group.vm]
    for default in "memory = 16M", "rng = off":
        if not any(line.split()[0] == default.split()[0] for line in lines):
            lines.append(default)
    return f"[vm {vm}]\n" + "".join(line + "\n" for line in lines)


def configuration(chosen):
    return "[corbel]\n" + "".join(section(group, vm) for group in chosen for vm in group.vms())


def script(chosen, last=""):
    """Each group's VMs one after the other, with their consoles shown. (Ctrl-] does nothing at the prompt: it is there
    for a VM that ended before its console was asked for.)"""
    lines = ["wait corbel>"]
    for group in chosen:
        lines += [f"send vm {vm} start" for vm in group.vms()]
        ends = [rf"vm {vm}: (?:ended|stopped): " for vm in group.vms()]
        if group.copies == 1:
            lines += [f"send console {group.name}", rf"match {ends[0]}.*\n", "key ctrl-]"]
            continue
        # While one's console is shown, the end of the other is not: they are shown afterwards.
        lines.append("match (?s)" + "".join(f"(?=.*{end})" for end in ends) + r".*\n")
        for vm in group.vms():
            lines += [f"send console {vm}", "key ctrl-]"]
    return "\n".join(lines) + f"\n{last}send poweroff\n"


def operator_script(group):
    """The lowest 16 MiB as soon as some is missed; then each page when a vCPU waits for it, with that report."""
    vm = group.name
    verbs = {"r": "reads", "w": "writes", "x": "executes", "walk": "(?:reads|writes)"}
    lines = ["wait corbel>", f"send vm {vm} start", f"match vm {vm}: vCPU 0.* waits: .*\n",
             f"send populate {vm} 0 16M", "match populate=ok .* waited=1"]
    for access, gpa, *how in (line.split() for line in group.operator):
        who = "vCPU 0's page walk" if access == "walk" else "vCPU 0"
        lines += [f"match vm {vm}: {who} waits: {verbs[access]} gpa {gpa} .*: "
                  + ("read-only" if how == ["rw"] else "missing"),
                  " ".join([f"send populate {vm} {int(gpa, 16) & ~0xfff:#x} 4K", *how]),
                  "match populate=ok .* waited=1"]
    return "\n".join([*lines, f"match vm {vm}: (?:ended|stopped): .*\n", f"send console {vm}", "key ctrl-]",
                      "send poweroff"]) + "\n"


def tap(text, vm):
    """What a VM said: its plan, its verdicts, and the notes before each."""
    lines, notes = [], []
    for line in text.splitlines():
        if re.match(r"#   ", line):
            notes.append(line)
        elif re.match(rf"1\.\.\d+ # {vm}$|(not )?ok \d+ - {vm}: ", line):
            lines += notes + [line]
            notes = []
        elif re.match(r"(not )?ok \d+ - |1\.\.\d+ # ", line):
            notes = []
    return lines


def judge_vm(group, vm, text, wrong, problems, counts):
    """Each case has to have its verdict, in the order of the source, and the VM has to end as it should."""
    seen = [match.groups() for match in re.finditer(VERDICT.format(re.escape(vm)), text, re.M)]
    ended = re.search(rf"vm {vm}: ((?:ended|stopped): .*?)\s*$", text, re.M)
    if not ended:
        problems.append(f"{vm}: did not end")
    expected = group.cases[:-1] if group.ends else group.cases
    for number, case in enumerate(expected, 1):
        verdicts = [(word, remark or "") for word, at, name, remark in seen if name == case and int(at) == number]
        if len(verdicts) != 1:
            counts["missing"] += 1
            problems.append(f"{vm}: {case}: " + ("has no verdict" if not verdicts else "has more than one verdict"))
            continue
        word, remark = verdicts[0]
        if word == "not ok" and (group.name, case) in wrong and not remark.startswith("error: "):
            counts[f"known of this QEMU: {wrong[group.name, case]}"] = 1
        elif word == "not ok":
            counts["error" if remark.startswith("error: ") else "failure"] += 1
            problems.append(f"{vm}: {case}: {remark}")
        else:
            counts["skip" if remark.startswith("SKIP") else "success"] += 1
    extra = {name for _, _, name, _ in seen} - set(expected)
    if extra:
        problems.append(f"{vm}: {', '.join(sorted(extra))}: not in the source, or out of order")
    if group.ends:
        good = bool(ended and group.ends in ended[1])
        counts["success" if good else "failure"] += 1
        if ended and not good:
            problems.append(f"{vm}: {group.cases[-1]}: expected {group.ends!r}, seen {ended[1]!r}")
    elif ended and "exit: status" not in ended[1]:
        problems.append(f"{vm}: {ended[1]}")


def judge(chosen, folder, text, on="bochs"):
    """Problems as a list of lines, a remark, and whether VMs fail by what is known of this QEMU. The TAP of each VM
    goes to folder/VM.tap."""
    problems, counts = [], dict.fromkeys(("success", "skip", "failure", "error", "missing"), 0)
    wrong = WRONG if on == "qemu" and qemu_major >= QEMU_WRONG else {}
    for group in chosen:
        if not group.cases:
            problems.append(f"{group.name}: no case is in its sources")
        for vm in group.vms():
            with open(os.path.join(folder, f"{vm}.tap"), "w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in tap(text, vm))
            judge_vm(group, vm, text, wrong, problems, counts)
    remark = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return problems, f"{sum(counts.values())} cases: {remark}", any(word.startswith("known") for word in counts)


def tests(make):
    """Every day all groups, a few boots for each emulator; each group by itself if it is asked for by name. make is the
    class of a system test."""
    def test(name, on, chosen, by_name=False):
        bad_ends = any(group.ends and not group.ends.startswith("ended") for group in chosen)
        return make(name, on, configuration(chosen), files={group.name: f"tiny/{group.name}" for group in chosen},
                    emu=["--cpus", "2", "--memory", "1024"],
                    script=operator_script(chosen[0]) if chosen[0].operator else script(chosen),
                    timeout=120 if by_name else 300, by_name=by_name, status=1 if bad_ends else 0,
                    never_says=["corbel: PANIC", "this should not be"],
                    judge=lambda folder, text: judge(chosen, folder, text, on))

    every = groups()
    for on in "qemu", "bochs":
        for number, chosen in enumerate(boots([group for group in every if not group.operator]), 1):
            yield test(f"guests-{number}-{on}", on, chosen)
        for group in every:
            yield test(f"guest-{group.name}-{on}", on, [group], by_name=not group.operator)
