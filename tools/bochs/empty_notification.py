#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""empty_notification.py BOCHS: a notification that finds no posted interrupt delivers none.

Posted-interrupt processing (VMX) raises RVI to the highest vector that was posted. Bochs looks for the highest one of
the virtual IRR instead; and if there is none, highest_priority_int() returns -1, which becomes RVI 255. A notification
that comes late, when the hypervisor has collected the interrupts already and the guest has taken them, so brings the
guest vector 0xff. A Linux takes that for a spurious interrupt and sends no EOI: it never gets another interrupt.

The repair asks for the posted ones, and raises RVI only if there are some:

        lea rsi, [rsp + PIR]; call highest_priority_int
        lea rcx, [rbx + rvi]; test eax, eax; js DONE; cmp [rcx], al; jae DONE; mov [rcx], al
  DONE: mov rdi, rbx; call VMX_Evaluate_Pending_Virtual_Interrupts; mov al, 1

(all of EAX was loaded before, for a bool). A binary that looks different is left alone, with exit status 1.
"""
import re
import struct
import sys

from elf import body, branch, find_symbol, read_elf, write_elf

# VIRR |= PIR: or eax, [rsp + rbp + PIR]
PIR = re.compile(rb"\x0b\x44\x2c(.)", re.DOTALL)
# lea rsi, [rsp + VIRR]; call; cmp al, [rbx + rvi]; jb +6; mov [rbx + rvi], al; mov rdi, rbx; call; mov eax, 1
RAISES = re.compile(rb"\x48\x8d\x74\x24.\xe8(.{4})\x3a\x83(?P<rvi>.{4})\x72\x06\x88\x83(?P=rvi)\x48\x89\xdf\xe8(.{4})"
                    rb"\xb8\x01\0\0\0", re.DOTALL)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    elf = read_elf(sys.argv[1])
    offset, address, code = body(elf, "_ZN8BX_CPU_C31VMX_Posted_Interrupt_ProcessingEh")
    evaluate = find_symbol(elf, "_ZN8BX_CPU_C39VMX_Evaluate_Pending_Virtual_InterruptsEv")
    pir, raises = PIR.search(code), RAISES.search(code)
    called = raises and address + raises.end(3) + struct.unpack("<i", raises[3])[0]
    if not pir or not evaluate or called != evaluate[0]:
        sys.exit("empty_notification: the code is not what is expected")
    at = raises.end(1)
    repair = b"\x48\x8d\x8b" + raises["rvi"] + b"\x85\xc0\x78\x06\x38\x01\x73\x02\x88\x01\x48\x89\xdf"
    repair += branch(0xe8, address + at + len(repair), called) + b"\xb0\x01"
    assert at + len(repair) == raises.end()
    elf[offset + raises.start() + 4] = pir[1][0]
    elf[offset + at:offset + raises.end()] = repair
    write_elf(sys.argv[1], elf)


main()
