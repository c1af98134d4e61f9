# SPDX-License-Identifier: MIT
"""What the text of the sources has to satisfy: see docs/ARCHITECTURE.md for the why of layers, ownership and size."""
import os
import re
import statistics

from tree import C_TOKEN, LAYERS, RANK, assembly, code, code_lines, files, layer_of, line_of, read, select

TRUSTED = ("boot", "lib", "arch/x86", "mm", "virt", "vmx", "svm")
AROUND = ("dev", "debug")
TRUSTED_MAX, AROUND_MAX = 24100, 11000  # lines of code
FILE_MAX, MEDIAN_MAX = 900, 200  # lines of a file
WIDTH_C, WIDTH = 100, 120

STANDARD = {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h"}
SOURCES = (".asm", ".py", ".sh", ".mk", ".ld", ".asl", "Makefile", ".suppress", ".clang-format", ".clang-tidy")
KERNEL_API = ("asm/", "linux/", "asm-generic/")  # linux-libc-dev
LOADER = "boot/efi_main.c"  # alone sees UEFI's headers
COMMENT_LINE = re.compile(r"^[ \t]*\*[^ \t/\n]", re.M)  # clang-format leaves such ones behind
INCLUDE = re.compile(r'^[ \t]*[#%][ \t]*include[ \t]*([<"])([^>"\n]*)[>"]', re.M)

# Without hardware: these link on the build host, and say nothing in assembly. (lib/memory.c is not for the host.)
PURE = re.compile(r"lib/(?!memory\.c)|boot/config|mm/(?:stage2|stage2_entry|stage2_spaces|tables|rmap|rmap_set)\.|"
                  r"mm/(?:corruption|audit|mappers|pt_format)\.|vmx/ept\.|svm/npt\.|virt/decode")

VMX = "vmxon vmxoff vmclear vmptrld vmptrst vmread vmwrite vmlaunch vmresume invept invvpid vmfunc"
SVM = "vmrun vmload vmsave stgi clgi invlpga skinit vmgexit"
# Instructions, and the only files that may have them.
INSTRUCTIONS = (
    (VMX, ("vmx/insn.h", "vmx/entry.asm")),
    (SVM, ("svm/insn.h", "svm/entry.asm")),
    ("rdmsr wrmsr", ("arch/x86/msr.h", "arch/x86/traps.c", "arch/x86/traps.asm", "boot/trampoline.asm",
                     "vmx/entry.asm", "svm/entry.asm")),
    ("in out inb outb inw outw inl outl insb outsb", ("arch/x86/insn.h",)),
)
# What C code says, the only files (or folders) that may say it, and why.
WORDS = (
    (r"\bwrmsr(?:_safe)?\s*\(\s*(?:0x33\b|MSR_TEST_CTRL\b)", ("arch/x86/split_lock.c",),
     "is the owner of MSR_TEST_CTRL"),
    (r"\b(?:rdmsr|wrmsr)\s*\(", ("arch/x86/", "vmx/", "svm/"), "access MSRs without a safety net"),
    (r"\bwrmsr_safe\s*\(", ("arch/x86/", "vmx/", "svm/"), "write MSRs"),
    (r"\b(?:vmx_ops|svm_ops)\b", ("boot/main.c", "vmx/ops.c", "vmx/ops.h", "svm/ops.c", "svm/ops.h"),
     "name a backend"),
    (r"\bs2_make_leaf\s*\(", ("mm/stage2.c", "mm/stage2_entry.c", "mm/pt_format.h"), "makes stage-2 entries"),
    (r"(?:->|\.)\s*table_ptr\s*\(", ("mm/stage2.c", "mm/stage2_entry.c", "mm/audit.c"),
     "sees the entries of stage-2 tables"),
    (r"\bslot_ptr\s*\(|(?:->|\.)bias\b",
     ("virt/slotmem.h", "virt/slots.c", "virt/guestmem.c", "virt/guestwalk.c", "virt/guestlinear.c"),
     "have pointers into guest memory"),
)
# A header that is private to some files.
PRIVATE = {
    "virt/slotmem.h": ("virt/slots.c", "virt/guestmem.c", "virt/guestwalk.c", "virt/guestlinear.c"),
    "boot/config_parser.h": ("boot/config",),
    "boot/config_text.h": ("boot/config",),
    "vmx/insn.h": ("vmx/",),
    "svm/insn.h": ("svm/",),
}
# The single writer of stage-2 entries.
STAGE2_STORES = {"entry_store": 1, "table_linked": 1}  # the latter: a state of its own

# What has no place in a public tree: paths and hosts of one machine, notes to oneself.
UNWANTED = re.compile(r"(?<![\w.$}])/(?:work|home|root|mnt)/\w|\b[\w-]+\.(?:internal|corp|lan)\b|"
                      r"\b(?-i:TODO|FIXME|XXX)\b|"
                      r"\b(?:as (?:requested|instructed)|the brief says|in this session|language model)\b", re.I)


def check_text(_options):
    """The first lines, the width of lines, and what should not be in the text."""
    bad = []
    for path in files():
        text = read(path)
        c_file = path.endswith((".c", ".h"))
        source = c_file or text.startswith("#!") or path.endswith(SOURCES)
        if source and not any("SPDX-License-Identifier: MIT" in line for line in text.splitlines()[:2]):
            bad.append(f"{path}:1: no SPDX line")
        limit = WIDTH_C if c_file else WIDTH if source else None
        for number, line in enumerate(text.splitlines(), 1):
            if limit and len(line.expandtabs(8)) > limit:
                bad.append(f"{path}:{number}: {len(line.expandtabs(8))} columns, at most {limit}")
            match = UNWANTED.search(line)
            if match and path != "tests/check/sources.py":
                bad.append(f"{path}:{number}: {match[0]!r} has no place here")
        if c_file:
            bad += [f"{path}:{line_of(text, m.start())}: no blank behind the * of a comment's line"
                    for comment in C_TOKEN.finditer(text) if comment[0].startswith("/*")
                    for m in COMMENT_LINE.finditer(text, *comment.span())]
        if path.endswith(".c"):
            bad += [f"{path}:{line_of(text, m.start())}: no {m[1]} in a .c file"
                    for m in re.finditer(r"^[ \t]*#[ \t]*(ifdef|ifndef|if)\b", text, re.M)]
    return bad, f"{len(files())} files"


def system_header_fits(path, name):
    if path == LOADER and name == "efi.h":
        return True
    return name in STANDARD or name.startswith(KERNEL_API)


def include_problem(path, layer, kind, name):
    """Why path, which is in layer, may not include name; or None."""
    if kind == "<":
        return None if system_header_fits(path, name) else f"<{name}> is no header for code without a C library"
    target = layer_of(name)
    if target is None:
        return f'"{name}" is not in a layer'
    if not os.path.exists(name):
        return f'"{name}" does not exist'
    if target != layer and RANK[target] <= RANK[layer]:
        return f"{layer} must not see {target}"
    if PURE.match(path) and target == "arch/x86":
        return f'"{name}": this file is to be free of hardware'
    users = PRIVATE.get(name)
    if users and not path.startswith(users):
        return f'"{name}" is private to {", ".join(users)}'
    return None


def check_layers(_options):
    """Includes go only to the right: boot -> debug -> { dev | vmx | svm } -> virt -> mm -> arch/x86 -> lib."""
    bad, count = [], 0
    for path in select(".c", ".h", ".asm", layers=LAYERS):
        text = code(path)
        for match in INCLUDE.finditer(text):
            count += 1
            problem = include_problem(path, layer_of(path), *match.groups())
            if problem:
                bad.append(f"{path}:{line_of(text, match.start())}: {problem}")
    if not count:
        bad.append("no include was found: this check sees nothing")
    return bad, f"{count} includes"


def check_stage2():
    """Each store through a pointer to an entry is in the single writer."""
    bad = check_stores("mm/stage2.c", {})
    return bad + check_stores("mm/stage2_entry.c", STAGE2_STORES)


def check_stores(path, allowed):
    bad, seen = [], {}
    text = code(path)
    starts = [(m.start(), m[1]) for m in re.finditer(r"^\w[^;{}()]*?\b(\w+)\([^;{}]*\)\s*\{", text, re.M)]
    stores = r"__atomic_(?:compare_exchange|exchange|store)(?:_n)?\s*\(|^\s+\*slot\s*=|entries\[[^]]*\]\s*=[^=]"
    for match in re.finditer(stores, text, re.M):
        function = [name for start, name in starts if start < match.start()][-1]
        seen[function] = seen.get(function, 0) + 1
        if seen[function] > allowed.get(function, 0):
            bad.append(f"{path}:{line_of(text, match.end())}: {function} stores an entry: only entry_store does")
    if allowed and seen.get("entry_store") != 1:
        bad.append(f"{path}: entry_store stores no entry: this check sees nothing")
    return bad


def may(path, owners):
    return any(path == owner or owner.endswith("/") and path.startswith(owner) for owner in owners)


def check_ownership(_options):
    """Who may say what: instructions, MSRs, stage-2 entries, guest memory."""
    bad, statements = check_stage2(), 0
    for path in select(".c", ".h", ".asm", layers=LAYERS):
        said = assembly(path)
        statements += len(said)
        if said and PURE.match(path):
            bad.append(f"{path}:{said[0][0]}: assembly in a file that is to be free of hardware")
        for names, owners in INSTRUCTIONS:
            pattern = re.compile(rf"(?:^|[\s:;])({names.replace(' ', '|')})(?:$|[\s;])")
            bad += [f"{path}:{line}: {pattern.search(text)[1]} belongs to {', '.join(owners)}"
                    for line, text in said if pattern.search(text) and path not in owners]
        for pattern, owners, what in WORDS:
            if not path.endswith(".asm") and not may(path, owners):
                bad += [f"{path}:{line_of(code(path), m.start())}: {m[0].strip()}: only {', '.join(owners)} {what}"
                        for m in re.finditer(pattern, code(path))]
        if path.endswith(".asm") and path != "arch/x86/split_lock.c":
            bad += [f"{path}:{line}: selects MSR_TEST_CTRL" for line, text in said
                    if re.search(r"\becx\s*,\s*(?:0x33|33h|51)\s*$", text)]
    if not statements:
        bad.append("no assembly was found: this check sees nothing")
    return bad, f"{statements} lines in assembly"


def check_size(_options):
    """Size is a feature."""
    bad = []
    totals = {layer: sum(map(code_lines, select(".c", ".h", ".asm", layers=(layer,)))) for layer in LAYERS}
    trusted, around = sum(totals[n] for n in TRUSTED), sum(totals[n] for n in AROUND)
    if trusted > TRUSTED_MAX:
        bad.append(f"{', '.join(TRUSTED)}: {trusted} lines of code, at most {TRUSTED_MAX}")
    if around > AROUND_MAX:
        bad.append(f"{', '.join(AROUND)}: {around} lines of code, at most {AROUND_MAX}")
    lengths = {path: len(read(path).splitlines()) for path in select(".c", ".h", ".asm")}
    bad += [f"{path}: {length} lines, at most {FILE_MAX}" for path, length in lengths.items() if length > FILE_MAX]
    median = statistics.median(n for path, n in lengths.items() if layer_of(path) and not path.endswith(".h"))
    if median >= MEDIAN_MAX:
        bad.append(f"the median file has {median:.0f} lines, it should be below {MEDIAN_MAX}")
    longest = max((path for path in lengths if layer_of(path)), key=lengths.get)
    return bad, (f"trusted core {trusted} lines of code, dev and debug {around}, "
                 f"median file {median:.0f} lines, longest {longest} {lengths[longest]}")
