# SPDX-License-Identifier: MIT
"""On the guest "gdb": breakpoints, STEPS steps, watchpoints, registers, memory through paging; none of it is seen."""
import os

import gdb  # pylint: disable=import-error
from common import check, refused, run, value, variable

STEPS = int(os.environ["STEPS"])

run("set confirm off")
run("set pagination off")
check("the thread has a name", '"gdb/0"' in run("info threads"))
check("memory through the guest's tables", '"through the window"' in run("x/s 0x8000005000"))
check("an address that leads nowhere", "Cannot access memory" in refused("x/1xb 0x7000000000"))
check("a device is no memory", "Cannot access memory" in refused("x/1xb 0xfee00000"))
check("control registers", value("$cr3") == value("(long)&pml4") and value("$efer") == 0x501 and
      value("$cr0") >> 31 == 1 and value("$cr4") & 0x20)
check("segments", value("$cs") in (8, 0x23) and value("$ss") in (0x10, 0x18, 0x1b))

run("break tick")
run("continue")
check("stopped where it shall", value("$pc") == value("(long)&tick"))
before = variable("counter")
check("the breakpoint does not show", value("*(unsigned char *)&tick") == 0x48)
run("continue")
check("again, one round later", variable("counter") == before + 1)
run("delete")

before = variable("counter")
run(f"stepi {STEPS}")
rounds = variable("counter") - before
check("one instruction at a time", STEPS // 110 <= rounds <= STEPS // 70 + 1, rounds, "rounds")
check("the guest saw nothing of it", variable("errors") == 0)

run("watch *(long *)&watched")
run("continue")
first = variable("watched")
run("continue")
check("the watchpoint", variable("watched") == first + 1)
check("behind the instruction that wrote", f"{value('(long)&watched'):#x}" in run("x/2i $pc - 8"))
run("delete")
run("rwatch *(long *)&finish")
run("continue")
check("a read", value("$pc") > value("(long)&round"))
run("delete")
run("hbreak tick")
run("continue")
check("a hardware breakpoint", value("$pc") == value("(long)&tick"))
run("delete")
run("hbreak round")
run("hbreak tick")
run("watch *(long *)&watched")
for place in "watched", "round", "tick", "watched":
    run("continue")
    check("several at once", place == "watched" or value("$pc") == value(f"(long)&{place}"))
run("delete")

run("set var $xmm3.uint128 = 0x123456789abcdef")
check("SSE", value("$xmm3.v2_int64[0]") == 0x123456789abcdef)
run("set var $r15 = 0x1122334455667788")
run("stepi")
check("registers stay", value("$r15") == 0x1122334455667788 and value("$xmm3.v2_int64[0]") == 0x123456789abcdef)
check("a selector can't be loaded", "Could not write" in refused("set var $ds = 0x18"))
check("monitor commands", "vm=gdb" in run("monitor vms"))

check("the guest's own breakpoints came", variable("bps") and variable("dbs") and variable("ints"))
check("and no others", variable("errors") == 0)
run("set var *(long *)&finish = 1")
run("detach")
