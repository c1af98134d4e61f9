# SPDX-License-Identifier: MIT
"""Two VMs: one is stopped at a breakpoint, the other goes on; then both are attached."""
import re
import time

import gdb  # pylint: disable=import-error
from common import check, run, value, variable


def written():
    return int(re.search(r"console_written=(\d+)", run("monitor vm chatter info"))[1])


def talks(seconds):
    """Does the other VM write meanwhile?"""
    before = written()
    time.sleep(seconds)
    return written() > before


run("set confirm off")
run("set pagination off")
run("break tick")
run("continue")
check("stopped", value("$pc") == value("(long)&tick"))
check("the other talks on", talks(2))
run("add-inferior")
run("inferior 2")
run("attach 2")
threads = run("info threads")
check("two VMs", '"gdb/0"' in threads and '"chatter/0"' in threads)
check("now it is stopped, too", not talks(1))
run("stepi 20")
run("detach")
run("inferior 1")
check("the first is where it was", value("$pc") == value("(long)&tick"))
check("the other runs again", talks(2))
run("delete")
run("monitor vm chatter stop")
before = variable("counter")
run("stepi 10")
run("set var *(long *)&finish = 1")
run("detach")
