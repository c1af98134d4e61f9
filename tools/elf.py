# SPDX-License-Identifier: MIT
"""Functions of 64-bit ELF programs, for those who mend some bytes of them."""
import struct
import sys

PT_LOAD, PF_X, SHT_DYNSYM = 1, 1, 11


def read_elf(path):
    """The bytes of a program, to be changed; ends this program if it is none."""
    with open(path, "rb") as file:
        elf = bytearray(file.read())
    if elf[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{path}: not a 64-bit little-endian ELF file")
    return elf


def write_elf(path, elf):
    with open(path, "r+b") as file:
        file.write(elf)


def find_symbol(elf, wanted):
    """Address and size of a function, by the dynamic symbol table."""
    table, entry_size, count = struct.unpack_from("<Q10xHH", elf, 0x28)
    sections = [struct.unpack_from("<IIQQQQII", elf, table + i * entry_size) for i in range(count)]
    for _, kind, _, _, offset, size, link, _ in sections:
        if kind != SHT_DYNSYM:
            continue
        names = sections[link][4]
        for at in range(offset, offset + size, 24):
            name, _, _, _, address, length = struct.unpack_from("<IBBHQQ", elf, at)
            if address and elf.startswith(wanted.encode() + b"\0", names + name):
                return address, length
    return None


def file_offset(elf, address):
    table, = struct.unpack_from("<Q", elf, 0x20)
    entry_size, count = struct.unpack_from("<HH", elf, 0x36)
    for i in range(count):
        kind, _, offset, start, _, size = struct.unpack_from("<IIQQQQ", elf, table + i * entry_size)
        if kind == PT_LOAD and start <= address < start + size:
            return address - start + offset
    return None


def body(elf, symbol):
    """Offset in the file, address, and bytes of a function; ends the program if there is none."""
    found = find_symbol(elf, symbol)
    if not found:
        sys.exit(f"{sys.argv[0]}: no function {symbol}")
    offset = file_offset(elf, found[0])
    return offset, found[0], bytes(elf[offset:offset + found[1]])


class Room:
    """Unused bytes in the last page of an ELF program's code; put() takes some for a piece of code."""

    def __init__(self, elf):
        self.elf = elf
        table, = struct.unpack_from("<Q", elf, 0x20)
        entry_size, count = struct.unpack_from("<HH", elf, 0x36)
        for self.header in range(table, table + count * entry_size, entry_size):
            kind, flags, self.offset, self.address, _, self.size = struct.unpack_from("<IIQQQQ", elf, self.header)
            if kind == PT_LOAD and flags & PF_X:
                return
        sys.exit(f"{sys.argv[0]}: the program has no code")

    def put(self, make):
        """Append make(address), which is called once. Returns the address."""
        start, end = self.size, (self.offset + self.size + 0xfff & ~0xfff) - self.offset
        code = make(self.address + start)
        at = self.offset + start
        if start + len(code) > end or any(self.elf[at:at + len(code)]):
            sys.exit(f"{sys.argv[0]}: there is no room for {len(code)} bytes of code")
        self.elf[at:at + len(code)] = code
        self.size += len(code)
        struct.pack_into("<QQ", self.elf, self.header + 0x20, self.size, self.size)
        return self.address + start


def branch(opcode, at, target):
    """A near CALL (0xe8) or JMP (0xe9) that stands at an address."""
    return bytes([opcode]) + struct.pack("<i", target - (at + 5))
