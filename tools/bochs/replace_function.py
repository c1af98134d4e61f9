#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""replace_function.py BINARY SYMBOL CODE: put the bytes of the file CODE in the place of a function of an ELF binary.

Ends with an error, and changes nothing, if the binary does not export SYMBOL or the function is smaller than CODE.
"""
import sys

from elf import body, read_elf, write_elf


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    path, symbol, code_path = sys.argv[1:]
    elf = read_elf(path)
    with open(code_path, "rb") as file:
        code = file.read()
    offset, _, old = body(elf, symbol)
    size = len(old)
    if len(code) > size:
        sys.exit(f"{path}: {symbol} has {size} bytes, {len(code)} are needed")
    elf[offset:offset + size] = code + b"\xcc" * (size - len(code))
    write_elf(path, elf)


main()
