"""Whether the object store answers, for whoever asks often and must not wait: the health endpoint.

The store is asked at most once in `fresh_s`, by a thread of its own, one at a time. Whoever asks waits for that answer
at most `wait_s` after the question was put; a store that is silent for longer is away until it does answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from cloud.objects import ObjectStore, StoreError

FRESH_S = 10.0
WAIT_S = 1.0
PROBE_KEY = "health/probe"
"""Nothing is stored here: that the store can say so is the answer."""
log = structlog.get_logger(__name__)


class StoreState:
    """Call it for ``ok`` or ``away``."""

    def __init__(
        self,
        objects: ObjectStore,
        *,
        fresh_s: float = FRESH_S,
        wait_s: float = WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects, self._fresh_s, self._wait_s, self._monotonic = objects, fresh_s, wait_s, monotonic
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._asked_at: float | None = None
        self._state = "away"

    def __call__(self) -> str:
        now = self._monotonic()
        with self._lock:
            if self._due(now):
                self._asked_at = now
                self._answered.clear()
                threading.Thread(target=self._ask, name="store-state", daemon=True).start()
            asked_at = self._asked_at if self._asked_at is not None else now
        if not self._answered.wait(max(0.0, asked_at + self._wait_s - now)):
            return "away"
        return self._state

    def _due(self, now: float) -> bool:
        if self._asked_at is None:
            return True
        return self._answered.is_set() and now - self._asked_at >= self._fresh_s

    def _ask(self) -> None:
        found = "away"
        try:
            self._objects.stat(PROBE_KEY)
            found = "ok"
        except StoreError as fault:
            log.warning("health_store", error=str(fault))
        except Exception:  # the thread's edge: whoever asks must get an answer, and so must the next
            log.exception("health_store")
        self._state = found
        self._answered.set()
