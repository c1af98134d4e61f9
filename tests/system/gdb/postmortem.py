# SPDX-License-Identifier: MIT
"""A Corbel that has crashed by the monitor's "crash HOW": backtraces, variables, memory; it can't be changed."""
import os
import re

import gdb  # pylint: disable=import-error
from common import check, refused, run, value

run("set confirm off")
run("set pagination off")
threads = run("info threads")
check("who crashed", bool(re.search(r'\* \d+ +Thread (\d+) "CPU \d+" \(crashed, no vCPU\)', threads)) and
      bool(re.search(r'"CPU \d+" \((no vCPU|for busy/0)\)', threads)))
me = gdb.selected_thread()
trace = run("backtrace")
how = {"panic": r" crash_message .*\n#1 .* panic ", "trap": "#0 .*cmd_crash", "hang": r"#\d .*halt_forever"}
check("where", bool(re.search(how[os.environ["HOW"]], trace)))
check("who called", bool(re.search(r"\bcmd_crash \(.*\) at debug/commands_system\.c:\d+\n(.*\n)*"
                                   r".* sched_loop \(\) at virt/sched\.c:\d+", trace)))
frame = gdb.newest_frame()
while frame.name() != "cmd_crash":
    frame = frame.older()
frame.select()
check("arguments", f'"{os.environ["HOW"]}"' in run("print argv[1]"))
everybody = run("thread apply all backtrace")
check("what the other CPU did", len(re.findall(r" sched_loop \(\) at virt/sched\.c:\d+", everybody)) == 2)
check("variables", value("nr_cpus") == 2 and value("cpus[1].state") == value("CPU_ONLINE"))
check("structures", '"busy"' in run("print ((struct vm *)((char *)vm_list.next - "
                                    "(long)&((struct vm *)0)->node))->name"))
for number in 1, 2:
    run(f"thread {number}")
    check("its own variables", value("*(unsigned *)((char *)&cpu_id + $gs_base)") == number - 1)
run(f"thread {me.num}")
for address in 0, 8 << 44, 0xffffa00000000000, (1 << 64) - 4096:
    check("bad addresses", "Cannot access memory" in refused(f"x/1xb {address:#x}"))
check("up to the end of a page", "Cannot access memory" in refused("x/2xb (char *)cpus[0].stack_top - 16384 - 1"))
refused("set var nr_cpus = 1")
refused("set var $rip = 0")
check("and all is as it was", value("nr_cpus") == 2)
run("disconnect")
run("target remote " + os.environ["LINE"])
check("again", gdb.selected_thread().ptid == me.ptid if me.is_valid() else True)
run("kill")
