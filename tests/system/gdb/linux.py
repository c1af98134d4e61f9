# SPDX-License-Identifier: MIT
"""Linux with two vCPUs: attach, Ctrl-C, registers, memory, steps, detach."""
import os
import signal
import threading

import gdb  # pylint: disable=import-error
from common import check, run, value


signals = []


def let_run(seconds):
    """As somebody who types "continue" and then Ctrl-C; the signals that made it stop."""
    signals.clear()
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    run("continue")
    return signals


gdb.events.stop.connect(lambda event: signals.append(getattr(event, "stop_signal", "?")))
run("set confirm off")
run("set pagination off")
threads = run("info threads")
check("both vCPUs", '"linux/0"' in threads and '"linux/1"' in threads)
check("Ctrl-C", let_run(2) == ["SIGINT"])
for number in 1, 2:
    run(f"thread {number}")
    check("long mode", value("$efer") & 0x500 == 0x500 and value("$cr0") >> 31 == 1)
    check("code can be read", len(run("x/16xb $pc").split()) > 16)
    check("and the stack", len(run("x/4xg $rsp").split()) > 4)
    pc = value("$pc")
    run("stepi 5")
    check("steps", value("$pc") != pc)
check("Ctrl-C again", let_run(2) == ["SIGINT"])
run("detach")
