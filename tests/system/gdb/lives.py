# SPDX-License-Identifier: MIT
"""What happens to a VM that is held, and to its debugger: its CPU goes, it is reset, stopped, started, destroyed; this
gdb ends without a word (last.py is the next one)."""
import os
import re
import signal
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

run("monitor vm gdb stop")
check("so does a stop", wait_for("state", lambda state: state == "stopped"))
run("continue")
check("an end", not gdb.selected_inferior().pid)
run(f"attach {me}")
run("monitor vm gdb start")
check("it starts", wait_for("starts", lambda n: n == "3"))
run("maintenance flush register-cache")
run("delete")
run("hbreak tick")
run("continue")
check("and was held at its first instruction", value("$pc") == value("(long)&tick") and variable("counter") == 0)
run("delete")

run("add-inferior")
run("inferior 2")
other = re.search(r"vm=chatter id=(\d+)", run("monitor vms"))[1]
run(f"attach {other}")
run("monitor vm chatter stop")
for _ in range(50):
    time.sleep(0.2)
    if "it is running" not in run("monitor vm chatter destroy"):
        break
time.sleep(1)
check("destroyed while it is held", "chatter" not in run("monitor vms"))
run("continue")
check("which is an end, too", not gdb.selected_inferior().pid)
run("inferior 1")
check("which another VM does not mind", value("$pc") == value("(long)&tick"))
run("set breakpoint always-inserted on")
run("break round")
run("break own_target")
check("all is well so far", True)
os.kill(os.getpid(), signal.SIGKILL)
