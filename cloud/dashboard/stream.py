"""One event stream per tab: a tick every few seconds, and "changed" when something the pages show has changed.

The digest of the data is the event's id, so a reconnecting tab says what it last saw and hears of a change it missed.
The digest is shared by all tabs and taken at most once a second. A failure to read it ends the stream: the tab's clock
then stands still and turns abnormal, which is the truth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable

import anyio
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event

TICK_S = 3.0
LONGEST_S = 900.0
SHARED_S = 1.0


class Pulse:
    """The digest of the data, read by `read` and kept for a moment."""

    def __init__(self, read: Callable[[], str], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read, self._monotonic = read, monotonic
        self._lock = threading.Lock()
        self._value, self._at = "", float("-inf")

    def now(self) -> str:
        with self._lock:
            if self._monotonic() - self._at >= SHARED_S:
                self._value = self._read()
                self._at = self._monotonic()
            return self._value


async def events(pulse: Pulse, *, seen: str, clock: Callable[[], str], tick_s: float = TICK_S) -> AsyncIterator[bytes]:
    """The stream's bytes.

    Args:
        seen: the digest the tab's page was made from, or the last event's id.
        clock: the time to show as "data as of".
    """
    ends = anyio.current_time() + LONGEST_S
    while anyio.current_time() < ends:
        value = await run_in_threadpool(pulse.now)
        name = "tick" if value == seen else "changed"
        seen = value
        yield format_sse_event(event=name, data_str=clock(), id=value)
        await anyio.sleep(tick_s)
