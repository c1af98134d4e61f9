# SPDX-License-Identifier: MIT
"""After lives.py: nothing of what that gdb has set is left."""
from common import check, run, value, variable

run("set confirm off")
run("set pagination off")
check("it is where it was", value("$pc") == value("(long)&tick"))
before = variable("counter")
run("stepi 2000")
check("no breakpoint is left", variable("counter") > before + 10)
check("and none was seen", variable("errors") == 0)
run("set var *(long *)&finish = 1")
run("detach")
