#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""hold_virtual_interrupt.py BOCHS: keep virtual interrupts from guests that have interrupts off.

With virtual-interrupt delivery (VMX) a virtual interrupt waits while the guest's RFLAGS.IF is clear: its event is
masked then. But when a host interrupt comes, which IF does not hold up, HandleExtInterrupt asks only whether a virtual
interrupt is pending, and delivers it: a guest that takes an interrupt where it has interrupts off hangs sooner or
later. The repair asks for the mask too, where the function has gone for the delivery, and goes back to the VM exit:

        test byte [rbx + event_mask + 1], 2; jnz VM exit; mov rdi, rbx; call VMX_Deliver_Virtual_Interrupt

That call does not return (longjmp), so the registers that the function restored there need not be. A binary that looks
different is left alone, with exit status 1.
"""
import re
import struct
import sys

from elf import body, read_elf, write_elf

# HandleExtInterrupt: test byte [rbx + pending_event + 1], 2; jne DELIVER
ASKS = re.compile(rb"\xf6\x83(.{4})\x02\x0f\x85(.{4})", re.DOTALL)
# DELIVER: mov rdi, rbx; mov rbx, [rsp + 8]; add rsp, 24; jmp VMX_Deliver_Virtual_Interrupt; nop (7 bytes)
DELIVERS = re.compile(rb"\x48\x89\xdf\x48\x8b\x5c\x24\x08\x48\x83\xc4\x18\xe9(.{4})\x0f\x1f\x80\0{4}", re.DOTALL)


def number(field):
    return struct.unpack("<i", field)[0]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    elf = read_elf(sys.argv[1])
    offset, _, code = body(elf, "_ZN8BX_CPU_C18HandleExtInterruptEv")
    _, _, mask_code = body(elf, "_ZN8BX_CPU_C25handleInterruptMaskChangeEv")
    asks = ASKS.search(code)
    delivers = asks and DELIVERS.match(code, asks.end() + number(asks[2]))
    mask = asks and number(asks[1]) - 1 + 4  # event_mask stands behind pending_event
    if not delivers or struct.pack("<i", mask) not in mask_code:
        sys.exit("hold_virtual_interrupt: the code is not what is expected")
    at = delivers.start()
    held = b"\xf6\x83" + struct.pack("<i", mask + 1) + b"\x02\x0f\x85" + struct.pack("<i", asks.end() - (at + 13))
    call = b"\x48\x89\xdf\xe8" + struct.pack("<i", delivers.start(1) + 4 + number(delivers[1]) - (at + 13 + 8))
    repair = held + call
    elf[offset + at:offset + delivers.end()] = repair + b"\xcc" * (delivers.end() - at - len(repair))
    write_elf(sys.argv[1], elf)


main()
