"""SIGTERM and SIGINT as an event that every loop of a process can wait for.

`Event.set` takes the event's lock, and a handler runs in the main thread between any two instructions: one that called
it while the main thread was just entering `Event.wait` would wait for itself for ever. So the handler only drops a note
into a `SimpleQueue`, whose `put` is reentrant, and a thread that has nothing else to do sets the event.
"""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue


def stop_on_signals() -> threading.Event:
    """The event that SIGTERM or SIGINT sets. Call it once, in the main thread."""
    stop, notes = threading.Event(), SimpleQueue[int]()

    def wait() -> None:
        notes.get()
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _: notes.put(which))
    return stop
