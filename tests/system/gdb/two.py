# SPDX-License-Identifier: MIT
"""Two VMs: one is stopped at a breakpoint, the other goes on; then both are attached."""
import re
import time

import gdb  # pylint: disable=import-error
from common import check, run, value, variable


def written():
    return int(re.search(r"console_written=(\d+)", run("monitor vm chatter info"))[1])


run("set confirm off")
run("set pagination off")
run("break tick")
run("continue")
check("stopped", value("$pc") == value("(long)&tick"))
before = written()
time.sleep(2)
check("the other talks on", written() > before)
run("add-inferior")
run("inferior 2")
run("attach 2")
threads = run("info threads")
check("two VMs", '"gdb/0"' in threads and '"chatter/0"' in threads)
before = written()
time.sleep(1)
check("now it is stopped, too", written() == before)
run("stepi 20")
run("detach")
run("inferior 1")
check("the first is where it was", value("$pc") == value("(long)&tick"))
before = written()
time.sleep(2)
check("the other runs again", written() > before)
run("delete")
run("monitor vm chatter stop")
before = variable("counter")
run("stepi 10")
run("set var *(long *)&finish = 1")
run("detach")
