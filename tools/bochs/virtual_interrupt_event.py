#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""virtual_interrupt_event.py BOCHS: a VM exit while a virtual interrupt is delivered tells of that interrupt.

Events that a guest gets are noted by VMexit_Event(), and what was noted last becomes the IDT-vectoring information of
an exit during the delivery (an EPT violation, because the guest's stack is not there). VMX_Deliver_Virtual_Interrupt()
notes nothing: such an exit tells of the event before it, often a page fault, and a hypervisor delivers that again.

The repair notes the interrupt where the function calls a hook for instrumentation, which does nothing in this build:

        mov [rbp + idt_vector_info], r12d; mov byte [rbp + nmi_unblocking_iret], 0

(an external interrupt's type is 0). A binary that looks different is left alone, with exit status 1.
"""
import re
import struct
import sys

from elf import body, file_offset, read_elf, write_elf

# VMexit_Event: error code; mov rbx, [rsp + n]; or r11d, r12d; nmi_unblocking_iret = 0; ...; info = r11d
NOTES = re.compile(rb"\x89\x9d.{4}\x48\x8b\x5c\x24.\x45\x09\xe3\xc6\x85(.{4})\0.{0,12}?\x44\x89\x9d(.{4})", re.DOTALL)
# VMX_Deliver_Virtual_Interrupt, vector in r12: rcx = RIP; dx = CS; esi = r12d; edi = CPU; call hook; interrupt(...)
DELIVERS = re.compile(rb"\x48\x8b\x8d.{4}\x0f\xb7\x95.{4}\x44\x89\xe6\x8b\x7d.\xe8(.{4})"
                      rb"(?=\x45\x31\xc0\x31\xc9\x31\xd2\x44\x89\xe6\x48\x89\xef\xe8)", re.DOTALL)
DOES_NOTHING = b"\xf3\x0f\x1e\xfa\xc3"  # endbr64; ret


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    elf = read_elf(sys.argv[1])
    _, _, noting = body(elf, "_ZN8BX_CPU_C12VMexit_EventEjjtbm")
    offset, address, code = body(elf, "_ZN8BX_CPU_C29VMX_Deliver_Virtual_InterruptEv")
    notes, delivers = NOTES.search(noting), DELIVERS.search(code)
    hook = delivers and file_offset(elf, address + delivers.end() + struct.unpack("<i", delivers[1])[0])
    if not notes or not hook or elf[hook:hook + len(DOES_NOTHING)] != DOES_NOTHING:
        sys.exit("virtual_interrupt_event: the code is not what is expected")
    repair = b"\x44\x89\xa5" + notes[2] + b"\xc6\x85" + notes[1] + b"\0"
    elf[offset + delivers.start():offset + delivers.end()] = repair.ljust(delivers.end() - delivers.start(), b"\x90")
    write_elf(sys.argv[1], elf)


main()
