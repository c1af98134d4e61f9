# SPDX-License-Identifier: MIT
"""The source tree as the checks see it: which files there are, and C and assembly without their comments."""
import functools
import os
import re

SKIPPED = {"build", ".git", "__pycache__"}
LAYERS = ("boot", "debug", "dev", "vmx", "svm", "virt", "mm", "arch/x86", "lib")
# From left to right; those that share a number don't see each other.
RANK = {"boot": 0, "debug": 1, "dev": 2, "vmx": 2, "svm": 2, "virt": 3, "mm": 4, "arch/x86": 5, "lib": 6}

# A comment, or a literal, in which what looks like a comment is none.
C_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
ASM_TOKEN = re.compile(r';[^\n]*|"[^"\n]*"|\'[^\'\n]*\'')


@functools.lru_cache(None)
def files():
    """Every file of the tree, also those that git does not know yet."""
    found = []
    for folder, folders, names in os.walk("."):
        folders[:] = sorted(set(folders) - SKIPPED)
        found += [os.path.relpath(os.path.join(folder, name), ".") for name in sorted(names)]
    return found


def select(*endings, layers=None):
    return [f for f in files() if f.endswith(endings) and (layers is None or layer_of(f) in layers)]


def layer_of(path):
    return next((name for name in LAYERS if path.startswith(name + "/")), None)


@functools.lru_cache(None)
def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def blank(match):
    """A comment becomes its line ends, so that lines keep their numbers."""
    text = match[0]
    return text if text[0] in "\"'" else " " + "\n" * text.count("\n")


@functools.lru_cache(None)
def code(path):
    """The file's text without comments."""
    return (ASM_TOKEN if path.endswith(".asm") else C_TOKEN).sub(blank, read(path))


def code_lines(path):
    return sum(1 for line in code(path).splitlines() if line.strip())


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def assembly(path):
    """What the file says in assembly: [(line, text)]; of a C file that is the literals of its asm statements."""
    text = code(path)
    if path.endswith(".asm"):
        return list(enumerate(text.splitlines(), 1))
    found = []
    for match in re.finditer(r"(?<![<\w])(?:asm|__asm__)(?:\s+(?:volatile|goto|inline))*\s*\(", text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            literal = C_TOKEN.match(text, end) if text[end] in "\"'" else None
            depth += (text[end] == "(") - (text[end] == ")")
            end = literal.end() if literal else end + 1
        body = text[match.end():end]
        words = " ".join(literal[1:-1] for literal in C_TOKEN.findall(body) if literal[0] == '"')
        found.append((line_of(text, match.start()), words.replace("\\n", " ").replace("\\t", " ")))
    return found
