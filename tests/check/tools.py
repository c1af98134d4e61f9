# SPDX-License-Identifier: MIT
"""Checks by programs: clang-format, cppcheck, clang-tidy, spin."""
import concurrent.futures
import hashlib
import os
import re
import shlex
import subprocess
import tempfile

from tree import LAYERS, select

LOADER = "boot/efi_main.c"
LOADER_FLAGS = ["-fshort-wchar", "-DGNU_EFI_USE_MS_ABI",
                "-isystem", "/usr/include/efi", "-isystem", "/usr/include/efi/x86_64"]
# The variant that checks more has more to look at.
PROVE = ["-UPROVE_MMU", "-DPROVE_MMU=1"]
# Of gcc only.
GCC_ONLY = ("-mgeneral-regs-only", "-fcf-protection=none")


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)


def check_format(options):
    sources = select(".c", ".h")
    parts = [sources[i::options.j] for i in range(options.j)]
    bad = []
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        for done in pool.map(lambda part: run("clang-format", "--dry-run", "-Werror", *part), parts):
            places = sorted(set(re.findall(r"^(\S+:\d+):\d+: error: ", done.stdout, re.M)))
            bad += [f"{place}: not as clang-format would have it" for place in places]
            if done.returncode and not places:
                bad += done.stdout.splitlines()
    return bad, f"{len(sources)} files"


def check_capability(options):
    """EXIT_ON_MISSING and the full report are one thing: without either of them these files don't compile."""
    header = "virt/memfault.h"
    with open(header, encoding="utf-8") as file:
        text = file.read()
    changes = {
        "as it is": (r"$^", ""),
        "no flag": (r"#define MEMORY_FAULT_EXITS .*", ""),
        "a flag that promises nothing": (r"#define MEMORY_FAULT_EXITS .*", "#define MEMORY_FAULT_EXITS 0"),
        "no report": (r"struct memory_fault \{", "struct another {"),
        "no such kind": (r"\n\s*MEMORY_MISSING = MEMORY_FAULT_EXITS", ""),
    }
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "virt"))
        for name, (pattern, by) in changes.items():
            with open(os.path.join(folder, header), "w", encoding="utf-8") as file:
                file.write(re.sub(pattern, by, text))
            flags = [f"-I{folder}", *shlex.split(options.cflags), "-DFAULTS=0", "-DEXIT_COST=0", "-fsyntax-only"]
            done = run("gcc", *flags, "virt/slots.c", "virt/memfault.c")
            if (done.returncode == 0) != (name == "as it is"):
                bad.append(f"{header}: {name}: " + (done.stdout.splitlines()[0] if done.returncode else "compiles"))
    return bad, f"{len(changes) - 1} halves of it"


def check_cppcheck(options):
    sources = select(".c", layers=LAYERS)
    cache = os.path.join(options.build, "check", "cppcheck")
    os.makedirs(cache, exist_ok=True)
    done = run("cppcheck", "-q", f"-j{options.j}", f"--cppcheck-build-dir={cache}", "--std=c11", "--platform=unix64",
               "--enable=warning,style,performance,portability", "--inline-suppr", "--error-exitcode=1",
               "--suppressions-list=tests/check/cppcheck.suppress", "--template={file}:{line}: {message} [{id}]",
               "-D__x86_64__", "-DPROVE_MMU=1", "-I.", f"-I{options.build}", *sources)
    if done.returncode and not done.stdout.strip():
        return [f"cppcheck ended with status {done.returncode}"], ""
    return done.stdout.splitlines(), f"{len(sources)} files"


def tidy(path, flags, cache):
    """Findings in one file. What was fine and has not changed, after preprocessing, is not looked at again."""
    flags = flags + LOADER_FLAGS if path == LOADER else flags
    text = run("clang", "-E", *flags, path).stdout
    with open(path, encoding="utf-8") as source, open(".clang-tidy", encoding="utf-8") as config:
        key = hashlib.sha256("\0".join([config.read(), source.read(), text, *flags]).encode()).hexdigest()
    stamp = os.path.join(cache, path.replace("/", "-"))
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            if file.read() == key:
                return []
    done = run("clang-tidy", "--quiet", "--warnings-as-errors=*", path, "--", *flags)
    found = re.findall(r"^(\S+:\d+:\d+: (?:warning|error): .*)$", done.stdout, re.M)
    if not found and done.returncode:
        found = done.stdout.splitlines() or [f"{path}: clang-tidy ended with status {done.returncode}"]
    if not found:
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(key)
    return [line.replace(os.getcwd() + "/", "").replace("./", "") for line in found]


def check_tidy(options):
    sources = select(".c", layers=LAYERS)
    flags = [flag for flag in shlex.split(options.cflags) if flag not in GCC_ONLY] + PROVE
    cache = os.path.join(options.build, "check", "tidy")
    os.makedirs(cache, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        found = [line for lines in pool.map(lambda path: tidy(path, flags, cache), sources) for line in lines]
    return sorted(set(found)), f"{len(sources)} files"


def check_model(options):
    """Models of tests/model, in all interleavings: spin writes the checker, which says how many errors it found."""
    bad, states = [], 0
    for path in select(".pml"):
        work = os.path.join(options.build, "check", os.path.basename(path))
        os.makedirs(work, exist_ok=True)
        script = (f"cp {path} {work}/model.pml && cd {work} && spin -a model.pml && "
                  "gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=2048 -o pan pan.c && ./pan -m500000")
        done = run("sh", "-c", script)
        found = re.search(r"^State-vector .*, errors: 0\n\s*(\d+) states, stored$", done.stdout, re.M)
        if done.returncode or not found or "Search not completed" in done.stdout:
            bad += [f"{path}: {line}" for line in done.stdout.splitlines() if line.strip()][:20]
        else:
            states += int(found[1])
    return bad, f"{states} states"
