#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""unmask_at_entry.py BOCHS: let interrupts end the run of a guest that is entered with interrupts off.

Under VMX with external-interrupt exiting, a guest's RFLAGS.IF does not hold up the host's interrupts. Bochs decides on
that in handleInterruptMaskChange, when IF is loaded; but VM entry loads the guest's RFLAGS before it sets in_vmx_guest.
So after an entry with IF clear the host's interrupts wait until the guest changes IF: a guest that spins with
interrupts off keeps its CPU for ever. The repair asks handleInterruptMaskChange once more, where VM entry calls
VMenterInjectEvents, when in_vmx_guest is set:

        push rdi; call handleInterruptMaskChange; pop rdi; jmp VMenterInjectEvents

This needs a free place (behind what commit_rip.py put in); run it after that. A binary that looks different is left
alone, with exit status 1.
"""
import struct
import sys

from elf import body, read_elf, write_elf


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    elf = read_elf(sys.argv[1])
    load_offset, load, _ = body(elf, "_ZN8BX_CPU_C26VMenterLoadCheckGuestStateEPm")
    inject = body(elf, "_ZN8BX_CPU_C19VMenterInjectEventsEv")[1]
    mask = body(elf, "_ZN8BX_CPU_C25handleInterruptMaskChangeEv")[1]
    room_offset, room, idiv = body(elf, "_Z9long_idivP7Bit128sPlPKS_l")
    used, size = len(idiv.rstrip(b"\xcc")), len(idiv)

    def branch(opcode, at, target):
        return opcode + struct.pack("<i", target - (at + 5))

    # VMLAUNCH is in the same file of the source as these two: calls from near by.
    calls = [i for i in range(load_offset - 0x10000, load_offset + 0x10000)
             if elf[i:i + 5] == branch(b"\xe8", load + i - load_offset, inject)]
    at = room + used
    detour = b"\x57" + branch(b"\xe8", at + 1, mask) + b"\x5f" + branch(b"\xe9", at + 7, inject)
    if len(calls) != 1 or used + len(detour) > size:
        sys.exit(f"unmask_at_entry: the code is not what is expected ({len(calls)} calls, {size - used} bytes)")
    elf[room_offset + used:room_offset + used + len(detour)] = detour
    elf[calls[0]:calls[0] + 5] = branch(b"\xe8", load + calls[0] - load_offset, at)
    write_elf(sys.argv[1], elf)


main()
