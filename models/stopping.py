"""SIGTERM and SIGINT as an event that every loop of a process can wait for.

Python runs a handler in the main thread, between two instructions. A signal that comes after the last of them and
before the main thread sleeps in `Event.wait` is noted, and nobody wakes the sleeper: the process would never stop. A
handler that calls `Event.set` while the main thread is just entering the wait would wait for the event's own lock. So
the handler does nothing: the interpreter writes the signal's number to a pipe the moment it arrives, in whatever thread
that is, and a thread that has nothing else to do reads the pipe and sets the event.
"""

from __future__ import annotations

import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """The event that SIGTERM or SIGINT sets. Call it once, in the main thread; the pipe stays open to the end."""
    stop = threading.Event()
    arrived, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def wait() -> None:
        while True:
            if set(os.read(arrived, 64)) & set(SIGNALS):
                stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return stop
