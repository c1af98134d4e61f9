# SPDX-License-Identifier: MIT
"""What happens to a VM that is held: its CPU goes offline, it is reset. And a breakpoint where no page is."""
import re
import time

import gdb  # pylint: disable=import-error
from common import check, refused, run, value, variable


def info(key):
    return re.search(rf"\b{key}=(\S+)", run("monitor vm gdb info"))[1]


def wait_for(key, is_so):
    for _ in range(100):
        if is_so(info(key)):
            return True
        time.sleep(0.1)
    return False


run("set confirm off")
run("set pagination off")
me = gdb.selected_inferior().pid
check("the one that was chosen", info("id") == str(me))
run("break *0x7000000000")
why = refused("continue")
check("no breakpoint where no page is", "aborted" in why or "Cannot insert" in why, why)
run("delete")

where = int(re.search(r" cpu=(\d+)", run("monitor vm gdb info"))[1])
check("it does not run on CPU 0, which can't go", where == 1)
pc = value("$pc")
run("monitor cpu 1 offline")
check("held, it gets another CPU", wait_for("rip", lambda _: " cpu=0 state=paused" in run("monitor vm gdb info")))
check("and nothing else changes", value("$pc") == pc)
run("stepi 300")
run("break tick")
run("continue")
# (On QEMU breakpoints of its own stay behind: only MOV DR7 arms them. So CPU 1 does not come back here.)
check("it goes on there", value("$pc") == value("(long)&tick"))

run("monitor vm gdb reset")
check("a reset of one that is held", wait_for("starts", lambda n: n == "2"))
run("maintenance flush register-cache")
check("it is held where it begins", value("$pc") == value("(long)&start"))
run("continue")
check("breakpoints in the new life", value("$pc") == value("(long)&tick") and variable("counter") == 0)
run("stepi 300")
check("steps in the new life", variable("errors") == 0)

run("set var *(long *)&finish = 1")
run("detach")
