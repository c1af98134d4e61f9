# SPDX-License-Identifier: MIT
"""What gdb's scripts of the system tests share: they run in gdb, and end it with status 1 if a check fails."""
import os
import sys

import gdb  # pylint: disable=import-error


def value(expression):
    return int(gdb.parse_and_eval(expression))


def variable(name):
    return value(f"*(long *)&{name}")


def run(command):
    try:
        text = gdb.execute(command, to_string=True)
    except gdb.error as error:
        print(f"> {command}\nWRONG: {error}")
        fail()
    print(f"> {command}\n{text}", end="")
    return text


def check(what, is_so, *seen):
    print("well:" if is_so else "WRONG:", what, *seen, flush=True)
    if not is_so:
        fail()


def fail():
    """At once: after an error in a script, gdb ends as if nothing was."""
    sys.stdout.flush()
    os._exit(1)


def refused(command):
    """It must not work; why it does not."""
    try:
        gdb.execute(command, to_string=True)
    except gdb.error as error:
        return str(error)
    print("WRONG: this works:", command)
    return fail()
