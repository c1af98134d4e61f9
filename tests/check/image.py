# SPDX-License-Identifier: MIT
"""What the linked image has to satisfy."""
import os
import re
import subprocess

EFI_MAX = 416 * 1024  # without guests


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def symbols(path):
    """Code and data that is linked once and again; the table of symbols is what the second link adds."""
    lines = [line.split() for line in output("nm", path).splitlines()]
    return {words[2]: words[0] for words in lines
            if len(words) == 3 and words[1] in "tTdDbBrR" and "ksyms_" not in words[2]}


def check_segments(elf):
    bad = []
    segments = re.findall(r"^\s+(\w+)\s+0x\w+ 0x(\w+) 0x\w+ 0x\w+ 0x\w+ ([RWE ]{3})",
                          output("readelf", "-lW", elf), re.M)
    loads = [(address, flags) for kind, address, flags in segments if kind == "LOAD"]
    for address, flags in loads:
        if "W" in flags and "E" in flags:
            bad.append(f"{elf}: the segment at 0x{address} is writable and executable")
    if not any("E" in flags for _, flags in loads) or not any("W" in flags for _, flags in loads):
        bad.append(f"{elf}: code or data is missing among the segments")
    bad += [f"{elf}: has a {kind} segment: it is to be static"
            for kind, *_ in segments if kind in ("DYNAMIC", "INTERP", "TLS")]
    return bad


def check_image(options):
    elf, first, efi = (os.path.join(options.build, name) for name in ("corbel.elf", "corbel1.elf", "corbel.efi"))
    bad = check_segments(elf)
    bad += [f"{elf}: relocation {line}"
            for line in re.findall(r"^[0-9a-f]{12,16} .*$", output("readelf", "-rW", elf), re.M)]
    bad += [f"{elf}: undefined: {line.split()[-1]}" for line in output("nm", "-u", elf).splitlines() if line.strip()]
    one, two = symbols(first), symbols(elf)
    bad += [f"{elf}: {name} is not where the first link had it"
            for name in sorted(set(one) | set(two)) if one.get(name) != two.get(name)]
    if not two:
        bad.append(f"{elf}: has no symbols")
    # Helpers of libgcc: 128-bit arithmetic and floating point have no place here.
    helpers = [name for name in two if re.fullmatch(r"__\w+(?:[sdtx]f|[sdt]i)[234]|__(?:fix|float)\w+", name)]
    bad += [f"{elf}: {name} of libgcc" for name in helpers]
    size = os.path.getsize(efi)
    if size >= EFI_MAX:
        bad.append(f"{efi}: {size} bytes, it is to be below {EFI_MAX}")
    return bad, f"{os.path.basename(efi)} {size} of {EFI_MAX} bytes, {len(two)} symbols"
