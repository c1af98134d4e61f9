#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""commit_rip.py BOCHS: mend Bochs' loop for several CPUs.

With one CPU, Bochs notes RIP anew after each exception that it delivers (cpu_loop: prev_rip = RIP). With several,
cpu_run_trace does not: an external interrupt that arrives before the handler's first instruction then ends a guest's
run with the RIP of the instruction that faulted, while RSP is already the handler's. One such exit crashes any guest.
The repair is what cpu_loop does, at the start of cpu_run_trace: its first instructions move to a free place, behind

        mov rax, [rdi + RIP]; mov [rdi + prev_rip], rax; mov byte [rdi + speculative_rsp], 0

The offsets are read from cpu_loop's own code. A binary that looks different is left alone, with exit status 1.
"""
import re
import struct
import sys

from elf import body, read_elf, write_elf

FIELD = rb"(.{4})"
# cpu_loop: mov rax, [rdx + RIP]; mov byte [rdx + speculative_rsp], 0; mov [rdx + prev_rip], rax
NOTES = re.compile(rb"\x48\x8b\x82" + FIELD + rb"\xc6\x82" + FIELD + rb"\x00\x48\x89\x82" + FIELD, re.DOTALL)
# cpu_run_trace: endbr64; sub rsp, N; mov eax, [rdi + async_event]
START = re.compile(rb"\xf3\x0f\x1e\xfa(\x48\x83\xec.\x8b\x87.{4})", re.DOTALL)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    elf = read_elf(sys.argv[1])
    notes = NOTES.search(body(elf, "_ZN8BX_CPU_C8cpu_loopEv")[2])
    trace_offset, trace, code = body(elf, "_ZN8BX_CPU_C13cpu_run_traceEv")
    start = START.match(code)
    # The room behind the shorter long_idiv that replace_function.py left.
    room_offset, room, idiv = body(elf, "_Z9long_idivP7Bit128sPlPKS_l")
    used = len(idiv.rstrip(b"\xcc"))
    if not notes or not start:
        sys.exit("commit_rip: the code is not what is expected")
    rip, speculative, previous = notes.groups()
    moved = start.group(1)
    detour = b"\x48\x8b\x87" + rip + b"\x48\x89\x87" + previous + b"\xc6\x87" + speculative + b"\x00" + moved
    back = trace + 4 + len(moved)
    detour += b"\xe9" + struct.pack("<i", back - (room + used + len(detour) + 5))
    if used + len(detour) > len(idiv):
        sys.exit("commit_rip: no room for the repair")
    jump = b"\xe9" + struct.pack("<i", room + used - (trace + 4 + 5))
    elf[room_offset + used:room_offset + used + len(detour)] = detour
    elf[trace_offset + 4:trace_offset + 4 + len(moved)] = jump + b"\x90" * (len(moved) - len(jump))
    write_elf(sys.argv[1], elf)


main()
