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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_comes_while_the_event_is_locked_ends_the_wait(name: str) -> None:
    code = WHILE_THE_EVENT_IS_LOCKED.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "True\n"
