from __future__ import annotations

import subprocess
import sys

import pytest

WHILE_THE_EVENT_IS_LOCKED = """
import os, signal, time
from models.stopping import stop_on_signals

stop = stop_on_signals()
with stop._cond:  # where the main thread is for a moment in every wait
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.05)
print(stop.wait(10))
"""
IN_ANOTHER_THREAD = """
import signal, threading, time
from models.stopping import stop_on_signals

stop = stop_on_signals()
threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), signal.{name})).start()
stop.wait()  # the main thread sleeps and gets no signal of its own
print(True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("code", [WHILE_THE_EVENT_IS_LOCKED, IN_ANOTHER_THREAD])
def test_a_signal_ends_the_wait_wherever_it_arrives(name: str, code: str) -> None:
    run = [sys.executable, "-c", code.format(name=name)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "True\n"
